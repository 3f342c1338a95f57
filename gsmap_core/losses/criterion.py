"""The training objective: a table of named losses over all decoder layers.

Formulas and weights are those of MapTR and MapTRv2. A method adds a loss by adding one entry to
`_LAYER_LOSSES` (or a dense one to `Criterion._dense_losses`) and a weight to `LossConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.errors import DataError
from gsmap_core.losses.alignment import GeometryScore, geometry_aware_classification_loss
from gsmap_core.losses.dense import bev_segmentation_loss, depth_loss, pv_segmentation_loss
from gsmap_core.losses.focal import focal_loss
from gsmap_core.losses.instance_masks import draw_instances, instance_dice_loss, instance_mask_loss
from gsmap_core.losses.matched import MatchedMasks, MatchedPredictions
from gsmap_core.losses.matching import Assignment, match
from gsmap_core.losses.raster import RasterCosts, raster_loss, renderer_of
from gsmap_core.losses.vectors import configured_direction_loss, configured_points_loss
from gsmap_core.targets import MapTargets

if TYPE_CHECKING:
    from gsmap_core.models.outputs import GaussianShapes, MapperOutput


#: Logits of instance masks, (L', B, M, H, W), and the masks of each sample's elements, (G, H, W).
Masks = tuple[Tensor, list[Tensor]]


def classification_loss(matched: MatchedPredictions) -> Tensor:
    """Return (L,) focal losses summed over queries and classes; unmatched queries are negative."""
    return focal_loss(matched.class_logits, matched.class_targets).sum(dim=(1, 2, 3))


def configured_classification_loss(matched: MatchedPredictions, config: ModelConfig) -> Tensor:
    """Return (L,) the loss that `losses.classification_kind` names."""
    if config.losses.classification_kind == 'geometry_aware':
        return geometry_aware_classification_loss(matched, config.alignment)
    return classification_loss(matched)


_LAYER_LOSSES: dict[str, Callable[[MatchedPredictions, ModelConfig], Tensor]] = {
    'classification': configured_classification_loss,
    'points': configured_points_loss,
    'direction': configured_direction_loss,
    'raster': raster_loss,
    'instance_mask': instance_mask_loss,
    'instance_dice': instance_dice_loss,
}
#: Losses of instance masks, for the queries that have them.
_MASK_LOSSES = ('instance_mask', 'instance_dice')


def mean_over_processes(values: Tensor, device: torch.device) -> Tensor:
    """Return numbers averaged over all training processes (themselves when there is one)."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    total = values.to(device, torch.float64)
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def _packed(gaussians: GaussianShapes | None) -> Tensor | None:
    return None if gaussians is None else gaussians.packed()


