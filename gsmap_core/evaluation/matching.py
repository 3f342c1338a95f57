"""Distances between sampled lines, matching of one frame, area under a precision-recall curve.

Plain arrays in and out; which numbers of points, gate and thresholds belong to which published
evaluator is decided in `chamfer`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gsmap_core.evaluation.gate import SURE_SHARE, bands_touch, courses
from gsmap_core.geometry.polylines import resample_polylines
from gsmap_core.structures import FloatArray

BoolArray = npt.NDArray[np.bool_]
#: Lower bounds are compared with this slack, so that rounding never drops a pair that the exact
#: distance would keep [m].
_BOUND_SLACK_M = 1e-6
#: Point pairs handled at once: a block of distances stays in the processor's cache.
_MAX_BLOCK = 60_000


def sample_lines(lines: Sequence[npt.ArrayLike], num_points: int, num_dims: int = 2) -> FloatArray:
    """Resample lines evenly in arc length, both ends included.

    Args:
        lines: (V, D) vertices each, V >= 1 [m]; rings repeat their first vertex at the end. The
            arc is measured in the plane, as the published evaluators do.
        num_points: samples per line.
        num_dims: D, 2 or 3.

    Returns:
        (M, num_points, D) float64 [m].
    """
    if not len(lines):
        return np.zeros((0, num_points, num_dims))
    return resample_polylines(lines, num_points, 2)


def chamfer_distances(
    predictions: FloatArray,
    ground_truth: FloatArray,
    *,
    gate_m: float | None = None,
    max_distance_m: float = np.inf,
    allowed: BoolArray | None = None,
) -> FloatArray:
    """Return the chamfer distance of every pair of sampled lines [m].

    Args:
        predictions: (M, S, D) sampled lines [m], D is 2 or 3.
        ground_truth: (G, S, D) sampled lines [m].
        gate_m: pairs whose lines, seen from above and widened to bands of this half width (flat
            ends, mitred corners), do not touch are infinitely far apart; a line without length has
            no band. None: no gate.
        max_distance_m: distances above this need not be known and are returned as infinity; the
            cheap lower bounds and the gate then touch only the pairs they can matter for.
        allowed: (M, G) pairs that are wanted, the others are infinitely far apart; None: all.

    Returns:
        (M, G) float64, infinity for a gated pair.
    """
    distances = np.full((len(predictions), len(ground_truth)), np.inf)
    if not distances.size:
        return distances
    # Coordinates first: (D, M, S), so that everything below runs over contiguous samples.
    first, second = (np.moveaxis(lines, -1, 0).copy() for lines in (predictions, ground_truth))
    wanted = np.ones(distances.shape, dtype=bool) if allowed is None else allowed
    if np.isfinite(max_distance_m):
        # Seen from above nothing is farther apart.
        limit_m = max_distance_m + _BOUND_SLACK_M
        rows, columns = _within_bounds(first[:2], second[:2], limit_m, wanted)
    else:
        rows, columns = np.nonzero(wanted)
    # Heights move the nearest point, so that a touch seen in space says nothing about the plane.
    is_planar = gate_m is not None and len(first) == 2
    if is_planar:
        even_first, long_first = courses(first)
        even_second, long_second = courses(second)
    values, touches = np.empty(len(rows)), np.zeros(len(rows), dtype=bool)
    block = max(1, _MAX_BLOCK // (first.shape[2] * second.shape[2]))
    space = np.empty((2, min(block, len(rows)), first.shape[2], second.shape[2]))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        row, column = rows[part], columns[part]
        squared = _squared_distances(first[:, row], second[:, column], space)
        to_second, ends_of_second = _nearest(squared, 2)
        to_first, ends_of_first = _nearest(squared, 1)
        values[part] = (_mean_root(to_second) + _mean_root(to_first)) / 2
        if gate_m is not None and is_planar:
            limit = (SURE_SHARE * gate_m) ** 2
            in_second = ((to_second < ends_of_second) & (to_second <= limit)).any(axis=1)
            in_first = ((to_first < ends_of_first) & (to_first <= limit)).any(axis=1)
            touches[part] = in_second & even_second[column] & long_first[row]
            touches[part] |= in_first & even_first[row] & long_second[column]
    values[values > max_distance_m] = np.inf
    distances[rows, columns] = values
    if gate_m is not None:
        open_pairs = np.isfinite(values) & ~touches
        rows, columns = rows[open_pairs], columns[open_pairs]
        apart = ~bands_touch(predictions[..., :2], ground_truth[..., :2], rows, columns, gate_m)
        distances[rows[apart], columns[apart]] = np.inf
    return distances


def _squared_distances(first: FloatArray, second: FloatArray, space: FloatArray) -> FloatArray:
    """Return (K, S, S) squared distances of the points of K pairs of lines (D, K, S).

    They are written into `space` (2, at least K, S, S); fresh memory would take longer to get than
    the distances to calculate.
    """
    squared, delta = space[:, : first.shape[1]]
    for axis, (one, other) in enumerate(zip(first, second, strict=True)):
        target = delta if axis else squared
        np.subtract(one[:, :, None], other[:, None, :], out=target)
        target *= target
        if axis:
            squared += delta
    return squared


def _nearest(squared: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
    """Return the (K, S) least values along an axis, and the least of its two end points."""
    ends = np.minimum(squared.take(0, axis), squared.take(-1, axis))
    return squared.min(axis=axis), ends


def _mean_root(squared: FloatArray) -> FloatArray:
    """Return the (K,) means of the roots of (K, S) numbers."""
    # As `mean` does it, without its overhead.
    return np.asarray(np.add.reduce(np.sqrt(squared), axis=1) / squared.shape[1])


def _within_bounds(
    first: FloatArray, second: FloatArray, limit_m: float, wanted: BoolArray
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the pairs that may be within a distance: first by boxes, then by points to boxes.

    Args:
        first: (2, M, S) points [m].
        second: (2, G, S) points [m].
        limit_m: chamfer distance [m].
        wanted: (M, G) pairs to look at.
    """
    low, high = first.min(axis=2), first.max(axis=2)
    other_low, other_high = second.min(axis=2), second.max(axis=2)
    # (2, M, G): how far the boxes are apart along each axis.
    apart = np.maximum(
        low[:, :, None] - other_high[:, None, :], other_low[:, None, :] - high[:, :, None]
    )
    rows, columns = np.nonzero((apart[0] <= limit_m) & (apart[1] <= limit_m) & wanted)

    def to_boxes(points: FloatArray, lowest: FloatArray, highest: FloatArray) -> FloatArray:
        outside = np.maximum(lowest[..., None] - points, points - highest[..., None])
        np.maximum(outside, 0.0, out=outside)
        outside *= outside
        return _mean_root(outside[0] + outside[1])

    bound = to_boxes(first[:, rows], other_low[:, columns], other_high[:, columns])
    bound += to_boxes(second[:, columns], low[:, rows], high[:, rows])
    kept = bound / 2 <= limit_m
    return rows[kept], columns[kept]


