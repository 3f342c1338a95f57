"""Outlines of areas as lines inside a patch: direction, cutting, joining; lines as elements.

Everything happens in the reference frame of the patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import shapely

from gsmap_core.data.groundtruth_patch import line_parts, polygon_parts
from gsmap_core.structures import MapElement


def area_outlines(
    areas: Sequence[shapely.Polygon], box: shapely.Polygon
) -> list[shapely.LineString]:
    """Unite areas and return the lines of their outlines that lie inside a box.

    Exteriors run clockwise, outlines of holes counter-clockwise, so that the area is on the right
    of every line. A box a little smaller than the patch that the areas were cut to leaves out the
    edges along its border (boundaries); a larger one keeps them, so that rings stay closed
    (crossings). Lines touching end to end are joined.

    Args:
        areas: polygons in the reference frame, cut to the patch.
        box: where outlines are kept.

    Returns:
        Lines, exteriors first; a closed one repeats its first vertex.

    Source: MapTR's construction of nuScenes boundaries and crossings.
    """
    united = polygon_parts(shapely.union_all(list(areas)))
    lines = []
    for polygon in united:
        lines += ring_inside(polygon.exterior, box, is_ccw=False)
    for polygon in united:
        for hole in polygon.interiors:
            lines += ring_inside(hole, box, is_ccw=True)
    return lines


def ring_inside(
    ring: shapely.LinearRing, box: shapely.Polygon, *, is_ccw: bool
) -> list[shapely.LineString]:
    """Return the pieces of a ring inside a box.

    Args:
        ring: any direction.
        box: where it is kept.
        is_ccw: direction of the pieces, seen from above.

    Returns:
        Joined pieces; a ring inside as a whole is one line that repeats its first vertex.
    """
    directed = ring if ring.is_ccw == is_ccw else shapely.reverse(ring)
    if shapely.covered_by(directed, box):
        return [shapely.LineString(directed)]
    return merge_lines(line_parts(shapely.intersection(directed, box)))


def merge_lines(lines: Sequence[shapely.LineString]) -> list[shapely.LineString]:
    """Join lines where exactly two of them meet end to end.

    Returns:
        The joined lines; directions stay where the lines agree on one.
    """
    if len(lines) < 2:
        return list(lines)
    return line_parts(shapely.line_merge(shapely.MultiLineString(list(lines))))


def concatenate_lines(lines: Sequence[shapely.LineString]) -> shapely.LineString | None:
    """Return the vertices of all lines, one after the other, as one line; None without lines."""
    if not lines:
        return None
    is_3d = all(line.has_z for line in lines)
    points = [shapely.get_coordinates(line, include_z=is_3d) for line in lines]
    return shapely.LineString(np.concatenate(points))


def to_elements(lines: Iterable[shapely.LineString], category: int) -> list[MapElement]:
    """Return lines as map elements; those that end where they begin become closed.

    Lines without two different vertices are left out.
    """
    elements = []
    for line in lines:
        vertices = shapely.get_coordinates(line, include_z=bool(line.has_z))
        different = np.any(vertices[1:] != vertices[:-1], axis=1)
        vertices = vertices[np.concatenate([[True], different])]
        if len(vertices) < 2:
            continue
        closed = len(vertices) > 3 and bool((vertices[0] == vertices[-1]).all())
        if closed:
            vertices = vertices[:-1]
        elements.append(
            MapElement(category=category, vertices=vertices, closed=closed, num_observations=0)
        )
    return elements
