"""The calibration is what the errors were made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsmap_core.errors import DataError
from gsmap_core.evaluation.calibration import (
    CalibrationEvaluator,
    fitted_sigma,
    format_calibration,
)
from gsmap_core.structures import MapElement, VectorMap


def pairs(count: int, sigma_m: float, said_m: float | None, per_m: float = 0.0):
    """Lines across the view, each vertex off by noise; `said_m` is what they claim."""
    random = np.random.default_rng(5)
    x = np.linspace(-28.0, 28.0, 20)
    for index in range(count):
        y = np.full(20, -10.0 + 20.0 * index / count)
        size = sigma_m + per_m * np.hypot(x, y)
        noisy = np.stack([x, y + size * random.standard_normal(20)], axis=1)
        covariance = None if said_m is None else np.tile([said_m**2, 0, said_m**2], (20, 1))
        yield (
            VectorMap((MapElement(0, noisy, score=0.9, covariance=covariance),)),
            VectorMap((MapElement(0, np.stack([x, y], axis=1)),)),
        )


def test_the_factor_is_that_between_said_and_actual_sigma() -> None:
    evaluator = CalibrationEvaluator()
    for prediction, truth in pairs(200, 0.3, 0.15):
        evaluator.add(prediction, truth)
    result = evaluator.result('noise')
    assert result.sigma_factor == pytest.approx(2.0, rel=0.05)
    assert result.num_vertices == 4000 and result.source == 'noise'
    assert 'sigma = 2.0' in format_calibration(result)


def test_points_get_a_sigma_that_grows_with_the_distance() -> None:
    evaluator = CalibrationEvaluator()
    for prediction, truth in pairs(300, 0.1, None, per_m=0.02):
        evaluator.add(prediction, truth)
    result = evaluator.result()
    assert result.sigma_factor == 1.0
    assert result.point_sigma_m == pytest.approx(0.1, abs=0.03)
    assert result.point_sigma_per_m == pytest.approx(0.02, rel=0.12)


def test_the_line_through_the_bands_by_hand() -> None:
    # Two bands of errors of one size each: 0.2 m at 2 m, 0.6 m at 12 m.
    errors = np.concatenate([np.full(50, 0.2), np.full(50, -0.6)])
    distances = np.concatenate([np.full(50, 2.0), np.full(50, 12.0)])
    assert fitted_sigma(errors, distances) == pytest.approx((0.12, 0.04))
    # One band only: no slope. A falling one: none either.
    assert fitted_sigma(errors[:50], distances[:50]) == pytest.approx((0.2, 0.0))
    assert fitted_sigma(errors, distances[::-1]) == pytest.approx((0.4, 0.0))


def test_too_few_vertices_are_refused() -> None:
    evaluator = CalibrationEvaluator()
    for prediction, truth in pairs(5, 0.1, 0.1):
        evaluator.add(prediction, truth)
    with pytest.raises(DataError, match='100 vertices .* expected at least 200'):
        evaluator.result()


def test_module_does_not_depend_on_the_order_of_frames(tmp_path: Path) -> None:
    first, second = CalibrationEvaluator(), CalibrationEvaluator()
    frames = list(pairs(40, 0.3, 0.2))
    for prediction, truth in frames:
        first.add(prediction, truth)
    for prediction, truth in reversed(frames):
        second.add(prediction, truth)
    assert first.result().sigma_factor == pytest.approx(second.result().sigma_factor)
