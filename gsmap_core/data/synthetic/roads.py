"""The road network of a town: junctions on a jittered grid, streets, surface and lanes.

Right-hand traffic. A street runs from its first to its last junction; offsets across it are
positive to the left, so the
lanes that follow its direction have negative offsets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import shapely
from scipy.ndimage import maximum_filter1d

from gsmap_core.data.synthetic.dice import Dice
from gsmap_core.data.synthetic.planar import (
    Curve,
    left_normal,
    resample,
    resample_smooth,
    smooth,
    strip,
)
from gsmap_core.structures import FloatArray

#: Corners where two grid edges meet without a junction are rounded with this Gaussian [m]; a right
#: angle gets a radius of about 0.9 of it.
BEND_SMOOTHING_M = 20.0
#: Room between the smallest radius of a street and its half width, so that the inner kerb keeps a
#: sane curve [m].
MIN_INNER_RADIUS_M = 6.3
#: Within this distance of a junction a street turns into line with the street opposite [m].
SWING_M = 40.0
#: No street bends more tightly than this [m].
MIN_RADIUS_M = 16.0


@dataclass(frozen=True)
class RoadSettings:
    """How varied the road network of a setting is.

    Args:
        max_lanes: lanes a side, at most.
        bend_m: sideways bulge of a curved street, at most [m].
        curved_share: share of the grid edges that are curved.
        median_share: share of the wide streets that have a kerbed island in the middle.
        parking_share: share of the streets with parking lanes.
        unmarked_share: share of the narrow streets without a centre line.
        removed_edges: grid edges taken out, at least and at most (each makes T-junctions or
            bends).
        jitter_m: how far a junction may stray from its grid point [m].
    """

    max_lanes: int = 3
    bend_m: float = 13.0
    curved_share: float = 0.55
    median_share: float = 0.45
    parking_share: float = 0.5
    unmarked_share: float = 0.12
    removed_edges: tuple[int, int] = (3, 6)
    jitter_m: float = 9.0


@dataclass(frozen=True)
class StreetProfile:
    """The cross-section of a street, the same on both sides.

    Args:
        lanes: lanes a side.
        lane_width_m: [m].
        centre: `median`, `double`, `solid`, `dashed` or `none`.
        centre_is_yellow: colour of the centre line.
        median_width_m: width of the island, 0 without [m].
        parking_width_m: width of a parking lane each side, 0 without [m].
        gutter_m: free strip along the kerb [m].
        sidewalk_m: width of the sidewalk [m].
        dash_m: length of a dash [m].
        gap_m: gap between dashes [m].
        paint_m: width of a line [m].
        solid_approach_m: length over which lane dividers are solid before a junction, 0
            without [m].
    """

    lanes: int
    lane_width_m: float
    centre: str
    centre_is_yellow: bool
    median_width_m: float
    parking_width_m: float
    gutter_m: float
    sidewalk_m: float
    dash_m: float
    gap_m: float
    paint_m: float
    solid_approach_m: float

    @property
    def half_width_m(self) -> float:
        """Distance from the centre line to the kerb [m]."""
        return (
            self.median_width_m / 2
            + self.lanes * self.lane_width_m
            + self.parking_width_m
            + self.gutter_m
        )

    def lane_offset_m(self, lane: float) -> float:
        """Return the distance of a lane's centre (0 innermost) from the centre line [m]."""
        return self.median_width_m / 2 + (lane + 0.5) * self.lane_width_m


@dataclass(frozen=True)
class Street:
    """A street between two junctions.

    Args:
        nodes: junction at its beginning and at its end.
        curve: centre line from junction to junction, a point per metre.
        profile: cross-section.
        mouths: stations where the cross-section is complete, outside the rounded corners of
            the junctions [m].
    """

    nodes: tuple[int, int]
    curve: Curve
    profile: StreetProfile
    mouths: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Arm:
    """Where a street meets a junction.

    Args:
        street: index of the street.
        at_start: whether it is the street's beginning.
        direction: (2,) away from the junction.
    """

    street: int
    at_start: bool
    direction: FloatArray

    @property
    def angle_rad(self) -> float:
        """Direction away from the junction [rad]."""
        return float(np.arctan2(self.direction[1], self.direction[0]))


@dataclass(frozen=True)
class RoadNetwork:
    """Streets, junctions and the road surface before islands are taken out.

    Args:
        streets: by index.
        junctions: arms of every junction, by angle.
        surface: all asphalt, without islands.
        corner_radius_m: radius of the kerb corners.
    """

    streets: tuple[Street, ...]
    junctions: dict[int, tuple[Arm, ...]]
    surface: shapely.Geometry
    corner_radius_m: float


