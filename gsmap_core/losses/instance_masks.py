"""Losses and costs of instance masks (InteractionMap, eq. 20 and 21; reference-models.md, 9.2).

A mask is compared with an element pixel by pixel, as classification is (`focal` or
`geometry_aware`, averaged over the pixels), and as a whole (dice). Costs compare all masks with
all elements: every term is a sum over pixels of something that depends on the mask alone times
the element's mask, hence a matrix product, and pairs never have pixels of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gsmap_core.config import AlignmentConfig, FocalKind, MatchingConfig, ModelConfig
from gsmap_core.losses.alignment import geometry_aware_focal_loss
from gsmap_core.losses.focal import ALPHA, GAMMA, focal_loss
from gsmap_core.losses.matched import MatchedMasks, MatchedPredictions
from gsmap_core.losses.raster import areas_of
from gsmap_core.losses.raster_measures import dice_loss, pairwise_loss
from gsmap_core.losses.soft_raster import draw_binary
from gsmap_core.targets import MapTargets


@torch.no_grad()
def draw_instances(
    targets: Sequence[MapTargets], canvas: tuple[int, int], config: ModelConfig
) -> list[Tensor]:
    """Draw every element for itself, as `losses.instance_mask_options` says.

    Args:
        targets: B samples.
        canvas: rows and columns of the masks, which lie on the BEV grid.
        config: gives the categories and how elements are drawn.

    Returns:
        B masks (G, H, W) float32 of 0 and 1, from the points of the elements.

    Source: InteractionMap, M_ins of eq. 21; width and filling: reference-models.md, 9.2.
    """
    options = config.losses.instance_mask_options
    points = torch.cat([target.points for target in targets])[..., :2]
    areas = areas_of(torch.cat([target.labels for target in targets]), config)
    filled = areas if options.target == 'filled' else torch.zeros_like(areas)
    # Centres of cells lie at half indices.
    pixels = points.float() * points.new_tensor([canvas[1], canvas[0]]) - 0.5
    masks = draw_binary(pixels, filled, *canvas, options.line_width_px)
    return list(masks.split([len(target) for target in targets]))


def pixel_loss(
    masks: MatchedMasks, scores: Tensor | None, kind: FocalKind, alignment: AlignmentConfig
) -> Tensor:
    """Return (T,) means over the pixels of the focal or geometry-aware focal loss.

    Args:
        masks: T predicted masks beside their elements'.
        scores: (T,) how well each of them is located; needed by `geometry_aware` only.
        kind: which loss. `geometry_aware` is L_mgf of eq. 21, eq. 15 with foreground pixels as
            positives and background pixels as negatives.
        alignment: alpha and gamma of the latter.
    """
    if kind == 'focal':
        return focal_loss(masks.logits, masks.truth).mean(dim=(1, 2))
    assert scores is not None  # The criterion scores what this loss is given.
    loss = geometry_aware_focal_loss(
        masks.logits, masks.truth > 0.5, scores[:, None, None], alignment
    )
    return loss.mean(dim=(1, 2))


def pixel_cost(
    logits: Tensor,
    truth: Tensor,
    scores: Tensor | None,
    kind: FocalKind,
    alignment: AlignmentConfig,
) -> Tensor:
    """Return (M, G) `pixel_loss` of every mask with every element.

    With M = 1 on an element's foreground, c = -ln(1 - p), z the logit and f = alpha p^gamma c, the
    geometry-aware loss of a pair is the mean of M s (c - s z) + (1 - M) f, and so
    s <M, c> - s^2 <M, z> + <1, f> - <M, f>.

    Args:
        logits: (M, H, W) of the masks.
        truth: (G, H, W) masks of 0 and 1.
        scores: (M, G) of all pairs; needed by `geometry_aware` only.
        kind: which loss.
        alignment: alpha and gamma of the geometry-aware one.
    """
    z, foreground = logits.flatten(1), truth.flatten(1).T
    num_pixels = z.shape[1]
    cross_entropy, probability = functional.softplus(z), z.sigmoid()
    if kind == 'focal':
        wrong = (1 - ALPHA) * probability.pow(GAMMA) * cross_entropy
        right = ALPHA * (1 - probability).pow(GAMMA) * (cross_entropy - z)
        return (wrong.sum(1, keepdim=True) + (right - wrong) @ foreground) / num_pixels
    assert scores is not None  # The matching scores what this cost is given.
    negative = alignment.alpha * probability.pow(alignment.gamma) * cross_entropy
    positive = scores * (cross_entropy @ foreground - scores * (z @ foreground))
    background = negative.sum(1, keepdim=True) - negative @ foreground
    return (positive + background) / num_pixels


def mask_cost(
    logits: Tensor,
    truth: Tensor,
    scores: Tensor | None,
    weights: MatchingConfig,
    alignment: AlignmentConfig,
) -> Tensor:
    """Return the weighted cost of the masks of one sample.

    Args:
        logits: (L', M, H, W).
        truth: (G, H, W) 0 and 1.
        scores: (L', M, G), needed by `weights.instance_mask_kind: geometry_aware` only.
        weights: of the terms.
        alignment: of the geometry-aware focal cost.

    Returns:
        (L', M, G).

    Source: InteractionMap, sec. 3.4 (mask geometry-aware focal cost).
    """
    cost = []
    # One layer at a time: what is kept per pixel fits the cache of a CPU.
    for layer, masks in enumerate(logits.float()):
        value = masks.new_zeros(len(masks), len(truth))
        if weights.instance_mask:
            score = None if scores is None else scores[layer]
            pixels = pixel_cost(masks, truth, score, weights.instance_mask_kind, alignment)
            value = value + weights.instance_mask * pixels
        if weights.instance_dice:
            dice = pairwise_loss(masks.sigmoid(), truth, 'dice')
            value = value + weights.instance_dice * dice
        cost.append(value)
    return torch.stack(cost)


def instance_mask_loss(matched: MatchedPredictions, config: ModelConfig) -> Tensor:
    """Return (L,) losses per pixel, averaged over the mask, summed over the pairs of each layer.

    Source: InteractionMap, eq. 21, L_mgf; or the plain focal loss.
    """
    assert matched.masks is not None  # The criterion has asked for them.
    masks, options = matched.masks, config.losses.instance_mask_options
    scores = None if matched.scores is None else matched.scores[masks.pair]
    values = pixel_loss(masks, scores, options.kind, config.alignment)
    return _per_layer(matched, masks, values)


def instance_dice_loss(matched: MatchedPredictions, config: ModelConfig) -> Tensor:
    """Return (L,) 1 - dice summed over the pairs of each layer.

    Source: InteractionMap, eq. 21, L_dice.
    """
    assert matched.masks is not None  # The criterion has asked for them.
    values = dice_loss(matched.masks.logits.sigmoid(), matched.masks.truth)
    return _per_layer(matched, matched.masks, values)


def _per_layer(matched: MatchedPredictions, masks: MatchedMasks, values: Tensor) -> Tensor:
    """Sum (T',) values of the pairs that have masks into (L,)."""
    result = values.new_zeros(len(matched.class_logits))
    return result.index_add(0, matched.layer[masks.pair], values)
