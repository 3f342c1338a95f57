"""`gsmap export`, `gsmap predict --fuse` and `gsmap evaluate --store-calibration`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from core.cli.tiny_drive import TinyDrive
from helpers.fake_drives import micro_config
from helpers.noisy_streets import NoisyStreet

from gsmap_core.calibration import read_calibration
from gsmap_core.cli.export_map import read_map
from gsmap_core.cli.main import main
from gsmap_core.mapfile import read_map_file, write_map_file
from gsmap_core.mapping.export import fused_map_of
from gsmap_core.mapping.global_map import GlobalMap
from gsmap_core.models.checkpoint import load_checkpoint, save_checkpoint
from gsmap_core.models.mapper import OnlineMapper


@pytest.fixture(scope='module')
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('maps') / 'predictions.map.json'
    write_map_file(path, NoisyStreet(length_m=24.0, step_m=3.0).frames())
    return path


def test_local_maps_are_fused_and_every_format_says_the_same(
    predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fused = tmp_path / 'town.map.json'
    assert main(['export', str(predictions), '--to', 'map.json', '--out', str(fused)]) == 0
    found = fused_map_of(read_map_file(fused))
    assert found is not None and sorted(e.category for e in found.elements) == [0, 2, 2]
    capsys.readouterr()
    for target, ending in (('geojson', '.geojson'), ('lanelet2', '.osm')):
        words = ['export', str(fused), '--to', target, '--origin', '48.1', '11.5', '--json']
        assert main(words) == 0
        summary = json.loads(capsys.readouterr().out)
        assert summary['out'] == str(tmp_path / f'town{ending}') and summary['elements'] == 3
        assert summary['origin']['latitude_deg'] == 48.1
        assert (tmp_path / f'town{ending}').stat().st_size > 1000


def test_the_folder_of_a_map_builder_is_exported(predictions: Path, tmp_path: Path) -> None:
    builder = GlobalMap(folder=tmp_path / 'map' / 'tiles')
    for frame in read_map_file(predictions):
        builder.integrate(frame)
    builder.commit()
    # Still open: a look at it does not disturb the builder.
    assert len(read_map(tmp_path / 'map')) == len(builder.to_vector_map())
    builder.close()


def test_the_map_in_a_bag_is_exported(tmp_path: Path) -> None:
    bag = TinyDrive(num_frames=2).write(tmp_path / 'fake.mcap')
    assert main(['export', str(bag), '--to', 'geojson']) == 0
    content = json.loads((tmp_path / 'fake.geojson').read_text(encoding='utf-8'))
    assert content['frame'] == 'map' and content['features']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['nothing.map.json', '--to', 'geojson'], 'is not there'),
        (['nothing', '--to', 'geojson'], 'is not there'),
        (['{maps}', '--to', 'map.json', '--origin', '1'], '--origin has 1 values'),
        (['{maps}', '--to', 'map.json', '--origin', '91', '0'], 'latitude is 91'),
        (['{maps}', '--to', 'map.json', '--out', '{maps}'], 'would overwrite'),
    ],
)
def test_mistakes_are_named(
    predictions: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace('{maps}', str(predictions)) for word in words]
    assert main(['export', *words]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / 'micro.safetensors'
    save_checkpoint(path, OnlineMapper(micro_config()), {'step': '7'})
    return path


def test_predict_fuses_and_compares(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag, out = TinyDrive(num_frames=3).write(tmp_path / 'fake.mcap'), tmp_path / 'out'
    words = ['--weights', str(checkpoint), '--out', str(out), '--figures', '0', '--fuse']
    assert main(['predict', str(bag), *words, '--json']) == 0
    ((name, fused),) = json.loads(capsys.readouterr().out)['fused'].items()
    assert fused['frames'] == 3 and fused['calibration'] == 'none'
    assert set(fused['quality']['fused']) == {'distance_m', 'completeness', 'correctness'}
    assert fused_map_of(read_map_file(out / f'{name}.fused.map.json')) is not None


def test_evaluate_stores_a_calibration_beside_the_same_tensors(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ten lines a frame, each 0.2 m off and claiming 0.1 m."""
    import gsmap_core.cli.evaluate_model as evaluate_model

    before = load_checkpoint(checkpoint)

    def biased(args: object) -> list[evaluate_model.MappedBag]:
        x = np.linspace(-25.0, 25.0, 20)
        truth = NoisyStreet(sigma_m=0.0).frame(0.0, 0)
        bag = evaluate_model.MappedBag(Path('x.mcap'))
        random = np.random.default_rng(0)
        for index in range(30):
            elements = []
            for element in truth.elements:
                y = float(element.vertices[0, 1])
                noise = 0.2 * random.standard_normal(20)
                elements.append(
                    replace(
                        element,
                        vertices=np.stack([x, y + noise], 1),
                        covariance=np.tile([0.01, 0.0, 0.01], (20, 1)),
                    )
                )
            frame = replace(truth, stamp_ns=index, sample_id=str(index), map_from_base=None)
            flat = [replace(e, score=None, covariance=None) for e in truth.elements]
            bag.pairs.append(
                (replace(frame, elements=tuple(elements)), replace(frame, elements=tuple(flat)))
            )
            bag.indices.append(index)
        return [bag]

    monkeypatch.setattr(evaluate_model, 'map_bags', biased)
    words = ['--weights', str(checkpoint), '--data', 'x', '--store-calibration', '--json']
    assert main(['evaluate', *words]) == 0
    said = json.loads(capsys.readouterr().out)['calibration']
    stored = read_calibration(checkpoint)
    assert stored is not None and stored.sigma_factor == said['sigma_factor']
    assert stored.sigma_factor == pytest.approx(2.0, rel=0.1)
    after = load_checkpoint(checkpoint)
    assert after.config == before.config and after.metadata['step'] == '7'
    for key, tensor in before.model.state_dict().items():
        assert torch.equal(tensor, after.model.state_dict()[key])


def test_a_calibration_needs_a_checkpoint(
    predictions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(predictions), str(predictions), '--store-calibration']
    assert main(['evaluate', *words]) == 2
    assert 'give --weights and --data' in capsys.readouterr().err
