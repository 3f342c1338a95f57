"""The bird's-eye-view grid: the only place that knows how metres become cells.

Own grids (`order='ego'`), seen from above with the vehicle heading up:

    row 0      +---------------+   x = x_max (farthest ahead)
               |       ^ x     |
               |       |       |
               |  y <--+       |   column 0: y = y_max (farthest left)
    row H - 1  +---------------+   x = x_min

Official MapTR grids (`order='official'`): row 0 at the smallest y, column 0 at the smallest x;
rows run along +y and columns along +x of the reference frame. Cell centres lie at half indices in
both.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gsmap_core.errors import ConfigError
from gsmap_core.structures import FloatArray, PerceptionRange


@dataclass(frozen=True)
class BevGrid:
    """A regular grid over a perception range.

    Args:
        range: metric extent.
        num_rows: H.
        num_columns: W.
        order: `ego` (rows along -x, columns along -y) or `official` (rows along +y, columns along
            +x).
        z_range_m: lowest and highest z, which unit heights run between [m].

    Raises:
        ConfigError: a count is not positive or the order is unknown.
    """

    range: PerceptionRange
    num_rows: int
    num_columns: int
    order: Literal['ego', 'official'] = 'ego'
    z_range_m: tuple[float, float] = (-2.0, 2.0)

    def __post_init__(self) -> None:
        """Validate counts and order."""
        if self.num_rows <= 0 or self.num_columns <= 0:
            raise ConfigError(
                f'BEV grid of {self.num_rows} x {self.num_columns} cells; expected positive counts'
            )
        if self.order not in ('ego', 'official'):
            raise ConfigError(
                f"BEV grid order '{self.order}' is unknown; expected 'ego' or 'official'"
            )

    @property
    def cell_size_m(self) -> tuple[float, float]:
        """Height and width of a cell: metres per row, metres per column."""
        along_rows, along_columns = self.range.length_x_m, self.range.length_y_m
        if self.order == 'official':
            along_rows, along_columns = along_columns, along_rows
        return along_rows / self.num_rows, along_columns / self.num_columns

    def metres_to_cells(self, points_xy: npt.ArrayLike) -> FloatArray:
        """Convert (..., 2) x, y [m] to continuous row, column; cell centres are at index + 0.5."""
        points = np.asarray(points_xy, dtype=np.float64)
        row_m, column_m = self.cell_size_m
        if self.order == 'ego':
            rows = (self.range.x_max - points[..., 0]) / row_m
            columns = (self.range.y_max - points[..., 1]) / column_m
        else:
            rows = (points[..., 1] - self.range.y_min) / row_m
            columns = (points[..., 0] - self.range.x_min) / column_m
        return np.stack([rows, columns], axis=-1)

    def cells_to_metres(self, cells: npt.ArrayLike) -> FloatArray:
        """Convert (..., 2) continuous row, column to x, y [m]; inverse of `metres_to_cells`."""
        cell = np.asarray(cells, dtype=np.float64)
        row_m, column_m = self.cell_size_m
        if self.order == 'ego':
            x = self.range.x_max - cell[..., 0] * row_m
            y = self.range.y_max - cell[..., 1] * column_m
        else:
            y = self.range.y_min + cell[..., 0] * row_m
            x = self.range.x_min + cell[..., 1] * column_m
        return np.stack([x, y], axis=-1)

    @property
    def row_axis(self) -> int:
        """Which coordinate changes from row to row: 0 (x, own grids) or 1 (y, official grids)."""
        return 0 if self.order == 'ego' else 1

    def row_centres_m(self) -> FloatArray:
        """Return (H,) coordinates of the row centres along the axis `row_axis` [m]."""
        cells = np.stack([np.arange(self.num_rows) + 0.5, np.zeros(self.num_rows)], axis=-1)
        return self.cells_to_metres(cells)[:, self.row_axis]

    def column_centres_m(self) -> FloatArray:
        """Return (W,) coordinates of the column centres along the other axis [m]."""
        cells = np.stack([np.zeros(self.num_columns), np.arange(self.num_columns) + 0.5], axis=-1)
        return self.cells_to_metres(cells)[:, 1 - self.row_axis]

    def cell_centres(self) -> FloatArray:
        """Return (H, W, 2) x, y of every cell centre in the reference frame [m]."""
        rows, columns = np.meshgrid(
            np.arange(self.num_rows) + 0.5, np.arange(self.num_columns) + 0.5, indexing='ij'
        )
        return self.cells_to_metres(np.stack([rows, columns], axis=-1))

    def metres_to_unit(self, points: npt.ArrayLike) -> FloatArray:
        """Convert (..., 2) x, y [m] to u, v in [0, 1]: u along columns (W), v along rows (H).

        This is what the decoder predicts and samples with: pixel = u * W - 0.5, v * H - 0.5. A
        third coordinate z becomes a third one in [0, 1] between the limits of `z_range_m`.
        """
        values = np.asarray(points, dtype=np.float64)
        cells = self.metres_to_cells(values)
        unit = [cells[..., 1] / self.num_columns, cells[..., 0] / self.num_rows]
        if values.shape[-1] == 3:
            unit.append((values[..., 2] - self.z_range_m[0]) / self.height_extent_m)
        return np.stack(unit, axis=-1)

    def unit_to_metres(self, unit: npt.ArrayLike) -> FloatArray:
        """Convert (..., 2 or 3) unit coordinates to metres; the inverse of `metres_to_unit`."""
        values = np.asarray(unit, dtype=np.float64)
        cells = np.stack(
            [values[..., 1] * self.num_rows, values[..., 0] * self.num_columns], axis=-1
        )
        metres = self.cells_to_metres(cells)
        if values.shape[-1] == 2:
            return metres
        z = self.z_range_m[0] + values[..., 2] * self.height_extent_m
        return np.concatenate([metres, z[..., None]], axis=-1)

    @property
    def height_extent_m(self) -> float:
        """Metres per unit of height."""
        return self.z_range_m[1] - self.z_range_m[0]

    def metres_from_unit_axes(self) -> FloatArray:
        """Return the (2, 2) matrix that turns steps (du, dv) into steps (dx, dy) [m]."""
        along_u, along_v = self.unit_extent_m()
        if self.order == 'ego':
            return np.array([[0.0, -along_v], [-along_u, 0.0]])
        return np.array([[along_u, 0.0], [0.0, along_v]])

    def unit_extent_m(self) -> tuple[float, float]:
        """Return metres per unit of u and of v (both positive)."""
        row_m, column_m = self.cell_size_m
        return column_m * self.num_columns, row_m * self.num_rows

    def metres_from_sampling(self) -> FloatArray:
        """Return the (3, 3) matrix from sampling positions to x, y [m], both homogeneous.

        Sampling positions are those of `torch.nn.functional.grid_sample` without `align_corners`:
        first along columns, then along rows, -1 and 1 at the outer edges of the grid.
        """
        matrix = np.eye(3)
        matrix[:2, :2] = self.metres_from_unit_axes() / 2.0
        matrix[:2, 2] = self.unit_to_metres([0.5, 0.5])
        return matrix
