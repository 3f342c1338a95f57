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


#: Decoder layers with decoupled self-attention (MapTRv2).
DECOUPLED_DECODER: Rules = (
    (
        _DECODER + r'attentions\.0\.attn\.(.+)',
        _OWN_DECODER + r'self_attention.between_instances.attention.\2',
    ),
    (
        _DECODER + r'attentions\.1\.attn\.(.+)',
        _OWN_DECODER + r'self_attention.within_instance.attention.\2',
    ),
    (_DECODER + r'attentions\.2\.(.+)', _OWN_DECODER + r'cross_attention.\2'),
    (_DECODER + r'ffns\.0\.layers\.0\.0\.(.+)', _OWN_DECODER + r'ffn.linear1.\2'),
    (_DECODER + r'ffns\.0\.layers\.1\.(.+)', _OWN_DECODER + r'ffn.linear2.\2'),
    (_DECODER + r'norms\.0\.(.+)', _OWN_DECODER + r'self_attention.norm1.\2'),
    (_DECODER + r'norms\.1\.(.+)', _OWN_DECODER + r'self_attention.norm2.\2'),
    (_DECODER + r'norms\.2\.(.+)', _OWN_DECODER + r'norm1.\2'),
    (_DECODER + r'norms\.3\.(.+)', _OWN_DECODER + r'norm2.\2'),
)

_LSS = _TRANSFORMER + r'encoder\.'
_DEPTH_NET = _LSS + r'depth_net\.'
_PYRAMID = _DEPTH_NET + r'depth_conv\.3\.'
_OWN_DEPTH_NET = r'view_transform.depth_net.'
_OWN_PYRAMID = _OWN_DEPTH_NET + r'depth_pyramid.'

#: Lift-splat encoder, either depth network.
LSS_ENCODER: Rules = (
    (_LSS + r'dx', r'view_transform.voxel_size'),
    (_LSS + r'bx', r'view_transform.first_voxel'),
    (_LSS + r'nx', r'view_transform.num_voxels'),
    (_LSS + r'downsample\.(.+)', r'view_transform.down_sampler.\1'),
    (_LSS + r'depthnet\.(.+)', _OWN_DEPTH_NET + r'output.\1'),
    (_DEPTH_NET + r'reduce_conv\.0\.(.+)', _OWN_DEPTH_NET + r'reduce.\1'),
    (_DEPTH_NET + r'reduce_conv\.1\.(.+)', _OWN_DEPTH_NET + r'reduce_norm.\1'),
    (_DEPTH_NET + r'bn\.(.+)', _OWN_DEPTH_NET + r'camera_norm.\1'),
    (_DEPTH_NET + r'context_conv\.(.+)', _OWN_DEPTH_NET + r'context_output.\1'),
    (_DEPTH_NET + r'(context|depth)_mlp\.fc(\d)\.(.+)', _OWN_DEPTH_NET + r'\1_gate.mlp\2.\3'),
    (
        _DEPTH_NET + r'(context|depth)_se\.conv_(reduce|expand)\.(.+)',
        _OWN_DEPTH_NET + r'\1_gate.\2.\3',
    ),
    (_DEPTH_NET + r'depth_conv\.([0-2])\.(.+)', _OWN_DEPTH_NET + r'depth_blocks.\1.\2'),
    *(
        rule
        for branch in range(4)
        for rule in (
            (
                _PYRAMID + rf'aspp{branch + 1}\.atrous_conv\.(.+)',
                _OWN_PYRAMID + rf'branches.{branch}.\1',
            ),
            (
                _PYRAMID + rf'aspp{branch + 1}\.bn\.(.+)',
                _OWN_PYRAMID + rf'branch_norms.{branch}.\1',
            ),
        )
    ),
    (_PYRAMID + r'global_avg_pool\.1\.(.+)', _OWN_PYRAMID + r'pool.\1'),
    (_PYRAMID + r'global_avg_pool\.2\.(.+)', _OWN_PYRAMID + r'pool_norm.\1'),
    (_PYRAMID + r'conv1\.(.+)', _OWN_PYRAMID + r'merge.\1'),
    (_PYRAMID + r'bn1\.(.+)', _OWN_PYRAMID + r'merge_norm.\1'),
    (_DEPTH_NET + r'depth_conv\.4\.(.+)', _OWN_DEPTH_NET + r'depth_output.\1'),
)

#: Mask heads, which train only (MapTRv2).
MASK_HEADS: Rules = (
    (_HEAD + r'seg_head\.(.+)', r'mask_head.\1'),
    (_HEAD + r'pv_seg_head\.(.+)', r'pv_mask_head.\1'),
)

#: What the models with LSS store without using it: embeddings of the other encoders, constants.
OFFICIAL_ONLY: Rules = (
    *(
        (theirs, ours.replace('view_transform', 'official_only'))
        for theirs, ours in QUERY_EMBEDDINGS
        if ours is not None and 'bev_embedding' not in ours
    ),
    (_HEAD + r'loss_seg\.loss_fn\.pos_weight', r'official_only.bev_positive_weight'),
    (_HEAD + r'loss_pv_seg\.loss_fn\.pos_weight', r'official_only.pv_positive_weight'),
)


def rules_of(config: ModelConfig) -> Rules:
    """Return the rules for the published model that a configuration describes."""
    rules = IMAGE_ENCODER + HEAD
    if config.bev.view_transform in ('gkt', 'bevformer'):
        rules += QUERY_EMBEDDINGS + ATTENTION_ENCODER
    if config.bev.view_transform == 'lss':
        rules += LSS_ENCODER
    if config.official_only:
        rules += OFFICIAL_ONLY
    joint = config.decoder.self_attention == 'joint'
    return rules + MASK_HEADS + (JOINT_DECODER if joint else DECOUPLED_DECODER)
