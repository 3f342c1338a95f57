"""What the attention encoders share: BEV queries, what is added to them, layers, history.

`gkt.py` and `bevformer.py` add a cross-attention each.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.models.attention import BevHistory, FeedForward, TemporalSelfAttention
from gsmap_core.models.bev.history import motion_shift, rotate_bev
from gsmap_core.models.bev.pillars import VisibleCells, find_visible_cells, pillar_heights

NUM_CAN_BUS = 18
#: The published models allocate four level embeddings although they have one level; row 0 is used.
NUM_LEVEL_EMBEDDINGS = 4


@runtime_checkable
class Resettable(Protocol):
    """A part with its own initialisation."""

    def reset_parameters(self) -> None:
        """Initialise."""
        ...


class EncoderLayer(nn.Module):
    """Self-attention of cells (optional), cross-attention, feed-forward; LayerNorm after each.

    Args:
        config: the model.
        cross_attention: called with the queries (B, H * W, C), the image tokens and the views.
    """

    def __init__(self, config: ModelConfig, cross_attention: nn.Module) -> None:
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
        self.cross_attention = cross_attention
        self.norm2 = nn.LayerNorm(dims)
        self.ffn = FeedForward(dims, decoder.ffn_dims, decoder.dropout)
        self.norm3 = nn.LayerNorm(dims)

    def reset_deformable_parts(self) -> None:
        """Initialise the attentions that have a way of their own."""
        for part in (self.self_attention, self.cross_attention):
            if isinstance(part, Resettable):
                part.reset_parameters()

    def forward(
        self,
        query: Tensor,
        position: Tensor | None,
        centres: Tensor,
        bev_shape: tuple[int, int],
        image_tokens: Tensor,
        views: Any,
        history: BevHistory | None = None,
    ) -> Tensor:
        """Map (B, H * W, C) cell features to the next layer's."""
        if self.self_attention is not None and self.norm1 is not None and position is not None:
            query = self.norm1(self.self_attention(query, position, centres, bev_shape, history))
        query = self.norm2(self.cross_attention(query, image_tokens, views))
        return self.norm3(self.ffn(query))


