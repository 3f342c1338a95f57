"""Parts of encoder and decoder: deformable and biased attention, the feed-forward block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsmap_core.ops.deformable_attention import compass_offsets, deformable_attention


@dataclass(frozen=True)
class BevHistory:
    """What the self-attention of cells reads of the frame before.

    Args:
        features: (B, H * W, C) BEV map of the frame before, turned to the present heading.
        entry: (B, H * W, C) present queries as they entered the first layer.
        centres: (B, H * W, 2) float32 unit coordinates of the cells in the map of the frame
            before.
    """

    features: Tensor
    entry: Tensor
    centres: Tensor


class FeedForward(nn.Module):
    """Two linear layers with ReLU, dropout and a residual."""

    def __init__(self, dims: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dims, hidden)
        self.linear2 = nn.Linear(hidden, dims)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        y = self.linear2(self.dropout(torch.relu(self.linear1(x))))
        return x + self.dropout(y)


def biased_attention(
    attention: nn.MultiheadAttention, query: Tensor, value: Tensor, bias: Tensor
) -> Tensor:
    """Attend with a bias per head on the logits: softmax(bias + Q K^T / sqrt(d)) V.

    `attention` itself would need the bias once per row and head. Here rows that follow each other
    share one, which is never copied.

    Args:
        attention: its weights and dropout are used; batch first, keys as wide as queries.
        query: (R, S, C), of which keys are made as well.
        value: (R, S, C).
        bias: (G, heads, S, S); each belongs to the next R / G rows. -inf where not to attend.

    Returns:
        (R, S, C).

    Source: InteractionMap, eq. 7 and 8.
    """
    rows, size, dims = query.shape
    groups, heads = bias.shape[:2]
    weights, offsets = attention.in_proj_weight, attention.in_proj_bias
    queries, keys = functional.linear(query, weights[: 2 * dims], offsets[: 2 * dims]).chunk(2, -1)
    values = functional.linear(value, weights[2 * dims :], offsets[2 * dims :])

    def by_bias(x: Tensor) -> Tensor:
        # (G * heads, R / G, S, d): a dimension of its own for the rows that share a bias.
        x = x.view(groups, rows // groups, size, heads, dims // heads)
        return x.permute(0, 3, 1, 2, 4).flatten(0, 1)

    result = functional.scaled_dot_product_attention(
        by_bias(queries),
        by_bias(keys),
        by_bias(values),
        attn_mask=bias.flatten(0, 1)[:, None],
        dropout_p=attention.dropout if attention.training else 0.0,
    )
    result = result.unflatten(0, (groups, heads)).permute(0, 2, 3, 1, 4)
    return attention.out_proj(result.reshape(rows, size, dims))


class BevDeformableAttention(nn.Module):
    """Queries read a BEV map around their reference points (decoder cross-attention).

    Args:
        dims: C.
        num_heads: heads.
        num_points: sampling points per head.
        dropout: on the result, before the residual.
    """

    def __init__(self, dims: int, num_heads: int, num_points: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_points = num_points
        self.sampling_offsets = nn.Linear(dims, num_heads * num_points * 2)
        self.attention_weights = nn.Linear(dims, num_heads * num_points)
        self.value_proj = nn.Linear(dims, dims)
        self.output_proj = nn.Linear(dims, dims)
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Start from one compass direction per head and equal weights."""
        reset_deformable(
            self, compass_offsets(self.num_heads, self.num_points)[:, :, None].transpose(1, 2)
        )

    def forward(
        self,
        query: Tensor,
        query_position: Tensor,
        bev: Tensor,
        reference: Tensor,
        bev_shape: tuple[int, int],
        frame: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, Q, C).
            query_position: (B, Q, C), added for offsets and weights.
            bev: (B, H * W, C), row-major.
            reference: (B, Q, 2) float32 unit coordinates (u, v).
            bev_shape: H and W.
            frame: (B, Q, 2, 2) float32 applied to the sampling offsets of each query in unit
                coordinates, or None.

        Returns:
            (B, Q, C) with the residual.
        """
        batch, queries, dims = query.shape
        height, width = bev_shape
        heads, points = self.num_heads, self.num_points
        positioned = query + query_position
        offsets = (
            self.sampling_offsets(positioned).float().view(batch, queries, heads, 1, points, 2)
        )
        weights = self.attention_weights(positioned).float().view(batch, queries, heads, points)
        weights = weights.softmax(-1)[:, :, :, None]
        offsets = offsets / offsets.new_tensor([width, height])
        if frame is not None:
            offsets = offsets @ frame.transpose(-1, -2)[:, :, None, None]
        locations = reference[:, :, None, None, None] + offsets
        value = self.value_proj(bev).view(batch, height * width, heads, dims // heads)
        result = deformable_attention(value, [bev_shape], locations, weights)
        return query + self.dropout(self.output_proj(result))


class TemporalSelfAttention(nn.Module):
    """BEV cells read the BEV around themselves, with two slots as published: history and present.

    Without history both slots hold the present queries. The published code mixes samples of a
    batch here; this does not.

    Args:
        dims: C.
        num_heads: heads.
        num_points: sampling points per head and slot.
        dropout: on the result, before the residual.
    """

    NUM_SLOTS = 2

    def __init__(self, dims: int, num_heads: int, num_points: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_points = num_points
        samples = self.NUM_SLOTS * num_heads * num_points
        self.sampling_offsets = nn.Linear(2 * dims, 2 * samples)
        self.attention_weights = nn.Linear(2 * dims, samples)
        self.value_proj = nn.Linear(dims, dims)
        self.output_proj = nn.Linear(dims, dims)
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Start from one compass direction per head and equal weights."""
        offsets = compass_offsets(self.num_heads, self.num_points)
        reset_deformable(self, offsets[:, None].repeat(1, self.NUM_SLOTS, 1, 1))

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        centres: Tensor,
        bev_shape: tuple[int, int],
        history: BevHistory | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, H * W, C), row-major.
            position: (H * W, C) learned position code.
            centres: (H * W, 2) float32 unit coordinates of the cells.
            bev_shape: H and W.
            history: the frame before; None: a single frame.

        Returns:
            (B, H * W, C) with the residual.
        """
        batch, cells, dims = query.shape
        height, width = bev_shape
        heads, points, slots = self.num_heads, self.num_points, self.NUM_SLOTS
        first = query if history is None else history.features
        both = torch.cat([first, query + position], dim=-1)
        offsets = self.sampling_offsets(both).float().view(batch, cells, heads, slots, points, 2)
        offsets = offsets / offsets.new_tensor([width, height])
        weights = self.attention_weights(both).float().view(batch, cells, heads, slots, points)
        weights = weights.softmax(-1) / slots

        def read(features: Tensor, locations: Tensor, shares: Tensor) -> Tensor:
            value = self.value_proj(features).view(batch, cells, heads, dims // heads)
            return deformable_attention(
                value, [bev_shape], locations[:, :, :, None], shares[:, :, :, None]
            )

        if history is None:
            # Both slots hold the same values: their mean is one attention over the points of both.
            locations = centres[:, None, None, None] + offsets
            result = read(query, locations.flatten(3, 4), weights.flatten(3))
        else:
            before = history.centres[:, :, None, None] + offsets[:, :, :, 0]
            now = centres[:, None, None] + offsets[:, :, :, 1]
            result = read(history.features, before, weights[:, :, :, 0])
            result = result + read(history.entry, now, weights[:, :, :, 1])
        return query + self.dropout(self.output_proj(result))


class Deformable(Protocol):
    """The linear layers that every deformable attention has."""

    sampling_offsets: nn.Linear
    attention_weights: nn.Linear
    value_proj: nn.Linear
    output_proj: nn.Linear


def reset_deformable(module: Deformable, offsets: Tensor) -> None:
    """Initialise a deformable layer the usual way.

    Args:
        module: the layer.
        offsets: initial offsets in the order of the offset bias, any shape with the right number
            of values.
    """
    nn.init.zeros_(module.sampling_offsets.weight)
    with torch.no_grad():
        module.sampling_offsets.bias.copy_(offsets.reshape(-1))
    nn.init.zeros_(module.attention_weights.weight)
    nn.init.zeros_(module.attention_weights.bias)
    for projection in (module.value_proj, module.output_proj):
        nn.init.xavier_uniform_(projection.weight)
        nn.init.zeros_(projection.bias)
