"""Thresholds, and thinning out of ground truth."""

import numpy as np
import pytest

from gsmap_core.errors import ConfigError, DataError
from gsmap_core.evaluation.chamfer import ChamferEvaluator
from gsmap_core.evaluation.protocols import (
    default_thresholds,
    line_of,
    protocol_by_name,
    simplified,
    thresholds_from_text,
)
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap


def test_thresholds_by_name_or_number():
    assert thresholds_from_text(['strict']) == (0.2, 0.5, 1.0)
    assert thresholds_from_text(['0.3', '2']) == (0.3, 2.0)
    for wrong in (['strict', '0.5'], ['near'], ['0,5']):
        with pytest.raises(ConfigError, match='expected numbers in metres, or one of standard'):
            thresholds_from_text(wrong)


def test_streammapnet_takes_larger_thresholds_for_the_large_range():
    large = PerceptionRange(-50.0, 50.0, -25.0, 25.0)
    assert default_thresholds('streammapnet', large) == (1.0, 1.5, 2.0)
    assert default_thresholds('maptr', large) == (0.5, 1.0, 1.5)
    assert default_thresholds('streammapnet', PerceptionRange()) == (0.5, 1.0, 1.5)
    assert default_thresholds('streammapnet', None) == (0.5, 1.0, 1.5)


def test_thinning_out_keeps_what_deviates_and_is_the_same_twice():
    bump = np.array([[0.0, 0.0], [5.0, 0.15], [10.0, 0.0]])
    assert len(simplified(bump, 0.2)) == 2 and len(simplified(bump, 0.1)) == 3
    assert simplified(bump, 0.0) is bump
    high = np.column_stack([bump, [1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(simplified(high, 0.2), high[[0, 2]])
    random = np.random.default_rng(0)
    for _ in range(20):
        steps = random.normal(0.0, 0.4, (60, 2))
        line = np.cumsum(np.abs(steps) * (1.0, 0.0) + steps * (0.0, 1.0), axis=0)
        once = simplified(line, 0.2)
        assert 2 < len(once) < 60
        np.testing.assert_array_equal(simplified(once, 0.2), once)


def test_only_streammapnet_thins_out_unless_asked():
    truth = MapElement(0, np.array([[0.0, 0.0], [5.0, 0.19], [10.0, 0.0]]))
    predicted = MapElement(0, np.array([[0.0, 0.0], [10.0, 0.0]]), score=0.9)
    pair = VectorMap((predicted,), sample_id='a'), VectorMap((truth,), sample_id='a')
    expected = {('streammapnet', None): 1.0, ('streammapnet', 0.0): 0.0, ('maptr', 0.2): 1.0}
    for (protocol, simplify_m), value in {**expected, ('maptr', None): 0.0}.items():
        evaluator = ChamferEvaluator(('divider',), (0.05,), protocol, simplify_m=simplify_m)
        evaluator.add(*pair)
        assert evaluator.result().mean_ap == value, (protocol, simplify_m)


def test_unknown_protocol_and_missing_heights():
    with pytest.raises(ConfigError, match="'iou': unknown"):
        protocol_by_name('iou')
    ring = MapElement(1, np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]), True)
    assert line_of(ring, 3).shape == (4, 3) and line_of(ring).shape == (4, 2)
    with pytest.raises(DataError, match='no heights'):
        line_of(MapElement(0, np.array([[0.0, 0.0], [1.0, 0.0]])), 3)
