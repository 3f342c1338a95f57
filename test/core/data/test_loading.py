"""Samples, cache, collation, sampling, and frames that cannot be read."""

import itertools
import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config

from gsmap_core.config import FusionConfig, ModelConfig
from gsmap_core.data.augmentation import AugmentationConfig
from gsmap_core.data.loading import BadFrames, MapDataset, collate, find_bags, make_loader
from gsmap_core.data.sampling import ResumableSampler, SequentialBatches
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.images import make_frame_batch
from gsmap_core.structures import MapElement
from gsmap_core.targets import make_targets

CONFIG = micro_config()


def assert_same_samples(first, second):
    for name in ('pictures', 'pixels_from_ego', 'base_from_cameras', 'intrinsics', 'camera_mask'):
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=0, atol=0)
    torch.testing.assert_close(first.targets.orders, second.targets.orders, rtol=0, atol=0)


def test_batches_equal_what_the_vehicle_prepares():
    drive = FakeDrive(3)
    dataset = MapDataset([drive], CONFIG)
    batch = collate([dataset[0, 2], dataset[0, 0]])
    result = batch.frame_batch(CONFIG.image)
    expected = make_frame_batch([drive.frame(2), drive.frame(0)], CONFIG.image)
    for name in ('images', 'pixels_from_ego', 'base_from_cameras', 'intrinsics', 'camera_mask'):
        torch.testing.assert_close(getattr(result, name), getattr(expected, name))
    torch.testing.assert_close(
        batch.targets[0].orders, make_targets(drive.ground_truth(2), CONFIG).orders
    )
    flat = result.images.flatten(0, 1)
    assert flat.is_contiguous(memory_format=torch.channels_last)


def test_published_preparation_is_the_same_in_training_and_on_the_vehicle():
    """Pictures in floating point pass cache, collation and normalisation unchanged."""
    image = replace(CONFIG.image, interpolation='bilinear', scale=0.7, recorded_px=(70, 40))
    config = replace(CONFIG, image=image)
    drive = FakeDrive(2)
    dataset = MapDataset([drive], config, cache_gb=0.01)
    expected = make_frame_batch([drive.frame(1), drive.frame(0)], image)
    for _ in range(2):  # the second time from the cache
        batch = collate([dataset[0, 1], dataset[0, 0]])
        assert batch.pictures.dtype == torch.float32
        for _ in range(2):  # normalising leaves the batch alone
            result = batch.frame_batch(image)
            torch.testing.assert_close(result.images, expected.images, rtol=0, atol=0)
        torch.testing.assert_close(result.pixels_from_ego, expected.pixels_from_ego)
    assert (batch.pictures[0, 0, :28, :49] % 1).any()  # 49 x 28 px, not rounded
    per_frame = 2 * (64 * 32 * 3 * 4 + 28 * 8) + 1
    assert dataset.cache.frame_bytes(2, image) == per_frame


def test_mirrored_sample_projects_mirrored_targets_to_the_same_paint():
    """A mirrored target seen through the mirrored matrix hits the mirrored pixel."""
    drive = FakeDrive(1)
    plain = MapDataset([drive], CONFIG)[0, 0]
    mirror = AugmentationConfig(photometric=0.0, mirror=1.0)
    mirrored = MapDataset([drive], CONFIG, mirror)[0, 0]

    def pixels(sample, element):
        xy = CONFIG.grid.unit_to_metres(sample.targets.points[element].numpy())
        points = np.concatenate([xy, np.zeros((20, 1)), np.ones((20, 1))], axis=1)
        found = points @ sample.pixels_from_ego.numpy()[:, :3].astype(float).transpose(0, 2, 1)
        return found[..., :2] / found[..., 2:], found[..., 2]

    width = 56  # 70 x 40 px scaled into 64 x 32 px
    for element in (0, 1):  # the open ones, whose point order is not changed
        before, depth = pixels(plain, element)
        after, _ = pixels(mirrored, element)
        front = depth > 0.5
        assert front.any()
        np.testing.assert_allclose(after[front][:, 0], width - 1 - before[front][:, 0], rtol=1e-3)
        np.testing.assert_allclose(after[front][:, 1], before[front][:, 1], rtol=1e-3)


