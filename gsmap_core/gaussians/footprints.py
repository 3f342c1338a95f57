"""What the fast rasterisers share: Gaussians in the axes of a canvas, and their gradients.

A fast rasteriser looks at a Gaussian only where its density is worth looking at, and sums five
moments per Gaussian in its backward pass, from which all gradients follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gsmap_core.gaussians.representation import standard_deviations
from gsmap_core.geometry.bev_grid import BevGrid

#: Largest error of an occupancy from cutting off the tails of all Gaussians of an element.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}


def cutoff_sigmas(num_gaussians: int, dtype: torch.dtype) -> float:
    """Return how many standard deviations a Gaussian reaches: below, P of them cannot matter."""
    return math.sqrt(-2.0 * math.log(TOLERANCE[dtype] / max(num_gaussians, 1)))


@dataclass(frozen=True)
class Footprints:
    """Gaussians in the axes of a canvas, any leading shape.

    With dr and dc the metres from the centre along the row axis and the column axis, a Gaussian
    has the density exp(-(u^2 + v^2) / 2), u = u_row * dr + u_column * dc, v alike.

    Args:
        row_m: (...) coordinate of the centre along the row axis [m].
        column_m: (...) along the column axis [m].
        u_row: (...) [1/m]; u runs along the first principal axis.
        u_column: (...) [1/m].
        v_row: (...) [1/m]; v runs along the second.
        v_column: (...) [1/m].
        first_row: (...) int64, first row that the Gaussian reaches.
        end_row: (...) int64, row behind the last; not above `first_row` where it reaches none.
        first_column: (...) int64.
        end_column: (...) int64.
    """

    row_m: Tensor
    column_m: Tensor
    u_row: Tensor
    u_column: Tensor
    v_row: Tensor
    v_column: Tensor
    first_row: Tensor
    end_row: Tensor
    first_column: Tensor
    end_column: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Footprints:
        """Return the result of applying a function to every tensor."""
        return Footprints(*(function(getattr(self, item.name)) for item in fields(self)))

    def at(self, index: Tensor) -> Footprints:
        """Return the Gaussians with these numbers, of Gaussians in one row."""
        return self.map(lambda value: value[index])


def footprints_of(
    centers: Tensor,  # (..., P, 2)
    scales: Tensor,  # (..., P, 2)
    thetas: Tensor,  # (..., P)
    grid: BevGrid,
) -> Footprints:
    """Describe Gaussians in the axes of a canvas, and the window of cells that each reaches.

    Numbers that are not finite reach every cell, so that they show up in the result.
    """
    along, across = standard_deviations(scales).unbind(-1)
    cos, sin = thetas.cos(), thetas.sin()
    reach = cutoff_sigmas(thetas.shape[-1], thetas.dtype)
    unknown = 0.0 * (centers.sum(-1) + scales.sum(-1) + thetas)  # NaN where any is not finite
    # Half extents of the ellipse along x and y.
    extent = (
        reach * torch.hypot(cos * along, sin * across) + unknown,
        reach * torch.hypot(sin * along, cos * across) + unknown,
    )
    u, v = (cos / along, sin / along), (-sin / across, cos / across)
    windows = []
    axes = (grid.row_axis, 1 - grid.row_axis)
    for axis, metres, size_m in zip(
        axes, (grid.row_centres_m(), grid.column_centres_m()), grid.cell_size_m, strict=True
    ):
        # Own grids count rows and columns against x and y, official ones along them.
        sign = -1.0 if grid.order == 'ego' else 1.0
        index = (centers[..., axis] - float(metres[0])) * (sign / size_m)
        half = extent[axis] / size_m
        # A bound on the wrong side of a cell by rounding leaves out a density at the cutoff.
        first, end = (index - half).ceil(), (index + half).floor() + 1
        windows += [
            first.clamp(0, len(metres)).nan_to_num(nan=0.0).long(),
            end.clamp(0, len(metres)).nan_to_num(nan=float(len(metres))).long(),
        ]
    row, column = axes
    return Footprints(
        centers[..., row], centers[..., column], u[row], u[column], v[row], v[column], *windows
    )


def gradients_from_moments(
    moments: Tensor,  # (..., 5)
    scales: Tensor,  # (..., 2)
    thetas: Tensor,  # (...)
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn the moments of a backward pass into the gradients of the parameters.

    Args:
        moments: (..., 5) sums over all cells of f u, f v, f u^2, f u v, f v^2, where f is the
            incoming gradient of the density times the density.
        scales: (..., 2) [m].
        thetas: (...) [rad].

    Returns:
        Gradients of the centres (..., 2), the scales (..., 2) and the angles (...).
    """
    f_u, f_v, f_uu, f_uv, f_vv = moments.unbind(-1)
    deviations = standard_deviations(scales)
    along, across = deviations.unbind(-1)
    cos, sin = thetas.cos(), thetas.sin()
    f_u, f_v = f_u / along, f_v / across
    centers = torch.stack([cos * f_u - sin * f_v, sin * f_u + cos * f_v], dim=-1)
    # The standard deviation is sqrt(s^2 + floor): d/ds = s / deviation.
    by_scales = torch.stack([f_uu, f_vv], dim=-1) * scales / deviations.square()
    # Turning moves u by v * across / along, and v by -u * along / across.
    return centers, by_scales, f_uv * (along / across - across / along)
