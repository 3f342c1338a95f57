"""Query instance segmentation: one BEV mask per query, as supervision in training."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsmap_core.config import ModelConfig


class InstanceMaskHead(nn.Module):
    """Masks as products of queries and BEV features; all decoder layers share the weights.

    Args:
        config: gives the sizes; `losses.instance_mask_options` the rest.

    Source: InteractionMap, eq. 20, before the sigmoid. The feature of an instance is the mean of
    those of its points (reference-models.md, 9.2).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims, options = config.embed_dims, config.losses.instance_mask_options
        linears = [nn.Linear(dims, dims) for _ in range(options.num_mlp_layers)]
        between = [nn.ReLU() for _ in linears[1:]]
        pairs = itertools.zip_longest(linears, between)
        self.mlp = nn.Sequential(*(part for pair in pairs for part in pair if part is not None))
        self.projection = nn.Conv2d(dims, dims, 1)
        self.stride = options.stride
        self.only_last = options.layers == 'last'

    def forward(self, states: Tensor, bev: Tensor) -> Tensor:
        """Predict masks.

        Args:
            states: (L, B, M, P, C) query features after each decoder layer.
            bev: (B, C, H, W).

        Returns:
            (L', B, M, h, w) logits: L' is L, or 1 with `layers: last`; h and w are H and W divided
            by the stride, where cells are averaged.
        """
        queries = self.mlp((states[-1:] if self.only_last else states).mean(3))
        if self.stride > 1:
            bev = functional.avg_pool2d(bev, self.stride)
        return torch.einsum('lbmc,bchw->lbmhw', queries, self.projection(bev))
