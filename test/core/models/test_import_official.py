"""Published names and files (golden/maptr/keys_*.json)."""

import json
from pathlib import Path

import pytest
import torch
from helpers.official import SMALL, published_state

from gsmap_core.config import load_model_config, load_official_config
from gsmap_core.errors import CheckpointError, ConfigError
from gsmap_core.models.import_official import convert_official, import_official, own_name
from gsmap_core.models.mapper import OnlineMapper, parameter_report

#: Published configuration -> the configuration here that its weights belong to.
CONFIGS = {
    'maptr_tiny_r50_24e': 'maptr_r50',
    'maptr_tiny_r50_110e': 'maptr_r50',
    'maptr_tiny_r50_24e_bevpool': 'maptr_bevpool_r50',
    'maptrv2_nusc_r50_24ep': 'maptrv2_r50',
    'maptrv2_nusc_r50_24ep_w_centerline': 'maptrv2_r50_centerline',
    'maptrv2_av2_3d_r50_6ep': 'maptrv2_av2_3d_r50',
    'maptrv2_av2_3d_r50_6ep_w_centerline': 'maptrv2_av2_3d_r50_centerline',
    'maptr_tiny_r50_24e_bevformer': 'maptr_bevformer_r50',
    'maptr_tiny_r50_24e_t4': 'maptr_t4_r50',
    'maptr_tiny_r50_24e_bevformer_t4': 'maptr_bevformer_t4_r50',
    'maptr_nano_r18_110e': 'maptr_nano_r18',
    'maptr_tiny_r50_av2_24e': 'maptr_av2_r50',
}


@pytest.mark.golden
@pytest.mark.parametrize('published', CONFIGS)
def test_golden_maptr_names_and_shapes_of_the_full_model(golden_dir, published: str) -> None:
    """Every tensor of a published model has exactly one place of the same shape here."""
    listed = json.loads((golden_dir / 'maptr' / f'keys_{published}.json').read_text())
    config = load_official_config(CONFIGS[published])
    with torch.device('meta'):
        own = OnlineMapper(config).state_dict()
    mapped = {own_name(name, config): tuple(s) for name, s in listed['state_dict'].items()}
    assert len(mapped) == len(listed['state_dict'])
    assert mapped == {name: tuple(value.shape) for name, value in own.items()}
    for name in listed['extra_keys_in_saved_checkpoint']:
        assert own_name(name, config) is None
    # Our own configuration has the same size: the official options cost no parameter.
    for either in (config, load_model_config(CONFIGS[published])):
        report = parameter_report(either)
        assert report['total_parameters'] == listed['num_parameters']
        assert report['trainable_parameters'] == listed['num_trainable_parameters']


def test_constants_of_saved_files_are_skipped_and_strangers_refused() -> None:
    config = load_official_config('maptr_r50')
    layer = 'module.pts_bbox_head.transformer.encoder.layers.0.attentions.1.attention.'
    assert own_name(layer + 'grid_offsets', config) is None
    assert own_name(layer + 'value_proj.bias', config) == (
        'view_transform.layers.0.cross_attention.value_proj.bias'
    )
    with pytest.raises(CheckpointError, match='pts_bbox_head.wheels'):
        own_name('pts_bbox_head.wheels', config)


def test_the_cell_order_must_be_the_published_one() -> None:
    with pytest.raises(CheckpointError, match="bev.order 'ego'"):
        convert_official({}, load_model_config('maptr_r50'))


def test_a_configuration_without_published_weights_says_which_have_some() -> None:
    with pytest.raises(ConfigError, match=r"maptr_tiny.*no section 'official'.*maptr_r50"):
        load_official_config('maptr_tiny')


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / 'maptr_small.yaml'
    path.write_text(SMALL)
    return path


def test_a_saved_file_becomes_a_model(tmp_path: Path, small: Path) -> None:
    """As mmcv saves: meta and optimizer beside the tensors, a wrapper's prefix, constants."""
    config = load_official_config(str(small))
    assert config.reference == 'lidar' and config.bev.num_rows == 6
    assert load_model_config(str(small)).reference == 'ego'
    tensors = published_state(config)
    layer = 'pts_bbox_head.transformer.encoder.layers.0.attentions.1.'
    state = {f'module.{name}': value for name, value in tensors.items()}
    state[f'module.{layer}attention.grid_offsets'] = torch.zeros(15, 2, dtype=torch.int64)
    path = tmp_path / 'epoch_24.pth'
    meta = {'epoch': 24, 'config': 'text', 'CLASSES': None}
    torch.save({'meta': meta, 'state_dict': state, 'optimizer': {'state': {}}}, path)
    model = import_official(path, str(small))
    assert not model.training and model.image_encoder.backbone.is_frozen
    found = model.view_transform.layers[0].cross_attention.output_proj.weight
    assert torch.equal(found, tensors[f'{layer}output_proj.weight'])
    found = model.decoder.layers[0].norm2.bias
    assert torch.equal(found, tensors['pts_bbox_head.transformer.decoder.layers.0.norms.2.bias'])


def test_everything_that_does_not_fit_is_in_one_message(tmp_path: Path, small: Path) -> None:
    tensors = published_state(load_official_config(str(small)))
    del tensors['img_backbone.conv1.weight']
    tensors['pts_bbox_head.wheels'] = torch.zeros(4)
    tensors['pts_bbox_head.code_weights'] = torch.zeros(5)
    torch.save(tensors, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError) as caught:
        import_official(tmp_path / 'a.pth', str(small))
    message = str(caught.value)
    assert 'a.pth' in message and "configuration 'maptr_small'" in message
    assert '1 missing (our names): image_encoder.backbone.conv1.weight' in message
    assert '1 unexpected: pts_bbox_head.wheels' in message
    assert 'pts_bbox_head.code_weights (5,) instead of (4,)' in message
