"""Claims against runs, seed by seed."""

import math

import pytest

from gsmap_core.evaluation.claims import paired_difference


def records(*scores):
    return [{'seed': seed, 'chamfer_map': score} for seed, score in enumerate(scores)]


PATH = ('chamfer_map',)


def test_the_interval_by_hand() -> None:
    """Differences 0.01, 0.02, 0.03: mean 0.02, deviation 0.01, t of 2 degrees at 95 % is 2.920."""
    found = paired_difference(records(0.31, 0.42, 0.53), records(0.30, 0.40, 0.50), PATH)
    assert found.mean == pytest.approx(0.02) and found.count == 3
    assert found.half_width == pytest.approx(2.91999 * 0.01 / math.sqrt(3), rel=1e-4)
    assert found.text() == '+0.020 ± 0.017'
    assert found.verdict(2.0) == 'reproduced' and found.verdict(-1.0) == 'not reproduced'


def test_verdicts() -> None:
    host = records(0.30, 0.40, 0.50)
    wide = paired_difference(records(0.31, 0.46, 0.53), host, PATH)
    assert wide.verdict(2.0) == 'within noise'
    worse = paired_difference(records(0.27, 0.38, 0.47), host, PATH)
    assert worse.verdict(2.0) == 'not reproduced' and worse.verdict(-2.0) == 'reproduced'
    one = paired_difference(records(0.31), host, PATH)
    assert one.verdict(2.0) == 'needs two seeds' and one.text() == '+0.010'
    # Only seeds that both have count, and only runs that have the number.
    other = paired_difference([{'seed': 9, 'chamfer_map': 0.5}, {'seed': 0}], host, PATH)
    assert other.verdict(2.0) == 'not run' and other.text() == '-'
    assert paired_difference(records(0.3, 0.4), records(0.3, 0.4), PATH).verdict(1) == (
        'within noise'
    )
