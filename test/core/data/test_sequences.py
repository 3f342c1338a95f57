"""Sequences: cuts, slots, processes, resuming; and samples along one."""

import itertools
import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config
from helpers.painted_drive import PAINT, PaintedDrive

from gsmap_core.config import FusionConfig
from gsmap_core.data.augmentation import AugmentationConfig
from gsmap_core.data.loading import MapDataset, collate, make_loader
from gsmap_core.data.sequences import (
    DriveStreams,
    SequenceBatches,
    SequenceConfig,
    cut_at_random,
    spread_drives,
)
from gsmap_core.errors import ConfigError, DataError

DRIVES = [range(0, 11), range(11, 18), range(18, 20), range(20, 21), range(21, 34)]
NUM_FRAMES = 34


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def test_cuts_cover_a_drive_and_lie_everywhere():
    generator = np.random.default_rng(0)
    firsts = Counter()
    for _ in range(600):
        pieces = cut_at_random(range(10, 16), 3, generator)
        assert len(pieces) == 3 and all(pieces)
        assert [i for piece in pieces for i in piece] == list(range(10, 16))
        firsts[pieces[1].start - 10, pieces[2].start - 10] += 1
    # Ten ways to cut six frames twice, all of them drawn about equally often.
    assert len(firsts) == 10
    assert 30 < min(firsts.values()) and max(firsts.values()) < 95
    assert cut_at_random(range(4, 6), 3, generator) == [range(4, 5), range(5, 6)]
    assert cut_at_random(range(7), 1, generator) == [range(7)]


def rows_of(batches):
    """Return the keys of every slot, one list each."""
    return [list(row) for row in zip(*batches, strict=True)]


def test_every_slot_streams_in_time_order_and_says_where_it_starts_anew():
    rows = rows_of(take(SequenceBatches(DRIVES, 4, seed=3), 200))
    drive_of = {index: number for number, drive in enumerate(DRIVES) for index in drive}
    for row in rows:
        assert row[0][1] == row[0][2]
        for (epoch, index, first), (next_epoch, next_index, next_first) in itertools.pairwise(row):
            assert drive_of[next_index] == drive_of[next_first]
            if next_index == next_first:
                continue
            assert (next_epoch, next_index, next_first) == (epoch, index + 1, first)


def test_every_frame_comes_once_per_pass_without_padding():
    steps = 5 * NUM_FRAMES // 4
    keys = [key for batch in take(SequenceBatches(DRIVES, 4, seed=3), steps) for key in batch]
    for epoch in range(3):
        assert sorted(i for e, i, _ in keys if e == epoch) == list(range(NUM_FRAMES))
        firsts = {first for e, _, first in keys if e == epoch}
        assert len(firsts) == 3 + 3 + 2 + 1 + 3
    cuts = [{first for e, _, first in keys if e == epoch} for epoch in range(3)]
    assert cuts[0] != cuts[1] != cuts[2]
    other = take(SequenceBatches(DRIVES, 4, seed=4), steps)
    assert [key for batch in other for key in batch] != keys


def test_slots_are_never_in_the_same_sub_sequence():
    for batch in take(SequenceBatches(DRIVES, 4, seed=1), 300):
        assert len({(epoch, first) for epoch, _, first in batch}) == 4


@pytest.mark.parametrize('batches_per_step', [1, 2])
def test_a_stream_resumes_where_it_stopped(batches_per_step):
    options = {'seed': 2, 'batches_per_step': batches_per_step, 'first_epoch': 5}
    whole = take(SequenceBatches(DRIVES, 3, **options), 60)
    assert whole[0][0][0] == 5
    for step in (1, 7, 19):
        rest = SequenceBatches(DRIVES, 3, step=step, **options)
        assert take(rest, 60 - step * batches_per_step) == whole[step * batches_per_step :]


def test_slots_are_divided_over_processes_and_batches():
    """However six slots are shared out, each of them streams the same frames."""
    whole = [dict(enumerate(keys)) for keys in take(SequenceBatches(DRIVES, 6, seed=2), 50)]
    for processes, batches_per_step in ((1, 3), (2, 1), (3, 2), (2, 3)):
        size = 6 // processes // batches_per_step
        found = [{} for _ in whole]
        for rank in range(processes):
            sampler = SequenceBatches(
                DRIVES, size, seed=2, batches_per_step=batches_per_step, rank=rank,
                num_processes=processes,
            )  # fmt: skip
            assert sampler.num_slots == 6
            for number, batch in enumerate(take(sampler, 50 * batches_per_step)):
                step, part = divmod(number, batches_per_step)
                for place, key in enumerate(batch):
                    found[step][rank + processes * (part * size + place)] = key
        assert found == whole


def test_more_slots_than_sub_sequences_run_into_the_next_passes():
    keys = take(SequenceBatches([range(3)], 8, num_splits=2), 1)[0]
    assert [epoch for epoch, _, _ in keys] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_impossible_values_are_refused():
    with pytest.raises(ConfigError, match='num_splits is 0'):
        SequenceConfig(num_splits=0)
    with pytest.raises(ConfigError, match='single_frame_share is 1.5'):
        SequenceConfig(single_frame_share=1.5)
    with pytest.raises(DataError, match='2 drives hold no frame'):
        SequenceBatches([range(0), range(0)], 1)
    steps = [SequenceConfig(single_frame_share=s).first_sequence_step(40) for s in (0, 0.5, 1)]
    assert steps == [0, 20, 40]


CONFIG = replace(micro_config(), fusion=FusionConfig(kind='streaming'))


