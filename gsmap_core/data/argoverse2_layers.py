"""What each published method takes from an Argoverse 2 map: dividers, crossings, boundaries.

Lines come in the ego frame around one pose, with the heights of the map [m]. Which method takes
which is a row of `groundtruth_argoverse2.VARIANTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from gsmap_core.data.argoverse2_map import CityMap, LaneSegment
from gsmap_core.data.groundtruth_crossings import merge_parallel_crossings
from gsmap_core.data.groundtruth_lanes import (
    LinkedLine,
    chain_lines,
    indices_without_doubles,
    join_ends,
    without_doubles,
    without_overlapped,
)
from gsmap_core.data.groundtruth_patch import Patch, line_parts, polygon_parts
from gsmap_core.data.groundtruth_rings import (
    area_outlines,
    concatenate_lines,
    merge_lines,
    ring_inside,
)
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import FloatArray, PerceptionRange

#: How far the box is moved inwards to leave out edges along its border, or outwards to keep
#: them [m].
BORDER_M = 0.2
#: Buffers of the lines that MapTracker compares in the lane graph [m]; its text says "thin".
_THIN_M = 0.1
#: MapTracker leaves out smaller crossings [m^2].
_MIN_CROSSING_M2 = 1.0

Lines = list[shapely.LineString]


@dataclass(frozen=True)
class Surroundings:
    """A map around one pose.

    Args:
        city_map: the map.
        city_from_ego: (4, 4) pose.
        area: what to keep, in the ego frame [m].
    """

    city_map: CityMap
    city_from_ego: FloatArray
    area: PerceptionRange

    @cached_property
    def patch(self) -> Patch:
        """The rectangle in the city plane, turned by the heading alone."""
        return Patch.around(self.city_from_ego, self.area)

    @cached_property
    def inner_box(self) -> shapely.Polygon:
        """The range in the ego frame, a little smaller."""
        return self.patch.enlarged(-BORDER_M).local_box

    @cached_property
    def outer_box(self) -> shapely.Polygon:
        """The range in the ego frame, a little larger."""
        return self.patch.enlarged(BORDER_M).local_box

    @cached_property
    def nearby_lanes(self) -> list[LaneSegment]:
        """Lanes that touch the rectangle."""
        return self.city_map.lanes_touching(self.patch.map_polygon)

    @cached_property
    def ego_from_city(self) -> FloatArray:
        """The inverse of the pose."""
        return invert(self.city_from_ego)

    def to_ego(self, geometry: shapely.Geometry) -> shapely.Geometry:
        """Move a geometry with heights from the city to the ego frame by the whole pose."""
        return shapely.transform(
            geometry, lambda points: transform_points(self.ego_from_city, points), include_z=True
        )

    def cut_lines(self, lines: Iterable[shapely.LineString]) -> Lines:
        """Cut lines of the city plane to the rectangle and move the pieces to the ego frame."""
        pieces: Lines = []
        for line in lines:
            inside = shapely.intersection(line, self.patch.map_polygon)
            pieces += [self.to_ego(piece) for piece in line_parts(inside)]
        return pieces

    def cut_areas(self, polygons: Iterable[shapely.Polygon]) -> list[shapely.Polygon]:
        """Cut areas of the city plane to the rectangle and move the pieces to the ego frame."""
        pieces = []
        for polygon in polygons:
            inside = shapely.intersection(polygon, self.patch.map_polygon)
            moved = [self.to_ego(piece) for piece in polygon_parts(inside)]
            pieces += [piece for piece in moved if piece.is_valid]
        return pieces


def make_centerlines(around: Surroundings) -> Lines:
    """Return the middles of all lanes near the vehicle, chained in driving direction.

    Source: MapTRv2's construction for Argoverse 2.
    """
    lines = {
        lane.id: LinkedLine(lane.centerline, lane.predecessors, lane.successors)
        for lane in around.nearby_lanes
    }
    return without_doubles(around.cut_lines(chain_lines(lines)))


def marked_dividers(around: Surroundings, boundaries: Lines) -> Lines:
    """Return every painted lane boundary, merged where they meet (MapTR)."""
    return merge_until_stable(around.cut_lines(marked_lines(around.city_map, ('NONE',))))


def merge_until_stable(lines: Lines) -> Lines:
    """Unite lines, so that what they share is there once, and join them until nothing changes."""
    count = len(lines)
    while lines:
        lines = merge_lines(line_parts(shapely.union_all(lines)))
        if len(lines) == count:
            break
        count = len(lines)
    return lines


def neighbour_dividers(around: Surroundings, boundaries: Lines) -> Lines:
    """Return the lines between neighbouring lanes, chained, outside intersections (MapTRv2).

    As published: a line that two opposing lanes share from end point to end point is a circle in
    the graph, without a place where it begins, and is no divider.
    """
    pieces = []
    for side in shared_lines(around.nearby_lanes):
        pieces += around.cut_lines(chain_lines(side))
    return without_doubles(pieces)


def painted_dividers(around: Surroundings, boundaries: Lines) -> Lines:
    """Return painted lane boundaries without doubles and without kerbs (StreamMapNet)."""
    pieces: Lines = []
    for line in marked_lines(around.city_map, ('NONE', 'UNKNOWN')):
        inside = shapely.intersection(around.to_ego(line), around.patch.local_box)
        pieces += line_parts(inside)
    kept = without_overlapped(without_overlapped(pieces), boundaries)
    return join_ends(kept)


def graph_dividers(around: Surroundings, boundaries: Lines) -> Lines:
    """Return lines between neighbouring lanes, joined and without kerbs (MapTracker).

    As MapTRv2, but lines that are there twice are taken out of the lane graph first.
    """
    left, right = shared_lines(around.nearby_lanes)
    keys = [(0, lane) for lane in left] + [(1, lane) for lane in right]
    lines = [shapely.LineString((left, right)[side][lane].vertices) for side, lane in keys]
    kept = {keys[index] for index in indices_without_doubles(lines, _THIN_M, 0.9)}
    pieces: Lines = []
    for side, group in enumerate((left, right)):
        single = {lane: line for lane, line in group.items() if (side, lane) in kept}
        pieces += around.cut_lines(chain_lines(single))
    return join_ends(without_overlapped(without_doubles(pieces), boundaries))


def marked_lines(city_map: CityMap, unmarked: tuple[str, ...]) -> Lines:
    """Return the lane boundaries whose mark is none of these, in the order of the map."""
    return [
        shapely.LineString(line)
        for lane in city_map.lanes.values()
        for line, mark in ((lane.left, lane.left_mark), (lane.right, lane.right_mark))
        if mark not in unmarked
    ]


def shared_lines(
    lanes: Sequence[LaneSegment],
) -> tuple[dict[int, LinkedLine], dict[int, LinkedLine]]:
    """Return left and right lines of lanes that have a neighbour there; a shared one once."""
    outside = [lane for lane in lanes if not lane.is_intersection]
    by_id = {lane.id: lane for lane in outside}
    left = {
        lane.id: LinkedLine(lane.left, lane.predecessors, lane.successors)
        for lane in outside
        if lane.left_neighbor is not None
    }
    right = {
        lane.id: LinkedLine(lane.right, lane.predecessors, lane.successors)
        for lane in outside
        if lane.right_neighbor is not None
    }
    for lane in left:
        right.pop(by_id[lane].left_neighbor, None)  # type: ignore[arg-type]
    for lane in right:
        left.pop(by_id[lane].right_neighbor, None)  # type: ignore[arg-type]
    return left, right


def separate_crossings(around: Surroundings) -> Lines:
    """Return each crossing as a closed line, clockwise; borders of the range are edges (MapTR)."""
    lines: Lines = []
    for polygon in around.cut_areas(around.city_map.crossing_polygons):
        lines += ring_inside(polygon.exterior, around.outer_box, is_ccw=False)
    return lines


def merged_crossings(around: Surroundings) -> Lines:
    """Return crossings, parallel ones that touch as one; open where the range ends (MapTRv2)."""
    polygons = around.cut_areas(around.city_map.crossing_polygons)
    lines = [
        concatenate_lines(ring_inside(polygon.exterior, around.inner_box, is_ccw=True))
        for polygon in merge_parallel_crossings(polygons)
    ]
    return [line for line in lines if line is not None]


def closed_crossings(around: Surroundings) -> Lines:
    """Return each crossing, counter-clockwise, closed along the border (StreamMapNet)."""
    return _closed_crossings(around, 0.0)


def large_crossings(around: Surroundings) -> Lines:
    """Return crossings as StreamMapNet, of at least 1 m^2 inside the range (MapTracker)."""
    return _closed_crossings(around, _MIN_CROSSING_M2)


def _closed_crossings(around: Surroundings, min_area_m2: float) -> Lines:
    lines = []
    box = around.patch.local_box
    for polygon in around.city_map.crossing_polygons:
        moved = around.to_ego(polygon)
        if shapely.intersection(moved, box).area < min_area_m2:
            continue
        line = concatenate_lines(ring_inside(moved.exterior, box, is_ccw=True))
        if line is None:
            continue
        points = shapely.get_coordinates(line, include_z=True)
        lines.append(shapely.LineString(np.concatenate([points, points[:1]])))
    return lines


def area_boundaries(around: Surroundings) -> Lines:
    """Return the outlines of the united drivable areas, open where the range ends (all)."""
    return area_outlines(around.cut_areas(around.city_map.area_polygons), around.inner_box)
