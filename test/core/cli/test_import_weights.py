"""`gsmap import-weights`, from the file of the authors to a checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from helpers.official import SMALL, published_state

from gsmap_core.cli.main import main
from gsmap_core.config import load_official_config
from gsmap_core.models.checkpoint import load_checkpoint


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / 'maptr_small.yaml'
    path.write_text(SMALL)
    return path


def test_a_published_file_becomes_a_checkpoint(
    tmp_path: Path, config_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = published_state(load_official_config(str(config_path)))
    source = tmp_path / 'epoch_24.pth'
    torch.save({'meta': {'epoch': 24}, 'state_dict': tensors}, source)
    assert main(['import-weights', str(source), '--config', str(config_path), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['checkpoint'] == str(tmp_path / 'epoch_24.safetensors')
    assert report['official_options']['reference'] == 'lidar'
    assert report['official_options']['bev.order'] == 'official'
    loaded = load_checkpoint(report['checkpoint'])
    assert loaded.config == load_official_config(str(config_path))
    assert loaded.metadata['source'] == 'epoch_24.pth'
    published = tensors['pts_bbox_head.bev_embedding.weight']
    assert torch.equal(loaded.model.view_transform.bev_embedding.weight, published)


def test_the_source_is_never_overwritten(
    tmp_path: Path, config_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / 'weights.safetensors'
    source.write_bytes(b'something')
    assert main(['import-weights', str(source), '--config', str(config_path)]) == 2
    assert 'give another --out' in capsys.readouterr().err
    assert source.read_bytes() == b'something'
