"""Rig files: what they say arrives, and what they cannot say is refused by name."""

import numpy as np
import pytest
import yaml

from gsmap_core.errors import CalibrationError, ConfigError
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.transforms import yaw_of
from gsmap_core.rig import load_rig, save_rig, scaled_rig

ONE = {
    'cameras': {
        'cam_front': {
            'frame_id': 'cam_front_optical_frame',
            'size_px': [640, 480],
            'intrinsics': {'fx': 500, 'fy': 501.5, 'cx': 319.5, 'cy': 239.5},
            'base_from_camera': {
                'translation': [1.5, 0, 1.6],
                'quaternion': [-0.5, 0.5, -0.5, 0.5],
            },
        }
    }
}


def write(tmp_path, change=None):
    values = yaml.safe_load(yaml.safe_dump(ONE))
    if change is not None:
        change(values)
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump(values), encoding='utf-8')
    return str(path)


@pytest.mark.parametrize(
    ('name', 'names', 'yaws'),
    [
        (
            'nuscenes_like',
            'cam_front cam_front_right cam_front_left cam_back cam_back_left cam_back_right',
            [0, -55, 55, 180, 110, -110],
        ),
        (
            'av2_like',
            'ring_front_center ring_front_right ring_front_left ring_rear_right ring_rear_left '
            'ring_side_right ring_side_left',
            [0, -45, 45, -153, 153, -99, 99],
        ),
    ],
)
def test_shipped_rigs_look_where_their_names_say(name, names, yaws):
    rig = load_rig(name)
    assert rig.name == name
    assert list(rig.names) == names.split()
    for camera, yaw in zip(rig.cameras, yaws, strict=True):
        optical_axis = camera.base_from_camera[:3, 2]
        angle = np.rad2deg(np.arctan2(optical_axis[1], optical_axis[0]))
        assert np.isclose(np.cos(np.deg2rad(angle - yaw)), 1, atol=1e-6)
        assert abs(optical_axis[2]) < 0.05, 'level to 3 degrees'
        assert camera.base_from_camera[2, 0] == pytest.approx(0, abs=0.01), 'no roll'
        assert camera.base_from_camera[2, 1] < -0.99, 'image down is down'
        assert camera.frame_id == f'{camera.name}_optical_frame'


def test_only_the_front_centre_camera_of_the_ring_is_portrait():
    shapes = [(c.width_px, c.height_px) for c in load_rig('av2_like').cameras]
    assert shapes == [(1550, 2048)] + [(2048, 1550)] * 6


def test_a_file_of_ones_own_is_read(tmp_path):
    rig = load_rig(write(tmp_path))
    assert rig.name == 'mine'
    camera = rig.cameras[0]
    np.testing.assert_allclose(camera.intrinsics, [[500, 0, 319.5], [0, 501.5, 239.5], [0, 0, 1]])
    # Ten metres ahead of the camera, one to the left, one up.
    pixel = project_points(camera, [[11.5, 1.0, 2.6]]).pixels[0]
    np.testing.assert_allclose(pixel, [319.5 - 50, 239.5 - 50.15])
    assert yaw_of(camera.base_from_camera @ np.diag([1, 1, 1, 1])) == pytest.approx(-np.pi / 2)


def test_save_and_load_agree(tmp_path):
    def bend(values):
        values['name'] = 'bent'
        values['cameras']['cam_front']['distortion'] = {
            'model': 'plumb_bob',
            'coefficients': [0.1, -0.2, 0.001, 0.002, 0.0],
        }

    for source in (
        load_rig('nuscenes_like'),
        load_rig('av2_like'),
        load_rig(write(tmp_path, bend)),
    ):
        save_rig(source, tmp_path / 'copy.yaml')
        copy = load_rig(str(tmp_path / 'copy.yaml'))
        assert copy.name == source.name and copy.names == source.names
        for one, other in zip(copy.cameras, source.cameras, strict=True):
            assert (one.width_px, one.height_px) == (other.width_px, other.height_px)
            assert one.distortion_model == other.distortion_model
            assert one.distortion == other.distortion
            np.testing.assert_allclose(one.intrinsics, other.intrinsics, rtol=1e-12)
            np.testing.assert_allclose(one.base_from_camera, other.base_from_camera, atol=1e-9)


