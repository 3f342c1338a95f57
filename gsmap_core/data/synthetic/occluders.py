"""Which pixels see solids and trees: a depth test over the part of the picture that each touches.

Large parts are worked on one by one as slices of the picture. Small ones are strung together into
one long list of pixels, because a slice costs the same few dozen calls however small it is; a GPU
does so with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsmap_core.data.synthetic.raycast import NEAR_M, Rays
from gsmap_core.data.synthetic.solids import Column, TreeColumn
from gsmap_core.data.synthetic.textures import LEAF_PX, LEAVES_PER_M
from gsmap_core.structures import FloatArray

#: On a CPU larger parts of the picture are worked on as slices [px].
_SMALL_PX = 3000

Number = Tensor | float
Axes = tuple[Tensor, Tensor, Tensor]

#: Corners that share an edge, 0 to 3 below and 4 to 7 above.
_EDGES = np.array(
    [*((i, (i + 1) % 4) for i in range(4)), *((i + 4, (i + 1) % 4 + 4) for i in range(4))]
    + [(i, i + 4) for i in range(4)]
)


def _screen_boxes(
    corners: FloatArray, rays: Rays, camera: int, principal: FloatArray
) -> FloatArray:
    """Return (S, 4): the columns and rows from, to that (S, 8, 3) corners can touch."""
    local = (corners - rays.origins[camera]) @ rays.rotations[camera]
    depth = local[..., 2]
    inside = depth > NEAR_M
    first, second = local[:, _EDGES[:, 0]], local[:, _EDGES[:, 1]]
    crossing = inside[:, _EDGES[:, 0]] != inside[:, _EDGES[:, 1]]
    span = np.where(crossing, second[..., 2] - first[..., 2], 1.0)
    cut = first + ((NEAR_M - first[..., 2]) / span)[..., None] * (second - first)
    points = np.concatenate([local, cut], axis=1)
    valid = np.concatenate([inside, crossing], axis=1)
    scale = 1 / rays.steps[camera]
    pixels = points[..., :2] / np.where(valid, points[..., 2], 1.0)[..., None] * scale + principal
    low = np.where(valid[..., None], pixels, np.inf).min(axis=1)
    high = np.where(valid[..., None], pixels, -np.inf).max(axis=1)
    size = np.array([rays.width_px, rays.height_px])
    low = np.clip(np.where(np.isfinite(low), np.floor(low), size), 0, size)
    high = np.clip(np.where(np.isfinite(high), np.ceil(high), -1), -1, size - 1)
    return np.concatenate([low, high], axis=1)


@dataclass
class _Windows:
    """The parts of the pictures that objects can touch.

    Args:
        camera: (K,) index of the camera.
        owner: (K,) number of the object.
        bounds: (K, 4) first column, first row, last column, last row.
        numbers: (K, C) what the hit test wants to know about the object as that camera sees it.
    """

    camera: FloatArray
    owner: FloatArray
    bounds: FloatArray
    numbers: FloatArray

    def draw(
        self,
        rays: Rays,
        hit_test: Callable[[Axes, Sequence[Number]], tuple[Tensor, Tensor]],
        depth: Tensor,
        owner: Tensor,
    ) -> None:
        """Run the hit test in every window and keep what is nearest.

        Args:
            rays: rays of the cameras.
            hit_test: takes directions and the C numbers; returns depths and what is hit.
            depth: (N, H, W) nearest depth so far [m]; updated.
            owner: (N, H, W) int32; updated.
        """
        size = self.bounds[:, 2:] - self.bounds[:, :2] + 1
        seen = (size > 0).all(axis=1)
        area = size.prod(axis=1)
        small = seen & ((area <= _SMALL_PX) | (depth.device.type != 'cpu'))
        if small.any():
            self._draw_listed(np.flatnonzero(small), rays, hit_test, depth, owner)
        shape = (rays.num_cameras, rays.height_px, rays.width_px)
        x, y, z = rays.x.view(shape), rays.y.view(shape), rays.z.view(shape)
        for window in np.flatnonzero(seen & ~small):
            u0, v0, u1, v1 = (int(value) for value in self.bounds[window])
            part = (int(self.camera[window]), slice(v0, v1 + 1), slice(u0, u1 + 1))
            numbers = [float(value) for value in self.numbers[window]]
            candidate, hit = hit_test((x[part], y[part], z[part]), numbers)
            behind = depth[part]
            wins = hit & (candidate > NEAR_M) & (candidate < behind)
            depth[part] = torch.where(wins, candidate, behind)
            owner[part].masked_fill_(wins, int(self.owner[window]))

    def _draw_listed(
        self,
        chosen: np.ndarray,
        rays: Rays,
        hit_test: Callable[[Axes, Sequence[Number]], tuple[Tensor, Tensor]],
        depth: Tensor,
        owner: Tensor,
    ) -> None:
        device = depth.device
        bounds = self.bounds[chosen].astype(np.int64)
        width = bounds[:, 2] - bounds[:, 0] + 1
        area = width * (bounds[:, 3] - bounds[:, 1] + 1)
        picture = rays.height_px * rays.width_px
        first = self.camera[chosen].astype(np.int64) * picture
        first = first + bounds[:, 1] * rays.width_px + bounds[:, 0]
        plan = torch.from_numpy(np.stack([area, width, first, np.cumsum(area) - area])).to(device)
        window = torch.repeat_interleave(plan[0])
        inside = torch.arange(window.numel(), device=device) - plan[3].index_select(0, window)
        columns = plan[1].index_select(0, window)
        row = torch.div(inside, columns, rounding_mode='floor')
        pixel = plan[2].index_select(0, window) + row * rays.width_px + (inside - row * columns)
        axes = tuple(axis.view(-1).index_select(0, pixel) for axis in (rays.x, rays.y, rays.z))
        table = torch.as_tensor(
            np.ascontiguousarray(self.numbers[chosen].T), dtype=torch.float32, device=device
        )
        numbers = [values.index_select(0, window) for values in table]
        candidate, hit = hit_test((axes[0], axes[1], axes[2]), numbers)
        flat_depth, flat_owner = depth.view(-1), owner.view(-1)
        hit = hit & (candidate > NEAR_M) & (candidate < flat_depth.index_select(0, pixel))
        kept = torch.nonzero(hit).view(-1)
        pixel, candidate = pixel.index_select(0, kept), candidate.index_select(0, kept)
        flat_depth.scatter_reduce_(0, pixel, candidate, 'amin')
        nearest = torch.nonzero(candidate == flat_depth.index_select(0, pixel)).view(-1)
        pixel = pixel.index_select(0, nearest)
        numbers_of = torch.from_numpy(self.owner[chosen].astype(np.int32)).to(device)
        winner = numbers_of.index_select(0, window.index_select(0, kept.index_select(0, nearest)))
        # Where two are equally near the greater number wins, in whatever order they are written.
        flat_owner.index_fill_(0, pixel, -1)
        flat_owner.scatter_reduce_(0, pixel, winner, 'amax')


def draw_solids(
    rays: Rays, principal: FloatArray, solids: FloatArray, depth: Tensor, owner: Tensor
) -> None:
    """Draw upright solids into depth and owner images.

    Args:
        rays: rays of N cameras.
        principal: (N, 2) principal points [px].
        solids: (S, len(Column)) with relative positions; the row number becomes the owner.
        depth: (N, H, W) nearest depth so far [m]; updated.
        owner: (N, H, W) int32; updated.
    """
    if len(solids) == 0:
        return
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    along, across = solids[:, [Column.COS, Column.SIN]], solids[:, [Column.SIN, Column.COS]]
    across = across * [-1, 1]
    foot = (
        solids[:, None, :2]
        + (signs[:, 0] * solids[:, Column.HALF_LENGTH, None])[..., None] * along[:, None]
        + (signs[:, 1] * solids[:, Column.HALF_WIDTH, None])[..., None] * across[:, None]
    )
    bottom = solids[:, Column.Z_FOOT] - solids[:, Column.SKIRT]
    top = solids[:, Column.Z_FOOT] + solids[:, Column.HEIGHT]
    heights = np.repeat(np.stack([bottom, top], axis=1), 4, axis=1)[..., None]
    corners = np.concatenate([np.concatenate([foot, foot], axis=1), heights], axis=2)
    bounds, numbers = [], []
    for camera in range(rays.num_cameras):
        bounds.append(_screen_boxes(corners, rays, camera, principal[camera]))
        numbers.append(solid_numbers(solids, rays.origins[camera]))
    _stack(bounds, numbers, 0).draw(rays, hit_solid, depth, owner)


def solid_numbers(solids: FloatArray, origin: FloatArray) -> FloatArray:
    """Return (S, 10): what `hit_solid` wants to know about solids seen from a (3,) place."""
    along, across = solids[:, [Column.COS, Column.SIN]], solids[:, [Column.SIN, Column.COS]]
    across = across * [-1, 1]
    shift = origin - solids[:, :3]
    return np.column_stack(
        [
            along,
            (shift[:, :2] * along).sum(axis=1),
            (shift[:, :2] * across).sum(axis=1),
            shift[:, 2],
            solids[:, [Column.HALF_LENGTH, Column.HALF_WIDTH, Column.TAPER]],
            -solids[:, Column.SKIRT],
            solids[:, Column.HEIGHT],
        ]
    )


def _stack(bounds: list[FloatArray], numbers: list[FloatArray], first_owner: int) -> _Windows:
    count = len(numbers[0])
    return _Windows(
        camera=np.repeat(np.arange(len(bounds)), count),
        owner=np.tile(np.arange(first_owner, first_owner + count), len(bounds)),
        bounds=np.concatenate(bounds),
        numbers=np.concatenate(numbers),
    )


def hit_solid(axes: Axes, numbers: Sequence[Number]) -> tuple[Tensor, Tensor]:
    """Return where rays enter solids, as a multiple of the direction, and whether they do.

    Args:
        axes: x, y and z of the directions, town frame.
        numbers: columns of `solid_numbers`, of a shape that goes with the directions.
    """
    cosine, sine, ox, oy, oz, half_x, half_y, taper, low, high = numbers
    dx, dy, dz = axes
    local_x = dx * cosine + dy * sine
    local_y = dy * cosine - dx * sine
    near, far = _slab(local_y, oy, -half_y, half_y)
    entry, leave = _slab(dz, oz, low, high)
    near, far = torch.maximum(near, entry), torch.minimum(far, leave)
    if isinstance(taper, float) and taper == 0:
        entry, leave = _slab(local_x, ox, -half_x, half_x)
        near, far = torch.maximum(near, entry), torch.minimum(far, leave)
        return near, near <= far
    lean = dz * taper
    for sign in (1.0, -1.0):
        # sign * x + taper * z <= half_x
        speed = local_x * sign + lean
        wall = (half_x - sign * ox - taper * oz) / speed
        near = torch.where(speed < 0, torch.maximum(near, wall), near)
        far = torch.where(speed >= 0, torch.minimum(far, wall), far)
    return near, near <= far


def _slab(speed: Tensor, start: Number, low: Number, high: Number) -> tuple[Tensor, Tensor]:
    """Return the depths at which rays enter and leave low <= coordinate <= high."""
    # Parallel rays divide by zero: infinities with the right signs.
    inverse = torch.reciprocal(speed)
    first, second = inverse * (low - start), inverse * (high - start)
    return torch.minimum(first, second), torch.maximum(first, second)


def draw_trees(
    rays: Rays,
    principal: FloatArray,
    trees: FloatArray,
    first_owner: int,
    depth: Tensor,
    owner: Tensor,
    leaves: Tensor,
) -> None:
    """Draw trees, each in the upright plane through its foot that faces the camera.

    Args:
        rays: rays of N cameras.
        principal: (N, 2) principal points [px].
        trees: (T, len(TreeColumn)) with relative positions.
        first_owner: owner of the first tree.
        depth: (N, H, W) nearest depth so far [m]; updated.
        owner: (N, H, W) int32; updated.
        leaves: noise image of `leaf_noise`.
    """
    if len(trees) == 0:
        return
    tall = trees[:, TreeColumn.TRUNK_HEIGHT] + trees[:, TreeColumn.CROWN_HEIGHT]
    half = np.maximum(0.6 * trees[:, TreeColumn.CROWN_WIDTH], trees[:, TreeColumn.TRUNK_WIDTH])
    low, high = trees[:, TreeColumn.Z_FOOT] - 0.3, trees[:, TreeColumn.Z_FOOT] + tall * 1.05
    bounds, numbers = [], []
    for camera in range(rays.num_cameras):
        origin = rays.origins[camera]
        offset = trees[:, :2] - origin[:2]
        distance = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-6)
        facing = offset / distance[:, None]
        side = np.stack([-facing[:, 1], facing[:, 0]], axis=1) * half[:, None]
        # Two ends of the foot, four times each: an upright rectangle as a flat box.
        ends = np.stack([trees[:, :2] + side, trees[:, :2] - side], axis=1)
        flat = ends[:, [0, 1, 1, 0, 0, 1, 1, 0]]
        heights = np.stack([low, low, low, low, high, high, high, high], axis=1)
        screen = _screen_boxes(
            np.concatenate([flat, heights[..., None]], axis=2), rays, camera, principal[camera]
        )
        # The plane of a tree that the camera stands in has no direction.
        screen[distance < 0.5] = [0, 0, -1, -1]
        bounds.append(screen)
        numbers.append(tree_numbers(trees, origin))
    _stack(bounds, numbers, first_owner).draw(
        rays, lambda axes, tree: hit_tree(axes, tree, leaves), depth, owner
    )


def tree_numbers(trees: FloatArray, origin: FloatArray) -> FloatArray:
    """Return (T, 9): what `hit_tree` wants to know about trees seen from a (3,) place."""
    offset = trees[:, :2] - origin[:2]
    distance = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-6)
    return np.column_stack(
        [
            offset / distance[:, None],
            distance,
            origin[2] - trees[:, TreeColumn.Z_FOOT],
            trees[:, TreeColumn.TRUNK_HEIGHT : TreeColumn.CROWN_HEIGHT + 1],
            trees[:, TreeColumn.SEED] % 97,
        ]
    )


def hit_tree(axes: Axes, tree: Sequence[Number], leaves: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays meet the planes of trees, and whether they meet leaves or the trunk.

    Args:
        axes: x, y and z of the directions, town frame.
        tree: columns of `tree_numbers`, of a shape that goes with the directions.
        leaves: noise image of `leaf_noise`.
    """
    facing_x, facing_y, distance, rise = tree[:4]
    dx, dy, dz = axes
    reach = distance / (dx * facing_x + dy * facing_y)
    across = (dy * facing_x - dx * facing_y) * reach
    return reach, _tree_mask(across, dz * reach + rise, tree[4:], leaves)


