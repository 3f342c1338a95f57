"""Rasterisation as it is written down: every Gaussian at every cell. The twin of the fast ways."""

from __future__ import annotations

import torch
from torch import Tensor

from gsmap_core.gaussians.representation import densities
from gsmap_core.gaussians.unions import MAX_DENSITY, occupancy_of
from gsmap_core.geometry.bev_grid import BevGrid


def rasterize_reference(
    centers: Tensor,  # (M, P, 2)
    scales: Tensor,  # (M, P, 2)
    thetas: Tensor,  # (M, P)
    grid: BevGrid,
    union: str,
) -> Tensor:
    """Draw M elements with automatic gradients; holds M x P x H x W densities several times.

    Args:
        centers: (M, P, 2) x, y [m].
        scales: (M, P, 2) [m].
        thetas: (M, P) [rad].
        grid: the canvas.
        union: one of `UNIONS`.

    Returns:
        (M, H, W) occupancies.

    Source: GSMap, eq. 6.
    """
    points = torch.as_tensor(grid.cell_centres(), dtype=centers.dtype, device=centers.device)
    if not centers.shape[1]:
        return centers.sum() * points.new_zeros(len(centers), grid.num_rows, grid.num_columns)
    density = densities(
        points, centers[:, :, None, None], scales[:, :, None, None], thetas[:, :, None, None]
    )
    if union == 'max':
        # Not `amax`, which shares the gradient among equals: a ring repeats its first Gaussian.
        first = density.argmax(dim=1, keepdim=True)
        return density.gather(1, first)[:, 0]
    if union == 'probabilistic':
        accumulated = torch.log1p(-density.clamp(max=MAX_DENSITY)).sum(dim=1)
    else:
        accumulated = density.sum(dim=1)
    return occupancy_of(accumulated, union)
