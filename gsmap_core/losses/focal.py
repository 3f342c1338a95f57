"""Sigmoid focal loss and the focal matching cost (as MapTR uses them)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ALPHA = 0.25
GAMMA = 2.0
_EPS = 1e-12


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the element-wise sigmoid focal loss, unreduced.

    Args:
        logits: (...) any shape.
        targets: same shape, 0 or 1 (or a probability between).
    """
    probability = logits.sigmoid()
    wrong = probability * (1 - targets) + (1 - probability) * targets
    balance = ALPHA * targets + (1 - ALPHA) * (1 - targets)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction='none')
    return balance * wrong.pow(GAMMA) * cross_entropy


def focal_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cost of giving each prediction to each element, from its class alone.

    Args:
        logits: (..., M, K).
        labels: (G,) int64 category index of each element.

    Returns:
        (..., M, G): focal loss of the element's class as a positive minus that as a negative.
    """
    probability = logits.sigmoid()
    positive = ALPHA * (1 - probability).pow(GAMMA) * -torch.log(probability + _EPS)
    negative = (1 - ALPHA) * probability.pow(GAMMA) * -torch.log(1 - probability + _EPS)
    return (positive - negative)[..., labels]
