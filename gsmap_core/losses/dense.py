"""Losses on maps of cells: BEV masks, image masks, depth bins (reference-models.md, 2.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

#: Weight of mask cells against background (MapTRv2).
BEV_POSITIVE_WEIGHT = 4.0


def bev_segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean cross-entropy of (B, 1, H, W) logits towards masks of 0 and 1."""
    return functional.binary_cross_entropy_with_logits(
        logits, masks.float(), pos_weight=logits.new_tensor(BEV_POSITIVE_WEIGHT)
    )


def pv_segmentation_loss(logits: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Return the mean cross-entropy of image masks over all supervised cells.

    Args:
        logits: (B, N, 1, h, w).
        masks: B targets (N', 1, h, w), N' <= N: 0, 1, or negative where a cell is not supervised.
    """
    target = _padded(masks, logits.shape[1])
    valid = (target >= 0).float()
    loss = functional.binary_cross_entropy_with_logits(
        logits, target.clamp(min=0).float(), weight=valid, reduction='sum'
    )
    return loss / valid.sum().clamp(min=1)


def depth_loss(logits: Tensor, bins: Sequence[Tensor]) -> Tensor:
    """Return the mean of -log p of the right bin over all labelled cells.

    Args:
        logits: (B, N, D, h, w).
        bins: B targets (N', h, w), N' <= N: 0 to D - 1, negative without a label.
    """
    target = _padded(bins, logits.shape[1])
    valid = (target >= 0).float()
    right = logits.log_softmax(2).gather(2, target.clamp(min=0)[:, :, None]).squeeze(2)
    return -(right * valid).sum() / valid.sum().clamp(min=1)


def _padded(maps: Sequence[Tensor], num_cameras: int) -> Tensor:
    """Stack (N', ...) maps of samples; cameras that a sample does not have are not supervised."""
    rows = [
        torch.cat([item, item.new_full((num_cameras - len(item), *item.shape[1:]), -1)])
        for item in maps
    ]
    return torch.stack(rows)