def build_network(seed: int, settings: RoadSettings) -> RoadNetwork:
    """Build the road network of a town.

    Args:
        seed: the town's seed.
        settings: what may occur.
    """
    dice = Dice(seed, 1)
    chains, nodes = _chains(dice, settings)
    ends = [(chain[0], chain[-1]) for chain in chains]
    curves = [_street_curve(dice, settings, nodes[chain]) for chain in chains]
    swings = _swings(_junctions(ends, curves), len(chains))
    curves = [_swung(curve, swing) for curve, swing in zip(curves, swings, strict=True)]
    junctions = _junctions(ends, curves)
    profiles = _profiles(Dice(seed, 2), settings, junctions, curves)
    streets = tuple(
        Street(nodes=end, curve=curve, profile=profile)
        for end, curve, profile in zip(ends, curves, profiles, strict=True)
    )
    # Below the inner radius of any bend, or rounding would widen the bends too.
    radius = Dice(seed, 3).uniform(3.5, 6.0)
    surface = _surface(streets, junctions, radius)
    streets = tuple(
        replace(street, mouths=(_mouth(street, surface, True), _mouth(street, surface, False)))
        for street in streets
    )
    return RoadNetwork(streets, junctions, surface, radius)


def _chains(dice: Dice, settings: RoadSettings) -> tuple[list[list[int]], FloatArray]:
    """Return streets as lists of grid nodes (junction, bends, junction) and all positions."""
    columns, rows = (dice.integer(4, 5) if settings.max_lanes > 2 else 4), 4
    spacing = dice.uniform(80.0, 88.0) if columns == 5 else dice.uniform(84.0, 104.0)
    grid = np.array([[i * spacing, j * spacing] for j in range(rows) for i in range(columns)])
    jitter = dice.uniforms(2 * len(grid), -settings.jitter_m, settings.jitter_m)
    nodes = grid + jitter.reshape(-1, 2) - grid.mean(axis=0)
    edges = [
        (j * columns + i, j * columns + i + 1) for j in range(rows) for i in range(columns - 1)
    ]
    edges += [
        (j * columns + i, (j + 1) * columns + i) for j in range(rows - 1) for i in range(columns)
    ]
    to_remove = dice.integer(*settings.removed_edges)
    for edge in dice.shuffled(edges):
        if to_remove == 0:
            break
        rest = [other for other in edges if other != edge]
        if _is_usable(rest, len(nodes)):
            edges, to_remove = rest, to_remove - 1
    return _merge_bends(edges, len(nodes)), nodes


def _degrees(edges: list[tuple[int, int]], count: int) -> list[int]:
    """Return how many edges meet at each node."""
    degrees = [0] * count
    for first, second in edges:
        degrees[first] += 1
        degrees[second] += 1
    return degrees


def _is_usable(edges: list[tuple[int, int]], count: int) -> bool:
    """Whether every node keeps two edges, no edge is a bridge, and no street is a loop."""
    if min(_degrees(edges, count)) < 2:
        return False
    for skipped in edges:
        reached, frontier = {0}, [0]
        while frontier:
            node = frontier.pop()
            for edge in edges:
                if edge != skipped and node in edge:
                    other = edge[0] + edge[1] - node
                    if other not in reached:
                        reached.add(other)
                        frontier.append(other)
        if len(reached) < count:
            return False
    chains = _merge_bends(edges, count)
    ends = [frozenset((chain[0], chain[-1])) for chain in chains]
    # A street over more than two bends would leave too few junctions; a loop or twin streets
    # confuse routes.
    return all(chain[0] != chain[-1] and len(chain) <= 4 for chain in chains) and len(
        set(ends)
    ) == len(ends)


def _merge_bends(edges: list[tuple[int, int]], count: int) -> list[list[int]]:
    """Join edges over nodes of degree two into one street each."""
    degrees = _degrees(edges, count)
    unused = list(edges)
    chains: list[list[int]] = []
    while True:
        start = next((e for e in unused if degrees[e[0]] > 2 or degrees[e[1]] > 2), None)
        if start is None:
            return chains
        unused.remove(start)
        chain = [start[0], start[1]] if degrees[start[0]] > 2 else [start[1], start[0]]
        while degrees[chain[-1]] == 2:
            following = next(e for e in unused if chain[-1] in e)
            unused.remove(following)
            chain.append(following[0] + following[1] - chain[-1])
        chains.append(chain)