def match_predictions(
    distances: FloatArray, scores: npt.ArrayLike, thresholds_m: Sequence[float]
) -> BoolArray:
    """Decide which predictions of one frame and category are true positives.

    Args:
        distances: (M, G) chamfer distances [m], infinity where a pair is ruled out.
        scores: (M,) confidences; equal ones keep their order.
        thresholds_m: T distances up to which (inclusive) a match is right [m].

    Returns:
        (T, M) bool. Each prediction considers only its nearest ground truth (the first one of
        equals), and is wrong if that one was taken by a prediction with a higher score.
    """
    result = np.zeros((len(thresholds_m), distances.shape[0]), dtype=bool)
    if not distances.size:
        return result
    nearest = distances.argmin(axis=1)
    least = distances.min(axis=1)
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind='stable')
    for row, threshold in zip(result, thresholds_m, strict=True):
        candidates = order[least[order] <= threshold]
        # The first in score order to reach a ground truth takes it.
        _, first = np.unique(nearest[candidates], return_index=True)
        row[candidates[first]] = True
    return result


def pool_by_score(
    scores: Sequence[FloatArray], true_positives: Sequence[BoolArray], num_thresholds: int
) -> BoolArray:
    """Return (T, M) matches of all frames in falling score order; equal scores keep their order.

    Args:
        scores: per frame (m,) confidences.
        true_positives: per frame (T, m).
        num_thresholds: T.
    """
    empty = np.zeros((num_thresholds, 0), dtype=bool)
    flags = np.concatenate([empty, *true_positives], axis=1)
    return flags[:, np.argsort(-np.concatenate([np.zeros(0), *scores]), kind='stable')]


def average_precision(
    true_positives: npt.ArrayLike, num_ground_truth: int
) -> tuple[float, FloatArray, FloatArray]:
    """Return the area under the precision envelope, and the curve it comes from.

    Args:
        true_positives: (M,) bool in falling score order.
        num_ground_truth: elements that could have been found.

    Returns:
        AP (0 where there is no ground truth or no prediction), (M,) recall, (M,) precision.
    """
    hits = np.cumsum(np.asarray(true_positives, dtype=np.float64))
    ranks = np.arange(1, len(hits) + 1)
    precision = hits / ranks if len(hits) else hits
    if num_ground_truth == 0 or not len(hits):
        return 0.0, np.zeros(len(hits)), precision
    recall = hits / num_ground_truth
    steps = np.diff(np.concatenate([[0.0], recall]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(steps * envelope)), recall, precision
