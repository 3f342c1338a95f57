"""A town as the vector layers of a dataset's map: lane segments, dividers, crossings, road areas.

The ground truth of a town is painted lines and kerbs. Datasets keep it as layers from which ground
truth has to be derived again: the layers here are those of the same streets, so that what a reader
derives can be compared with what the town says itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import shapely

from gsmap_core.data.synthetic.lanes import build_lanes
from gsmap_core.data.synthetic.markings import Markings, StreetLayout, paint_streets
from gsmap_core.data.synthetic.planar import (
    Curve,
    densified,
    line_on_ground,
    polygon_rings,
    polygons_of,
    strip,
)
from gsmap_core.data.synthetic.roads import RoadNetwork, Street, build_network
from gsmap_core.data.synthetic.scene import Material, Town
from gsmap_core.data.synthetic.town import SETTINGS, SLOPE_SPACING_M
from gsmap_core.structures import FloatArray

#: A cut through the asphalt reaches this far past the kerb [m].
_CUT_PAST_KERB_M = 0.5
#: Neighbouring road areas share a strip of this width [m].
_OVERLAP_M = 0.5
#: Centre lines that are painted; the others have no line to change sides over.
_PAINTED_CENTRES = ('double', 'solid', 'dashed')


@dataclass(frozen=True)
class LaneSegment:
    """A piece of a lane between two changes of its markings, in driving direction.

    Args:
        left: (P, 2) boundary on its left, town frame [m].
        right: (Q, 2) boundary on its right.
        centre: (R, 2) centre line.
        left_mark: what is painted there: `none`, `double`, `solid` or `dashed`.
        right_mark: likewise.
        street: as `Town.lane_streets`; 0 inside a junction.
        is_innermost: beyond its left boundary traffic comes the other way.
        is_beside_island: its left boundary is the kerb of an island for some way.
        left_neighbour: segment beyond the painted line on its left, whichever way it runs.
        right_neighbour: likewise.
        successors: segments that continue it.
        predecessors: segments that it continues.
    """

    left: FloatArray
    right: FloatArray
    centre: FloatArray
    left_mark: str = 'none'
    right_mark: str = 'none'
    street: int = 0
    is_innermost: bool = False
    is_beside_island: bool = False
    left_neighbour: int | None = None
    right_neighbour: int | None = None
    successors: tuple[int, ...] = ()
    predecessors: tuple[int, ...] = ()


@dataclass(frozen=True)
class RoadArea:
    """A piece of asphalt without holes.

    Args:
        outline: (P, 2) ring, first vertex not repeated, counter-clockwise [m]; on sloping ground
            with as many vertices as its height needs.
        is_junction: whether streets meet in it.
    """

    outline: FloatArray
    is_junction: bool


@dataclass(frozen=True)
class TownLayers:
    """The layers of a town, town frame [m].

    Args:
        segments: lane segments.
        road_dividers: (P, 2) lines between the two directions of a street.
        lane_dividers: (P, 2) lines between lanes of one direction.
        crossings: (4, 2) rings; edges 3-0 and 1-2 run the way that people walk.
        road_areas: overlapping pieces whose union is the asphalt.
        walkways: (exterior, holes) of the sidewalks.
        has_yellow_centre: colour of the centre lines.
    """

    segments: tuple[LaneSegment, ...]
    road_dividers: tuple[FloatArray, ...]
    lane_dividers: tuple[FloatArray, ...]
    crossings: tuple[FloatArray, ...]
    road_areas: tuple[RoadArea, ...]
    walkways: tuple[shapely.Polygon, ...]
    has_yellow_centre: bool


def build_layers(town: Town, setting: str = 'normal') -> TownLayers:
    """Derive the layers of a generated town from its seed and the setting it was made with."""
    settings = SETTINGS[setting]
    network = build_network(town.seed, settings.roads)
    # The corners of crossings alone: sloping ground puts more vertices between them.
    markings = paint_streets(town.seed, network, settings.markings, np.inf)
    spacing = SLOPE_SPACING_M if len(town.ground.amplitude_m) else np.inf
    road_dividers, lane_dividers = _dividers(network, markings.layouts, spacing)
    return TownLayers(
        segments=_segments(network, markings.layouts, spacing),
        road_dividers=road_dividers,
        lane_dividers=lane_dividers,
        crossings=tuple(markings.crossings),
        road_areas=_road_areas(town, network, markings, spacing),
        walkways=_walkways(town),
        has_yellow_centre=network.streets[0].profile.centre_is_yellow,
    )


def town_asphalt(town: Town) -> list[shapely.Polygon]:
    """Return the asphalt of a town; islands and blocks are holes."""
    return [
        shapely.Polygon(patch.outline, patch.holes)
        for patch in town.patches
        if patch.material == Material.ASPHALT
    ]


def _dividers(
    network: RoadNetwork, layouts: list[StreetLayout], spacing: float
) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]:
    """Return the painted lines between directions and between lanes."""
    between_directions, between_lanes = [], []
    for street, layout in zip(network.streets, layouts, strict=True):
        profile = street.profile
        for stretch in layout.lines:
            if profile.centre in _PAINTED_CENTRES:
                between_directions.append(_line(street, stretch, 0.0, spacing))
            for lane in range(1, profile.lanes):
                offset = profile.lane_offset_m(lane - 0.5)
                between_lanes += [
                    _line(street, stretch, sign * offset, spacing) for sign in (-1.0, 1.0)
                ]
    return tuple(between_directions), tuple(between_lanes)


def _line(
    street: Street, stretch: tuple[float, float], offset: float, spacing: float
) -> FloatArray:
    """Return the line at an offset, with the vertices of the town's own ground truth."""
    points = street.curve.at(street.curve.stretch(*stretch), offset)
    return line_on_ground(points, spacing)


