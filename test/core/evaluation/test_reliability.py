"""Covariances against errors, turning angles: by hand and on drawn errors."""

import json

import numpy as np
import pytest

from gsmap_core.evaluation.element_pairs import matched_elements
from gsmap_core.evaluation.reliability import (
    ReliabilityEvaluator,
    draw_reliability,
    expected_coverage,
    format_reliability,
    lateral_errors,
    measure,
)
from gsmap_core.evaluation.turning import TurningEvaluator, turning_and_length
from gsmap_core.structures import MapElement, VectorMap


def test_lateral_errors_by_hand() -> None:
    """An L-shaped line: along x, then along y."""
    line = [[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]]
    covariance = [[1.0, 0.0, 0.04]] * 4
    vertices = [[2.0, 0.3], [5.0, -0.2], [10.4, 5.0], [-1.0, 0.1]]
    errors, sigmas = lateral_errors(vertices, covariance, line)
    # Left of "ahead along x" is +y; left of "along y" is -x. Beyond the end the line goes on.
    np.testing.assert_allclose(errors, [0.3, -0.2, -0.4, 0.1])
    np.testing.assert_allclose(sigmas, [0.2, 0.2, 1.0, 0.2])


def test_sigma_across_a_diagonal() -> None:
    errors, sigmas = lateral_errors([[1.0, 1.0]], [[2.0, 1.5, 2.0]], [[0.0, 0.0], [2.0, 2.0]])
    np.testing.assert_allclose(errors, [0.0], atol=1e-12)
    np.testing.assert_allclose(sigmas, [np.sqrt(0.5)])  # The small axis lies across.


def test_line_without_length_measures_nothing() -> None:
    errors, sigmas = lateral_errors([[1.0, 1.0]], [[1.0, 0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]])
    assert len(errors) == len(sigmas) == 0


def test_expected_coverage() -> None:
    assert expected_coverage(1.0) == pytest.approx(0.6827, abs=1e-4)
    assert expected_coverage(2.0) == pytest.approx(0.9545, abs=1e-4)


@pytest.mark.parametrize('factor', [1.0, 2.0, 0.5])
def test_factor_finds_what_the_sigmas_lack(factor: float) -> None:
    rng = np.random.default_rng(0)
    sigmas = rng.uniform(0.1, 0.8, 20000)
    result = measure(factor * sigmas * rng.standard_normal(20000), sigmas)
    assert result.sigma_factor == pytest.approx(factor, rel=0.03)
    assert result.coverage[1.0] == pytest.approx(expected_coverage(1 / factor), abs=0.02)
    assert [b.count for b in result.bins] == [2000] * 10
    for item in result.bins:
        assert item.error_m == pytest.approx(factor * item.sigma_m, rel=0.08)


def test_nothing_measured_is_said_so() -> None:
    values = measure([], []).to_dict()
    assert values['num_vertices'] == 0 and values['sigma_factor'] is None
    json.dumps(values, allow_nan=False)


X = np.linspace(0.0, 19.0, 20)


def line(category: int, y: float, score: float | None, sigma: float | None = None) -> MapElement:
    covariance = None if sigma is None else np.tile([1.0, 0.0, sigma**2], (20, 1))
    return MapElement(
        category, np.stack([X, np.full(20, y)], -1), score=score, covariance=covariance
    )


def test_pairs_are_those_of_the_chamfer_metric() -> None:
    truth = VectorMap((line(0, 0.0, None), line(0, 4.0, None), line(2, 0.0, None)))
    prediction = VectorMap(
        (line(0, 0.4, 0.6), line(0, 0.1, 0.9), line(0, 4.2, 0.2), line(0, 7.0, 0.9))
    )
    pairs = list(matched_elements(prediction, truth, 'divider'))
    # The better score takes the first line; the second line's prediction is below the limit.
    assert [(p.vertices[0, 1], t.vertices[0, 1]) for p, t in pairs] == [(0.1, 0.0)]
    assert not list(matched_elements(prediction, truth, 'boundary'))


def test_evaluator_collects_matched_vertices(tmp_path) -> None:
    evaluator = ReliabilityEvaluator()
    assert not evaluator.has_vertices
    truth = VectorMap((line(0, 0.0, None), line(2, 5.0, None)))
    evaluator.add(VectorMap((line(0, 0.3, 0.9, 0.3), line(2, 5.5, 0.9))), truth)
    evaluator.add(VectorMap((line(2, 4.8, 0.9, 0.1),)), truth)
    result = evaluator.result()
    assert result.num_vertices == 40
    assert evaluator.result('divider').sigma_factor == pytest.approx(1.0)
    assert evaluator.result('boundary').sigma_factor == pytest.approx(2.0)
    # Half of the vertices are one sigma off, the others two.
    assert result.coverage[3.0] == 1.0 and result.coverage[1.0] <= 0.5
    assert evaluator.to_dict()['per_category']['ped_crossing']['num_vertices'] == 0
    assert '40 vertices' in format_reliability(evaluator)
    draw_reliability(evaluator, tmp_path / 'reliability.png')
    assert (tmp_path / 'reliability.png').stat().st_size > 5000


def test_turning_by_hand() -> None:
    """Two right angles and a repeated vertex on a line of 3 m."""
    angle, length = turning_and_length([[0, 0], [1, 0], [1, 0], [1, 1], [2, 1]])
    assert angle == pytest.approx(np.pi) and length == pytest.approx(3.0)
    assert turning_and_length([[0, 0], [1, 1], [3, 3]])[0] == pytest.approx(0.0)


def test_turning_per_metre_of_what_was_found() -> None:
    truth = VectorMap((line(2, 0.0, None),))
    zigzag = np.stack([X, 0.5 * (np.arange(20) % 2)], -1)
    evaluator = TurningEvaluator()
    evaluator.add(VectorMap((MapElement(2, zigzag, score=0.9), line(2, 9.0, 0.9))), truth)
    values = evaluator.to_dict()
    # Each of 18 inner vertices turns by twice the slope's angle.
    expected = 18 * 2 * np.degrees(np.arctan(0.5)) / (19 * np.hypot(1, 0.5))
    assert values['predicted_deg_per_m'] == pytest.approx(expected)
    assert values['true_deg_per_m'] == pytest.approx(0.0) and values['num_elements'] == 1
    assert TurningEvaluator().to_dict()['predicted_deg_per_m'] is None
