"""Drives: smooth, inside their limits, on the road, and repeatable."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import shapely

from gsmap_core.data.synthetic.scene import Material, Town
from gsmap_core.data.synthetic.town import generate_town
from gsmap_core.data.synthetic.traffic import TIME_SHIFT_S, plan_traffic
from gsmap_core.data.synthetic.trajectory import plan_trajectory
from gsmap_core.errors import DataError

DRIVES = [
    (0, 'normal', 3, False, 0.4),
    (0, 'normal', 2, False, -0.4),
    (7, 'normal', 2, True, 0.0),
    (5, 'normal', 0, False, 0.3),
    (4, 'easy', 2, True, -0.4),
]
every_drive = pytest.mark.parametrize(('seed', 'setting', 'drive', 'reverse', 'offset'), DRIVES)


@functools.cache
def town_of(seed: int, setting: str) -> Town:
    return generate_town(seed, setting)


def asphalt_of(town: Town) -> shapely.Geometry:
    return shapely.union_all(
        [
            shapely.Polygon(p.outline, p.holes)
            for p in town.patches
            if p.material == Material.ASPHALT
        ]
    )


@every_drive
def test_speed_and_acceleration_stay_within_limits(
    seed: int, setting: str, drive: int, reverse: bool, offset: float
) -> None:
    trajectory = plan_trajectory(
        town_of(seed, setting), drive, 20.0, reverse=reverse, lateral_offset_m=offset
    )
    step = 0.02
    times = np.arange(-2.0, 22.0, step)
    xy, _ = trajectory.positions(times)
    velocity = np.gradient(xy, step, axis=0)
    speed = np.linalg.norm(velocity, axis=1)
    acceleration = np.gradient(velocity, step, axis=0)[2:-2]
    forward = (velocity / speed[:, None])[2:-2]
    along = (acceleration * forward).sum(axis=1)
    across = acceleration[:, 1] * forward[:, 0] - acceleration[:, 0] * forward[:, 1]
    assert 2.0 < speed.min() and speed.max() < 12.0
    assert np.abs(along).max() <= 2.0
    assert np.abs(across).max() <= 2.0
    assert speed == pytest.approx(trajectory.speeds(times), abs=0.05)


@every_drive
def test_the_vehicle_stays_on_the_road(
    seed: int, setting: str, drive: int, reverse: bool, offset: float
) -> None:
    town = town_of(seed, setting)
    trajectory = plan_trajectory(town, drive, 20.0, reverse=reverse, lateral_offset_m=offset)
    xy, _ = trajectory.positions(np.arange(-2.0, 22.0, 0.1))
    bodies = shapely.buffer(shapely.points(xy), 0.95)
    assert shapely.contains(asphalt_of(town), bodies).all()


def test_poses_stand_on_the_slope_and_look_ahead() -> None:
    town = town_of(7, 'normal')
    trajectory = plan_trajectory(town, 1, 15.0, start_ns=1_700_000_000_123_456_789)
    times = np.arange(0.0, 15.0, 0.05)
    stamps = trajectory.start_ns + np.round(times * 1e9).astype(np.int64)
    poses = trajectory.poses(stamps)
    assert np.allclose(poses[:, :3, :3] @ poses[:, :3, :3].swapaxes(1, 2), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(poses[:, :3, :3]), 1.0)
    assert np.allclose(poses[:, 2, 3], town.ground.height(poses[:, :2, 3]))
    motion = np.diff(poses[:, :3, 3], axis=0)
    motion /= np.linalg.norm(motion, axis=1, keepdims=True)
    assert (np.sum(motion * poses[:-1, :3, 0], axis=1) > 0.999).all()
    tilt = np.degrees(np.arccos(poses[:, 2, 2]))
    assert 0.3 < tilt.max() < np.degrees(np.arctan(0.08)) + 1e-6
    assert np.allclose(trajectory.pose(int(stamps[7])), poses[7], atol=1e-12)


def test_heading_changes_without_jumps() -> None:
    trajectory = plan_trajectory(town_of(5, 'normal'), 0, 30.0)
    times = np.arange(0.0, 30.0, 0.02)
    _, heading = trajectory.positions(times)
    rate = np.diff(np.unwrap(heading)) / 0.02
    assert np.abs(rate).max() < 0.8
    assert np.abs(np.diff(rate)).max() / 0.02 < 2.0


def test_reverse_drives_the_same_streets_the_other_way() -> None:
    town = town_of(5, 'normal')
    there = plan_trajectory(town, 1, 20.0)
    back = plan_trajectory(town, 1, 20.0, reverse=True)
    times = np.arange(0.0, 20.0, 0.2)
    first, first_heading = there.positions(times)
    second, second_heading = back.positions(times)
    gaps = np.linalg.norm(first[:, None] - second[None], axis=-1)
    near = gaps.min(axis=1)
    assert (near < 25.0).mean() > 0.6
    assert near.min() > 1.5
    partner = gaps.argmin(axis=1)
    close = near < 15.0
    facing = np.cos(first_heading[close] - second_heading[partner[close]])
    assert np.median(facing) < -0.9
    assert [-street for street in reversed(back.streets)][-1] in there.streets


def test_lateral_offset_is_to_the_left() -> None:
    town = town_of(3, 'easy')
    middle = plan_trajectory(town, 1, 10.0)
    left = plan_trajectory(town, 1, 10.0, lateral_offset_m=0.4)
    xy, heading = left.positions(np.arange(0.0, 10.0, 0.25))
    line, line_heading = middle.positions(np.arange(-1.0, 11.0, 0.002))
    nearest = np.linalg.norm(xy[:, None] - line[None], axis=-1).argmin(axis=1)
    delta = xy - line[nearest]
    angle = line_heading[nearest]
    sideways = -np.sin(angle) * delta[:, 0] + np.cos(angle) * delta[:, 1]
    assert sideways == pytest.approx(0.4, abs=0.1)


def test_drives_repeat_and_differ() -> None:
    town = town_of(0, 'normal')
    times = np.arange(0.0, 10.0, 0.5)
    first = plan_trajectory(town, 1, 10.0).poses_at(times)
    assert np.array_equal(first, plan_trajectory(town, 1, 10.0).poses_at(times))
    assert not np.allclose(first, plan_trajectory(town, 2, 10.0).poses_at(times), atol=1.0)


def test_times_outside_the_drive_are_refused() -> None:
    trajectory = plan_trajectory(town_of(3, 'easy'), 0, 5.0, margin_s=1.0)
    trajectory.poses_at([-1.0, 6.0])
    with pytest.raises(DataError, match='covers -1.000 to 6.000'):
        trajectory.poses_at([6.1])
    with pytest.raises(DataError, match='positive duration'):
        plan_trajectory(town_of(3, 'easy'), 0, 0.0)


def test_traffic_comes_near_but_never_touches() -> None:
    town = town_of(5, 'normal')
    ego = plan_trajectory(town, 0, 20.0, margin_s=TIME_SHIFT_S + 2)
    traffic = plan_traffic(town, 0, ego, 20.0, 6)
    assert len(traffic.vehicles) >= 2
    nearest = []
    for time_s in np.arange(0.0, 20.0, 0.25):
        centre = ego.positions([time_s])[0][0]
        places = [centre]
        for box in traffic.boxes(float(time_s), centre):
            places.append(box.centre_xy + np.array(box.velocity_xy) * time_s)
        gaps = np.linalg.norm(np.array(places)[:, None] - np.array(places)[None], axis=-1)
        gaps = gaps[np.triu_indices(len(places), 1)]
        nearest.extend(gaps)
    assert min(nearest) > 2.4
    assert min(nearest) < 60.0


def test_the_velocity_of_a_vehicle_carries_it_along_its_path() -> None:
    town = town_of(5, 'normal')
    ego = plan_trajectory(town, 0, 20.0, margin_s=TIME_SHIFT_S + 2)
    traffic = plan_traffic(town, 0, ego, 20.0, 6)
    for vehicle in traffic.vehicles:
        start = vehicle.trajectory.positions([10.0 - vehicle.delay_s])[0][0]
        box = next(box for box in traffic.boxes(10.0, start) if box.seed == vehicle.seed)
        later = vehicle.trajectory.positions([10.04 - vehicle.delay_s])[0][0]
        assert box.centre_xy + np.array(box.velocity_xy) * 10.04 == pytest.approx(later, abs=0.01)
