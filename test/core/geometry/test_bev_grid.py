"""The grid: which cell is where, in both orders."""

import numpy as np
import pytest

from gsmap_core.errors import ConfigError
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.structures import PerceptionRange

EGO = BevGrid(PerceptionRange(), 200, 100)
OFFICIAL = BevGrid(PerceptionRange(-15, 15, -30, 30), 200, 100, 'official')


def test_row_0_is_ahead_and_column_0_is_left():
    centres = EGO.cell_centres()
    assert np.allclose(centres[0, 0], [29.85, 14.85])
    assert np.allclose(centres[199, 99], [-29.85, -14.85])
    assert EGO.metres_to_cells([30.0, 15.0]).tolist() == [0, 0]
    assert EGO.metres_to_unit([-30.0, 15.0]).tolist() == [0, 1]


def test_official_corner_centres():
    """The two cell centres that reference-models.md, section 8.4, names."""
    centres = OFFICIAL.cell_centres()
    assert np.allclose(centres[0, 0], [-14.85, -29.85])
    assert np.allclose(centres[199, 99], [14.85, 29.85])


@pytest.mark.parametrize('grid', [EGO, OFFICIAL, BevGrid(PerceptionRange(-5, 9, -2, 1), 7, 3)])
def test_conversions_invert_each_other(grid):
    area = grid.range
    rng = np.random.default_rng(0)
    points = rng.uniform([area.x_min, area.y_min], [area.x_max, area.y_max], (50, 2))
    assert np.allclose(grid.cells_to_metres(grid.metres_to_cells(points)), points)
    unit = grid.metres_to_unit(points)
    assert (unit >= 0).all() and (unit <= 1).all()
    assert np.allclose(grid.unit_to_metres(unit), points)


def test_unit_extent_gives_metric_lengths():
    a, b = np.array([[3.0, 4.0], [-2.0, 1.0]])
    for grid in (EGO, OFFICIAL):
        step = (grid.metres_to_unit(b) - grid.metres_to_unit(a)) * grid.unit_extent_m()
        assert np.linalg.norm(step) == pytest.approx(np.linalg.norm(b - a))


@pytest.mark.parametrize('grid', [EGO, OFFICIAL, BevGrid(PerceptionRange(-5, 9, -2, 1), 7, 3)])
def test_row_and_column_centres_span_the_cell_centres(grid):
    centres = grid.cell_centres()
    rows, columns = grid.row_centres_m(), grid.column_centres_m()
    assert np.array_equal(centres[:, 0, grid.row_axis], rows)
    assert np.array_equal(centres[0, :, 1 - grid.row_axis], columns)
    assert rows.shape == (grid.num_rows,) and columns.shape == (grid.num_columns,)


def test_row_axis_of_both_orders():
    assert EGO.row_axis == 0 and EGO.row_centres_m()[0] == pytest.approx(29.85)
    assert OFFICIAL.row_axis == 1 and OFFICIAL.row_centres_m()[0] == pytest.approx(-29.85)


def test_bad_grids_are_refused():
    with pytest.raises(ConfigError, match='positive counts'):
        BevGrid(PerceptionRange(), 0, 10)
    with pytest.raises(ConfigError, match="'north'"):
        BevGrid(PerceptionRange(), 10, 10, 'north')


def test_heights_run_between_their_limits():
    """A third coordinate is carried along both ways and changes nothing else."""
    for order, rows, columns in (('ego', 200, 100), ('official', 100, 200)):
        grid = BevGrid(PerceptionRange(), rows, columns, order, (-5.0, 3.0))
        points = np.array([[10.0, -3.0, -5.0], [0.0, 0.0, 1.0], [-30.0, 15.0, 3.0]])
        unit = grid.metres_to_unit(points)
        assert unit[:, 2].tolist() == [0.0, 0.75, 1.0]
        np.testing.assert_array_equal(unit[:, :2], grid.metres_to_unit(points[:, :2]))
        np.testing.assert_allclose(grid.unit_to_metres(unit), points, atol=1e-12)
        assert grid.height_extent_m == 8.0
