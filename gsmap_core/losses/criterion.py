"""The training objective: a table of named losses over all decoder layers.

Formulas and weights are those of MapTR and MapTRv2. A method adds a loss by adding one entry to
`_LAYER_LOSSES` (or a dense one to `Criterion._dense_losses`) and a weight to `LossConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.errors import DataError
from gsmap_core.losses.dense import bev_segmentation_loss, depth_loss, pv_segmentation_loss
from gsmap_core.losses.focal import focal_loss
from gsmap_core.losses.matched import MatchedPredictions
from gsmap_core.losses.matching import Assignment, match
from gsmap_core.losses.raster import raster_cost, raster_loss, renderer_of
from gsmap_core.targets import MapTargets

if TYPE_CHECKING:
    from gsmap_core.models.outputs import GaussianShapes, MapperOutput

_COSINE_EPS = 1e-12


def classification_loss(matched: MatchedPredictions) -> Tensor:
    """Return (L,) focal losses summed over queries and classes; unmatched queries are negative."""
    return focal_loss(matched.class_logits, matched.class_targets).sum(dim=(1, 2, 3))


def points_loss(matched: MatchedPredictions) -> Tensor:
    """Return (L,) absolute unit differences summed over pairs, points and coordinates."""
    return matched.per_layer((matched.points - matched.target_points).abs().sum(dim=(1, 2)))


def edge_cosine(edges: Tensor, target_edges: Tensor) -> Tensor:
    """Return (...,) the cosine between vectors (..., D); 0 where one of them has no length."""
    squared = edges.square().sum(-1) + _COSINE_EPS
    target_squared = target_edges.square().sum(-1) + _COSINE_EPS
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
_LAYER_LOSSES: dict[str, Callable[[MatchedPredictions, ModelConfig], Tensor]] = {
    'classification': lambda matched, _: classification_loss(matched),
    'points': lambda matched, _: points_loss(matched),
    'direction': lambda matched, config: _DIRECTION_LOSSES[config.losses.direction_kind](matched),
    'raster': raster_loss,
}


def mean_over_processes(value: float, device: torch.device) -> float:
    """Return a number averaged over all training processes (itself when there is one)."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return float(total) / torch.distributed.get_world_size()


def _packed(gaussians: GaussianShapes | None) -> Tensor | None:
    return None if gaussians is None else gaussians.packed()


