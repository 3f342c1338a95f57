"""Seeded random draws that come out the same on every platform.

Only `Generator.random()` of PCG64 is used, whose stream has never changed; the distributions
built on it live here, so
that a new NumPy release cannot move a town.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from gsmap_core.structures import FloatArray

Item = TypeVar('Item')


class Dice:
    """A stream of random draws for one purpose.

    Args:
        seeds: non-negative integers that name the stream, e.g. the town's seed and the number
            of the purpose.
    """

    def __init__(self, *seeds: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(seeds))))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw from [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def uniforms(self, count: int, low: float = 0.0, high: float = 1.0) -> FloatArray:
        """Draw (count,) values from [low, high)."""
        return low + (high - low) * self._generator.random(count)

    def integer(self, low: int, high: int) -> int:
        """Draw from low to high, both included."""
        return low + min(int(self._generator.random() * (high - low + 1)), high - low)

    def chance(self, probability: float) -> bool:
        """Draw True with the given probability."""
        return float(self._generator.random()) < probability

    def choice(self, items: Sequence[Item], weights: Sequence[float] | None = None) -> Item:
        """Draw one item, evenly or by weight."""
        share = np.ones(len(items)) if weights is None else np.asarray(weights, dtype=np.float64)
        limits = np.cumsum(share)
        position = int(np.searchsorted(limits, self.uniform(0.0, float(limits[-1])), side='right'))
        return items[min(position, len(items) - 1)]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in random order."""
        return [items[i] for i in np.argsort(self._generator.random(len(items)), kind='stable')]

    def normals(self, count: int) -> FloatArray:
        """Draw (count,) standard normal values (Box-Muller)."""
        radius = np.sqrt(-2.0 * np.log(1.0 - self._generator.random(count)))
        return radius * np.cos(2.0 * np.pi * self._generator.random(count))
