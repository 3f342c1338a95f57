"""Single nuScenes key frames, described by one JSON file each, as recordings; without devkit.

A folder holds six JPEGs and `calibration.json` (and a lidar sweep, where there is one). Folders of
one scene become one recording. Whole scenes in the dataset's own tables are the business of
another reader.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.data.drives import PoseSample, RecordedFrame, RecordedImage
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import transform_points
from gsmap_core.structures import Camera, CameraRig, FloatArray, VectorMap, check_transform

CALIBRATION_NAME = 'calibration.json'
LICENCE_NOTICE = (
    'nuScenes data is published by Motional under CC BY-NC-SA 4.0 with its own terms of use; they '
    'apply to converted bags as well: non-commercial use only, do not publish them'
)
_LIDAR_COLUMNS = 5  # x, y, z, intensity, ring
#: Calibration of one vehicle must agree between key frames to this.
_SAME_CALIBRATION = 1e-6


@dataclass(frozen=True)
class _KeyFrame:
    folder: Path
    values: dict[str, Any]
    stamp_ns: int

    @property
    def scene(self) -> str:
        return str(self.values['scene'])


class KeyFrameRecording:
    """The key frames of one scene as a `gsmap_core.data.drives.Recording`.

    The `map` frame is the city's frame less an offset in whole metres, so that tools with single
    precision stay exact; the offset is in the metadata. Poses are those of the images and of the
    key frames themselves.

    Args:
        folders: key frames of one scene, in any order.

    Raises:
        DataError: a file is missing or not as described, or the folders are of several scenes or
            calibrations.
    """

    def __init__(self, folders: list[Path]) -> None:
        if not folders:
            raise DataError('no key-frame folder was given; expected at least one')
        self._frames = sorted((_read(folder) for folder in folders), key=lambda f: f.stamp_ns)
        scenes = sorted({frame.scene for frame in self._frames})
        if len(scenes) > 1:
            raise DataError(
                f'key frames of several scenes ({", ".join(scenes)}); '
                'one scene makes one recording'
            )
        rigs = [_read_rig(frame) for frame in self._frames]
        for frame, rig in zip(self._frames, rigs, strict=True):
            _check_same(rigs[0], rig, frame.folder)
        self._rig = rigs[0]
        first = _matrix(self._frames[0], 'ego2global', self._frames[0].values['ego2global'])
        self._offset = np.append(np.round(first[:2, 3]), 0.0)

    @property
    def name(self) -> str:
        """Name of the scene."""
        return self._frames[0].scene

    @property
    def rig(self) -> CameraRig:
        """Calibration, the front camera first."""
        return self._rig

    @property
    def poses(self) -> list[PoseSample]:
        """The pose at every image and at every key frame, by time."""
        found: dict[int, FloatArray] = {}
        for frame in self._frames:
            found[frame.stamp_ns] = self._pose(frame, 'ego2global', frame.values['ego2global'])
            for name, camera in frame.values['cameras'].items():
                stamp_ns = int(camera['timestamp_us']) * 1000
                found[stamp_ns] = self._pose(frame, f'{name}.ego2global', camera['ego2global'])
        return [PoseSample(stamp_ns, found[stamp_ns]) for stamp_ns in sorted(found)]

    @property
    def global_map(self) -> VectorMap | None:
        """No map comes with key frames."""
        return None

    @property
    def metadata(self) -> dict[str, str]:
        """Source, city frame and map offset."""
        values = self._frames[0].values
        return {
            'source': f'{values["dataset"]} key frames',
            'log': str(values['log']),
            'city_frame': str(values['location']),
            'map_offset': ' '.join(f'{value:g}' for value in self._offset),
            'map_origin': 'city frame less map_offset [m]; x east, y north',
            'licence': LICENCE_NOTICE,
        }

    def __len__(self) -> int:
        """Return the number of key frames."""
        return len(self._frames)

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the key frames by time, with their lidar sweep where there is one."""
        for frame in self._frames:
            images = [
                RecordedImage(
                    camera=_camera_name(name),
                    stamp_ns=int(camera['timestamp_us']) * 1000,
                    data=_bytes(frame.folder / camera['image']),
                )
                for name, camera in frame.values['cameras'].items()
            ]
            yield RecordedFrame(
                stamp_ns=frame.stamp_ns,
                images=tuple(images),
                lidar_points=_lidar_points(frame),
                sample_id=str(frame.values['sample_token']),
            )

    def _pose(self, frame: _KeyFrame, name: str, values: Any) -> FloatArray:
        map_from_base = _matrix(frame, name, values).copy()
        map_from_base[:3, 3] -= self._offset
        return map_from_base


