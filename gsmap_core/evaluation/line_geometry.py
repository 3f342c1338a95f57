"""Lateral error, completeness and correctness of predicted lines, by distance from the vehicle.

Both sides are walked in pieces of at most 0.5 m. Completeness is the share of the true length that
has a predicted line of its category within the tolerance, correctness the share of the predicted
length that has a true one. The lateral error is the distance of the predicted pieces that are
correct to the true line: how far beside a found line the vehicle would see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from gsmap_core.categories import category_by_name
from gsmap_core.errors import ConfigError
from gsmap_core.evaluation.bev_iou import DEFAULT_MIN_SCORE
from gsmap_core.evaluation.frame_metric import FrameEvaluator, FrameResult
from gsmap_core.evaluation.lateral import (
    SceneSums,
    distances_to_lines,
    mean_of_known,
    plain,
    points_along,
    ratio,
)
from gsmap_core.structures import FloatArray, VectorMap

#: Borders of the distance bands from the origin of the reference frame [m].
DEFAULT_BANDS_M: tuple[float, ...] = (0.0, 10.0, 20.0, 30.0)
#: The farthest that a predicted line may lie beside the true one; the loosest chamfer threshold.
DEFAULT_TOLERANCE_M = 1.5


@dataclass(frozen=True)
class LineQuality:
    """Quality of the lines of one category in one distance band; NaN where nothing is measured.

    Args:
        lateral_error_m: mean distance of correct predicted pieces to the true line [m].
        lateral_rms_m: its root mean square [m].
        completeness: share of the true length that was found.
        correctness: share of the predicted length that is right.
        true_length_m: length of the true lines [m].
        predicted_length_m: length of the predicted lines [m].
    """

    lateral_error_m: float
    lateral_rms_m: float
    completeness: float
    correctness: float
    true_length_m: float
    predicted_length_m: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values for JSON; null instead of NaN."""
        return {key: plain(value) for key, value in vars(self).items()}


@dataclass(frozen=True)
class GeometryResult(FrameResult):
    """Quality of lines over a set of frames.

    Args:
        overall: by category, all distances.
        bands: by category and band (`0-10`).
        tolerance_m: the farthest that a predicted line may lie beside the true one [m].
        min_score: predictions with a lower score were left out.
    """

    overall: dict[str, LineQuality]
    bands: dict[str, dict[str, LineQuality]]
    tolerance_m: float
    min_score: float

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in the order they were asked for."""
        return tuple(self.overall)

    @property
    def per_category(self) -> dict[str, float]:
        """Mean lateral error of each category [m]."""
        return {name: quality.lateral_error_m for name, quality in self.overall.items()}

    @property
    def mean(self) -> float:
        """Mean lateral error over the categories that have one [m]."""
        return mean_of_known(list(self.per_category.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; null instead of NaN."""
        return {
            'metric': 'geometry',
            'tolerance_m': self.tolerance_m,
            'min_score': self.min_score,
            **self.frames_to_dict(),
            'mean': plain(self.mean),
            'per_category': {name: plain(value) for name, value in self.per_category.items()},
            'categories': {
                name: {
                    **quality.to_dict(),
                    'bands_m': {band: q.to_dict() for band, q in self.bands[name].items()},
                }
                for name, quality in self.overall.items()
            },
        }


@dataclass
class GeometryEvaluator(FrameEvaluator):
    """Collects frames one by one and gives the quality of lines over all, or over one scene.

    Args:
        categories: names of the categories to score; elements of others are left out.
        tolerance_m: the farthest that a predicted line may lie beside the true one [m].
        min_score: predictions with a lower score are left out.
        bands_m: rising borders of the distance bands [m]; what lies beyond the last one only
            counts overall.

    Raises:
        ConfigError: a category is unknown, the tolerance is not positive, or the borders do not
            rise.
    """

    tolerance_m: float = DEFAULT_TOLERANCE_M
    min_score: float = DEFAULT_MIN_SCORE
    bands_m: tuple[float, ...] = DEFAULT_BANDS_M
    _sums: SceneSums = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        if not self.tolerance_m > 0:
            raise ConfigError(f'tolerance {self.tolerance_m} m; expected a positive number')
        if len(self.bands_m) < 2 or not (np.diff(self.bands_m) > 0).all():
            raise ConfigError(
                f'distance bands {list(self.bands_m)} m; expected two or more rising borders'
            )
        # Row 0 holds all distances, the others a band each.
        self._sums = SceneSums((len(self.bands_m), 6))

    def add(self, prediction: VectorMap, ground_truth: VectorMap) -> None:
        """Compare one frame.

        Raises:
            DataError: the two maps have different references or ranges, or a predicted element has
                no score.
        """
        scene = self._frames.add(prediction, ground_truth)
        for name in self.categories:
            number = category_by_name(name).id
            predicted = [
                element.loop_xy()
                for element in prediction.of_category(number)
                if (element.score or 0.0) >= self.min_score
            ]
            true = [element.loop_xy() for element in ground_truth.of_category(number)]
            self._sums.add(name, scene, self._measure(predicted, true))

    def _measure(self, predicted: Sequence[FloatArray], true: Sequence[FloatArray]) -> FloatArray:
        """Return (bands, 6): true, found, predicted and right length, error and square [m]."""
        sums = np.zeros((len(self.bands_m), 6))
        for lines, others, first in ((true, predicted, 0), (predicted, true, 2)):
            for line in lines:
                points, piece_m = points_along(line)
                gaps = distances_to_lines(points, others)
                near = gaps <= self.tolerance_m
                values = [np.ones(len(points)), near]
                if first:
                    error = np.where(near, gaps, 0.0)
                    values += [error, error**2]
                weighted = piece_m * np.stack(values, axis=1)
                columns = slice(first, first + weighted.shape[1])
                sums[0, columns] += weighted.sum(axis=0)
                radius = np.hypot(points[:, 0], points[:, 1])
                band = np.searchsorted(self.bands_m, radius, side='right')
                for index in range(1, len(self.bands_m)):
                    sums[index, columns] += weighted[band == index].sum(axis=0)
        return sums

    def merge(self, other: Self) -> None:
        """Add the frames of an evaluator with the same settings.

        Raises:
            DataError: its frames have another reference or range.
        """
        super().merge(other)
        self._sums.merge(other._sums)

    def result(self, scene: str | None = None) -> GeometryResult:
        """Return the quality of lines over the frames added so far.

        Args:
            scene: only the frames of this scene; None: all.
        """
        totals = {name: self._sums.total(name, scene) for name in self.categories}
        labels = [
            f'{low:g}-{high:g}'
            for low, high in zip(self.bands_m[:-1], self.bands_m[1:], strict=True)
        ]
        return GeometryResult(
            overall={name: _quality(rows[0]) for name, rows in totals.items()},
            bands={
                name: {label: _quality(row) for label, row in zip(labels, rows[1:], strict=True)}
                for name, rows in totals.items()
            },
            tolerance_m=self.tolerance_m,
            min_score=self.min_score,
            **self._seen(scene),
        )


def _quality(sums: FloatArray) -> LineQuality:
    true, found, predicted, right, error, square = sums
    return LineQuality(
        lateral_error_m=ratio(error, right),
        lateral_rms_m=float(np.sqrt(ratio(square, right))),
        completeness=ratio(found, true),
        correctness=ratio(right, predicted),
        true_length_m=float(true),
        predicted_length_m=float(predicted),
    )
