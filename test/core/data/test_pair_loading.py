"""Batches of paired frames: right poses, mirrored worlds, visibility, repetition, bad frames."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import micro_config
from helpers.posed_drives import PosedDrive

from gsmap_core.contrastive_config import (
    ContrastiveConfig,
    PairConfig,
    PoseError,
    PoseNoiseConfig,
)
from gsmap_core.data.augmentation import AugmentationConfig
from gsmap_core.data.pair_loading import PairDataset, collate_pairs, make_pair_loader
from gsmap_core.data.sampling import ResumableSampler
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.images import make_frame_batch
from gsmap_core.structures import PerceptionRange

CONFIG = micro_config()
PLAIN = ContrastiveConfig(pairs=PairConfig(cache_gb=0.01))


def drives(**more):
    return [
        PosedDrive('there', 3, seed=1, **more),
        PosedDrive('back', 3, seed=2, start=(22.0, 3.0), yaw_rad=np.pi - 0.1, offset=(900.0, 0)),
    ]


def dataset(config=CONFIG, contrastive=PLAIN, augmentation=None, **more):
    return PairDataset(drives(**more), config, contrastive, augmentation, seed=5)


def frame_of(data, number):
    drive, position = data.frames.frames[number]
    return data.drives[drive], position


def world(data, number):
    """Return (H, W, 2) where the cells of a frame are in the town, from the drive itself."""
    drive, position = frame_of(data, number)
    centres = data.config.grid.cell_centres()
    points = np.concatenate([centres, np.zeros((*centres.shape[:2], 1))], axis=-1)
    pose = drive.map_from_base(drive.stamp_ns(position)).copy()
    pose[:2, 3] += drive.offset
    return transform_points(pose, points.reshape(-1, 3))[:, :2].reshape(centres.shape)


@pytest.mark.parametrize('order', ['ego', 'official'])
@pytest.mark.parametrize('mirror', [0.0, 1.0])
def test_matched_cells_show_the_same_place(order, mirror):
    config = replace(CONFIG, bev=replace(CONFIG.bev, order=order))
    changes = AugmentationConfig(photometric=0.0, mirror=mirror)
    data = dataset(config, augmentation=changes)
    sample = data[0, 1]
    first, second = world(data, sample.reference.index), world(data, sample.adjacent.index)
    if mirror:
        # The picture left to right: cell and ground of both worlds are mirrored.
        axis = 1 if order == 'ego' else 0
        first, second = np.flip(first, axis), np.flip(second, axis)
    nearest = sample.nearest.numpy()
    matched = nearest >= 0
    assert 0.2 < matched.mean() < 1.0
    distance = np.linalg.norm(first[matched] - second.reshape(-1, 2)[nearest[matched]], axis=-1)
    half_diagonal = 0.5 * np.hypot(*config.grid.cell_size_m)
    assert 0.5 * half_diagonal < distance.max() <= half_diagonal + 1e-9
    cells = sample.cells.numpy()[matched]
    np.testing.assert_array_equal(
        np.floor(cells + 1e-5).astype(int) @ [config.grid.num_columns, 1], nearest[matched]
    )


def test_pictures_and_calibration_are_those_of_the_frames():
    data = dataset()
    batch = collate_pairs([data[0, 0], data[0, 4]])
    assert len(batch) == 2 and len(batch.frames) == 4
    assert batch.nearest.shape == (2, 20, 10) and batch.observed.shape == (2, 2, 20, 10)
    result = batch.frames.frame_batch(CONFIG.image)
    found = [frame_of(data, number) for number in batch.frames.indices]
    expected = make_frame_batch([drive.frame(at) for drive, at in found], CONFIG.image)
    torch.testing.assert_close(result.images, expected.images)
    torch.testing.assert_close(result.pixels_from_ego, expected.pixels_from_ego)
    assert not any(len(target) for target in batch.frames.targets)
    # References first; each is of the other drive than its partner.
    names = [drive.name for drive, _ in found]
    assert names[0] != names[2] and names[1] != names[3]


def test_what_no_camera_sees_is_not_observed():
    """The one camera looks forward: nothing behind is seen, in the mirrored world either."""
    for mirror in (0.0, 1.0):
        changes = AugmentationConfig(photometric=0.0, mirror=mirror)
        one = [PosedDrive('a', 3, num_cameras=1), PosedDrive('b', 3, num_cameras=1, start=(9, 0))]
        data = PairDataset(one, CONFIG, PLAIN, changes, seed=5)
        sample = data[0, 0]
        assert sample.observed[:, :8].any() and not sample.observed[:, 10:].any()
        # The camera looks 0.1 rad to the left.
        left, right = sample.observed[:, :9, :5].sum(), sample.observed[:, :9, 5:].sum()
        assert (left < right) == bool(mirror)
    everything = replace(PLAIN, pairs=replace(PLAIN.pairs, observed='all'))
    assert PairDataset(one, CONFIG, everything)[0, 0].observed.all()


def test_limits_of_distance_and_height():
    near = replace(PLAIN, pairs=replace(PLAIN.pairs, max_distance_m=0.8))
    loose, strict = dataset()[0, 1].nearest, dataset(contrastive=near)[0, 1].nearest
    assert ((strict >= 0) <= (loose >= 0)).all() and (strict >= 0).sum() < (loose >= 0).sum()
    bridge = dataset()
    for pose in bridge.map_from_grid[0]:
        pose[2, 3] += 6.0
    assert (bridge[0, 1].nearest < 0).all()


def test_frames_or_pairs_are_visited_once_an_epoch():
    data = dataset()
    assert len(data) == 6
    assert {data[0, i].reference.index for i in range(6)} == set(range(6))
    partners = {data[epoch, 0].adjacent.index for epoch in range(20)}
    starts, table = data.pairs.partners()
    assert partners == set(table[starts[0] : starts[1]].tolist()) and len(partners) > 1
    by_pair = dataset(contrastive=replace(PLAIN, pairs=replace(PLAIN.pairs, draw='pair')))
    assert len(by_pair) == len(by_pair.pairs.edges)
    seen = [by_pair[0, i] for i in range(len(by_pair))]
    edges = {frozenset((s.reference.index, s.adjacent.index)) for s in seen}
    assert edges == {frozenset(edge) for edge in by_pair.pairs.edges.tolist()}
    assert len({s.reference.index < s.adjacent.index for s in seen}) == 2


def test_samples_repeat_themselves_with_any_number_of_workers():
    data = dataset(augmentation=AugmentationConfig())
    batches = []
    for workers in (0, 2):
        sampler = ResumableSampler(len(data), 2, seed=3, position=4)
        loader = iter(make_pair_loader(data, sampler, num_workers=workers))
        batches.append([next(loader) for _ in range(3)])
        del loader
    for first, second in zip(*batches, strict=True):
        torch.testing.assert_close(first.frames.pictures, second.frames.pictures)
        torch.testing.assert_close(first.nearest, second.nearest)


def test_unreadable_frames_are_replaced_and_told():
    data = dataset(broken=(1,))
    bad = data.frames.frames.index((data.drives.index(data.drives[1]), 1))
    assert data.drives[1].name == 'there'
    samples = [data[0, index] for index in range(len(data))]
    assert {i for s in samples for i in s.bad_frames} == {bad}
    assert all(bad not in (s.reference.index, s.adjacent.index) for s in samples)
    with pytest.raises(DataError, match='20 pairs in a row'):
        dataset(broken=(0, 1, 2))[0, 0]


def test_errors_of_poses_move_the_cells():
    noise = PoseNoiseConfig(drive=PoseError(2.0, 2.0))
    data, noisy = dataset(), dataset(contrastive=replace(PLAIN, pose_noise=noise))
    between = [invert(item.map_from_ego(0)) @ item.map_from_ego(5) for item in (data, noisy)]
    assert 0.1 < np.linalg.norm(between[0][:2, 3] - between[1][:2, 3]) < 10.0
    assert (noisy[0, 1].nearest != data[0, 1].nearest).any()


def test_a_lidar_frame_is_that_of_the_rig():
    """The grid lies in the lidar's frame; cells of both grids still are at one place."""
    pose = {'translation': (0.5, 0.0, 1.8), 'quaternion': (0.0, 0.0, -0.7071068, 0.7071068)}
    from gsmap_core.config import PoseConfig

    area = PerceptionRange(-15.0, 15.0, -30.0, 30.0)
    bev = replace(CONFIG.bev, order='official', num_rows=20, num_columns=10)
    config = replace(CONFIG, reference='lidar', range=area, bev=bev, lidar_pose=PoseConfig(**pose))
    data = dataset(config)
    sample = data[0, 1]
    lidar = data.ego_from_grid[0]
    np.testing.assert_allclose(lidar[:3, 3], [0.5, 0.0, 1.8])
    torch.testing.assert_close(
        sample.reference.ego_from_reference, torch.from_numpy(lidar).float()
    )
    centres = config.grid.cell_centres().reshape(-1, 2)
    ground = np.concatenate([centres, np.full((len(centres), 1), -1.8)], axis=1)
    places = []
    for number in (sample.reference.index, sample.adjacent.index):
        drive, position = frame_of(data, number)
        town = drive.map_from_base(drive.stamp_ns(position)).copy()
        town[:2, 3] += drive.offset
        places.append(transform_points(town @ lidar, ground)[:, :2])
    nearest = sample.nearest.numpy().ravel()
    off = places[0][nearest >= 0] - places[1][nearest[nearest >= 0]]
    assert np.linalg.norm(off, axis=1).max() <= 0.5 * np.hypot(*config.grid.cell_size_m) + 1e-6
    assert 0.2 < (nearest >= 0).mean() < 1.0


def test_what_does_not_fit_is_refused():
    recorded = AugmentationConfig(colours='hsv', colours_at='recorded')
    with pytest.raises(ConfigError, match='set cache_gb to 0'):
        dataset(augmentation=recorded)
    no_cache = replace(PLAIN, pairs=replace(PLAIN.pairs, cache_gb=0.0))
    assert len(dataset(contrastive=no_cache, augmentation=recorded)[0, 0].bad_frames) == 0
    with pytest.raises(DataError, match='no LiDAR sweeps and contrastive.depth is 3'):
        dataset(contrastive=replace(PLAIN, depth=3.0))
