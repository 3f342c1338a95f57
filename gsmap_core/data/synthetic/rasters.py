"""Images of the ground: colour as a mip pyramid baked where it is needed, and shadows.

Both are stored as packed 32-bit texels, red in the lowest byte. Row 0 lies at the least y, column
0 at the least x; the centre of texel i of a level lies (i + 0.5) texels from the map's origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from gsmap_core.data.synthetic import textures
from gsmap_core.data.synthetic.scene import Box, Conditions, GroundPatch, Material, Town
from gsmap_core.structures import FloatArray

#: Texels along the edge of a block, the unit of baking.
BLOCK_PX = 512
NUM_LEVELS = 6
FINEST_TEXEL_M = 0.05
#: Texels of the finest level; a larger town gets a coarser one.
MAX_TEXELS = 150_000_000
#: Sub-texels per texel edge when a polygon is rasterised.
_SUPERSAMPLING = 4
_SHIFT = 6
_PAINTS = (Material.PAINT_WHITE, Material.PAINT_YELLOW)


def pack_texels(image: np.ndarray) -> np.ndarray:
    """Pack (H, W, 4) uint8 into (H, W) int32, channel 0 in the lowest byte."""
    contiguous = np.ascontiguousarray(image)
    return contiguous.view(np.dtype('<i4'))[..., 0].astype(np.int32, copy=False)


@dataclass(frozen=True)
class _Level:
    offset: int
    rows: int
    columns: int


class GroundMap:
    """Colours of the ground of a town: RGB and wet reflectivity, baked in blocks on demand.

    Args:
        town: what lies on the ground.
        device: where the texels live.
    """

    def __init__(self, town: Town, device: torch.device) -> None:
        x_min, y_min, x_max, y_max = (float(value) for value in town.extent)
        area = max(x_max - x_min, 1.0) * max(y_max - y_min, 1.0)
        self.texel_m = max(FINEST_TEXEL_M, float(np.sqrt(area / MAX_TEXELS)))
        self.block_m = BLOCK_PX * self.texel_m
        self.origin = np.array([x_min, y_min])
        self.num_blocks = (
            max(1, int(np.ceil((y_max - y_min) / self.block_m))),
            max(1, int(np.ceil((x_max - x_min) / self.block_m))),
        )
        self.levels: list[_Level] = []
        total = 0
        for level in range(NUM_LEVELS):
            edge = BLOCK_PX >> level
            rows, columns = self.num_blocks[0] * edge, self.num_blocks[1] * edge
            self.levels.append(_Level(total, rows, columns))
            total += rows * columns
        if device.type == 'cpu':
            # calloc: memory is taken only where blocks are baked.
            self.texels = torch.from_numpy(np.zeros(total, dtype=np.int32))
        else:
            self.texels = torch.zeros(total, dtype=torch.int32, device=device)
        self._device = device
        self._patches = town.patches
        bounds = [
            [*patch.outline.min(axis=0), *patch.outline.max(axis=0)] for patch in town.patches
        ]
        self._bounds = np.asarray(bounds, dtype=np.float64).reshape(-1, 4)
        self._baked = np.zeros(self.num_blocks, dtype=bool)

    def ensure_baked(self, centre_xy: FloatArray, radius_m: float) -> None:
        """Bake every block that a square of half width `radius_m` around a point touches."""
        low = np.floor((centre_xy - radius_m - self.origin) / self.block_m).astype(int)
        high = np.floor((centre_xy + radius_m - self.origin) / self.block_m).astype(int)
        for row in range(max(0, low[1]), min(self.num_blocks[0] - 1, high[1]) + 1):
            for column in range(max(0, low[0]), min(self.num_blocks[1] - 1, high[0]) + 1):
                if not self._baked[row, column]:
                    self._bake(row, column)
                    self._baked[row, column] = True

    def _bake(self, row: int, column: int) -> None:
        image = self._draw_block(row, column)
        for level_index, level in enumerate(self.levels):
            edge = BLOCK_PX >> level_index
            if level_index:
                image = cv2.resize(image, (edge, edge), interpolation=cv2.INTER_AREA)
            grid = self.texels[level.offset : level.offset + level.rows * level.columns]
            target = grid.view(level.rows, level.columns)
            packed = torch.from_numpy(pack_texels(image)).to(self._device)
            target[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = packed

    def _draw_block(self, row: int, column: int) -> np.ndarray:
        start = (row * BLOCK_PX) % textures.TILE_PX, (column * BLOCK_PX) % textures.TILE_PX
        window = (
            slice(start[0], start[0] + BLOCK_PX),
            slice(start[1], start[1] + BLOCK_PX),
        )
        image = textures.material_tile(Material.GRASS)[window].copy()
        corner = self.origin + np.array([column, row]) * self.block_m
        # One texel more on every side: supersampled edges reach a little beyond their polygon.
        touched = (
            (self._bounds[:, 0] < corner[0] + self.block_m + self.texel_m)
            & (self._bounds[:, 2] > corner[0] - self.texel_m)
            & (self._bounds[:, 1] < corner[1] + self.block_m + self.texel_m)
            & (self._bounds[:, 3] > corner[1] - self.texel_m)
        )
        for index in np.flatnonzero(touched):
            self._draw_patch(image, self._patches[index], self._bounds[index], corner, window)
        return image

    def _draw_patch(
        self,
        image: np.ndarray,
        patch: GroundPatch,
        bounds: np.ndarray,
        corner: np.ndarray,
        window: tuple[slice, slice],
    ) -> None:
        low = np.floor((bounds[:2] - corner) / self.texel_m).astype(int) - 1
        high = np.ceil((bounds[2:] - corner) / self.texel_m).astype(int) + 1
        x0, y0 = np.clip(low, 0, BLOCK_PX)
        x1, y1 = np.clip(high, 0, BLOCK_PX)
        if x0 >= x1 or y0 >= y1:
            return
        coverage = rasterise(
            (patch.outline, *patch.holes),
            corner + np.array([x0, y0]) * self.texel_m,
            self.texel_m,
            (y1 - y0, x1 - x0),
        )
        if not coverage.any():
            return
        sub = (
            slice(window[0].start + y0, window[0].start + y1),
            slice(window[1].start + x0, window[1].start + x1),
        )
        weight = coverage.astype(np.float32) / 255
        if patch.material in _PAINTS and patch.wear > 0:
            gone = textures.wear_tile()[sub]
            weight *= np.clip((gone - 1.08 * patch.wear + 0.08) / 0.16, 0, 1)
        target = image[y0:y1, x0:x1]
        texture = textures.material_tile(patch.material)[sub]
        blended = target + weight[..., None] * (texture.astype(np.float32) - target)
        target[:] = np.rint(blended).astype(np.uint8)


def rasterise(
    rings: Sequence[FloatArray], corner: FloatArray, texel_m: float, shape: tuple[int, int]
) -> np.ndarray:
    """Return the share of every texel that a polygon with holes covers.

    Args:
        rings: outline and holes, (P, 2) [m]; even-odd filled.
        corner: (2,) position of the corner of texel (0, 0) [m].
        texel_m: size of a texel [m].
        shape: rows, columns.

    Returns:
        (rows, columns) uint8, 0 to 255.
    """
    rows, columns = int(shape[0]), int(shape[1])
    fine = np.zeros((rows * _SUPERSAMPLING, columns * _SUPERSAMPLING), dtype=np.uint8)
    # Integer coordinates of OpenCV are centres of sub-texels.
    scale = _SUPERSAMPLING / texel_m
    polygons = [
        np.rint(((ring - corner) * scale - 0.5) * (1 << _SHIFT)).astype(np.int32) for ring in rings
    ]
    cv2.fillPoly(fine, polygons, (255,), lineType=cv2.LINE_8, shift=_SHIFT)
    return cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_AREA)


class ShadowMap:
    """Share of sunlight (byte 0) and of sky light (byte 1) that reaches the ground.

    Shadows of what stands still are drawn once per position of the sun; those of moving boxes into
    a copy of the surroundings. The ground is taken as level over the length of a shadow.

    Args:
        town: what stands on the ground.
        conditions: where the sun is.
    """

    TEXEL_M = 0.2
    MAX_LENGTH_M = 80.0

    def __init__(self, town: Town, conditions: Conditions) -> None:
        x_min, y_min, x_max, y_max = (float(value) for value in town.extent)
        self._origin = np.array([x_min, y_min])
        rows = max(1, int(np.ceil((y_max - y_min) / self.TEXEL_M)))
        columns = max(1, int(np.ceil((x_max - x_min) / self.TEXEL_M)))
        self._towards_sun = np.array(
            [np.cos(conditions.sun_azimuth_rad), np.sin(conditions.sun_azimuth_rad)]
        )
        self._cotangent = 1 / max(np.tan(conditions.sun_elevation_rad), 0.05)
        sun = np.full((rows, columns), 255, dtype=np.uint8)
        sky = np.full((rows, columns), 255, dtype=np.uint8)
        for box in town.boxes:
            self._draw_box(sun, sky, box, self._origin, 0.0)
        for tree in town.billboards:
            angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
            middle = tree.trunk_height_m + 0.5 * tree.crown_height_m
            ripple = 1 + 0.12 * np.sin(5 * angle + tree.seed % 7)
            stretch = 0.5 * tree.crown_height_m * self._cotangent
            crown = circle * (0.5 * tree.crown_width_m * ripple)[:, None]
            crown -= np.outer(circle @ self._towards_sun, self._towards_sun) * stretch
            shift = -self._towards_sun * self._shadow_length(middle)
            self._fill(sun, crown + tree.centre_xy + shift, self._origin, 40)
            width = max(tree.trunk_width_m, 0.2)
            across = np.array([-self._towards_sun[1], self._towards_sun[0]]) * width / 2
            stem = np.array([across, -across, -across + shift, across + shift])
            self._fill(sun, stem + tree.centre_xy, self._origin, 40)
            self._fill(sky, circle * 0.4 * tree.crown_width_m + tree.centre_xy, self._origin, 190)
        self._sun = cv2.GaussianBlur(sun, (0, 0), 0.8)
        self._sky = cv2.GaussianBlur(sky, (0, 0), 3.0)

    def _shadow_length(self, height_m: float) -> float:
        return min(height_m * self._cotangent, self.MAX_LENGTH_M)

    def _fill(self, image: np.ndarray, ring: FloatArray, origin: FloatArray, value: int) -> None:
        pixels = ((ring - origin) / self.TEXEL_M - 0.5) * (1 << _SHIFT)
        hull = cv2.convexHull(np.rint(pixels).astype(np.int32))
        cv2.fillConvexPoly(image, hull, (value,), lineType=cv2.LINE_AA, shift=_SHIFT)

    def _draw_box(
        self, sun: np.ndarray, sky: np.ndarray, box: Box, origin: FloatArray, time_s: float
    ) -> None:
        foot = footprint(box, time_s)
        shift = -self._towards_sun * self._shadow_length(box.size_m[2] + box.base_z_m)
        self._fill(sun, np.concatenate([foot, foot + shift]), origin, 0)
        self._fill(sky, foot, origin, 90)

    def window(
        self, centre_xy: FloatArray, radius_m: float, moving: Sequence[Box], time_s: float
    ) -> tuple[np.ndarray, FloatArray]:
        """Return the packed surroundings of a point with the shadows of moving boxes.

        Args:
            centre_xy: (2,) [m].
            radius_m: half width of the square [m].
            moving: boxes whose shadows are added.
            time_s: drive time [s].

        Returns:
            (H, W) int32 texels and the (2,) position of the corner of texel (0, 0) [m].
            Outside the town all is lit.
        """
        first = np.floor((centre_xy - radius_m - self._origin) / self.TEXEL_M).astype(int)
        size = int(np.ceil(2 * radius_m / self.TEXEL_M))
        origin = self._origin + first * self.TEXEL_M
        image = np.full((2, size, size), 255, dtype=np.uint8)
        low = np.maximum(first, 0)
        high = np.minimum(first + size, [self._sun.shape[1], self._sun.shape[0]])
        if (low < high).all():
            source = np.s_[low[1] : high[1], low[0] : high[0]]
            x, y = low - first
            target = np.s_[y : y + high[1] - low[1], x : x + high[0] - low[0]]
            image[0][target], image[1][target] = self._sun[source], self._sky[source]
        for box in moving:
            self._draw_box(image[0], image[1], box, origin, time_s)
        packed = image[0].astype(np.int32) | (image[1].astype(np.int32) << 8)
        return packed, origin


def footprint(box: Box, time_s: float = 0.0) -> FloatArray:
    """Return the (4, 2) corners of a box at a drive time [m], from front left to the left."""
    length, width, _ = box.size_m
    along = np.array([np.cos(box.yaw_rad), np.sin(box.yaw_rad)])
    across = np.array([-along[1], along[0]])
    centre = np.asarray(box.centre_xy) + np.asarray(box.velocity_xy) * time_s
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    return centre + signs[:, :1] * length * along + signs[:, 1:] * width * across
