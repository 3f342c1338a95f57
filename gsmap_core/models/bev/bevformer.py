"""BEVFormer's spatial cross-attention: BEV cells look at learned positions around projections.

As in the kernel attention, a cell stands for a pillar of `num_heights` points and a camera takes
part when it sees one of them; but every head reads positions at all heights, with bilinear
interpolation and learned offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.models.attention import reset_deformable
from gsmap_core.models.bev.attention_encoder import AttentionEncoder
from gsmap_core.models.bev.pillars import VisibleCells
from gsmap_core.ops.deformable_attention import compass_offsets, deformable_attention

#: A place that no offset leaves: reads zero.
_OUTSIDE = -1e3


@dataclass(frozen=True)
class ImageViews:
    """Which cells each image is asked for, padded to the same number S for all images.

    Args:
        cells: (B * N, S) int64, sample * H * W + cell; 0 in the padding.
        uv: (B * N, S, Z, 2) float32 fractions of width and height; far outside in the padding.
        slots: (V,) int64, where the visible pairs lie in the flattened first two dimensions.
        pairs: the V visible pairs.
        feature_shape: height and width of the image features.
    """

    cells: Tensor
    uv: Tensor
    slots: Tensor
    pairs: VisibleCells
    feature_shape: tuple[int, int]


class PillarDeformableAttention(nn.Module):
    """Deformable cross-attention from BEV pillars to images.

    Point p of a head belongs to height p mod Z.

    Args:
        dims: C.
        num_heads: heads.
        num_points: sampling points per head, a multiple of the heights.
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
        reset_deformable(self, compass_offsets(self.num_heads, self.num_points))

    def forward(self, query: Tensor, image_tokens: Tensor, views: ImageViews) -> Tensor:
        """Attend.

        Args:
            query: (B, H * W, C).
            image_tokens: (B * N * h * w, C).
            views: from `BevFormerEncoder.look_up`.

        Returns:
            (B, H * W, C) with the residual. A cell that no camera sees gets the bias of the output
            projection.
        """
        batch, num_cells, dims = query.shape
        heads, points = self.num_heads, self.num_points
        images, asked, heights = views.uv.shape[:3]
        height, width = views.feature_shape
        flat = query.reshape(-1, dims)
        offsets = self.sampling_offsets(flat).float().index_select(0, views.cells.flatten())
        offsets = offsets.view(images, asked, heads, points // heights, heights, 2)
        locations = views.uv[:, :, None, None] + offsets / offsets.new_tensor([width, height])
        weights = self.attention_weights(flat).float().view(-1, heads, points).softmax(-1)
        weights = weights.index_select(0, views.cells.flatten())
        value = self.value_proj(image_tokens).float()
        read = deformable_attention(
            value.view(images, height * width, heads, dims // heads),
            [views.feature_shape],
            locations.flatten(3, 4)[:, :, :, None],
            weights.view(images, asked, heads, 1, points),
        )
        seen = read.flatten(0, 1).index_select(0, views.slots) * views.pairs.share[:, None]
        mean = seen.new_zeros(batch * num_cells, dims).index_add(0, views.pairs.cells, seen)
        return query + self.dropout(self.output_proj(mean.view(batch, num_cells, dims)))


class BevFormerEncoder(AttentionEncoder):
    """Attention encoder with deformable cross-attention (reference-models.md, 1.7).

    Source: BEVFormer (arXiv 2203.17270), 3.3, as MapTR uses it.
    """

    @staticmethod
    def make_cross_attention(config: ModelConfig) -> PillarDeformableAttention:
        """Build the cross-attention of one layer."""
        bev = config.bev
        return PillarDeformableAttention(
            config.embed_dims, bev.num_heads, bev.num_sampling_points, config.decoder.dropout
        )

    def views_of(self, seen: VisibleCells, feature_shape: tuple[int, int]) -> ImageViews:
        """Sort the visible (camera, cell) pairs by image.

        Args:
            seen: the pairs.
            feature_shape: height and width of the image features.
        """
        counts = torch.bincount(seen.images, minlength=seen.num_images)
        # One position at least, so that nothing downstream meets an empty tensor.
        asked = max(1, int(counts.max()))
        first = (counts.cumsum(0) - counts)[seen.images]
        rank = torch.arange(len(seen.images), device=first.device) - first
        slots = seen.images * asked + rank
        cells = seen.cells.new_zeros(seen.num_images * asked)
        uv = seen.uv.new_full((seen.num_images * asked, *seen.uv.shape[1:]), _OUTSIDE)
        cells[slots] = seen.cells
        uv[slots] = seen.uv
        shape = (seen.num_images, asked)
        return ImageViews(
            cells.unflatten(0, shape), uv.unflatten(0, shape), slots, seen, feature_shape
        )
