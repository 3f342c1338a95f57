"""Scoring while a model trains: streams as the vehicle has them, single frames in batches."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config
from helpers.painted_drive import PaintedDrive

from gsmap_core.config import FusionConfig
from gsmap_core.data.loading import MapDataset
from gsmap_core.models.checkpoint import save_checkpoint
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.runtime.predictor import Predictor
from gsmap_core.training import validation
from gsmap_core.training.validation import validate

CPU = torch.device('cpu')


def random_model(config):
    torch.manual_seed(3)
    model = OnlineMapper(config).eval()
    with torch.no_grad():
        # Scores that differ, and memories that matter.
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def predictions_of(model, data, config, monkeypatch):
    """Return the maps that `validate` scores."""
    maps = []
    original = validation.to_vector_maps

    def recorded(*args, **options):
        maps.extend(original(*args, **options))
        return maps[-len(options['stamps_ns']) :]

    monkeypatch.setattr(validation, 'to_vector_maps', recorded)
    result = validate(model, data, config, device=CPU, batch_size=4)
    monkeypatch.undo()
    return maps, result


def assert_same_maps(first, second, **tolerance):
    assert first.stamp_ns == second.stamp_ns
    assert len(first.elements) == len(second.elements) > 0
    for one, other in zip(first.elements, second.elements, strict=True):
        assert one.category == other.category
        assert one.score == pytest.approx(other.score, abs=1e-5)
        np.testing.assert_allclose(one.vertices, other.vertices, **tolerance)


@pytest.mark.parametrize('kind', ['streaming', 'keyframe_streaming', 'keyframe_stacking'])
def test_streams_are_scored_as_the_vehicle_maps_them(tmp_path, monkeypatch, kind):
    fusion = FusionConfig(kind=kind, num_previous=2, num_candidates=3)
    config = replace(micro_config(num_layers=1), fusion=fusion)
    model = random_model(config)
    drives = [PaintedDrive(9), PaintedDrive(4, 1)]
    data = MapDataset(drives, config)
    maps, result = predictions_of(model, data, config, monkeypatch)
    assert len(maps) == 13 and np.isfinite(list(result.losses.values())).all()
    save_checkpoint(tmp_path / 'model.safetensors', model, {})
    predictor = Predictor(tmp_path / 'model.safetensors', device='cpu', closing_distance_m=0.0)
    streamed = []
    for drive in drives:
        predictor.reset()
        streamed += [predictor.predict(drive.frame(index)) for index in range(len(drive))]
    for scored, mapped in zip(maps, streamed, strict=True):
        assert_same_maps(scored, mapped, atol=1e-3)
    # The memory is at work, and the first frame of a drive has none.
    for index, has_memory in ((8, True), (9, False)):
        predictor.reset()
        number, position = data.frames[index]
        alone = predictor.predict(drives[number].frame(position))
        moved = np.abs(alone.elements[0].vertices - maps[index].elements[0].vertices).max()
        assert (moved > 1e-2) == has_memory


def test_single_frames_are_scored_in_batches(monkeypatch):
    config = micro_config(num_layers=1)
    model = random_model(config)
    sizes = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    data = MapDataset([FakeDrive(3), FakeDrive(3, 1)], config)
    maps, _ = predictions_of(model, data, config, monkeypatch)
    assert sizes == [4, 2] and len(maps) == 6
