"""Names of the published MapTR tensors (GKT encoder) and what they are called here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from gsmap_core.config import ModelConfig
from gsmap_core.errors import CheckpointError

_HEAD = r'pts_bbox_head\.'
_TRANSFORMER = _HEAD + r'transformer\.'
_ENCODER = _TRANSFORMER + r'encoder\.layers\.(\d+)\.'
_DECODER = _TRANSFORMER + r'decoder\.layers\.(\d+)\.'

#: (pattern of the published name, our name), first match wins. Decoder rules are those of joint
#: self-attention.
_RULES: tuple[tuple[str, str], ...] = (
    (r'img_backbone\.(.+)', r'image_encoder.backbone.\1'),
    (r'img_neck\.lateral_convs\.(\d+)\.conv\.(.+)', r'image_encoder.neck.lateral.\1.\2'),
    (r'img_neck\.fpn_convs\.0\.conv\.(.+)', r'image_encoder.neck.output.\1'),
    (_HEAD + r'code_weights', r'code_weights'),
    (_HEAD + r'positional_encoding\.row_embed\.(.+)', r'view_transform.row_embedding.\1'),
    (_HEAD + r'positional_encoding\.col_embed\.(.+)', r'view_transform.column_embedding.\1'),
    (_HEAD + r'bev_embedding\.(.+)', r'view_transform.bev_embedding.\1'),
    (_HEAD + r'instance_embedding\.(.+)', r'decoder.instance_embedding.\1'),
    (_HEAD + r'pts_embedding\.(.+)', r'decoder.point_embedding.\1'),
    (_HEAD + r'cls_branches\.(.+)', r'decoder.class_heads.\1'),
    (_HEAD + r'reg_branches\.(.+)', r'decoder.point_heads.\1'),
    (_TRANSFORMER + r'level_embeds', r'view_transform.level_embedding'),
    (_TRANSFORMER + r'cams_embeds', r'view_transform.camera_embedding'),
    (_TRANSFORMER + r'reference_points\.(.+)', r'decoder.reference_points.\1'),
    (_TRANSFORMER + r'can_bus_mlp\.norm\.(.+)', r'view_transform.can_bus_mlp.4.\1'),
    (_TRANSFORMER + r'can_bus_mlp\.(.+)', r'view_transform.can_bus_mlp.\1'),
    (_ENCODER + r'attentions\.0\.(.+)', r'view_transform.layers.\1.self_attention.\2'),
    (
        _ENCODER + r'attentions\.1\.attention\.(.+)',
        r'view_transform.layers.\1.cross_attention.\2',
    ),
    (_ENCODER + r'attentions\.1\.(.+)', r'view_transform.layers.\1.cross_attention.\2'),
    (_ENCODER + r'ffns\.0\.layers\.0\.0\.(.+)', r'view_transform.layers.\1.ffn.linear1.\2'),
    (_ENCODER + r'ffns\.0\.layers\.1\.(.+)', r'view_transform.layers.\1.ffn.linear2.\2'),
    (_ENCODER + r'norms\.0\.(.+)', r'view_transform.layers.\1.norm1.\2'),
    (_ENCODER + r'norms\.1\.(.+)', r'view_transform.layers.\1.norm2.\2'),
    (_ENCODER + r'norms\.2\.(.+)', r'view_transform.layers.\1.norm3.\2'),
    (
        _DECODER + r'attentions\.0\.attn\.(.+)',
        r'decoder.layers.\1.self_attention.attention.attention.\2',
    ),
    (_DECODER + r'attentions\.1\.(.+)', r'decoder.layers.\1.cross_attention.\2'),
    (_DECODER + r'ffns\.0\.layers\.0\.0\.(.+)', r'decoder.layers.\1.ffn.linear1.\2'),
    (_DECODER + r'ffns\.0\.layers\.1\.(.+)', r'decoder.layers.\1.ffn.linear2.\2'),
    (_DECODER + r'norms\.0\.(.+)', r'decoder.layers.\1.self_attention.norm.\2'),
    (_DECODER + r'norms\.1\.(.+)', r'decoder.layers.\1.norm1.\2'),
    (_DECODER + r'norms\.2\.(.+)', r'decoder.layers.\1.norm2.\2'),
)
_COMPILED = tuple((re.compile(pattern), ours) for pattern, ours in _RULES)

#: Saved files carry this constant beside the state dict; it is rebuilt from the configuration
#: here.
_IGNORED = re.compile(_ENCODER + r'attentions\.1\.attention\.grid_offsets')


def own_name(published: str) -> str | None:
    """Return our name of a published tensor, or None if it is a constant that is not stored here.

    Raises:
        CheckpointError: the name is not one of the published MapTR (GKT) tensors.
    """
    name = published.removeprefix('module.')
    if _IGNORED.fullmatch(name):
        return None
    for pattern, ours in _COMPILED:
        match = pattern.fullmatch(name)
        if match:
            return match.expand(ours)
    raise CheckpointError(
        f"tensor '{published}' is not one of the published MapTR (GKT) model; give a checkpoint "
        'of maptr_tiny_r50 or its like'
    )


def convert_official(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Rename the tensors of a published MapTR (GKT) state dict.

    Args:
        tensors: published names to tensors.
        config: the model they are meant for; its grid must be in the published order.

    Raises:
        CheckpointError: the configuration's grid is in another order, or names are unknown (all
            are listed).
    """
    if config.bev.order != 'official':
        raise CheckpointError(
            f"published weights need the published cell order and '{config.name}' has bev.order "
            f"'{config.bev.order}'; "
            "use a configuration with bev.order 'official'"
        )
    converted: dict[str, Tensor] = {}
    unknown: list[str] = []
    for published, tensor in tensors.items():
        try:
            name = own_name(published)
        except CheckpointError:
            unknown.append(published)
            continue
        if name is not None:
            converted[name] = tensor
    if unknown:
        raise CheckpointError(
            f'{len(unknown)} tensors are not of the published MapTR (GKT) model: '
            f'{", ".join(sorted(unknown))}'
        )
    return converted
