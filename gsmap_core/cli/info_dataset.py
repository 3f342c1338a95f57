"""What `gsmap info` says about a dataset or a folder of bags: drives, gaps, splits and overlap."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsmap_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gsmap_core.data.splits import DriveArea, Split

_MAX_LISTED = 20


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for datasets."""
    group = parser.add_argument_group('datasets')
    group.add_argument(
        '--version', metavar='NAME', help='version of a nuScenes folder; none: the only one there'
    )
    group.add_argument(
        '--splits',
        nargs='+',
        metavar='NAME',
        help='original, geographic (computed from the poses), or a file with lists: sizes, and '
        'the share of the validation area that training sees',
    )
    group.add_argument(
        '--list', action='store_true', help='with --splits: the names of the drives too'
    )


def is_nuscenes(path: Path) -> bool:
    """Return whether a folder is laid out like nuScenes."""
    return path.is_dir() and any(path.glob('v*/scene.json'))


def is_argoverse2(path: Path) -> bool:
    """Return whether a folder is an Argoverse 2 log or holds logs."""
    from gsmap_core.data.argoverse2 import find_logs

    try:
        return bool(find_logs(path))
    except DataError:
        return False


def describe_nuscenes(root: Path, version: str | None, splits: Sequence[str]) -> dict[str, Any]:
    """Return scenes, cities, what is missing, and splits of a nuScenes folder.

    Raises:
        DataError: version, tables or scenes are missing or broken.
        EnvironmentProblemError: nuscenes-devkit is not installed.
    """
    from gsmap_core.data.nuscenes import NuScenesDataset

    dataset = NuScenesDataset(root, version)
    drives = list(dataset)
    report = {
        'dataset': 'nuScenes',
        'folder': str(dataset.root),
        'version': dataset.version,
        **_describe_drives(drives),
    }
    report['maps'] = {
        place: 'there' if (path := _map_path(dataset.root, place)).is_file() else f'no {path}'
        for place in report['cities']
    }
    report['problems'] = [*dataset.problems, *(p for drive in drives for p in drive.problems)]
    if splits:
        report['splits'] = describe_splits(_areas(drives), splits, dataset.original_split())
    return report


def describe_argoverse2(root: Path, splits: Sequence[str]) -> dict[str, Any]:
    """Return logs, cities, what is missing, and splits of an Argoverse 2 folder.

    Raises:
        DataError: there is no log.
        EnvironmentProblemError: av2 is not installed.
    """
    from gsmap_core.data.argoverse2 import Argoverse2Dataset
    from gsmap_core.data.splits import PARTS, Split

    dataset = Argoverse2Dataset(root)
    drives = list(dataset)
    report = {
        'dataset': 'Argoverse 2',
        'folder': str(dataset.root),
        **_describe_drives(drives),
        'problems': [f'{problem.log}: {problem.reason}' for problem in dataset.problems],
    }
    if splits:
        usable = {drive.name for drive in drives}
        lists = dataset.split_lists()
        original = Split('original', *(lists.get(part, ()) for part in PARTS))
        report['splits'] = describe_splits(_areas(drives), splits, original.restricted(usable)[0])
    return report


def _describe_drives(drives: Sequence[Any]) -> dict[str, Any]:
    """Return counts of drives, camera sets, cities and missing images."""
    incomplete, missing = [], 0
    for drive in drives:
        lost = [len(drive.missing_images(index)) for index in range(len(drive))]
        missing += sum(lost)
        if any(lost):
            count = sum(value > 0 for value in lost)
            incomplete.append({'drive': drive.name, 'incomplete_sets': f'{count} of {len(drive)}'})
    return {
        'drives': len(drives),
        'camera_sets': sum(len(drive) for drive in drives),
        'cities': dict(sorted(Counter(drive.location for drive in drives).items())),
        'missing_images': missing,
        'incomplete_drives': len(incomplete),
        'incomplete': incomplete[:_MAX_LISTED],
    }


def _areas(drives: Sequence[Any]) -> list[DriveArea]:
    from gsmap_core.data.splits import drive_area

    return [drive_area(drive.name, drive.location, drive.city_poses) for drive in drives]


def describe_bags(
    folder: Path, splits: Sequence[str], workers: int | None = None
) -> dict[str, Any]:
    """Return the drives of bags and pose files and their splits; no image is decoded.

    Args:
        folder: a folder of bags or `*.poses.json` files, or one of them.
        splits: `geographic`, or files with lists.
        workers: processes that read bags; None: one per core.

    Raises:
        DataError: there are no poses.
    """
    from gsmap_core.data.pose_files import collect_pose_tables
    from gsmap_core.data.splits import drive_area

    tables, failed = collect_pose_tables([folder], workers or os.cpu_count() or 1)
    areas = [drive_area(table.name, table.place, table.map_from_base) for table in tables]
    return {
        'folder': str(folder),
        'drives': len(areas),
        'camera_sets': sum(area.num_frames for area in areas),
        'problems': list(failed.values()),
        'splits': describe_splits(areas, splits, None),
    }


def describe_splits(
    areas: Sequence[DriveArea], names: Sequence[str], original: Split | None
) -> dict[str, Any]:
    """Return sizes and overlap of splits, by name.

    Args:
        areas: what the drives perceive.
        names: `original`, `geographic`, or files with lists.
        original: the official lists, or None where there are none.

    Raises:
        ConfigError: `original` is asked for and there is none.
        DataError: a file is missing or wrong, or lists drives twice.
    """
    from gsmap_core.data.geographic_split import geographic_split
    from gsmap_core.data.splits import read_split_file

    found = {}
    for name in names:
        if name == 'geographic':
            split = geographic_split(areas)
        elif name == 'original':
            if original is None:
                raise ConfigError(
                    "--splits original: bags have no official lists; give 'geographic' or a file"
                )
            split = original
        else:
            split = read_split_file(name)
        found[name] = _describe_split(areas, split)
    return found


def _describe_split(areas: Sequence[DriveArea], split: Split) -> dict[str, Any]:
    from gsmap_core.data.splits import PARTS, split_overlap

    there, absent, unlisted = split.restricted([area.name for area in areas])
    frames = {area.name: area.num_frames for area in areas}
    report: dict[str, Any] = {
        part: f'{len(there.of(part))} drives, {sum(frames[n] for n in there.of(part))} frames'
        for part in PARTS
    }
    report['left_out'] = f'{len(there.left_out)} drives'
    report['listed_but_not_here'] = len(absent)
    report['here_but_not_listed'] = len(unlisted)
    overlap = split_overlap(areas, there)
    report['val_area_km2'] = round(overlap.val_area_m2 / 1e6, 4)
    report['val_area_seen_in_train_percent'] = round(100.0 * overlap.seen_share, 2)
    report['val_drives_touched'] = f'{overlap.num_val_touched} of {overlap.num_val}'
    report['by_place_percent'] = {
        place or 'unnamed': round(100.0 * seen / total, 2)
        for place, (total, seen) in overlap.by_place.items()
    }
    report['names'] = {part: list(getattr(there, part)) for part in (*PARTS, 'left_out')}
    return report


def _map_path(root: Path, place: str) -> Path:
    return root / 'maps' / 'expansion' / f'{place}.json'
