"""`gsmap predict` on bags and image folders: files that its readers read back."""

import json

import cv2
import pytest
import torch
from helpers.fake_drives import FakeDrive, FakeRecording, micro_config

from gsmap_core.cli.main import main
from gsmap_core.data.bag import write_bag
from gsmap_core.mapfile import read_map_file
from gsmap_core.models.checkpoint import save_checkpoint
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.rig import save_rig


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'micro.safetensors'
    save_checkpoint(path, OnlineMapper(micro_config()), {})
    return str(path)


def test_a_bag_is_mapped_scored_and_drawn(tmp_path, checkpoint, capsys):
    bag, out = tmp_path / 'fake.mcap', tmp_path / 'out'
    write_bag(FakeRecording(FakeDrive(num_frames=4)), bag)
    arguments = ['--weights', checkpoint, '--out', str(out), '--metric', 'chamfer,raster']
    assert main(['predict', str(bag), *arguments, '--json', '--video']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['frames_mapped'] == 4 and summary['frames_failed'] == []
    assert 0 <= summary['chamfer_map'] <= 1
    assert set(summary['per_category']) == {'divider', 'ped_crossing', 'boundary'}
    assert 0 <= summary['raster_map'] <= 1
    assert set(summary['raster_per_category']) == {'divider', 'ped_crossing', 'boundary'}
    predictions = read_map_file(out / 'predictions.map.json')
    truth = read_map_file(out / 'ground_truth.map.json')
    assert [m.stamp_ns for m in predictions] == [m.stamp_ns for m in truth]
    pictures = [path for path in summary['outputs'] if path.endswith('.png')]
    assert len(pictures) == 1 and cv2.imread(pictures[0]) is not None
    assert any(path.endswith(('.mp4', '.gif')) for path in summary['outputs'])


def test_stride_and_limit(tmp_path, checkpoint, capsys):
    bag = tmp_path / 'fake.mcap'
    write_bag(FakeRecording(FakeDrive(num_frames=6)), bag)
    arguments = ['--weights', checkpoint, '--out', str(tmp_path / 'out'), '--figures', '0']
    assert main(['predict', str(bag), *arguments, '--stride', '2', '--limit', '2', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['frames_mapped'] == 2


def test_an_image_folder_with_a_rig(tmp_path, checkpoint, capsys):
    drive, folder = FakeDrive(num_frames=1), tmp_path / 'pictures'
    folder.mkdir()
    save_rig(drive.rig, tmp_path / 'rig.yaml')
    for camera, image in zip(drive.rig.cameras, drive.frame(0).images, strict=True):
        cv2.imwrite(str(folder / f'{camera.name}.png'), image)
    arguments = ['--rig', str(tmp_path / 'rig.yaml'), '--weights', checkpoint, '--json']
    assert main(['predict', str(folder), *arguments, '--out', str(tmp_path / 'out')]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['frames_mapped'] == 1 and summary['chamfer_map'] is None
    assert 'raster_map' not in summary


def test_the_classical_engine_needs_no_weights(tmp_path, capsys):
    bag = tmp_path / 'fake.mcap'
    write_bag(FakeRecording(FakeDrive(num_frames=2, num_cameras=3)), bag)
    arguments = ['--engine', 'classical', '--out', str(tmp_path / 'out'), '--json']
    assert main(['predict', str(bag), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)['engine'] == {'model': 'classical'}


def test_what_is_no_source_is_refused(tmp_path, capsys):
    assert main(['predict', str(tmp_path / 'nothing.mcap')]) == 2
    assert 'nothing.mcap' in capsys.readouterr().err
    (tmp_path / 'empty').mkdir()
    assert main(['predict', str(tmp_path / 'empty')]) == 2
    assert 'holds no bag' in capsys.readouterr().err
