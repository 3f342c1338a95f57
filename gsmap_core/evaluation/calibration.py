"""Fits how far the vertices of a model are to be trusted: `gsmap_core.calibration`.

Like `reliability`, it looks at the lateral errors of the vertices of matched elements. Where the
model predicts covariances it fits one factor for their sigmas; for vertices without it fits a
sigma that grows with the distance from the vehicle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gsmap_core.calibration import Calibration
from gsmap_core.categories import PAPER_CATEGORIES
from gsmap_core.errors import DataError
from gsmap_core.evaluation.element_pairs import matched_elements
from gsmap_core.evaluation.reliability import expected_coverage, lateral_errors, measure
from gsmap_core.structures import FloatArray, VectorMap

#: Fewer vertices say too little.
MIN_VERTICES = 200
_BAND_M = 5.0
_MIN_IN_BAND = 30
#: No fitted sigma is smaller than this [m].
_LEAST_SIGMA_M = 0.02


class CalibrationEvaluator:
    """Collects lateral errors, predicted sigmas and distances of vertices over many frames.

    Args:
        categories: names of those that are looked at.
        max_distance_m: greatest chamfer distance of a pair [m].
        min_score: predictions with a lower score are left out.
    """

    def __init__(
        self,
        categories: Sequence[str] = PAPER_CATEGORIES,
        max_distance_m: float = 1.5,
        min_score: float = 0.3,
    ) -> None:
        self.categories = tuple(categories)
        self.max_distance_m, self.min_score = max_distance_m, min_score
        self._values: list[FloatArray] = []

    def add(self, prediction: VectorMap, truth: VectorMap) -> None:
        """Add one frame."""
        for name in self.categories:
            for predicted, true in matched_elements(
                prediction,
                truth,
                name,
                max_distance_m=self.max_distance_m,
                min_score=self.min_score,
            ):
                xy = predicted.vertices[:, :2]
                given = predicted.covariance
                covariance = np.tile([1.0, 0.0, 1.0], (len(xy), 1)) if given is None else given
                errors, sigmas = lateral_errors(xy, covariance, true.loop_xy())
                if len(errors) != len(xy):
                    continue
                distances = np.linalg.norm(xy, axis=1)
                known = np.full(len(xy), float(given is not None))
                self._values.append(np.stack([errors, sigmas, distances, known], axis=1))

    def result(self, source: str = '') -> Calibration:
        """Return the fit.

        Args:
            source: what the frames are, for people.

        Raises:
            DataError: too few vertices.
        """
        values = np.concatenate(self._values) if self._values else np.zeros((0, 4))
        if len(values) < MIN_VERTICES:
            raise DataError(
                f'{len(values)} vertices of matched elements (score >= {self.min_score:g}); '
                f'expected at least {MIN_VERTICES} to fit a calibration: give more drives'
            )
        errors, sigmas, distances, known = values.T
        is_known = known > 0
        factor = 1.0
        if is_known.any():
            factor = measure(errors[is_known], sigmas[is_known]).sigma_factor
        base, slope = fitted_sigma(errors, distances)
        return Calibration(
            sigma_factor=float(factor),
            point_sigma_m=base,
            point_sigma_per_m=slope,
            num_vertices=len(values),
            source=source,
        )


def fitted_sigma(errors: npt.ArrayLike, distances: npt.ArrayLike) -> tuple[float, float]:
    """Fit a sigma that grows with the distance.

    In bands of the distance the sigma is the width that 68.3 % of the errors lie within (which a
    few vertices far off do not move); a line is laid through the bands by least squares, each with
    the weight of its vertices.

    Args:
        errors: (T,) lateral errors [m].
        distances: (T,) from the vehicle [m].

    Returns:
        Sigma at the vehicle [m] and what every metre adds to it, neither negative.
    """
    error = np.abs(np.asarray(errors, dtype=np.float64))
    distance = np.asarray(distances, dtype=np.float64)
    bands = np.floor(distance / _BAND_M).astype(int)
    rows = []
    for band in np.unique(bands):
        inside = bands == band
        if int(inside.sum()) >= _MIN_IN_BAND:
            width = float(np.quantile(error[inside], expected_coverage(1.0)))
            rows.append((float(distance[inside].mean()), width, float(inside.sum())))
    whole = max(float(np.quantile(error, expected_coverage(1.0))), _LEAST_SIGMA_M)
    if len(rows) < 2:
        return whole, 0.0
    x, y, weight = np.array(rows).T
    mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = float(np.average((x - mean_x) ** 2, weights=weight))
    slope = float(np.average((x - mean_x) * (y - mean_y), weights=weight)) / spread
    slope = max(slope, 0.0)
    base = float(mean_y - slope * mean_x)
    if base < _LEAST_SIGMA_M:
        # Through that point at the vehicle, and through the middle of the vertices.
        base, slope = _LEAST_SIGMA_M, max(float((mean_y - _LEAST_SIGMA_M) / mean_x), 0.0)
    return max(base, _LEAST_SIGMA_M), slope


def format_calibration(calibration: Calibration) -> str:
    """Return the fit in a sentence."""
    return (
        f'calibration from {calibration.num_vertices} vertices: sigma = '
        f'{calibration.sigma_factor:.3f} x predicted; without covariance '
        f'{calibration.point_sigma_m or 0.0:.3f} m + {calibration.point_sigma_per_m:.4f} m per '
        'metre of distance'
    )
