"""The BEV map of the frame before, moved to where the vehicle is now (BEVFormer, MapTR).

Only for grids in the published order: columns along x (right), rows along y (forward).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gsmap_core.errors import ConfigError
from gsmap_core.geometry.bev_grid import BevGrid


def rotate_bev(
    bev: Tensor,  # (B, C, H, W)
    angle_deg: Tensor,  # (B,)
    centre_px: tuple[float, float] | None = None,
) -> Tensor:
    """Rotate BEV maps: nearest neighbour, zero where nothing was.

    The output at offset (X, Y) from the centre reads the input at
    (X cos a - Y sin a, X sin a + Y cos a).

    Args:
        bev: (B, C, H, W).
        angle_deg: (B,) a, how far the vehicle turned left [deg].
        centre_px: x (columns) and y (rows) of the centre, pixel 0 reaching from 0 to 1; None: the
            middle of the map.

    Source: reference-models.md, 1.14; golden/maptr README, history.
    """
    height, width = bev.shape[2:]
    x0, y0 = (width / 2, height / 2) if centre_px is None else centre_px
    # Cosine and sine in double precision: a right angle then hits cells in their middle.
    angle = angle_deg.double().deg2rad()[:, None, None]
    x = torch.arange(width, dtype=torch.float64, device=bev.device)[None, None] + 0.5 - x0
    y = torch.arange(height, dtype=torch.float64, device=bev.device)[None, :, None] + 0.5 - y0
    from_x = x * angle.cos() - y * angle.sin() + x0
    from_y = x * angle.sin() + y * angle.cos() + y0
    grid = torch.stack([from_x * 2 / width - 1, from_y * 2 / height - 1], dim=-1)
    return functional.grid_sample(
        bev, grid.to(bev.dtype), mode='nearest', padding_mode='zeros', align_corners=False
    )


def motion_shift(can_bus: Tensor, grid: BevGrid) -> Tensor:
    """Return how far the vehicle moved since the frame before, in unit coordinates.

    Args:
        can_bus: (B, 18); [0:2] translation in the map frame [m], [16] heading [rad].
        grid: of the model.

    Returns:
        (B, 2) float32 along columns (right) and rows (forward).

    Raises:
        ConfigError: the grid is not in the published order.

    Source: golden/maptr README, history.
    """
    if grid.order != 'official':
        raise ConfigError(
            f"a BEV history needs bev.order 'official' and the grid has '{grid.order}'; use the "
            "published order or no 'bev.history'"
        )
    values = can_bus.double()
    dx, dy, heading = values[:, 0], values[:, 1], values[:, 16]
    length, angle = torch.hypot(dx, dy), heading - torch.atan2(dy, dx)
    extent = torch.tensor(grid.unit_extent_m(), dtype=torch.float64, device=can_bus.device)
    moved = torch.stack([length * angle.sin(), length * angle.cos()], dim=-1)
    return (moved / extent).float()
