"""Elements of local maps as lines in the map frame, and how much two of them differ.

A local map ends where its frame stopped looking. Lines are therefore compared only along the parts
that both frames could see: an element is the same whether the range cut it short or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gsmap_core.errors import DataError
from gsmap_core.geometry.polylines import resample_polylines
from gsmap_core.geometry.transforms import transform_points, yaw_of
from gsmap_core.structures import FloatArray, VectorMap

IntArray = npt.NDArray[np.intp]
#: Points that a line must have where both frames looked, to be compared.
_MIN_POINTS = 3
#: A frame looked that much farther than its range says: what lies on the border is in it [m].
_BORDER_M = 0.5


@dataclass(frozen=True)
class PlacedLines:
    """Lines in the map frame, each with the view of the frame that saw it.

    Args:
        points: (M, N, 3) float64, evenly spaced as seen from above [m]; a ring repeats its first
            point; height 0 where there is none.
        has_z: (M,) bool, whether the heights are known.
        categories: (M,) category ids.
        views: (M, 2, 3) float64, the plane of the map to the ego plane of the frame [m].
        limits: (M, 2, 2) float64, lower and upper corner of its range in the ego frame [m].
    """

    points: FloatArray
    has_z: npt.NDArray[np.bool_]
    categories: IntArray
    views: FloatArray
    limits: FloatArray

    @classmethod
    def empty(cls, num_points: int) -> Self:
        """Return no lines of N points."""
        return cls(
            np.zeros((0, num_points, 3)),
            np.zeros(0, dtype=np.bool_),
            np.zeros(0, dtype=np.intp),
            np.zeros((0, 2, 3)),
            np.zeros((0, 2, 2)),
        )

    @classmethod
    def of_map(cls, local_map: VectorMap, num_points: int) -> Self:
        """Place the elements of a local map.

        Elements with height are moved by the whole pose; planar ones by position and heading
        alone, since they know no height that a tilted pose could act on.

        Args:
            local_map: in the ego frame, with a pose.
            num_points: N.

        Raises:
            DataError: the map is in another frame, or has no pose.
        """
        pose = local_map.map_from_base
        if local_map.reference != 'ego' or pose is None:
            raise DataError(
                f"map at {local_map.stamp_ns} ns is in the '{local_map.reference}' frame, "
                f'{"without" if pose is None else "with"} a pose; expected an ego map with '
                'map_from_base'
            )
        count, area = len(local_map), local_map.range
        has_z = np.array([element.has_z for element in local_map.elements], dtype=np.bool_)
        points = resample_polylines(
            [_spatial(element.vertices, element.closed) for element in local_map.elements],
            num_points,
            2,
        )
        cosine, sine = np.cos(yaw_of(pose)), np.sin(yaw_of(pose))
        planar = np.array([[cosine, -sine], [sine, cosine]])
        placed = np.zeros((count, num_points, 3))
        placed[..., :2] = points[..., :2] @ planar.T + pose[:2, 3]
        if has_z.any():
            placed[has_z] = transform_points(pose, points[has_z])
        view = np.column_stack([planar.T, -planar.T @ pose[:2, 3]])
        limits = np.array([[area.x_min, area.y_min], [area.x_max, area.y_max]])
        return cls(
            placed,
            has_z,
            np.array([element.category for element in local_map.elements], dtype=np.intp),
            np.broadcast_to(view, (count, 2, 3)),
            np.broadcast_to(limits, (count, 2, 2)),
        )

    def __len__(self) -> int:
        """Return the number of lines M."""
        return len(self.points)

    def take(self, indices: npt.ArrayLike) -> Self:
        """Return the lines at some places."""
        places = np.asarray(indices, dtype=np.intp)
        return type(self)(*(getattr(self, item.name)[places] for item in fields(self)))

    def joined(self, other: PlacedLines) -> Self:
        """Return these lines and those of `other`, which has the same N, behind them."""
        return type(self)(
            *(
                np.concatenate([getattr(self, item.name), getattr(other, item.name)])
                for item in fields(self)
            )
        )


def _spatial(vertices: FloatArray, closed: bool) -> FloatArray:
    """Return (V, 3) vertices, height 0 where there is none; a ring repeats its first one."""
    count = len(vertices)
    line = np.zeros((count + closed, 3))
    line[:count, : vertices.shape[1]] = vertices
    if closed:
        line[count] = line[0]
    return line


def mismatch(current: PlacedLines, earlier: PlacedLines, max_distance_m: float) -> FloatArray:
    """Return how much every line of a frame differs from every line of earlier ones.

    Of the points of one line that the other's frame could see, the distances to the other line
    count, `max_distance_m` at most each, as a share of that; the mean over the points, then the
    mean of both directions. 0: the same line; 0.5: one lies on a small part of the other; 1: they
    are nowhere near each other. Order and direction of the vertices do not matter. Heights count
    where both lines have them.

    Args:
        current: A lines, all of one frame.
        earlier: B lines of the same number of points.
        max_distance_m: farther apart does not differ more [m].

    Returns:
        (A, B) float64 in [0, 1]; 1 for lines of different categories, and for those that have no
        part in common that both frames looked at.
    """
    result = np.ones((len(current), len(earlier)))
    if not result.size:
        return result
    # Along the vehicle most lines have slender boxes; near it, single precision is enough.
    view = current.views[0]
    origin_z = current.points[0, 0, 2]
    here, there = (_placed(lines.points, view, origin_z) for lines in (current, earlier))
    is_same = current.categories[:, None] == earlier.categories
    rows, columns = np.nonzero(is_same & _is_near(here, there, max_distance_m))
    with_z = current.has_z[rows] & earlier.has_z[columns]
    pairs = here[:, rows], there[:, columns]  # (3, P, N) each
    if not with_z.all():
        for points in pairs:
            points[2, ~with_z] = 0.0
    views = earlier.views[columns].transpose(1, 2, 0)[..., None]  # (2, 3, P, 1)
    x, y = np.moveaxis(current.points[rows, :, :2], 2, 0)
    then = [row[0] * x + row[1] * y + row[2] for row in views]
    seen = (
        _is_inside(then, earlier.limits[columns]),
        _is_inside(list(there[:2]), np.broadcast_to(current.limits[0], (len(earlier), 2, 2)))[
            columns
        ],
    )
    shares = np.zeros((2, len(rows)))
    num_dims = 3 if with_z.any() else 2
    for direction, (points, lines) in enumerate((pairs, pairs[::-1])):
        gaps = _gaps(points[:num_dims], lines[:num_dims]) / np.float32(max_distance_m)
        counts = seen[direction].sum(axis=1)
        total = (np.minimum(gaps, np.float32(1.0)) * seen[direction]).sum(axis=1)
        shares[direction] = total / np.maximum(counts, 1)
        shares[direction, counts < _MIN_POINTS] = np.inf
    result[rows, columns] = np.minimum(shares.mean(axis=0), 1.0)
    return result


def _placed(points: FloatArray, view: FloatArray, origin_z: float) -> npt.NDArray[np.float32]:
    """Return (3, M, N) points of the map in the plane of a view, heights from `origin_z`."""
    x, y, z = np.moveaxis(points, 2, 0)
    placed = [row[0] * x + row[1] * y + row[2] for row in view]
    return np.stack([*placed, z - origin_z]).astype(np.float32)


def _is_near(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], distance_m: float
) -> npt.NDArray[np.bool_]:
    """Return (A, B) bool: whose boxes in the plane come within a distance of each other."""
    low, high = first[:2].min(axis=2)[..., None], first[:2].max(axis=2)[..., None]
    other_low, other_high = second[:2].min(axis=2)[:, None], second[:2].max(axis=2)[:, None]
    apart = np.maximum(low - other_high, other_low - high)
    return (apart <= distance_m).all(axis=0)


def _is_inside(points: Sequence[npt.NDArray[Any]], limits: FloatArray) -> npt.NDArray[np.bool_]:
    """Return (P, N) bool: which points, x and y of (P, N) each, lie in the (P, 2, 2) limits."""
    inside = np.ones(points[0].shape, dtype=np.bool_)
    for axis, values in enumerate(points):
        inside &= values >= limits[:, 0, axis, None] - _BORDER_M
        inside &= values <= limits[:, 1, axis, None] + _BORDER_M
    return inside


def _gaps(
    points: npt.NDArray[np.float32], lines: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the (P, N) distances of points to the lines of their pairs [m].

    Args:
        points: (D, P, N) [m].
        lines: (D, P, N) [m].
    """
    # Segments first: the smallest over them is then taken between whole rows.
    ends = np.ascontiguousarray(lines.transpose(0, 2, 1))[..., None]  # (D, N, P, 1)
    steps = np.diff(ends, axis=1)
    squares = np.square(steps).sum(axis=0)
    steps_per_square = steps / np.where(squares == 0.0, np.float32(np.inf), squares)
    offsets = points[:, None] - ends[:, :-1]  # (D, N - 1, P, N)
    along = (offsets * steps_per_square).sum(axis=0)
    np.clip(along, 0.0, 1.0, out=along)
    offsets -= along * steps
    return np.sqrt(np.square(offsets, out=offsets).sum(axis=0).min(axis=0))
