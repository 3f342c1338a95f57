"""Lift, splat: image features are spread along their rays by depth and summed in voxels.

The voxels are finer than the cells of the BEV grid (as published: half a cell) and as high as the
range of heights; a down-sampler makes cells of them. Where the depth comes from: `lss_depth`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.models.bev.lss_depth import CameraAwareDepthNet, PlainDepthNet, camera_vectors
from gsmap_core.ops.voxel_pooling import voxel_pooling


def down_sampler(dims: int, stride: int) -> nn.Sequential:
    """Return three 3x3 convolutions, the second with a stride: voxels to cells, (B, C, H, W)."""
    layers: list[nn.Module] = []
    for step in (1, stride, 1):
        layers += [
            nn.Conv2d(dims, dims, 3, stride=step, padding=1, bias=False),
            nn.BatchNorm2d(dims),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class LssEncoder(nn.Module):
    """Depth network, voxel pooling and down-sampler (reference-models.md, 1.8 and 2.1).

    It has no queries, no CAN bus and no embeddings of cameras: any number of cameras works.

    Args:
        config: the model.
    """

    rays: Tensor
    depths_m: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims, bev, lss = config.embed_dims, config.bev, config.bev.lss
        self.config = config
        self.depth_net: PlainDepthNet | CameraAwareDepthNet = (
            PlainDepthNet(dims, lss.num_depth_bins)
            if lss.depth_net == 'plain'
            else CameraAwareDepthNet(dims, lss)
        )
        self.down_sampler = down_sampler(dims, lss.voxels_per_cell)
        # Rows and columns of voxels; how many there are along x and y depends on the cell order.
        self.voxel_shape = (
            bev.num_rows * lss.voxels_per_cell,
            bev.num_columns * lss.voxels_per_cell,
        )
        area, rows_columns = config.range, self.voxel_shape
        counts = np.array([*(rows_columns if bev.order == 'ego' else rows_columns[::-1]), 1])
        lower = np.array([area.x_min, area.y_min, bev.z_min_m])
        size = (np.array([area.x_max, area.y_max, bev.z_max_m]) - lower) / counts
        # Constants, but the published models keep them among their parameters.
        self.voxel_size = _constant(size)
        self.first_voxel = _constant(lower + size / 2)
        self.num_voxels = _constant(counts)
        self.register_buffer('rays', torch.from_numpy(frustum_rays(config)), persistent=False)
        self.register_buffer('depths_m', torch.tensor(lss.depth_bins_m()), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier on every matrix and kernel, as published."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    @torch.no_grad()
    def frustum_points(self, pixels_from_reference: Tensor) -> Tensor:
        """Return where the frustum points of every image lie.

        Args:
            pixels_from_reference: (I, 4, 4) float32.

        Returns:
            (I, D, S, 3) float32 in the reference frame [m]; S image cells, row by row.
        """
        with torch.autocast(pixels_from_reference.device.type, enabled=False):
            # Inverted with spare digits: a matrix holds focal lengths beside rotations.
            inverse = torch.linalg.inv_ex(pixels_from_reference.double()).inverse.float()
            rays = self.rays @ inverse[:, :3, :3].transpose(1, 2)  # (I, S, 3)
            return self.depths_m[:, None, None] * rays[:, None] + inverse[:, None, None, :3, 3]

    @torch.no_grad()
    def find_voxels(self, points: Tensor, sample: Tensor) -> Tensor:
        """Return the voxel of every frustum point.

        Args:
            points: (I, D, S, 3) in the reference frame [m].
            sample: (I,) int32 sample that each image belongs to.

        Returns:
            (I, D, S) int32: sample * rows * columns + row * columns + column, -1 outside the grid.
            The position is truncated toward zero, as published: points up to one voxel below a
            lower limit belong to the first one.
        """
        rows, columns = self.voxel_shape
        is_ego = self.config.bev.order == 'ego'
        count_x, count_y = (rows, columns) if is_ego else (columns, rows)
        position = (points - (self.first_voxel - self.voxel_size / 2)) / self.voxel_size
        limit = position.new_tensor([count_x, count_y, 1])
        inside = ((position > -1) & (position < limit)).all(-1)
        x, y = (position[..., axis].clamp(-1, 1e6).int() for axis in (0, 1))
        row, column = (count_x - 1 - x, count_y - 1 - y) if is_ego else (y, x)
        voxel = (sample[:, None, None] * rows + row) * columns + column
        return torch.where(inside, voxel, -1)

    @torch.no_grad()
    def observed_cells(self, pixels_from_reference: Tensor, camera_mask: Tensor) -> Tensor:
        """Return (B, H, W) bool: cells that features of any depth bin are pooled into.

        Args:
            pixels_from_reference: (B, N, 4, 4) float32.
            camera_mask: (B, N) bool.
        """
        batch, cameras = camera_mask.shape
        rows, columns = self.voxel_shape
        present = camera_mask.flatten().nonzero().squeeze(1)
        points = self.frustum_points(pixels_from_reference.flatten(0, 1)[present])
        sample = torch.div(present, cameras, rounding_mode='trunc').int()
        voxels = self.find_voxels(points, sample)
        filled = torch.zeros(batch * rows * columns, dtype=torch.bool, device=points.device)
        filled[voxels[voxels >= 0].long()] = True
        step = self.config.bev.lss.voxels_per_cell
        filled = filled.view(batch, rows // step, step, columns // step, step)
        return filled.any(dim=4).any(dim=2)

    def forward(
        self,
        features: Tensor,
        pixels_from_reference: Tensor,
        camera_mask: Tensor,
        intrinsics: Tensor,
        base_from_cameras: Tensor,
        input_from_image: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Turn image features into a BEV map.

        Args:
            features: (B, N, C, h, w).
            pixels_from_reference: (B, N, 4, 4) float32.
            camera_mask: (B, N) bool; missing cameras are not looked at.
            intrinsics: (B, N, 3, 3) float32 of the network input [px].
            base_from_cameras: (B, N, 4, 4) float32.
            input_from_image: (B, N, 3, 3) float32 or None, see `camera_vectors`.

        Returns:
            BEV map (B, C, H, W) and depth logits (B, N, D, h, w) float32; zeros where the camera
            is missing.
        """
        batch, cameras, dims, height, width = features.shape
        lss = self.config.bev.lss
        vectors = camera_vectors(
            intrinsics, base_from_cameras, self.config.image.scale, input_from_image
        )
        present = camera_mask.flatten().nonzero().squeeze(1)
        logits = features.new_zeros(
            batch * cameras, lss.num_depth_bins, height, width, dtype=torch.float32
        )
        rows, columns = self.voxel_shape
        pooled = features.new_zeros(batch * rows * columns, dims, dtype=torch.float32)
        if len(present):
            depth, context = self.depth_net(
                features.flatten(0, 1)[present], vectors.flatten(0, 1)[present]
            )
            logits = logits.index_copy(0, present, depth.float())
            points = self.frustum_points(pixels_from_reference.flatten(0, 1)[present])
            sample = torch.div(present, cameras, rounding_mode='trunc').int()
            # Exact sums, in float32 under autocast too.
            pooled = voxel_pooling(
                depth.float().softmax(1).flatten(2),
                context.float().flatten(2).transpose(1, 2).contiguous(),
                self.find_voxels(points, sample),
                len(pooled),
            )
        voxels = pooled.view(batch, rows, columns, dims).permute(0, 3, 1, 2)
        return self.down_sampler(voxels), logits.unflatten(0, (batch, cameras))


def frustum_rays(config: ModelConfig) -> np.ndarray:
    """Return (S, 3) float32 pixels (u, v, 1) of the image cells, row by row.

    As published, the first and the last cell look through the first and the last pixel.
    """
    height, width = config.feature_shape
    v, u = np.meshgrid(
        np.linspace(0.0, config.image.height_px - 1, height),
        np.linspace(0.0, config.image.width_px - 1, width),
        indexing='ij',
    )
    return np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3).astype(np.float32)


def _constant(values: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(values.astype(np.float32)), requires_grad=False)
