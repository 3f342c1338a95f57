"""What BEV features look like over many frames: fixed patterns in the grid, agreement of places.

A good feature says what lies at a place, not where in the grid the place happens to be. Everything
is collected frame by frame, so that memory does not grow with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gsmap_core.errors import DataError
from gsmap_core.structures import FloatArray

_LEAST = 1e-12


@dataclass(frozen=True)
class FeatureReport:
    """Statistics of the BEV features of F frames.

    Args:
        num_frames: F.
        mean: (C, H, W) mean feature of every cell over the frames.
        components: (3, C) principal directions of all features, strongest first; the sign is such
            that the largest entry of each is positive.
        shares: (3,) of the variance along them.
        total_variance: of all features around their common mean, summed over channels.
        fixed_variance: of the cells' mean features around it, less what the mean over F frames
            scatters by chance: what depends on the position in the grid alone.
        lengthwise_variance: the part of it within the columns of the grid, along the vehicle.
            Streets run along the vehicle, so that a mean that changes across it is also due to
            them; one that changes along it hardly is.
    """

    num_frames: int
    mean: FloatArray
    components: FloatArray
    shares: FloatArray
    total_variance: float
    fixed_variance: float
    lengthwise_variance: float

    @property
    def fixed_share(self) -> float:
        """Share of the variance that the position in the grid explains, 0 to 1."""
        return self.fixed_variance / max(self.total_variance, _LEAST)

    @property
    def lengthwise_share(self) -> float:
        """Share of the variance that the position along the vehicle explains, 0 to 1."""
        return self.lengthwise_variance / max(self.total_variance, _LEAST)

    def fixed_pattern(self) -> FloatArray:
        """Return (H, W): how far the mean feature of a cell is from the common mean.

        In standard deviations of all features.
        """
        away = self.mean - self.mean.mean(axis=(1, 2), keepdims=True)
        squared = np.square(away).sum(axis=0) / max(self.total_variance, _LEAST)
        return np.asarray(np.sqrt(squared))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for a report."""
        return {
            'frames': self.num_frames,
            'fixed_share': self.fixed_share,
            'lengthwise_share': self.lengthwise_share,
            'fixed_variance': self.fixed_variance,
            'total_variance': self.total_variance,
            'principal_shares': self.shares.tolist(),
        }


class FeatureStatistics:
    """Collects the BEV features of frames."""

    def __init__(self) -> None:
        self.num_frames = 0
        self._sums: FloatArray | None = None
        self._products: FloatArray | None = None

    def add(self, features: npt.ArrayLike) -> None:
        """Add one frame.

        Args:
            features: (C, H, W).

        Raises:
            DataError: another shape than before.
        """
        values = np.asarray(features, dtype=np.float64)
        if self._sums is None or self._products is None:
            self._sums = np.zeros_like(values)
            self._products = np.zeros((len(values), len(values)))
        if values.shape != self._sums.shape:
            raise DataError(
                f'BEV features of shape {values.shape} follow {self._sums.shape}; expected the '
                'same model throughout'
            )
        flat = values.reshape(len(values), -1)
        self._sums += values
        self._products += flat @ flat.T
        self.num_frames += 1

    def result(self) -> FeatureReport:
        """Return the statistics.

        Raises:
            DataError: fewer than two frames were added.
        """
        if self._sums is None or self._products is None or self.num_frames < 2:
            raise DataError(
                f'{self.num_frames} frames; a pattern that stays needs at least two to be seen'
            )
        mean = self._sums / self.num_frames
        count = self.num_frames * mean[0].size
        common = mean.mean(axis=(1, 2))
        covariance = self._products / count - np.outer(common, common)
        values, vectors = np.linalg.eigh(covariance)
        components = vectors[:, ::-1][:, :3].T
        strongest = np.take_along_axis(
            components, np.abs(components).argmax(axis=1)[:, None], axis=1
        )
        total = float(np.trace(covariance))
        between = float(np.square(mean - common[:, None, None]).sum(axis=0).mean())
        # The mean of F frames scatters by 1 / F of a frame's own variance.
        by_chance = max(total - between, 0.0) / (self.num_frames - 1)
        num_rows = mean.shape[1]
        lengthwise = float(np.square(mean - mean.mean(axis=1, keepdims=True)).sum(axis=0).mean())
        return FeatureReport(
            num_frames=self.num_frames,
            mean=mean,
            components=components * np.where(strongest < 0, -1.0, 1.0),
            shares=np.asarray(values[::-1][:3] / max(total, _LEAST)),
            total_variance=total,
            fixed_variance=max(between - by_chance, 0.0),
            lengthwise_variance=max(lengthwise - by_chance * (num_rows - 1) / num_rows, 0.0),
        )


def place_agreement(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    nearest: npt.NDArray[np.int64],
    mean: npt.ArrayLike,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Return how alike two frames' features of the same place are, and those of other places.

    Args:
        first: (C, H, W) of one frame.
        second: (C, H, W) of another one.
        nearest: (H, W) flat cell of the second grid at the same place, -1: none.
        mean: (C,) that is subtracted from both.
        generator: draws the other places among the same cells.

    Returns:
        Mean cosine similarity of cells that show the same place, and of those cells in random
        order; NaN where the frames have no cell in common.
    """
    centre = np.asarray(mean, dtype=np.float64)[:, None]
    one, two = (
        np.asarray(x, np.float64).reshape(len(centre), -1) - centre for x in (first, second)
    )
    cells = np.flatnonzero(nearest.ravel() >= 0)
    if not len(cells):
        return np.nan, np.nan
    one, two = one[:, cells], two[:, nearest.ravel()[cells]]
    one, two = (x / np.maximum(np.linalg.norm(x, axis=0), _LEAST) for x in (one, two))
    other = two[:, generator.permutation(len(cells))]
    return float((one * two).sum(axis=0).mean()), float((one * other).sum(axis=0).mean())
