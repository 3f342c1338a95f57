"""Cells of two grids that show the same ground: painted grids, both orders, both frames."""

import numpy as np
import pytest

from gsmap_core.geometry.bev_correspondence import (
    corresponding_cells,
    ground_points,
    seen_cells,
)
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.geometry.transforms import (
    invert,
    make_transform,
    rotation_from_rpy,
    transform_points,
)
from gsmap_core.structures import PerceptionRange

#: A roof lidar that is turned, shifted and tilted a little.
EGO_FROM_LIDAR = make_transform(rotation_from_rpy(0.01, -0.02, -1.5), [0.9, 0.1, 1.8])
LIDAR_RANGE = PerceptionRange(-15.0, 15.0, -30.0, 30.0)


def grid_of(order, reference):
    return BevGrid(PerceptionRange() if reference == 'ego' else LIDAR_RANGE, 40, 30, order)


def pose(x, y, yaw, roll=0.0, pitch=0.0):
    return make_transform(rotation_from_rpy(roll, pitch, yaw), [x, y, 0.0])


def painted(grid, map_from_base, ego_from_grid):
    """Paint every cell with where its ground is in the map, (H, W, 2), cell by cell."""
    paint = np.zeros((grid.num_rows, grid.num_columns, 2))
    for row in range(grid.num_rows):
        for column in range(grid.num_columns):
            x, y = grid.cells_to_metres([row + 0.5, column + 0.5])
            point = np.array([x, y, 0.0])
            if ego_from_grid is not None:
                # Down along the lidar's own axis until the ground is reached.
                above = transform_points(ego_from_grid, point[None])[0, 2]
                point[2] = -above / ego_from_grid[2, 2]
                point = transform_points(ego_from_grid, point[None])[0]
            paint[row, column] = transform_points(map_from_base, point[None])[0, :2]
    return paint


@pytest.mark.parametrize('reference', ['ego', 'lidar'])
@pytest.mark.parametrize('order', ['ego', 'official'])
def test_paint_agrees_to_half_a_cell(order, reference):
    grid = grid_of(order, reference)
    matrix = None if reference == 'ego' else EGO_FROM_LIDAR
    first, second = pose(100.0, -50.0, 0.4), pose(109.0, -44.0, 2.9)
    found = corresponding_cells(grid, invert(second) @ first, matrix, matrix)
    mine, theirs = painted(grid, first, matrix), painted(grid, second, matrix)
    np.testing.assert_allclose(
        ground_points(grid, matrix), transform_points_of(mine, invert(first)), atol=1e-9
    )
    row, column = np.moveaxis(np.floor(found.cells[found.is_inside]).astype(int), -1, 0)
    # Differences of the paint in the axes of the other grid: at most half a cell along each.
    grid_from_ego = np.eye(4) if matrix is None else invert(matrix)
    turn = (grid_from_ego @ invert(second))[:2, :2]
    off = np.abs((mine[found.is_inside] - theirs[row, column]) @ turn.T)
    along = np.array(grid.cell_size_m)[:: 1 if order == 'ego' else -1]
    assert (off <= 0.5 * along + 0.005).all()
    assert off.max() > 0.4 * along.min()
    np.testing.assert_allclose(np.linalg.norm(off, axis=1), found.distance_m[found.is_inside],
                               atol=0.01)  # fmt: skip
    # What is called outside has no cell of the other grid with its paint.
    outside = mine[~found.is_inside]
    apart = np.linalg.norm((outside[:, None] - theirs.reshape(-1, 2)) @ turn.T, axis=-1)
    assert apart.min() >= 0.5 * along.min() - 0.005
    assert 0.2 < found.is_inside.mean() < 0.9


def transform_points_of(paint, base_from_map):
    """Return painted map positions on level ground as (H, W, 3) ego points."""
    points = np.concatenate([paint, np.zeros((*paint.shape[:2], 1))], axis=-1)
    return transform_points(base_from_map, points.reshape(-1, 3)).reshape(points.shape)


def test_one_cell_ahead_by_hand():
    """A vehicle that moved one cell forward sees row r where it saw row r - 1 before."""
    grid = BevGrid(PerceptionRange(), 60, 30)
    found = corresponding_cells(grid, invert(pose(1.0, 0.0, 0.0)) @ pose(0.0, 0.0, 0.0))
    np.testing.assert_allclose(found.cells[10, 7], [11.5, 7.5])
    assert found.is_inside[:59].all() and not found.is_inside[59].any()
    # Opposite direction: front right is back left.
    turned = corresponding_cells(grid, pose(0.0, 0.0, np.pi))
    np.testing.assert_allclose(turned.cells[0, 29], [59.5, 0.5])


def test_slopes_and_bridges():
    """The whole pose counts: 8 % uphill, a point 20 m ahead; and a vehicle on a bridge above."""
    grid = BevGrid(PerceptionRange(), 60, 30)
    uphill = pose(0.0, 0.0, 0.0, pitch=-np.arctan(0.08))
    ahead = uphill @ make_transform(translation=[20.0, 0.0, 0.0])
    found = corresponding_cells(grid, invert(ahead) @ uphill)
    np.testing.assert_allclose(found.cells[10, 7], [30.5, 7.5], atol=1e-9)
    np.testing.assert_allclose(found.height_m, 0.0, atol=1e-9)
    above = make_transform(translation=[0.0, 0.0, 6.0])
    np.testing.assert_allclose(corresponding_cells(grid, invert(above)).height_m, -6.0)


def test_seen_cells_are_those_in_a_picture():
    """One camera that looks down a strip: every cell is projected by hand."""
    grid = BevGrid(PerceptionRange(), 12, 6)
    ground = ground_points(grid)
    forward, right, down = np.array([1.0, 0, 0]), np.array([0.0, -1, 0]), np.array([0.0, 0, -1])
    base_from_camera = make_transform(np.stack([right, down, forward], axis=1), [1.0, 0.0, 1.5])
    intrinsics = np.diag([20.0, 20.0, 1.0])
    intrinsics[:2, 2] = [15.5, 7.5]
    matrix = np.eye(4)
    matrix[:3, :3] = intrinsics
    matrix = matrix @ invert(base_from_camera)
    # A second camera would see everything, but is missing.
    matrices, sizes = np.stack([matrix, matrix]), np.array([[32, 16], [3200, 1600]])
    seen = seen_cells(ground, matrices, sizes, np.array([True, False]))
    for row in range(12):
        for column in range(6):
            x, y, _ = ground[row, column]
            depth = x - 1.0
            u, v = -20.0 * y / depth + 15.5, 20.0 * 1.5 / depth + 7.5
            inside = depth > 0.1 and -0.5 <= u <= 31.5 and -0.5 <= v <= 15.5
            assert seen[row, column] == inside
    assert 0 < seen.sum() < 36
    assert not seen_cells(ground, matrices, sizes, np.array([False, False])).any()