class Criterion(nn.Module):
    """Weighted, named losses of a batch; their sum is what is minimised.

    In InteractionMap's terms (eq. 22) that is L_det (eq. 23: `classification`, `points`,
    `direction`) + L_seg (eq. 21: `instance_mask`, `instance_dice`) + L_aux (eq. 24: `depth`,
    `pv_segmentation`).

    Args:
        config: gives the weights (`losses`, `matching`), the categories and the grid.
        over_processes: count what is matched over all processes that train together; False where
            one of them works alone, as in validation: the others would not answer.

    Raises:
        ConfigError: a raster loss or cost is asked for and the representation cannot be rendered.
    """

    def __init__(self, config: ModelConfig, over_processes: bool = True) -> None:
        super().__init__()
        self.config, self.over_processes = config, over_processes
        if config.matching.raster or config.losses.raster:
            renderer_of(config)
        extent = [*config.grid.unit_extent_m(), config.grid.height_extent_m]
        self.register_buffer(
            'metres_per_unit', torch.tensor(extent[: config.decoder.num_dims]), persistent=False
        )

    @property
    def score(self) -> GeometryScore:
        """How well predictions lie on elements, as configured."""
        return GeometryScore(self.config.alignment, self.get_buffer('metres_per_unit'))

    def forward(self, output: MapperOutput, targets: Sequence[MapTargets]) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            output: of `OnlineMapper` in training mode.
            targets: one per sample, on the device of the output.

        Returns:
            Scalars, already weighted, by name: `classification`, `points`, `direction`,
            `raster`, `instance_mask`, `instance_dice` of the last decoder layer,
            `d0.classification` and so on of the earlier ones, the same with the ending
            `_one_to_many`, and `bev_segmentation`, `pv_segmentation`, `depth`. Losses with weight
            0 are left out.

        Raises:
            DataError: a loss has a weight and the targets, or the output, have nothing for it.
        """
        with torch.autocast(output.class_logits.device.type, enabled=False):
            masks, many_masks = self._instance_masks(output, targets)
            losses = self._layer_losses(
                output.class_logits,
                output.points,
                targets,
                1,
                _packed(output.gaussians),
                masks=masks,
            )
            if output.one_to_many is not None and self.config.losses.one_to_many:
                logits, points = output.one_to_many
                copies = self.config.decoder.one_to_many_copies
                factor = self.config.losses.one_to_many
                raster = self.config.losses.raster_options.one_to_many
                gaussians = _packed(output.one_to_many_gaussians) if raster else None
                many = self._layer_losses(
                    logits, points, targets, copies, gaussians, raster, many_masks
                )
                losses |= {f'{name}_one_to_many': factor * loss for name, loss in many.items()}
            losses |= self._dense_losses(output, targets)
        return losses

    def _instance_masks(
        self, output: MapperOutput, targets: Sequence[MapTargets]
    ) -> tuple[Masks | None, Masks | None]:
        """Return the masks of the one-to-one and of the one-to-many queries, where wanted."""
        losses = self.config.losses
        if not losses.has_instance_masks:
            return None, None
        if output.instance_masks is None:
            raise DataError(
                'losses.instance_mask or losses.instance_dice has a weight and the output has no '
                'instance masks; call the model in training mode or with instance_masks=True'
            )
        rows, columns = output.instance_masks.shape[-2:]
        truth = draw_instances(targets, (rows, columns), self.config)
        many = output.one_to_many_instance_masks
        if many is None or not losses.instance_mask_options.one_to_many:
            return (output.instance_masks, truth), None
        return (output.instance_masks, truth), (many, truth)

    def _layer_losses(
        self,
        logits: Tensor,
        points: Tensor,
        targets: Sequence[MapTargets],
        copies: int,
        gaussians: Tensor | None = None,
        raster: bool = True,
        masks: Masks | None = None,
    ) -> dict[str, Tensor]:
        """Match one group of queries and compute its losses, all layers at once.

        Args:
            logits: (L, B, M, K) class logits.
            points: (L, B, M, P, 2 or 3) unit coordinates.
            targets: B samples.
            copies: how often every element is matched.
            gaussians: (L, B, M, P, D) parameters beside the centres, or None.
            raster: whether this group has a raster cost and loss.
            masks: logits of the instance masks of the last L' layers, (L', B, M, H, W), and those
                of the elements of every sample; None: this group has neither cost nor loss.
        """
        logits, points = logits.float(), points.float()
        gaussians = None if gaussians is None else gaussians.float()
        cost = None
        if raster and self.config.matching.raster:
            cost = RasterCosts(targets, self.config)
        weights = self.config.matching
        assignment = match(
            logits,
            points,
            targets,
            weights,
            copies,
            gaussians,
            cost,
            self.score,
            masks if weights.has_instance_masks else None,
        )
        matched = self._matched(logits, points, targets, assignment, gaussians)
        if masks is not None:
            matched = replace(matched, masks=_matched_masks(matched, masks, assignment))
        divisors = self._divisors(matched, len(assignment))
        losses: dict[str, Tensor] = {}
        for name, function in _LAYER_LOSSES.items():
            weight = getattr(self.config.losses, name)
            missing = not raster if name == 'raster' else masks is None and name in _MASK_LOSSES
            if not weight or missing:
                continue
            divisor = divisors.get(name, divisors[''])
            per_layer = function(matched, self.config) * (weight / divisor)
            for layer in range(len(logits)):
                prefix = '' if layer == len(logits) - 1 else f'd{layer}.'
                losses[prefix + name] = per_layer[layer]
        return losses

    def _divisors(self, matched: MatchedPredictions, num_pairs: int) -> dict[str, float | Tensor]:
        """Return what the sums of losses are divided by: '' is the rule, names are exceptions."""
        device = matched.points.device
        # Every layer matches equally many, so one normaliser serves all of them.
        count = torch.tensor(num_pairs / len(matched.class_logits), dtype=torch.float64)
        divisors: dict[str, float | Tensor] = {'': max(float(self._mean(count, device)), 1.0)}
        config = self.config
        by_scores = config.alignment.normaliser == 'scores'
        if by_scores and config.losses.classification_kind == 'geometry_aware':
            assert matched.scores is not None
            sums = self._mean(matched.per_layer(matched.scores), device)
            divisors['classification'] = sums.to(matched.scores).clamp(min=1.0)
        return divisors

    def _mean(self, values: Tensor, device: torch.device) -> Tensor:
        return mean_over_processes(values, device) if self.over_processes else values

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
        scores = class_scores = None
        if self.config.losses.is_geometry_aware:
            scores = self.score.of_pairs(points[chosen], flat_orders[row])
            class_scores = torch.zeros_like(logits)
            class_scores[(*chosen, labels[element])] = scores
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
            scores=scores,
            class_scores=class_scores,
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


def _matched_masks(matched: MatchedPredictions, masks: Masks, pairs: Assignment) -> MatchedMasks:
    """Gather the masks of matched queries beside those of their elements."""
    predicted, truth = masks
    first = len(matched.class_logits) - len(predicted)
    pair = (pairs.layer >= first).nonzero()[:, 0]
    logits = predicted[pairs.layer[pair] - first, pairs.sample[pair], pairs.query[pair]]
    return MatchedMasks(pair, logits.float(), torch.cat(truth)[matched.element[pair]])


def _given(target: Tensor | None, loss: str) -> Tensor:
    if target is None:
        raise DataError(
            f'losses.{loss} has a weight and the targets have nothing for it; give make_targets '
            'the cameras and, for depth, LiDAR'
        )
    return target
