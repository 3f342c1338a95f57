"""Real nuScenes key frames: to a bag, through the network, LiDAR drawn into the cameras."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers.fake_drives import micro_config

from gsmap_core.cli.main import main
from gsmap_core.data.bag import open_bag
from gsmap_core.models.checkpoint import save_checkpoint
from gsmap_core.models.mapper import OnlineMapper


@pytest.fixture(scope='module')
def bags(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp('real')
    source = data_dir / 'nuscenes_keyframe'
    if not source.is_dir():
        pytest.skip(f'{source} is absent: no real key frames')
    assert main(['convert', 'nuscenes-json', str(source), str(folder)]) == 0
    return folder


@pytest.mark.data
def test_predict_maps_every_real_camera_set(bags, tmp_path, capsys):
    torch.manual_seed(0)
    weights = tmp_path / 'micro.safetensors'
    save_checkpoint(weights, OnlineMapper(micro_config()), {})
    capsys.readouterr()
    arguments = ['predict', str(bags), '--weights', str(weights), '--out', str(tmp_path / 'out')]
    assert main([*arguments, '--json']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['frames_failed'] == [] and summary['frames_mapped'] >= 3
    assert summary['chamfer_map'] is None  # nobody knows the truth here


@pytest.mark.data
def test_lidar_points_are_drawn_where_the_bag_has_a_sweep(bags, tmp_path, capsys):
    drawn, refused = 0, 0
    for bag in sorted(path for path in bags.iterdir() if path.is_dir()):
        has_sweep = open_bag(bag).lidar_points(0) is not None
        out = tmp_path / f'{bag.name}.png'
        code = main(['view', str(bag), '--lidar', '--out', str(out)])
        if has_sweep:
            assert code == 0
            picture = cv2.imread(str(out)).astype(int)
            # Near points are drawn in saturated red; the scene itself has next to none of it.
            red = (picture[..., 2] > 180) & (picture[..., :2].max(axis=2) < 110)
            assert np.count_nonzero(red) > 200
            drawn += 1
        else:
            assert code == 2 and 'no LiDAR sweep' in capsys.readouterr().err
            refused += 1
    assert drawn and refused
