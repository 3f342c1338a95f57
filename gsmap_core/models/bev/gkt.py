"""Geometry-guided kernel transformer: BEV cells look at windows around their projections.

Each cell stands for a pillar of `num_heights` points. Attention head h reads a `kernel_rows` x
`kernel_columns` window around the
projection of height h. A camera takes part for a cell when it sees at least one of the heights;
the cameras are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.errors import ConfigError
from gsmap_core.models.attention import FeedForward, TemporalSelfAttention
from gsmap_core.ops.kernel_attention import gather_weighted_sum, kernel_offsets

#: Smallest depth that counts as in front of the camera, as published [m].
MIN_DEPTH_M = 1e-5
NUM_CAN_BUS = 18
#: The published models allocate four level embeddings although they have one level; row 0 is used.
NUM_LEVEL_EMBEDDINGS = 4


@dataclass(frozen=True)
class PillarViews:
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


def pillar_heights(z_min_m: float, z_max_m: float, count: int) -> list[float]:
    """Return a pillar's heights [m]: evenly spaced, half a metre inside both ends."""
    extent = z_max_m - z_min_m
    return [z_min_m + value for value in np.linspace(0.5, extent - 0.5, count)]


def project_pillars(
    points: Tensor,  # (Q, Z, 3)
    pixels_from_reference: Tensor,  # (B, N, 4, 4)
    image_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Project pillar points into every camera, in float32.

    Args:
        points: (Q, Z, 3) in the reference frame [m].
        pixels_from_reference: (B, N, 4, 4).
        image_size: height and width of the network input [px].

    Returns:
        (B, N, Q, Z, 2) fractions (u, v) of width and height, meaningless behind the camera, and
        (B, N, Q, Z) bool
        visibility.
    """
    # No matrix product: autocast would run it in half precision.
    matrix = pixels_from_reference.float()[:, :, :3, None, None, :]
    x, y, depth = (
        matrix[:, :, row, ..., 0] * points[..., 0]
        + matrix[:, :, row, ..., 1] * points[..., 1]
        + matrix[:, :, row, ..., 2] * points[..., 2]
        + matrix[:, :, row, ..., 3]
        for row in range(3)
    )
    is_ahead = depth > MIN_DEPTH_M
    safe = depth.clamp(min=MIN_DEPTH_M)
    u = x / safe / image_size[1]
    v = y / safe / image_size[0]
    visible = is_ahead & (u > 0) & (u < 1) & (v > 0) & (v < 1)
    return torch.stack([u, v], dim=-1), visible


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

    def forward(self, query: Tensor, image_tokens: Tensor, views: PillarViews) -> Tensor:
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


class GktLayer(nn.Module):
    """Self-attention of cells (optional), kernel attention, feed-forward; LayerNorm after each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims, bev, decoder = config.embed_dims, config.bev, config.decoder
        self.self_attention = (
            TemporalSelfAttention(
                dims, decoder.num_heads, decoder.num_sampling_points, decoder.dropout
            )
            if bev.self_attention == 'deformable'
            else None
        )
        self.norm1 = nn.LayerNorm(dims) if self.self_attention is not None else None
        self.cross_attention = GeometryKernelAttention(
            dims, bev.num_heights, bev.kernel_rows * bev.kernel_columns, decoder.dropout
        )
        self.norm2 = nn.LayerNorm(dims)
        self.ffn = FeedForward(dims, decoder.ffn_dims, decoder.dropout)
        self.norm3 = nn.LayerNorm(dims)

    def forward(
        self,
        query: Tensor,
        position: Tensor | None,
        centres: Tensor,
        bev_shape: tuple[int, int],
        image_tokens: Tensor,
        views: PillarViews,
    ) -> Tensor:
        """Map (B, H * W, C) cell features to the next layer's."""
        if self.self_attention is not None and self.norm1 is not None and position is not None:
            query = self.norm1(self.self_attention(query, position, centres, bev_shape))
        query = self.norm2(self.cross_attention(query, image_tokens, views))
        return self.norm3(self.ffn(query))


class GktEncoder(nn.Module):
    """BEV queries, position codes and the encoder layers (reference-models.md, 1.6).

    Args:
        config: the model. Dropout, feed-forward width and self-attention heads are the decoder's,
            as published.
    """

    centres: Tensor
    points: Tensor
    offsets: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims, bev = config.embed_dims, config.bev
        self.config = config
        self.bev_embedding = nn.Embedding(bev.num_rows * bev.num_columns, dims)
        # Only the self-attention looks at the position code.
        has_position = bev.self_attention == 'deformable'
        self.row_embedding = nn.Embedding(bev.num_rows, dims // 2) if has_position else None
        self.column_embedding = nn.Embedding(bev.num_columns, dims // 2) if has_position else None
        self.level_embedding = nn.Parameter(torch.empty(NUM_LEVEL_EMBEDDINGS, dims))
        self.camera_embedding = (
            nn.Parameter(torch.empty(config.num_cameras, dims)) if config.num_cameras else None
        )
        self.can_bus_mlp = (
            nn.Sequential(
                nn.Linear(NUM_CAN_BUS, dims // 2),
                nn.ReLU(),
                nn.Linear(dims // 2, dims),
                nn.ReLU(),
                nn.LayerNorm(dims),
            )
            if bev.can_bus
            else None
        )
        self.layers = nn.ModuleList(GktLayer(config) for _ in range(bev.num_layers))
        # NumPy first: the buffers then also exist as numbers when the module is built on the meta
        # device.
        centres_m = config.grid.cell_centres().reshape(-1, 2)
        heights = pillar_heights(bev.z_min_m, bev.z_max_m, bev.num_heights)
        points = np.stack(
            [np.insert(centres_m, 2, height, axis=1) for height in heights], axis=1
        )  # (Q, Z, 3)
        centres = config.grid.metres_to_unit(centres_m)
        self.register_buffer('points', torch.from_numpy(points).float(), persistent=False)
        self.register_buffer('centres', torch.from_numpy(centres).float(), persistent=False)
        self.register_buffer(
            'offsets', kernel_offsets(bev.kernel_rows, bev.kernel_columns), persistent=False
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier on matrices, N(0, 1) on embeddings, deformable parts in their usual way."""
        for layer in self.layers:
            for parameter in layer.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
            if isinstance(layer, GktLayer) and layer.self_attention is not None:
                layer.self_attention.reset_parameters()
        nn.init.normal_(self.level_embedding)
        if self.camera_embedding is not None:
            nn.init.normal_(self.camera_embedding)
        nn.init.normal_(self.bev_embedding.weight, std=self.config.bev.embedding_std)
        for embedding in (self.row_embedding, self.column_embedding):
            if embedding is not None:
                nn.init.normal_(embedding.weight)
        if self.can_bus_mlp is not None:
            for parameter in self.can_bus_mlp.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def position_code(self) -> Tensor | None:
        """Return the (H * W, C) position code, column half first; None without self-attention."""
        if self.row_embedding is None or self.column_embedding is None:
            return None
        rows, columns = self.row_embedding.weight, self.column_embedding.weight
        height, width = len(rows), len(columns)
        code = torch.cat(
            [columns[None].expand(height, -1, -1), rows[:, None].expand(-1, width, -1)], dim=-1
        )
        return code.flatten(0, 1)

    @torch.no_grad()
    def look_up(
        self,
        pixels_from_reference: Tensor,
        camera_mask: Tensor,
        feature_shape: tuple[int, int],
    ) -> PillarViews:
        """Find the visible (camera, cell) pairs and the window positions of each.

        Args:
            pixels_from_reference: (B, N, 4, 4) float32.
            camera_mask: (B, N) bool.
            feature_shape: height and width of the image features.
        """
        image = (self.config.image.height_px, self.config.image.width_px)
        uv, visible = project_pillars(self.points, pixels_from_reference, image)
        visible = visible.any(-1) & camera_mask[:, :, None]  # (B, N, Q)
        num_cameras, num_cells = visible.shape[1:]
        sample, camera, cell = visible.nonzero(as_tuple=True)
        uv = uv[sample, camera, cell]  # (V, Z, 2)
        height, width = feature_shape
        dx, dy = self.offsets[:, 0], self.offsets[:, 1]
        # Rounded after adding the offset and clamped before the conversion: points beside the
        # camera lie far outside any integer.
        x = (uv[..., :1] * width + dx).round().clamp(0, width - 1).int()
        y = (uv[..., 1:] * height + dy).round().clamp(0, height - 1).int()
        image_index = (sample * num_cameras + camera).int()[:, None, None]
        heights = self.points.shape[1]
        head = torch.arange(heights, dtype=torch.int32, device=x.device)[:, None]
        rows = ((image_index * height + y) * width + x) * heights + head  # (V, Z, K)
        cells = sample * num_cells + cell
        count = visible.sum(1).flatten().index_select(0, cells)
        return PillarViews(cells, rows.flatten(0, 1), 1.0 / count.float())

    def forward(
        self,
        features: Tensor,
        pixels_from_reference: Tensor,
        camera_mask: Tensor,
        can_bus: Tensor | None,
    ) -> Tensor:
        """Turn image features into a BEV map.

        Args:
            features: (B, N, C, h, w).
            pixels_from_reference: (B, N, 4, 4) float32.
            camera_mask: (B, N) bool.
            can_bus: (B, 18) float32; None counts as zeros.

        Returns:
            (B, C, H, W).

        Raises:
            ConfigError: the model has embeddings for another number of cameras.
        """
        batch, cameras, dims = features.shape[:3]
        tokens = features.flatten(3).transpose(2, 3) + self.level_embedding[0]
        if self.camera_embedding is not None:
            if cameras != len(self.camera_embedding):
                raise ConfigError(
                    f'the model has embeddings for {len(self.camera_embedding)} cameras and got '
                    f'{cameras}; use a rig of that '
                    'size or a model with num_cameras 0'
                )
            tokens = tokens + self.camera_embedding[:, None]
        tokens = tokens.reshape(-1, dims)
        query = self.bev_embedding.weight.expand(batch, -1, -1)
        if self.can_bus_mlp is not None:
            if can_bus is None:
                can_bus = tokens.new_zeros(batch, NUM_CAN_BUS, dtype=torch.float32)
            query = query + self.can_bus_mlp(can_bus)[:, None]
        feature_shape = (features.shape[3], features.shape[4])
        views = self.look_up(pixels_from_reference, camera_mask, feature_shape)
        position = self.position_code()
        shape = (self.config.bev.num_rows, self.config.bev.num_columns)
        for layer in self.layers:
            query = layer(query, position, self.centres, shape, tokens, views)
        return query.transpose(1, 2).unflatten(2, shape)
