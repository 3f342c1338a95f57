"""Sequences for training: cuts, slots, processes, resuming."""

import itertools
from collections import Counter

import numpy as np
import pytest

from gsmap_core.data.sequences import SequenceBatches, SequenceConfig, cut_at_random
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
