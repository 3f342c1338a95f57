"""What is painted on the streets, and the ground truth that goes with it.

Every painted line is centred on its ground-truth element; a double line has one element in its
middle. A line ends where
a stop line or a crossing begins, so nothing is annotated that is not painted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
from scipy.ndimage import maximum_filter1d

from gsmap_core.data.synthetic.dice import Dice
from gsmap_core.data.synthetic.planar import (
    curvature,
    densified,
    line_on_ground,
    polygon_rings,
    polygons_of,
    strip,
)
from gsmap_core.data.synthetic.roads import (
    RoadNetwork,
    Street,
    opposite_arm,
)
from gsmap_core.data.synthetic.scene import GroundPatch, Material
from gsmap_core.structures import FloatArray

#: Centre to centre distance of the two lines of a double line [m].
DOUBLE_LINE_M = 0.36
#: Longest edge of a curved piece of paint along its street [m].
PAINT_STEP_M = 1.5
#: A stretch of lines shorter than this is not painted at all [m].
MIN_LINE_M = 8.0
#: Streets are not crossed between junctions where they bend more than this [1/m].
MAX_CROSSING_BEND = 0.02


@dataclass(frozen=True)
class MarkingSettings:
    """What is painted in a setting and how worn it is.

    Args:
        crossing_share: share of the junction arms with a zebra crossing.
        midblock_share: share of the long streets with a crossing between junctions.
        stop_line_share: share of the arms with a stop line.
        arrow_share: share of the approach lanes of wide streets with an arrow.
        max_wear: paint is worn by up to this.
        patches_per_street: mean number of asphalt repairs on a street.
    """

    crossing_share: float = 0.65
    midblock_share: float = 0.35
    stop_line_share: float = 0.7
    arrow_share: float = 0.5
    max_wear: float = 0.6
    patches_per_street: float = 5.0


@dataclass(frozen=True)
class StreetLayout:
    """Where things are along a street, as stations [m].

    Args:
        crossings: begin and end of every zebra crossing.
        stop_lines: centre of the stop line before the first and before the last junction, or None.
        lines: stretches in which lines are painted.
    """

    crossings: tuple[tuple[float, float], ...]
    stop_lines: tuple[float | None, float | None]
    lines: tuple[tuple[float, float], ...]


@dataclass
class Markings:
    """Paint and ground truth in the plane, collected street by street.

    Args:
        paint: patches, bottom first.
        dividers: open lines.
        crossings: rings of four or more vertices.
        islands: rings of kerbed islands.
        layouts: per street.
    """

    paint: list[GroundPatch] = field(default_factory=list)
    dividers: list[FloatArray] = field(default_factory=list)
    crossings: list[FloatArray] = field(default_factory=list)
    islands: list[shapely.Polygon] = field(default_factory=list)
    layouts: list[StreetLayout] = field(default_factory=list)


def paint_streets(
    seed: int, network: RoadNetwork, settings: MarkingSettings, spacing: float
) -> Markings:
    """Paint every street.

    Args:
        seed: the town's seed.
        network: its streets.
        settings: what may occur.
        spacing: ground truth has a vertex at least this often [m], so that its height follows
            the ground.
    """
    result = Markings()
    town_dice = Dice(seed, 10)
    stripe, stripe_gap = town_dice.uniform(0.4, 0.6), town_dice.uniform(0.4, 0.65)
    for index, street in enumerate(network.streets):
        dice = Dice(seed, 11, index)
        layout = _layout(dice, street, settings)
        wear = dice.uniform(0.0, settings.max_wear)
        result.layouts.append(layout)
        _paint_repairs(result, dice, street, settings)
        for begin, end in layout.lines:
            _paint_lines(result, street, layout, (begin, end), wear, spacing)
        for begin, end in layout.crossings:
            _paint_crossing(
                result, street, (begin, end), (stripe, stripe_gap), wear * 0.8, spacing
            )
        turns = [_turns_at(network, index, at_start) for at_start in (True, False)]
        _paint_distractors(result, dice, street, layout, turns, settings, wear)
    return result


def _layout(dice: Dice, street: Street, settings: MarkingSettings) -> StreetLayout:
    """Decide where crossings, stop lines and lines go along a street."""
    first, last = street.mouths
    crossings: list[tuple[float, float]] = []
    stops: list[float | None] = [None, None]
    limits = [first + 0.8, last - 0.8]
    is_tight = last - first < 40.0
    for side, sign in ((0, 1.0), (1, -1.0)):
        station = limits[side]
        depth, lead = dice.uniform(3.0, 5.0), dice.uniform(0.3, 1.0)
        has_crossing, has_stop = (
            dice.chance(settings.crossing_share),
            dice.chance(settings.stop_line_share),
        )
        if has_crossing and not is_tight:
            begin = station + sign * lead
            end = begin + sign * depth
            crossings.append((min(begin, end), max(begin, end)))
            station = end + sign * 1.0
        if has_stop:
            stops[side] = station + sign * 0.2
            station += sign * 0.4
        limits[side] = station + sign * 0.1
    lines = [(limits[0], limits[1])]
    has_midblock, depth = dice.chance(settings.midblock_share), dice.uniform(3.0, 4.5)
    places = limits[0] + dice.uniforms(4, 0.35, 0.65) * (limits[1] - limits[0])
    # A straight crossing in a tight bend would reach into the lines beside it.
    places = places[np.interp(places, *_bend_along(street)) < MAX_CROSSING_BEND]
    if has_midblock and len(places) and limits[1] - limits[0] > 36.0:
        middle = float(places[0])
        crossings.append((middle - depth / 2, middle + depth / 2))
        lines = [
            (limits[0], middle - depth / 2 - 1.0),
            (middle + depth / 2 + 1.0, limits[1]),
        ]
    kept = tuple((begin, end) for begin, end in lines if end - begin >= MIN_LINE_M)
    return StreetLayout(tuple(sorted(crossings)), (stops[0], stops[1]), kept)


def _bend_along(street: Street) -> tuple[FloatArray, FloatArray]:
    """Return stations [m] and the largest curvature within 4 m of each [1/m]."""
    bend = np.abs(curvature(street.curve.points))
    return street.curve.stations, maximum_filter1d(bend, size=9, mode='nearest')


def _paint_lines(
    result: Markings,
    street: Street,
    layout: StreetLayout,
    stretch: tuple[float, float],
    wear: float,
    spacing: float,
) -> None:
    """Paint centre line, lane dividers and island of one uninterrupted stretch."""
    profile, (begin, end) = street.profile, stretch
    colour = Material.PAINT_YELLOW if profile.centre_is_yellow else Material.PAINT_WHITE
    if profile.centre in ('double', 'solid', 'dashed'):
        _add_divider(result, street, stretch, 0.0, spacing)
    if profile.centre == 'double':
        for offset in (-DOUBLE_LINE_M / 2, DOUBLE_LINE_M / 2):
            _add_band(result, street, stretch, offset, colour, wear)
    elif profile.centre == 'solid':
        _add_band(result, street, stretch, 0.0, colour, wear)
    elif profile.centre == 'dashed':
        for dash in _dashes(stretch, profile.dash_m, profile.gap_m):
            _add_band(result, street, dash, 0.0, colour, wear)
    elif profile.centre == 'median':
        half = profile.median_width_m / 2
        axis = street.curve.at(street.curve.stretch(begin + half, end - half), 0.0)
        result.islands.append(shapely.LineString(axis).buffer(half, quad_segs=8))
    for lane in range(1, profile.lanes):
        for sign in (-1.0, 1.0):
            offset = sign * (profile.median_width_m / 2 + lane * profile.lane_width_m)
            _add_divider(result, street, stretch, offset, spacing)
            solid = profile.solid_approach_m
            # Lane changes are forbidden just before the junction that the lane leads to.
            is_approach = (
                (end == layout.lines[-1][1]) if sign < 0 else (begin == layout.lines[0][0])
            )
            dashed = [begin, end]
            if is_approach and 0.0 < solid < 0.5 * (end - begin):
                dashed[1 if sign < 0 else 0] += sign * solid
                piece = (dashed[1], end) if sign < 0 else (begin, dashed[0])
                _add_band(result, street, piece, offset, Material.PAINT_WHITE, wear)
                dashed[1 if sign < 0 else 0] += sign * profile.gap_m
            for dash in _dashes((dashed[0], dashed[1]), profile.dash_m, profile.gap_m):
                _add_band(result, street, dash, offset, Material.PAINT_WHITE, wear)


def _dashes(stretch: tuple[float, float], dash: float, gap: float) -> list[tuple[float, float]]:
    """Return dashes that begin and end exactly with the stretch; the gap gives way."""
    begin, end = stretch
    length = end - begin
    count = max(int(round((length + gap) / (dash + gap))), 1)
    if count == 1 or length < 2 * dash:
        return [(begin, end)] if length <= 2 * dash else [(begin, begin + dash)]
    period = (length - dash) / (count - 1)
    starts = begin + period * np.arange(count)
    return [(float(start), float(start + dash)) for start in starts]


def _add_divider(
    result: Markings, street: Street, stretch: tuple[float, float], offset: float, spacing: float
) -> None:
    """Add the ground truth of one line."""
    points = street.curve.at(street.curve.stretch(*stretch), offset)
    result.dividers.append(line_on_ground(points, spacing))


def _add_band(
    result: Markings,
    street: Street,
    stretch: tuple[float, float],
    offset: float,
    material: Material,
    wear: float,
    width: float | None = None,
) -> None:
    """Paint a band along the street, centred on `offset`."""
    half = (street.profile.paint_m if width is None else width) / 2
    stations = street.curve.stretch(*stretch, step=PAINT_STEP_M)
    result.paint.append(
        GroundPatch(
            strip(street.curve, stations, offset - half, offset + half), material, (), wear
        )
    )


def _paint_crossing(
    result: Markings,
    street: Street,
    extent: tuple[float, float],
    stripes: tuple[float, float],
    wear: float,
    spacing: float,
) -> None:
    """Paint a zebra crossing: stripes along the street, side by side from kerb to kerb."""
    width, gap = stripes
    middle, half_depth = (extent[0] + extent[1]) / 2, (extent[1] - extent[0]) / 2
    centre, tangent = street.curve.at(middle), street.curve.tangent(middle)
    axes = np.stack([tangent, np.array([-tangent[1], tangent[0]])])
    # In a bend the outer kerb curves away from the straight edge of the crossing.
    bend = float(np.abs(curvature(street.curve.at(street.curve.stretch(*extent)))).max())
    room = 2 * (street.profile.half_width_m - 0.15 - half_depth**2 / 2 * bend)
    count = int((room + gap) / (width + gap))
    span = count * width + (count - 1) * gap
    rights = -span / 2 + (width + gap) * np.arange(count)
    for right in rights:
        result.paint.append(
            GroundPatch(
                centre + _rectangle(half_depth, right, right + width) @ axes,
                Material.PAINT_WHITE,
                (),
                wear,
            )
        )
    ring = centre + _rectangle(half_depth, -span / 2, span / 2) @ axes
    result.crossings.append(densified(ring, spacing, closed=True))


def _rectangle(half_length: float, right: float, left: float) -> FloatArray:
    """Return a counter-clockwise rectangle; x along, y to the left."""
    return np.array(
        [[-half_length, right], [half_length, right], [half_length, left], [-half_length, left]]
    )


#: Arrow outlines, x ahead and y to the left, centred [m].
_STRAIGHT = np.array(
    [[-1.9, -0.09], [0.4, -0.09], [0.4, -0.38], [1.9, 0.0], [0.4, 0.38], [0.4, 0.09], [-1.9, 0.09]]
)
_LEFT = np.array(
    [
        [-1.9, -0.09],
        [0.75, -0.09],
        [0.75, 0.3],
        [1.15, 0.3],
        [0.6, 0.95],
        [0.05, 0.3],
        [0.45, 0.3],
        [0.45, 0.09],
        [-1.9, 0.09],
    ]
)


def _turns_at(network: RoadNetwork, street: int, at_start: bool) -> frozenset[str]:
    """Return the ways out of a junction for who comes along a street: `ahead`, `left`, `right`."""
    arms = network.junctions[network.streets[street].nodes[0 if at_start else 1]]
    entry = next(arm for arm in arms if arm.street == street and arm.at_start == at_start)
    ahead = opposite_arm(arms, entry)
    ways = set()
    for arm in arms:
        if arm is ahead:
            ways.add('ahead')
        elif arm is not entry:
            towards = entry.direction[1] * arm.direction[0] - entry.direction[0] * arm.direction[1]
            ways.add('left' if towards > 0 else 'right')
    return frozenset(ways)


def _paint_distractors(
    result: Markings,
    dice: Dice,
    street: Street,
    layout: StreetLayout,
    turns: list[frozenset[str]],
    settings: MarkingSettings,
    wear: float,
) -> None:
    """Paint what is not annotated: stop lines and arrows on the approach."""
    profile = street.profile
    inner, outer = profile.median_width_m / 2, profile.half_width_m - profile.gutter_m
    outer -= profile.parking_width_m
    for side, station in enumerate(layout.stop_lines):
        if station is None:
            continue
        # Traffic towards the first junction is on the left of the street's direction.
        sign = 1.0 if side == 0 else -1.0
        low, high = sorted((sign * (inner + 0.25), sign * outer))
        _add_band(
            result,
            street,
            (station - 0.2, station + 0.2),
            (low + high) / 2,
            Material.PAINT_WHITE,
            wear,
            high - low,
        )
        for lane in range(profile.lanes):
            has_arrow = dice.chance(settings.arrow_share)
            if not has_arrow or profile.lanes < 2 or not layout.lines:
                continue
            at = station + sign * 7.0
            forward = -sign * street.curve.tangent(at)
            right = (_LEFT * np.array([1.0, -1.0]))[::-1]
            fitting = [_STRAIGHT] if 'ahead' in turns[side] else []
            if lane == 0 and 'left' in turns[side]:
                fitting = [_LEFT]
            elif lane == profile.lanes - 1 and 'right' in turns[side]:
                fitting = [right, *fitting]
            if not fitting:
                continue
            shape = dice.choice(fitting)
            axes = np.stack([forward, np.array([-forward[1], forward[0]])])
            position = street.curve.at(at, sign * profile.lane_offset_m(lane))
            result.paint.append(
                GroundPatch(position + shape @ axes, Material.PAINT_WHITE, (), wear)
            )


def _paint_repairs(
    result: Markings, dice: Dice, street: Street, settings: MarkingSettings
) -> None:
    """Put darker asphalt repairs under the paint."""
    count = int(dice.uniform(0.0, 2.0 * settings.patches_per_street))
    room = street.profile.half_width_m - 0.4
    for _ in range(count):
        length, width = dice.uniform(0.8, 9.0), dice.uniform(0.5, 1.6)
        station = dice.uniform(street.mouths[0] + length, street.mouths[1] - length)
        offset = dice.uniform(-room + width / 2, room - width / 2)
        # An island would lie on top of it: repairs keep to the lanes.
        if abs(offset) - width / 2 > street.profile.median_width_m / 2:
            _add_band(
                result,
                street,
                (station - length / 2, station + length / 2),
                offset,
                Material.ASPHALT_PATCH,
                dice.uniform(0.0, 0.5),
                width,
            )


def carve_islands(
    surface: shapely.Geometry, islands: list[shapely.Polygon]
) -> tuple[list[GroundPatch], list[FloatArray]]:
    """Return the asphalt with its islands as holes, and every outline of it as a ring.

    Exterior rings run counter-clockwise, holes (blocks, islands) clockwise: asphalt is always
    on the left.
    """
    carved = surface.difference(shapely.union_all(islands)).simplify(0.015)
    patches, rings = [], []
    for polygon in polygons_of(carved):
        outline, holes = polygon_rings(polygon)
        patches.append(GroundPatch(outline, Material.ASPHALT, holes))
        rings.extend([outline, *holes])
    return patches, rings
