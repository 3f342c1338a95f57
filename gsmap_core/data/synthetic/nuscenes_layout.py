"""Synthetic drives as a nuScenes dataset: tables, images, LiDAR sweeps, maps.

The result is for the devkit and for readers of the dataset; what nuScenes has beside it (boxes,
instances, CAN bus) is empty or absent. Every drive is a log and a scene of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gsmap_core.data.drives import RecordedFrame
from gsmap_core.data.synthetic.dataset_files import write_atomically, write_table
from gsmap_core.data.synthetic.layers import build_layers
from gsmap_core.data.synthetic.nuscenes_map import (
    Place,
    map_expansion,
    place_towns,
    raster_mask,
    token_of,
)
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
from gsmap_core.data.synthetic.town import generate_town
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.transforms import invert, matrix_to_quaternion, transform_points
from gsmap_core.rig import load_rig
from gsmap_core.structures import FloatArray

#: Cameras of the dataset, as rigs here call them.
CAMERAS = (
    'cam_front',
    'cam_front_right',
    'cam_front_left',
    'cam_back',
    'cam_back_left',
    'cam_back_right',
)
#: Annotated samples per second; what is recorded in between are sweeps.
SAMPLE_RATE_HZ = 2.0
LIDAR_CHANNEL = 'LIDAR_TOP'
TABLES = (
    *('category', 'attribute', 'visibility', 'instance', 'sensor', 'calibrated_sensor'),
    *('ego_pose', 'log', 'scene', 'sample', 'sample_data', 'sample_annotation', 'map'),
)
_VEHICLE = 'synthetic'
#: The dataset's LiDAR frame: x right, y forward, where the simulated scanner stands.
_BASE_FROM_LIDAR = np.array(
    [[0.0, 1.0, 0.0, 0.95], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.85], [0.0, 0.0, 0.0, 1.0]]
)


def plan_places(specs: Sequence[DriveSpec]) -> tuple[dict[int, Place], dict[str, Any]]:
    """Give every town of the drives a place in a city.

    Args:
        specs: drives that will make up the dataset.

    Returns:
        Places by town seed, and the size of every city [m].

    Raises:
        ConfigError: the drives do not fit the dataset: settings differ, other cameras, or a rate
            that has no samples at 2 Hz.
    """
    settings = sorted({spec.setting for spec in specs})
    if len(settings) != 1:
        raise ConfigError(f'towns of settings {", ".join(settings)}; expected one per dataset')
    for spec in specs:
        if (spec.rate_hz / SAMPLE_RATE_HZ) % 1 > 1e-9:
            raise ConfigError(
                f'drive: rate_hz = {spec.rate_hz:g}; nuScenes has samples at 2 Hz: expected a '
                'multiple of 2'
            )
        names = load_rig(spec.rig).names
        if set(names) != set(CAMERAS):
            raise ConfigError(
                f"rig '{spec.rig}' has cameras {', '.join(names)}; nuScenes has "
                f'{", ".join(CAMERAS)}: use the rig nuscenes_like'
            )
    seeds = sorted({spec.town_seed for spec in specs})
    places, edges = place_towns([generate_town(seed, settings[0]).extent for seed in seeds])
    return dict(zip(seeds, places, strict=True)), edges


def write_drive(
    recording: SyntheticRecording, place: Place, root: Path
) -> dict[str, list[dict[str, Any]]]:
    """Render a drive into the folders `samples` and `sweeps`.

    Args:
        recording: the drive.
        place: where its town lies.
        root: folder of the dataset.

    Returns:
        Its records by table.
    """
    writer = _DriveWriter(recording, place, root)
    for index, frame in enumerate(recording.frames()):
        writer.add_frame(index, frame)
    return writer.finish()


def write_tables(
    root: Path,
    version: str,
    drives: Sequence[dict[str, list[dict[str, Any]]]],
    specs: Sequence[DriveSpec],
) -> None:
    """Write maps and tables; the tables appear last and all at once.

    Args:
        root: folder of the dataset.
        version: name of the folder of tables, e.g. `v1.0-mini`.
        drives: records of every drive.
        specs: the drives.
    """
    places, edges = plan_places(specs)
    setting = specs[0].setting
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for records in drives:
        for name, rows in records.items():
            known = {row['token'] for row in tables[name]}
            tables[name] += [row for row in rows if row['token'] not in known]
    for location, edge in edges.items():
        towns = [
            (build_layers(generate_town(seed, setting), setting), place.offset)
            for seed, place in places.items()
            if place.location == location
        ]
        expansion = json.dumps(map_expansion(towns, edge)).encode()
        write_atomically(root / 'maps' / 'expansion' / f'{location}.json', expansion)
        token = token_of('mask', location)
        _, png = cv2.imencode('.png', raster_mask(towns, edge))
        write_atomically(root / 'maps' / f'{token}.png', png.tobytes())
        tables['map'].append(
            {
                'token': token,
                'category': 'semantic_prior',
                'filename': f'maps/{token}.png',
                'log_tokens': [
                    log['token'] for log in tables['log'] if log['location'] == location
                ],
            }
        )
    partial = root / f'.{version}.partial'
    shutil.rmtree(partial, ignore_errors=True)
    for name, rows in tables.items():
        write_table(partial / f'{name}.json', rows)
    if (root / version).exists():
        raise DataError(f"'{root / version}' was made by someone else meanwhile; it was kept")
    partial.rename(root / version)


class _DriveWriter:
    """Writes the files of a drive one camera set at a time and keeps its records."""

    def __init__(self, recording: SyntheticRecording, place: Place, root: Path) -> None:
        self._recording = recording
        self._root = root
        self._place = place
        self._sweeps_per_sample = round(recording.spec.rate_hz / SAMPLE_RATE_HZ)
        begin = datetime.fromtimestamp(recording.spec.start_ns / 1e9, tz=UTC)
        self._logfile = f'{_VEHICLE}-{begin:%Y-%m-%d-%H-%M-%S}+0000-{recording.name}'
        self._scene = token_of('scene', recording.name)
        self._base_from_lidar = (
            _BASE_FROM_LIDAR
            if recording.rig.base_from_lidar is None
            else recording.rig.base_from_lidar
        )
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self._sensors: dict[str, str] = {}
        for camera in recording.rig.cameras:
            self._add_sensor(
                camera.name.upper(), camera.base_from_camera, camera.intrinsics.tolist()
            )
        self._add_sensor(LIDAR_CHANNEL, self._base_from_lidar, [])

    def add_frame(self, index: int, frame: RecordedFrame) -> None:
        """Write the images, and the sweep where there is one, of a camera set."""
        is_key = index % self._sweeps_per_sample == 0
        if is_key:
            self._rows['sample'].append(
                {
                    'token': token_of('sample', frame.sample_id),
                    'timestamp': _microseconds(frame.stamp_ns),
                    'scene_token': self._scene,
                    'prev': '',
                    'next': '',
                }
            )
        for image in frame.images:
            camera = self._recording.rig.camera(image.camera)
            size = (camera.height_px, camera.width_px)
            channel = image.camera.upper()
            self._add_data(channel, image.stamp_ns, is_key, 'jpg', size, image.data)
        cloud = None if frame.lidar_points is None else self._sweep(frame.lidar_points)
        self._add_data(LIDAR_CHANNEL, frame.stamp_ns, is_key, 'pcd', (0, 0), cloud)

    def finish(self) -> dict[str, list[dict[str, Any]]]:
        """Link the records and return them."""
        rows, name = self._rows, self._recording.name
        _link(rows['sample'])
        stamps = [row['timestamp'] for row in rows['sample']]
        for channel in self._sensors:
            data = [row for row in rows['sample_data'] if row['channel'] == channel]
            _link(data)
            for row in data:
                # A sweep belongs to the sample that follows it; after the last one, to that.
                own = min(int(np.searchsorted(stamps, row['reference'])), len(stamps) - 1)
                row['sample_token'] = rows['sample'][own]['token']
        for row in rows['sample_data']:
            del row['channel'], row['reference']
        log = token_of('log', name)
        rows['log'].append(
            {
                'token': log,
                'logfile': self._logfile,
                'vehicle': _VEHICLE,
                'date_captured': self._logfile.removeprefix(f'{_VEHICLE}-')[:10],
                'location': self._place.location,
            }
        )
        rows['scene'].append(
            {
                'token': self._scene,
                'log_token': log,
                'nbr_samples': len(rows['sample']),
                'first_sample_token': rows['sample'][0]['token'],
                'last_sample_token': rows['sample'][-1]['token'],
                'name': name,
                'description': f'Synthetic, {self._recording.conditions.name}',
            }
        )
        return rows

    def _add_sensor(self, channel: str, base_from_sensor: FloatArray, intrinsics: Any) -> None:
        modality = 'lidar' if channel == LIDAR_CHANNEL else 'camera'
        sensor = token_of('sensor', channel)
        self._rows['sensor'].append({'token': sensor, 'channel': channel, 'modality': modality})
        self._sensors[channel] = token_of('calibration', self._recording.name, channel)
        self._rows['calibrated_sensor'].append(
            {
                'token': self._sensors[channel],
                'sensor_token': sensor,
                **_pose(base_from_sensor),
                'camera_intrinsic': intrinsics,
            }
        )

    def _add_data(
        self,
        channel: str,
        stamp_ns: int,
        is_key: bool,
        kind: str,
        size: tuple[int, int],
        content: bytes | None,
    ) -> None:
        stamp_us = _microseconds(stamp_ns)
        ending = 'pcd.bin' if kind == 'pcd' else kind
        folder = 'samples' if is_key else 'sweeps'
        name = f'{folder}/{channel}/{self._logfile}__{channel}__{stamp_us}.{ending}'
        if content is not None:
            write_atomically(self._root / name, content)
        token = token_of(name)
        city_from_base = self._recording.trajectory.pose(stamp_us * 1000).copy()
        city_from_base[:2, 3] += self._place.offset
        self._rows['ego_pose'].append(
            {'token': token, 'timestamp': stamp_us, **_pose(city_from_base)}
        )
        self._rows['sample_data'].append(
            {
                'token': token,
                'sample_token': '',
                'ego_pose_token': token,
                'calibrated_sensor_token': self._sensors[channel],
                'timestamp': stamp_us,
                'fileformat': kind,
                'is_key_frame': is_key,
                'height': size[0],
                'width': size[1],
                'filename': name,
                'prev': '',
                'next': '',
                'channel': channel,
                'reference': self._rows['sample'][-1]['timestamp'] if is_key else stamp_us,
            }
        )

    def _sweep(self, points: np.ndarray) -> bytes:
        """Return a point cloud of the ego frame as x, y, z, intensity, ring in the LiDAR frame."""
        own = transform_points(invert(self._base_from_lidar), points[:, :3])
        elevation = np.arctan2(own[:, 2], np.hypot(own[:, 0], own[:, 1]))
        # Rings from the lowest beam up; the recording does not say which beam a point is from.
        ring = np.clip(np.round((np.degrees(elevation) + 30.0) / 40.0 * 31), 0, 31)
        return np.column_stack([own, points[:, 3], ring]).astype('<f4').tobytes()


def _link(rows: list[dict[str, Any]]) -> None:
    """Chain records in time order."""
    for before, after in zip(rows[:-1], rows[1:], strict=True):
        before['next'], after['prev'] = after['token'], before['token']


def _microseconds(stamp_ns: int) -> int:
    return stamp_ns // 1000


def _pose(dst_from_src: FloatArray) -> dict[str, Any]:
    """Return a transform as the tables have it; quaternions begin with w."""
    x, y, z, w = (float(value) for value in matrix_to_quaternion(dst_from_src[:3, :3]))
    return {
        'translation': [float(value) for value in dst_from_src[:3, 3]],
        'rotation': [w, x, y, z],
    }
