"""The Predictor: a checkpoint and a camera set make a map; what is wrong is said."""

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config

from gsmap_core.errors import CheckpointError, ConfigError
from gsmap_core.models.checkpoint import save_checkpoint
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.runtime.predictor import Predictor, resolve_device, resolve_weights
from gsmap_core.structures import SurroundFrame


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'micro.safetensors'
    save_checkpoint(path, OnlineMapper(micro_config()), {'trained_on': 'nothing'})
    return path


def vertices(vector_map):
    return np.concatenate([element.vertices for element in vector_map.elements])


def test_a_frame_becomes_a_map_with_its_stamp(checkpoint):
    frame = FakeDrive(seed=1).frame(1)
    predictor = Predictor(checkpoint, device='cpu')
    result = predictor.predict(frame)
    assert result.stamp_ns == frame.stamp_ns and result.scene == frame.scene
    assert result.reference == 'ego' and len(result) > 0
    scores = [element.score for element in result.elements]
    assert scores == sorted(scores, reverse=True)
    area = predictor.config.range
    xy = vertices(result)[:, :2]
    assert xy.min(axis=0)[0] >= area.x_min and xy.max(axis=0)[0] <= area.x_max
    # Asked again, the same answer: nothing is carried from frame to frame without fusion.
    assert np.array_equal(vertices(predictor.predict(frame)), vertices(result))


def test_rows_of_a_batch_do_not_see_each_other(checkpoint):
    frames = [FakeDrive(seed=seed).frame(0) for seed in (1, 2)]
    predictor = Predictor(checkpoint, device='cpu')
    together = predictor.predict_batch(frames)
    for frame, expected in zip(frames, together, strict=True):
        alone = predictor.predict(frame)
        assert np.allclose(vertices(alone), vertices(expected), atol=1e-3)


def test_any_number_of_cameras_and_a_missing_one(checkpoint):
    predictor = Predictor(checkpoint, device='cpu')
    for num_cameras in (1, 6, 7):
        drive = FakeDrive(num_cameras=num_cameras)
        predictor.warm_up(drive.rig)
        frame = drive.frame(0)
        full = predictor.predict(frame)
        images = (None, *frame.images[1:])
        partial = predictor.predict(SurroundFrame(frame.stamp_ns, frame.rig, images))
        assert len(full) and len(partial)
        assert np.isfinite(vertices(partial)).all()


def test_threshold_is_checked_and_applied(checkpoint):
    predictor = Predictor(checkpoint, device='cpu')
    frame = FakeDrive().frame(0)
    scores = [element.score for element in predictor.predict(frame).elements]
    predictor.score_threshold = scores[3]
    assert [e.score for e in predictor.predict(frame).elements] == [
        score for score in scores if score >= scores[3]
    ]
    with pytest.raises(ConfigError, match='score threshold 1.5'):
        predictor.score_threshold = 1.5


def test_bf16_stays_close(checkpoint):
    frame = FakeDrive().frame(0)
    exact = Predictor(checkpoint, device='cpu').model
    half = Predictor(checkpoint, device='cpu', precision='bf16')
    result = half.predict(frame)
    assert len(result) and exact.training is False
    with pytest.raises(ConfigError, match="'fp8'"):
        Predictor(checkpoint, precision='fp8')


def test_info_names_the_weights(checkpoint):
    info = Predictor(checkpoint, device='cpu').info
    assert info['model'] == 'micro' and info['weights'] == 'micro.safetensors'
    assert len(info['sha256']) == 16 and info['device'] == 'cpu'


def test_missing_weights_list_the_shipped_ones():
    with pytest.raises(CheckpointError, match="'nowhere' not found.*maptr_tiny"):
        resolve_weights('nowhere')
    assert resolve_weights('').name == 'gsmap_live_tiny.safetensors'


def test_devices_are_checked():
    assert resolve_device('cpu').type == 'cpu'
    with pytest.raises(ConfigError, match="'quantum' is unknown"):
        resolve_device('quantum')
    with pytest.raises(ConfigError, match='CUDA devices'):
        resolve_device('cuda:99')
