"""Reads the files of Argoverse 2 logs with the `av2` package; the only module that imports it.

Only the light parts of `av2` are used: map, calibration, poses and tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsmap_core.data.argoverse2_map import CityMap, GroundHeights, LaneSegment
from gsmap_core.errors import DataError, EnvironmentProblemError
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.structures import Camera, CameraRig, FloatArray

#: The ring cameras in the order of the published models.
RING_CAMERAS: tuple[str, ...] = (
    'ring_front_center',
    'ring_front_right',
    'ring_front_left',
    'ring_rear_right',
    'ring_rear_left',
    'ring_side_right',
    'ring_side_left',
)
POSES_NAME = 'city_SE3_egovehicle.feather'
_POSE_COLUMNS = ('timestamp_ns', 'qw', 'qx', 'qy', 'qz', 'tx_m', 'ty_m', 'tz_m')
_INSTALL = 'pip install "gsmap_ros[argoverse2]"'


def require_av2() -> None:
    """Check that the devkit is there.

    Raises:
        EnvironmentProblemError: it is not installed, or a part of it cannot be imported.
    """
    try:
        import av2.map.map_api
        import av2.utils.io  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblemError(
            f"the package 'av2' cannot be imported ({error}); Argoverse 2 logs are read with it: "
            f'install it with {_INSTALL}'
        ) from error


def read_poses(log: Path) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Read the poses of a log.

    Returns:
        (P,) stamps, increasing [ns], and (P, 4, 4) `city_from_ego`.

    Raises:
        DataError: the file is missing or broken; the message names log and file.
    """
    from av2.geometry.geometry import quat_to_mat

    path = log / POSES_NAME
    with _reading(path, log):
        table = _table(path, _POSE_COLUMNS)
        stamps = table[:, 0].astype(np.int64)
        values = table[:, 1:].astype(np.float64)
        if not len(stamps) or not np.isfinite(values).all():
            raise ValueError(f'{len(stamps)} rows, NaN or infinite values among them')
        order = np.argsort(stamps, kind='stable')
        poses = np.tile(np.eye(4), (len(stamps), 1, 1))
        poses[:, :3, :3] = quat_to_mat(values[order, :4])
        poses[:, :3, 3] = values[order, 4:]
        return stamps[order], poses


def read_map(log: Path) -> CityMap:
    """Read vector map and ground heights of a log.

    Raises:
        DataError: the vector map is missing or broken, or the raster of heights is broken; the
            message names log and file.
    """
    from av2.map.map_api import ArgoverseStaticMap

    folder = log / 'map'
    path = one_file(log, 'map/log_map_archive_*.json')
    with _reading(path, log):
        archive = ArgoverseStaticMap.from_json(path)
        lanes = {
            int(item.id): _lane(item, archive.get_lane_segment_centerline(item.id))
            for item in archive.get_scenario_lane_segments()
        }
        crossings = tuple(_outline(c.polygon) for c in archive.get_scenario_ped_crossings())
        areas = tuple(_outline(a.xyz) for a in archive.get_scenario_vector_drivable_areas())
    ground = None
    rasters = sorted(folder.glob('*_ground_height_surface____*.npy'))
    if rasters:
        with _reading(rasters[0], log):
            ground = _ground(folder)
    return CityMap(lanes, crossings, areas, ground)


def read_rig(log: Path, cameras: tuple[str, ...] = RING_CAMERAS) -> CameraRig:
    """Read the calibration of the cameras, in the order given.

    The published images are free of lens distortion; the coefficients in the file describe the
    raw ones and are not used.

    Raises:
        DataError: a file is missing or broken, or a camera is not in it; the message names log
            and file.
    """
    from av2.geometry.camera.pinhole_camera import PinholeCamera

    for name in ('egovehicle_SE3_sensor.feather', 'intrinsics.feather'):
        one_file(log, f'calibration/{name}')
    found = []
    for name in cameras:
        with _reading(log / 'calibration' / 'intrinsics.feather', log, f"camera '{name}': "):
            model = PinholeCamera.from_feather(log, name)
            found.append(
                Camera(
                    name=name,
                    frame_id=f'{name}_optical_frame',
                    width_px=int(model.width_px),
                    height_px=int(model.height_px),
                    intrinsics=np.array(model.intrinsics.K, dtype=np.float64),
                    base_from_camera=make_transform(
                        model.ego_SE3_cam.rotation, model.ego_SE3_cam.translation
                    ),
                )
            )
    return CameraRig(f'argoverse2-{log.name[:8]}', tuple(found))


