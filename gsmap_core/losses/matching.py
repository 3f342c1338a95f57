"""Which prediction learns which element: cost terms and the one-to-one assignment (as MapTR).

No gradient flows through anything here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gsmap_core.config import MatchingConfig
from gsmap_core.losses.alignment import GeometryScore, geometry_aware_focal_cost
from gsmap_core.losses.focal import focal_cost
from gsmap_core.losses.instance_masks import mask_cost
from gsmap_core.targets import MapTargets

#: Stands for a cost that is not a number: a diverged model must reach the trainer's guard.
_UNUSABLE_COST = 1e9
#: Unweighted (L, M, G) cost of one sample: points (L, M, P, 2 or 3), Gaussians (L, M, P, D) or
#: None, index of the sample.
RasterCost = Callable[[Tensor, Tensor | None, int], Tensor]


@dataclass(frozen=True)
class Assignment:
    """T matched pairs of a batch over all decoder layers.

    Args:
        layer: (T,) int64 decoder layer.
        sample: (T,) int64 index in the batch.
        query: (T,) int64 index of the prediction.
        element: (T,) int64 index of the element in its sample's targets.
        order: (T,) int64 index of its nearest allowed order.
    """

    layer: Tensor
    sample: Tensor
    query: Tensor
    element: Tensor
    order: Tensor

    def __len__(self) -> int:
        """Return the number of pairs T."""
        return len(self.layer)


def point_cost(points: Tensor, targets: MapTargets) -> tuple[Tensor, Tensor]:
    """Return the least sum of absolute coordinate differences over the allowed orders, unweighted.

    Args:
        points: (..., P, 2 or 3) predicted unit coordinates.
        targets: G elements with P points.

    Returns:
        cost (..., G) and the order that gives it (..., G) int64.
    """
    # Only real orders are compared (a line has 2, a ring up to 19), then spread over (G, R).
    rows, first = targets.real_orders()
    flat = torch.cdist(points.flatten(-2).flatten(0, -2), rows.flatten(1), p=1)
    offsets = torch.arange(targets.orders.shape[1], device=points.device)
    gather = first[:, None] + torch.where(offsets < targets.num_orders[:, None], offsets, 0)
    cost, order = flat[:, gather].min(dim=-1)
    return cost.unflatten(0, points.shape[:-2]), order.unflatten(0, points.shape[:-2])


def match_cost(
    logits: Tensor,
    points: Tensor,
    targets: MapTargets,
    weights: MatchingConfig,
    score: GeometryScore | None = None,
    masks: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the full matching cost of one sample, but for the raster cost.

    Args:
        logits: (L, M, K).
        points: (L, M, P, 2 or 3) unit coordinates.
        targets: the sample's G >= 1 elements.
        weights: of the cost terms.
        score: rates pairs, for geometry-aware costs.
        masks: logits of the instance masks of the last L' layers, (L', M, H, W), and the masks of
            the elements, (G, H, W); None: no such term.

    Returns:
        cost (L, M, G) and nearest order (L, M, G) int64.
    """
    nearest, order = point_cost(points, targets)
    scores = None
    if weights.is_geometry_aware:
        assert score is not None  # The criterion gives one.
        scores = score.of_all(points, targets, order)
    if weights.classification_kind == 'focal':
        by_class = focal_cost(logits, targets.labels)
    else:
        assert score is not None and scores is not None
        by_class = geometry_aware_focal_cost(logits, targets.labels, scores, score.config)
    cost = weights.classification * by_class + weights.points * nearest
    if masks is not None:
        assert score is not None
        first = len(points) - len(masks[0])
        some = None if scores is None else scores[first:]
        cost[first:] += mask_cost(*masks, some, weights, score.config)
    return cost, order


@torch.no_grad()
def match(
    logits: Tensor,
    points: Tensor,
    targets: Sequence[MapTargets],
    weights: MatchingConfig,
    copies: int = 1,
    gaussians: Tensor | None = None,
    raster: RasterCost | None = None,
    score: GeometryScore | None = None,
    masks: tuple[Tensor, Sequence[Tensor]] | None = None,
) -> Assignment:
    """Assign predictions to elements one-to-one with the least total cost, per layer and sample.

    Args:
        logits: (L, B, M, K) class logits.
        points: (L, B, M, P, 2 or 3) unit coordinates.
        targets: B samples, possibly without elements.
        weights: of the cost terms.
        copies: every element may be taken this often (one-to-many training).
        gaussians: (L, B, M, P, D) parameters of the Gaussians beside their centres, or None.
        raster: compares rendered masks, with the weight `weights.raster`; None: no such term.
        score: rates pairs, for geometry-aware costs.
        masks: logits of the instance masks, (L', B, M, H, W), and those of the elements of every
            sample, see `match_cost`; None: no such term.

    Returns:
        min(M, G * copies) pairs per layer and sample, sorted by sample, layer, query.
    """
    logits, points = logits.detach().float(), points.detach().float()
    costs: list[Tensor] = []
    orders: list[Tensor] = []
    for index, sample in enumerate(targets):
        if len(sample):
            mask = None if masks is None else (masks[0][:, index].detach(), masks[1][index])
            cost, order = match_cost(
                logits[:, index], points[:, index], sample, weights, score, mask
            )
            if raster is not None:
                shapes = None if gaussians is None else gaussians[:, index].detach()
                cost = cost + weights.raster * raster(points[:, index], shapes, index)
            costs.append(cost.flatten())
            orders.append(order.flatten())
    device, (num_layers, _, num_queries) = logits.device, logits.shape[:3]
    if not costs:
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return Assignment(empty, empty, empty, empty, empty)
    # One transfer each for the whole batch, because every transfer waits for the device.
    flat_cost = torch.nan_to_num(torch.cat(costs), _UNUSABLE_COST, _UNUSABLE_COST, -_UNUSABLE_COST)
    all_costs, all_orders = flat_cost.cpu().numpy(), torch.cat(orders).cpu().numpy()
    rows: list[np.ndarray] = []
    position = 0
    for index, sample in enumerate(targets):
        num_elements = len(sample)
        for layer in range(num_layers if num_elements else 0):
            end = position + num_queries * num_elements
            matrix = all_costs[position:end].reshape(num_queries, num_elements)
            order_matrix = all_orders[position:end].reshape(num_queries, num_elements)
            position = end
            query, column = linear_sum_assignment(np.tile(matrix, (1, copies)))
            element = column % num_elements
            pairs = np.empty((5, len(query)), dtype=np.int64)
            pairs[0], pairs[1], pairs[2] = layer, index, query
            pairs[3], pairs[4] = element, order_matrix[query, element]
            rows.append(pairs)
    table = torch.from_numpy(np.concatenate(rows, axis=1)).to(device)
    return Assignment(*table)
