"""Distances between sampled lines, matching of one frame, area under a precision-recall curve.

Plain arrays in and out; which numbers of points, gate and thresholds belong to which published
evaluator is decided in `chamfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gsmap_core.geometry.polylines import resample_polyline
from gsmap_core.structures import FloatArray

BoolArray = npt.NDArray[np.bool_]
#: Lower bounds are compared with this slack, so that rounding never drops a pair that the exact
#: distance would keep [m].
_BOUND_SLACK_M = 1e-6
#: Point pairs handled at once; bounds the memory of a distance block to some 50 MB.
_MAX_BLOCK = 2_000_000


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
    return np.stack([resample_polyline(line, num_points, 2) for line in lines])


def chamfer_distances(
    predictions: FloatArray,
    ground_truth: FloatArray,
    *,
    gate_m: float | None = None,
    max_distance_m: float = np.inf,
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

    Returns:
        (M, G) float64, infinity for a gated pair.
    """
    distances = np.full((len(predictions), len(ground_truth)), np.inf)
    if not distances.size:
        return distances
    if np.isfinite(max_distance_m):
        # Seen from above nothing is farther apart.
        bound = _lower_bounds(predictions[..., :2], ground_truth[..., :2])
        rows, columns = np.nonzero(bound <= max_distance_m + _BOUND_SLACK_M)
    else:
        rows, columns = (index.ravel() for index in np.indices(distances.shape))
    block = max(1, _MAX_BLOCK // (predictions.shape[1] * ground_truth.shape[1]))
    for start in range(0, len(rows), block):
        row, column = rows[start : start + block], columns[start : start + block]
        distances[row, column] = _paired_distances(predictions[row], ground_truth[column])
    distances[distances > max_distance_m] = np.inf
    if gate_m is not None:
        _apply_gate(distances, predictions[..., :2], ground_truth[..., :2], gate_m)
    return distances


def _paired_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the (K,) chamfer distances of K pairs of lines (K, S, D)."""
    squared = np.zeros((len(first), first.shape[1], second.shape[1]))
    for axis in range(first.shape[2]):
        delta = first[:, :, None, axis] - second[:, None, :, axis]
        squared += delta * delta
    forward = np.sqrt(squared.min(axis=2)).mean(axis=1)
    backward = np.sqrt(squared.min(axis=1)).mean(axis=1)
    return (forward + backward) / 2


def _lower_bounds(predictions: FloatArray, ground_truth: FloatArray) -> FloatArray:
    """Return (M, G) lower bounds: mean distance of one line's points to the other's box."""

    def to_boxes(points: FloatArray, lines: FloatArray) -> FloatArray:
        lower, upper = lines.min(axis=1), lines.max(axis=1)  # (G, 2)
        outside = np.maximum(lower[None, :, None] - points[:, None], 0.0)
        outside = np.maximum(outside, points[:, None] - upper[None, :, None])  # (M, G, S, 2)
        return np.hypot(outside[..., 0], outside[..., 1]).mean(axis=2)

    return (to_boxes(predictions, ground_truth) + to_boxes(ground_truth, predictions).T) / 2


def _apply_gate(
    distances: FloatArray, predictions: FloatArray, ground_truth: FloatArray, gate_m: float
) -> None:
    """Set pairs whose bands do not touch to infinity, in place."""
    rows, columns = np.nonzero(np.isfinite(distances))
    if not len(rows):
        return
    bands: list[Any] = []
    for lines, used in ((predictions, rows), (ground_truth, columns)):
        made = np.full(len(lines), None, dtype=object)
        wanted = np.unique(used)
        made[wanted] = shapely.buffer(
            shapely.linestrings(lines[wanted]),
            gate_m,
            cap_style='flat',
            join_style='mitre',
            mitre_limit=5.0,
        )
        bands.append(made)
    touching = shapely.intersects(bands[0][rows], bands[1][columns])
    distances[rows[~touching], columns[~touching]] = np.inf


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