def _swings(junctions: dict[int, tuple[Arm, ...]], count: int) -> list[tuple[float, float]]:
    """Return how far each street turns at its ends so that opposite arms are in line [rad]."""
    swings = [[0.0, 0.0] for _ in range(count)]
    for arms in junctions.values():
        for arm in arms:
            other = opposite_arm(arms, arm)
            if other is not None and opposite_arm(arms, other) is arm:
                axis = arm.direction - other.direction
                cross = arm.direction[0] * axis[1] - arm.direction[1] * axis[0]
                angle = float(np.arctan2(cross, arm.direction @ axis))
                swings[arm.street][0 if arm.at_start else 1] = angle
    return [(first, last) for first, last in swings]


def _swung(curve: Curve, swing: tuple[float, float]) -> Curve:
    """Turn the ends of a curve by the given angles, fading out within `SWING_M`."""
    points, arc = curve.points, curve.stations
    reach = min(SWING_M, 0.45 * curve.length_m)
    result = points.copy()
    for distance, angle, outward in (
        (arc, swing[0], curve.tangents[0]),
        (arc[-1] - arc, swing[1], -curve.tangents[-1]),
    ):
        fade = np.tan(angle) * distance * np.clip(1.0 - distance / reach, 0.0, None) ** 2
        result += fade[:, None] * left_normal(outward)
    return Curve(resample_smooth(result, 1.0))


def _street_curve(dice: Dice, settings: RoadSettings, corners: FloatArray) -> Curve:
    """Return the centre line through the corners; edges may bulge, bends are rounded."""
    bulges = []
    for _ in corners[1:]:
        bulge = dice.uniform(-1.0, 1.0) * settings.bend_m
        is_curved, is_double = dice.chance(settings.curved_share), dice.chance(0.3)
        bulges.append((bulge if is_curved else 0.0, is_double))
    smoothing = BEND_SMOOTHING_M if len(corners) > 2 else 3.0
    # A bulge next to a bend can make it too tight to drive: flatten the bulges first, then widen
    # the bend.
    for flatten, widen in ((1.0, 1.0), (0.5, 1.1), (0.0, 1.2), (0.0, 1.5), (0.0, 1.8)):
        pieces = [
            _bulged(start, end, flatten * bulge, is_double)[1 if index else 0 :]
            for index, (start, end, (bulge, is_double)) in enumerate(
                zip(corners[:-1], corners[1:], bulges, strict=True)
            )
        ]
        points = resample(np.concatenate(pieces), 1.0)
        curve = Curve(resample_smooth(smooth(points, widen * smoothing), 1.0))
        if curve.min_radius_m() >= MIN_RADIUS_M:
            break
    return curve


def _bulged(start: FloatArray, end: FloatArray, bulge: float, is_double: bool) -> FloatArray:
    """Return a point per metre from start to end, swinging out by `bulge` [m]."""
    chord = end - start
    length = float(np.linalg.norm(chord))
    t = np.linspace(0.0, 1.0, int(round(length)) + 1)
    # sin^2 leaves the junction straight, so that the crossing and the stop line lie square to the
    # street.
    sideways = bulge * np.sin(np.pi * t) ** 2
    if is_double:
        sideways = 0.45 * sideways * np.sin(2 * np.pi * t)
    normal = left_normal(chord / length)
    return np.asarray(start + t[:, None] * chord + sideways[:, None] * normal)


def _junctions(ends: list[tuple[int, int]], curves: list[Curve]) -> dict[int, tuple[Arm, ...]]:
    """Collect the arms of every junction, sorted by angle."""
    junctions: dict[int, list[Arm]] = {}
    for index, ((first, last), curve) in enumerate(zip(ends, curves, strict=True)):
        junctions.setdefault(first, []).append(Arm(index, True, curve.tangents[0]))
        junctions.setdefault(last, []).append(Arm(index, False, -curve.tangents[-1]))
    return {
        node: tuple(sorted(arms, key=lambda arm: arm.angle_rad))
        for node, arms in sorted(junctions.items())
    }


def opposite_arm(arms: tuple[Arm, ...], arm: Arm) -> Arm | None:
    """Return the arm that goes straight on from `arm` (within 40 degrees), or None."""
    others = [other for other in arms if other is not arm]
    best = min(others, key=lambda other: float(other.direction @ arm.direction))
    return best if float(best.direction @ arm.direction) < -np.cos(np.radians(40.0)) else None


