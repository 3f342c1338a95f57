"""`gsmap benchmark prepare`: makes the drives of a dataset again and compares them with hashes.

Towns, trajectories and ground truth are the same on every machine, and so are their hashes.
Pictures are drawn in floating point and compressed; their mean colours agree within a tolerance.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gsmap_core.atomic_files import atomic_path
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.training.benchmark_dataset import (
    BenchmarkDataset,
    DrivePart,
    hashes_path,
    load_dataset,
    load_hashes,
)

if TYPE_CHECKING:
    from gsmap_core.data.synthetic.recording import DriveSpec

#: Mean colours of a picture may differ by this much between machines [of 255].
COLOUR_TOLERANCE = 2.0
#: Drives at the beginning of a part whose first pictures are compared.
_DRIVES_WITH_PICTURES = 2
#: Says in the folder of a part with which hashes it was found to agree.
_VERIFIED = 'verified.json'
_DIGITS = 16
_HASHES = ('town', 'trajectory', 'ground_truth')


def run_prepare(args: argparse.Namespace) -> int:
    """Make and verify the parts of a dataset, or write what their hashes are."""
    dataset = load_dataset(args.dataset)
    for name in args.parts or ():
        if name not in dataset.parts:
            raise ConfigError(
                f"part '{name}' is not in dataset '{dataset.name}'; expected some of "
                f'{", ".join(dataset.parts)}'
            )
    parts = args.parts or list(dataset.parts)
    _check_generator(dataset)
    if args.write_hashes:
        _write_hashes(args.dataset, dataset, parts, args.workers)
    elif args.hashes_only:
        expected = load_hashes(args.dataset)
        for name in parts:
            specs = drives_of(dataset.parts[name])
            _refuse(name, _differences(specs, _expected(expected, name), args.workers))
            print(f'{name}: {len(specs)} drives have the hashes that they must have')
    else:
        prepare_parts(args.dataset, parts, Path(args.out), args.device, args.workers)
    return 0


def prepare_parts(
    name: str, parts: Iterable[str], out: Path, device: str = 'cpu', workers: int | None = None
) -> dict[str, Path]:
    """Make the drives that are not there yet and verify those that were not verified yet.

    Args:
        name: of the dataset.
        parts: names of its parts.
        out: folder; drives go to `out/DATASET/PART`.
        device: where to render.
        workers: processes; None: one per core.

    Returns:
        The folders of the parts.

    Raises:
        ConfigError: another version of the generator is needed.
        DataError: a drive is not what it must be; the message says which and why.
    """
    dataset, expected = load_dataset(name), load_hashes(name)
    _check_generator(dataset)
    folders = {}
    for part in parts:
        folder = folders[part] = out / dataset.name / part
        wanted = _expected(expected, part)
        key = {'hashes': _digest(wanted), 'part': _digest(repr(dataset.parts[part]))}
        specs = drives_of(dataset.parts[part], device)
        bags = [folder / f'{spec.name}.mcap' for spec in specs]
        if _is_verified(folder, key) and all(bag.exists() for bag in bags):
            continue
        make_drives(dataset.parts[part], folder, device, workers)
        problems = _differences(specs, wanted, workers)
        for spec, bag in zip(specs, bags, strict=True):
            problems += _bag_differences(spec, bag, wanted)
        _refuse(part, problems, folder)
        with atomic_path(folder / _VERIFIED) as path:
            path.write_text(json.dumps(key) + '\n', encoding='utf-8')
        print(f'{part}: {len(specs)} drives in {folder} are what they must be', file=sys.stderr)
    return folders


def make_drives(
    part: DrivePart, folder: Path, device: str = 'cpu', workers: int | None = None
) -> None:
    """Make the drives of a part that are not there yet."""
    from gsmap_core.cli.synth import run as run_synth

    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):
        run_synth(_synth_arguments(part, folder, device, workers))


def drives_of(part: DrivePart, device: str = 'cpu') -> list[DriveSpec]:
    """Return the drives of a part as `gsmap synth` plans them."""
    from gsmap_core.cli.synth import plan_drives

    return plan_drives(_synth_arguments(part, Path(), device, None))


def drive_hashes(spec: DriveSpec) -> str:
    """Return what a drive is on this machine; nothing is rendered.

    Returns:
        The first digits of three SHA-256, with blanks between them: of the town (streets and
        paint), of the trajectory, and of the ground truth of all camera sets.
    """
    from gsmap_core.data.synthetic.recording import SyntheticRecording

    recording = SyntheticRecording(spec)
    hashes = (
        str(recording.metadata['town_hash']),
        recording.trajectory_hash(),
        recording.ground_truth_hash(),
    )
    return ' '.join(text[:_DIGITS] for text in hashes)


def mean_colours(pictures: Iterable[np.ndarray]) -> tuple[tuple[float, ...], ...]:
    """Return the mean of every channel of pictures (H, W, 3), to a tenth."""
    return tuple(
        tuple(round(float(value), 1) for value in picture.mean(axis=(0, 1)))
        for picture in pictures
    )


def _check_generator(dataset: BenchmarkDataset) -> None:
    from gsmap_core.data.synthetic.town import GENERATOR_VERSION

    if dataset.generator_version != GENERATOR_VERSION:
        raise ConfigError(
            f"dataset '{dataset.name}' is made by generator {dataset.generator_version}, this "
            f'version of gsmap has generator {GENERATOR_VERSION}; install one that has it, or '
            'take a newer dataset'
        )


def _synth_arguments(
    part: DrivePart, folder: Path, device: str, workers: int | None
) -> argparse.Namespace:
    """Return the arguments of `gsmap synth` that make a part."""
    from gsmap_core.cli.synth import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [
        '--out', str(folder), '--setting', part.setting, '--rig', part.rig,
        '--first-seed', str(part.first_seed), '--towns', str(part.towns),
        '--repeat', str(part.repeat), '--duration', str(part.duration_s),
        '--rate', str(part.rate_hz), '--width', str(part.width_px),
        '--conditions', part.conditions,
        '--device', device if device.startswith('cuda') else 'cpu',
        *(['--lidar'] if part.lidar else []),
        *(['--workers', str(workers)] if workers else []),
    ]  # fmt: skip
    return parser.parse_args(words)


def _hash_all(specs: Sequence[DriveSpec], workers: int | None) -> list[str]:
    from multiprocessing import get_context

    if workers == 1 or len(specs) == 1:
        return [drive_hashes(spec) for spec in specs]
    with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
        return list(pool.map(drive_hashes, specs, chunksize=4))


def _expected(hashes: dict[str, Any], part: str) -> dict[str, Any]:
    """Return `drives` (name -> hashes) and `colours` (name -> colours) of a part."""
    return {'drives': {}, 'colours': {}, **hashes.get(part, {})}


def _differences(
    specs: Sequence[DriveSpec], wanted: dict[str, Any], workers: int | None
) -> list[str]:
    """Return how the drives that this machine plans differ from their hashes."""
    drives = wanted['drives']
    problems = [
        f'{name}: not a drive of this part'
        for name in drives.keys() - {spec.name for spec in specs}
    ]
    for spec, found in zip(specs, _hash_all(specs, workers), strict=True):
        if spec.name not in drives:
            problems.append(f'{spec.name}: has no hash')
            continue
        both = zip(_HASHES, found.split(), drives[spec.name].split(), strict=True)
        problems += [
            f'{spec.name}: {what} {mine}, expected {theirs}'
            for what, mine, theirs in both
            if mine != theirs
        ]
    return problems


def _bag_differences(spec: DriveSpec, path: Path, wanted: dict[str, Any]) -> list[str]:
    """Return how a bag differs from the drive that it should hold."""
    from gsmap_core.data.bag import open_bag

    drive = open_bag(path)
    town = drive.metadata.get('town_hash', 'unknown')[:_DIGITS]
    expected = wanted['drives'].get(spec.name, town).split()[0]
    if town != expected:
        return [f'{path.name}: of town {town}, expected {expected}']
    if len(drive) != spec.num_frames:
        return [f'{path.name}: {len(drive)} camera sets, expected {spec.num_frames}']
    colours = wanted['colours'].get(spec.name)
    if colours is None:
        return []
    pictures = _pictures(drive.recorded_jpeg(0, camera) for camera in range(len(drive.rig)))
    worst = float(np.abs(np.array(mean_colours(pictures)) - np.array(colours)).max())
    if worst <= COLOUR_TOLERANCE:
        return []
    return [
        f'{path.name}: mean colours differ by {worst:.1f} of 255, expected at most '
        f'{COLOUR_TOLERANCE:g}'
    ]


def _pictures(files: Iterable[bytes | None]) -> list[np.ndarray]:
    """Decode the JPEG files of one camera set."""
    pictures = []
    for data in files:
        picture = None if data is None else cv2.imdecode(np.frombuffer(data, np.uint8), 1)
        if picture is None:
            raise DataError('a picture of the first camera set is missing or cannot be decoded')
        pictures.append(picture)
    return pictures


def _refuse(part: str, problems: list[str], folder: Path | None = None) -> None:
    if problems:
        more = f' and {len(problems) - 5} more' if len(problems) > 5 else ''
        advice = f"; remove '{folder}' and prepare again" if folder else ''
        raise DataError(
            f"part '{part}' is not what it must be: {'; '.join(problems[:5])}{more}{advice}"
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _is_verified(folder: Path, key: dict[str, str]) -> bool:
    try:
        return bool(json.loads((folder / _VERIFIED).read_text(encoding='utf-8')) == key)
    except (OSError, ValueError):
        return False


def _write_hashes(
    name: str, dataset: BenchmarkDataset, parts: list[str], workers: int | None
) -> None:
    """Write the hashes of some parts, those of the others stay."""
    path = hashes_path(name)
    known = load_hashes(name) if path.exists() else {}
    for part in parts:
        specs = drives_of(dataset.parts[part])
        hashes = _hash_all(specs, workers)
        known[part] = {
            'drives': {spec.name: text for spec, text in zip(specs, hashes, strict=True)},
            'colours': {spec.name: _colours(spec) for spec in specs[:_DRIVES_WITH_PICTURES]},
        }
        ordered = {other: known[other] for other in dataset.parts if other in known}
        with atomic_path(path) as temporary:
            temporary.write_text(_as_lines(ordered), encoding='utf-8')
        print(f'{part}: hashes of {len(specs)} drives in {path}')


def _colours(spec: DriveSpec) -> tuple[tuple[float, ...], ...]:
    """Render the first camera set of a drive and return its mean colours."""
    from gsmap_core.data.synthetic.recording import SyntheticRecording

    recording = SyntheticRecording(spec)
    data = {image.camera: image.data for image in recording.frame(0).images}
    return mean_colours(_pictures(data[name] for name in recording.rig.names))


def _as_lines(parts: dict[str, Any]) -> str:
    """Return JSON with one drive a line."""
    texts = []
    for name, part in parts.items():
        kinds = [
            f'  {json.dumps(kind)}: {{\n'
            + ',\n'.join(f'   {json.dumps(k)}: {json.dumps(v)}' for k, v in values.items())
            + '\n  }'
            for kind, values in part.items()
        ]
        texts.append(f' {json.dumps(name)}: {{\n' + ',\n'.join(kinds) + '\n }')
    return '{"parts": {\n' + ',\n'.join(texts) + '\n}}\n'
