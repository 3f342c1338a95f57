"""Points of lines, their distances to other lines, and sums of such numbers by scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gsmap_core.geometry.polylines import polyline_length, resample_polyline
from gsmap_core.geometry.transforms import transform_points
from gsmap_core.structures import FloatArray, PerceptionRange

#: Length that one point stands for, at most [m].
SPACING_M = 0.5
#: Points whose distances to all segments are calculated at once.
_BLOCK = 256


def points_along(line: npt.ArrayLike) -> tuple[FloatArray, float]:
    """Return the middles of equal pieces of a line, and the length of one piece.

    Args:
        line: (V, 2) vertices [m]; a ring repeats its first one.

    Returns:
        (P, 2) points [m] and the length [m], at most `SPACING_M`; no points without length.
    """
    length = polyline_length(line)
    if length == 0.0:
        return np.zeros((0, 2)), 0.0
    count = int(np.ceil(length / SPACING_M))
    return resample_polyline(line, 2 * count + 1)[1::2], length / count


def distances_to_lines(points: npt.ArrayLike, lines: Sequence[npt.ArrayLike]) -> FloatArray:
    """Return the distance of every point to the nearest of some lines [m].

    Args:
        points: (P, 2) [m].
        lines: (V, 2) vertices each [m], V >= 2; rings repeat their first one.

    Returns:
        (P,) distances to the nearest place on any line, vertices or not; infinity without lines.
    """
    places = np.asarray(points, dtype=np.float64)
    arrays = [np.asarray(line, dtype=np.float64) for line in lines]
    distances = np.full(len(places), np.inf)
    if not arrays:
        return distances
    starts = np.concatenate([line[:-1] for line in arrays])
    steps = np.concatenate([np.diff(line, axis=0) for line in arrays])
    squares = np.square(steps).sum(axis=1)
    squares[squares == 0.0] = np.inf
    for begin in range(0, len(places), _BLOCK):
        offsets = places[begin : begin + _BLOCK, None] - starts  # (P, S, 2)
        along = np.clip((offsets * steps).sum(axis=2) / squares, 0.0, 1.0)
        gaps = offsets - along[..., None] * steps
        distances[begin : begin + _BLOCK] = np.sqrt(np.square(gaps).sum(axis=2).min(axis=1))
    return distances


def moved_in_plane(dst_from_src: FloatArray, points: FloatArray) -> FloatArray:
    """Return (P, 2) points of the ground, moved by a (4, 4) transform and seen from above [m]."""
    return transform_points(dst_from_src, np.column_stack([points, np.zeros(len(points))]))[:, :2]


def inside_range(points: FloatArray, limits: PerceptionRange) -> npt.NDArray[np.bool_]:
    """Return (P,) bool: which (P, 2) points [m] lie in a range."""
    low, high = (limits.x_min, limits.y_min), (limits.x_max, limits.y_max)
    return np.asarray(((points >= low) & (points <= high)).all(axis=1))


class SceneSums:
    """Sums of numbers by category and scene.

    Args:
        shape: of the numbers.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._sums: dict[tuple[str, str], FloatArray] = {}

    def add(self, category: str, scene: str, values: npt.ArrayLike) -> None:
        """Add the numbers of one frame."""
        key = category, scene
        self._sums[key] = self._sums.get(key, np.zeros(self._shape)) + np.asarray(values)

    def merge(self, other: SceneSums) -> None:
        """Add everything of other sums of the same shape."""
        for (category, scene), values in other._sums.items():
            self.add(category, scene, values)

    def total(self, category: str, scene: str | None = None) -> FloatArray:
        """Return the sum over a scene; None: over all."""
        parts = [
            values
            for (name, where), values in self._sums.items()
            if name == category and scene in (None, where)
        ]
        return np.sum(parts, axis=0) if parts else np.zeros(self._shape)


def ratio(part: float, whole: float) -> float:
    """Return a quotient, NaN where there is nothing to divide by."""
    return float(part / whole) if whole > 0 else float('nan')


def mean_of_known(values: Sequence[float]) -> float:
    """Return the mean of the numbers that are not NaN; NaN if none is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float('nan')


def plain(value: float) -> float | None:
    """Return a number for JSON: None instead of NaN."""
    return None if np.isnan(value) else float(value)
