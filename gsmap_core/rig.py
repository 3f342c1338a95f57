"""Rig files: the calibration of the cameras of a vehicle (`config/rigs`, or your own YAML)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from gsmap_core.config import build_dataclass, config_path, read_yaml
from gsmap_core.errors import CalibrationError, ConfigError, DataError
from gsmap_core.geometry.transforms import matrix_to_quaternion, transform_from_quaternion
from gsmap_core.structures import Camera, CameraRig, FloatArray


@dataclass(frozen=True)
class IntrinsicsEntry:
    """Pinhole parameters of one camera, integer pixel coordinates at pixel centres.

    Args:
        fx: focal length along u [px].
        fy: focal length along v [px].
        cx: principal point, u [px].
        cy: principal point, v [px].
    """

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class DistortionEntry:
    """Lens distortion of one camera.

    Args:
        model: distortion model as in `sensor_msgs/CameraInfo`.
        coefficients: in the order of the model.
    """

    model: Literal['none', 'plumb_bob', 'rational_polynomial', 'equidistant']
    coefficients: tuple[float, ...] = ()


@dataclass(frozen=True)
class PoseEntry:
    """Pose of a frame in the ego frame.

    Args:
        translation: x, y, z [m].
        quaternion: x, y, z, w.
    """

    translation: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]


@dataclass(frozen=True)
class CameraEntry:
    """One camera of a rig file.

    Args:
        frame_id: optical frame.
        size_px: width, height [px].
        intrinsics: pinhole parameters.
        base_from_camera: pose of the optical frame in the ego frame.
        distortion: absent: the images are rectified.
    """

    frame_id: str
    size_px: tuple[int, int]
    intrinsics: IntrinsicsEntry
    base_from_camera: PoseEntry
    distortion: DistortionEntry | None = None


def _camera(name: str, values: Any, where: str) -> Camera:
    if not isinstance(values, dict):
        raise ConfigError(
            f'{where} is a {type(values).__name__}; expected a mapping with frame_id, size_px, '
            'intrinsics and base_from_camera'
        )
    entry: CameraEntry = build_dataclass(CameraEntry, values, where)
    pinhole, pose, distortion = entry.intrinsics, entry.base_from_camera, entry.distortion
    try:
        return Camera(
            name=name,
            frame_id=entry.frame_id,
            width_px=entry.size_px[0],
            height_px=entry.size_px[1],
            intrinsics=np.array(
                [[pinhole.fx, 0, pinhole.cx], [0, pinhole.fy, pinhole.cy], [0, 0, 1]]
            ),
            base_from_camera=transform_from_quaternion(pose.translation, pose.quaternion),
            distortion_model='none' if distortion is None else distortion.model,
            distortion=() if distortion is None else distortion.coefficients,
        )
    except (CalibrationError, DataError) as error:
        raise CalibrationError(f'{where}: {error}') from None


def load_rig(name_or_path: str) -> CameraRig:
    """Read a rig by name (`nuscenes_like`) or from a YAML file.

    Args:
        name_or_path: name of a file of `config/rigs`, or a path that ends in `.yaml` or `.yml`.

    Raises:
        ConfigError: not found, unknown or missing key, wrong type; the message names the file
            and the key.
        CalibrationError: no camera, or a calibration that no camera can have.
    """
    path = config_path('rigs', str(name_or_path))
    values = read_yaml(path)
    known = ('name', 'cameras', 'base_from_lidar')
    for key in values:
        if key not in known:
            raise ConfigError(f"{path}: unknown key '{key}'; expected one of {', '.join(known)}")
    name, cameras = values.get('name', path.stem), values.get('cameras')
    if not isinstance(name, str):
        raise ConfigError(f'{path}.name: {name!r} is a {type(name).__name__}; expected a text')
    if cameras is None:
        raise CalibrationError(
            f"{path}: has no camera; expected at least one under 'cameras', by name and in order"
        )
    if not isinstance(cameras, dict):
        raise ConfigError(
            f'{path}.cameras is a {type(cameras).__name__}; expected a mapping from camera '
            'names to their calibration'
        )
    for key in cameras:
        if not isinstance(key, str):
            raise ConfigError(f'{path}.cameras: name {key!r} is not a text; put it in quotes')
    return CameraRig(
        name,
        tuple(_camera(key, item, f'{path}.cameras.{key}') for key, item in cameras.items()),
        _lidar(values.get('base_from_lidar'), f'{path}.base_from_lidar'),
    )


def _lidar(values: Any, where: str) -> FloatArray | None:
    if values is None:
        return None
    if not isinstance(values, dict):
        raise ConfigError(
            f'{where} is a {type(values).__name__}; expected a mapping with translation and '
            'quaternion'
        )
    pose: PoseEntry = build_dataclass(PoseEntry, values, where)
    return transform_from_quaternion(pose.translation, pose.quaternion)


def _pose_values(base_from_frame: FloatArray) -> dict[str, Any]:
    quaternion = matrix_to_quaternion(base_from_frame[:3, :3])
    return {
        'translation': [float(value) for value in base_from_frame[:3, 3]],
        'quaternion': [round(float(value), 12) for value in quaternion],
    }


def save_rig(rig: CameraRig, path: Path | str) -> None:
    """Write a rig as YAML; `load_rig` reads it back.

    Args:
        rig: what to write.
        path: file to write; must end in `.yaml` or `.yml`.

    Raises:
        ConfigError: the path has another ending, or cannot be written.
    """
    path = Path(path)
    if path.suffix not in ('.yaml', '.yml'):
        raise ConfigError(f"rig file '{path}' ends in '{path.suffix}'; expected .yaml or .yml")
    cameras: dict[str, Any] = {}
    for camera in rig.cameras:
        matrix = camera.intrinsics
        entry: dict[str, Any] = {
            'frame_id': camera.frame_id,
            'size_px': [camera.width_px, camera.height_px],
            'intrinsics': {
                'fx': float(matrix[0, 0]),
                'fy': float(matrix[1, 1]),
                'cx': float(matrix[0, 2]),
                'cy': float(matrix[1, 2]),
            },
        }
        if camera.distortion_model != 'none':
            entry['distortion'] = {
                'model': camera.distortion_model,
                'coefficients': list(camera.distortion),
            }
        entry['base_from_camera'] = _pose_values(camera.base_from_camera)
        cameras[camera.name] = entry
    values: dict[str, Any] = {'name': rig.name, 'cameras': cameras}
    if rig.base_from_lidar is not None:
        values['base_from_lidar'] = _pose_values(rig.base_from_lidar)
    text = yaml.safe_dump(values, sort_keys=False)
    try:
        path.write_text(text, encoding='utf-8')
    except OSError as error:
        raise ConfigError(f"rig file '{path}' cannot be written: {error.strerror}") from None


def scaled_rig(rig: CameraRig, width_px: int) -> CameraRig:
    """Return the rig for smaller (or larger) images of the same cameras.

    Args:
        rig: as calibrated.
        width_px: width that the first camera gets [px]; every camera is scaled by the same
            factor, its size rounded to whole pixels.

    Raises:
        ConfigError: the width is not positive.
    """
    if width_px <= 0:
        raise ConfigError(f'image width {width_px} px; expected a positive number')
    scale = width_px / rig.cameras[0].width_px
    return replace(
        rig,
        cameras=tuple(
            camera.scaled(
                max(1, round(camera.width_px * scale)), max(1, round(camera.height_px * scale))
            )
            for camera in rig.cameras
        ),
    )
