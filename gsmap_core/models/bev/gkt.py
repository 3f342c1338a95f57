"""Geometry-guided kernel transformer: BEV cells look at windows around their projections.

Each cell stands for a pillar of `num_heights` points. Attention head h reads a `kernel_rows` x
`kernel_columns` window around the projection of height h. A camera takes part for a cell when it
sees at least one of the heights; the cameras are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.models.bev.attention_encoder import AttentionEncoder
from gsmap_core.models.bev.pillars import VisibleCells
from gsmap_core.ops.kernel_attention import gather_weighted_sum, kernel_offsets


@dataclass(frozen=True)
class KernelViews:
    """Which cells see which camera, and where; the same for all layers of one forward pass.

    Args:
        cells: (V,) int64, sample * H * W + cell, of every visible (camera, cell) pair.
        rows: (V * heights, K) int32, rows of the value tensor (B * N * h * w * heights, C /
            heights).
        share: (V,) float32, 1 / number of cameras that see the cell.
    """

    cells: Tensor
    rows: Tensor
    share: Tensor


class GeometryKernelAttention(nn.Module):
    """Cross-attention from BEV cells to image windows.

    Args:
        dims: C.
        num_heights: heights, equal to the heads.
        num_taps: positions of a window.
        dropout: on the result, before the residual.
    """

    def __init__(self, dims: int, num_heights: int, num_taps: int, dropout: float) -> None:
        super().__init__()
        self.num_heights = num_heights
        self.num_taps = num_taps
        self.attention_weights = nn.Linear(dims, num_heights * num_taps)
        self.value_proj = nn.Linear(dims, dims)
        self.output_proj = nn.Linear(dims, dims)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, image_tokens: Tensor, views: KernelViews) -> Tensor:
        """Attend.

        Args:
            query: (B, H * W, C).
            image_tokens: (B * N * h * w, C).
            views: from `GktEncoder.look_up`.

        Returns:
            (B, H * W, C) with the residual. A cell that no camera sees gets the bias of the output
            projection.
        """
        batch, cells, dims = query.shape
        heights, taps = self.num_heights, self.num_taps
        # The gather is bound by memory and needs exact sums, so it runs in float32 under autocast
        # too.
        value = self.value_proj(image_tokens).float().view(-1, dims // heights)
        weights = self.attention_weights(query).float().view(batch * cells, heights, taps)
        weights = weights.softmax(-1).index_select(0, views.cells) * views.share[:, None, None]
        seen = gather_weighted_sum(value, views.rows, weights.view(-1, taps)).view(-1, dims)
        mean = seen.new_zeros(batch * cells, dims).index_add(0, views.cells, seen)
        mean = mean.view(batch, cells, dims)
        return query + self.dropout(self.output_proj(mean))


class GktEncoder(AttentionEncoder):
    """Attention encoder with kernel attention (reference-models.md, 1.6).

    Source: GKT (arXiv 2206.04584), as MapTR uses it.
    """

    offsets: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        bev = config.bev
        self.register_buffer(
            'offsets', kernel_offsets(bev.kernel_rows, bev.kernel_columns), persistent=False
        )

    @staticmethod
    def make_cross_attention(config: ModelConfig) -> GeometryKernelAttention:
        """Build the cross-attention of one layer."""
        bev = config.bev
        return GeometryKernelAttention(
            config.embed_dims,
            bev.num_heights,
            bev.kernel_rows * bev.kernel_columns,
            config.decoder.dropout,
        )

    def views_of(self, seen: VisibleCells, feature_shape: tuple[int, int]) -> KernelViews:
        """Find the window positions of every visible (camera, cell) pair.

        Args:
            seen: the pairs.
            feature_shape: height and width of the image features.
        """
        height, width = feature_shape
        dx, dy = self.offsets[:, 0], self.offsets[:, 1]
        # Rounded after adding the offset and clamped before the conversion: points beside the
        # camera lie far outside any integer.
        x = (seen.uv[..., :1] * width + dx).round().clamp(0, width - 1).int()
        y = (seen.uv[..., 1:] * height + dy).round().clamp(0, height - 1).int()
        heights = self.points.shape[1]
        head = torch.arange(heights, dtype=torch.int32, device=x.device)[:, None]
        image = seen.images.int()[:, None, None]
        rows = ((image * height + y) * width + x) * heights + head  # (V, Z, K)
        return KernelViews(seen.cells, rows.flatten(0, 1), seen.share)
