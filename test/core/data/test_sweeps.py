"""Depth targets of drives with LiDAR, and what happens without."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config

from gsmap_core.config import LssConfig
from gsmap_core.data.augmentation import AugmentationConfig, mirror_frame
from gsmap_core.data.loading import MapDataset
from gsmap_core.errors import ConfigError, DataError


class LidarDrive(FakeDrive):
    """A fake drive whose sweep is one wall of points 8 m ahead, left of the axis."""

    def __init__(self, *args, missing=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.missing, self.num_sweeps = set(missing), 0

    def lidar_points(self, index):
        if index in self.missing:
            return None
        self.num_sweeps += 1
        y, z = np.meshgrid(np.arange(0.5, 8, 0.25), np.arange(0.0, 3, 0.25))
        points = [np.full(y.size, 8.0), y.ravel(), z.ravel(), np.zeros(y.size)]
        return np.stack(points, axis=1).astype(np.float32)


class BlindDrive(FakeDrive):
    def lidar_points(self, index):
        return None


@pytest.fixture
def config():
    micro = micro_config()
    lss = LssConfig(hidden_dims=8, num_depth_blocks=1, pyramid_dims=4)
    bev = replace(micro.bev, view_transform='lss', z_min_m=-10.0, z_max_m=10.0, lss=lss)
    losses = replace(micro.losses, depth=3.0, pv_segmentation=2.0)
    return replace(micro, bev=bev, losses=losses)


def test_the_bins_are_those_of_the_wall(config) -> None:
    """Camera 0 stands at x = 1 and looks 0.1 rad to the left: about 7 m, bin 11 to 13."""
    dataset = MapDataset([LidarDrive()], config)
    targets = dataset.load(0, np.random.default_rng(0)).targets
    assert targets.depth_bins.shape == (2, *config.feature_shape)
    seen = targets.depth_bins[0][targets.depth_bins[0] >= 0]
    assert len(seen) > 3 and 10 <= seen.min() and seen.max() <= 13
    assert (targets.depth_bins[1] == -1).all()  # The other camera looks back.
    assert targets.pv_mask.shape == (2, 1, *config.feature_shape) and targets.pv_mask.any()


def test_a_mirrored_world_has_mirrored_depths_and_masks(config) -> None:
    """The wall stands on the other side, and every sweep is projected once per orientation."""
    drive = LidarDrive()
    dataset = MapDataset([drive], config)
    frame = dataset.prepared(0)
    reads = drive.num_sweeps
    plain = dataset._depth.bins(0, 0, frame)
    mirrored = dataset._depth.bins(0, 0, mirror_frame(frame))
    assert drive.num_sweeps == reads + 2
    assert (plain[0] >= 0).sum() == pytest.approx((mirrored[0] >= 0).sum(), abs=2)
    # Pictures are 56 of 64 px wide: seven cells of 8 px, which are exchanged whole.
    inside = frame.sizes[0, 0] // config.feature_stride
    np.testing.assert_array_equal(plain[0][:, :inside], mirrored[0][:, :inside][:, ::-1])
    dataset._depth.bins(0, 0, frame)
    assert drive.num_sweeps == reads + 2


def test_augmented_samples_keep_masks_on_the_drawn_lines(config) -> None:
    """The mask of the mirrored sample is the mirrored mask."""
    plain, mirrored = (
        MapDataset([LidarDrive()], config, AugmentationConfig(mirror=p, photometric=0.0))
        .load(0, np.random.default_rng(0))
        .targets.pv_mask[0, 0]
        for p in (0.0, 1.0)
    )
    inside = MapDataset([LidarDrive()], config).prepared(0).sizes[0, 0] // config.feature_stride
    differing = (plain[:, :inside] != mirrored[:, :inside].flip(1)).float().mean()
    # Truncation and the direction of drawing may move a line by a cell.
    assert plain.any() and differing < 0.25


def test_a_missing_camera_is_not_supervised(config) -> None:
    frame = MapDataset([LidarDrive()], config).prepared(0)
    dataset = MapDataset([LidarDrive()], config)
    blind = replace(frame, camera_mask=np.array([False, True]))
    assert (dataset._depth.bins(0, 0, blind)[0] == -1).all()


def test_drives_without_lidar_are_refused_by_name(config) -> None:
    with pytest.raises(DataError, match=r"'fake-0' has no LiDAR.*--lidar.*losses.depth to 0"):
        MapDataset([BlindDrive()], config)
    without = replace(config, losses=replace(config.losses, depth=0.0))
    sample = MapDataset([BlindDrive()], without).load(0, np.random.default_rng(0))
    assert sample.targets.depth_bins is None


def test_a_set_without_a_sweep_counts_as_unreadable(config) -> None:
    dataset = MapDataset([LidarDrive(4, missing=(1,))], config)
    with pytest.raises(DataError, match='frame 1: has no LiDAR sweep'):
        dataset.load(1, np.random.default_rng(0))
    sample = dataset[0, 1]
    assert sample.bad_frames == (1,) and torch.any(sample.targets.depth_bins >= 0)


def test_lss_may_be_mirrored_whatever_its_number_of_cameras(config) -> None:
    """Only encoders with learned cameras refuse; the published LSS models store theirs unused."""
    mirrored = AugmentationConfig(mirror=0.5)
    MapDataset([LidarDrive()], replace(config, num_cameras=2, official_only=True), mirrored)
    with pytest.raises(ConfigError, match='one embedding per camera'):
        MapDataset([FakeDrive()], replace(micro_config(), num_cameras=2), mirrored)
