"""Which pedestrian crossings of a map are one crossing: the merging rules of the protocols.

Crossings are polygons in the reference frame of a patch [m].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import shapely

from gsmap_core.data.groundtruth_patch import polygon_parts
from gsmap_core.structures import FloatArray

#: Sides are parallel when 1 - |cos| of their angle is below this (about 8 degrees).
PARALLEL_TOLERANCE = 0.01
#: The same for a union that must keep the directions of its larger part (2.6 degrees).
_SAME_RECTANGLE_TOLERANCE = 0.001
#: A union must fill its convex hull to this share, or it is no single crossing.
_MIN_HULL_SHARE = 0.8
_MIN_AREA_M2 = 1.0
#: Pieces below this that another crossing covers are parts of it.
_MAX_COVERED_AREA_M2 = 20.0
#: Whether a larger crossing (first) takes in a smaller one (second); their union (third).
_Rule = Callable[[shapely.Polygon, shapely.Polygon, shapely.Geometry], bool]


def merge_parallel_crossings(
    crossings: Sequence[shapely.Polygon], tolerance: float = PARALLEL_TOLERANCE
) -> list[shapely.Polygon]:
    """Unite crossings whose boxes touch and whose long sides are parallel.

    Each crossing in turn takes in all later ones that touch its own box and are parallel to it; a
    crossing taken in takes nothing in itself. Parts that turn out not to touch stay apart.

    Args:
        crossings: polygons.
        tolerance: greatest 1 - |cos| of the angle between the long sides of the two smallest
            rectangles around them.

    Returns:
        Polygons in the order of the first of each.

    Source: StreamMapNet's construction of crossings (and MapTRv2's for Argoverse 2).
    """
    tree = shapely.STRtree(list(crossings))
    directions = [rectangle_sides(polygon)[0] for polygon in crossings]
    is_left = np.ones(len(crossings), dtype=bool)
    merged: list[shapely.Polygon] = []
    for index, polygon in enumerate(crossings):
        if not is_left[index]:
            continue
        is_left[index] = False
        union = polygon
        for other in sorted(tree.query(polygon)):
            if is_left[other] and _are_parallel(directions[index], directions[other], tolerance):
                union = shapely.union(union, crossings[other])
                is_left[other] = False
        merged += polygon_parts(union)
    return merged


def merge_compact_crossings(crossings: Sequence[shapely.Polygon]) -> list[shapely.Polygon]:
    """Unite crossings as `merge_parallel_crossings`, but only to compact shapes.

    By decreasing area; a union must fill 0.8 of its convex hull. A second pass takes in smaller
    neighbours of any direction whose union keeps the directions of the larger one's rectangle.
    Crossings below 1 m^2, and those below 20 m^2 that another one covers, are left out.

    Returns:
        Polygons by decreasing area.

    Source: MapTracker's construction of crossings; its second pass is described as "keeps the
    rectangle directions", read here as both sides of the rectangle.
    """
    first = _absorb(crossings, _is_parallel_union)
    second = _absorb(first, _is_same_rectangle)
    large = [polygon for polygon in second if polygon.area >= _MIN_AREA_M2]
    return [
        polygon
        for index, polygon in enumerate(large)
        if polygon.area >= _MAX_COVERED_AREA_M2
        or not any(
            shapely.covered_by(polygon, other)
            for number, other in enumerate(large)
            if number != index
            # Of two equal ones the first stays.
            and (other.area > polygon.area or number < index)
        )
    ]


def rectangle_sides(polygon: shapely.Polygon) -> FloatArray:
    """Return the (2, 2) unit directions of the smallest rectangle's long and short side.

    A polygon without extent in one direction has zeros for that side.
    """
    rectangle = shapely.minimum_rotated_rectangle(polygon)
    corners = shapely.get_coordinates(rectangle)[:3]
    sides = np.zeros((2, 2))
    sides[: len(corners) - 1] = np.diff(corners, axis=0)
    lengths = np.linalg.norm(sides, axis=1)
    unit = sides / np.maximum(lengths, 1e-12)[:, None]
    return unit if lengths[0] >= lengths[1] else unit[::-1]


def _absorb(crossings: Sequence[shapely.Polygon], may_join: _Rule) -> list[shapely.Polygon]:
    """Let each crossing, by decreasing area, take in smaller neighbours where the rule allows."""
    ordered = sorted(crossings, key=lambda polygon: -polygon.area)
    tree = shapely.STRtree(ordered)
    is_left = np.ones(len(ordered), dtype=bool)
    merged: list[shapely.Polygon] = []
    for index, polygon in enumerate(ordered):
        if not is_left[index]:
            continue
        is_left[index] = False
        union = polygon
        for other in sorted(tree.query(polygon)):
            if not is_left[other]:
                continue
            joined = shapely.union(union, ordered[other])
            if _is_compact(joined) and may_join(polygon, ordered[other], joined):
                union = joined
                is_left[other] = False
        merged += polygon_parts(union)
    return sorted(merged, key=lambda polygon: -polygon.area)


def _is_parallel_union(
    larger: shapely.Polygon, smaller: shapely.Polygon, union: shapely.Geometry
) -> bool:
    return _are_parallel(rectangle_sides(larger)[0], rectangle_sides(smaller)[0])


def _is_same_rectangle(
    larger: shapely.Polygon, smaller: shapely.Polygon, union: shapely.Geometry
) -> bool:
    before, after = rectangle_sides(larger), rectangle_sides(union)
    return all(
        any(_are_parallel(side, other, _SAME_RECTANGLE_TOLERANCE) for other in after)
        for side in before
    )


def _is_compact(geometry: shapely.Geometry) -> bool:
    hull = shapely.convex_hull(geometry).area
    return bool(hull > 0.0 and geometry.area / hull > _MIN_HULL_SHARE)


def _are_parallel(
    one: FloatArray, other: FloatArray, tolerance: float = PARALLEL_TOLERANCE
) -> bool:
    return bool(1.0 - abs(float(one @ other)) < tolerance)
