"""`gsmap convert av2` on a synthetic dataset: dataset -> bag -> the same ground truth."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from core.cli.synthetic_datasets import largest_difference_m, make_dataset

from gsmap_core.cli.main import main
from gsmap_core.data.bag import image_topic, open_bag
from gsmap_core.data.synthetic.recording import SyntheticRecording

pytest.importorskip('av2.map.map_api', reason='the av2 package is not installed')
LOG = 'town-easy-10002-d000'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    more = ('--first-seed', '10002', '--duration', '0.2')
    return make_dataset('av2', tmp_path_factory.mktemp('av2'), *more)


@pytest.fixture(scope='module')
def bag(made, tmp_path_factory):
    out = tmp_path_factory.mktemp('bags')
    command = ['convert', 'av2', str(made[0]), str(out), '--rate', '10', '--workers', '1']
    assert main(command) == 0
    return open_bag(out / LOG)


def drive_of(root, **options):
    from gsmap_core.data.argoverse2 import (
        Argoverse2Dataset,
        Argoverse2Options,
        Argoverse2TruthOptions,
    )

    truth = Argoverse2TruthOptions(**options)
    return Argoverse2Dataset(root, options=Argoverse2Options(rate_hz=10, truth=truth)).drive(LOG)


def test_the_bag_holds_what_the_dataset_holds(made, bag):
    drive = drive_of(made[0])
    assert len(bag) == len(drive) == 3
    for index in range(3):
        here, there = bag.ground_truth(index), drive.ground_truth(index)
        assert here.elements and here.stamp_ns == there.stamp_ns
        for one, other in zip(here.elements, there.elements, strict=True):
            assert (one.category, one.closed) == (other.category, other.closed)
            np.testing.assert_array_equal(one.vertices, other.vertices)
        np.testing.assert_allclose(bag.lidar_points(index), drive.lidar_points(index), atol=1e-4)
        frame = bag.frame(index)
        assert frame.is_complete and len(frame.rig) == 7
    assert frame.rig.cameras[0].height_px > frame.rig.cameras[0].width_px, 'the portrait one'
    stamp = frame.camera_stamps_ns[frame.rig.names.index('ring_rear_left')]
    file = made[0] / 'val' / LOG / 'sensors' / 'cameras' / 'ring_rear_left' / f'{stamp}.jpg'
    message = bag.reader.message(image_topic('ring_rear_left'), 2)
    assert message.data.tobytes() == file.read_bytes()


@pytest.mark.parametrize('variant', ['maptr', 'maptrv2', 'streammapnet', 'maptracker'])
def test_the_ground_truth_is_that_of_the_town(made, variant):
    recording = SyntheticRecording(made[1][0])
    truth = drive_of(made[0], variant=variant).ground_truth(1)
    difference = largest_difference_m(recording.ground_truth(1), truth)
    assert {'divider', 'boundary'} <= set(difference)
    # MapTRv2 leaves out what is less than 0.2 m beside a straight line.
    assert max(difference.values()) < 0.25, difference


def test_a_log_without_calibration_keeps_poses_and_ground_truth(made, tmp_path, capsys):
    shutil.copytree(made[0], tmp_path / 'copy')
    shutil.rmtree(tmp_path / 'copy' / 'val' / LOG / 'calibration')
    command = ['convert', 'av2', str(tmp_path / 'copy'), str(tmp_path / 'out'), '--rate', '10']
    assert main([*command, '--json']) == 0
    (bag,) = json.loads(capsys.readouterr().out)['bags']
    assert bag['topics']['/ground_truth/local_map'] == bag['topics']['/lidar_top/points'] == 3
    assert not any('image' in topic for topic in bag['topics'])
    assert bag['notes'][0].startswith('no calibration')
    assert main([*command, '--json', '--overwrite', '--rig', 'av2_like', '--no-lidar']) == 0
    (bag,) = json.loads(capsys.readouterr().out)['bags']
    assert bag['topics']['/ring_front_center/camera_info'] == 3
    assert '/lidar_top/points' not in bag['topics']
