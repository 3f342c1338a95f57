"""`gsmap convert nuscenes` on a synthetic dataset: dataset -> bag -> the same ground truth."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from core.cli.synthetic_datasets import largest_difference_m, make_dataset
from helpers.fake_drives import micro_config

from gsmap_core.cli.main import main
from gsmap_core.data.bag import image_topic, open_bag
from gsmap_core.data.loading import MapDataset
from gsmap_core.data.synthetic.recording import SyntheticRecording

pytest.importorskip('nuscenes.nuscenes', reason='nuscenes-devkit is not installed')
mcap_reader = pytest.importorskip('mcap.reader', reason='the mcap package is not installed')
mcap_ros2 = pytest.importorskip('mcap_ros2.decoder', reason='mcap-ros2-support is not installed')
SCENES = ('town-easy-0002-d000', 'town-easy-0002-d001')
MORE = ('--first-seed', '2', '--drives-per-town', '2', '--lidar')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make_dataset('nuscenes', tmp_path_factory.mktemp('nuscenes'), *MORE)


@pytest.fixture(scope='module')
def dataset(made):
    return made[0]


@pytest.fixture(scope='module')
def bags(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp('bags')
    assert main(['convert', 'nuscenes', str(dataset), str(out), '--workers', '1']) == 0
    return out


def drive_of(dataset, name, **options):
    from gsmap_core.data.groundtruth_variants import GroundTruthOptions
    from gsmap_core.data.nuscenes import NuScenesDataset

    truth = GroundTruthOptions(**options)
    return NuScenesDataset(dataset, ground_truth=truth).drive(name)


def assert_same_maps(first, second):
    assert (first.sample_id, first.stamp_ns, first.reference) == (
        second.sample_id,
        second.stamp_ns,
        second.reference,
    )
    for one, other in zip(first.elements, second.elements, strict=True):
        assert (one.category, one.closed) == (other.category, other.closed)
        np.testing.assert_array_equal(one.vertices, other.vertices)


def test_the_bag_trains_like_the_dataset(dataset, bags):
    drive, bag = drive_of(dataset, SCENES[0]), open_bag(bags / SCENES[0])
    assert len(drive) == len(bag) == 2
    for index in range(2):
        assert drive.ground_truth(index).elements
        assert_same_maps(bag.ground_truth(index), drive.ground_truth(index))
        np.testing.assert_allclose(bag.lidar_points(index), drive.lidar_points(index), atol=1e-4)
    # The whole map is latched, so it comes before everything else.
    assert_same_maps(replace(bag.global_map, stamp_ns=drive.stamp_ns(0)), drive.global_map)
    # Samples as the trainer gets them: pictures, projections and targets.
    ours, theirs = (MapDataset([item], micro_config())[0, 1] for item in (bag, drive))
    torch.testing.assert_close(ours.pictures, theirs.pictures, rtol=0, atol=0)
    torch.testing.assert_close(ours.pixels_from_ego, theirs.pixels_from_ego, rtol=1e-5, atol=1e-3)
    assert len(ours.targets)
    for name in ('labels', 'orders'):
        torch.testing.assert_close(getattr(ours.targets, name), getattr(theirs.targets, name))


def test_the_ground_truth_is_that_of_the_town(made, bags):
    # Flat town: the published constructions and the town's own lines are the same curves.
    recording, bag = SyntheticRecording(made[1][0]), open_bag(bags / SCENES[0])
    for index in range(2):
        difference = largest_difference_m(recording.ground_truth(index), bag.ground_truth(index))
        assert {'divider', 'boundary'} <= set(difference)
        assert max(difference.values()) < 0.02, difference


def test_another_reader_finds_messages_and_bytes(dataset, bags):
    with (bags / SCENES[1] / f'{SCENES[1]}.mcap').open('rb') as file:
        reader = mcap_reader.make_reader(file, decoder_factories=[mcap_ros2.DecoderFactory()])
        counts = {}
        for _, channel, record, message in reader.iter_decoded_messages():
            counts[channel.topic] = counts.get(channel.topic, 0) + 1
            if channel.topic == image_topic('cam_back'):
                name = f'*__CAM_BACK__{record.log_time // 1000}.jpg'
                (path,) = (dataset / 'samples' / 'CAM_BACK').glob(name)
                assert bytes(message.data) == path.read_bytes()
    assert counts.pop('/tf') == counts.pop('/odom') > 2
    assert counts.pop('/tf_static') == counts.pop('/ground_truth/map') == 1
    assert set(counts.values()) == {2}
    assert len(counts) == 6 * 2 + 2


def test_complete_bags_are_kept_and_failures_listed(dataset, bags, tmp_path, capsys):
    command = ['convert', 'nuscenes', str(dataset), str(tmp_path), '--workers', '1', '--json']
    assert main([*command, '--dry-run']) == 0
    report = json.loads(capsys.readouterr().out)
    assert [bag['state'] for bag in report['bags']] == ['planned', 'planned']
    assert not list(tmp_path.iterdir())
    # One scene has a broken sweep: the other is converted all the same.
    sweep = sorted((dataset / 'samples' / 'LIDAR_TOP').glob(f'*{SCENES[1]}*'))[0]
    content = sweep.read_bytes()
    sweep.write_bytes(content[:-3])
    left_over = tmp_path / f'.{SCENES[1]}.partial-x'
    left_over.mkdir()
    assert main(command) == 1
    report = json.loads(capsys.readouterr().out)
    assert [bag['state'] for bag in report['bags']] == ['written', 'failed']
    assert sweep.name in report['bags'][1]['reason'] and report['failed'] == 1
    assert [item.name for item in tmp_path.iterdir()] == [SCENES[0]]
    # Repaired: the command again keeps the first bag and makes the second.
    sweep.write_bytes(content)
    stamp = (tmp_path / SCENES[0] / 'metadata.yaml').stat().st_mtime_ns
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert [bag['state'] for bag in report['bags']] == ['kept', 'written']
    assert (tmp_path / SCENES[0] / 'metadata.yaml').stat().st_mtime_ns == stamp
    # A bag of other options is no bag of these.
    other = [*command, '--variant', 'streammapnet', '--scenes', '*d000']
    assert main(other) == 1
    (bag,) = json.loads(capsys.readouterr().out)['bags']
    assert 'other options' in bag['reason'] and '--overwrite' in bag['reason']
    assert main([*other, '--overwrite']) == 0


def test_missing_images_are_noted_and_the_rest_converted(dataset, tmp_path, capsys):
    image = sorted((dataset / 'samples' / 'CAM_FRONT_LEFT').glob(f'*{SCENES[0]}*'))[0]
    hidden = image.with_suffix('.hidden')
    image.rename(hidden)
    names = tmp_path / 'names.txt'
    names.write_text(f'{SCENES[0]}\n')
    command = ['convert', 'nuscenes', str(dataset), str(tmp_path / 'out'), '--json']
    command += ['--scenes-file', str(names), '--reference', 'published']
    try:
        assert main(command) == 0
    finally:
        hidden.rename(image)
    (bag,) = json.loads(capsys.readouterr().out)['bags']
    assert bag['topics']['/cam_front_left/image_rect/compressed'] == 1
    assert bag['topics']['/ground_truth/local_map'] == 2
    assert bag['notes'][0].startswith('1 images are missing: cam_front_left: samples/')
    # MapTRv2's published frame is that of the LiDAR: x right, y ahead.
    drive = drive_of(dataset, SCENES[0], reference='lidar')
    found = open_bag(tmp_path / 'out' / SCENES[0])
    assert_same_maps(found.ground_truth(1), drive.ground_truth(1))
    assert found.ground_truth(1).reference == 'lidar'


def test_wrong_names_and_numbers(dataset, tmp_path, capsys):
    command = ['convert', 'nuscenes', str(dataset), str(tmp_path)]
    assert main([*command, '--scenes', 'scene-0061']) == 2
    assert f"no scene scene-0061 in '{dataset}'; it has {SCENES[0]}" in capsys.readouterr().err
    assert main([*command, '--limit', '0']) == 2
    assert '--limit 0; expected a positive number' in capsys.readouterr().err
