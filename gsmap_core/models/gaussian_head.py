"""The head that turns a vertex into a 2D Gaussian, and how the Gaussian guides the next layer.

Centres come from the decoder's point heads; this adds scales and angle, and (as options) lets the
Gaussians of one decoder layer turn the sampling and the position code of the next.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsmap_core.config import ModelConfig
from gsmap_core.gaussians.representation import (
    angles_from_double,
    centers_to_metres,
    chord_angles,
    rotation_matrices,
)
from gsmap_core.models.outputs import GaussianShapes

#: Numbers per Gaussian in the position code: u, v, log of both scales, sine and cosine of 2 theta.
_POSITION_DIMS = 6


class GaussianHead(nn.Module):
    """Predicts scales and angle of every vertex; all decoder layers share it.

    Source: GSMap, eq. 8; reference-models.md, 9.1 (hidden 128: 33,283 parameters at 256 channels,
    which is the published growth).

    Args:
        config: gives the kinds and limits (`gaussians`), the width and the grid.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.options, self.grid = config.gaussians, config.grid
        dims, hidden = config.embed_dims, self.options.hidden_dims
        num_angles = 2 if self.options.angle_kind == 'double' else 1
        self.linear1 = nn.Linear(dims, hidden)
        self.linear2 = nn.Linear(hidden, 2 + num_angles)
        self.position = nn.Linear(_POSITION_DIMS, dims) if self.options.guided_position else None
        axes = torch.tensor(config.grid.metres_from_unit_axes(), dtype=torch.float32)
        self.register_buffer('metres_from_unit', axes, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with round Gaussians of the configured size, the same for every query."""
        options = self.options
        if options.scale_kind == 'sigmoid':
            share = (options.scale_init_m - options.scale_min_m) / (
                options.scale_max_m - options.scale_min_m
            )
            start = math.log(share / (1 - share))
        else:
            start = math.log(options.scale_init_m)
        nn.init.zeros_(self.linear2.weight)
        nn.init.zeros_(self.linear2.bias)
        with torch.no_grad():
            self.linear2.bias[:2] = start
            if options.angle_kind == 'double':
                self.linear2.bias[2] = 1.0  # The cosine: an angle of zero.
        if self.position is not None:
            nn.init.zeros_(self.position.weight)
            nn.init.zeros_(self.position.bias)

    def forward(
        self, x: Tensor, centers: Tensor, previous: Tensor | None
    ) -> tuple[GaussianShapes, Tensor]:
        """Predict the shapes of one layer.

        Args:
            x: (B, M, P, C) query features after the layer.
            centers: (B, M, P, 2 or 3) unit coordinates of the refined centres; only the angle kind
                `chord` looks at them, without gradient.
            previous: raw numbers that this returned for the layer before, or None; added (without
                gradient) where shapes are refined.

        Returns:
            Scales (B, M, P, 2) [m] and thetas (B, M, P) [rad, from the +x axis of the reference
            frame, counter-clockwise]; and the raw numbers (B, M, P, 3 or 4).
        """
        raw = self.linear2(torch.relu(self.linear1(x)))
        if self.options.refine and previous is not None:
            raw = raw + previous.detach()
        return GaussianShapes(self._scales(raw[..., :2]), self._thetas(raw, centers)), raw

    def _scales(self, raw: Tensor) -> Tensor:
        low, high = self.options.scale_min_m, self.options.scale_max_m
        if self.options.scale_kind == 'sigmoid':
            return low + (high - low) * raw.sigmoid()
        return raw.exp().clamp(low, high)

    def _thetas(self, raw: Tensor, centers: Tensor) -> Tensor:
        if self.options.angle_kind == 'double':
            return angles_from_double(raw[..., 2:4])
        theta = raw[..., 2]
        if self.options.angle_kind == 'chord':
            theta = theta + chord_angles(centers_to_metres(centers[..., :2].detach(), self.grid))
        return theta

    def sampling_frame(self, shapes: GaussianShapes) -> Tensor:
        """Return (..., 2, 2) matrices that turn and scale sampling offsets in unit coordinates.

        An offset of the BEV attention is read along the axes of the Gaussian, stretched by its
        scales relative to the initial scale; a Gaussian as initialised changes nothing. No
        gradient reaches the Gaussian.
        """
        axes = self.get_buffer('metres_from_unit')
        stretch = torch.diag_embed(shapes.scales.detach() / self.options.scale_init_m)
        turned = rotation_matrices(shapes.thetas.detach()) @ stretch
        return torch.linalg.inv(axes) @ turned @ axes

    def position_code(self, centers: Tensor, shapes: GaussianShapes) -> Tensor:
        """Return (..., C), what the Gaussians of a layer add to the position code of the next."""
        assert self.position is not None  # Asked for only with guided_position.
        values = torch.cat(
            [
                centers[..., :2],
                shapes.scales.log(),
                torch.sin(2 * shapes.thetas)[..., None],
                torch.cos(2 * shapes.thetas)[..., None],
            ],
            dim=-1,
        )
        return functional.linear(values.detach(), self.position.weight, self.position.bias)
