"""`gsmap view --bev-features` on bags: numbers per checkpoint and one picture."""

import json

import cv2
import pytest
import torch
from helpers.fake_drives import micro_config
from helpers.posed_drives import PosedDrive, PosedRecording

from gsmap_core.cli import main
from gsmap_core.data.bag import write_bag
from gsmap_core.models.checkpoint import save_checkpoint
from gsmap_core.models.mapper import OnlineMapper


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two drives past one street, one elsewhere, and two checkpoints."""
    folder = tmp_path_factory.mktemp('features')
    for drive in (
        PosedDrive('there', 3, seed=1),
        PosedDrive('back', 3, seed=2, start=(25.0, 3.0), yaw_rad=3.0),
    ):
        write_bag(PosedRecording(drive), folder / 'bags' / drive.name)
    write_bag(PosedRecording(PosedDrive('alone', 3, town='')), folder / 'alone')
    for seed, name in enumerate(('without', 'with')):
        torch.manual_seed(seed)
        (folder / name).mkdir()
        path = folder / name / 'model.safetensors'
        save_checkpoint(path, OnlineMapper(micro_config()), {})
    return folder


def test_checkpoints_are_drawn_and_measured(folder, tmp_path, capsys):
    weights = [str(folder / name / 'model.safetensors') for name in ('without', 'with')]
    out = tmp_path / 'features.png'
    command = ['view', str(folder / 'bags'), '--bev-features', *weights, '--out', str(out)]
    assert main.main([*command, '--json', '--frame', '1']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['frames'] == 6 and set(report['features']) == set(weights)
    for numbers in report['features'].values():
        assert 0.0 <= numbers['lengthwise_share'] <= numbers['fixed_share'] <= 1.0
        assert numbers['pairs'] > 0
        assert -1.0 <= numbers['other_cosine'] <= 1.0 >= numbers['same_place_cosine']
    picture = cv2.imread(str(out))
    assert picture.shape[1] == 3 * (240 + 24)
    assert main.main(command) == 0
    assert 'of the variance is fixed in the grid' in capsys.readouterr().out


def test_a_drive_by_itself_has_no_place_to_agree_on(folder, tmp_path, capsys):
    weights = str(folder / 'with' / 'model.safetensors')
    command = ['view', str(folder / 'alone'), '--bev-features', weights, '--json']
    assert main.main([*command, '--out', str(tmp_path / 'one.png')]) == 0
    (numbers,) = json.loads(capsys.readouterr().out)['features'].values()
    assert numbers['pairs'] == 0 and numbers['same_place_cosine'] is None
    assert main.main([*command, '--frame', '7', '--out', str(tmp_path / 'one.png')]) == 2
