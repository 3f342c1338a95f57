"""Which samples come when: an endless resumable stream for training, one pass for validation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class ResumableSampler(Sampler[list[tuple[int, int]]]):
    """An endless stream of batches of (epoch, index), cut at any position and over processes.

    The stream is one shuffled epoch after the other. Position p of it belongs to process
    p mod `num_processes`, so that the union over processes is the same for any number of them.

    Args:
        num_frames: frames of the dataset.
        batch_size: samples per batch and process.
        seed: of the shuffling.
        position: samples of all processes that were already used.
        rank: of this process.
        num_processes: that share the stream.
    """

    def __init__(
        self,
        num_frames: int,
        batch_size: int,
        seed: int = 0,
        position: int = 0,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.num_frames, self.batch_size, self.seed = num_frames, batch_size, seed
        self.position, self.rank, self.num_processes = position, rank, num_processes

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield batches without end."""
        epoch, order = -1, np.empty(0, dtype=np.int64)
        position = self.position + self.rank
        while True:
            batch = []
            for _ in range(self.batch_size):
                wanted, place = divmod(position, self.num_frames)
                if wanted != epoch:
                    epoch = wanted
                    generator = np.random.default_rng((self.seed, epoch))
                    order = generator.permutation(self.num_frames)
                batch.append((epoch, int(order[place])))
                position += self.num_processes
            yield batch


class SequentialBatches(Sampler[list[tuple[int, int]]]):
    """Every frame once, in order, in batches; for validation.

    Args:
        num_frames: frames of the dataset.
        batch_size: samples per batch.
    """

    def __init__(self, num_frames: int, batch_size: int) -> None:
        self.num_frames, self.batch_size = num_frames, batch_size

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.num_frames // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield batches; the last one may be smaller."""
        for first in range(0, self.num_frames, self.batch_size):
            last = min(first + self.batch_size, self.num_frames)
            yield [(0, index) for index in range(first, last)]
