"""Pillars of points above BEV cells, and where cameras see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Smallest depth that counts as in front of the camera, as published [m].
MIN_DEPTH_M = 1e-5


def pillar_heights(z_min_m: float, z_max_m: float, count: int) -> list[float]:
    """Return a pillar's heights [m]: evenly spaced, half a metre inside both ends."""
    extent = z_max_m - z_min_m
    return [z_min_m + value for value in np.linspace(0.5, extent - 0.5, count)]


def project_pillars(
    points: Tensor,  # (Q, Z, 3)
    pixels_from_reference: Tensor,  # (B, N, 4, 4)
    image_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Project pillar points into every camera, in float32.

    Args:
        points: (Q, Z, 3) in the reference frame [m].
        pixels_from_reference: (B, N, 4, 4).
        image_size: height and width of the network input [px].

    Returns:
        (B, N, Q, Z, 2) fractions (u, v) of width and height, meaningless behind the camera, and
        (B, N, Q, Z) bool
        visibility.
    """
    # No matrix product: autocast would run it in half precision.
    matrix = pixels_from_reference.float()[:, :, :3, None, None, :]
    x, y, depth = (
        matrix[:, :, row, ..., 0] * points[..., 0]
        + matrix[:, :, row, ..., 1] * points[..., 1]
        + matrix[:, :, row, ..., 2] * points[..., 2]
        + matrix[:, :, row, ..., 3]
        for row in range(3)
    )
    is_ahead = depth > MIN_DEPTH_M
    safe = depth.clamp(min=MIN_DEPTH_M)
    u = x / safe / image_size[1]
    v = y / safe / image_size[0]
    visible = is_ahead & (u > 0) & (u < 1) & (v > 0) & (v < 1)
    return torch.stack([u, v], dim=-1), visible


@dataclass(frozen=True)
class VisibleCells:
    """The V (camera, cell) pairs that see each other, ordered by sample, camera and cell.

    Args:
        cells: (V,) int64, sample * H * W + cell.
        images: (V,) int64, sample * N + camera.
        uv: (V, Z, 2) float32, where the camera sees every height, in fractions of the image width
            and height. Only one of the heights needs to be visible: the others can be anywhere.
        share: (V,) float32, 1 / number of cameras that see the cell.
        num_images: B * N.
    """

    cells: Tensor
    images: Tensor
    uv: Tensor
    share: Tensor
    num_images: int


@torch.no_grad()
def find_visible_cells(
    points: Tensor,  # (Q, Z, 3)
    pixels_from_reference: Tensor,  # (B, N, 4, 4)
    camera_mask: Tensor,  # (B, N)
    image_size: tuple[int, int],
) -> VisibleCells:
    """Find the pairs in which a camera that is there sees at least one height of a cell.

    Args:
        points: (Q, Z, 3) in the reference frame [m].
        pixels_from_reference: (B, N, 4, 4) float32.
        camera_mask: (B, N) bool.
        image_size: height and width of the network input [px].
    """
    uv, visible = project_pillars(points, pixels_from_reference, image_size)
    visible = visible.any(-1) & camera_mask[:, :, None]  # (B, N, Q)
    num_cameras, num_cells = visible.shape[1:]
    sample, camera, cell = visible.nonzero(as_tuple=True)
    cells = sample * num_cells + cell
    count = visible.sum(1).flatten().index_select(0, cells)
    return VisibleCells(
        cells=cells,
        images=sample * num_cameras + camera,
        uv=uv[sample, camera, cell],
        share=1.0 / count.float(),
        num_images=len(visible) * num_cameras,
    )
