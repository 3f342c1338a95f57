"""Names of the tensors in published MapTR files and what they are called here, by part.

A rule is (pattern of the whole published name, our name); None as our name: a constant that is
rebuilt from the configuration and not stored here. Which tables apply is decided by
`rules_of(config)`; inside, the first match wins.
"""

from __future__ import annotations

from gsmap_core.config import ModelConfig

Rules = tuple[tuple[str, str | None], ...]

_HEAD = r'pts_bbox_head\.'
_TRANSFORMER = _HEAD + r'transformer\.'
_ENCODER = _TRANSFORMER + r'encoder\.layers\.(\d+)\.'
_DECODER = _TRANSFORMER + r'decoder\.layers\.(\d+)\.'
_OWN_ENCODER = r'view_transform.layers.\1.'
_OWN_DECODER = r'decoder.layers.\1.'

IMAGE_ENCODER: Rules = (
    (r'img_backbone\.(.+)', r'image_encoder.backbone.\1'),
    (r'img_neck\.lateral_convs\.(\d+)\.conv\.(.+)', r'image_encoder.neck.lateral.\1.\2'),
    (r'img_neck\.fpn_convs\.0\.conv\.(.+)', r'image_encoder.neck.output.\1'),
)

#: Queries, references and heads: the same in every model of the family.
HEAD: Rules = (
    (_HEAD + r'code_weights', r'code_weights'),
    (_HEAD + r'instance_embedding\.(.+)', r'decoder.instance_embedding.\1'),
    (_HEAD + r'pts_embedding\.(.+)', r'decoder.point_embedding.\1'),
    (_HEAD + r'cls_branches\.(.+)', r'decoder.class_heads.\1'),
    (_HEAD + r'reg_branches\.(.+)', r'decoder.point_heads.\1'),
    (_TRANSFORMER + r'reference_points\.(.+)', r'decoder.reference_points.\1'),
)

#: BEV queries and everything that is added to them, or to the image tokens.
QUERY_EMBEDDINGS: Rules = (
    (_HEAD + r'bev_embedding\.(.+)', r'view_transform.bev_embedding.\1'),
    (_HEAD + r'positional_encoding\.row_embed\.(.+)', r'view_transform.row_embedding.\1'),
    (_HEAD + r'positional_encoding\.col_embed\.(.+)', r'view_transform.column_embedding.\1'),
    (_TRANSFORMER + r'level_embeds', r'view_transform.level_embedding'),
    (_TRANSFORMER + r'cams_embeds', r'view_transform.camera_embedding'),
    (_TRANSFORMER + r'can_bus_mlp\.norm\.(.+)', r'view_transform.can_bus_mlp.4.\1'),
    (_TRANSFORMER + r'can_bus_mlp\.(.+)', r'view_transform.can_bus_mlp.\1'),
)

#: Layers of the attention encoders. The part of the cross-attention that differs is nested one
#: level deeper in the published models, under the name of its kind.
ATTENTION_ENCODER: Rules = (
    # Buffer that only files carry, not the published state dict.
    (_ENCODER + r'attentions\.1\.attention\.grid_offsets', None),
    (_ENCODER + r'attentions\.0\.(.+)', _OWN_ENCODER + r'self_attention.\2'),
    (
        _ENCODER + r'attentions\.1\.(?:attention|deformable_attention)\.(.+)',
        _OWN_ENCODER + r'cross_attention.\2',
    ),
    (_ENCODER + r'attentions\.1\.(.+)', _OWN_ENCODER + r'cross_attention.\2'),
    (_ENCODER + r'ffns\.0\.layers\.0\.0\.(.+)', _OWN_ENCODER + r'ffn.linear1.\2'),
    (_ENCODER + r'ffns\.0\.layers\.1\.(.+)', _OWN_ENCODER + r'ffn.linear2.\2'),
    (_ENCODER + r'norms\.0\.(.+)', _OWN_ENCODER + r'norm1.\2'),
    (_ENCODER + r'norms\.1\.(.+)', _OWN_ENCODER + r'norm2.\2'),
    (_ENCODER + r'norms\.2\.(.+)', _OWN_ENCODER + r'norm3.\2'),
)

#: Decoder layers with joint self-attention (MapTR).
JOINT_DECODER: Rules = (
    (
        _DECODER + r'attentions\.0\.attn\.(.+)',
        _OWN_DECODER + r'self_attention.attention.attention.\2',
    ),
    (_DECODER + r'attentions\.1\.(.+)', _OWN_DECODER + r'cross_attention.\2'),
    (_DECODER + r'ffns\.0\.layers\.0\.0\.(.+)', _OWN_DECODER + r'ffn.linear1.\2'),
    (_DECODER + r'ffns\.0\.layers\.1\.(.+)', _OWN_DECODER + r'ffn.linear2.\2'),
    (_DECODER + r'norms\.0\.(.+)', _OWN_DECODER + r'self_attention.norm.\2'),
    (_DECODER + r'norms\.1\.(.+)', _OWN_DECODER + r'norm1.\2'),
    (_DECODER + r'norms\.2\.(.+)', _OWN_DECODER + r'norm2.\2'),
)


def rules_of(config: ModelConfig) -> Rules:
    """Return the rules for the published model that a configuration describes."""
    rules = IMAGE_ENCODER + HEAD
    if config.bev.view_transform in ('gkt', 'bevformer'):
        rules += QUERY_EMBEDDINGS + ATTENTION_ENCODER
    if config.decoder.self_attention == 'joint':
        rules += JOINT_DECODER
    return rules
