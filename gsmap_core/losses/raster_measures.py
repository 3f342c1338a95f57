"""How alike masks are: dice and soft IoU of pairs, weighted pixel differences, SSIM."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from gsmap_core.config import RasterLossConfig

#: Added to both sides of a fraction of areas, so that two empty masks are equal [px].
_AREA_EPS = 1.0
_PROBABILITY_EPS = 1e-6
#: Window of the structural similarity [px] and the constants for values in [0, 1] (Wang et al.).
_SSIM_SIZE = 11
_SSIM_SIGMA = 1.5
_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2


def dice_loss(masks: Tensor, truth: Tensor) -> Tensor:
    """Return (T,) 1 - dice of masks (T, H, W) with masks (T, H, W).

    Source: MapVR, dice loss: (2 sum(pt) + 1) / (sum(p) + sum(t) + 1).
    """
    shared = (masks * truth).sum(dim=(1, 2))
    total = masks.sum(dim=(1, 2)) + truth.sum(dim=(1, 2))
    return 1 - (2 * shared + _AREA_EPS) / (total + _AREA_EPS)


def pairwise_loss(masks: Tensor, truth: Tensor, measure: Literal['dice', 'iou']) -> Tensor:
    """Return (M, G) 1 - dice or 1 - soft IoU of every mask (M, H, W) with every one (G, H, W)."""
    shared = masks.flatten(1) @ truth.flatten(1).T
    total = masks.sum(dim=(1, 2))[:, None] + truth.sum(dim=(1, 2))
    if measure == 'dice':
        return 1 - (2 * shared + _AREA_EPS) / (total + _AREA_EPS)
    return 1 - (shared + _AREA_EPS) / (total - shared + _AREA_EPS)


def mask_loss(masks: Tensor, truth: Tensor, options: RasterLossConfig) -> Tensor:
    """Return (T,) losses of masks (T, H, W) in [0, 1] against masks (T, H, W) in [0, 1].

    Args:
        masks: predicted.
        truth: wanted.
        options: `measure`, `foreground_weight` and `ssim_weight`.

    Source: MapVR (dice); GSMap, eq. 12: (1 - w) * mean of weighted pixels + w * (1 - SSIM).
    """
    if options.measure == 'dice':
        return dice_loss(masks, truth)
    if options.measure == 'bce':
        inner = masks.clamp(_PROBABILITY_EPS, 1 - _PROBABILITY_EPS)
        difference = functional.binary_cross_entropy(inner, truth, reduction='none')
    elif options.measure == 'mse':
        difference = (masks - truth).square()
    else:
        difference = (masks - truth).abs()
    weighted = (difference * (1 + (options.foreground_weight - 1) * truth)).mean(dim=(1, 2))
    if not options.ssim_weight:
        return weighted
    structure = 1 - structural_similarity(masks, truth)
    return (1 - options.ssim_weight) * weighted + options.ssim_weight * structure


def _blur_matrix(size: int, like: Tensor) -> Tensor:
    """Return the symmetric (size, size) matrix that blurs one axis, zeros beyond both ends.

    As a product it takes a tenth of the time of a convolution, which CPUs are slow at with a
    single channel.
    """
    places = torch.arange(size, dtype=like.dtype, device=like.device)
    offsets = places[:, None] - places
    weights = (-(offsets**2) / (2 * _SSIM_SIGMA**2)).exp()
    weights = torch.where(offsets.abs() <= _SSIM_SIZE // 2, weights, 0.0)
    reach = torch.arange(-(_SSIM_SIZE // 2), _SSIM_SIZE // 2 + 1, dtype=like.dtype)
    return weights / float((-(reach**2) / (2 * _SSIM_SIGMA**2)).exp().sum())


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return (T,) mean SSIM of masks (T, H, W) with masks (T, H, W); zeros lie around them.

    Source: Wang et al. 2004, with the Gaussian window and the border of Gaussian splatting.
    """
    down, along = (_blur_matrix(size, first) for size in first.shape[1:])

    def blurred(x: Tensor) -> Tensor:
        return down @ x @ along

    mean1, mean2 = blurred(first), blurred(second)
    variance1 = blurred(first * first) - mean1**2
    variance2 = blurred(second * second) - mean2**2
    covariance = blurred(first * second) - mean1 * mean2
    luminance = (2 * mean1 * mean2 + _SSIM_C1) / (mean1**2 + mean2**2 + _SSIM_C1)
    contrast = (2 * covariance + _SSIM_C2) / (variance1 + variance2 + _SSIM_C2)
    return (luminance * contrast).mean(dim=(1, 2))