def test_poses_reach_models_with_fusion_and_mirrored_ones_hold_the_reflection():
    config = replace(CONFIG, fusion=FusionConfig(kind='streaming'))
    drive = FakeDrive(3, speed_m=4.0)
    batch = collate([MapDataset([drive], config)[0, index] for index in (2, 0)])
    expected = torch.from_numpy(np.stack([drive.pose(2), drive.pose(0)]))
    for moved in (batch, batch.frame_batch(config.image)):
        torch.testing.assert_close(moved.map_from_base, expected, rtol=0, atol=0)
    mirror = AugmentationConfig(photometric=0.0, mirror=1.0)
    mirrored = MapDataset([drive], config, mirror)[0, 2]
    # A point that lies at (x, -y) of the mirrored vehicle is at (x, y) of the real one.
    point = torch.tensor([3.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    flipped = torch.tensor([3.0, -2.0, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(mirrored.map_from_base @ flipped, expected[0] @ point)
    assert MapDataset([drive], CONFIG)[0, 0].map_from_base is None
    with pytest.raises(DataError, match='has no pose'):
        MapDataset([FakeDrive(1)], config).load(0, np.random.default_rng(0))


def test_samples_depend_on_seed_epoch_and_index_only():
    on = AugmentationConfig(camera_drop=0.5)
    first = MapDataset([FakeDrive(4)], CONFIG, on, seed=3)
    second = MapDataset([FakeDrive(4)], CONFIG, on, seed=3)
    first[5, 1]
    assert_same_samples(first[1, 2], second[1, 2])
    assert not torch.equal(first[1, 2].pictures, first[2, 2].pictures)
    other_seed = MapDataset([FakeDrive(4)], CONFIG, on, seed=4)
    assert not torch.equal(first[1, 2].pictures, other_seed[1, 2].pictures)


def test_cache_reads_every_frame_once_and_changes_nothing():
    drive = FakeDrive(3)
    on = AugmentationConfig()
    cached = MapDataset([drive, FakeDrive(2, 1, num_cameras=3)], CONFIG, on, cache_gb=0.01)
    plain = MapDataset([FakeDrive(3), FakeDrive(2, 1, num_cameras=3)], CONFIG, on)
    for epoch in range(3):
        for index in range(5):
            assert_same_samples(cached[epoch, index], plain[epoch, index])
    assert drive.num_reads == 3
    assert cached.cache.num_filled == 5


def test_cache_is_bounded_and_shared_with_forked_workers():
    dataset = MapDataset([FakeDrive(4)], CONFIG, cache_gb=3 * 2 * (64 * 32 * 3 + 260) / 1024**3)
    assert 0 < dataset.cache.shape[0] < 4
    places = dataset.cache.shape[0]
    loader = make_loader(dataset, SequentialBatches(4, 1), num_workers=1)
    assert [batch.indices for batch in loader] == [(0,), (1,), (2,), (3,)]
    assert dataset.cache.num_filled == places  # filled by the worker, seen here
    with pytest.raises(TypeError, match='fork'):
        pickle.dumps(dataset.cache)


def test_workers_give_the_same_batches():
    on = AugmentationConfig()
    results = []
    for workers in (0, 2):
        dataset = MapDataset([FakeDrive(5)], CONFIG, on, seed=1)
        loader = make_loader(dataset, ResumableSampler(5, 2, seed=1), num_workers=workers)
        results.append(list(itertools.islice(loader, 4)))
    for first, second in zip(*results, strict=True):
        assert first.indices == second.indices
        torch.testing.assert_close(first.pictures, second.pictures, rtol=0, atol=0)


def test_rigs_of_different_size_are_padded_with_masked_cameras():
    dataset = MapDataset([FakeDrive(1), FakeDrive(1, 1, num_cameras=3)], CONFIG)
    batch = collate([dataset[0, 0], dataset[0, 1]])
    assert batch.pictures.shape[:2] == (2, 3)
    assert batch.camera_mask.tolist() == [[True, True, False], [True] * 3]
    frames = batch.frame_batch(CONFIG.image)
    assert torch.isfinite(frames.pixels_from_ego).all()
    assert not frames.images[0, 2].any()


def test_unreadable_frames_are_replaced_logged_and_counted(caplog):
    dataset = MapDataset([FakeDrive(50, broken=(7,))], CONFIG)
    with caplog.at_level(logging.WARNING):
        sample = dataset[0, 7]
    assert sample.index != 7 and sample.bad_frames == (7,)
    assert 'fake image 7 is corrupt' in caplog.text and "drive 'fake-0', frame 7" in caplog.text
    counter = BadFrames(dataset)
    counter.add(collate([sample, sample]).bad_frames)
    assert len(counter) == 1


def test_more_than_five_percent_unreadable_frames_end_the_training():
    dataset = MapDataset([FakeDrive(20, broken=(3, 9))], CONFIG)
    counter = BadFrames(dataset)
    counter.add([3, 3])
    with pytest.raises(DataError, match='2 of 20 frames are unreadable.*frame 9'):
        counter.add([9])
    hopeless = MapDataset([FakeDrive(3, broken=(0, 1, 2))], CONFIG)
    with pytest.raises(DataError, match='fake image . is corrupt'):
        hopeless[0, 0]


class SparseDrive(FakeDrive):
    """Only frame 2 has elements, frame 3 a category that the model does not predict."""

    def ground_truth(self, index):
        full = super().ground_truth(index)
        if index == 3:
            return replace(full, elements=(MapElement(3, np.array([[0.0, 0], [9, 0]])),))
        return full if index == 2 else replace(full, elements=())


def test_frames_without_elements_are_replaced_where_asked_for():
    plain = MapDataset([SparseDrive(5)], CONFIG)
    assert plain[0, 1].index == 1 and len(plain[0, 1].targets) == 0
    dataset = MapDataset([SparseDrive(5)], CONFIG, skip_empty=True)
    samples = [dataset[0, index] for index in range(5)]
    assert [sample.index for sample in samples] == [2] * 5
    assert [len(sample.targets) for sample in samples] == [3] * 5
    assert not any(sample.bad_frames for sample in samples)
    hopeless = MapDataset([SparseDrive(2)], CONFIG, skip_empty=True)
    with pytest.raises(DataError, match='200 frames drawn in a row have no element of divider'):
        hopeless[0, 0]


def test_data_without_frames_or_ground_truth_is_refused():
    with pytest.raises(DataError, match='hold no frame'):
        MapDataset([FakeDrive(0)], CONFIG)
    with pytest.raises(DataError, match="'fake-0' has no ground truth"):
        MapDataset([FakeDrive(1, has_ground_truth=False)], CONFIG)
    with pytest.raises(ConfigError, match='mirror'):
        MapDataset([FakeDrive(1)], ModelConfig(num_cameras=2), AugmentationConfig())


def test_frames_can_be_thinned_out():
    assert MapDataset([FakeDrive(10)], CONFIG, stride=4).frames == [(0, 0), (0, 4), (0, 8)]
    few = MapDataset([FakeDrive(10), FakeDrive(10, 1)], CONFIG, max_frames=3)
    assert few.frames == [(0, 0), (1, 0), (1, 9)]


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_sampler_visits_every_frame_once_per_epoch_in_a_new_order():
    keys = [key for batch in take(ResumableSampler(7, 7, seed=2), 3) for key in batch]
    for epoch in range(3):
        mine = [index for e, index in keys if e == epoch]
        assert sorted(mine) == list(range(7))
    assert keys[:7] != [(0, index) for _, index in keys[7:14]]


def test_sampler_resumes_where_it_stopped():
    whole = take(ResumableSampler(7, 3, seed=2), 6)
    assert take(ResumableSampler(7, 3, seed=2, position=9), 3) == whole[3:]


def test_sampler_shards_add_up_to_one_large_batch():
    whole = take(ResumableSampler(7, 4, seed=2), 5)
    shards = [take(ResumableSampler(7, 2, seed=2, rank=r, num_processes=2), 5) for r in (0, 1)]
    for large, first, second in zip(whole, *shards, strict=True):
        assert sorted(large) == sorted(first + second)


def test_bags_are_found_below_a_folder(tmp_path):
    with pytest.raises(DataError, match='holds no bag'):
        find_bags(tmp_path)
    for name in ('b', 'a'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'metadata.yaml').touch()
        (tmp_path / name / f'{name}.mcap').touch()
    (tmp_path / 'single.mcap').touch()
    expected = [tmp_path / 'a', tmp_path / 'b', tmp_path / 'single.mcap']
    assert find_bags(tmp_path) == expected
    assert find_bags(tmp_path / 'a') == [tmp_path / 'a']


def test_half_written_bags_are_passed_over(tmp_path):
    for name in ('.x.mcap.partial-1/x/x.mcap', '.x.mcap.partial-1/x/metadata.yaml', 'y.mcap'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_bags(tmp_path) == [tmp_path / 'y.mcap']
