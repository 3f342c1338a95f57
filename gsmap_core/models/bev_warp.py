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

    metres_from_sampling: Tensor
    sampling_from_metres: Tensor

    def __init__(self, grid: BevGrid) -> None:
        super().__init__()
        matrix = torch.from_numpy(grid.metres_from_sampling())
        # No parameters, and not in checkpoints: they follow from the configuration.
        self.register_buffer('metres_from_sampling', matrix, persistent=False)
        self.register_buffer('sampling_from_metres', torch.linalg.inv(matrix), persistent=False)

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
            theta = self._sampling(then_from_now, ego_from_reference)
            # In float64: positions rounded to float32 would blur a map that did not move, by about
            # 1e-4 of the contrast between cells with every frame.
            positions = functional.affine_grid(theta, list(maps.shape), align_corners=False)
            return functional.grid_sample(
                maps.double(), positions, padding_mode='zeros', align_corners=False
            ).float()

    def _sampling(self, then_from_now: Tensor, ego_from_reference: Tensor | None) -> Tensor:
        """Return (B, 2, 3) float64 from sampling positions of now to those of then."""
        if ego_from_reference is None:
            ego_from_reference = torch.eye(4, dtype=torch.float64, device=then_from_now.device)
            ego_from_reference = ego_from_reference.expand_as(then_from_now)
        now = ego_from_reference.double()
        # Height of the ground above a point x, y of the grid, linear in both: row 2 of the
        # transform gives z = 0 of the ego frame.
        ground = now[:, 2, [0, 1, 3]] / -now[:, 2, 2:3]
        lifted = torch.zeros_like(now[:, :, :3])
        lifted[:, 0, 0] = lifted[:, 1, 1] = lifted[:, 3, 2] = 1.0
        lifted[:, 2] = ground
        then = inverse(now) @ then_from_now @ now @ lifted
        plane = then[:, [0, 1, 3]]
        return (self.sampling_from_metres @ plane @ self.metres_from_sampling)[:, :2]
