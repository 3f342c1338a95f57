"""The checkpoint that ships: it loads, it is small, and it maps a town that it never saw."""

import json

import pytest

from gsmap_core.categories import PAPER_CATEGORIES
from gsmap_core.config import load_model_config
from gsmap_core.data.synthetic.drive import SyntheticDrive
from gsmap_core.data.synthetic.recording import DriveSpec
from gsmap_core.evaluation.chamfer import chamfer_average_precision
from gsmap_core.resources import DEFAULT_WEIGHTS, weights_dir
from gsmap_core.runtime.predictor import Predictor

MAX_BYTES = 15_000_000


SHIPPED = sorted(path.stem for path in weights_dir().glob('*.safetensors'))


@pytest.fixture(scope='module', params=SHIPPED)
def predictor(request):
    return Predictor(request.param, device='cpu')


def test_one_of_them_is_what_is_taken_unless_named():
    assert Predictor(device='cpu').path.stem == DEFAULT_WEIGHTS and DEFAULT_WEIGHTS in SHIPPED


def test_size_configuration_and_card(predictor):
    assert predictor.path.stat().st_size <= MAX_BYTES
    assert predictor.config == load_model_config(predictor.path.stem)
    card = predictor.path.with_suffix('.md').read_text(encoding='utf-8')
    metadata = predictor.metadata
    assert f'| Steps | {metadata["step"]} of {metadata["total_steps"]}' in card
    assert f'{len(json.loads(metadata["train_drives"]))} synthetic drives' in card


def test_training_and_test_towns_are_apart(predictor):
    for key, allowed in (('train_drives', range(10_000)), ('val_drives', range(10_000, 20_000))):
        names = json.loads(predictor.metadata[key])
        assert names and all(int(name.split('-')[1]) in allowed for name in names)


def test_it_maps_streets_it_never_saw(predictor):
    """A few camera sets of one held-out street; far above what untrained weights reach (0.00)."""
    predictions, truths = [], []
    spec = DriveSpec(
        town_seed=30_000, duration_s=12.0, rate_hz=2.0, image_width_px=400, conditions='noon'
    )
    drive = SyntheticDrive(spec)
    for index in range(0, len(drive), 4):
        predictions.append(predictor.predict(drive.frame(index)))
        truths.append(drive.ground_truth(index))
    result = chamfer_average_precision(predictions, truths, PAPER_CATEGORIES)
    assert result.mean_ap > 0.2
