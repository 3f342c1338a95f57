"""Geometry-aware alignment: a category's probability learns how well its element is located.

A score in [0, 1] tells how well a prediction lies on an element (eq. 16 to 18). The
geometry-aware focal loss pulls the probability of a matched prediction towards its score instead
of towards 1 (eq. 15); the geometry-aware focal cost judges every pair by its own score (eq. 19).

The score looks at x and y of the points. Heights are left out: eq. 16 is normalised for two
coordinates, and a unit of height is some other number of metres than a unit along the ground.
Gaussians are scored by their centres. No gradient flows through a score.

Source: InteractionMap, sec. 3.3; what it leaves open: reference-models.md, 9.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gsmap_core.config import AlignmentConfig
from gsmap_core.losses.matched import MatchedPredictions
from gsmap_core.losses.vectors import COSINE_EPS
from gsmap_core.targets import MapTargets

#: Enclosing boxes reach this far beyond their points, so that a straight line along an axis has
#: an area too [units of the range].
BOX_MARGIN = 1e-4


def points_score(points: Tensor, targets: Tensor) -> Tensor:
    """Return (..., N, V) s_p2p of predictions and elements: 1 is a perfect fit.

    Args:
        points: (..., N, P, 2) predicted unit coordinates.
        targets: (..., V, P, 2) unit coordinates of elements, in the order to compare.

    Source: InteractionMap, eq. 16.
    """
    manhattan = torch.cdist(points.flatten(-2), targets.flatten(-2), p=1)
    return 1 - manhattan / (2 * points.shape[-2])


def direction_score(points: Tensor, targets: Tensor) -> Tensor:
    """Return (..., N, V) s_dir of predictions and elements: 1 where all edges point the same way.

    A sum of cosines is one product of unit vectors, so pairs need no memory of their own.

    Args:
        points: (..., N, P, 2) predicted coordinates [m]: units would distort angles.
        targets: (..., V, P, 2) coordinates of elements [m].

    Source: InteractionMap, eq. 17.
    """
    cosines = _unit_edges(points).flatten(-2) @ _unit_edges(targets).flatten(-2).mT
    return 0.5 + cosines / (2 * (points.shape[-2] - 1))


def _unit_edges(points: Tensor) -> Tensor:
    """Return (..., P - 1, 2) directions of the edges; 0 where an edge has no length."""
    edges = points.diff(dim=-2)
    return edges / (edges.square().sum(-1, keepdim=True) + COSINE_EPS).sqrt()


def giou_score(points: Tensor, targets: Tensor) -> Tensor:
    """Return (..., N, V) s_giou of the boxes around predictions and elements.

    Args:
        points: (..., N, P, 2) predicted unit coordinates.
        targets: (..., V, P, 2) unit coordinates of elements.

    Source: InteractionMap, eq. 18.
    """
    low, high = (box.unsqueeze(-2) for box in _enclosing_box(points))
    target_low, target_high = (box.unsqueeze(-3) for box in _enclosing_box(targets))
    shared = (high.minimum(target_high) - low.maximum(target_low)).clamp(min=0).prod(-1)
    union = (high - low).prod(-1) + (target_high - target_low).prod(-1) - shared
    around = (high.maximum(target_high) - low.minimum(target_low)).prod(-1)
    giou = shared / union - (around - union) / around
    return 0.5 + 0.5 * giou


def _enclosing_box(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (..., 2) lower and upper corners of the boxes around (..., P, 2) points."""
    return points.amin(-2) - BOX_MARGIN, points.amax(-2) + BOX_MARGIN


_COMBINATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'product': lambda scores: scores.prod(0),
    'mean': lambda scores: scores.mean(0),
    'geometric_mean': lambda scores: scores.prod(0) ** (1 / len(scores)),
}


