"""Returns lie on the surfaces that they come from."""

from dataclasses import replace

import numpy as np
import pytest

from gsmap_core.data.synthetic.lidar import LidarConfig, simulate_lidar
from gsmap_core.data.synthetic.scene import (
    Billboard,
    Box,
    BoxKind,
    GroundPatch,
    HeightField,
    Material,
    Town,
)
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy, transform_points

EXACT = LidarConfig(range_noise_m=0.0)
GROUND = HeightField(
    np.array([1.2, 0.3]), np.array([[0.06, 0.0], [0.02, 0.08]]), np.array([0.4, 1])
)
BOX = Box(np.array([10.0, 4.0]), (4.0, 2.0, 2.5), 0.5, BoxKind.PLAIN, (0.5, 0.5, 0.5))


def make_town(ground=None, boxes=(), patches=(), billboards=()):
    return Town(
        'test',
        0,
        np.array([-80.0, -80.0, 80.0, 80.0]),
        HeightField() if ground is None else ground,
        tuple(patches),
        tuple(boxes),
        tuple(billboards),
        (),
        (),
        (),
    )


def in_box_frame(points, box, time_s=0.0):
    centre = box.centre_xy + np.array(box.velocity_xy) * time_s
    cosine, sine = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
    x, y = (points[:, :2] - centre).T
    return np.stack([cosine * x + sine * y, cosine * y - sine * x, points[:, 2]], axis=1)


def test_ground_returns_lie_on_the_height_field():
    pose = make_transform(rotation_from_rpy(0.02, -0.03, 0.7), [3.0, -2.0, 0.0])
    pose[2, 3] = GROUND.height(pose[:2, 3])
    sweep = simulate_lidar(make_town(GROUND), [], pose, 0.0, EXACT)
    assert sweep.dtype == np.float32 and sweep.shape[1] == 4 and len(sweep) > 5000
    points = transform_points(pose, sweep[:, :3])
    error = np.abs(points[:, 2] - GROUND.height(points[:, :2]))
    distance = np.linalg.norm(sweep[:, :3] - EXACT.position_m, axis=1)
    assert distance.max() <= EXACT.max_range_m + 1e-3
    assert (error / distance).max() < 1e-3 and np.median(error) < 1e-4


@pytest.mark.parametrize('time_s', [0.0, 1.5])
def test_box_returns_lie_on_its_faces(time_s):
    moving = replace(BOX, velocity_xy=(2.0, -1.0))
    sweep = simulate_lidar(make_town(), [moving], np.eye(4), time_s, EXACT)
    local = in_box_frame(sweep.astype(float), moving, time_s)
    half = np.array([2.0, 1.0])
    above = local[:, 2] > 0.01
    assert above.sum() > 50
    outside = np.abs(local[above, :2]) - half
    on_wall = np.abs(outside.max(axis=1)) < 0.005
    on_roof = np.abs(local[above, 2] - 2.5) < 0.005
    assert (on_wall | on_roof).all()
    # Level ground under and behind the box, seen from outside, is never returned.
    inside = (np.abs(local[:, :2]) < half - 0.01).all(axis=1) & (local[:, 2] < 2.4)
    assert not inside.any()


def test_a_box_hides_the_ground_behind_it():
    wall = Box(np.array([8.0, 0.0]), (1.0, 10.0, 6.0), 0.0, BoxKind.BUILDING, (0.5, 0.5, 0.5))
    sweep = simulate_lidar(make_town(boxes=[wall]), [], np.eye(4), 0.0, EXACT)
    ahead = (sweep[:, 0] > 8.6) & (np.abs(sweep[:, 1]) < 4)
    assert not ahead.any()


def test_a_tree_returns_its_trunk():
    tree = Billboard(np.array([9.0, 0.0]), 2.5, 0.6, 3.0, 4.0, (0.2, 0.5, 0.2))
    scanner = replace(EXACT, azimuth_step_deg=0.5)
    sweep = simulate_lidar(make_town(billboards=[tree]), [], np.eye(4), 0.0, scanner)
    trunk = sweep[(sweep[:, 2] > 0.05) & (sweep[:, 2] < 2.0)]
    assert len(trunk) > 10
    radius = np.hypot(trunk[:, 0] - 9.0, trunk[:, 1])
    np.testing.assert_allclose(radius, 0.3, atol=0.005)


def test_paint_is_brighter_than_asphalt_than_nothing():
    road = GroundPatch(np.array([[-30.0, -5], [30, -5], [30, 5], [-30, 5]]), Material.ASPHALT)
    line = GroundPatch(np.array([[-30.0, 1], [30, 1], [30, 2], [-30, 2]]), Material.PAINT_WHITE)
    worn = GroundPatch(
        np.array([[-30.0, -2], [30, -2], [30, -1], [-30, -1]]), Material.PAINT_WHITE, wear=0.7
    )
    sweep = simulate_lidar(make_town(patches=[road, line, worn]), [], np.eye(4), 0.0, EXACT)

    def mean(low, high):
        chosen = (sweep[:, 1] > low) & (sweep[:, 1] < high) & (np.abs(sweep[:, 0]) < 25)
        assert chosen.sum() > 20
        return float(sweep[chosen, 3].mean())

    assert mean(1.1, 1.9) > 2 * mean(-1.9, -1.1) > 2 * mean(-0.9, 0.9)


def test_beams_and_noise_follow_the_scanner():
    few = replace(EXACT, num_beams=4, elevation_deg=(-20.0, -10.0), azimuth_step_deg=2.0)
    sweep = simulate_lidar(make_town(), [], np.eye(4), 0.0, few)
    assert len(sweep) == 4 * 180
    noisy = [
        simulate_lidar(
            make_town(), [], np.eye(4), 0.0, replace(few, range_noise_m=0.05, noise_seed=seed)
        )
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    error = np.linalg.norm(noisy[0][:, :3] - sweep[:, :3], axis=1)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(0.05, rel=0.15)


def test_a_pose_must_be_rigid():
    with pytest.raises(DataError, match='map_from_base'):
        simulate_lidar(make_town(), [], np.diag([2.0, 1, 1, 1]), 0.0)
