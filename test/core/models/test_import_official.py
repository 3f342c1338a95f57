"""Names of the full-size published models (golden/maptr/keys_*.json)."""

import json

import pytest
import torch

from gsmap_core.config import load_model_config
from gsmap_core.errors import CheckpointError
from gsmap_core.models.import_official import convert_official, own_name
from gsmap_core.models.mapper import OnlineMapper


@pytest.mark.golden
def test_golden_maptr_names_and_shapes_of_the_full_model(golden_dir) -> None:
    """Every tensor of MapTR-tiny R50 has exactly one place of the same shape in maptr_r50."""
    listed = json.loads((golden_dir / 'maptr' / 'keys_maptr_tiny_r50_24e.json').read_text())
    published = {name: tuple(shape) for name, shape in published_shapes(listed).items()}
    with torch.device('meta'):
        own = OnlineMapper(load_model_config('maptr_r50')).state_dict()
    mapped = {own_name(name): shape for name, shape in published.items()}
    assert mapped == {name: tuple(value.shape) for name, value in own.items()}


def published_shapes(listed: dict) -> dict[str, list[int]]:
    return listed['state_dict']


def test_constants_of_saved_files_are_skipped_and_strangers_refused() -> None:
    layer = 'module.pts_bbox_head.transformer.encoder.layers.0.attentions.1.attention.'
    assert own_name(layer + 'grid_offsets') is None
    assert own_name(layer + 'value_proj.bias') == (
        'view_transform.layers.0.cross_attention.value_proj.bias'
    )
    with pytest.raises(CheckpointError, match='pts_bbox_head.wheels'):
        own_name('pts_bbox_head.wheels')


def test_the_cell_order_must_be_the_published_one() -> None:
    with pytest.raises(CheckpointError, match="bev.order 'ego'"):
        convert_official({}, load_model_config('maptr_r50'))