@dataclass(frozen=True)
class GeometryScore:
    """The geometry-aware score s_geo (eq. 16 to 18), combined as configured.

    Args:
        config: terms and their combination.
        metres_per_unit: (2 or 3,) metres per unit of u, of v and of height.
    """

    config: AlignmentConfig
    metres_per_unit: Tensor

    @torch.no_grad()
    def of_all(self, points: Tensor, targets: MapTargets, order: Tensor) -> Tensor:
        """Score every prediction with every element of a sample.

        Args:
            points: (..., M, P, 2 or 3) unit coordinates.
            targets: G >= 1 elements with P points.
            order: (..., M, G) int64, the allowed order that each pair is compared in.

        Returns:
            (..., M, G) in [0, 1], without gradient.
        """
        rows, first = targets.real_orders()
        scores = self._combined(points.flatten(0, -3), rows)
        chosen = scores.gather(1, (first + order).flatten(0, -2))
        return chosen.unflatten(0, points.shape[:-2])

    @torch.no_grad()
    def of_pairs(self, points: Tensor, target_points: Tensor) -> Tensor:
        """Return (T,) scores of predictions (T, P, 2 or 3) with the elements beside them."""
        return self._combined(points[:, None], target_points[:, None])[:, 0, 0]

    def _combined(self, points: Tensor, targets: Tensor) -> Tensor:
        """Return (..., N, V) scores of points (..., N, P, D) and targets (..., V, P, D)."""
        points, targets = points[..., :2], targets[..., :2]
        metres = self.metres_per_unit[:2].to(points)
        scores = []
        for term in self.config.terms:
            if term == 'points':
                scores.append(points_score(points, targets))
            elif term == 'direction':
                scores.append(direction_score(points * metres, targets * metres))
            else:
                scores.append(giou_score(points, targets))
        # Rounding must not carry a target of the cross-entropy out of [0, 1].
        return _COMBINATIONS[self.config.combination](torch.stack(scores).clamp(0, 1))


def geometry_aware_focal_loss(
    logits: Tensor, is_positive: Tensor, scores: Tensor, config: AlignmentConfig
) -> Tensor:
    """Return the element-wise geometry-aware focal loss, unreduced.

    A positive has s * BCE(s, p), a negative alpha * p^gamma * BCE(0, p).

    Args:
        logits: (...) of the probabilities p.
        is_positive: (...) bool.
        scores: s of the positives in [0, 1], broadcast over (...); elsewhere not looked at.
        config: alpha and gamma.

    Source: InteractionMap, eq. 15; for the pixels of masks, the same (sec. 3.4).
    """
    cross_entropy = functional.softplus(logits)
    # BCE(s, p) = -s ln p - (1 - s) ln(1 - p) = -ln(1 - p) - s * logit.
    positive = scores * (cross_entropy - scores * logits)
    negative = config.alpha * logits.sigmoid().pow(config.gamma) * cross_entropy
    return torch.where(is_positive, positive, negative)


def geometry_aware_focal_cost(
    logits: Tensor, labels: Tensor, scores: Tensor, config: AlignmentConfig
) -> Tensor:
    """Return the cost of giving each prediction to each element, from category and geometry.

    Args:
        logits: (..., M, K).
        labels: (G,) int64 category index of each element.
        scores: (..., M, G) s of every pair.
        config: alpha and gamma.

    Returns:
        (..., M, G): s * BCE(s, p) - alpha * p^gamma * BCE(0, p), the loss of the element's
        category as a positive minus that as a negative.

    Source: InteractionMap, eq. 19.
    """
    chosen = logits[..., labels]
    cross_entropy = functional.softplus(chosen)
    negative = config.alpha * chosen.sigmoid().pow(config.gamma) * cross_entropy
    return scores * (cross_entropy - scores * chosen) - negative


def geometry_aware_classification_loss(
    matched: MatchedPredictions, config: AlignmentConfig
) -> Tensor:
    """Return (L,) geometry-aware focal losses summed over queries and categories.

    Source: InteractionMap, eq. 15.
    """
    assert matched.class_scores is not None  # The criterion scores what this loss is given.
    is_positive = matched.class_targets > 0
    loss = geometry_aware_focal_loss(
        matched.class_logits, is_positive, matched.class_scores, config
    )
    if config.negatives == 'unmatched':
        free = ~is_positive.any(-1, keepdim=True)
        loss = torch.where(is_positive | free, loss, 0.0)
    return loss.sum(dim=(1, 2, 3))
