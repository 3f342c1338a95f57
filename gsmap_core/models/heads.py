"""Prediction heads: category of an instance, offset of a point, BEV mask."""

from __future__ import annotations

import math

from torch import Tensor, nn

#: Initial probability of every category; keeps the focal loss of the many empty queries small at
#: the start.
PRIOR_PROBABILITY = 0.01


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Return the logit of x in [0, 1], with both x and 1 - x kept at or above `eps`."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def class_head(dims: int, num_categories: int) -> nn.Sequential:
    """Return the head (..., C) -> (..., K) logits."""
    head = nn.Sequential(
        nn.Linear(dims, dims),
        nn.LayerNorm(dims),
        nn.ReLU(),
        nn.Linear(dims, dims),
        nn.LayerNorm(dims),
        nn.ReLU(),
        nn.Linear(dims, num_categories),
    )
    last = head[-1]
    assert isinstance(last, nn.Linear)
    nn.init.constant_(last.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
    return head


def point_head(dims: int, num_outputs: int = 2) -> nn.Sequential:
    """Return the head (..., C) -> (..., 2 or 3) offsets in logit space."""
    return nn.Sequential(
        nn.Linear(dims, dims),
        nn.ReLU(),
        nn.Linear(dims, dims),
        nn.ReLU(),
        nn.Linear(dims, num_outputs),
    )


def mask_head(dims: int) -> nn.Sequential:
    """Return the head (B, C, H, W) -> (B, 1, H, W) logits."""
    return nn.Sequential(
        nn.Conv2d(dims, dims, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(dims, 1, 1),
    )
