"""What is measured while a training runs: loading times, losses, speed."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gsmap_core.data.loading import Batch
from gsmap_core.data.pair_loading import PairBatch


class Feed:
    """The batches of one step, loaded one at a time, and how long that took.

    Args:
        batches: labelled samples, or None in a step without.
        count: batches of the step.
        pairs: unlabelled pairs, or None in a step without.
    """

    def __init__(
        self, batches: Iterator[Batch] | None, count: int, pairs: Iterator[PairBatch] | None = None
    ) -> None:
        self._batches, self._count, self._pairs = batches, count, pairs
        self.loading_s, self.num_samples = 0.0, 0

    def __iter__(self) -> Iterator[tuple[Batch | None, PairBatch | None]]:
        """Load and yield."""
        for _ in range(self._count):
            before = time.perf_counter()
            batch = None if self._batches is None else next(self._batches)
            pairs = None if self._pairs is None else next(self._pairs)
            self.loading_s += time.perf_counter() - before
            self.num_samples += 0 if batch is None else len(batch)
            yield batch, pairs


class Window:
    """Sums over the steps between two log lines; stays on the device until it is read."""

    def __init__(self) -> None:
        self._count = self._num_samples = 0
        self._sums: dict[str, Tensor] = {}
        self._norm = torch.zeros(())
        self._data_s = self._step_s = 0.0

    def __bool__(self) -> bool:
        """Return whether any step was added."""
        return self._count > 0

    def add(
        self,
        losses: dict[str, Tensor],
        norm: Tensor,
        data_s: float,
        step_s: float,
        num_samples: int,
    ) -> None:
        """Add one step."""
        self._count += 1
        self._num_samples += num_samples
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
        self._norm = self._norm.to(norm.device) + norm.detach()
        self._data_s += data_s
        self._step_s += step_s

    def means(self) -> dict[str, Any]:
        """Return the means of the window."""
        numbers = torch.stack([*self._sums.values(), self._norm.float()]).tolist()
        means = [number / self._count for number in numbers]
        return {
            'loss': dict(zip(self._sums, means[:-1], strict=True)),
            'grad_norm': means[-1],
            'data_s': round(self._data_s / self._count, 4),
            'step_s': round(self._step_s / self._count, 4),
            'samples_per_s': round(self._num_samples / (self._data_s + self._step_s), 3),
        }


def peak_memory_mib(device: torch.device) -> int:
    """Return the most memory that was taken so far [MiB].

    Args:
        device: CUDA: what tensors took on it; CPU: what the process took, interpreter included,
            loading processes not.
    """
    if device.type == 'cuda':
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
