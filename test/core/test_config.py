"""Configurations are read strictly, with the file and key in every refusal."""

from dataclasses import replace

import pytest

from gsmap_core.config import (
    OFFICIAL_SECTION,
    ModelConfig,
    RasterLossConfig,
    load_model_config,
    load_official_config,
    model_config_from_dict,
    read_yaml,
    to_plain,
)
from gsmap_core.errors import ConfigError
from gsmap_core.resources import resource_dir

SHIPPED = sorted((resource_dir('config') / 'models').glob('*.yaml'))


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


@pytest.mark.parametrize('size', ['r50', 'tiny', 'mini'])
def test_mapvr_is_maptr_with_masks_in_cost_and_loss(size):
    """reference-models.md, 4: what MapVR changes, and nothing else."""
    config, base = load_model_config(f'mapvr_{size}'), load_model_config(f'maptr_{size}')
    assert (config.matching.points, config.matching.raster) == (1.0, 10.0)
    losses = config.losses
    assert (losses.points, losses.raster, losses.direction) == (1.0, 15.0, 0.002)
    assert losses.direction_kind == 'smoothness' and config.decoder.dropout == 0.0
    assert (losses.raster_options.measure, losses.raster_options.target) == ('dice', 'soft')
    # The canvas of the loss is twice that of the cost, and both grow with the grid.
    assert losses.raster_options.rows == 2 * config.matching.raster_rows
    assert losses.raster_options.columns * 2 == losses.raster_options.rows
    assert config.matching.raster_columns * 2 == config.matching.raster_rows
    assert config.matching.raster_rows / config.bev.num_rows == pytest.approx(0.64, abs=0.03)
    same = replace(
        config,
        name=base.name,
        matching=base.matching,
        losses=replace(base.losses, bev_segmentation=losses.bev_segmentation),
        decoder=replace(config.decoder, dropout=base.decoder.dropout),
    )
    assert same == base


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load(path):
    config = load_model_config(path.stem)
    assert isinstance(config, ModelConfig) and config.name == path.stem
    # Our own frame and cell order in all of them; published weights bring theirs.
    assert config.reference == 'ego' and config.bev.order == 'ego'
    if OFFICIAL_SECTION in read_yaml(path):
        official = load_official_config(path.stem)
        assert official.bev.order == 'official'
        assert official.bev.num_rows * official.bev.num_columns == (
            config.bev.num_rows * config.bev.num_columns
        )
        assert official.decoder == config.decoder and official.image == config.image


def test_official_section_is_read_strictly_and_merged(tmp_path):
    path = tmp_path / 'mine.yaml'
    text = 'bev: {num_rows: 40, num_columns: 20}\nofficial: {bev: {order: official}, name: x}\n'
    path.write_text(text)
    assert load_model_config(str(path)).bev.order == 'ego'
    official = load_official_config(str(path))
    assert (official.bev.order, official.bev.num_rows, official.name) == ('official', 40, 'x')
    path.write_text(text.replace('order: official', 'order: officious'))
    with pytest.raises(ConfigError, match=r"mine.yaml with official.bev.order: 'officious'"):
        load_official_config(str(path))


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'num_cameras': 2, 'cameras': ['a']}, 'expected num_cameras 2 different names'),
        ({'num_cameras': 2, 'cameras': ['a', 'a']}, 'expected num_cameras 2 different names'),
        ({'bev': {'can_bus_inputs': 19}}, 'can_bus_inputs 19; expected 1 to 18'),
        ({'bev': {'view_transform': 'bevformer', 'num_heads': 7}}, 'bev.num_heads 7'),
    ],
)
def test_impossible_combinations_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        model_config_from_dict(values, 'a.yaml')


@pytest.mark.parametrize(
    ('name', 'host'),
    [
        ('gsmap_r50', 'maptr_r50'), ('gsmap_tiny', 'maptr_tiny'), ('gsmap_mini', 'maptr_mini'),
        ('gsmap_v2_r50', 'maptrv2_r50'), ('gsmap_v2_tiny', 'maptrv2_tiny'),
        ('gsmap_v2_mini', 'maptrv2_mini'),
    ],
)  # fmt: skip
def test_gsmap_is_its_host_with_gaussians(name, host):
    """GSMap, eq. 9 and 10, with the weights of reference-models.md, 9.1."""
    config, base = load_model_config(name), load_model_config(host)
    assert config.representation == 'gaussians'
    assert (config.matching.raster, config.losses.raster) == (10.0, 10.0)
    plain = replace(
        config,
        name=host,
        representation='points',
        matching=base.matching,
        losses=replace(config.losses, raster=0.0, raster_options=base.losses.raster_options),
    )
    assert plain == base
    # Both canvases have square pixels, and the published size keeps the defaults.
    assert config.matching.raster_rows == 2 * config.matching.raster_columns
    assert config.losses.raster_options.rows == 2 * config.losses.raster_options.columns
    if name.endswith('r50'):
        assert config.losses.raster_options == RasterLossConfig()


def test_a_file_may_hold_only_what_differs(tmp_path):
    (tmp_path / 'base.yaml').write_text(
        'extends: maptr_mini\nembed_dims: 24\nbev: {num_rows: 8}\n'
    )
    (tmp_path / 'mine.yaml').write_text('extends: base.yaml\nbev: {num_columns: 4}\n')
    config, mini = load_model_config(str(tmp_path / 'mine.yaml')), load_model_config('maptr_mini')
    assert (config.name, config.embed_dims) == ('mine', 24)
    assert config.bev == replace(mini.bev, num_rows=8, num_columns=4)
    assert config.decoder == mini.decoder


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('extends: a.yaml\n', 'extends itself'),
        ('extends: [maptr_mini]\n', 'expected the name of a configuration'),
        ('extends: maptr_giant\n', "'maptr_giant' is unknown"),
        ('extends: maptr_mini\nembed_dim: 3\n', "unknown key 'embed_dim'"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path, text, message):
    path = tmp_path / 'a.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_model_config(str(path))
