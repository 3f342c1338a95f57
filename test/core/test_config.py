"""Configurations are read strictly, with the file and key in every refusal."""

import pytest

from gsmap_core.config import (
    ModelConfig,
    load_model_config,
    model_config_from_dict,
    read_yaml,
    to_plain,
)
from gsmap_core.errors import ConfigError


def test_plain_values_round_trip():
    config = model_config_from_dict({'bev': {'num_rows': 50}, 'range': {'x_min': -20}}, 'x')
    assert config.bev.num_rows == 50 and config.range.x_min == -20.0
    assert model_config_from_dict(to_plain(config), 'again') == config


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'bev': {'num_row': 1}}, r"a.yaml.bev: unknown key 'num_row' \(did you mean 'num_rows'"),
        ({'bev': {'num_rows': 1.5}}, r'a.yaml.bev.num_rows: 1.5 is a float; expected int'),
        ({'embed_dims': True}, r'a.yaml.embed_dims: True is a bool; expected int'),
        ({'bev': {'view_transform': 'ipm'}}, "a.yaml.bev.view_transform: 'ipm' is not allowed"),
        ({'decoder': 3}, 'a.yaml.decoder: 3 is a int; expected DecoderConfig'),
        ({'categories': ['kerb']}, "category 'kerb': unknown"),
        ({'image': {'width_px': 100}}, 'expected positive multiples of 32'),
        ({'embed_dims': 30}, 'not a multiple of decoder.num_heads 8'),
        ({'backbone': {'num_blocks': [1, 2]}}, 'has 2 entries; expected 4'),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        model_config_from_dict(values, 'a.yaml')


def test_files_that_are_no_mapping(tmp_path):
    with pytest.raises(ConfigError, match='cannot be read'):
        read_yaml(tmp_path / 'none.yaml')
    (tmp_path / 'list.yaml').write_text('- 1')
    with pytest.raises(ConfigError, match='holds a list'):
        read_yaml(tmp_path / 'list.yaml')
    (tmp_path / 'bad.yaml').write_text('a: [1')
    with pytest.raises(ConfigError, match='not valid YAML'):
        read_yaml(tmp_path / 'bad.yaml')


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match='maptr_r50'):
        load_model_config('maptr_huge')


@pytest.mark.parametrize('name', ['maptr_r50', 'maptr_tiny', 'maptr_mini'])
def test_shipped_configurations_load(name):
    config = load_model_config(name)
    assert isinstance(config, ModelConfig) and config.name == name
