"""What published LSS models store and never use, so that their files load whole."""

from __future__ import annotations

import torch
from torch import nn

from gsmap_core.config import ModelConfig

#: Numbers of the CAN bus, level embeddings: as in the attention encoders that do use them.
_NUM_CAN_BUS = 18
_NUM_LEVELS = 4


class OfficialOnly(nn.Module):
    """Tensors without a purpose: 76,928 parameters in MapTR bevpool and MapTRv2 R50.

    They stem from the attention encoders, whose head the published models share: position code,
    CAN-bus network, camera and level embeddings; and the constants of the mask losses.

    Args:
        config: the model; `num_cameras` tells how many cameras have embeddings.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims, bev = config.embed_dims, config.bev
        self.row_embedding = nn.Embedding(bev.num_rows, dims // 2)
        self.column_embedding = nn.Embedding(bev.num_columns, dims // 2)
        self.level_embedding = nn.Parameter(torch.zeros(_NUM_LEVELS, dims))
        self.camera_embedding = nn.Parameter(torch.zeros(config.num_cameras, dims))
        self.can_bus_mlp = nn.Sequential(
            nn.Linear(_NUM_CAN_BUS, dims // 2),
            nn.ReLU(),
            nn.Linear(dims // 2, dims),
            nn.ReLU(),
            nn.LayerNorm(dims),
        )
        if config.losses.bev_segmentation:
            self.register_buffer('bev_positive_weight', torch.full((1,), 4.0))
        if config.losses.pv_segmentation:
            self.register_buffer('pv_positive_weight', torch.ones(1))