def test_the_lidar_of_a_rig_is_optional_and_kept(tmp_path):
    def add_lidar(values):
        values['base_from_lidar'] = {
            'translation': [0.9, 0.0, 1.8],
            'quaternion': [0.0, 0.0, -(0.5**0.5), 0.5**0.5],
        }

    assert load_rig('nuscenes_like').base_from_lidar is None
    rig = load_rig(write(tmp_path, add_lidar))
    # Its y axis points ahead.
    np.testing.assert_allclose(rig.base_from_lidar @ [0, 10, 0, 1], [10.9, 0, 1.8, 1], atol=1e-12)
    save_rig(rig, tmp_path / 'copy.yaml')
    copy = load_rig(str(tmp_path / 'copy.yaml'))
    np.testing.assert_allclose(copy.base_from_lidar, rig.base_from_lidar, atol=1e-9)
    assert scaled_rig(rig, 320).base_from_lidar is rig.base_from_lidar


def camera_of(values):
    return values['cameras']['cam_front']


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (lambda v: v.update(camera={}), ConfigError, "unknown key 'camera'"),
        (lambda v: camera_of(v).update(size=[1, 2]), ConfigError, "unknown key 'size'"),
        (lambda v: camera_of(v)['intrinsics'].update(fz=1.0), ConfigError, "unknown key 'fz'"),
        (lambda v: camera_of(v)['intrinsics'].pop('cy'), ConfigError, 'cy'),
        (lambda v: camera_of(v).pop('frame_id'), ConfigError, 'frame_id'),
        (lambda v: camera_of(v)['intrinsics'].update(fx='wide'), ConfigError, 'intrinsics.fx'),
        (lambda v: camera_of(v).update(size_px=[640.5, 480]), ConfigError, 'size_px'),
        (
            lambda v: camera_of(v)['base_from_camera'].update(translation=[1, 2]),
            ConfigError,
            'translation',
        ),
        (
            lambda v: camera_of(v).update(distortion={'model': 'fisheye62'}),
            ConfigError,
            'fisheye62',
        ),
        (lambda v: v.update(name=7), ConfigError, 'name'),
        (lambda v: v.update(base_from_lidar=[1]), ConfigError, 'base_from_lidar is a list'),
        (
            lambda v: v.update(base_from_lidar={'translation': [0, 0, 0]}),
            ConfigError,
            'base_from_lidar: ',
        ),
        (lambda v: v.update(cameras=[1, 2]), ConfigError, 'cameras is a list'),
        (lambda v: v['cameras'].update(cam_front=3), ConfigError, 'cam_front is a int'),
        (lambda v: v.update(cameras={}), CalibrationError, 'no camera'),
        (lambda v: v.pop('cameras'), CalibrationError, 'no camera'),
        (lambda v: camera_of(v)['intrinsics'].update(fx=0.0), CalibrationError, 'uncalibrated'),
        (lambda v: camera_of(v).update(size_px=[0, 480]), CalibrationError, '0 x 480'),
        (
            lambda v: camera_of(v)['base_from_camera'].update(quaternion=[0, 0, 0, 0]),
            CalibrationError,
            'quaternion',
        ),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, change, error, message):
    path = write(tmp_path, change)
    with pytest.raises(error) as caught:
        load_rig(path)
    assert message in str(caught.value)
    assert 'mine' in str(caught.value)


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match='nuscenes_like'):
        load_rig('kitti_like')
    with pytest.raises(ConfigError, match='does not exist'):
        load_rig(str(tmp_path / 'absent.yaml'))
    broken = tmp_path / 'broken.yaml'
    broken.write_text('cameras: [1, 2', encoding='utf-8')
    with pytest.raises(ConfigError, match='not valid YAML'):
        load_rig(str(broken))
    with pytest.raises(ConfigError, match='.yaml or .yml'):
        save_rig(load_rig('av2_like'), tmp_path / 'rig.json')


def test_a_camera_is_asked_for_by_name():
    with pytest.raises(CalibrationError, match='cam_front_left'):
        load_rig('nuscenes_like').camera('cam_top')


def test_scaled_rig_sees_the_same_in_fewer_pixels():
    rig = load_rig('av2_like')
    small = scaled_rig(rig, 310)
    assert [(c.width_px, c.height_px) for c in small.cameras] == [(310, 410)] + [(410, 310)] * 6
    for one, other in zip(rig.cameras, small.cameras, strict=True):
        # Corners of the image area, half a pixel outside the outermost centres, stay corners.
        rays = [
            np.linalg.inv(c.intrinsics) @ [c.width_px - 0.5, c.height_px - 0.5, 1]
            for c in (one, other)
        ]
        np.testing.assert_allclose(rays[0], rays[1], atol=1e-9)
    with pytest.raises(ConfigError, match='positive'):
        scaled_rig(rig, 0)
