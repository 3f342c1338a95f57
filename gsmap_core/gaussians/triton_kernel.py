"""Rasterisation as two GPU kernels; `backends` loads them and says why they cannot run.

Forward: one program per element and tile of the canvas walks through the element's Gaussians and
skips those that do not reach the tile. Backward: one program per Gaussian walks through its window
and sums its moments, so that nothing is added atomically and every run gives the same gradients.
With TRITON_INTERPRET=1 in the environment the kernels run on the CPU, very slowly, for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gsmap_core.gaussians.footprints import footprints_of, gradients_from_moments
from gsmap_core.gaussians.unions import MAX_DENSITY, occupancy_of, slope_of
from gsmap_core.geometry.bev_grid import BevGrid

#: Why there are no kernels; empty where there are.
IMPORT_PROBLEM = ''
try:
    import triton
    import triton.language as tl

    _kernel: Callable[[Any], Any] = triton.jit
except Exception as error:  # a broken installation raises more than ImportError
    IMPORT_PROBLEM = f'triton cannot be imported: {error}'

    def _kernel(function: Any) -> Any:
        """Leave the function as it is: it is never launched."""
        return function


# What the kernels accumulate (see `unions`), as numbers that they are compiled for.
_LOGARITHMS, _SUM, _LARGEST = 0, 1, 2
_MODES = {
    'probabilistic': _LOGARITHMS,
    'exponential': _SUM,
    'clamped_sum': _SUM,
    'max': _LARGEST,
}
_BLOCK_ROWS, _BLOCK_COLUMNS = 16, 32


@_kernel
def _offsets(gaussian, rows_ptr, columns_ptr, row, column, height, width):  # type: ignore[no-untyped-def]
    """Return the offsets u and v of a block of cells from a Gaussian [standard deviations]."""
    dr = tl.load(rows_ptr + row, mask=row < height, other=0.0) - tl.load(gaussian)
    dc = tl.load(columns_ptr + column, mask=column < width, other=0.0) - tl.load(gaussian + 1)
    u = (tl.load(gaussian + 2) * dr)[:, None] + (tl.load(gaussian + 3) * dc)[None, :]
    v = (tl.load(gaussian + 4) * dr)[:, None] + (tl.load(gaussian + 5) * dc)[None, :]
    return u, v


@_kernel
def _accumulate(  # type: ignore[no-untyped-def]
    gaussians_ptr,  # (M * P, 6) float32
    windows_ptr,  # (M * P, 4) int32
    rows_ptr,  # (H,) float32
    columns_ptr,  # (W,) float32
    accumulated_ptr,  # (M, H, W) float32
    winner_ptr,  # (M, H, W) int32 for the largest, else unused
    num_places,
    height,
    width,
    max_density,
    MODE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Accumulate the Gaussians of one element over one block of cells."""
    element = tl.program_id(0)
    top = tl.program_id(1) * ROWS
    left = tl.program_id(2) * COLUMNS
    row = top + tl.arange(0, ROWS)
    column = left + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    winner = tl.full((ROWS, COLUMNS), -1, tl.int32)
    for place in range(num_places):
        index = element * num_places + place
        window = windows_ptr + index * 4
        rows_meet = (tl.load(window) < top + ROWS) & (tl.load(window + 1) > top)
        columns_meet = (tl.load(window + 2) < left + COLUMNS) & (tl.load(window + 3) > left)
        if rows_meet & columns_meet:
            gaussian = gaussians_ptr + index * 6
            u, v = _offsets(gaussian, rows_ptr, columns_ptr, row, column, height, width)
            density = tl.exp(-0.5 * (u * u + v * v))
            if MODE == 0:
                # Not `minimum`, which would hide numbers that are not finite.
                total += tl.log(1.0 - tl.where(density > max_density, max_density, density))
            elif MODE == 1:
                total += density
            else:
                larger = (density > total) | (density != density)
                total = tl.where(larger, density, total)
                winner = tl.where(larger, place, winner)
    inside = (row < height)[:, None] & (column < width)[None, :]
    cell = element.to(tl.int64) * height * width + row[:, None] * width + column[None, :]
    tl.store(accumulated_ptr + cell, total, mask=inside)
    if MODE == 2:
        tl.store(winner_ptr + cell, winner, mask=inside)


