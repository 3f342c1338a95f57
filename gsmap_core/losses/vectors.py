"""Losses on the points of matched pairs: distance, direction of the edges, smoothness."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from gsmap_core.config import ModelConfig
from gsmap_core.losses.matched import MatchedPredictions

#: Added to squared lengths of edges, so that an edge without length has a cosine of 0.
COSINE_EPS = 1e-12


def points_loss(matched: MatchedPredictions) -> Tensor:
    """Return (L,) absolute unit differences summed over pairs, points and coordinates."""
    return matched.per_layer((matched.points - matched.target_points).abs().sum(dim=(1, 2)))


def smooth_points_loss(matched: MatchedPredictions, beta: float) -> Tensor:
    """Return (L,) like `points_loss`, but quadratic below `beta` (unit coordinates).

    Source: InteractionMap, eq. 23 (smooth L1; beta: reference-models.md, 9.2).
    """
    loss = functional.smooth_l1_loss(
        matched.points, matched.target_points, reduction='none', beta=beta
    )
    return matched.per_layer(loss.sum(dim=(1, 2)))


def edge_cosine(edges: Tensor, target_edges: Tensor) -> Tensor:
    """Return (...,) the cosine between vectors (..., D); 0 where one of them has no length."""
    squared = edges.square().sum(-1) + COSINE_EPS
    target_squared = target_edges.square().sum(-1) + COSINE_EPS
    return (edges * target_edges).sum(-1) / (squared * target_squared).sqrt()


def direction_loss(matched: MatchedPredictions) -> Tensor:
    """Return (L,) 1 - cosine of predicted and true edges in metres, summed over all edges."""
    edges = matched.points.diff(dim=1) * matched.metres_per_unit
    target_edges = matched.target_points.diff(dim=1) * matched.metres_per_unit
    return matched.per_layer((1 - edge_cosine(edges, target_edges)).sum(dim=1))


def smoothness_loss(matched: MatchedPredictions) -> Tensor:
    """Return (L,) 1 - cosine of each predicted edge and the next in metres, summed over all.

    Needs no ground truth: it only asks for straight predictions.

    Source: MapVR, direction loss.
    """
    edges = matched.points.diff(dim=1) * matched.metres_per_unit
    return matched.per_layer((1 - edge_cosine(edges[:, 1:], edges[:, :-1])).sum(dim=1))


_DIRECTION_LOSSES: dict[str, Callable[[MatchedPredictions], Tensor]] = {
    'target': direction_loss,
    'smoothness': smoothness_loss,
}


def configured_points_loss(matched: MatchedPredictions, config: ModelConfig) -> Tensor:
    """Return (L,) the loss that `losses.points_kind` names."""
    if config.losses.points_kind == 'smooth_l1':
        return smooth_points_loss(matched, config.losses.points_beta)
    return points_loss(matched)


def configured_direction_loss(matched: MatchedPredictions, config: ModelConfig) -> Tensor:
    """Return (L,) the loss that `losses.direction_kind` names."""
    return _DIRECTION_LOSSES[config.losses.direction_kind](matched)
