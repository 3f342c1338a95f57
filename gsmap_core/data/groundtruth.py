"""Cuts the elements of a whole map to the surroundings of the vehicle.

Elements come in the map frame and leave in the ego frame, clipped in the ego ground plane. Merging
the layers of a dataset into elements is the business of its reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import shapely

from gsmap_core.categories import category_by_id
from gsmap_core.geometry.polylines import polyline_length
from gsmap_core.geometry.transforms import invert, transform_points, yaw_of
from gsmap_core.structures import (
    FloatArray,
    MapElement,
    PerceptionRange,
    VectorMap,
    check_transform,
)

#: Points nearer to each other than this are one point [m].
_SAME_POINT_M = 1e-6


def cut_local_map(
    global_elements: Sequence[MapElement],
    map_from_base: npt.ArrayLike,
    range: PerceptionRange,
    stamp_ns: int,
    sample_id: str = '',
    scene: str = '',
    *,
    min_length_m: float = 0.5,
    min_area_m2: float = 0.5,
) -> VectorMap:
    """Cut the elements around the vehicle and express them in the ego frame.

    Elements with height are moved by the whole pose and keep it. Planar ones know no height that a
    tilted pose could act on, so they are moved by position and heading alone. Lines, closed
    boundaries included, are cut into the pieces inside the range: a closed line that leaves it
    becomes open pieces and never gains an edge along the border, one that stays inside stays
    closed. Closed elements of an area category (crossings) are cut as areas and stay closed. A
    piece keeps category, score, id and direction of its element, not the covariance; pieces come
    in the order of `global_elements`, those of one element in the order of its vertices.

    Args:
        global_elements: elements in the map frame [m].
        map_from_base: (4, 4) ego pose.
        range: what to keep, in the ego frame [m].
        stamp_ns: moment of the pose [ns].
        sample_id: id of the frame in its dataset.
        scene: name of the drive.
        min_length_m: shorter pieces of a line are dropped [m].
        min_area_m2: smaller pieces of an area are dropped [m^2].

    Returns:
        The local map, `reference='ego'`.

    Raises:
        DataError: the pose is not rigid.
    """
    pose = check_transform('map_from_base', map_from_base)
    elements: list[MapElement] = []
    for element, vertices in _nearby(global_elements, pose, range):
        is_area = element.closed and category_by_id(element.category).is_area
        if is_area:
            pieces = [(ring, True) for ring in clip_area(vertices, range, min_area_m2)]
        else:
            pieces = [
                (piece, closed)
                for piece, closed in clip_line(vertices, element.closed, range)
                if polyline_length(piece[:, :2], closed) >= min_length_m
            ]
        elements += [
            MapElement(
                category=element.category,
                vertices=piece,
                closed=closed,
                score=element.score,
                id=element.id,
                num_observations=element.num_observations,
            )
            for piece, closed in pieces
        ]
    return VectorMap(
        elements=tuple(elements),
        stamp_ns=stamp_ns,
        range=range,
        reference='ego',
        sample_id=sample_id,
        scene=scene,
        map_from_base=pose,
    )


def move_local_map(local_map: VectorMap, new_from_old: FloatArray) -> VectorMap:
    """Express a local map in another ego frame; planar elements stay planar.

    Args:
        local_map: elements in the old ego frame [m].
        new_from_old: (4, 4) transform. Covariances are turned by its heading.
    """
    rotation = new_from_old[:2, :2]
    moved = []
    for element in local_map.elements:
        points = element.vertices
        if not element.has_z:
            points = np.column_stack([points, np.zeros(len(points))])
        vertices = transform_points(new_from_old, points)[:, : element.vertices.shape[1]]
        covariance = element.covariance
        if covariance is not None:
            full = covariance[:, [0, 1, 1, 2]].reshape(-1, 2, 2)
            turned = rotation @ full @ rotation.T
            covariance = np.stack([turned[:, 0, 0], turned[:, 0, 1], turned[:, 1, 1]], axis=1)
        moved.append(replace(element, vertices=vertices, covariance=covariance))
    return replace(local_map, elements=tuple(moved))


def _nearby(
    elements: Sequence[MapElement], map_from_base: FloatArray, area: PerceptionRange
) -> Iterator[tuple[MapElement, FloatArray]]:
    """Yield the elements whose box touches the range, with their vertices in the ego frame."""
    if not elements:
        return
    base_from_map = invert(map_from_base)
    planar = np.eye(4)
    yaw = yaw_of(map_from_base)
    planar[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    planar[:2, 3] = map_from_base[:2, 3]
    base_from_map_planar = invert(planar)
    # One product over all vertices and one reduction: a whole town costs well under a millisecond.
    counts = np.array([len(element.vertices) for element in elements])
    stacked = np.zeros((counts.sum(), 3))
    has_z = np.repeat([element.has_z for element in elements], counts)
    stacked[:, :2] = np.concatenate([element.vertices[:, :2] for element in elements])
    if has_z.any():
        stacked[has_z, 2] = np.concatenate([e.vertices[:, 2] for e in elements if e.has_z])
    moved = transform_points(base_from_map_planar, stacked)
    if has_z.any():
        moved[has_z] = transform_points(base_from_map, stacked[has_z])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    low = np.minimum.reduceat(moved[:, :2], starts)
    high = np.maximum.reduceat(moved[:, :2], starts)
    touches = (
        (low[:, 0] <= area.x_max)
        & (high[:, 0] >= area.x_min)
        & (low[:, 1] <= area.y_max)
        & (high[:, 1] >= area.y_min)
    )
    for index in np.flatnonzero(touches):
        element, start = elements[index], starts[index]
        vertices = moved[start : start + counts[index]]
        yield element, vertices if element.has_z else vertices[:, :2]


def clip_line(
    vertices: FloatArray, closed: bool, area: PerceptionRange
) -> list[tuple[FloatArray, bool]]:
    """Cut a line to the range.

    Args:
        vertices: (P, 2) or (P, 3) in order [m]; z is interpolated where an edge is cut.
        closed: the last vertex is joined to the first.
        area: what to keep, along x and y.

    Returns:
        Pieces in order with whether they are closed; a closed line is one closed piece if it lies
        inside as a whole.
    """
    if closed:
        if _inside(vertices, area).all():
            return [(vertices.copy(), True)]
        vertices = np.concatenate([vertices, vertices[:1]])
    enter, leave = _clip_edges(vertices, area)
    start, step = vertices[:-1], np.diff(vertices, axis=0)
    pieces: list[list[FloatArray]] = []
    is_open = False
    for index in np.flatnonzero(enter <= leave):
        first = start[index] + enter[index] * step[index]
        last = start[index] + leave[index] * step[index]
        if leave[index] == 1.0:
            last = vertices[index + 1]  # exactly, without rounding
        if not (is_open and enter[index] == 0.0):
            pieces.append([first])
        pieces[-1].append(last)
        is_open = bool(leave[index] == 1.0)
    lines = [_without_repeats(np.array(piece)) for piece in pieces]
    if closed and len(lines) > 1 and enter[0] == 0.0 and is_open:
        # The ring starts inside: what runs into its first vertex and what leaves it are one piece.
        lines = [np.concatenate([lines[-1], lines[0][1:]]), *lines[1:-1]]
    return [(line, False) for line in lines if len(line) >= 2]


def clip_area(vertices: FloatArray, area: PerceptionRange, min_area_m2: float) -> list[FloatArray]:
    """Cut an area to the range.

    Args:
        vertices: (P, 2) or (P, 3) ring, first vertex not repeated [m].
        area: what to keep, along x and y.
        min_area_m2: smaller pieces are dropped [m^2].

    Returns:
        Rings in the direction of the given one, each beginning at the earliest point of its
        outline; z of new vertices is interpolated along the outline, or on its mean plane where
        they lie inside it (corners of the range).
    """
    polygon = shapely.Polygon(vertices[:, :2])
    if _inside(vertices, area).all():
        return [vertices.copy()] if polygon.area >= min_area_m2 else []
    if not polygon.is_valid:
        polygon = shapely.make_valid(polygon)
    cut = shapely.intersection(
        polygon, shapely.box(area.x_min, area.y_min, area.x_max, area.y_max)
    )
    is_ccw = _signed_area(vertices) > 0
    rings: list[tuple[float, FloatArray]] = []
    for part in shapely.get_parts(cut):
        # Intersections also hold the points and lines where the area only touches the range.
        if part.geom_type != 'Polygon' or part.area < min_area_m2:
            continue
        ring = _without_repeats(shapely.get_coordinates(part.exterior)[:-1])
        if (_signed_area(ring) > 0) != is_ccw:
            ring = ring[::-1]
        place, height = _place_on_outline(ring, vertices)
        first = int(np.argmin(place))
        if height is not None:
            ring = np.column_stack([ring, height])
        rings.append((float(place[first]), np.roll(ring, -first, axis=0)))
    rings.sort(key=lambda item: item[0])
    return [ring for _, ring in rings]


def _inside(vertices: FloatArray, area: PerceptionRange) -> npt.NDArray[np.bool_]:
    x, y = vertices[:, 0], vertices[:, 1]
    return (x >= area.x_min) & (x <= area.x_max) & (y >= area.y_min) & (y <= area.y_max)


def _clip_edges(vertices: FloatArray, area: PerceptionRange) -> tuple[FloatArray, FloatArray]:
    """Return the fractions where each edge enters and leaves the range; enter > leave: outside.

    Source: Liang and Barsky's line clipping.
    """
    start, step = vertices[:-1, :2], np.diff(vertices[:, :2], axis=0)
    low = np.array([area.x_min, area.y_min]) - start
    high = np.array([area.x_max, area.y_max]) - start
    flat = step == 0.0
    divisor = np.where(flat, 1.0, step)
    one, other = low / divisor, high / divisor
    # An edge along an axis never crosses the borders of the other one: it is inside them
    # everywhere or nowhere.
    within = (low <= 0.0) & (high >= 0.0)
    near = np.where(flat, np.where(within, 0.0, 2.0), np.minimum(one, other))
    far = np.where(flat, np.where(within, 1.0, -1.0), np.maximum(one, other))
    return np.maximum(near.max(axis=1), 0.0), np.minimum(far.min(axis=1), 1.0)


def _without_repeats(line: FloatArray) -> FloatArray:
    steps = np.linalg.norm(np.diff(line[:, :2], axis=0), axis=1)
    return line[np.concatenate([[True], steps > _SAME_POINT_M])]


def _signed_area(ring: FloatArray) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _place_on_outline(
    ring: FloatArray, outline: FloatArray
) -> tuple[FloatArray, FloatArray | None]:
    """Return where (V, 2) points lie along an outline, and their height.

    The place is edge index + fraction, infinity for points that are not on the outline.
    """
    start = outline
    step = np.roll(outline, -1, axis=0) - outline
    squared = np.maximum((step[:, :2] ** 2).sum(axis=1), 1e-18)
    offset = ring[:, None, :2] - start[None, :, :2]
    fraction = np.clip((offset * step[None, :, :2]).sum(axis=-1) / squared, 0.0, 1.0)
    distance = np.linalg.norm(offset - fraction[..., None] * step[None, :, :2], axis=-1)
    edge = distance.argmin(axis=1)
    rows = np.arange(len(ring))
    is_on = distance[rows, edge] < _SAME_POINT_M
    place = np.where(is_on, (edge + fraction[rows, edge]) % len(outline), np.inf)
    if outline.shape[1] == 2:
        return place, None
    height = start[edge, 2] + fraction[rows, edge] * step[edge, 2]
    if not is_on.all():
        design = np.column_stack([outline[:, :2], np.ones(len(outline))])
        plane, *_ = np.linalg.lstsq(design, outline[:, 2], rcond=None)
        height = np.where(is_on, height, ring[:, 0] * plane[0] + ring[:, 1] * plane[1] + plane[2])
    return place, height