class AttentionEncoder(nn.Module):
    """BEV queries, position codes and the encoder layers (reference-models.md, 1.6).

    Subclasses give the cross-attention: `make_cross_attention` builds that of one layer, and
    `views_of` works out once per forward pass what all layers read.

    Args:
        config: the model. Dropout, feed-forward width and self-attention heads are the decoder's,
            as published.
    """

    centres: Tensor
    points: Tensor

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
                nn.Linear(bev.can_bus_inputs, dims // 2),
                nn.ReLU(),
                nn.Linear(dims // 2, dims),
                nn.ReLU(),
                nn.LayerNorm(dims),
            )
            if bev.can_bus
            else None
        )
        self.layers = nn.ModuleList(
            EncoderLayer(config, self.make_cross_attention(config)) for _ in range(bev.num_layers)
        )
        points, centres = reference_points(config)
        self.register_buffer('points', torch.from_numpy(points).float(), persistent=False)
        self.register_buffer('centres', torch.from_numpy(centres).float(), persistent=False)
        self.reset_parameters()

    @staticmethod
    def make_cross_attention(config: ModelConfig) -> nn.Module:
        """Build the cross-attention of one layer."""
        raise NotImplementedError

    def views_of(self, seen: VisibleCells, feature_shape: tuple[int, int]) -> Any:
        """Turn the visible (camera, cell) pairs into what the cross-attention reads."""
        raise NotImplementedError

    def look_up(
        self,
        pixels_from_reference: Tensor,
        camera_mask: Tensor,
        feature_shape: tuple[int, int],
    ) -> Any:
        """Return what the cross-attention of every layer reads.

        Args:
            pixels_from_reference: (B, N, 4, 4) float32.
            camera_mask: (B, N) bool.
            feature_shape: height and width of the image features.
        """
        image = (self.config.image.height_px, self.config.image.width_px)
        seen = find_visible_cells(self.points, pixels_from_reference, camera_mask, image)
        return self.views_of(seen, feature_shape)

    def reset_parameters(self) -> None:
        """Xavier on matrices, N(0, 1) on embeddings, deformable parts in their usual way."""
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            layer.reset_deformable_parts()
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

    def forward(
        self,
        features: Tensor,
        pixels_from_reference: Tensor,
        camera_mask: Tensor,
        can_bus: Tensor | None,
        history: Tensor | None = None,
    ) -> Tensor:
        """Turn image features into a BEV map.

        Args:
            features: (B, N, C, h, w).
            pixels_from_reference: (B, N, 4, 4) float32.
            camera_mask: (B, N) bool.
            can_bus: (B, 18) float32; None counts as zeros.
            history: (B, C, H, W), what this returned for the frame before; `can_bus` then says how
                the vehicle moved since (`history.py`). None: a single frame.

        Returns:
            (B, C, H, W).

        Raises:
            ConfigError: the model has embeddings for another number of cameras.
            DataError: a history without the CAN bus.
        """
        tokens = self._image_tokens(features)
        batch = len(features)
        query = self.bev_embedding.weight.expand(batch, -1, -1)
        if self.can_bus_mlp is not None:
            inputs = tokens.new_zeros(batch, NUM_CAN_BUS, dtype=torch.float32)
            if can_bus is not None:
                inputs = can_bus
            query = query + self.can_bus_mlp(inputs[:, : self.config.bev.can_bus_inputs])[:, None]
        feature_shape = (features.shape[3], features.shape[4])
        views = self.look_up(pixels_from_reference, camera_mask, feature_shape)
        position = self.position_code()
        shape = (self.config.bev.num_rows, self.config.bev.num_columns)
        past = None if history is None else self._past(history, can_bus, query)
        for layer in self.layers:
            query = layer(query, position, self.centres, shape, tokens, views, past)
        return query.transpose(1, 2).unflatten(2, shape)

    def _image_tokens(self, features: Tensor) -> Tensor:
        """Return (B * N * h * w, C) features with the embeddings of level and camera."""
        cameras, dims = features.shape[1:3]
        tokens = features.flatten(3).transpose(2, 3) + self.level_embedding[0]
        if self.camera_embedding is not None:
            if cameras != len(self.camera_embedding):
                raise ConfigError(
                    f'the model has embeddings for {len(self.camera_embedding)} cameras and got '
                    f'{cameras}; use a rig of that size or a model with num_cameras 0'
                )
            tokens = tokens + self.camera_embedding[:, None]
        return tokens.reshape(-1, dims)

    def _past(self, history: Tensor, can_bus: Tensor | None, query: Tensor) -> BevHistory:
        """Bring the BEV map of the frame before to where the vehicle is now."""
        if can_bus is None:
            raise DataError(
                'a BEV history was given without can_bus; expected the motion since that frame'
            )
        shift = motion_shift(can_bus, self.config.grid)
        rotated = rotate_bev(history, can_bus[:, 17], self.config.bev.history_centre_px)
        return BevHistory(
            features=rotated.flatten(2).transpose(1, 2),
            entry=query,
            centres=self.centres + shift[:, None],
        )


def reference_points(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return what the cells of a model look at.

    Returns:
        Pillar points (H * W, Z, 3) in the reference frame [m], and cell centres (H * W, 2) in unit
        coordinates, both float64. With `bev.half_precision_reference` the unit coordinates have
        gone through half precision, as in the published models when they run in mixed precision
        (reference-models.md, 1.12).
    """
    # NumPy: the buffers then also exist as numbers when the module is built on the meta device.
    grid, bev = config.grid, config.bev
    centres = grid.metres_to_unit(grid.cell_centres().reshape(-1, 2))
    if bev.half_precision_reference:
        centres = centres.astype(np.float16).astype(np.float64)
    metres = grid.unit_to_metres(centres)
    heights = pillar_heights(bev.z_min_m, bev.z_max_m, bev.num_heights)
    points = np.stack([np.insert(metres, 2, height, axis=1) for height in heights], axis=1)
    return points, centres
