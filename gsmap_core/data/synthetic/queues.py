"""Slow, dense traffic around the recording vehicle, much of it trucks: what hides markings.

Ahead of it, behind it, beside it where the street has a second lane, and in a long queue that
comes towards it. The vehicles of a queue follow one trajectory with different delays.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gsmap_core.data.synthetic.dice import Dice
from gsmap_core.data.synthetic.objects import Colour, Size, vehicle_shape
from gsmap_core.data.synthetic.scene import Town
from gsmap_core.data.synthetic.traffic import (
    Traffic,
    TrafficVehicle,
    touches,
    vehicle_discs,
)
from gsmap_core.data.synthetic.trajectory import DrivingStyle, Trajectory, plan_trajectory
from gsmap_core.structures import FloatArray

#: Longer drives would have queues of hundreds of vehicles [s].
MAX_QUEUE_DRIVE_S = 120
#: Oncoming vehicles meet the recording one from this long before the drive until as long after
#: it [s].
_MEETING_MARGIN_S = 6.0
#: Traffic must be known this long before and after the drive [s].
_CHECKED_S = 1.0
#: Vehicles are checked against each other as discs of this diameter [m], closer than that along
#: their length.
_CLEARANCE_M = 2.4
#: Vehicles that never come this near hide nothing [m].
_NEAR_M = 60.0


@dataclass(frozen=True)
class QueueSettings:
    """How dense the traffic is; every drive draws its own numbers within these.

    Args:
        style: how everybody drives, the recording vehicle included.
        truck_share: share of the vehicles that are trucks, over drives.
        oncoming_share: share of the places of the oncoming queue that are taken, over drives.
        ahead_chance: of a vehicle close ahead.
        behind_chance: of a queue close behind.
        gap_m: from bumper to bumper.
    """

    style: DrivingStyle = field(default_factory=lambda: DrivingStyle(cruise=(5.0, 7.0)))
    truck_share: tuple[float, float] = (0.15, 0.6)
    oncoming_share: tuple[float, float] = (0.4, 0.9)
    ahead_chance: float = 0.3
    behind_chance: float = 0.8
    gap_m: tuple[float, float] = (3.0, 7.0)


@dataclass(frozen=True)
class QueueRoute:
    """What the recording vehicle's trajectory was planned with.

    Args:
        drive_seed: see `plan_trajectory`.
        lateral_offset_m: [m].
        reverse: whether it drives the other way.
    """

    drive_seed: int
    lateral_offset_m: float
    reverse: bool


@dataclass(frozen=True)
class _Candidate:
    """A vehicle that may be added.

    Args:
        trajectory: what it follows.
        delay_s: behind it [s].
        size_m: length, width, height [m].
        colour_rgb: 0 to 1.
    """

    trajectory: Trajectory
    delay_s: float
    size_m: Size
    colour_rgb: Colour

    def discs(self, times: FloatArray) -> FloatArray:
        """Return (T, D, 2) places at (T,) drive times."""
        reach = max(self.size_m[0] / 2 - 0.9, 0.1)
        shifts = np.linspace(-reach, reach, int(np.ceil(2 * reach / 1.8)) + 1)
        return vehicle_discs(self.trajectory, times - self.delay_s, shifts)


def queue_margin_s(duration_s: float) -> float:
    """Return how long before and after a drive trajectories must be known [s].

    An oncoming vehicle that is met at the end of a drive is as far behind on its way as the
    drive is long.
    """
    return duration_s + 2 * _MEETING_MARGIN_S + _CHECKED_S


def plan_queues(
    town: Town,
    drive_seed: int,
    ego: Trajectory,
    duration_s: float,
    route: QueueRoute,
    settings: QueueSettings,
    others: int,
) -> Traffic:
    """Choose the vehicles of a drive; none touches the recording vehicle or another one.

    Args:
        town: where.
        drive_seed: of the traffic.
        ego: trajectory of the recording vehicle, known `queue_margin_s` before and after.
        duration_s: length of the drive [s].
        route: how `ego` was planned.
        settings: how dense.
        others: vehicles on routes of their own, at most.
    """
    dice = Dice(town.seed, 51, drive_seed)
    margin = queue_margin_s(duration_s)
    truck_share = dice.uniform(*settings.truck_share)

    def plan(seed: int, offset_m: float, reverse: bool, lane: float | None = None) -> Trajectory:
        return plan_trajectory(
            town,
            seed,
            duration_s,
            lateral_offset_m=offset_m,
            reverse=reverse,
            margin_s=margin,
            style=settings.style,
            lane_choice=lane,
        )

    candidates: list[_Candidate] = []
    if dice.chance(settings.ahead_chance):
        candidates += _queue(dice, ego, settings, truck_share, -1.0, dice.integer(1, 2))
    if dice.chance(settings.behind_chance):
        candidates += _queue(dice, ego, settings, truck_share, 1.0, dice.integer(1, 3))
    oncoming = plan(route.drive_seed, -0.15, not route.reverse)
    share = dice.uniform(*settings.oncoming_share)
    latest = duration_s + 2 * _MEETING_MARGIN_S
    candidates += [
        vehicle
        for vehicle in _column(dice, oncoming, settings, truck_share, (-latest, latest))
        if dice.chance(share)
    ]
    for lane in (0.01, 0.99):
        beside = plan(route.drive_seed, route.lateral_offset_m, route.reverse, lane)
        candidates += _column(dice, beside, settings, truck_share, (-4.0, 4.0))
    for _ in range(3 * others):
        size, colour = vehicle_shape(dice, dice.chance(truck_share))
        other = plan(1000 + dice.integer(0, 999), 0.0, False)
        candidates.append(_Candidate(other, dice.uniform(-6.0, 6.0), size, colour))
    return _accepted(dice, ego, duration_s, candidates)


def _queue(
    dice: Dice,
    ego: Trajectory,
    settings: QueueSettings,
    truck_share: float,
    sign: float,
    count: int,
) -> list[_Candidate]:
    """Return vehicles one after the other ahead of (sign -1) or behind the recording one."""
    result, distance = [], 2.3
    for _ in range(count):
        size, colour = vehicle_shape(dice, dice.chance(truck_share))
        distance += dice.uniform(*settings.gap_m) + size[0] / 2
        speed = 0.5 * sum(settings.style.cruise)
        result.append(_Candidate(ego, sign * distance / speed, size, colour))
        distance += size[0] / 2
    return result


def _column(
    dice: Dice,
    trajectory: Trajectory,
    settings: QueueSettings,
    truck_share: float,
    delays_s: tuple[float, float],
) -> list[_Candidate]:
    """Return vehicles that fill a range of delays on a trajectory."""
    result, delay = [], delays_s[0]
    speed = 0.5 * sum(settings.style.cruise)
    while delay < delays_s[1]:
        size, colour = vehicle_shape(dice, dice.chance(truck_share))
        length_s, gap_s = size[0] / speed, dice.uniform(*settings.gap_m) / speed
        result.append(_Candidate(trajectory, delay + length_s / 2, size, colour))
        delay += length_s + gap_s
    return [item for item in result if item.delay_s <= delays_s[1]]


def _accepted(
    dice: Dice, ego: Trajectory, duration_s: float, candidates: list[_Candidate]
) -> Traffic:
    """Keep the candidates that come near and touch nothing that was kept before."""
    times = np.arange(-_CHECKED_S, duration_s + _CHECKED_S, 0.2)
    own = vehicle_discs(ego, times)
    taken, vehicles = [own], []
    for candidate in candidates:
        seed = dice.integer(0, 2**31 - 1)
        discs = candidate.discs(times)
        distance = np.linalg.norm(discs[:, discs.shape[1] // 2] - own[:, 1], axis=1)
        if distance.min() < _NEAR_M and not touches(discs, taken, _CLEARANCE_M):
            taken.append(discs)
            vehicles.append(
                TrafficVehicle(
                    candidate.trajectory,
                    candidate.delay_s,
                    candidate.size_m,
                    candidate.colour_rgb,
                    seed,
                )
            )
    return Traffic(tuple(vehicles))
