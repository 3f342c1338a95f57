"""Lines of lanes as dividers and centre lines: chaining along the lane graph, doubles, joints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from gsmap_core.errors import DataError
from gsmap_core.structures import FloatArray

#: Vertices of chained lines are rounded to this many decimals [m]: what meets there is one point.
_DECIMALS = 3
#: Tolerance of the simplification of a chained line [m].
SIMPLIFY_M = 0.2
#: Two lines are one when their buffers overlap to this share of their union.
SAME_LINE_IOU = 0.9
#: Paths from root to leaf are counted in thousands only where the lane graph is broken.
_MAX_PATHS = 20_000

_Point = tuple[float, ...]


@dataclass(frozen=True)
class LinkedLine:
    """The line of one lane with the lanes before and after it.

    Args:
        vertices: (P, 3) in driving direction [m].
        predecessors: ids of the lanes that lead here.
        successors: ids of the lanes that this one leads to.
    """

    vertices: FloatArray
    predecessors: tuple[int, ...]
    successors: tuple[int, ...]


def chain_lines(lines: Mapping[int, LinkedLine]) -> list[shapely.LineString]:
    """Chain lines along the lane graph into all paths from where it begins to where it ends.

    Lines that share a part of their way share it in every path. Each path is simplified.

    Args:
        lines: by lane; links to lanes that are not among them are ignored.

    Returns:
        Paths in the order of their first lines.

    Raises:
        DataError: there are more than 20,000 paths.

    Source: MapTRv2's construction for Argoverse 2.
    """
    rounded = {
        lane: [tuple(point) for point in line.vertices.round(_DECIMALS).tolist()]
        for lane, line in lines.items()
    }
    after: dict[_Point, dict[_Point, None]] = {}

    def connect(first: _Point, second: _Point) -> None:
        after.setdefault(first, {})[second] = None
        after.setdefault(second, {})

    for lane, line in lines.items():
        points = rounded[lane]
        for first, second in zip(points[:-1], points[1:], strict=True):
            connect(first, second)
        for other in line.predecessors:
            if other in lines:
                connect(rounded[other][-1], points[0])
        for other in line.successors:
            if other in lines:
                connect(points[-1], rounded[other][0])
    has_incoming = {point for following in after.values() for point in following}
    paths: list[shapely.LineString] = []
    for root in after:
        if root in has_incoming:
            continue
        for path in _paths_to_leaves(after, root):
            if len(paths) >= _MAX_PATHS:
                raise DataError(
                    f'the lane graph has more than {_MAX_PATHS} paths inside the range; expected '
                    'a few hundred at most: use a smaller range, or check the links of the lanes'
                )
            paths.append(shapely.LineString(path))
    return [shapely.simplify(path, SIMPLIFY_M, preserve_topology=True) for path in paths]


def without_doubles(
    lines: Sequence[shapely.LineString], width_m: float = 1.0, iou: float = SAME_LINE_IOU
) -> list[shapely.LineString]:
    """Drop lines that nearly coincide with an earlier one, seen from above.

    Args:
        lines: lines [m].
        width_m: how far their flat-ended buffers reach to each side [m].
        iou: overlap of two buffers, as a share of their union, from which on they are one.

    Returns:
        The first line of each group, in order.
    """
    return [lines[index] for index in indices_without_doubles(lines, width_m, iou)]


def indices_without_doubles(
    lines: Sequence[shapely.LineString], width_m: float, iou: float
) -> list[int]:
    """Return which lines `without_doubles` keeps."""
    buffers = shapely.buffer(
        np.array(lines, dtype=object), width_m, cap_style='flat', join_style='mitre'
    )
    areas = shapely.area(buffers)
    is_dropped = np.zeros(len(lines), dtype=bool)
    pairs = shapely.STRtree(buffers).query(buffers, predicate='intersects')
    for index in range(len(lines)):
        if is_dropped[index]:
            continue
        others = pairs[1][pairs[0] == index]
        others = others[(others > index) & ~is_dropped[others]]
        shared = shapely.area(shapely.intersection(buffers[index], buffers[others]))
        united = areas[index] + areas[others] - shared
        is_dropped[others[shared >= iou * united]] = True
    return np.flatnonzero(~is_dropped).tolist()


def without_overlapped(
    lines: Sequence[shapely.LineString],
    others: Sequence[shapely.LineString] | None = None,
    width_m: float = 0.3,
    share: float = 0.2,
) -> list[shapely.LineString]:
    """Drop lines that run along another one.

    Args:
        lines: lines [m].
        others: what they must not run along; None: the lines that were kept before them.
        width_m: how far the buffers reach to each side [m].
        share: a line is dropped if its buffer shares more than this area with another's per metre
            of the shorter of the two [m].

    Returns:
        Lines that are kept, in order.

    Source: StreamMapNet's construction for Argoverse 2; its text gives the rule as an overlap of
    0.3 m buffers above 0.2 times the shorter length, read here as the area both cover.
    """
    kept: list[shapely.LineString] = []
    for line in lines:
        against = np.array(kept if others is None else list(others), dtype=object)
        shared = shapely.area(
            shapely.intersection(shapely.buffer(line, width_m), shapely.buffer(against, width_m))
        )
        shorter = np.minimum(line.length, shapely.length(against))
        if not (shared > share * shorter).any():
            kept.append(line)
    return kept


def join_ends(
    lines: Sequence[shapely.LineString], distance_m: float = 0.1
) -> list[shapely.LineString]:
    """Join lines whose ends lie closer than a distance to each other, nearest ends first.

    Args:
        lines: lines [m].
        distance_m: how far the ends may be apart, seen from above [m].

    Returns:
        Lines in the order and direction of the first part of each; both end points stay.
    """
    left = [shapely.get_coordinates(line, include_z=bool(line.has_z)) for line in lines]
    while True:
        best = _nearest_ends(left)
        if best is None or best[0] >= distance_m:
            return [shapely.LineString(points) for points in left]
        _, first, is_first_end, second, is_second_end = best
        one, other = left[first], left[second]
        if is_first_end == is_second_end:
            other = other[::-1]
        left[first] = np.concatenate([one, other] if is_first_end else [other, one])
        del left[second]


def _nearest_ends(lines: Sequence[FloatArray]) -> tuple[float, int, bool, int, bool] | None:
    """Return distance, line, whether at its end, and the same of the other line; None: no two."""
    if len(lines) < 2:
        return None
    ends = np.stack([line[[0, -1], :2] for line in lines]).reshape(-1, 2)
    distance = np.linalg.norm(ends[:, None] - ends[None], axis=-1)
    owner = np.arange(len(ends)) // 2
    distance[owner[:, None] >= owner[None]] = np.inf
    first, second = np.unravel_index(int(np.argmin(distance)), distance.shape)
    return (
        float(distance[first, second]),
        int(first) // 2,
        bool(first % 2),
        int(second) // 2,
        bool(second % 2),
    )


def _paths_to_leaves(
    after: Mapping[_Point, Mapping[_Point, None]], root: _Point
) -> Iterator[list[_Point]]:
    """Yield the paths from a point to every end, depth first; no point twice in one path."""
    path, seen = [root], {root}
    stack = [iter(after[root])]
    while stack:
        following = next(stack[-1], None)
        if following is None:
            stack.pop()
            seen.discard(path.pop())
            continue
        if following in seen:
            continue
        if not after[following]:
            yield [*path, following]
            continue
        path.append(following)
        seen.add(following)
        stack.append(iter(after[following]))
