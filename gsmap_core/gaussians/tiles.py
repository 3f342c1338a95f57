"""Fast rasterisation in plain PyTorch, made for the CPU: small tiles and a hand-written gradient.

The canvas is cut into tiles; every Gaussian is evaluated on the tiles that it reaches, some
thousand tiles at a time, and added to them. Nothing of the size elements x Gaussians x cells is
ever held: the forward pass keeps one number per cell, the backward pass evaluates again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gsmap_core.gaussians.footprints import (
    Footprints,
    cutoff_sigmas,
    footprints_of,
    gradients_from_moments,
)
from gsmap_core.gaussians.unions import MAX_DENSITY, occupancy_of, slope_of
from gsmap_core.geometry.bev_grid import BevGrid

_TILE_ROWS, _TILE_COLUMNS = 8, 8
_TILE_CELLS = _TILE_ROWS * _TILE_COLUMNS
#: Tiles evaluated at once: the temporaries stay in the processor's cache.
_CHUNK_TILES = 2048


def rasterize_tiles(
    centers: Tensor,  # (M, P, 2)
    scales: Tensor,  # (M, P, 2)
    thetas: Tensor,  # (M, P)
    grid: BevGrid,
    union: str,
) -> Tensor:
    """Draw M elements; arguments and result as `rasterize_reference`, differentiable once."""
    return _RasterizeTiles.apply(centers, scales, thetas, grid, union)


@dataclass(frozen=True)
class _Tiles:
    """The canvas in tiles, the last ones hanging over its edge.

    Args:
        rows_m: (tile rows, _TILE_ROWS) coordinates along the row axis [m].
        columns_m: (tile columns, _TILE_COLUMNS) along the column axis [m].
        shape: H, W.
    """

    rows_m: Tensor
    columns_m: Tensor
    shape: tuple[int, int]

    @staticmethod
    def of(grid: BevGrid, like: Tensor) -> _Tiles:
        """Cut a canvas; coordinates in dtype and on the device of `like`."""
        parts = []
        for metres, size in (
            (grid.row_centres_m(), _TILE_ROWS),
            (grid.column_centres_m(), _TILE_COLUMNS),
        ):
            # Cells over the edge repeat the last one; their values are cut off at the end.
            missing = -len(metres) % size
            values = torch.as_tensor(metres, dtype=like.dtype, device=like.device)
            parts.append(torch.cat([values, values[-1:].expand(missing)]).view(-1, size))
        return _Tiles(parts[0], parts[1], (grid.num_rows, grid.num_columns))

    @property
    def per_element(self) -> int:
        """Tiles of one canvas."""
        return len(self.rows_m) * len(self.columns_m)

    def join(self, tiles: Tensor) -> Tensor:
        """Return (M, H, W) from (M * tiles, cells of a tile)."""
        height, width = self.shape
        grid = (len(self.rows_m), len(self.columns_m), _TILE_ROWS, _TILE_COLUMNS)
        whole = tiles.view(-1, *grid).permute(0, 1, 3, 2, 4)
        size = (len(self.rows_m) * _TILE_ROWS, len(self.columns_m) * _TILE_COLUMNS)
        return whole.reshape(-1, *size)[:, :height, :width]

    def cut(self, canvas: Tensor) -> Tensor:
        """Return (M * tiles, cells of a tile) from (M, H, W); zero over the edge."""
        rows, columns = len(self.rows_m), len(self.columns_m)
        height, width = rows * _TILE_ROWS, columns * _TILE_COLUMNS
        padded = functional.pad(canvas, (0, width - self.shape[1], 0, height - self.shape[0]))
        whole = padded.view(-1, rows, _TILE_ROWS, columns, _TILE_COLUMNS)
        return whole.permute(0, 1, 3, 2, 4).reshape(-1, _TILE_CELLS)


@dataclass(frozen=True)
class _Chunk:
    """Some Gaussians on some tiles.

    Args:
        gaussians: (N,) which Gaussian, element by element within one place of the sequence.
        tiles: (N,) which tile of which element.
        u: (N, cells of a tile) offsets along the first principal axis [standard deviations].
        v: (N, cells of a tile) along the second.
    """

    gaussians: Tensor
    tiles: Tensor
    u: Tensor
    v: Tensor

    def densities(self) -> Tensor:
        """Return (N, cells of a tile) densities."""
        return torch.addcmul(self.u.square(), self.v, self.v).mul_(-0.5).exp_()


def _chunks(
    centers: Tensor, scales: Tensor, thetas: Tensor, grid: BevGrid, tiles: _Tiles, by_place: bool
) -> Iterator[_Chunk]:
    """Yield every Gaussian on every tile that it reaches, in order of the place in its element.

    Args:
        centers: (M, P, 2) and so on: the Gaussians.
        scales: see there.
        thetas: see there.
        grid: the canvas.
        tiles: the same canvas in tiles.
        by_place: no chunk holds Gaussians of two places, so that none has a tile twice.
    """
    num_elements, num_places = thetas.shape
    # Place by place: the Gaussians of one place lie on different canvases.
    flat = footprints_of(centers, scales, thetas, grid).map(lambda value: value.t().reshape(-1))
    top, left = flat.first_row // _TILE_ROWS, flat.first_column // _TILE_COLUMNS
    height = (flat.end_row + (_TILE_ROWS - 1)) // _TILE_ROWS - top
    width = (flat.end_column + (_TILE_COLUMNS - 1)) // _TILE_COLUMNS - left
    # A window may end before it begins: outside the canvas, or between two cell centres.
    empty = (flat.end_row <= flat.first_row) | (flat.end_column <= flat.first_column)
    counts = (height * width).masked_fill(empty, 0)
    reach = cutoff_sigmas(num_places, thetas.dtype)
    for start, end in _spans(counts, num_elements if by_place else len(counts)):
        part = counts[start:end]
        index = torch.arange(start, end, device=part.device).repeat_interleave(part)
        first = (part.cumsum(0) - part).repeat_interleave(part)
        offset = torch.arange(len(index), device=part.device) - first
        wide = width[index]
        row, column = top[index] + offset // wide, left[index] + offset % wide
        near = _reaches(flat.at(index), tiles, row, column, reach)
        index, row, column = index[near], row[near], column[near]
        tile = row * len(tiles.columns_m) + column + (index % num_elements) * tiles.per_element
        here = flat.at(index).map(lambda value: value[:, None])
        dr, dc = tiles.rows_m[row] - here.row_m, tiles.columns_m[column] - here.column_m
        u = (here.u_row * dr)[:, :, None] + (here.u_column * dc)[:, None]
        v = (here.v_row * dr)[:, :, None] + (here.v_column * dc)[:, None]
        yield _Chunk(index, tile, u.view(-1, _TILE_CELLS), v.view(-1, _TILE_CELLS))


def _spans(counts: Tensor, group: int) -> Iterator[tuple[int, int]]:
    """Split Gaussians into spans of about `_CHUNK_TILES` tiles that do not cross a group's end."""
    start, held = 0, 0
    for index, count in enumerate(counts.tolist()):
        if held and (held + count > _CHUNK_TILES or index % group == 0):
            yield start, index
            start, held = index, 0
        elif not held:
            start = index
        held += count
    if held:
        yield start, len(counts)