class Criterion(nn.Module):
    """Weighted, named losses of a batch; their sum is what is minimised.

    Args:
        config: gives the weights (`losses`, `matching`), the categories and the grid.

    Raises:
        ConfigError: a raster loss or cost is asked for and the representation cannot be rendered.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.matching.raster or config.losses.raster:
            renderer_of(config)
        extent = [*config.grid.unit_extent_m(), config.grid.height_extent_m]
        self.register_buffer(
            'metres_per_unit', torch.tensor(extent[: config.decoder.num_dims]), persistent=False
        )

    def forward(self, output: MapperOutput, targets: Sequence[MapTargets]) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            output: of `OnlineMapper` in training mode.
            targets: one per sample, on the device of the output.

        Returns:
            Scalars, already weighted, by name: `classification`, `points`, `direction`,
            `raster` of the last decoder layer, `d0.classification` and so on of the earlier
            ones, the same with the ending `_one_to_many`, and `bev_segmentation`,
            `pv_segmentation`, `depth`. Losses with weight 0 are left out.

        Raises:
            DataError: a loss has a weight and the targets have nothing for it.
        """
        with torch.autocast(output.class_logits.device.type, enabled=False):
            losses = self._layer_losses(
                output.class_logits, output.points, targets, 1, _packed(output.gaussians)
            )
            if output.one_to_many is not None and self.config.losses.one_to_many:
                logits, points = output.one_to_many
                copies = self.config.decoder.one_to_many_copies
                factor = self.config.losses.one_to_many
                raster = self.config.losses.raster_options.one_to_many
                gaussians = _packed(output.one_to_many_gaussians) if raster else None
                many = self._layer_losses(logits, points, targets, copies, gaussians, raster)
                losses |= {f'{name}_one_to_many': factor * loss for name, loss in many.items()}
            losses |= self._dense_losses(output, targets)
        return losses

    def _layer_losses(
        self,
        logits: Tensor,
        points: Tensor,
        targets: Sequence[MapTargets],
        copies: int,
        gaussians: Tensor | None = None,
        raster: bool = True,
    ) -> dict[str, Tensor]:
        """Match one group of queries and compute its losses, all layers at once.

        Args:
            logits: (L, B, M, K) class logits.
            points: (L, B, M, P, 2 or 3) unit coordinates.
            targets: B samples.
            copies: how often every element is matched.
            gaussians: (L, B, M, P, D) parameters beside the centres, or None.
            raster: whether this group has a raster cost and loss.
        """
        logits, points = logits.float(), points.float()
        gaussians = None if gaussians is None else gaussians.float()
        cost = None
        if raster and self.config.matching.raster:
            cost = partial(raster_cost, config=self.config)
        assignment = match(logits, points, targets, self.config.matching, copies, gaussians, cost)
        matched = self._matched(logits, points, targets, assignment, gaussians)
        num_layers = len(logits)
        # Every layer matches equally many, so one normaliser serves all of them.
        count = mean_over_processes(len(assignment) / num_layers, logits.device)
        losses: dict[str, Tensor] = {}
        for name, function in _LAYER_LOSSES.items():
            weight = getattr(self.config.losses, name)
            if not weight or (name == 'raster' and not raster):
                continue
            per_layer = function(matched, self.config) * (weight / max(count, 1.0))
            for layer in range(num_layers):
                prefix = '' if layer == num_layers - 1 else f'd{layer}.'
                losses[prefix + name] = per_layer[layer]
        return losses

    def _matched(
        self,
        logits: Tensor,
        points: Tensor,
        targets: Sequence[MapTargets],
        pairs: Assignment,
        gaussians: Tensor | None,
    ) -> MatchedPredictions:
        class_targets = torch.zeros_like(logits)
        # Elements of the batch in one row, so that all pairs are gathered at once; the orders are
        # flattened because their number differs from sample to sample.
        device = logits.device
        sizes = torch.tensor([0] + [len(t) for t in targets[:-1]]).cumsum(0).to(device)
        labels = torch.cat([t.labels for t in targets])
        flat_orders = torch.cat([t.orders.flatten(0, 1) for t in targets])
        order_sizes = torch.tensor([0] + [t.orders.shape[:2].numel() for t in targets[:-1]])
        orders_per_element = torch.tensor([t.orders.shape[1] for t in targets]).to(device)
        element = sizes[pairs.sample] + pairs.element
        chosen = (pairs.layer, pairs.sample, pairs.query)
        class_targets[(*chosen, labels[element])] = 1.0
        row = order_sizes.cumsum(0).to(device)[pairs.sample]
        row = row + pairs.element * orders_per_element[pairs.sample] + pairs.order
        return MatchedPredictions(
            class_logits=logits,
            class_targets=class_targets,
            layer=pairs.layer,
            points=points[chosen],
            target_points=flat_orders[row],
            metres_per_unit=self.get_buffer('metres_per_unit'),
            element=element,
            element_labels=labels,
            element_points=torch.cat([t.points for t in targets]),
            all_points=points,
            gaussians=None if gaussians is None else gaussians[chosen],
            all_gaussians=gaussians,
        )

    def _dense_losses(
        self, output: MapperOutput, targets: Sequence[MapTargets]
    ) -> dict[str, Tensor]:
        """Return the losses on maps of cells; they have no layers and no matching."""
        weights, losses = self.config.losses, {}
        if weights.bev_segmentation and output.bev_mask_logits is not None:
            masks = torch.stack([target.bev_mask for target in targets])
            loss = bev_segmentation_loss(output.bev_mask_logits.float(), masks)
            losses['bev_segmentation'] = weights.bev_segmentation * loss
        if weights.pv_segmentation and output.pv_mask_logits is not None:
            pv_masks = [_given(target.pv_mask, 'pv_segmentation') for target in targets]
            loss = pv_segmentation_loss(output.pv_mask_logits.float(), pv_masks)
            losses['pv_segmentation'] = weights.pv_segmentation * loss
        if weights.depth and output.depth_logits is not None:
            bins = [_given(target.depth_bins, 'depth') for target in targets]
            losses['depth'] = weights.depth * depth_loss(output.depth_logits.float(), bins)
        return losses


def _given(target: Tensor | None, loss: str) -> Tensor:
    if target is None:
        raise DataError(
            f'losses.{loss} has a weight and the targets have nothing for it; give make_targets '
            'the cameras and, for depth, LiDAR'
        )
    return target
