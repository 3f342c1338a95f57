"""`gsmap synth`: makes synthetic drives with ground truth: bags, or the files of a dataset."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsmap_core.cli.synth_drives import DriveResult
    from gsmap_core.data.synthetic.recording import DriveSpec

#: Rig and camera sets per second of every layout unless others are asked for.
DEFAULTS: dict[str, tuple[str, float]] = {
    'bag': ('nuscenes_like', 5.0),
    'nuscenes': ('nuscenes_like', 2.0),
    'av2': ('av2_like', 10.0),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--out', metavar='DIR', required=True, help='folder for the drives')
    parser.add_argument('--towns', type=int, default=1, metavar='N', help='number of towns (1)')
    parser.add_argument(
        '--first-seed', type=int, default=0, metavar='S', help='seed of the first town (0)'
    )
    parser.add_argument(
        '--drives-per-town', type=int, default=1, metavar='D', help='routes per town (1)'
    )
    parser.add_argument(
        '--repeat',
        type=int,
        default=0,
        metavar='R',
        help='drive every route again R times: other light, offset and direction (0)',
    )
    parser.add_argument('--duration', type=float, default=20.0, help='seconds per drive (20)')
    parser.add_argument(
        '--rate', type=float, help='camera sets per second (5; nuScenes 2, Argoverse 2 10)'
    )
    parser.add_argument(
        '--layout',
        choices=tuple(DEFAULTS),
        default='bag',
        help='one bag a drive, or the files of a dataset (bag)',
    )
    parser.add_argument(
        '--rig', help="rig name or YAML file (nuscenes_like; av2_like for Argoverse 2's layout)"
    )
    parser.add_argument(
        '--width', type=int, metavar='PX', help="width of the first camera's images (as the rig)"
    )
    parser.add_argument(
        '--setting',
        choices=('normal', 'easy', 'easy_occluded'),
        default='normal',
        help='kind of town (normal)',
    )
    parser.add_argument(
        '--conditions',
        default='mix',
        metavar='NAME',
        help="light and weather; mix draws the setting's, all draws every one (mix)",
    )
    parser.add_argument(
        '--lidar',
        action='store_true',
        help="also write LiDAR sweeps (always in Argoverse 2's layout)",
    )
    parser.add_argument(
        '--device',
        default='cpu',
        help='where to render: cpu or cuda (cpu; many workers that share a GPU are slower)',
    )
    parser.add_argument('--quality', type=int, default=90, help='JPEG quality (90)')
    parser.add_argument('--workers', type=int, metavar='N', help='processes (one per core)')
    parser.add_argument('--overwrite', action='store_true', help='make existing drives again')
    parser.add_argument(
        '--visibility',
        action='store_true',
        help='also report how much of the ground truth vehicles hide from all cameras',
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def plan_drives(args: argparse.Namespace) -> list[DriveSpec]:
    """Turn the arguments into drives; repetitions get other light, offset and direction.

    Raises:
        ConfigError: a count or a value of a drive is not allowed.
    """
    from gsmap_core.data.synthetic.dice import Dice
    from gsmap_core.data.synthetic.recording import DriveSpec
    from gsmap_core.errors import ConfigError

    for name, least in (('towns', 1), ('drives_per_town', 1), ('repeat', 0), ('first_seed', 0)):
        if getattr(args, name) < least:
            raise ConfigError(
                f'--{name.replace("_", "-")} {getattr(args, name)}; expected {least} or more'
            )
    rig, rate = DEFAULTS[args.layout]
    specs = []
    for town_seed in range(args.first_seed, args.first_seed + args.towns):
        for drive_seed in range(args.drives_per_town):
            for variant in range(args.repeat + 1):
                dice = Dice(town_seed, 70, drive_seed, variant)
                specs.append(
                    DriveSpec(
                        town_seed=town_seed,
                        drive_seed=drive_seed,
                        setting=args.setting,
                        rig=args.rig or rig,
                        duration_s=args.duration,
                        rate_hz=rate if args.rate is None else args.rate,
                        image_width_px=args.width,
                        conditions=args.conditions,
                        variant=variant,
                        lateral_offset_m=round(dice.uniform(-0.4, 0.4), 3),
                        reverse=variant % 2 == 1,
                        lidar=args.lidar,
                        device=args.device,
                        jpeg_quality=args.quality,
                    )
                )
    return specs


def run(args: argparse.Namespace) -> int:
    """Make the drives."""
    from multiprocessing import active_children, get_context

    from tqdm import tqdm

    from gsmap_core.cli.info_synthetic import describe_visibility
    from gsmap_core.cli.synth_drives import layout_of
    from gsmap_core.rig import load_rig

    specs = plan_drives(args)
    load_rig(specs[0].rig)  # complains now rather than in every worker
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    layout = layout_of(args.layout, folder, specs, args.overwrite)
    todo = [spec for spec in specs if not layout.is_there(spec)]
    workers = min(args.workers or os.cpu_count() or 1, max(len(todo), 1))
    start = time.monotonic()
    results: list[DriveResult] = []
    bar = tqdm(total=sum(spec.num_frames for spec in todo), unit='set', file=sys.stderr)
    with bar:
        if workers == 1:
            for spec in todo:
                results.append(layout.maker(spec)())
                bar.update(results[-1].num_frames)
        elif todo:
            # A forked copy of a process that has used CUDA or threads cannot use them.
            with ProcessPoolExecutor(
                workers, mp_context=get_context('spawn'), initializer=_use_one_thread
            ) as pool:
                futures = [pool.submit(layout.maker(spec)) for spec in todo]
                try:
                    for future in as_completed(futures):
                        results.append(future.result())
                        bar.update(results[-1].num_frames)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    # What they have begun would take minutes; a drive is written whole or not.
                    for process in active_children():
                        process.terminate()
                    raise
    layout.finish()
    seconds = time.monotonic() - start
    visibility = describe_visibility(specs) if args.visibility else None
    _report(args, results, len(specs) - len(todo), seconds, visibility)
    return 0


def _report(
    args: argparse.Namespace,
    results: list[DriveResult],
    skipped: int,
    seconds: float,
    visibility: dict[str, Any] | None,
) -> None:
    """Print what was made."""
    sets, images = sum(r.num_frames for r in results), sum(r.num_images for r in results)
    results = sorted(results, key=lambda result: result.name)
    if args.json:
        summary: dict[str, Any] = {
            'out': str(args.out),
            'drives': [result.__dict__ for result in results],
            'skipped': skipped,
            'sets': sets,
            'images': images,
            'seconds': round(seconds, 3),
            'sets_per_second': round(sets / max(seconds, 1e-9), 3),
            'images_per_second': round(images / max(seconds, 1e-9), 3),
        }
        if visibility is not None:
            summary['visibility'] = visibility
        print(json.dumps(summary))
        return
    print(
        f'{len(results)} drives, {sets} camera sets, {images} images in {seconds:.1f} s '
        f'({sets / max(seconds, 1e-9):.2f} sets/s, {images / max(seconds, 1e-9):.1f} images/s); '
        f'{skipped} already there; in {args.out}'
    )
    if visibility is not None:
        print(
            f'vehicles hide {100 * visibility["hidden_share"]:.0f} % of the line length that the '
            f'cameras would see; {100 * visibility["seen_before_share"]:.0f} % of it was seen '
            f'before, {100 * visibility["seen_ever_share"]:.0f} % is seen at some time'
        )


def _use_one_thread() -> None:
    """Keep the libraries from starting a thread per core in every worker."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
