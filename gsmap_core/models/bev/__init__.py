"""View transforms, from image features to a BEV map: one file each, one interface."""

from __future__ import annotations

from torch import nn

from gsmap_core.config import ModelConfig
from gsmap_core.errors import ConfigError


def build_view_transform(config: ModelConfig) -> nn.Module:
    """Build the view transform of a configuration.

    Every view transform is a module whose `forward(features, pixels_from_reference, camera_mask,
    can_bus)` takes (B, N, C, h, w)
    features, (B, N, 4, 4) float32 matrices from the model's reference frame to pixels of the
    network input, a (B, N)
    bool mask and the (B, 18) CAN-bus features or None, and returns (B, C, H, W) BEV features in
    the cell order of
    `config.grid`. `reset_parameters()` initialises it.

    Raises:
        ConfigError: the view transform is not available.
    """
    if config.bev.view_transform == 'gkt':
        from gsmap_core.models.bev.gkt import GktEncoder

        return GktEncoder(config)
    if config.bev.view_transform == 'bevformer':
        from gsmap_core.models.bev.bevformer import BevFormerEncoder

        return BevFormerEncoder(config)
    raise ConfigError(
        f"bev.view_transform '{config.bev.view_transform}' is not available yet; use 'gkt' or "
        "'bevformer'"
    )