def line_in_map(sample):
    """Return the 20 target points of the divider in the map frame [m]."""
    xy = CONFIG.grid.unit_to_metres(sample.targets.points[0].numpy())
    points = np.concatenate([xy, np.zeros((20, 1)), np.ones((20, 1))], axis=1)
    return points @ sample.map_from_base.numpy().T


def seen_dot(sample, drive):
    """Return the brightest colour of each picture where the dot must be; None: out of sight."""
    inverse = np.linalg.inv(sample.map_from_base.numpy())
    in_ego = inverse @ [*drive.dot, 1.0]
    colours = []
    for picture, matrix in zip(sample.pictures.numpy(), sample.pixels_from_ego, strict=True):
        column, row, depth, _ = matrix.numpy() @ in_ego
        if depth > 0.5:
            at = round(row / depth), round(column / depth)
            if 1 <= at[0] < 31 and 1 <= at[1] < 55:
                colours.append(picture[at])
    return colours


def test_the_world_stays_in_place_along_an_augmented_sub_sequence():
    """Ground truth and paint lie at the same place of the map in mirrored and plain sequences."""
    drive = PaintedDrive(8)
    changes = AugmentationConfig(photometric=0.0, camera_drop=0.3, mirror=0.5)
    data = MapDataset([drive], CONFIG, changes, seed=1)
    mirrored = set()
    num_seen = 0
    for epoch, (first, end) in itertools.product(range(6), ((0, 3), (3, 8))):
        samples = [data[epoch, index, first] for index in range(first, end)]
        assert [sample.starts for sample in samples] == [True] + [False] * (end - first - 1)
        flips = {float(torch.linalg.det(sample.map_from_base)) for sample in samples}
        mirrored.add((min(flips) < 0, max(flips) < 0))
        for sample in samples:
            points = line_in_map(sample)
            # On the line of the world (some of its points lie beyond the range).
            on_line = np.interp(points[:, 0], drive.line[:, 0], drive.line[:, 1])
            np.testing.assert_allclose(points[:, 1], on_line, atol=0.06)
            colours = seen_dot(sample, drive)
            num_seen += len(colours)
            for colour in colours:
                np.testing.assert_allclose(colour, PAINT, atol=12)
    assert mirrored == {(False, False), (True, True)}
    assert num_seen > 20


def test_single_frames_are_mirrored_each_by_itself():
    data = MapDataset([PaintedDrive(8)], CONFIG, AugmentationConfig(photometric=0.0), seed=1)
    samples = [data[0, index] for index in range(8)]
    assert {sample.starts for sample in samples} == {None}
    assert collate(samples).starts is None
    assert len({bool(torch.linalg.det(s.map_from_base) < 0) for s in samples}) == 2


def test_batches_say_which_rows_start_anew_with_any_number_of_workers():
    data = MapDataset([PaintedDrive(5), PaintedDrive(4, 1)], CONFIG, seed=2)
    assert data.drive_frames == [range(0, 5), range(5, 9)]
    sampler = SequenceBatches(data.drive_frames, 2, seed=2)
    expected = take(sampler, 8)
    for workers in (0, 2):
        batches = list(itertools.islice(make_loader(data, sampler, num_workers=workers), 8))
        for batch, keys in zip(batches, expected, strict=True):
            assert batch.indices == tuple(index for _, index, _ in keys)
            assert batch.starts.tolist() == [index == first for _, index, first in keys]


def test_unreadable_frames_are_replaced_by_their_neighbours_in_time(caplog):
    broken = PaintedDrive(9, broken=(0, 4, 5))
    data = MapDataset([PaintedDrive(2, 1), broken, PaintedDrive(2, 2)], CONFIG)
    with caplog.at_level(logging.WARNING):
        found = [data[0, 2 + index, 5] for index in range(3, 9)]
    assert [sample.index - 2 for sample in found] == [3, 3, 3, 6, 7, 8]
    assert [sample.bad_frames for sample in found[:3]] == [(), (6,), (7, 6)]
    # The pose is that of the frame that stands in.
    torch.testing.assert_close(found[2].map_from_base, torch.from_numpy(broken.pose(3)))
    first = data[0, 2, 2]
    assert first.index == 3 and first.starts
    hopeless = MapDataset([PaintedDrive(2, broken=(0, 1)), PaintedDrive(3, 1)], CONFIG)
    with pytest.raises(DataError, match='2 of 2 frames are unreadable'):
        hopeless[0, 1, 0]


def test_empty_frames_stay_in_a_sequence():
    class Sparse(PaintedDrive):
        def ground_truth(self, index):
            full = super().ground_truth(index)
            return full if index == 2 else replace(full, elements=())

    data = MapDataset([Sparse(4)], CONFIG, skip_empty=True)
    assert [data[0, index].index for index in range(4)] == [2] * 4
    assert [data[0, index, 0].index for index in range(4)] == [0, 1, 2, 3]


def test_validation_keeps_whole_drives():
    drives = [FakeDrive(6, seed, speed_m=1.0) for seed in range(5)]
    few = MapDataset(drives, CONFIG, max_frames=14)
    numbers = [number for number, _ in few.frames]
    assert numbers == [0] * 6 + [2] * 6 + [4] * 2
    assert [index for _, index in few.frames] == [*range(6), *range(6), 0, 1]
    assert spread_drives([range(3)], 9) == [0, 1, 2]
    thinned = MapDataset(drives, CONFIG, stride=2, max_frames=4).frames
    assert thinned == [(0, 0), (0, 2), (0, 4), (4, 0)]
    keys = [key for batch in DriveStreams(few.drive_frames) for key in batch]
    assert [index for _, index, _ in keys] == list(range(14))
    assert [index for _, index, first in keys if index == first] == [0, 6, 12]
    assert len(DriveStreams(few.drive_frames)) == 14
