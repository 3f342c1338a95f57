"""Opens nuScenes tables and maps with nuscenes-devkit, the only place that imports it.

What is missing or broken is said with the path where it was looked for; the devkit itself answers
with assertions and key errors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsmap_core.errors import DataError, EnvironmentProblemError

#: Tables that the devkit reads, one JSON file each.
TABLES: tuple[str, ...] = (
    'attribute',
    'calibrated_sensor',
    'category',
    'ego_pose',
    'instance',
    'log',
    'map',
    'sample',
    'sample_annotation',
    'sample_data',
    'scene',
    'sensor',
    'visibility',
)
_OLDEST_MAP = '1.3'


def find_version(root: Path, version: str | None) -> str:
    """Return the version to read.

    Args:
        root: folder of the dataset.
        version: e.g. `v1.0-trainval`; None: the only one there.

    Raises:
        DataError: the folder, the version or a table is missing.
    """
    if not root.is_dir():
        raise DataError(
            f"nuScenes folder '{root}' does not exist; expected the folder that holds maps/, "
            'samples/ and v1.0-*/'
        )
    found = sorted(path.name for path in root.glob('v*') if (path / 'scene.json').is_file())
    there = f'it has {", ".join(found)}' if found else 'it has no folder v1.0-* with tables'
    if version is None:
        if len(found) != 1:
            raise DataError(f"nuScenes folder '{root}': which version? {there}; name one")
        version = found[0]
    folder = root / version
    if not folder.is_dir():
        raise DataError(f"nuScenes version '{version}': '{folder}' does not exist; {there}")
    missing = [name for name in TABLES if not (folder / f'{name}.json').is_file()]
    if missing:
        raise DataError(
            f"nuScenes version '{version}': '{folder}' lacks the tables "
            f'{", ".join(f"{name}.json" for name in missing)}; unpack the metadata archive there'
        )
    return version


def open_tables(root: Path, version: str) -> Any:
    """Return the devkit's `NuScenes`.

    Raises:
        DataError: a table or map mask is missing, broken or contradicts another.
        EnvironmentProblemError: nuscenes-devkit is not installed.
    """
    devkit = _import('nuscenes.nuscenes')
    maps = _read_table(root / version / 'map.json')
    masks = [root / str(record.get('filename')) for record in maps]
    missing = [str(path) for path in masks if not path.is_file()]
    if missing:
        raise DataError(
            f"nuScenes version '{version}': map masks are missing: {', '.join(missing)}; unpack "
            'the metadata archive, which has maps/*.png'
        )
    try:
        return devkit.NuScenes(version=version, dataroot=str(root), verbose=False)
    except (AssertionError, KeyError, IndexError, TypeError, ValueError, OSError) as error:
        for name in TABLES:
            _read_table(root / version / f'{name}.json')  # says which one cannot be read
        raise DataError(
            f"nuScenes tables '{root / version}' do not fit together ({error!r}); expected every "
            'token to be in the table it points to: unpack the archive again'
        ) from error


def open_map(root: Path, location: str) -> Any:
    """Return the devkit's `NuScenesMap` of a city.

    Raises:
        DataError: the map expansion is missing, broken or too old.
        EnvironmentProblemError: nuscenes-devkit is not installed.
    """
    devkit = _import('nuscenes.map_expansion.map_api')
    path = root / 'maps' / 'expansion' / f'{location}.json'
    if not path.is_file():
        raise DataError(
            f"the vector map of '{location}' is missing: looked for '{path}'; unpack the map "
            f'expansion (version {_OLDEST_MAP}) into {root / "maps"}'
        )
    try:
        return devkit.NuScenesMap(str(root), location)
    except Exception as error:  # the devkit raises a bare Exception for old versions
        raise DataError(
            f"vector map '{path}' cannot be read ({error!r}); expected the map expansion, version "
            f'{_OLDEST_MAP} or newer'
        ) from error


def lane_polyline(city: Any, token: str, resolution_m: float) -> list[tuple[float, ...]]:
    """Return the points (x, y, yaw) of a lane's centre line [m]; none if the map has none."""
    return list(city.discretize_lanes([token], resolution_m)[token])


def split_scenes() -> dict[str, tuple[str, ...]]:
    """Return the official scene lists by name (`train`, `val`, `test`, `mini_train`, ...).

    Raises:
        EnvironmentProblemError: nuscenes-devkit is not installed.
    """
    lists = _import('nuscenes.utils.splits').create_splits_scenes()
    return {name: tuple(scenes) for name, scenes in lists.items()}


def _import(name: str) -> Any:
    import importlib

    try:
        import matplotlib

        # The devkit changes the style of all plots when it is imported.
        with matplotlib.rc_context():
            return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentProblemError(
            f'nuScenes is read with nuscenes-devkit, which cannot be imported ({error}); run '
            "pip install 'gsmap_ros[nuscenes]' (in a checkout: pip install '.[nuscenes]')"
        ) from error


def _read_table(path: Path) -> list[dict[str, Any]]:
    try:
        table = json.loads(path.read_text(encoding='utf-8'))
        if not isinstance(table, list):
            raise ValueError(f'a {type(table).__name__}, not a list')
    except (OSError, ValueError) as error:
        raise DataError(
            f"nuScenes table '{path}' cannot be read ({error}); expected a JSON list of records"
        ) from error
    return table
