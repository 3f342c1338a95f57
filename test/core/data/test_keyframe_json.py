"""Real key frames through the adapter and a bag; and made-up ones that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from core.data.helpers.fake_recording import make_camera, solid_jpeg

from gsmap_core.data.bag import LIDAR_TOPIC, open_bag, write_bag
from gsmap_core.data.keyframe_json import KeyFrameRecording, find_recordings
from gsmap_core.errors import DataError
from gsmap_core.geometry.camera import project_points


def calibration(folder: Path) -> dict:
    return json.loads((folder / 'calibration.json').read_text())


@pytest.mark.data
def test_real_lidar_points_land_where_the_dataset_says(data_dir, tmp_path):
    folder = data_dir / 'nuscenes_keyframe' / 'scene-0061_kf00'
    write_bag(KeyFrameRecording([folder]), tmp_path / 'bag', lidar=True)
    drive = open_bag(tmp_path / 'bag')
    frame, points = drive.frame(0), drive.lidar_points(0)
    values = calibration(folder)
    raw = np.fromfile(folder / values['lidar_file'], '<f4').reshape(-1, 5)
    homogeneous = np.column_stack([raw[:, :3], np.ones(len(raw))])
    assert frame.sample_id == values['sample_token']
    np.testing.assert_allclose(frame.rig.base_from_lidar, values['lidar2ego'], atol=1e-6)
    seen = 0
    for camera, extrinsics in zip(frame.rig.cameras, frame.base_from_cameras, strict=True):
        matrix = np.array(values['cameras'][camera.name.upper()]['lidar2img'])
        expected = homogeneous @ matrix.T
        pixels = expected[:, :2] / expected[:, 2:3]
        inside = (expected[:, 2] > 1.0) & (pixels > 0).all(axis=1)
        inside &= (pixels < [camera.width_px - 1, camera.height_px - 1]).all(axis=1)
        found = project_points(camera, points[:, :3], extrinsics)
        assert found.is_visible[inside].all()
        assert np.abs(found.pixels - pixels)[inside].max() < 0.1
        seen += int(inside.sum())
        # The car moves between the cameras: without that the points would be off.
        if camera.name == 'cam_back_left':
            still = project_points(camera, points[:, :3])
            assert np.abs(still.pixels - pixels)[inside].max() > 1.0
    assert seen > 15_000


@pytest.mark.data
def test_real_key_frames_of_one_scene_become_one_drive(data_dir, tmp_path):
    recordings = find_recordings(data_dir / 'nuscenes_keyframe')
    assert [recording.name for recording in recordings] == ['scene-0061', 'scene-0103']
    scene = recordings[1]
    write_bag(scene, tmp_path / 'bag', lidar=True)
    drive = open_bag(tmp_path / 'bag')
    assert len(drive) == 2
    assert drive.rig.names[0] == 'cam_front'
    assert len(drive.rig) == 6
    assert LIDAR_TOPIC not in drive.topics
    offset = np.array([float(value) for value in drive.metadata['map_offset'].split()])
    for index, name in enumerate(('scene-0103_kf00', 'scene-0103_kf01')):
        values = calibration(data_dir / 'nuscenes_keyframe' / name)
        front = values['cameras']['CAM_FRONT']
        frame = drive.frame(index)
        assert frame.is_complete
        assert frame.stamp_ns == front['timestamp_us'] * 1000
        assert frame.sample_id == values['sample_token']
        city_from_base = frame.map_from_base.copy()
        city_from_base[:3, 3] += offset
        np.testing.assert_allclose(city_from_base, front['ego2global'], atol=1e-5)
    moved = drive.frame(1).map_from_base[:3, 3] - drive.frame(0).map_from_base[:3, 3]
    assert np.linalg.norm(moved) == pytest.approx(4.2, abs=0.2)
    assert drive.metadata['city_frame'] == 'boston-seaport'
    assert 'CC BY-NC-SA' in drive.metadata['licence']


def make_folder(root: Path, name: str, stamp_us: int, scene: str = 'scene-x', x: float = 0.0):
    folder = root / name
    folder.mkdir(parents=True)
    camera = make_camera('CAM_FRONT', 0.0)
    pose = np.eye(4)
    pose[:3, 3] = [1234.4 + x, 567.6, 0.0]
    (folder / 'front.jpg').write_bytes(solid_jpeg(camera, 100))
    values = {
        'dataset': 'nuScenes',
        'scene': scene,
        'log': 'n000-log',
        'location': 'town',
        'sample_token': name,
        'timestamp_us': stamp_us + 40_000,
        'ego2global': pose.tolist(),
        'cameras': {
            'CAM_FRONT': {
                'image': 'front.jpg',
                'width': camera.width_px,
                'height': camera.height_px,
                'timestamp_us': stamp_us,
                'intrinsic': camera.intrinsics.tolist(),
                'sensor2ego': camera.base_from_camera.tolist(),
                'ego2global': pose.tolist(),
            }
        },
    }
    (folder / 'calibration.json').write_text(json.dumps(values))
    return folder


def change(folder: Path, edit) -> None:
    values = calibration(folder)
    edit(values)
    (folder / 'calibration.json').write_text(json.dumps(values))


def test_made_up_key_frames_need_no_dataset(tmp_path):
    later = make_folder(tmp_path / 'in', 'b', 2_000_000, x=5.0)
    sooner = make_folder(tmp_path / 'in', 'a', 1_500_000)
    recording = KeyFrameRecording([later, sooner])
    assert recording.metadata['map_offset'] == '1234 568 0'
    assert [pose.stamp_ns for pose in recording.poses] == [
        stamp * 1000 for stamp in (1_500_000, 1_540_000, 2_000_000, 2_040_000)
    ]
    write_bag(recording, tmp_path / 'bag')
    drive = open_bag(tmp_path / 'bag')
    assert [drive.frame(n).sample_id for n in range(2)] == ['a', 'b']
    np.testing.assert_allclose(drive.frame(1).map_from_base[:3, 3], [5.4, -0.4, 0.0], atol=1e-9)


def test_wrong_key_frames_are_refused(tmp_path):
    with pytest.raises(DataError, match='holds no key frame'):
        find_recordings(tmp_path)
    a = make_folder(tmp_path / 'scenes', 'a', 0)
    b = make_folder(tmp_path / 'scenes', 'b', 1, scene='scene-y')
    with pytest.raises(DataError, match='several scenes'):
        KeyFrameRecording([a, b])
    c = make_folder(tmp_path / 'calib', 'c', 2)
    change(c, lambda v: v['cameras']['CAM_FRONT']['intrinsic'][0].__setitem__(0, 51.0))
    with pytest.raises(DataError, match='calibration differs'):
        KeyFrameRecording([a, c])
    d = make_folder(tmp_path / 'missing', 'd', 3)
    (d / 'front.jpg').unlink()
    with pytest.raises(DataError, match='front.jpg'):
        list(KeyFrameRecording([d]).frames())
    e = make_folder(tmp_path / 'broken', 'e', 4)
    change(e, lambda v: v.pop('ego2global'))
    with pytest.raises(DataError, match='ego2global'):
        KeyFrameRecording([e])
    (e / 'calibration.json').write_text('{"cut')
    with pytest.raises(DataError, match='not the calibration of a key frame'):
        KeyFrameRecording([e])
