"""Pose tables from disk: bags, files of poses (`*.poses.json`), and folders of both."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gsmap_core.atomic_files import atomic_text_file
from gsmap_core.data.bag import open_bag
from gsmap_core.data.json_files import read_json_object
from gsmap_core.data.loading import find_bags
from gsmap_core.data.pose_tables import PoseTable, pose_table_of
from gsmap_core.errors import DataError, GsmapError

POSE_FILE_SUFFIX = '.poses.json'
FORMAT_VERSION = 1
_FORMAT = f'a pose file (*{POSE_FILE_SUFFIX})'


def write_pose_file(path: str | os.PathLike[str], tables: Iterable[PoseTable]) -> None:
    """Write pose tables into one file; it appears under its name when it is complete.

    `{"version": 1, "drives": [{"name": "...", "place": "...", "frames": [{"index": 0, "stamp_ns":
    0, "map_from_base": 4x4}]}]}`; `place` and `index` may be absent when read.
    """
    with atomic_text_file(path) as stream:
        stream.write(f'{{"version": {FORMAT_VERSION}, "drives": [')
        for number, table in enumerate(tables):
            rows = zip(table.frames, table.stamps_ns, table.map_from_base, strict=True)
            frames = [
                {'index': int(index), 'stamp_ns': int(stamp), 'map_from_base': pose.tolist()}
                for index, stamp, pose in rows
            ]
            entry = {'name': table.name, 'place': table.place, 'frames': frames}
            stream.write(',\n' if number else '\n')
            stream.write(json.dumps(entry))
        stream.write('\n]}\n')


def read_pose_file(path: str | os.PathLike[str]) -> list[PoseTable]:
    """Read a file of pose tables, see `write_pose_file`.

    Raises:
        DataError: the file is missing, truncated, of another version, or a drive in it is not
            allowed; the message names the file and the drive.
    """
    drives = read_json_object(Path(path), FORMAT_VERSION, _FORMAT).get('drives')
    if not isinstance(drives, list):
        raise DataError(f"{path}: 'drives' is {type(drives).__name__}; expected a list")
    return [_table(entry, f'{path}: drive {number}') for number, entry in enumerate(drives)]


def _table(entry: dict, where: str) -> PoseTable:
    where += f" ('{entry['name']}')" if isinstance(entry, dict) and 'name' in entry else ''
    try:
        frames = entry['frames']
        return PoseTable(
            name=str(entry['name']),
            place=str(entry.get('place', '')),
            stamps_ns=np.array([frame['stamp_ns'] for frame in frames], dtype=np.int64),
            map_from_base=np.array([frame['map_from_base'] for frame in frames], np.float64),
            frames=np.array([f.get('index', i) for i, f in enumerate(frames)], dtype=np.int64),
        )
    except DataError as error:
        raise DataError(f'{where}: {error}') from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f'{where}: {type(error).__name__}: {error}; expected name, and frames with stamp_ns '
            'and a 4x4 map_from_base'
        ) from error


def read_bag_poses(path: Path) -> PoseTable:
    """Read the poses of one bag at its camera sets; no image is decoded.

    Raises:
        DataError: it is no bag, or has no poses in a map frame.
        CalibrationError: its cameras cannot be used, so that it has no camera sets.
    """
    try:
        return pose_table_of(open_bag(path))
    except DataError as error:
        text = str(error)
        raise DataError(text if str(path) in text else f"'{path}': {text}") from error


def collect_pose_tables(
    paths: Sequence[str | Path], workers: int = 1
) -> tuple[list[PoseTable], dict[str, str]]:
    """Read the pose files and bags at and below paths, with a progress bar on stderr.

    Args:
        paths: pose files, bags, or folders of both.
        workers: processes that read bags.

    Returns:
        The tables, pose files first, and path -> reason of what could not be read.

    Raises:
        DataError: a path holds neither, or nothing at all could be read.
    """
    files, bags = _find(paths)
    tables: list[PoseTable] = []
    failed: dict[str, str] = {}
    for path in files:
        try:
            tables += read_pose_file(path)
        except DataError as error:
            failed[str(path)] = str(error)
    workers = min(workers, len(bags))
    results: Iterable[PoseTable | str]
    if workers > 1:
        # A forked copy of a process that has used CUDA or threads cannot use them.
        with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
            try:
                results = list(_with_bar(pool.map(_try_bag, bags), len(bags)))
            except BaseException:
                # Interrupted: those that wait are not begun.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        results = _with_bar(map(_try_bag, bags), len(bags))
    for path, result in zip(bags, results, strict=True):
        if isinstance(result, PoseTable):
            tables.append(result)
        else:
            failed[str(path)] = result
    if not tables:
        reasons = '; '.join(failed.values())
        raise DataError(f'no poses could be read: {reasons or "the pose files hold no drive"}')
    return tables, failed


def _with_bar(results: Iterable[PoseTable | str], total: int) -> Iterable[PoseTable | str]:
    return tqdm(results, total=total, desc='poses', unit='bag', disable=total < 2)


def _try_bag(path: Path) -> PoseTable | str:
    """Return the poses of a bag, or why it has none: one bad bag must not end the others."""
    try:
        return read_bag_poses(path)
    except (GsmapError, OSError) as error:
        return str(error)


def _find(paths: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """Return the pose files and the bags at and below paths, each once."""
    files: list[Path] = []
    bags: list[Path] = []
    for path in map(Path, paths):
        if path.name.endswith(POSE_FILE_SUFFIX):
            files.append(path)
            continue
        below = sorted(path.rglob(f'*{POSE_FILE_SUFFIX}')) if path.is_dir() else []
        files += below
        try:
            bags += find_bags(path)
        except DataError:
            if not below:
                raise
    return list(dict.fromkeys(files)), list(dict.fromkeys(bags))
