"""Rigid transforms, quaternions and slerp against hand-made numbers and scipy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import (
    interpolate_transform,
    invert,
    make_transform,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotation_from_rpy,
    slerp,
    transform_points,
    yaw_of,
)


def test_chain_reads_destination_first():
    quarter_left = rotation_from_rpy(0, 0, np.pi / 2)
    map_from_base = make_transform(quarter_left, [10, 0, 0])
    # One metre ahead of a vehicle that heads along +y of the map.
    assert np.allclose(transform_points(map_from_base, [[1.0, 0, 0]]), [[10, 1, 0]])
    assert np.allclose(invert(map_from_base) @ map_from_base, np.eye(4))
    assert yaw_of(map_from_base) == pytest.approx(np.pi / 2)


def test_quaternions_agree_with_scipy():
    rng = np.random.default_rng(3)
    quaternions = rng.normal(size=(200, 4))
    matrices = quaternion_to_matrix(quaternions)
    assert np.allclose(matrices, Rotation.from_quat(quaternions).as_matrix())
    back = matrix_to_quaternion(matrices)
    assert np.allclose(quaternion_to_matrix(back), matrices) and (back[:, 3] >= 0).all()
    with pytest.raises(DataError, match='no direction'):
        quaternion_to_matrix([0, 0, 0, 0])


def test_rpy_agrees_with_scipy():
    expected = Rotation.from_euler('xyz', [0.1, -0.2, 2.0]).as_matrix()
    assert np.allclose(rotation_from_rpy(0.1, -0.2, 2.0), expected)


def test_slerp_takes_the_shorter_way():
    rng = np.random.default_rng(4)
    for _ in range(20):
        a, b = Rotation.random(2, random_state=rng)
        expected = Slerp([0, 1], Rotation.concatenate([a, b]))(0.3).as_matrix()
        result = slerp(a.as_quat(), -b.as_quat(), 0.3)
        assert np.allclose(quaternion_to_matrix(result), expected)


def test_interpolation_of_a_pose():
    start, end = make_transform(), make_transform(rotation_from_rpy(0, 0, 1.0), [2, 4, 6])
    middle = interpolate_transform(start, end, 0.25)
    assert np.allclose(middle[:3, 3], [0.5, 1, 1.5]) and yaw_of(middle) == pytest.approx(0.25)