def _segments(
    network: RoadNetwork, layouts: list[StreetLayout], spacing: float
) -> tuple[LaneSegment, ...]:
    """Cut every lane where its markings change and connect the pieces."""
    graph = build_lanes(network)
    segments: list[LaneSegment] = []
    # Of every lane of the graph the numbers of its pieces, in driving order.
    pieces: list[list[int]] = [[] for _ in graph.lanes]
    lanes_of = {
        label: [i for i, other in enumerate(graph.streets) if other == label]
        for label in set(graph.streets)
    }
    for index, (street, layout) in enumerate(zip(network.streets, layouts, strict=True)):
        stations = sorted({*street.mouths, *(at for stretch in layout.lines for at in stretch)})
        for stretch in zip(stations[:-1], stations[1:], strict=True):
            _add_stretch(segments, pieces, lanes_of, (index, street), layout, stretch, spacing)
        for lane in lanes_of[-(index + 1)]:
            pieces[lane].reverse()
    for lane, points in enumerate(graph.lanes):
        if graph.streets[lane] == 0:
            before = next(i for i, after in enumerate(graph.successors) if lane in after)
            width = network.streets[abs(graph.streets[before]) - 1].profile.lane_width_m
            curve = Curve(points)
            pieces[lane].append(len(segments))
            segments.append(
                LaneSegment(
                    left=curve.at(curve.stations, width / 2),
                    right=curve.at(curve.stations, -width / 2),
                    centre=points,
                )
            )
    links = [pair for chain in pieces for pair in zip(chain[:-1], chain[1:], strict=True)]
    for lane, after in enumerate(graph.successors):
        links += [(pieces[lane][-1], pieces[target][0]) for target in after]
    return tuple(
        replace(
            segment,
            successors=tuple(b for a, b in links if a == number),
            predecessors=tuple(a for a, b in links if b == number),
        )
        for number, segment in enumerate(segments)
    )


