"""What the owner of a vehicle brings: a rig file, a bag without TF, annotations of the map."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import yaml

from gsmap_core.data import messages as msg
from gsmap_core.data.bag import BagRecorder
from gsmap_core.data.drive_messages import odometry_message
from gsmap_core.data.drives import PoseSample

START_NS = 1_700_000_000_000_000_000
NUM_SETS = 3
#: Sets are half a second and 5 m apart; the vehicle drives along x, 1 m left of its axis.
_PERIOD_NS, _SPEED_M_S = 500_000_000, 10.0
_CAMERAS = {'cam_front': (0.5, -0.5, 0.5, -0.5), 'cam_back': (0.5, 0.5, -0.5, -0.5)}


def write_own_files(folder: Path) -> None:
    """Write `my_rig.yaml`, `recordings/monday` and `my_map.geojson`."""
    cameras = {
        name: {
            'frame_id': f'{name}_optical_frame',
            'size_px': [64, 48],
            'intrinsics': {'fx': 40.0, 'fy': 40.0, 'cx': 31.5, 'cy': 23.5},
            'distortion': {'model': 'plumb_bob', 'coefficients': [-0.1, 0.01, 0.0, 0.0]},
            'base_from_camera': {'translation': [1.5, 0.0, 1.6], 'quaternion': list(quaternion)},
        }
        for name, quaternion in _CAMERAS.items()
    }
    (folder / 'my_rig.yaml').write_text(yaml.safe_dump({'name': 'mine', 'cameras': cameras}))
    crossing = [[22, -3], [25, -3], [25, 5], [22, 5], [22, -3]]
    features = [
        _feature('divider', 'LineString', [[-100, 3], [200, 3]]),
        _feature('boundary', 'LineString', [[-100, -2], [200, -2]]),
        _feature('ped_crossing', 'Polygon', [crossing]),
    ]
    content = {'type': 'FeatureCollection', 'frame': 'odom', 'features': features}
    (folder / 'my_map.geojson').write_text(json.dumps(content))
    _write_bag(folder / 'recordings' / 'monday')


def _feature(category: str, kind: str, coordinates: list) -> dict:
    geometry = {'type': kind, 'coordinates': coordinates}
    return {'type': 'Feature', 'properties': {'category': category}, 'geometry': geometry}


def _write_bag(path: Path) -> None:
    """Write distorted JPEG images and odometry; no CameraInfo, no TF."""
    poses = []
    for stamp in range(START_NS - 100_000_000, START_NS + NUM_SETS * _PERIOD_NS, 20_000_000):
        pose = np.eye(4)
        pose[:2, 3] = (stamp - START_NS) * 1e-9 * _SPEED_M_S, 1.0
        poses.append(PoseSample(stamp, pose))
    entries = [(p.stamp_ns, '/odom', odometry_message(poses, i)) for i, p in enumerate(poses)]
    for index in range(NUM_SETS):
        for name in _CAMERAS:
            picture = np.full((48, 64, 3), 60 + 40 * index, dtype=np.uint8)
            picture[24:] = 20
            data = np.frombuffer(cv2.imencode('.jpg', picture)[1].tobytes(), dtype=np.uint8)
            stamp = START_NS + index * _PERIOD_NS
            header = msg.make_header(stamp, f'{name}_optical_frame')
            message = msg.make_message(
                msg.COMPRESSED_IMAGE, header=header, format='jpeg', data=data
            )
            entries.append((stamp, f'/{name}/image_raw/compressed', message))
    with BagRecorder(path) as recorder:
        recorder.add_topic('/odom', msg.ODOMETRY)
        for name in _CAMERAS:
            recorder.add_topic(f'/{name}/image_raw/compressed', msg.COMPRESSED_IMAGE)
        for stamp, topic, message in sorted(entries, key=lambda entry: entry[:2]):
            recorder.write(topic, stamp, message)