@_kernel
def _sum_moments(  # type: ignore[no-untyped-def]
    gaussians_ptr,  # (M * P, 6) float32
    windows_ptr,  # (M * P, 4) int32
    rows_ptr,  # (H,) float32
    columns_ptr,  # (W,) float32
    incoming_ptr,  # (M, H, W) float32
    winner_ptr,  # (M, H, W) int32 for the largest, else unused
    moments_ptr,  # (M * P, 5) float32
    num_places,
    height,
    width,
    max_density,
    MODE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum the moments of one Gaussian over its window."""
    index = tl.program_id(0)
    gaussian = gaussians_ptr + index * 6
    window = windows_ptr + index * 4
    end_row = tl.load(window + 1)
    end_column = tl.load(window + 3)
    canvas = (index // num_places).to(tl.int64) * height * width
    f_u = tl.zeros((ROWS, COLUMNS), tl.float32)
    f_v = tl.zeros((ROWS, COLUMNS), tl.float32)
    f_uu = tl.zeros((ROWS, COLUMNS), tl.float32)
    f_uv = tl.zeros((ROWS, COLUMNS), tl.float32)
    f_vv = tl.zeros((ROWS, COLUMNS), tl.float32)
    for top in range(tl.load(window), end_row, ROWS):
        for left in range(tl.load(window + 2), end_column, COLUMNS):
            row = top + tl.arange(0, ROWS)
            column = left + tl.arange(0, COLUMNS)
            inside = (row < end_row)[:, None] & (column < end_column)[None, :]
            cell = canvas + row[:, None] * width + column[None, :]
            u, v = _offsets(gaussian, rows_ptr, columns_ptr, row, column, height, width)
            density = tl.exp(-0.5 * (u * u + v * v))
            f = tl.load(incoming_ptr + cell, mask=inside, other=0.0) * density
            if MODE == 0:
                f = tl.where(density > max_density, 0.0, f / (1.0 - density))
            elif MODE == 2:
                winner = tl.load(winner_ptr + cell, mask=inside, other=-1)
                f = tl.where(winner == index % num_places, f, 0.0)
            f = tl.where(inside, f, 0.0)
            f_u += f * u
            f_v += f * v
            f_uu += f * u * u
            f_uv += f * u * v
            f_vv += f * v * v
    moments = moments_ptr + index * 5
    tl.store(moments, tl.sum(tl.sum(f_u, 1), 0))
    tl.store(moments + 1, tl.sum(tl.sum(f_v, 1), 0))
    tl.store(moments + 2, tl.sum(tl.sum(f_uu, 1), 0))
    tl.store(moments + 3, tl.sum(tl.sum(f_uv, 1), 0))
    tl.store(moments + 4, tl.sum(tl.sum(f_vv, 1), 0))


def is_interpreted() -> bool:
    """Return whether the kernels run on the CPU in Triton's interpreter."""
    return not IMPORT_PROBLEM and not isinstance(_accumulate, triton.JITFunction)


def rasterize_triton(
    centers: Tensor,  # (M, P, 2)
    scales: Tensor,  # (M, P, 2)
    thetas: Tensor,  # (M, P)
    grid: BevGrid,
    union: str,
) -> Tensor:
    """Draw M elements in float32; arguments and result as `rasterize_reference`.

    Differentiable once.
    """
    occupancy: Tensor = _RasterizeTriton.apply(centers, scales, thetas, grid, union)
    return occupancy


def _arguments(
    centers: Tensor, scales: Tensor, thetas: Tensor, grid: BevGrid
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what both kernels read: Gaussians, windows, row and column coordinates."""
    prints = footprints_of(centers, scales, thetas, grid)
    gaussians = torch.stack(
        [
            prints.row_m, prints.column_m, prints.u_row, prints.u_column, prints.v_row,
            prints.v_column,
        ],
        dim=-1,
    )  # fmt: skip
    windows = torch.stack(
        [prints.first_row, prints.end_row, prints.first_column, prints.end_column], dim=-1
    )
    return (
        gaussians.contiguous(),
        windows.to(torch.int32).contiguous(),
        centers.new_tensor(grid.row_centres_m()),
        centers.new_tensor(grid.column_centres_m()),
    )


class _RasterizeTriton(torch.autograd.Function):
    """Launch the kernels; what surrounds them is shared with the tiles of the CPU."""

    @staticmethod
    def forward(ctx, centers, scales, thetas, grid, union):  # type: ignore[no-untyped-def]
        shape = (len(thetas), grid.num_rows, grid.num_columns)
        accumulated = centers.new_zeros(shape)
        mode = _MODES[union]
        winner = accumulated.to(torch.int32) - 1 if mode == _LARGEST else accumulated
        if thetas.numel():
            blocks = (-(-shape[1] // _BLOCK_ROWS), -(-shape[2] // _BLOCK_COLUMNS))
            with torch.cuda.device_of(centers):
                _accumulate[(shape[0], *blocks)](
                    *_arguments(centers, scales, thetas, grid),
                    accumulated,
                    winner,
                    thetas.shape[1],
                    shape[1],
                    shape[2],
                    MAX_DENSITY,
                    MODE=mode,
                    ROWS=_BLOCK_ROWS,
                    COLUMNS=_BLOCK_COLUMNS,
                )
        kept = winner if mode == _LARGEST else accumulated
        ctx.save_for_backward(centers, scales, thetas, kept)
        ctx.grid, ctx.union = grid, union
        return occupancy_of(accumulated, union)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        centers, scales, thetas, kept = ctx.saved_tensors
        mode = _MODES[ctx.union]
        incoming = grad.contiguous()
        if mode != _LARGEST:
            incoming = incoming * slope_of(kept, ctx.union)
        moments = centers.new_zeros(*thetas.shape, 5)
        if thetas.numel():
            with torch.cuda.device_of(centers):
                _sum_moments[(thetas.numel(),)](
                    *_arguments(centers, scales, thetas, ctx.grid),
                    incoming,
                    kept,
                    moments,
                    thetas.shape[1],
                    ctx.grid.num_rows,
                    ctx.grid.num_columns,
                    MAX_DENSITY,
                    MODE=mode,
                    ROWS=_BLOCK_ROWS,
                    COLUMNS=_BLOCK_COLUMNS,
                )
        return *gradients_from_moments(moments, scales, thetas), None, None
