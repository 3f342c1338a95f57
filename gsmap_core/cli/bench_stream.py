"""`gsmap bench stream`: what a frame costs at the end of a long drive, against its beginning."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from gsmap_core.runtime.predictor import Predictor
    from gsmap_core.structures import SurroundFrame

#: Frames mapped before anything is measured, so that memory is what it stays.
_NUM_WARM_FRAMES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        '--config',
        default='interactionmap_r_mini',
        metavar='NAME',
        help='model with random weights (interactionmap_r_mini)',
    )
    parser.add_argument('--weights', metavar='FILE', help='trained model, instead of --config')
    parser.add_argument(
        '--frames', type=int, default=2000, metavar='N', help='length of the drive (2000)'
    )
    parser.add_argument(
        '--segments', type=int, default=10, metavar='N', help='parts it is measured in (10)'
    )
    parser.add_argument('--rate-hz', type=float, default=10.0, help='frames per second (10)')
    parser.add_argument('--town', type=int, default=0, metavar='SEED', help='town to drive in (0)')
    parser.add_argument(
        '--pictures',
        type=int,
        default=4,
        metavar='N',
        help='camera sets to render, shown in turn; 0: noise (4)',
    )
    parser.add_argument(
        '--rig', default='nuscenes_like', metavar='NAME', help='rig by name or YAML file'
    )
    parser.add_argument('--threads', type=int, metavar='N', help='threads of the CPU (as torch)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda[:N] (auto)')
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args: argparse.Namespace) -> int:
    """Map a long drive through a synthetic town as a vehicle would, in one stream."""
    import json
    import tempfile
    from pathlib import Path

    import torch

    from gsmap_core.cli.bench_measure import describe_device
    from gsmap_core.errors import ConfigError
    from gsmap_core.runtime.predictor import Predictor

    for name, least in (('frames', 1), ('segments', 2), ('pictures', 0)):
        if getattr(args, name) < least:
            raise ConfigError(f'--{name} {getattr(args, name)}; expected at least {least}')
    if args.frames % args.segments:
        raise ConfigError(
            f'--frames {args.frames} in --segments {args.segments}; expected a multiple'
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights or _random_weights(args.config, Path(folder) / 'random.safetensors')
        predictor = Predictor(weights, device=args.device)
    frames = _long_drive(args)
    for _ in range(_NUM_WARM_FRAMES):
        predictor.predict(next(frames))
    length = args.frames // args.segments
    segments = [_measured(predictor, frames, length) for _ in range(args.segments)]
    result = {
        **describe_device(predictor.device),
        'model': predictor.config.name,
        'frames': args.frames,
        'rate_hz': args.rate_hz,
        'stream': vars(predictor.stream_status),
        'segments': segments,
        'last_to_first': {
            key: last / first
            for (key, first), last in zip(segments[0].items(), segments[-1].values(), strict=True)
            if first and last
        },
    }
    print(json.dumps(result) if args.json else _as_text(result))
    return 0


def _random_weights(config: str, path: Path) -> Path:
    import torch

    from gsmap_core.config import load_model_config
    from gsmap_core.models.checkpoint import save_checkpoint
    from gsmap_core.models.mapper import OnlineMapper

    torch.manual_seed(0)
    save_checkpoint(path, OnlineMapper(load_model_config(config)), {'trained_on': 'nothing'})
    return path


def _long_drive(args: argparse.Namespace) -> Iterator[SurroundFrame]:
    """Yield camera sets with the poses of one drive; a few pictures come again and again."""
    from dataclasses import replace

    import numpy as np

    from gsmap_core.data.synthetic.drive import SyntheticDrive
    from gsmap_core.data.synthetic.recording import DriveSpec
    from gsmap_core.structures import SurroundFrame

    num_frames = args.frames + _NUM_WARM_FRAMES
    spec = DriveSpec(
        args.town, setting='easy', rig=args.rig, duration_s=num_frames / args.rate_hz,
        rate_hz=args.rate_hz,
    )  # fmt: skip
    drive = SyntheticDrive(spec)
    stamps = [drive.stamp_ns(index) for index in range(num_frames)]
    poses = drive.recording.trajectory.poses(stamps)
    if args.pictures:
        chosen = np.linspace(0, num_frames - 1, args.pictures).round().astype(int)
        sets = [drive.frame(int(index)) for index in chosen]
    else:
        noise = np.random.default_rng(0)
        pictures = tuple(
            noise.integers(0, 256, (camera.height_px, camera.width_px, 3), dtype=np.uint8)
            for camera in drive.rig.cameras
        )
        sets = [SurroundFrame(0, drive.rig, pictures, scene=drive.name)]
    for index, (stamp, pose) in enumerate(zip(stamps, poses, strict=True)):
        frame = sets[index % len(sets)]
        yield replace(
            frame, stamp_ns=stamp, map_from_base=pose, camera_stamps_ns=(stamp,) * len(frame.rig)
        )


def _measured(
    predictor: Predictor, frames: Iterator[SurroundFrame], num_frames: int
) -> dict[str, float | None]:
    """Map some frames; return time per frame and memory at the end."""
    import statistics
    import time

    import torch

    seconds, cpu_before = [], time.process_time()
    for _ in range(num_frames):
        frame = next(frames)
        start = time.perf_counter()
        predictor.predict(frame)
        seconds.append(time.perf_counter() - start)
    on_gpu = predictor.device.type == 'cuda'
    return {
        'median_ms': 1e3 * statistics.median(seconds),
        'cpu_ms': 1e3 * (time.process_time() - cpu_before) / num_frames,
        'process_bytes': _resident_bytes(),
        'gpu_bytes': torch.cuda.memory_allocated(predictor.device) if on_gpu else None,
        'state_bytes': predictor.state_bytes,
    }


def _resident_bytes() -> int | None:
    """Return the memory of this process; None where the system does not tell."""
    from gsmap_core.cli.bench_measure import status_bytes

    try:
        return status_bytes('VmRSS')
    except (OSError, ValueError):
        return None


def _as_text(result: dict[str, Any]) -> str:
    stream, ratios = result['stream'], result['last_to_first']
    lines = [
        f'{result["model"]} on {result["device"]}, {result["threads"]} threads, torch '
        f'{result["torch"]}: {result["frames"]} frames at {result["rate_hz"]:g} Hz, '
        f'{stream["travelled_m"]:.0f} m, {stream["num_key_frames"]} key frames, '
        f'{stream["num_resets"]} resets',
        '| segment | ms per frame (median) | CPU ms | process MB | GPU MB | state MB |',
        '|---|---|---|---|---|---|',
    ]
    for number, segment in enumerate(result['segments'], start=1):
        times = [f'{segment[key]:.2f}' for key in ('median_ms', 'cpu_ms')]
        sizes = [segment[key] for key in ('process_bytes', 'gpu_bytes', 'state_bytes')]
        megabytes = ['-' if size is None else f'{size / 1e6:.2f}' for size in sizes]
        lines.append(_row(str(number), times, megabytes))
    keys = ('median_ms', 'cpu_ms', 'process_bytes', 'gpu_bytes', 'state_bytes')
    lines.append(_row('last : first', [f'{ratios[k]:.3f}' if k in ratios else '-' for k in keys]))
    return '\n'.join(lines)


def _row(name: str, *cells: Sequence[str]) -> str:
    return '| ' + ' | '.join([name, *(cell for part in cells for cell in part)]) + ' |'
