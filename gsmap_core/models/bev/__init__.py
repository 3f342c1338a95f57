"""View transforms, from image features to a BEV map: one file each, one interface."""

from __future__ import annotations

from torch import nn

from gsmap_core.config import ModelConfig


def build_view_transform(config: ModelConfig) -> nn.Module:
    """Build the view transform of a configuration.

    The attention encoders are modules whose `forward(features, pixels_from_reference, camera_mask,
    can_bus)` takes (B, N, C, h, w) features, (B, N, 4, 4) float32 matrices from the model's
    reference frame to pixels of the network input, a (B, N) bool mask and the (B, 18) CAN-bus
    features or None, and returns (B, C, H, W) BEV features in the cell order of `config.grid`.
    `LssEncoder` needs the calibration in place of the CAN bus and also returns depth logits.
    `reset_parameters()` initialises either.
    """
    if config.bev.view_transform == 'gkt':
        from gsmap_core.models.bev.gkt import GktEncoder

        return GktEncoder(config)
    if config.bev.view_transform == 'bevformer':
        from gsmap_core.models.bev.bevformer import BevFormerEncoder

        return BevFormerEncoder(config)
    from gsmap_core.models.bev.lss import LssEncoder

    return LssEncoder(config)
