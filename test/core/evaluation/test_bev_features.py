"""Statistics of BEV features: patterns fixed in the grid, principal components, agreement."""

import numpy as np
import pytest

from gsmap_core.errors import DataError
from gsmap_core.evaluation.bev_features import FeatureStatistics, place_agreement


def statistics_of(frames):
    statistics = FeatureStatistics()
    for frame in frames:
        statistics.add(frame)
    return statistics.result()


def test_fixed_share_is_that_of_the_pattern():
    """A pattern of variance 3 under changing noise of variance 1, and the noise alone."""
    generator = np.random.default_rng(0)
    pattern = np.sqrt(3.0) * generator.standard_normal((4, 30, 20))
    pattern = (pattern - pattern.mean((1, 2), keepdims=True)) / pattern.std() * np.sqrt(3.0)
    noise = generator.standard_normal((12, 4, 30, 20))
    report = statistics_of(5.0 + pattern + noise)
    assert report.fixed_share == pytest.approx(0.75, abs=0.02)
    assert report.total_variance == pytest.approx(4 * 4.0, rel=0.03)
    # Without a pattern nothing is left, though the mean of 12 frames does scatter.
    assert statistics_of(noise).fixed_share < 0.01
    assert report.to_dict()['frames'] == 12


def test_lengthwise_share_is_what_changes_along_the_vehicle():
    """Variance 2 across the vehicle, 1 along it, 1 that changes from frame to frame."""
    across = np.sqrt(2.0) * np.where(np.arange(20) % 2, 1.0, -1.0)
    along = np.where(np.arange(30) % 2, 1.0, -1.0)[:, None]
    noise = np.random.default_rng(3).standard_normal((12, 4, 30, 20))
    report = statistics_of(noise + across + along)
    assert report.fixed_share == pytest.approx(0.75, abs=0.02)
    assert report.lengthwise_share == pytest.approx(0.25, abs=0.02)
    assert report.to_dict()['lengthwise_share'] == report.lengthwise_share
    assert statistics_of(noise + across).lengthwise_share < 0.01


def test_the_pattern_is_shown_where_it_is():
    frames = np.random.default_rng(1).standard_normal((6, 3, 8, 8)) * 0.1
    frames[:, :, 1, 6] += 2.0
    pattern = statistics_of(frames).fixed_pattern()
    assert np.unravel_index(pattern.argmax(), pattern.shape) == (1, 6)
    assert pattern[1, 6] > 5 * np.delete(pattern.ravel(), 14).max()


def test_components_are_the_strongest_directions():
    generator = np.random.default_rng(2)
    scale = np.array([1.0, 4.0, 0.1, 2.0])
    frames = generator.standard_normal((5, 4, 40, 40)) * scale[:, None, None]
    report = statistics_of(frames)
    np.testing.assert_allclose(
        report.components, [[0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]], atol=0.05
    )
    np.testing.assert_allclose(report.shares, np.array([16, 4, 1]) / 21.01, rtol=0.05)


def test_too_few_frames_and_other_shapes_are_refused():
    statistics = FeatureStatistics()
    statistics.add(np.zeros((2, 3, 3)))
    with pytest.raises(DataError, match='1 frames'):
        statistics.result()
    with pytest.raises(DataError, match=r'shape \(2, 3, 4\) follow \(2, 3, 3\)'):
        statistics.add(np.zeros((2, 3, 4)))


def test_agreement_of_places():
    """The second vehicle is a row ahead: cell (r, c) is its cell (r + 1, c)."""
    generator = np.random.default_rng(3)
    first = generator.standard_normal((16, 6, 5))
    second = np.roll(first, 1, axis=1) * 2.0
    row, column = np.mgrid[:6, :5]
    nearest = np.where(row < 5, (row + 1) * 5 + column, -1)
    mean = np.full(16, 0.3)
    same, other = place_agreement(
        first + 0.3, second + 0.3, nearest, mean, np.random.default_rng(0)
    )
    assert same == pytest.approx(1.0) and abs(other) < 0.2
    nothing = place_agreement(first, second, np.full((6, 5), -1), mean, generator)
    assert np.isnan(nothing).all()