def _tree_mask(across: Tensor, up: Tensor, tree: Sequence[Number], leaves: Tensor) -> Tensor:
    """Tell which points (metres across and above the foot) of the plane of a tree belong to it."""
    trunk_height, trunk_width, crown_width, crown_height, seed = tree
    middle = trunk_height + 0.5 * crown_height
    trunk = (across.abs() < 0.5 * trunk_width) & (up < middle) & (up > -0.3)
    a = across * (2 / crown_width)
    b = (up - middle) * (2 / crown_height)
    ragged = torch.sin(5.3 * a + 1.3 * torch.sin(2.9 * b + seed)) * torch.sin(4.7 * b + seed)
    noise = leaf_noise(leaves, across, up, seed)
    return trunk | (a * a + b * b + 0.16 * ragged + 0.5 * (noise - 0.5) < 0.85)


def leaf_noise(leaves: Tensor, across: Tensor, up: Tensor, seed: Tensor | float) -> Tensor:
    """Return noise from 0 to 1 at points of the plane of a tree.

    Args:
        leaves: (LEAF_PX * LEAF_PX,) float32 periodic noise, 0 to 1.
        across: metres across.
        up: metres above the foot.
        seed: 0 to 97, shifts the noise.
    """
    column = (across * LEAVES_PER_M + (seed * 7.3 + 4096)).to(torch.int32) & (LEAF_PX - 1)
    row = (up * LEAVES_PER_M + (seed * 3.1 + 4096)).to(torch.int32) & (LEAF_PX - 1)
    index = row.mul_(LEAF_PX).add_(column)
    return leaves.index_select(0, index.view(-1)).view(index.shape)
