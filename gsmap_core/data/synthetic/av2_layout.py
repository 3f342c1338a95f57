"""Synthetic drives as logs of the Argoverse 2 sensor dataset: images, sweeps, poses, map.

The result is for the `av2` package and for readers of the dataset. Stereo cameras and boxes are
absent; a drive is a log.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.data.synthetic.av2_map import ground_raster, map_archive
from gsmap_core.data.synthetic.dataset_files import write_atomically
from gsmap_core.data.synthetic.layers import build_layers
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
from gsmap_core.errors import ConfigError, DataError, EnvironmentProblemError
from gsmap_core.geometry.transforms import invert, matrix_to_quaternion, transform_points
from gsmap_core.rig import load_rig
from gsmap_core.structures import FloatArray

#: Cameras of the dataset.
CAMERAS = (
    'ring_front_center',
    'ring_front_right',
    'ring_front_left',
    'ring_rear_right',
    'ring_rear_left',
    'ring_side_right',
    'ring_side_left',
)
#: The dataset's cameras are within half a period of their 20 Hz of the sweep [s].
TRIGGER_TURN_S = 0.04
#: Letters of a city of the dataset; the devkit takes any, colleagues' code may not.
_CITY = 'PIT'
#: Towns from these seeds on are for validation and for testing, as everywhere here.
_FIRST_VALIDATION_TOWN, _FIRST_TEST_TOWN = 10_000, 20_000
#: Where the simulated scanner stands; both LiDARs of the dataset get this place.
_LIDAR_POSITION_M = (0.95, 0.0, 1.85)


def split_of(spec: DriveSpec) -> str:
    """Return the split that a drive belongs to by its town."""
    if spec.town_seed < _FIRST_VALIDATION_TOWN:
        return 'train'
    return 'val' if spec.town_seed < _FIRST_TEST_TOWN else 'test'


def fitted(spec: DriveSpec) -> DriveSpec:
    """Return a drive with what the dataset always has: sweeps, and images close to them."""
    return replace(spec, lidar=True, trigger_turn_s=TRIGGER_TURN_S)


def check_drives(specs: Sequence[DriveSpec]) -> None:
    """Check that drives fit the dataset and that its files can be written.

    Raises:
        ConfigError: a rig has other cameras.
        EnvironmentProblemError: pyarrow is not installed.
    """
    _feather()
    for spec in specs:
        names = load_rig(spec.rig).names
        if set(names) != set(CAMERAS):
            raise ConfigError(
                f"rig '{spec.rig}' has cameras {', '.join(names)}; Argoverse 2 has "
                f'{", ".join(CAMERAS)}: use the rig av2_like'
            )


def write_log(recording: SyntheticRecording, folder: Path) -> None:
    """Render a drive as a log; the folder appears under its name when it is complete.

    Args:
        recording: the drive.
        folder: of the log, to be made; its name is the id of the log.

    Raises:
        DataError: the folder exists.
    """
    partial = folder.with_name(f'.{folder.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write_calibration(partial / 'calibration', recording)
        _write_map(partial / 'map', folder.name, recording)
        stamps = [sample.stamp_ns for sample in recording.poses]
        for frame in recording.frames():
            for image in frame.images:
                name = f'sensors/cameras/{image.camera}/{image.stamp_ns}.jpg'
                write_atomically(partial / name, image.data)
                stamps.append(image.stamp_ns)
            stamps.append(frame.stamp_ns)
            if frame.lidar_points is not None:
                path = partial / 'sensors' / 'lidar' / f'{frame.stamp_ns}.feather'
                _write_sweep(path, frame.lidar_points)
        _write_poses(partial / 'city_SE3_egovehicle.feather', recording, sorted(set(stamps)))
        if folder.exists():
            raise DataError(f"'{folder}' was made by someone else meanwhile; it was kept")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_calibration(folder: Path, recording: SyntheticRecording) -> None:
    cameras = recording.rig.cameras
    _write_feather(
        folder / 'intrinsics.feather',
        {
            'sensor_name': [camera.name for camera in cameras],
            'fx_px': [float(camera.intrinsics[0, 0]) for camera in cameras],
            'fy_px': [float(camera.intrinsics[1, 1]) for camera in cameras],
            'cx_px': [float(camera.intrinsics[0, 2]) for camera in cameras],
            'cy_px': [float(camera.intrinsics[1, 2]) for camera in cameras],
            # The images are free of distortion, and so is the lens here.
            **{name: np.zeros(len(cameras)) for name in ('k1', 'k2', 'k3')},
            'height_px': np.array([camera.height_px for camera in cameras], dtype=np.uint16),
            'width_px': np.array([camera.width_px for camera in cameras], dtype=np.uint16),
        },
    )
    lidar = _base_from_lidar()
    names = [*(camera.name for camera in cameras), 'up_lidar', 'down_lidar']
    poses = [*(camera.base_from_camera for camera in cameras), lidar, lidar]
    _write_feather(
        folder / 'egovehicle_SE3_sensor.feather', {'sensor_name': names, **_pose_columns(poses)}
    )


def _write_map(folder: Path, log: str, recording: SyntheticRecording) -> None:
    town = recording.town
    archive = map_archive(town, build_layers(town, recording.spec.setting))
    name = f'log_map_archive_{log}____{_CITY}_city_{town.seed}.json'
    write_atomically(folder / name, json.dumps(archive).encode())
    heights, similarity = ground_raster(town)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f'{log}_ground_height_surface____{_CITY}.npy', heights)
    write_atomically(folder / f'{log}___img_Sim2_city.json', json.dumps(similarity).encode())


def _write_poses(path: Path, recording: SyntheticRecording, stamps: list[int]) -> None:
    """Write the pose at every 50th of a second and at the stamp of every image and sweep."""
    poses = recording.trajectory.poses(stamps)
    columns = {'timestamp_ns': np.array(stamps, dtype=np.int64), **_pose_columns(list(poses))}
    _write_feather(path, columns)


def _write_sweep(path: Path, points: np.ndarray) -> None:
    """Write a sweep in the ego frame; all its points are of one moment."""
    own = transform_points(invert(_base_from_lidar()), points[:, :3])
    elevation = np.degrees(np.arctan2(own[:, 2], np.hypot(own[:, 0], own[:, 1])))
    _write_feather(
        path,
        {
            **{name: points[:, i].astype(np.float16) for i, name in enumerate('xyz')},
            'intensity': np.clip(np.round(points[:, 3]), 0, 255).astype(np.uint8),
            'laser_number': np.clip(np.round((elevation + 30.0) / 40.0 * 31), 0, 31).astype('u1'),
            'offset_ns': np.zeros(len(points), dtype=np.int32),
        },
    )


def _base_from_lidar() -> FloatArray:
    transform = np.eye(4)
    transform[:3, 3] = _LIDAR_POSITION_M
    return transform


def _pose_columns(poses: Sequence[FloatArray]) -> dict[str, FloatArray]:
    quaternions = np.array([matrix_to_quaternion(pose[:3, :3]) for pose in poses])
    translations = np.array([pose[:3, 3] for pose in poses])
    return {
        **{name: quaternions[:, i] for name, i in (('qw', 3), ('qx', 0), ('qy', 1), ('qz', 2))},
        **{name: translations[:, i] for i, name in enumerate(('tx_m', 'ty_m', 'tz_m'))},
    }


def _write_feather(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow

    path.parent.mkdir(parents=True, exist_ok=True)
    _feather().write_feather(pyarrow.table(dict(columns)), str(path))


def _feather() -> Any:
    """Return the module that writes the tables of the dataset."""
    try:
        from pyarrow import feather
    except ImportError as error:
        raise EnvironmentProblemError(
            f"Argoverse 2's tables need pyarrow, which cannot be imported ({error}): "
            'pip install "gsmap_ros[argoverse2]"'
        ) from error
    return feather
