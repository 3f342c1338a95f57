"""Arc length and resampling."""

import numpy as np
import pytest

from gsmap_core.errors import DataError
from gsmap_core.geometry.polylines import polyline_length, resample_polyline


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
