"""The values that cross layers refuse what cannot be right."""

import numpy as np
import pytest

from gsmap_core.errors import CalibrationError, DataError
from gsmap_core.structures import (
    Camera,
    CameraRig,
    MapElement,
    PerceptionRange,
    SurroundFrame,
    VectorMap,
)

INTRINSICS = np.array([[50.0, 0, 31.5], [0, 50, 15.5], [0, 0, 1]])


def camera(name: str = 'front', **changes) -> Camera:
    values = {
        'name': name,
        'frame_id': f'{name}_optical_frame',
        'width_px': 64,
        'height_px': 32,
        'intrinsics': INTRINSICS,
        'base_from_camera': np.eye(4),
    }
    return Camera(**{**values, **changes})


def test_uncalibrated_camera_is_refused_by_name():
    with pytest.raises(CalibrationError, match=r"camera 'front'.*K\[0\] == 0 \(uncalibrated\)"):
        camera(intrinsics=np.zeros((3, 3)))
    with pytest.raises(CalibrationError, match="'fisheye9' is not supported"):
        camera(distortion_model='fisheye9')
    mirror = np.diag([1.0, 1, -1, 1])
    with pytest.raises(DataError, match='not rigid'):
        camera(base_from_camera=mirror)


def test_rig_needs_unique_names():
    with pytest.raises(CalibrationError, match='twice'):
        CameraRig('r', (camera(), camera()))
    with pytest.raises(CalibrationError, match='no camera'):
        CameraRig('r', ())
    with pytest.raises(CalibrationError, match="no camera 'rear'; it has front"):
        CameraRig('r', (camera(),)).camera('rear')


def test_frame_checks_images_against_the_rig():
    rig = CameraRig('r', (camera('a'), camera('b')))
    good = np.zeros((32, 64, 3), np.uint8)
    frame = SurroundFrame(stamp_ns=5, rig=rig, images=(good, None))
    assert frame.camera_stamps_ns == (5, None) and not frame.is_complete
    assert frame.base_from_cameras.shape == (2, 4, 4)
    with pytest.raises(DataError, match='1 images.*2 cameras'):
        SurroundFrame(stamp_ns=5, rig=rig, images=(good,))
    with pytest.raises(DataError, match=r"camera 'b'.*expected uint8 \(32, 64, 3\)"):
        SurroundFrame(stamp_ns=5, rig=rig, images=(good, good[:16]))


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'vertices': [[0, 0]]}, '1 vertices; expected at least 2'),
        ({'vertices': [[0, 0], [1, 1]], 'closed': True}, '2 vertices; expected at least 3'),
        ({'vertices': [[0, 0], [np.nan, 1]]}, 'NaN'),
        ({'vertices': [[0, 0], [1, 1]], 'score': 1.5}, 'score 1.5'),
        (
            {'vertices': [[0, 0], [1, 1]], 'covariance': [[1, 0, 1]]},
            r'\(1, 3\); expected \(2, 3\)',
        ),
        ({'vertices': [0, 0]}, r'shape \(2,\)'),
    ],
)
def test_impossible_elements_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        MapElement(category=0, **values)


def test_a_closed_element_closes_its_loop_only_on_request():
    ring = MapElement(category=1, vertices=[[0, 0], [2, 0], [2, 1]], closed=True)
    assert ring.loop_xy().tolist() == [[0, 0], [2, 0], [2, 1], [0, 0]]
    line = MapElement(category=0, vertices=[[0, 0, 1], [2, 0, 1]])
    assert line.has_z and line.loop_xy().tolist() == [[0, 0], [2, 0]]


def test_range_and_reference():
    with pytest.raises(DataError, match='is empty'):
        PerceptionRange(x_min=1, x_max=1)
    with pytest.raises(DataError, match="reference 'world'"):
        VectorMap(reference='world')
    elements = tuple(MapElement(c, [[0, 0], [1, 0]]) for c in (0, 2, 0))
    assert len(VectorMap(elements).of_category(0)) == 2


def test_scaled_camera_keeps_the_picture_centre():
    scaled = camera().scaled(32, 16)
    assert scaled.intrinsics[0, 0] == 25
    # The centre of 64 columns is 31.5, that of 32 columns 15.5.
    assert scaled.intrinsics[0, 2] == 15.5 and scaled.intrinsics[1, 2] == 7.5
