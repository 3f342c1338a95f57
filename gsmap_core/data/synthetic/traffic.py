"""Other vehicles that drive while the recording goes on.

Each follows a trajectory of its own. For a picture it is handed to the renderer as a box with
the velocity of that
moment, so that it is right at every camera's own time within a camera set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsmap_core.data.synthetic.dice import Dice
from gsmap_core.data.synthetic.objects import vehicle_shape
from gsmap_core.data.synthetic.scene import Box, BoxKind, Town
from gsmap_core.data.synthetic.trajectory import Trajectory, plan_trajectory
from gsmap_core.structures import FloatArray

#: Trajectories of other vehicles may be asked this much before and after the drive [s].
TIME_SHIFT_S = 8.0
#: Vehicles are checked against each other as three discs of this diameter along their length [m].
_CLEARANCE_M = 2.5
_DISCS_M = np.array([-1.6, 0.0, 1.6])
#: Vehicles farther away are not handed to the renderer [m].
_VISIBLE_M = 110.0


@dataclass(frozen=True)
class TrafficVehicle:
    """A vehicle on a trajectory.

    Args:
        trajectory: what it follows.
        delay_s: it is where the trajectory was that long ago [s].
        size_m: length, width, height [m].
        colour_rgb: 0 to 1.
        seed: for its texture.
    """

    trajectory: Trajectory
    delay_s: float
    size_m: tuple[float, float, float]
    colour_rgb: tuple[float, float, float]
    seed: int


@dataclass(frozen=True)
class Traffic:
    """All moving vehicles of a drive."""

    vehicles: tuple[TrafficVehicle, ...]

    def boxes(self, time_s: float, centre_xy: FloatArray) -> list[Box]:
        """Return the vehicles around a place at a moment, valid for a camera set.

        Args:
            time_s: drive time [s].
            centre_xy: (2,) vehicles farther than 110 m from here are left out.
        """
        result = []
        for vehicle in self.vehicles:
            own_time = np.array([time_s - vehicle.delay_s])
            position, heading = vehicle.trajectory.positions(own_time)
            if np.linalg.norm(position[0] - centre_xy) > _VISIBLE_M:
                continue
            speed = float(vehicle.trajectory.speeds(own_time)[0])
            direction = np.array([np.cos(heading[0]), np.sin(heading[0])])
            velocity = speed * direction
            result.append(
                Box(
                    # The renderer puts a box at centre + velocity * time.
                    centre_xy=position[0] - velocity * time_s,
                    size_m=vehicle.size_m,
                    yaw_rad=float(heading[0]),
                    kind=BoxKind.VEHICLE,
                    colour_rgb=vehicle.colour_rgb,
                    seed=vehicle.seed,
                    velocity_xy=(float(velocity[0]), float(velocity[1])),
                )
            )
        return result


def plan_traffic(
    town: Town, drive_seed: int, ego: Trajectory, duration_s: float, count: int
) -> Traffic:
    """Choose vehicles that come near the ego vehicle and never touch it or each other.

    Args:
        town: where.
        drive_seed: the drive's; traffic is another draw than the route.
        ego: trajectory of the recording vehicle, defined `TIME_SHIFT_S` beyond the drive on
            both sides.
        duration_s: length of the drive [s].
        count: vehicles at most.
    """
    dice = Dice(town.seed, 50, drive_seed)
    margin = TIME_SHIFT_S
    times = np.arange(-1.0, duration_s + 1.0, 0.2)
    candidates: list[tuple[Trajectory, float]] = []
    if dice.chance(0.4):
        candidates.append((ego, -dice.uniform(2.6, 5.0)))
    if dice.chance(0.5):
        candidates.append((ego, dice.uniform(2.6, 5.0)))
    for number in range(3 * count):
        other = plan_trajectory(
            town,
            drive_seed if number % 3 == 0 else 1000 + dice.integer(0, 999),
            duration_s,
            reverse=number % 3 == 0,
            margin_s=margin,
        )
        candidates.append((other, dice.uniform(-6.0, 6.0)))
    taken = [vehicle_discs(ego, times)]
    vehicles: list[TrafficVehicle] = []
    for trajectory, delay in candidates:
        size, colour = vehicle_shape(dice)
        seed = dice.integer(0, 2**31 - 1)
        discs = vehicle_discs(trajectory, times - delay)
        comes_near = np.linalg.norm(discs[:, 1] - taken[0][:, 1], axis=1).min() < 60.0
        if len(vehicles) < count and comes_near and not touches(discs, taken):
            vehicles.append(TrafficVehicle(trajectory, delay, size, colour, seed))
            taken.append(discs)
    return Traffic(tuple(vehicles))


def vehicle_discs(
    trajectory: Trajectory, times: FloatArray, shifts_m: FloatArray = _DISCS_M
) -> FloatArray:
    """Return (T, D, 2) centres of the discs that stand for a vehicle, `shifts_m` along it."""
    position, heading = trajectory.positions(times)
    direction = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    return np.asarray(position[:, None] + shifts_m[None, :, None] * direction[:, None])


def touches(discs: FloatArray, taken: list[FloatArray], clearance_m: float = _CLEARANCE_M) -> bool:
    """Whether a vehicle comes too close to one of the others."""
    for other in taken:
        gaps = np.linalg.norm(discs[:, :, None] - other[:, None, :], axis=-1)
        if gaps.min() < clearance_m:
            return True
    return False
