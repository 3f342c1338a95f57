"""BEV maps of other frames, brought to the present one on the ground by the full pose."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsmap_core.geometry.bev_grid import BevGrid


def inverse(dst_from_src: Tensor) -> Tensor:
    """Return `src_from_dst` of (..., 4, 4) rigid transforms; a reflection may be in them."""
    rotation_t = dst_from_src[..., :3, :3].mT
    shift = -(rotation_t @ dst_from_src[..., :3, 3:])
    return torch.cat([torch.cat([rotation_t, shift], dim=-1), dst_from_src[..., 3:, :]], dim=-2)


class BevWarp(nn.Module):
    """Samples BEV maps of other frames at the cell centres of the present one.

    A cell stands for the point of the ground (z = 0 of the ego frame) at its centre. Where that
    point was in the other frame follows from all six degrees of freedom; what lay outside the
    other map is zero.

    Args:
        grid: of the maps, in the model's reference frame.

    Source: InteractionMap, eq. 1, 3 and 5; at cell centres, unlike the public code of
    StreamMapNet (reference-models.md, 7.2).
    """

    cell_centres: Tensor
    sampling_from_metres: Tensor

    def __init__(self, grid: BevGrid) -> None:
        super().__init__()
        centres = torch.from_numpy(grid.cell_centres()).flatten(0, 1)
        centres = torch.cat([centres, torch.ones_like(centres[:, :1])], dim=1)
        sampling = torch.linalg.inv(torch.from_numpy(grid.metres_from_sampling()))
        # No parameters, and not in checkpoints: they follow from the configuration.
        self.register_buffer('cell_centres', centres, persistent=False)
        self.register_buffer('sampling_from_metres', sampling[:2], persistent=False)

    def forward(
        self, maps: Tensor, then_from_now: Tensor, ego_from_reference: Tensor | None = None
    ) -> Tensor:
        """Warp maps.

        Args:
            maps: (B, C, H, W), as they were made then.
            then_from_now: (B, 4, 4) float64, ego frame of now to ego frame of then [m].
            ego_from_reference: (B, 4, 4), frame of the grid to the ego frame, both then and now
                [m]; None: the grid is in the ego frame.

        Returns:
            (B, C, H, W) float32 at the cells of now.
        """
        with torch.autocast(maps.device.type, enabled=False):
            plane = _on_the_ground(then_from_now, ego_from_reference)
            positions = self.cell_centres @ (self.sampling_from_metres @ plane).mT
            # In float64: positions rounded to float32 would blur a map that did not move, by about
            # 1e-4 of the contrast between cells with every frame.
            return functional.grid_sample(
                maps.double(),
                positions.unflatten(1, maps.shape[-2:]),
                padding_mode='zeros',
                align_corners=False,
            ).float()


def _on_the_ground(then_from_now: Tensor, ego_from_reference: Tensor | None) -> Tensor:
    """Return (B, 3, 3) float64 from x, y, 1 in the grid's frame now to those then."""
    if ego_from_reference is None:
        return _without_z(then_from_now)
    now = ego_from_reference.double()
    # Height of the ground above a point x, y of the grid, linear in both, from z = 0 in the last
    # row of the transform.
    ground = torch.cat([now[:, 2:3, :2], now[:, 2:3, 3:]], dim=-1) / -now[:, 2:3, 2:3]
    x, y, _, one = torch.eye(4, dtype=now.dtype, device=now.device)
    x, y, one = (row[[0, 1, 3]].expand(len(now), 1, 3) for row in (x, y, one))
    lifted = torch.cat([x, y, ground, one], dim=1)
    then = inverse(now) @ then_from_now @ now @ lifted
    return torch.cat([then[:, :2], then[:, 3:]], dim=1)


def _without_z(matrix: Tensor) -> Tensor:
    """Return the (B, 3, 3) part of (B, 4, 4) transforms that moves x and y at z = 0."""
    rows = torch.cat([matrix[:, :2], matrix[:, 3:]], dim=1)
    return torch.cat([rows[..., :2], rows[..., 3:]], dim=2)
