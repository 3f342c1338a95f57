"""Training on sequences: every slot of a batch follows one drive in time order.

Drives are cut into sub-sequences anew in every pass. What a model remembers between the frames of
one belongs to the trainer; here is only which frame comes when, and where a memory ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from gsmap_core.errors import ConfigError, DataError

#: One frame of a sub-sequence: epoch, index of the frame, index of the first frame of the
#: sub-sequence. The memory starts anew where the two indices are the same.
SequenceKey = tuple[int, int, int]


@dataclass(frozen=True)
class SequenceConfig:
    """How models with temporal fusion are trained; others see single frames throughout.

    Args:
        num_splits: contiguous sub-sequences that a drive is cut into at random in every pass.
        single_frame_share: share of the steps, from the first on, with random single frames
            instead of sequences, in [0, 1]; 1: no sequences at all.

    Raises:
        ConfigError: a value is out of range.

    Source: InteractionMap, sec. 4.1.3.
    """

    num_splits: int = 3
    single_frame_share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.num_splits < 1:
            raise ConfigError(f'num_splits is {self.num_splits}; expected 1 or more')
        if not 0.0 <= self.single_frame_share <= 1.0:
            raise ConfigError(f'single_frame_share is {self.single_frame_share}; expected 0 to 1')

    def first_sequence_step(self, total_steps: int) -> int:
        """Return the number of steps with single frames; the next one begins the sequences."""
        return round(self.single_frame_share * total_steps)


def cut_at_random(drive: range, num_splits: int, generator: np.random.Generator) -> list[range]:
    """Cut the frames of a drive into contiguous pieces, all cuts equally likely.

    Args:
        drive: indices of its frames by time, at least one.
        num_splits: pieces wanted; a drive of fewer frames gives one piece per frame.
        generator: draws the cuts.

    Returns:
        The pieces by time, none of them empty.
    """
    num_cuts = min(num_splits, len(drive)) - 1
    cuts = np.sort(generator.choice(len(drive) - 1, num_cuts, replace=False) + 1).tolist()
    return [drive[a:b] for a, b in itertools.pairwise([0, *cuts, len(drive)])]


def spread_drives(drives: Sequence[range], max_frames: int) -> list[int]:
    """Choose whole drives, spread evenly, for so many frames; the last one is cut short.

    Args:
        drives: indices of the frames of every drive, by time.
        max_frames: frames wanted.

    Returns:
        Indices of at most that many frames, drive after drive.
    """
    chosen: list[int] = []
    for count in range(1, len(drives) + 1):
        numbers = np.linspace(0, len(drives) - 1, count).round().astype(int).tolist()
        chosen = [index for number in numbers for index in drives[number]]
        if len(chosen) >= max_frames:
            break
    return chosen[:max_frames]


class DriveStreams(Sampler[list[SequenceKey]]):
    """Every frame once, one drive after the other, one frame at a time; for validation.

    Args:
        drives: indices of the frames of every drive, by time.
    """

    def __init__(self, drives: Sequence[range]) -> None:
        self.drives = tuple(drives)

    def __len__(self) -> int:
        """Return the number of frames."""
        return sum(len(drive) for drive in self.drives)

    def __iter__(self) -> Iterator[list[SequenceKey]]:
        """Yield batches of one."""
        for drive in self.drives:
            for key in _keys(0, drive):
                yield [key]


class SequenceBatches(Sampler[list[SequenceKey]]):
    """An endless stream of batches whose rows follow drives, cut at any step and over processes.

    The sub-sequences of a pass lie in a queue in random order, those of the next pass behind them.
    A slot that has come to the end of one takes the next from the queue, so that every frame comes
    exactly once per pass, nothing is padded, and no two slots are ever in the same sub-sequence.
    (Around the turn of a pass some slots are in the old one and some in the new one.)

    All slots together are one step. Process r has the slots r, r + `num_processes`, ..., and its
    batches of a step are `batch_size` of them each: the union over processes and batches is the
    same for any way to divide the slots, and batch k of one step continues batch k of the last.

    Args:
        drives: indices of the frames of every drive, by time.
        batch_size: slots per batch.
        batches_per_step: batches of one process in a step.
        num_splits: sub-sequences that a drive is cut into.
        seed: of cuts and order.
        step: steps that were already done with sequences.
        first_epoch: number of the first pass, as in the keys.
        rank: of this process.
        num_processes: that share the stream.

    Raises:
        DataError: no frame.
    """

    def __init__(
        self,
        drives: Sequence[range],
        batch_size: int,
        *,
        batches_per_step: int = 1,
        num_splits: int = 3,
        seed: int = 0,
        step: int = 0,
        first_epoch: int = 0,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.drives = tuple(drive for drive in drives if len(drive))
        if not self.drives:
            raise DataError(f'{len(drives)} drives hold no frame; expected at least one')
        self.batch_size, self.batches_per_step = batch_size, batches_per_step
        self.num_splits, self.seed, self.step = num_splits, seed, step
        self.first_epoch, self.rank, self.num_processes = first_epoch, rank, num_processes

    @property
    def num_slots(self) -> int:
        """Sequences that run side by side, over all processes."""
        return self.batch_size * self.batches_per_step * self.num_processes

    def __iter__(self) -> Iterator[list[SequenceKey]]:
        """Yield batches without end."""
        # The steps before are gone through as well: what a slot is at depends on all of them.
        for keys in itertools.islice(self._steps(), self.step, None):
            mine = keys[self.rank :: self.num_processes]
            for first in range(0, len(mine), self.batch_size):
                yield mine[first : first + self.batch_size]

    def _steps(self) -> Iterator[list[SequenceKey]]:
        """Yield the keys of all slots, one step after the other."""
        queue = self._frames_of_sub_sequences()
        slots: list[Iterator[SequenceKey]] = [iter(()) for _ in range(self.num_slots)]
        while True:
            keys = []
            for slot, running in enumerate(slots):
                key = next(running, None)
                if key is None:
                    slots[slot] = next(queue)
                    key = next(slots[slot])
                keys.append(key)
            yield keys

    def _frames_of_sub_sequences(self) -> Iterator[Iterator[SequenceKey]]:
        """Yield the frames of one sub-sequence after the other, pass after pass."""
        for epoch in itertools.count(self.first_epoch):
            generator = np.random.default_rng((self.seed, epoch))
            pieces = [
                piece
                for drive in self.drives
                for piece in cut_at_random(drive, self.num_splits, generator)
            ]
            for number in generator.permutation(len(pieces)).tolist():
                yield _keys(epoch, pieces[number])


def _keys(epoch: int, frames: range) -> Iterator[SequenceKey]:
    return ((epoch, index, frames.start) for index in frames)
