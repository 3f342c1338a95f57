"""Training in the lidar frame of the published nuScenes protocol: samples and fine-tuning."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, FakeRecording, micro_config
from shapely import LineString, Point

from gsmap_core.cli.main import main
from gsmap_core.config import PoseConfig
from gsmap_core.data.augmentation import AugmentationConfig
from gsmap_core.data.bag import write_bag
from gsmap_core.data.drives import PoseSample
from gsmap_core.data.loading import MapDataset, collate
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.transforms import transform_from_quaternion
from gsmap_core.losses.criterion import Criterion
from gsmap_core.models.checkpoint import load_checkpoint, save_checkpoint
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.structures import PerceptionRange, VectorMap

HALF = float(np.sqrt(0.5))
#: x right, y forward; 0.9 m ahead of and 1.8 m above the ego frame.
LIDAR = PoseConfig((0.9, 0.1, 1.8), (0.0, 0.0, -HALF, HALF))


class MappedDrive(FakeDrive):
    """A fake drive that knows its whole map and where it stands in it."""

    def pose(self, index):
        return transform_from_quaternion([100.0 + 5.0 * index, 50.0, 0.0], [0, 0, HALF, HALF])

    @property
    def global_map(self):
        local = super().ground_truth(0).elements
        moved = [
            replace(e, vertices=e.vertices @ self.pose(0)[:2, :2].T + self.pose(0)[:2, 3])
            for e in local
        ]
        return VectorMap(tuple(moved), reference='map')

    def ground_truth(self, index):
        truth = super().ground_truth(0)
        return replace(truth, stamp_ns=self.stamp_ns(index), map_from_base=self.pose(index))


def lidar_config():
    config = micro_config()
    bev = replace(config.bev, order='official', can_bus=True, can_bus_source='pose')
    return replace(
        config,
        reference='lidar',
        range=PerceptionRange(-15.0, 15.0, -30.0, 30.0),
        bev=bev,
        lidar_pose=LIDAR,
        num_cameras=2,
        cameras=('cam_1', 'cam_0'),
    )


def test_a_model_in_the_lidar_frame_learns_the_same_lines():
    config, drive = lidar_config(), MappedDrive(1)
    dataset = MapDataset([drive], config)
    truth = dataset.ground_truth(0)
    assert truth.reference == 'lidar'
    ego_from_lidar = transform_from_quaternion(LIDAR.translation, LIDAR.quaternion)
    for element, own in zip(truth.elements, drive.ground_truth(0).elements, strict=True):
        back = element.vertices @ ego_from_lidar[:2, :2].T + ego_from_lidar[:2, 3]
        # The same line, but for what the shifted range cuts off at its ends.
        line = LineString(own.loop_xy())
        assert max(line.distance(Point(vertex)) for vertex in back) < 1e-6
    batch = collate([dataset[(0, 0)], dataset[(0, 0)]]).frame_batch(config.image)
    assert batch.ego_from_reference.shape == (2, 4, 4)
    np.testing.assert_allclose(batch.ego_from_reference[0], ego_from_lidar, atol=1e-6)
    # Heading of a quarter turn, and the cameras in the order of the embeddings.
    assert batch.can_bus[0, 16].item() == pytest.approx(np.pi / 2)
    expected = MapDataset([drive], replace(config, cameras=()))[(0, 0)]
    plain = collate([expected]).frame_batch(config.image)
    torch.testing.assert_close(batch.images[0, 0], plain.images[0, 1])
    output = OnlineMapper(config).train()(batch)
    assert Criterion(config)(output, collate([dataset[(0, 0)]] * 2).targets)['points'] > 0


def test_what_the_lidar_frame_needs_is_named():
    with pytest.raises(DataError, match='lacks the whole map'):
        MapDataset([FakeDrive(1)], lidar_config()).ground_truth(0)
    with pytest.raises(ConfigError, match='lidar frame'):
        MapDataset(
            [MappedDrive(1)], replace(lidar_config(), num_cameras=0, cameras=()),
            AugmentationConfig(mirror=0.5),
        )  # fmt: skip


def test_a_checkpoint_is_fine_tuned_without_naming_its_configuration(tmp_path, capsys):
    """As an imported checkpoint is: its configuration is in the file, its data in bags."""
    drive = MappedDrive(3)
    recording = FakeRecording(drive)
    recording.global_map = drive.global_map
    stamps = [drive.stamp_ns(0) - 50_000_000, *(drive.stamp_ns(i) for i in range(3))]
    stamps.append(drive.stamp_ns(3))
    recording.poses = [PoseSample(stamp, drive.pose(0)) for stamp in stamps]
    write_bag(recording, tmp_path / 'drive')
    config = replace(lidar_config(), name='official_micro')
    save_checkpoint(tmp_path / 'imported.safetensors', OnlineMapper(config))
    arguments = ['train', '--init', str(tmp_path / 'imported.safetensors'), '--steps', '2']
    arguments += [
        '--recipe',
        'synthetic_mini',
        '--data',
        str(tmp_path / 'drive'),
        '--device',
        'cpu',
    ]
    arguments += ['--out', str(tmp_path / 'runs'), '--no-progress', '--json', '--set']
    quick = ['batch_size=2', 'workers=0', 'cache_gb=0.01', 'warmup_steps=1', 'precision=fp32']
    assert main([*arguments, *quick, 'augmentation.mirror=0']) == 0
    report = json.loads(capsys.readouterr().out)
    loaded = load_checkpoint(report['checkpoint'])
    assert loaded.config == config and loaded.metadata['initial_weights'] == 'imported.safetensors'