def find_recordings(source: str | Path) -> list[KeyFrameRecording]:
    """Return one recording per scene found at a path, by name.

    Args:
        source: a key-frame folder, or a folder of such folders.

    Raises:
        DataError: nothing there is a key frame.
    """
    path = Path(source)
    if (path / CALIBRATION_NAME).is_file():
        folders = [path]
    else:
        folders = sorted(file.parent for file in path.glob(f'*/{CALIBRATION_NAME}'))
    if not folders:
        raise DataError(
            f"'{path}' holds no key frame; expected a folder with {CALIBRATION_NAME} and its "
            'images, or a folder of such folders'
        )
    scenes: dict[str, list[Path]] = {}
    for folder in folders:
        scenes.setdefault(_read(folder).scene, []).append(folder)
    return [KeyFrameRecording(scenes[scene]) for scene in sorted(scenes)]


def _read(folder: Path) -> _KeyFrame:
    path = folder / CALIBRATION_NAME
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
        stamp_ns = int(values['timestamp_us']) * 1000
        missing = [
            key
            for key in ('dataset', 'scene', 'log', 'location', 'sample_token', 'ego2global')
            if key not in values
        ]
        if missing or not values['cameras']:
            raise KeyError(', '.join(missing) or 'cameras')
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"'{path}' is not the calibration of a key frame ({error!r}); expected the JSON with "
            'scene, timestamp_us, ego2global and cameras'
        ) from error
    return _KeyFrame(folder, values, stamp_ns)


def _read_rig(frame: _KeyFrame) -> CameraRig:
    cameras = []
    for name, values in frame.values['cameras'].items():
        try:
            cameras.append(
                Camera(
                    name=_camera_name(name),
                    frame_id=f'{_camera_name(name)}_optical_frame',
                    width_px=int(values['width']),
                    height_px=int(values['height']),
                    intrinsics=np.array(values['intrinsic'], dtype=np.float64),
                    base_from_camera=_matrix(frame, f'{name}.sensor2ego', values['sensor2ego']),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"'{frame.folder}': camera {name}: {error!r}") from error
    vehicle = str(frame.values['log']).split('-', maxsplit=1)[0]
    values = frame.values.get('lidar2ego')
    base_from_lidar = None if values is None else _matrix(frame, 'lidar2ego', values)
    return CameraRig(f'nuscenes-{vehicle}', tuple(cameras), base_from_lidar)


def _check_same(expected: CameraRig, rig: CameraRig, folder: Path) -> None:
    if rig.names != expected.names or any(
        not np.allclose(a.intrinsics, b.intrinsics, atol=_SAME_CALIBRATION)
        or not np.allclose(a.base_from_camera, b.base_from_camera, atol=_SAME_CALIBRATION)
        for a, b in zip(expected.cameras, rig.cameras, strict=True)
    ):
        raise DataError(
            f"'{folder}': calibration differs from the scene's first key frame; expected one "
            'calibration per scene: convert the folders apart'
        )


def _camera_name(name: str) -> str:
    return name.lower()


def _matrix(frame: _KeyFrame, name: str, values: Any) -> FloatArray:
    return check_transform(f'{frame.folder.name}: {name}', values)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"image '{path}' cannot be read: {error}") from error


def _lidar_points(frame: _KeyFrame) -> np.ndarray | None:
    """Return (P, 4) float32 x, y, z in the ego frame [m] and intensity."""
    name = frame.values.get('lidar_file')
    if not name:
        return None
    path = frame.folder / name
    raw = np.frombuffer(_bytes(path), dtype='<f4')
    if len(raw) % _LIDAR_COLUMNS:
        raise DataError(
            f"lidar sweep '{path}' holds {len(raw)} numbers; expected a multiple of "
            f'{_LIDAR_COLUMNS} (x, y, z, intensity, ring)'
        )
    points = raw.reshape(-1, _LIDAR_COLUMNS)[:, :4].copy()
    base_from_lidar = _matrix(frame, 'lidar2ego', frame.values['lidar2ego'])
    points[:, :3] = transform_points(base_from_lidar, points[:, :3])
    return points
