"""Drives through a town: a seeded route over the lane graph, a smooth path, a speed profile.

The path has continuous curvature (cubic spline through smoothed lanes); speed follows from
limits on lateral and
longitudinal acceleration. The vehicle stands on the ground: roll and pitch come from the slope.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicHermiteSpline, CubicSpline
from scipy.ndimage import gaussian_filter1d, minimum_filter1d

from gsmap_core.data.synthetic.dice import Dice
from gsmap_core.data.synthetic.planar import curvature, left_normal, resample_smooth, smooth
from gsmap_core.data.synthetic.scene import HeightField, Town
from gsmap_core.errors import DataError
from gsmap_core.geometry.polylines import cumulative_length
from gsmap_core.structures import FloatArray

_STEP_M = 0.5


@dataclass(frozen=True)
class DrivingStyle:
    """Limits of the speed profile; what is driven stays below 2 m/s^2 in both directions.

    Args:
        lateral_accel: [m/s^2].
        longitudinal_accel: [m/s^2].
        cruise: range of the speed on free streets [m/s].
        wander_m: amplitude of the slow drift inside the lane [m].
    """

    lateral_accel: float = 1.6
    longitudinal_accel: float = 1.5
    cruise: tuple[float, float] = (7.5, 11.5)
    wander_m: float = 0.12


@dataclass(frozen=True)
class Trajectory:
    """A drive as a function of time.

    Args:
        path: station [m] -> x, y [m].
        progress: time [s] -> station [m].
        ground: what the vehicle stands on.
        start_ns: stamp of time 0.
        span_s: first and last time it is defined for [s].
        streets: directed streets it follows, in order, as in `Town.lane_streets`.
    """

    path: CubicSpline
    progress: CubicHermiteSpline
    ground: HeightField
    start_ns: int
    span_s: tuple[float, float]
    streets: tuple[int, ...]

    def pose(self, stamp_ns: int) -> FloatArray:
        """Return the (4, 4) `map_from_base` at a stamp [ns].

        Raises:
            DataError: the stamp is outside the drive.
        """
        return np.asarray(self.poses([stamp_ns])[0])

    def poses(self, stamps_ns: npt.ArrayLike) -> FloatArray:
        """Return (T, 4, 4) `map_from_base` at (T,) stamps [ns].

        Raises:
            DataError: a stamp is outside the drive.
        """
        # Subtract as integers: a stamp has more digits than a float.
        stamps = np.asarray(stamps_ns, dtype=np.int64) - np.int64(self.start_ns)
        return self.poses_at(stamps.astype(np.float64) * 1e-9)

    def poses_at(self, times_s: npt.ArrayLike) -> FloatArray:
        """Return (T, 4, 4) `map_from_base` at (T,) times after the start [s].

        Raises:
            DataError: a time is outside the drive.
        """
        xy, tangent = self._planar(np.asarray(times_s, dtype=np.float64))
        slope = self.ground.gradient(xy)
        forward = np.concatenate([tangent, np.sum(slope * tangent, axis=1, keepdims=True)], axis=1)
        forward /= np.linalg.norm(forward, axis=1, keepdims=True)
        up = np.concatenate([-slope, np.ones((len(xy), 1))], axis=1)
        up /= np.linalg.norm(up, axis=1, keepdims=True)
        result = np.tile(np.eye(4), (len(xy), 1, 1))
        result[:, :3, 0], result[:, :3, 1], result[:, :3, 2] = forward, np.cross(up, forward), up
        result[:, :2, 3], result[:, 2, 3] = xy, self.ground.height(xy)
        return result

    def positions(self, times_s: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return (T, 2) positions [m] and (T,) headings [rad] at times after the start [s].

        Raises:
            DataError: a time is outside the drive.
        """
        xy, tangent = self._planar(np.asarray(times_s, dtype=np.float64))
        return xy, np.arctan2(tangent[:, 1], tangent[:, 0])

    def speeds(self, times_s: npt.ArrayLike) -> FloatArray:
        """Return (T,) speeds at times after the start [m/s]."""
        return np.asarray(self.progress(np.asarray(times_s, dtype=np.float64), 1))

    def _planar(self, times: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return positions and unit directions."""
        first, last = self.span_s
        if len(times) and (times.min() < first - 1e-9 or times.max() > last + 1e-9):
            raise DataError(
                f'trajectory asked at {times.min():.3f} to {times.max():.3f} s; it covers '
                f'{first:.3f} to {last:.3f} s: plan a longer one'
            )
        stations = self.progress(times)
        tangent = self.path(stations, 1)
        return self.path(stations), tangent / np.linalg.norm(tangent, axis=1, keepdims=True)


@dataclass(frozen=True)
class _LaneIndex:
    """The lane graph by street.

    Args:
        lanes: lanes of each directed street, innermost first.
        links: (street, next street) -> (lane, connection, next lane) triples.
    """

    lanes: dict[int, list[int]]
    links: dict[tuple[int, int], list[tuple[int, int, int]]]

    def following(self, street: int) -> list[int]:
        """Return the streets that can be entered from one."""
        return sorted(after for before, after in self.links if before == street)


def _index_lanes(town: Town) -> _LaneIndex:
    """Sort lanes and connections by street."""
    lanes: dict[int, list[int]] = {}
    links: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for lane, street in enumerate(town.lane_streets):
        if street != 0:
            lanes.setdefault(street, []).append(lane)
            for link in town.lane_successors[lane]:
                after = town.lane_successors[link][0]
                key = (street, town.lane_streets[after])
                links.setdefault(key, []).append((lane, link, after))
    return _LaneIndex(lanes, links)


def plan_trajectory(
    town: Town,
    drive_seed: int,
    duration_s: float,
    *,
    lateral_offset_m: float = 0.0,
    reverse: bool = False,
    start_ns: int = 0,
    margin_s: float = 2.0,
    style: DrivingStyle | None = None,
    lane_choice: float | None = None,
) -> Trajectory:
    """Plan a drive.

    Args:
        town: where.
        drive_seed: chooses route, lanes and cruising speed.
        duration_s: the drive is defined from -margin_s to duration_s + margin_s.
        lateral_offset_m: drive this far to the left of the lane's centre (negative: right) [m].
        reverse: drive the streets of the same seed's drive the other way, from its end to its
            beginning.
        start_ns: stamp of time 0 [ns].
        margin_s: see `duration_s`.
        style: speed limits; None: the defaults.
        lane_choice: 0 (innermost) to 1: where to be on the first street; None: as the seed has
            it. Changes nothing else.

    Raises:
        DataError: the duration is not positive, or the town has no lanes.
    """
    if duration_s <= 0 or not town.lane_streets:
        raise DataError(
            f"cannot plan a drive of {duration_s} s in '{town.name}' ({len(town.lanes)} lanes); "
            'expected a positive duration and a town with lanes'
        )
    style = style or DrivingStyle()
    index = _index_lanes(town)
    dice = Dice(town.seed, 30, drive_seed)
    cruise = dice.uniform(*style.cruise)
    reach = (duration_s + 2 * margin_s) * style.cruise[1] + 40.0
    starts = sorted(index.lanes)
    street = dice.choice(starts, [_length(town, index, start) for start in starts])
    streets = _extended(town, index, dice, [street], reach)
    start_share = dice.uniform(0.05, 0.45)
    wander = Dice(town.seed, 31, drive_seed, int(reverse))
    drawn_lane = dice.uniform()
    lane_choice = drawn_lane if lane_choice is None else lane_choice
    plan = _planned(
        town, index, streets, start_share, lane_choice, lateral_offset_m, style, cruise, wander
    )
    if reverse:
        covered = _covered(town, index, plan, streets, start_share, duration_s, margin_s)
        back = [-item for item in reversed(streets[: covered[0] + 1])]
        streets = _extended(town, index, Dice(town.seed, 32, drive_seed), back, reach)
        start_share = 1.0 - covered[1]
        plan = _planned(
            town, index, streets, start_share, lane_choice, lateral_offset_m, style, cruise, wander
        )
    path, times, stations, speed = plan
    span = (-margin_s, duration_s + margin_s)
    progress = CubicHermiteSpline(times - margin_s, stations, speed)
    return Trajectory(path, progress, town.ground, start_ns, span, tuple(streets))


def _length(town: Town, index: _LaneIndex, street: int) -> float:
    """Return the length of a street's innermost lane [m]."""
    return float(cumulative_length(town.lanes[index.lanes[street][0]])[-1])


def _extended(
    town: Town, index: _LaneIndex, dice: Dice, streets: list[int], reach: float
) -> list[int]:
    """Append random streets until the route after its first is longer than `reach` [m]."""
    route = list(streets)
    total = sum(_length(town, index, street) for street in route[1:])
    while total < reach:
        choices = index.following(route[-1])
        # Streets not driven yet are more useful than another lap around the same block.
        weights = [0.25 if choice in route or -choice in route else 1.0 for choice in choices]
        route.append(dice.choice(choices, weights))
        total += _length(town, index, route[-1])
    return route


_Plan = tuple[CubicSpline, FloatArray, FloatArray, FloatArray]


def _planned(
    town: Town,
    index: _LaneIndex,
    streets: list[int],
    start_share: float,
    lane_choice: float,
    lateral_offset_m: float,
    style: DrivingStyle,
    cruise: float,
    dice: Dice,
) -> _Plan:
    """Return the path over its station, and times, stations and speeds along it."""
    points = _lane_path(town, index, streets, start_share, lane_choice)
    points = smooth(resample_smooth(points, _STEP_M), 2.5)
    stations = cumulative_length(points)
    drift = np.full(len(points), lateral_offset_m)
    for _ in range(3):
        wave, phase = dice.uniform(55.0, 160.0), dice.uniform(0.0, 2 * np.pi)
        drift += style.wander_m / 1.7 * np.sin(2 * np.pi * stations / wave + phase)
    points = points + drift[:, None] * left_normal(np.gradient(points, stations, axis=0))
    points = smooth(resample_smooth(points, _STEP_M), 1.5)
    stations = cumulative_length(points)
    path = CubicSpline(stations, points, axis=0)
    bend = np.abs(curvature(points))
    limit = np.minimum(style.lateral_accel / np.maximum(bend, 1e-6), cruise**2)
    squared = minimum_filter1d(limit, size=5, mode='nearest')
    gain = 2 * style.longitudinal_accel * np.diff(stations)
    for i in range(1, len(squared)):
        squared[i] = min(squared[i], squared[i - 1] + gain[i - 1])
    for i in range(len(squared) - 2, -1, -1):
        squared[i] = min(squared[i], squared[i + 1] + gain[i])
    speed = np.sqrt(gaussian_filter1d(squared, 3.0, mode='nearest'))
    times = np.concatenate([[0.0], np.cumsum(2 * np.diff(stations) / (speed[1:] + speed[:-1]))])
    return path, times, stations, speed


def _lane_path(
    town: Town, index: _LaneIndex, streets: list[int], start_share: float, lane_choice: float
) -> FloatArray:
    """Return the route as one polyline; lanes are changed where the next turn needs it."""
    first_lanes = index.lanes[streets[0]]
    lane = first_lanes[min(int(lane_choice * len(first_lanes)), len(first_lanes) - 1)]
    pieces: list[FloatArray] = []
    for position, street in enumerate(streets):
        leave, link, enter = lane, None, None
        if position + 1 < len(streets):
            options = index.links[street, streets[position + 1]]
            leave, link, enter = min(options, key=lambda option: (abs(option[0] - lane), option))
        along = _changed_lane(town.lanes[lane], town.lanes[leave], leave - lane)
        if position == 0:
            along = along[int(start_share * (len(along) - 2)) :]
        pieces.append(along if not pieces else along[1:])
        if link is not None and enter is not None:
            pieces.append(town.lanes[link][1:])
            lane = enter
    return np.concatenate(pieces)


def _changed_lane(before: FloatArray, after: FloatArray, lanes: int) -> FloatArray:
    """Return a lane that becomes another of the same street, as gently as possible."""
    if lanes == 0:
        return before
    share = np.linspace(0.0, 1.0, len(before))
    length = float(cumulative_length(before)[-1])
    ramp = min(0.9, 45.0 * abs(lanes) / length)
    t = np.clip((share - 0.5) / ramp + 0.5, 0.0, 1.0)
    weight = (t**3 * (t * (6 * t - 15) + 10))[:, None]
    return (1 - weight) * before + weight * after


def _covered(
    town: Town,
    index: _LaneIndex,
    plan: _Plan,
    streets: list[int],
    start_share: float,
    duration_s: float,
    margin_s: float,
) -> tuple[int, float]:
    """Return the position in the route and the share of that street that a drive reaches."""
    path, times, stations, _ = plan
    end = path(float(np.interp(duration_s + 2 * margin_s, times, stations)))
    travelled = float(np.interp(duration_s + 2 * margin_s, times, stations))
    total = -start_share * _length(town, index, streets[0])
    for position, street in enumerate(streets):
        lane = town.lanes[index.lanes[street][0]]
        total += _length(town, index, street)
        if total >= travelled - 25.0 or position + 1 == len(streets):
            nearest = int(np.argmin(np.linalg.norm(lane - end, axis=1)))
            return position, min(max(nearest / (len(lane) - 1), 0.05), 0.95)
        total += 20.0
    raise DataError('a route without streets cannot be driven; expected at least one street')
