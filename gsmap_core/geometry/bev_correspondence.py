"""Which cells of two BEV grids show the same ground, and which cells a camera can see.

Frames: a grid lies in the reference frame of a model (`ego_from_grid`; None: the ego frame
itself), in whichever cell order it has. Ground is the plane z = 0 of the ego frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import FloatArray

#: Ground nearer to a camera than this is not seen [m].
_MIN_DEPTH_M = 0.1


@dataclass(frozen=True)
class CellCorrespondence:
    """Where the cells of one grid lie in another.

    Args:
        cells: (H, W, 2) continuous row and column in the other grid of every cell centre; the
            nearest cell is that of the whole parts.
        is_inside: (H, W) bool, whether that is in the other grid.
        distance_m: (H, W) to the centre of the nearest cell [m].
        height_m: (H, W) of the point above the other vehicle's ground plane [m].
    """

    cells: FloatArray
    is_inside: npt.NDArray[np.bool_]
    distance_m: FloatArray
    height_m: FloatArray


def ground_points(grid: BevGrid, ego_from_grid: npt.ArrayLike | None = None) -> FloatArray:
    """Return the (H, W, 3) points of the ground at every cell centre, ego frame [m].

    In a frame that is not the ego frame a centre has x and y there, and the height at which the
    ground is.
    """
    centres = grid.cell_centres()
    if ego_from_grid is None:
        return np.concatenate([centres, np.zeros((*centres.shape[:2], 1))], axis=-1)
    matrix = np.asarray(ego_from_grid, dtype=np.float64)
    height = -(centres @ matrix[2, :2] + matrix[2, 3]) / matrix[2, 2]
    points = np.concatenate([centres, height[..., None]], axis=-1)
    return transform_points(matrix, points.reshape(-1, 3)).reshape(points.shape)


def corresponding_cells(
    grid: BevGrid,
    other_from_ego: npt.ArrayLike,
    ego_from_grid: npt.ArrayLike | None = None,
    other_from_grid: npt.ArrayLike | None = None,
) -> CellCorrespondence:
    """Find where the cells of a grid are in the same grid of another frame.

    Args:
        grid: of both.
        other_from_ego: (4, 4) ego frame of this frame to ego frame of the other [m]:
            `invert(map_from_base_other) @ map_from_base`.
        ego_from_grid: (4, 4) reference frame of the model to ego frame, of this vehicle.
        other_from_grid: the same of the other vehicle.

    Source: MapGCLR, positive pairs. The whole pose is used instead of x, y and heading: on level
    ground that is the same, on a slope it is right.
    """
    ground = ground_points(grid, ego_from_grid).reshape(-1, 3)
    points = transform_points(other_from_ego, ground)
    in_grid = (
        points if other_from_grid is None else transform_points(invert(other_from_grid), points)
    )
    shape = (grid.num_rows, grid.num_columns)
    cells = grid.metres_to_cells(in_grid[:, :2]).reshape(*shape, 2)
    off_centre = (cells - np.floor(cells) - 0.5) * np.array(grid.cell_size_m)
    return CellCorrespondence(
        cells=cells,
        is_inside=((cells >= 0) & (cells < shape)).all(axis=-1),
        distance_m=np.linalg.norm(off_centre, axis=-1),
        height_m=points[:, 2].reshape(shape),
    )


def seen_cells(
    ground: FloatArray,
    pixels_from_ego: npt.ArrayLike,
    sizes_px: npt.ArrayLike,
    camera_mask: npt.ArrayLike,
) -> npt.NDArray[np.bool_]:
    """Return (H, W) bool: whether the ground of a cell is in the picture of any camera.

    What stands in between is not known.

    Args:
        ground: (H, W, 3) of `ground_points` [m].
        pixels_from_ego: (N, 4, 4) to homogeneous pixels.
        sizes_px: (N, 2) width and height of the pictures, without padding.
        camera_mask: (N,) bool, False where the camera is missing.
    """
    seen = np.zeros(ground.shape[:2], dtype=bool)
    matrices, sizes = np.asarray(pixels_from_ego, np.float64), np.asarray(sizes_px)
    for number in np.flatnonzero(np.asarray(camera_mask)):
        projected = ground @ matrices[number, :3, :3].T + matrices[number, :3, 3]
        depth = projected[..., 2]
        is_ahead = depth > _MIN_DEPTH_M
        pixels = projected[..., :2] / np.where(is_ahead, depth, 1.0)[..., None]
        inside = (pixels >= -0.5) & (pixels <= sizes[number] - 0.5)
        seen |= is_ahead & inside.all(axis=-1)
    return seen