def _add_stretch(
    segments: list[LaneSegment],
    pieces: list[list[int]],
    lanes_of: dict[int, list[int]],
    numbered_street: tuple[int, Street],
    layout: StreetLayout,
    stretch: tuple[float, float],
    spacing: float,
) -> None:
    """Add the pieces of all lanes of a street between two stations."""
    index, street = numbered_street
    profile = street.profile
    is_painted = stretch in layout.lines
    centre = profile.centre if is_painted and profile.centre in _PAINTED_CENTRES else 'none'
    first = len(segments)
    for side, sign in enumerate((1, -1)):
        for lane in range(profile.lanes):

            def edge(offset: float, sign: int = sign) -> FloatArray:
                line = _line(street, stretch, -sign * offset, spacing)
                return line if sign > 0 else line[::-1]

            own = first + side * profile.lanes + lane
            opposite = first + (1 - side) * profile.lanes
            left = own - 1 if lane else (opposite if centre != 'none' else None)
            has_right = lane + 1 < profile.lanes
            pieces[lanes_of[sign * (index + 1)][lane]].append(own)
            segments.append(
                LaneSegment(
                    left=edge(profile.lane_offset_m(lane - 0.5)),
                    right=edge(profile.lane_offset_m(lane + 0.5)),
                    centre=edge(profile.lane_offset_m(lane)),
                    left_mark=('dashed' if lane else centre) if is_painted else 'none',
                    right_mark='dashed' if is_painted and has_right else 'none',
                    street=sign * (index + 1),
                    is_innermost=lane == 0,
                    is_beside_island=lane == 0 and profile.centre == 'median',
                    left_neighbour=left if is_painted else None,
                    right_neighbour=own + 1 if is_painted and has_right else None,
                )
            )


def _road_areas(
    town: Town, network: RoadNetwork, markings: Markings, spacing: float
) -> tuple[RoadArea, ...]:
    """Cut the asphalt at the mouths of the streets and through the islands: no piece has holes.

    Neighbours overlap by a strip: the seam between two areas that only touch can reappear as a
    boundary when both are clipped before they are united.
    """
    asphalt = shapely.union_all(town_asphalt(town))
    bands = [
        strip(street.curve, np.array([station, station + _OVERLAP_M]), -reach, reach)
        for street, layout in zip(network.streets, markings.layouts, strict=True)
        for reach in [street.profile.half_width_m + _CUT_PAST_KERB_M]
        for station in _cut_stations(street, layout)
    ]
    # Polygons that share noded edges share their very vertices, those for the height included.
    kerbs = [
        shapely.LinearRing(densified(ring, spacing, closed=True))
        for polygon in polygons_of(asphalt)
        for outline, holes in [polygon_rings(polygon)]
        for ring in (outline, *holes)
    ]
    cuts = [shapely.LineString(densified(end, spacing)) for b in bands for end in (b[::3], b[1:3])]
    noded = shapely.get_parts(shapely.union_all([*kerbs, *cuts]))
    shapely.prepare(asphalt)
    pieces = [
        polygon
        for polygon in polygons_of(shapely.polygonize(noded))
        if asphalt.contains(polygon.representative_point())
    ]
    band_area = shapely.union_all([shapely.Polygon(band) for band in bands])
    is_strip = [band_area.contains(piece.representative_point()) for piece in pieces]
    strips = [piece for piece, of_band in zip(pieces, is_strip, strict=True) if of_band]
    middles = shapely.multipoints(
        [
            network.streets[arm.street].curve.points[0 if arm.at_start else -1]
            for arms in network.junctions.values()
            for arm in arms
        ]
    )
    areas = []
    for piece, of_band in zip(pieces, is_strip, strict=True):
        if not of_band:
            beside = [s for s in strips if s.intersection(piece).length > _OVERLAP_M]
            polygon = shapely.geometry.polygon.orient(shapely.union_all([piece, *beside]))
            outline = np.asarray(polygon.exterior.coords)[:-1]
            areas.append(RoadArea(outline, polygon.intersects(middles)))
    return tuple(areas)


def _cut_stations(street: Street, layout: StreetLayout) -> list[float]:
    """Return where the strips begin in which the areas of a street overlap [m]."""
    stations = [street.mouths[0], street.mouths[1] - _OVERLAP_M]
    if street.profile.centre == 'median':
        stations += [(begin + end - _OVERLAP_M) / 2 for begin, end in layout.lines]
    return stations


def _walkways(town: Town) -> tuple[shapely.Polygon, ...]:
    """Return the sidewalks: what lies beside the asphalt, and the tops of paved islands."""
    sidewalks = [
        shapely.Polygon(patch.outline, patch.holes)
        for patch in town.patches
        if patch.material == Material.SIDEWALK
    ]
    return tuple(
        polygons_of(shapely.union_all(sidewalks).difference(shapely.union_all(town_asphalt(town))))
    )
