"""Matched predictions beside their elements: what every per-layer loss works on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MatchedMasks:
    """Masks of T' of the T matched pairs: those of the decoder layers that predict masks.

    Args:
        pair: (T',) int64 index of the pair.
        logits: (T', H, W) predicted.
        truth: (T', H, W) float, 1 on the element.
    """

    pair: Tensor
    logits: Tensor
    truth: Tensor


@dataclass(frozen=True)
class MatchedPredictions:
    """One group of queries with its T matched pairs over all layers, E elements in the batch.

    Args:
        class_logits: (L, B, M, K) of all queries.
        class_targets: (L, B, M, K) float, 1 at the class of a matched query.
        layer: (T,) int64 layer of each matched pair.
        points: (T, P, 2 or 3) predicted unit coordinates of the matched queries.
        target_points: (T, P, 2 or 3) unit coordinates of their elements, in the nearest order.
        metres_per_unit: (2 or 3,) metres per unit of u, of v and of height.
        element: (T,) int64 index of each pair's element, 0 to E - 1.
        element_labels: (E,) int64 category index.
        element_points: (E, P, 2 or 3) unit coordinates in the order of the ground truth.
        all_points: (L, B, M, P, 2 or 3) unit coordinates of all queries.
        gaussians: (T, P, D) parameters of the Gaussians of the matched queries beside their
            centres; None without Gaussians.
        all_gaussians: (L, B, M, P, D) those of all queries, or None.
        scores: (T,) how well each prediction lies on its element, 0 to 1; None where no loss asks.
        class_scores: (L, B, M, K) the score at the class of a matched query, 0 elsewhere; or None.
        masks: of the pairs; None without instance masks.
    """

    class_logits: Tensor
    class_targets: Tensor
    layer: Tensor
    points: Tensor
    target_points: Tensor
    metres_per_unit: Tensor
    element: Tensor
    element_labels: Tensor
    element_points: Tensor
    all_points: Tensor
    gaussians: Tensor | None = None
    all_gaussians: Tensor | None = None
    scores: Tensor | None = None
    class_scores: Tensor | None = None
    masks: MatchedMasks | None = None

    def per_layer(self, values: Tensor) -> Tensor:
        """Sum (T,) values of matched pairs into (L,)."""
        return values.new_zeros(len(self.class_logits)).index_add(0, self.layer, values)
