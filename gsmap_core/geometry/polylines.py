"""Lengths, resampling and clipping of polylines given as (P, 2) or (P, 3) arrays."""

import numpy as np
import numpy.typing as npt

from gsmap_core.errors import DataError
from gsmap_core.structures import FloatArray


def cumulative_length(vertices: npt.ArrayLike, dimensions: int | None = None) -> FloatArray:
    """Return the (P,) arc length from the first vertex [m].

    Args:
        vertices: (P, D) vertices [m].
        dimensions: measure along the first that many coordinates only; None: all D.
    """
    points = np.asarray(vertices, dtype=np.float64)[:, :dimensions]
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def resample_polyline(
    vertices: npt.ArrayLike, num_points: int, dimensions: int | None = None
) -> FloatArray:
    """Sample points evenly in arc length, both ends included.

    Args:
        vertices: (P, D) vertices in order, P >= 1; a ring must already repeat its first vertex at
            the end.
        num_points: number of samples, at least 1.
        dimensions: measure the arc along the first that many coordinates only; None: all D.

    Returns:
        (num_points, D) float64. A line of length zero gives its first vertex repeated.

    Raises:
        DataError: no vertices, or num_points < 1.
    """
    points = np.asarray(vertices, dtype=np.float64)
    if points.ndim != 2 or len(points) == 0:
        raise DataError(f'polyline has shape {points.shape}; expected (P, D) with P >= 1')
    if num_points < 1:
        raise DataError(f'cannot sample {num_points} points; expected at least 1')
    arc = cumulative_length(points, dimensions)
    targets = np.linspace(0.0, arc[-1], num_points)
    return np.stack(
        [np.interp(targets, arc, points[:, d]) for d in range(points.shape[1])], axis=1
    )


def polyline_length(vertices: npt.ArrayLike, closed: bool = False) -> float:
    """Return the length of a polyline [m]; a closed one includes the edge to its first vertex."""
    points = np.asarray(vertices, dtype=np.float64)
    if closed and len(points):
        points = np.concatenate([points, points[:1]])
    return float(cumulative_length(points)[-1]) if len(points) else 0.0
