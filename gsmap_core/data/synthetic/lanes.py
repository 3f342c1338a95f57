"""The lanes of a road network: along the streets and, as smooth curves, through junctions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from gsmap_core.data.synthetic.planar import Curve, resample
from gsmap_core.data.synthetic.roads import Arm, RoadNetwork, opposite_arm
from gsmap_core.structures import FloatArray


@dataclass(frozen=True)
class LaneGraph:
    """Lanes along streets and through junctions.

    Args:
        lanes: (P, 2) centre lines in driving direction.
        successors: for each lane the lanes that continue it.
        streets: for each lane street + 1 if it follows the street, -(street + 1) if it runs
            against it, 0 inside junctions.
    """

    lanes: tuple[FloatArray, ...]
    successors: tuple[tuple[int, ...], ...]
    streets: tuple[int, ...]


def build_lanes(network: RoadNetwork) -> LaneGraph:
    """Lay lanes along every street (innermost first) and connect them through the junctions."""
    lanes: list[FloatArray] = []
    labels: list[int] = []
    first_lane: dict[int, int] = {}
    for index, street in enumerate(network.streets):
        stations = street.curve.stretch(street.mouths[0], street.mouths[1])
        for sign in (1, -1):
            first_lane[sign * (index + 1)] = len(lanes)
            for lane in range(street.profile.lanes):
                points = street.curve.at(stations, -sign * street.profile.lane_offset_m(lane))
                lanes.append(points if sign > 0 else points[::-1])
                labels.append(sign * (index + 1))
    successors: list[list[int]] = [[] for _ in lanes]
    for arms in network.junctions.values():
        for entry in arms:
            inbound = (-1 if entry.at_start else 1) * (entry.street + 1)
            entry_lanes = network.streets[entry.street].profile.lanes
            for exit_arm, pairs in _turns(network, arms, entry, entry_lanes):
                outbound = (1 if exit_arm.at_start else -1) * (exit_arm.street + 1)
                for source, target in pairs:
                    before, after = first_lane[inbound] + source, first_lane[outbound] + target
                    successors[before].append(len(lanes))
                    successors.append([after])
                    kerb = min(_kerb_distance(network, item.street) for item in (entry, exit_arm))
                    ways = (
                        _inward(network, entry, source, -1),
                        _inward(network, exit_arm, target, 1),
                    )
                    lanes.append(_connection(*ways, network.corner_radius_m + kerb))
                    labels.append(0)
    return LaneGraph(tuple(lanes), tuple(tuple(item) for item in successors), tuple(labels))


def _turns(
    network: RoadNetwork, arms: tuple[Arm, ...], entry: Arm, entry_lanes: int
) -> list[tuple[Arm, list[tuple[int, int]]]]:
    """Say which lanes lead where: straight on keeps the lane, turns use the lane on their side."""
    ahead = opposite_arm(arms, entry)
    heading = -entry.direction
    result: list[tuple[Arm, list[tuple[int, int]]]] = []
    used: set[int] = set()
    for arm in arms:
        if arm is entry:
            continue
        exit_lanes = network.streets[arm.street].profile.lanes
        cross = heading[0] * arm.direction[1] - heading[1] * arm.direction[0]
        if arm is ahead:
            pairs = [(lane, min(lane, exit_lanes - 1)) for lane in range(entry_lanes)]
        elif cross > 0:
            pairs = [(0, 0)]
        else:
            pairs = [(entry_lanes - 1, exit_lanes - 1)]
        used.update(source for source, _ in pairs)
        result.append((arm, pairs))
    # At the foot of a T a middle lane would end in nothing; it turns with the lane inside it.
    for lane in range(entry_lanes):
        if lane not in used:
            arm, pairs = result[-1]
            exit_lanes = network.streets[arm.street].profile.lanes
            pairs.append((lane, min(lane, exit_lanes - 1)))
    return result


def _kerb_distance(network: RoadNetwork, street: int) -> float:
    """Return how far the outermost lane's centre is from the kerb [m]."""
    profile = network.streets[street].profile
    return profile.half_width_m - profile.lane_offset_m(profile.lanes - 1)


def _inward(network: RoadNetwork, arm: Arm, lane: int, outward: int) -> FloatArray:
    """Return a lane's line from the mouth of its street on into the junction and past its middle.

    Args:
        network: streets.
        arm: of the junction.
        lane: 0 innermost.
        outward: 1 for a lane that leaves the junction, -1 for one that enters it.
    """
    street = network.streets[arm.street]
    mouth, end = (
        (street.mouths[0], 0.0) if arm.at_start else (street.mouths[1], street.curve.length_m)
    )
    side = -outward if arm.at_start else outward
    stations = np.linspace(mouth, end, max(int(abs(end - mouth)), 1) + 1)
    points = street.curve.at(stations, side * street.profile.lane_offset_m(lane))
    beyond = points[-1] - 25.0 * arm.direction
    return np.concatenate([points, beyond[None]])


def _connection(entry: FloatArray, leaving: FloatArray, right_radius: float) -> FloatArray:
    """Join two lanes through a junction: along one, a near circular arc, along the other.

    A turn to the right follows the kerb at `right_radius` [m]; one to the left is as wide as
    the junction allows.

    Args:
        entry: the lane that comes in, from its mouth inwards.
        leaving: the lane that goes out, from its mouth inwards (against driving direction).
        right_radius: [m].
    """
    first, second = Curve(entry), Curve(leaving)
    ahead, onward = first.tangent(0.0), -second.tangent(0.0)
    bend_start, bend_end = 0.0, 0.0
    reach = float(np.linalg.norm(leaving[0] - entry[0])) / 3.0
    crossing = shapely.intersection(shapely.LineString(entry), shapely.LineString(leaving))
    if abs(float(ahead[0] * onward[1] - ahead[1] * onward[0])) > 0.35 and not crossing.is_empty:
        corner = shapely.get_geometry(shapely.extract_unique_points(crossing), 0)
        along = float(shapely.LineString(entry).project(corner))
        back = float(shapely.LineString(leaving).project(corner))
        towards, away = first.tangent(along), -second.tangent(back)
        sine = float(towards[0] * away[1] - towards[1] * away[0])
        angle = float(np.arctan2(abs(sine), towards @ away))
        leg = min(along, back)
        if sine < 0:
            leg = min(leg, right_radius * float(np.tan(angle / 2)))
        # Lines that cross at a flat angle, or right at a mouth, are no corner to round.
        if abs(sine) > 0.35 and leg > 2.0:
            bend_start, bend_end = along - leg, back - leg
            ahead, onward = first.tangent(bend_start), -second.tangent(bend_end)
            reach = leg * 4.0 / 3.0 * float(np.tan(angle / 4) / np.tan(angle / 2))
    begin, end = first.at(bend_start), second.at(bend_end)
    handles = np.stack([begin, begin + reach * ahead, end - reach * onward, end])
    count = max(int(np.ceil(np.linalg.norm(end - begin))), 4) * 2 + 1
    t = np.linspace(0.0, 1.0, count)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    before = first.at(first.stretch(0.0, bend_start))[:-1] if bend_start > 0.5 else entry[:1]
    after = second.at(second.stretch(0.0, bend_end))[:-1] if bend_end > 0.5 else leaving[:1]
    points = np.concatenate([before, weights @ handles, after[::-1]])
    distinct = np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-3
    return resample(points[np.concatenate([[True], distinct])], 1.0)