def _reaches(here: Footprints, tiles: _Tiles, row: Tensor, column: Tensor, reach: float) -> Tensor:
    """Return (N,) whether the oriented box of each Gaussian meets its tile.

    The window has been checked along the axes of the canvas; long Gaussians at an angle leave most
    of it empty. What remains of the separating axes are the principal ones.
    """
    near = None
    ends = (tiles.rows_m[row][:, [0, -1]], tiles.columns_m[column][:, [0, -1]])
    (dr, half_r), (dc, half_c) = (
        (values.mean(1) - centre, (values[:, 1] - values[:, 0]).abs() / 2)
        for values, centre in zip(ends, (here.row_m, here.column_m), strict=True)
    )
    for by_row, by_column in ((here.u_row, here.u_column), (here.v_row, here.v_column)):
        distance = (by_row * dr + by_column * dc).abs()
        tile_reach = by_row.abs() * half_r + by_column.abs() * half_c
        inside = ~(distance - tile_reach > reach)  # also where the numbers are not finite
        near = inside if near is None else near & inside
    assert near is not None
    return near


class _RasterizeTiles(torch.autograd.Function):
    """Accumulate over tiles; evaluate again for the gradient."""

    @staticmethod
    def forward(ctx, centers, scales, thetas, grid, union):  # type: ignore[no-untyped-def]
        tiles = _Tiles.of(grid, centers)
        accumulated = centers.new_zeros(len(thetas) * tiles.per_element, _TILE_CELLS)
        winner = None
        if union == 'max':
            winner = torch.full_like(accumulated, -1, dtype=torch.int32)
        for chunk in _chunks(centers, scales, thetas, grid, tiles, by_place=union == 'max'):
            density = chunk.densities()
            if winner is not None:
                place = chunk.gaussians[:, None] // len(thetas)
                best = accumulated[chunk.tiles]
                # Only a larger one replaces the best: the first of equals stays.
                larger = (density > best) | density.isnan()
                accumulated[chunk.tiles] = torch.where(larger, density, best)
                winner[chunk.tiles] = torch.where(larger, place.int(), winner[chunk.tiles])
                continue
            if union == 'probabilistic':
                density.clamp_(max=MAX_DENSITY).neg_().log1p_()
            accumulated.index_add_(0, chunk.tiles, density)
        kept = accumulated if winner is None else winner
        ctx.save_for_backward(centers, scales, thetas, kept)
        ctx.grid, ctx.union = grid, union
        return occupancy_of(tiles.join(accumulated), union)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        centers, scales, thetas, kept = ctx.saved_tensors
        union, (num_elements, num_places) = ctx.union, thetas.shape
        tiles = _Tiles.of(ctx.grid, centers)
        incoming = tiles.cut(grad)
        if union != 'max':
            incoming = slope_of(kept, union).mul_(incoming)
        moments = centers.new_zeros(thetas.numel(), 5)
        for chunk in _chunks(centers, scales, thetas, ctx.grid, tiles, by_place=False):
            density = chunk.densities()
            f = incoming[chunk.tiles].mul_(density)
            if union == 'probabilistic':
                # The own factor 1 / (1 - G); no gradient where the density is clamped.
                f.div_(1.0 - density).masked_fill_(density > MAX_DENSITY, 0.0)
            elif union == 'max':
                place = chunk.gaussians[:, None] // num_elements
                f.masked_fill_(kept[chunk.tiles] != place, 0.0)
            fu, fv = f * chunk.u, f * chunk.v
            sums = (fu, fv, fu * chunk.u, fu * chunk.v, fv * chunk.v)
            moments.index_add_(0, chunk.gaussians, torch.stack([s.sum(1) for s in sums], 1))
        # Back from place by place to element by element.
        by_element = moments.view(num_places, num_elements, 5).transpose(0, 1)
        return *gradients_from_moments(by_element, scales, thetas), None, None
