"""`gsmap predict` on bags and image folders: files that its readers read back."""

import json
import os
import subprocess
import sys

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
    metrics = 'chamfer,raster,consistency,geometry'
    arguments = ['--weights', checkpoint, '--out', str(out), '--metric', metrics]
    assert main(['predict', str(bag), *arguments, '--json', '--video']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['frames_mapped'] == 4 and summary['frames_failed'] == []
    assert 0 <= summary['chamfer_map'] <= 1
    assert set(summary['per_category']) == {'divider', 'ped_crossing', 'boundary'}
    assert 0 <= summary['raster_map'] <= 1
    assert set(summary['raster_per_category']) == {'divider', 'ped_crossing', 'boundary'}
    assert 0 <= summary['consistency']['mean_ap'] <= 1
    assert summary['geometry']['num_frames'] == 4
    predictions = read_map_file(out / 'predictions.map.json')
    truth = read_map_file(out / 'ground_truth.map.json')
    assert [m.stamp_ns for m in predictions] == [m.stamp_ns for m in truth]
    ids = [[element.id for element in m.elements] for m in predictions]
    assert all(number > 0 for numbers in ids for number in numbers)
    # The vehicle stands still.
    assert set(ids[0]) & set(ids[3])
    assert summary['consistency']['linked'] == ['ground truth']
    pictures = [path for path in summary['outputs'] if path.endswith('.png')]
    assert len(pictures) == 1 and cv2.imread(pictures[0]) is not None
    assert any(path.endswith(('.mp4', '.gif')) for path in summary['outputs'])


def test_stride_and_limit(tmp_path, checkpoint, capsys):
    bag = tmp_path / 'fake.mcap'
    write_bag(FakeRecording(FakeDrive(num_frames=6)), bag)
    arguments = ['--weights', checkpoint, '--out', str(tmp_path / 'out'), '--figures', '0']
    assert (
        main(
            [
                'predict',
                str(bag),
                *arguments,
                '--stride',
                '2',
                '--limit',
                '2',
                '--json',
                '--no-ids',
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)['frames_mapped'] == 2
    maps = read_map_file(tmp_path / 'out' / 'predictions.map.json')
    assert all(element.id is None for m in maps for element in m.elements)
    assert main(['predict', str(bag), *arguments, '--limit', '1', '--metric', 'bev_iou']) == 0
    assert '1 frames mapped' in capsys.readouterr().out


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


def test_a_checkpoint_is_evaluated_on_bags(tmp_path, checkpoint, capsys):
    """The same score as of the map files that it writes; what cannot be read is left out."""
    folder, out = tmp_path / 'bags', tmp_path / 'out'
    folder.mkdir()
    write_bag(FakeRecording(FakeDrive(num_frames=3)), folder / 'fake.mcap')
    (folder / 'broken.mcap').write_bytes(b'not a bag')
    arguments = ['evaluate', '--weights', checkpoint, '--data', str(folder), '--worst', '1']
    assert main([*arguments, '--out', str(out), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['num_frames'] == 3 and 'broken.mcap' in report['left_out'][0]
    files = [str(out / f'{name}.map.json') for name in ('predictions', 'ground_truth')]
    assert set(files) < set(report['outputs'])
    picture = next(path for path in report['outputs'] if 'worst_01' in path)
    assert cv2.imread(picture).shape[1] == 1920
    assert not any(element.closed for m in read_map_file(files[0]) for element in m.elements)
    assert main(['evaluate', *files, '--json']) == 0
    assert json.loads(capsys.readouterr().out)['mean_ap'] == report['mean_ap']
    assert main(['evaluate', '--weights', checkpoint, '--data', str(folder), '--stride', '0']) == 2
    assert '--stride 0; expected at least 1' in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun_shares_the_bags_out(tmp_path, checkpoint, capsys):
    for seed in range(3):
        write_bag(FakeRecording(FakeDrive(2, seed)), tmp_path / f'drive_{seed}.mcap')
    arguments = ['evaluate', '--weights', checkpoint, '--data', str(tmp_path), '--json']
    assert main([*arguments, '--device', 'cpu']) == 0
    alone = json.loads(capsys.readouterr().out)
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2']
    command += ['--master-port', str(20000 + os.getpid() % 10000), '-m', 'gsmap_core.cli.main']
    done = subprocess.run(
        [*command, *arguments, '--device', 'cpu'],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.strip().splitlines()[-1]) == alone
    assert alone['num_frames'] == 6
