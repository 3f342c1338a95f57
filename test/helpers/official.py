"""Files as the authors of MapTR publish them, small and with random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from gsmap_core.config import ModelConfig
from gsmap_core.models.mapper import OnlineMapper

#: A configuration with published weights, small enough for tests.
SMALL = """
num_cameras: 2
embed_dims: 16
image: {width_px: 64, height_px: 32}
backbone: {block: basic, num_blocks: [1, 1, 1, 1], base_width: 8}
bev: {num_rows: 6, num_columns: 4, can_bus: true}
decoder: {num_layers: 1, num_instances: 3, num_points: 4, ffn_dims: 16}
official:
  reference: lidar
  range: {x_min: -15.0, x_max: 15.0, y_min: -30.0, y_max: 30.0}
  bev: {order: official}
"""


def published_state(config: ModelConfig) -> dict[str, Tensor]:
    """Invent a published file: random numbers under the published names of a GKT model."""
    own = OnlineMapper(config).state_dict()
    head, layer = 'pts_bbox_head.', 'pts_bbox_head.transformer.'
    swaps = [
        ('image_encoder.backbone.', 'img_backbone.'),
        ('image_encoder.neck.lateral.0.', 'img_neck.lateral_convs.0.conv.'),
        ('image_encoder.neck.output.', 'img_neck.fpn_convs.0.conv.'),
        ('code_weights', head + 'code_weights'),
        ('decoder.instance_embedding.', head + 'instance_embedding.'),
        ('decoder.point_embedding.', head + 'pts_embedding.'),
        ('decoder.class_heads.', head + 'cls_branches.'),
        ('decoder.point_heads.', head + 'reg_branches.'),
        ('decoder.reference_points.', layer + 'reference_points.'),
        ('view_transform.bev_embedding.', head + 'bev_embedding.'),
        ('view_transform.row_embedding.', head + 'positional_encoding.row_embed.'),
        ('view_transform.column_embedding.', head + 'positional_encoding.col_embed.'),
        ('view_transform.level_embedding', layer + 'level_embeds'),
        ('view_transform.camera_embedding', layer + 'cams_embeds'),
        ('view_transform.can_bus_mlp.4.', layer + 'can_bus_mlp.norm.'),
        ('view_transform.can_bus_mlp.', layer + 'can_bus_mlp.'),
        ('view_transform.layers.', layer + 'encoder.layers.'),
        ('decoder.layers.', layer + 'decoder.layers.'),
        ('.self_attention.attention.attention.', '.attentions.0.attn.'),
        ('.self_attention.norm.', '.norms.0.'),
        ('.self_attention.', '.attentions.0.'),
        ('.cross_attention.output_proj', '.attentions.1.output_proj'),
        ('.ffn.linear1.', '.ffns.0.layers.0.0.'),
        ('.ffn.linear2.', '.ffns.0.layers.1.'),
    ]
    published = {}
    for name, value in own.items():
        text = name
        for ours, theirs in swaps:
            text = text.replace(ours, theirs)
        first = 0 if 'encoder.layers' in text else 1
        if 'encoder.layers' in text:
            text = text.replace('.cross_attention.', '.attentions.1.attention.')
        else:
            text = text.replace('.cross_attention.', '.attentions.1.')
        for index in (1, 2, 3):
            text = text.replace(f'.norm{index}.', f'.norms.{index - 1 + first}.')
        published[text] = torch.randn(value.shape) if value.is_floating_point() else value
    return published
