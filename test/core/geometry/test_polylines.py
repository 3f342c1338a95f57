"""Arc length and resampling."""

import numpy as np
import pytest

from gsmap_core.errors import DataError
from gsmap_core.geometry.polylines import (
    polyline_length,
    resample_polyline,
    resample_polylines,
)


def test_even_samples_along_a_corner():
    line = [[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]]
    assert np.allclose(resample_polyline(line, 5), [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2]])


def test_planar_arc_ignores_height():
    line = [[0.0, 0.0, 0.0], [1.0, 0.0, 5.0], [2.0, 0.0, 5.0]]
    middle = resample_polyline(line, 3, dimensions=2)[1]
    assert np.allclose(middle, [1, 0, 5])


def test_degenerate_lines():
    assert np.allclose(resample_polyline([[1.0, 2.0], [1.0, 2.0]], 3), [[1, 2]] * 3)
    with pytest.raises(DataError, match='P >= 1'):
        resample_polyline(np.zeros((0, 2)), 3)
    with pytest.raises(DataError, match='at least 1'):
        resample_polyline([[0.0, 0.0]], 0)


def test_length_of_a_ring_counts_the_closing_edge():
    square = [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert polyline_length(square) == 3 and polyline_length(square, closed=True) == 4


@pytest.mark.parametrize('num_points', [1, 2, 7, 100])
@pytest.mark.parametrize('num_dims', [2, 3])
def test_many_lines_at_once_are_equal_to_one_by_one(num_points, num_dims):
    random = np.random.default_rng(num_points)
    lines = [random.normal(0.0, 9.0, (count, num_dims)).round(1) for count in (1, 2, 5, 30, 3, 2)]
    lines[2] = np.repeat(lines[2], 2, axis=0)
    lines[4][:] = lines[4][0]
    lines[5][:, :2] = lines[5][0, :2]
    for dimensions in (None, 2):
        expected = np.stack([resample_polyline(x, num_points, dimensions) for x in lines])
        np.testing.assert_array_equal(resample_polylines(lines, num_points, dimensions), expected)


def test_many_lines_refuse_what_one_refuses():
    assert resample_polylines([], 5).shape == (0, 5, 2)
    with pytest.raises(DataError, match='P >= 1'):
        resample_polylines([[[0.0, 0.0]], np.zeros((0, 2))], 3)
    with pytest.raises(DataError, match=r'expected \(P, 2\)'):
        resample_polylines([[[0.0, 0.0]], [[0.0, 0.0, 0.0]]], 3)
    with pytest.raises(DataError, match='at least 1'):
        resample_polylines([[[0.0, 0.0]]], 0)
