"""Warps are exact: what was painted at a point of the ground lies there from the next pose too."""

import numpy as np
import pytest
import torch

from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.geometry.transforms import (
    invert,
    make_transform,
    rotation_from_rpy,
    transform_points,
)
from gsmap_core.models.bev_warp import BevWarp, inverse
from gsmap_core.structures import PerceptionRange

GRIDS = {
    'ego': BevGrid(PerceptionRange(-30, 30, -15, 15), 60, 30, 'ego'),
    'official': BevGrid(PerceptionRange(-15, 15, -30, 30), 66, 34, 'official'),
}
#: The roof lidar of a car: x to the right, y forward, slightly tilted.
EGO_FROM_LIDAR = make_transform(rotation_from_rpy(0.01, -0.02, -np.pi / 2), [0.94, 0.05, 1.84])
#: Motion from then to now, then_from_now: forward, backward, in a bend, over a crest, rolling.
MOTIONS = {
    'straight': make_transform(translation=[3.3, 0, 0]),
    'reversing': make_transform(rotation_from_rpy(0, 0, -0.1), [-4.1, 0.2, 0]),
    'bend': make_transform(rotation_from_rpy(0, 0, 0.6), [5.0, 1.7, 0]),
    'turned_round': make_transform(rotation_from_rpy(0, 0, 3.0), [1.0, -2.0, 0]),
    'crest': make_transform(rotation_from_rpy(0, 0.15, 0.0), [6.0, 0, 0.4]),
    'all': make_transform(rotation_from_rpy(0.08, -0.12, 0.5), [4.0, -1.0, -0.3]),
}
#: A place far from the origin of the map, as in UTM coordinates.
MAP_FROM_THEN = make_transform(rotation_from_rpy(0.02, 0.03, 2.1), [512_345.6, 5_412_987.1, 440])


def batched(*matrices: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(matrices))


def painted(grid: BevGrid, xy: np.ndarray, sigma_cells: float = 1.2) -> torch.Tensor:
    """Paint a blob around a point: (1, 1, H, W)."""
    row, column = grid.metres_to_cells(xy)
    rows = np.exp(-0.5 * ((np.arange(grid.num_rows) + 0.5 - row) / sigma_cells) ** 2)
    columns = np.exp(-0.5 * ((np.arange(grid.num_columns) + 0.5 - column) / sigma_cells) ** 2)
    return torch.from_numpy(rows[:, None] * columns[None]).float()[None, None]


def centroid_cells(image: torch.Tensor) -> np.ndarray:
    """Return row and column of the centre of mass, cell centres at half indices."""
    weights = image[0, 0].double().numpy()
    rows = np.arange(weights.shape[0]) + 0.5
    columns = np.arange(weights.shape[1]) + 0.5
    total = weights.sum()
    return np.array([weights.sum(1) @ rows, weights.sum(0) @ columns]) / total


@pytest.mark.parametrize('order', GRIDS)
@pytest.mark.parametrize('in_lidar_frame', [False, True])
def test_standing_still_returns_the_map(order: str, in_lidar_frame: bool) -> None:
    grid = GRIDS[order]
    maps = torch.randn(2, 3, grid.num_rows, grid.num_columns)
    pose = batched(MAP_FROM_THEN, np.eye(4))
    reference = batched(EGO_FROM_LIDAR, EGO_FROM_LIDAR).float() if in_lidar_frame else None
    warped = BevWarp(grid)(maps, inverse(pose) @ pose, reference)
    assert warped.dtype == torch.float32
    assert torch.allclose(warped, maps, rtol=0, atol=1e-5)


@pytest.mark.parametrize('order', GRIDS)
@pytest.mark.parametrize('motion', MOTIONS)
@pytest.mark.parametrize('in_lidar_frame', [False, True])
def test_a_painted_point_lands_within_a_tenth_of_a_cell(
    order: str, motion: str, in_lidar_frame: bool
) -> None:
    grid = GRIDS[order]
    ego_from_grid = EGO_FROM_LIDAR if in_lidar_frame else np.eye(4)
    map_from_now = MAP_FROM_THEN @ MOTIONS[motion]
    then_from_now = inverse(batched(MAP_FROM_THEN)) @ batched(map_from_now)
    for point in ([4.0, 3.0, 0.0], [-5.0, -6.0, 0.0], [2.0, 0.25, 0.0]):
        # On the ground, z = 0 of the ego frame of now.
        ground_then = transform_points(MOTIONS[motion], [point])
        here = transform_points(invert(ego_from_grid), [point])[0, :2]
        there = transform_points(invert(ego_from_grid), ground_then)[0, :2]
        warped = BevWarp(grid)(
            painted(grid, there),
            then_from_now,
            batched(EGO_FROM_LIDAR).float() if in_lidar_frame else None,
        )
        assert warped.sum() > 5
        assert np.abs(centroid_cells(warped) - grid.metres_to_cells(here)).max() < 0.1


def test_one_cell_is_one_cell_and_what_was_outside_is_zero() -> None:
    grid = GRIDS['ego']
    maps = 1.0 + torch.rand(1, 2, 60, 30)
    warped = BevWarp(grid)(maps, batched(make_transform(translation=[2.0, 1.0, 0])))
    # Two metres on and one to the left: what was in row 10, column 10 is in row 12, column 11.
    assert torch.allclose(warped[:, :, 2:, 1:], maps[:, :, :-2, :-1], atol=1e-5)
    assert warped[:, :, :2].abs().max() < 1e-12 and warped[:, :, :, :1].abs().max() < 1e-12


def test_rows_move_on_their_own_and_gradients_flow() -> None:
    grid = GRIDS['ego']
    maps = torch.randn(2, 1, 60, 30, requires_grad=True)
    motions = batched(make_transform(translation=[3.0, 0, 0]), np.eye(4))
    warped = BevWarp(grid)(maps, motions)
    assert torch.allclose(warped[0, :, 3:], maps[0, :, :-3], atol=1e-5)
    assert torch.allclose(warped[1], maps[1], atol=1e-5)
    warped.sum().backward()
    assert maps.grad is not None
    assert torch.allclose(maps.grad[0, :, :-3], torch.ones(1, 57, 30), atol=1e-5)
    assert not maps.grad[0, :, -3:].any()


def test_a_mirrored_frame_sees_the_mirrored_map() -> None:
    """Poses of mirrored samples hold the reflection, see `FrameBatch.map_from_base`."""
    grid = GRIDS['ego']
    maps = torch.randn(1, 2, 60, 30)
    flip = batched(np.diag([1.0, -1.0, 1.0, 1.0]))
    then, now = batched(MAP_FROM_THEN), batched(MAP_FROM_THEN) @ flip
    mirrored = BevWarp(grid)(maps, inverse(then) @ now)
    assert torch.allclose(mirrored, maps.flip(-1), atol=1e-5)
    both = BevWarp(grid)(maps, inverse(now) @ now)
    assert torch.allclose(both, maps, atol=1e-5)


def test_inverse_of_poses_and_reflections() -> None:
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    for matrix in (MAP_FROM_THEN, MOTIONS['all'], MOTIONS['bend'] @ flip):
        product = inverse(batched(matrix)) @ batched(matrix)
        assert torch.allclose(product[0], torch.eye(4, dtype=torch.float64), atol=1e-8)


def test_half_precision_around_it_changes_nothing() -> None:
    grid = GRIDS['ego']
    maps = torch.randn(1, 2, 60, 30)
    exact = BevWarp(grid)(maps, batched(MOTIONS['all']))
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(BevWarp(grid)(maps, batched(MOTIONS['all'])), exact)