def read_sweep(path: Path, log: Path) -> np.ndarray:
    """Read a LiDAR sweep.

    Returns:
        (P, 4) float32 x, y, z in the ego frame at the sweep's stamp [m] and intensity (0 to 255).

    Raises:
        DataError: the file is missing or broken; the message names log and file.
    """
    with _reading(path, log):
        return _table(path, ('x', 'y', 'z', 'intensity')).astype(np.float32)


def read_annotation_stamps(log: Path) -> npt.NDArray[np.int64]:
    """Return the stamps of the annotated sweeps [ns]; empty where there are no annotations.

    Raises:
        DataError: the file is broken.
    """
    path = log / 'annotations.feather'
    if not path.is_file():
        return np.zeros(0, dtype=np.int64)
    with _reading(path, log):
        return np.unique(_table(path, ('timestamp_ns',))[:, 0].astype(np.int64))


def one_file(log: Path, pattern: str) -> Path:
    """Return the one file of a log that fits a pattern.

    Raises:
        DataError: there is none or more than one; the message says where it was looked for.
    """
    found = sorted(log.glob(pattern))
    if len(found) != 1:
        raise DataError(
            f"log '{log.name}': {len(found)} files '{pattern}' in '{log}'; expected exactly one: "
            'download the log again'
        )
    return found[0]


@contextmanager
def _reading(path: Path, log: Path, what: str = '') -> Iterator[None]:
    """Turn whatever a broken file makes the devkit raise into one error that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = 'missing' if isinstance(error, FileNotFoundError) else 'not readable'
        raise DataError(
            f"log '{log.name}': {what}'{path}' is {reason} ({type(error).__name__}: {error}); "
            'expected the file as published: download the log again'
        ) from error


def _table(path: Path, columns: tuple[str, ...]) -> np.ndarray:
    """Return the columns of a feather file as (N, C); integers stay exact if all are integers."""
    from av2.utils.io import read_feather

    frame: Any = read_feather(path)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f'columns {", ".join(missing)} are missing')
    if columns[0] == 'timestamp_ns' and len(columns) > 1:
        # Stamps do not fit a float64 exactly.
        parts = [frame[name].to_numpy().astype(object) for name in columns]
        return np.stack(parts, axis=1)
    return np.stack([frame[name].to_numpy() for name in columns], axis=1)


def _lane(item: Any, centerline: np.ndarray) -> LaneSegment:
    return LaneSegment(
        id=int(item.id),
        left=np.array(item.left_lane_boundary.xyz, dtype=np.float64),
        right=np.array(item.right_lane_boundary.xyz, dtype=np.float64),
        centerline=np.array(centerline, dtype=np.float64),
        left_mark=str(item.left_mark_type.value),
        right_mark=str(item.right_mark_type.value),
        left_neighbor=_number(item.left_neighbor_id),
        right_neighbor=_number(item.right_neighbor_id),
        predecessors=tuple(int(value) for value in item.predecessors),
        successors=tuple(int(value) for value in item.successors),
        is_intersection=bool(item.is_intersection),
    )


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _outline(points: Any) -> FloatArray:
    return np.array(points, dtype=np.float64)


def _ground(folder: Path) -> GroundHeights:
    from av2.map.map_api import GroundHeightLayer

    layer = GroundHeightLayer.from_file(folder)
    similarity = layer.array_Sim2_city
    grid_from_city = np.eye(3)
    grid_from_city[:2, :2] = similarity.scale * similarity.rotation
    grid_from_city[:2, 2] = similarity.scale * similarity.translation
    return GroundHeights(np.asarray(layer.array, dtype=np.float64), grid_from_city)
