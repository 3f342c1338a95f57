import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gsmap_core.config import ModelConfig
from gsmap_core.errors import CheckpointError
from gsmap_core.images import FrameBatch
from gsmap_core.models import checkpoint
from gsmap_core.models.checkpoint import (
    load_checkpoint,
    load_weights_into,
    read_checkpoint_config,
    save_checkpoint,
)
from gsmap_core.models.mapper import OnlineMapper


def test_a_checkpoint_alone_rebuilds_its_model(
    tmp_path: Path, config: ModelConfig, batch: FrameBatch
) -> None:
    model = OnlineMapper(config).train()
    model(batch)  # moves the running statistics away from their start
    path = tmp_path / 'new_folder' / 'model.safetensors'
    save_checkpoint(path, model, {'steps': '12'})
    assert read_checkpoint_config(path) == config
    loaded = load_checkpoint(path)
    assert loaded.config == config and loaded.metadata == {'steps': '12'}
    assert not loaded.model.training
    with torch.inference_mode():
        expected = model.eval()(batch)
        actual = loaded.model(batch)
    assert torch.equal(actual.points, expected.points)
    assert torch.equal(actual.class_logits, expected.class_logits)
    assert [item.name for item in path.parent.iterdir()] == ['model.safetensors']
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_frozen_backbone_stays_frozen(tmp_path: Path, config: ModelConfig) -> None:
    config = replace(config, backbone=replace(config.backbone, num_frozen_stages=1))
    weights = OnlineMapper(config).image_encoder.backbone.state_dict()
    model = OnlineMapper(config, pretrained_backbone=weights)
    save_checkpoint(tmp_path / 'a.safetensors', model)
    backbone = load_checkpoint(tmp_path / 'a.safetensors').model.image_encoder.backbone
    assert backbone.is_frozen and not backbone.conv1.weight.requires_grad


def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'model.safetensors'
    save_checkpoint(path, OnlineMapper(config))
    before = path.read_bytes()

    def full_disk(tensors, name, metadata):  # type: ignore[no-untyped-def]
        Path(name).write_bytes(b'half a file')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(checkpoint, 'save_file', full_disk)
    with pytest.raises(CheckpointError, match='No space left'):
        save_checkpoint(path, OnlineMapper(config))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unusable_files_are_explained(tmp_path: Path, config: ModelConfig) -> None:
    path = tmp_path / 'model.safetensors'
    with pytest.raises(CheckpointError, match='is not a file'):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match='is not a file'):
        load_checkpoint(tmp_path)
    save_checkpoint(path, OnlineMapper(config))
    content = path.read_bytes()
    for length in (0, 5, 1000, len(content) - 1):
        path.write_bytes(content[:length])
        for function in (load_checkpoint, read_checkpoint_config):
            with pytest.raises(CheckpointError, match=f'{length} bytes.*truncated'):
                function(path)
    path.write_bytes(b'PK\x03\x04' + bytes(100))
    with pytest.raises(CheckpointError, match='not a safetensors file'):
        load_checkpoint(path)
    save_file({'x': torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match='another program'):
        load_checkpoint(path)
    metadata = {'format': checkpoint.FORMAT, 'config': '{"name": "x", "wheels": 4}'}
    save_file({'x': torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="unknown key 'wheels'"):
        read_checkpoint_config(path)


def test_weights_of_another_configuration_list_both_sides(
    tmp_path: Path, config: ModelConfig
) -> None:
    path = tmp_path / 'model.safetensors'
    save_checkpoint(path, OnlineMapper(config))
    smaller = replace(config, bev=replace(config.bev, num_rows=20, num_refine_blocks=0))
    smaller = replace(smaller, decoder=replace(config.decoder, num_layers=3))
    model = OnlineMapper(smaller)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights_into(model, path)
    message = str(caught.value)
    assert 'missing: decoder.class_heads.2' in message
    assert 'unexpected: refine.0.bn1' in message
    assert 'view_transform.bev_embedding.weight (450, 16) instead of (300, 16)' in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    same = OnlineMapper(config)
    load_weights_into(same, path)
    assert torch.equal(same.code_weights, load_file(path)['code_weights'])


def test_weights_that_only_fit_in_shape_are_refused(tmp_path: Path, config: ModelConfig) -> None:
    """An imported model in the lidar frame is no start for one in the ego frame."""
    path = tmp_path / 'model.safetensors'
    official = replace(
        config, reference='lidar', bev=replace(config.bev, order='official'), name='other'
    )
    save_checkpoint(path, OnlineMapper(official))
    with pytest.raises(CheckpointError) as caught:
        load_weights_into(OnlineMapper(config), path)
    message = str(caught.value)
    assert 'reference lidar instead of ego' in message
    assert 'bev.order official instead of ego' in message and 'cameras' not in message
    load_weights_into(OnlineMapper(replace(official, name='third')), path)


def test_reserved_metadata_is_refused(tmp_path: Path, config: ModelConfig) -> None:
    with pytest.raises(CheckpointError, match='config'):
        save_checkpoint(tmp_path / 'a.safetensors', OnlineMapper(config), {'config': ''})
