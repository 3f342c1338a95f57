"""Lengths, resampling and clipping of polylines given as (P, 2) or (P, 3) arrays."""

from collections.abc import Sequence

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


def resample_polylines(
    lines: Sequence[npt.ArrayLike], num_points: int, dimensions: int | None = None
) -> FloatArray:
    """Sample many lines at once; to the last bit what `resample_polyline` gives for each.

    Args:
        lines: (P, D) vertices each, P >= 1 and different from line to line, D the same.
        num_points: number of samples of every line, at least 1.
        dimensions: measure the arc along the first that many coordinates only; None: all D.

    Returns:
        (M, num_points, D) float64; (0, num_points, 2) without a line.

    Raises:
        DataError: a line has no vertices or another D than the first, or num_points < 1.
    """
    arrays = [np.asarray(line, dtype=np.float64) for line in lines]
    if num_points < 1:
        raise DataError(f'cannot sample {num_points} points; expected at least 1')
    if not arrays:
        return np.zeros((0, num_points, 2))
    num_dims = arrays[0].shape[-1] if arrays[0].ndim else 0
    for points in arrays:
        if points.ndim != 2 or not len(points) or points.shape[1] != num_dims:
            raise DataError(
                f'polyline has shape {points.shape}; expected (P, {num_dims}) with P >= 1'
            )
    counts = np.array([len(points) for points in arrays])
    # Shorter lines repeat their last vertex; nothing lies beyond it.
    places = (np.cumsum(counts) - counts)[:, None] + np.minimum(
        np.arange(max(2, counts.max())), counts[:, None] - 1
    )
    vertices = np.concatenate(arrays).T[:, places]  # (D, M, P)
    edges = np.diff(vertices, axis=2)
    lengths = np.sqrt(sum(edge * edge for edge in edges[:dimensions]))
    arc = np.zeros(vertices.shape[1:])
    np.cumsum(lengths, axis=1, out=arc[:, 1:])
    targets = np.arange(num_points) * (arc[:, -1:] / max(num_points - 1, 1))  # (M, N)
    if num_points > 1:
        targets[:, -1] = arc[:, -1]
    segment = np.stack(
        [
            inner.searchsorted(values, side='right')
            for inner, values in zip(arc[:, 1:-1], targets, strict=True)
        ]
    )
    # An edge without length has no slope; it is only ever met at its first vertex.
    spans = np.diff(arc, axis=1)
    slopes = edges / np.where(spans == 0.0, np.inf, spans)
    segment += np.arange(len(arrays))[:, None] * lengths.shape[1]
    targets -= arc[:, :-1].ravel()[segment]
    sampled = np.empty((len(arrays), num_points, num_dims))
    for axis in range(num_dims):
        start = np.ascontiguousarray(vertices[axis, :, :-1]).ravel()
        sampled[..., axis] = slopes[axis].ravel()[segment] * targets + start[segment]
    # `np.interp` takes the last vertex itself, for a line without length everywhere.
    if num_points > 1:
        sampled[:, -1] = vertices[:, :, -1].T
    flat = arc[:, -1] == 0.0
    sampled[flat] = vertices[:, flat, -1].T[:, None]
    return sampled


def polyline_length(vertices: npt.ArrayLike, closed: bool = False) -> float:
    """Return the length of a polyline [m]; a closed one includes the edge to its first vertex."""
    points = np.asarray(vertices, dtype=np.float64)
    if closed and len(points):
        points = np.concatenate([points, points[:1]])
    return float(cumulative_length(points)[-1]) if len(points) else 0.0