def _profiles(
    dice: Dice,
    settings: RoadSettings,
    junctions: dict[int, tuple[Arm, ...]],
    curves: list[Curve],
) -> list[StreetProfile]:
    """Give every street a cross-section; it stays the same straight through a T-junction."""
    group = list(range(len(curves)))

    def root(index: int) -> int:
        while group[index] != index:
            index = group[index]
        return index

    for arms in junctions.values():
        for arm in arms:
            other = opposite_arm(arms, arm)
            # At a crossroads the cross street hides a change of width, at a T-junction nothing
            # would.
            if other is not None and (len(arms) == 3 or (dice.chance(0.35))):
                first, second = sorted((root(arm.street), root(other.street)))
                group[second] = first
    is_yellow_town = dice.chance(0.5)
    chosen: dict[int, StreetProfile] = {}
    for index in range(len(curves)):
        if root(index) == index:
            members = [curve for i, curve in enumerate(curves) if root(i) == index]
            radius = max(min(curve.min_radius_m() for curve in members), 10.0)
            chosen[index] = _profile(dice, settings, is_yellow_town, radius - MIN_INNER_RADIUS_M)
    return [chosen[root(index)] for index in range(len(curves))]


def _profile(
    dice: Dice, settings: RoadSettings, is_yellow_town: bool, max_half_width: float
) -> StreetProfile:
    """Draw cross-sections until one fits the tightest bend."""
    while True:
        lanes = dice.integer(1, settings.max_lanes)
        lane_width = dice.uniform(3.0, 3.6)
        median_width = dice.uniform(2.0, 4.0) if dice.chance(settings.median_share) else 0.0
        median_width *= lanes > 1
        parking = dice.uniform(2.1, 2.4) if dice.chance(settings.parking_share) else 0.0
        parking *= lanes < 3
        styles = ('double', 'solid', 'dashed') if lanes == 1 else ('double', 'solid')
        centre = 'median' if median_width > 0 else dice.choice(styles)
        if lanes == 1 and dice.chance(settings.unmarked_share):
            centre = 'none'
        dash, gap = dice.choice(((3.0, 6.0), (2.0, 4.0), (3.0, 4.5), (3.0, 3.0)))
        profile = StreetProfile(
            lanes=lanes,
            lane_width_m=lane_width,
            centre=centre,
            centre_is_yellow=is_yellow_town,
            median_width_m=median_width,
            parking_width_m=parking,
            gutter_m=dice.uniform(0.25, 0.5) if parking == 0 else 0.15,
            sidewalk_m=dice.uniform(2.0, 4.0),
            dash_m=dash,
            gap_m=gap,
            paint_m=dice.uniform(0.13, 0.2),
            solid_approach_m=dice.uniform(10.0, 18.0) if dice.chance(0.5) else 0.0,
        )
        if profile.half_width_m <= max_half_width:
            return profile


def _surface(
    streets: tuple[Street, ...], junctions: dict[int, tuple[Arm, ...]], radius: float
) -> shapely.Geometry:
    """Unite the strips of all streets and round the corners between them."""
    areas = []
    for street in streets:
        half = street.profile.half_width_m
        areas.append(shapely.Polygon(strip(street.curve, street.curve.stations, -half, half)))
    for arms in junctions.values():
        corners = []
        for arm in arms:
            street = streets[arm.street]
            station, half = (
                (0.0 if arm.at_start else street.curve.length_m),
                street.profile.half_width_m,
            )
            corners.append(street.curve.at(np.full(2, station), np.array([-half, half])))
        # Fills the wedge that two straight strips leave open on the outside of a kink.
        areas.append(shapely.MultiPoint(np.concatenate(corners)).convex_hull)
    united = shapely.union_all(areas)
    rounded = united.buffer(radius, quad_segs=16).buffer(-radius, quad_segs=16)
    return rounded.simplify(0.01)


def _mouth(street: Street, surface: shapely.Geometry, at_start: bool) -> float:
    """Return the station where the street leaves the rounded corners of a junction [m]."""
    length = street.curve.length_m
    distances = np.arange(0.0, 0.45 * length, 0.25)
    stations = distances if at_start else length - distances
    outside = street.profile.half_width_m + 0.05
    shapely.prepare(surface)
    is_wide = np.zeros(len(stations), dtype=bool)
    for offset in (-outside, outside):
        edge = street.curve.at(stations, offset)
        is_wide |= shapely.contains_xy(surface, edge[:, 0], edge[:, 1])
    # The first place with free kerbs on both sides for the next four metres.
    is_wide_soon = maximum_filter1d(is_wide, size=17, origin=-8, mode='nearest')
    first = int(np.argmin(is_wide_soon)) if not is_wide_soon.all() else len(stations) - 1
    return float(stations[first] + (0.25 if at_start else -0.25))
