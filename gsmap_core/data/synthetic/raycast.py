"""Where the rays of cameras meet ground, solids and trees.

PyTorch, the same on every device up to rounding. Positions are relative to a point near the
vehicle, so that float32 keeps micrometres. A ray is `origin + t * direction` with directions of
depth 1, so t is the depth along the optical axis of its camera.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsmap_core.data.synthetic.scene import HeightField
from gsmap_core.data.synthetic.solids import Column, TreeColumn
from gsmap_core.data.synthetic.textures import LEAF_PX, LEAVES_PER_M
from gsmap_core.structures import Camera, FloatArray

#: Nothing nearer than this along the optical axis is drawn [m].
NEAR_M = 0.1
#: Ground farther away than this is sky [m].
FAR_GROUND_M = 600.0
_MAX_STEPS = 10
_EASY_STEPS = 3
#: Height above the ground at which a ray has arrived, as a share of the distance: 0.04 px at a
#: focal length of 1000 px.
_TOLERANCE = 4e-5


class Waves:
    """A height field about a point: plain numbers for the inner loops.

    Args:
        ground: height field in the town frame.
        centre_xy: (2,) the point that becomes the origin [m].
    """

    def __init__(self, ground: HeightField, centre_xy: FloatArray) -> None:
        phase = np.mod(ground.phase_rad + ground.wave_xy @ centre_xy, 2 * np.pi)
        self.terms = [
            (float(amplitude), float(wave[0]), float(wave[1]), float(angle))
            for amplitude, wave, angle in zip(
                ground.amplitude_m, ground.wave_xy, phase, strict=True
            )
            if amplitude != 0
        ]
        steepness = np.hypot(ground.wave_xy[:, 0], ground.wave_xy[:, 1])
        amplitude = np.abs(ground.amplitude_m)
        #: No slope and no curvature of the field exceeds these.
        self.max_slope = float(amplitude @ steepness)
        self.max_curvature = float(amplitude @ steepness**2)

    def height_and_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return heights [m] and slopes along x and y at points."""
        height, slope_x, slope_y = (torch.zeros_like(x) for _ in range(3))
        for amplitude, wave_x, wave_y, phase in self.terms:
            angle = torch.add(x * wave_x, y, alpha=wave_y).add_(phase)
            height.add_(torch.sin(angle), alpha=amplitude)
            cosine = torch.cos_(angle)
            slope_x.add_(cosine, alpha=amplitude * wave_x)
            slope_y.add_(cosine, alpha=amplitude * wave_y)
        return height, slope_x, slope_y


@dataclass
class Rays:
    """The rays of N cameras of equal size.

    Args:
        origins: (N, 3) optical centres, relative [m].
        rotations: (N, 3, 3) camera to town.
        steps: (N, 2) change of the camera-frame direction per pixel along u and v.
        x: (N, H * W) direction towards east, depth 1.
        y: towards north.
        z: up.
        height_px: H.
        width_px: W.
    """

    origins: FloatArray
    rotations: FloatArray
    steps: FloatArray
    x: Tensor
    y: Tensor
    z: Tensor
    height_px: int
    width_px: int

    @property
    def num_cameras(self) -> int:
        """N."""
        return len(self.origins)

    def per_pixel(self, values: FloatArray, index: Tensor) -> Tensor | float:
        """Return one value per camera as one per selected pixel (a number if there is one camera).

        Args:
            values: (N,).
            index: (P,) indices into the N * H * W pixels.
        """
        if self.num_cameras == 1:
            return float(values[0])
        table = torch.as_tensor(values, dtype=torch.float32, device=index.device)
        return table[index // (self.height_px * self.width_px)]


def camera_steps(cameras: list[Camera]) -> FloatArray:
    """Return (N, 2): change of the direction per pixel along u and v."""
    return np.array([[1 / c.intrinsics[0, 0], 1 / c.intrinsics[1, 1]] for c in cameras])


def make_rays(
    cameras: list[Camera], town_from_cameras: FloatArray, centre: FloatArray, device: torch.device
) -> Rays:
    """Build the rays of cameras of equal size.

    Args:
        cameras: calibration.
        town_from_cameras: (N, 4, 4).
        centre: (3,) the point that becomes the origin [m].
        device: where the directions live.
    """
    width, height = cameras[0].width_px, cameras[0].height_px
    steps = camera_steps(cameras)
    count = len(cameras)
    u = torch.arange(width, dtype=torch.float32, device=device).view(1, 1, width)
    v = torch.arange(height, dtype=torch.float32, device=device).view(1, height, 1)

    def column(values: FloatArray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device).view(count, 1, 1)

    principal = np.array([camera.intrinsics[:2, 2] for camera in cameras])
    rotations = np.asarray(town_from_cameras, dtype=np.float64)[:, :3, :3]
    across = (u - column(principal[:, 0])) * column(steps[:, 0])
    down = (v - column(principal[:, 1])) * column(steps[:, 1])
    x, y, z = (
        (
            across * column(rotations[:, axis, 0])
            + (down * column(rotations[:, axis, 1]) + column(rotations[:, axis, 2]))
        ).view(count, -1)
        for axis in range(3)
    )
    origins = np.asarray(town_from_cameras, dtype=np.float64)[:, :3, 3] - centre
    return Rays(origins, rotations, steps, x, y, z, height, width)


@dataclass
class GroundHits:
    """Pixels that see ground.

    Args:
        index: (P,) indices into the N * H * W pixels.
        depth: (P,) [m].
        x: (P,) east of the point, relative [m].
        y: (P,) north.
        slope_x: (P,) dz/dx there.
        slope_y: (P,) dz/dy there.
    """

    index: Tensor
    depth: Tensor
    x: Tensor
    y: Tensor
    slope_x: Tensor
    slope_y: Tensor

    def select(self, keep: Tensor) -> GroundHits:
        """Return the hits at the given (Q,) positions."""
        return GroundHits(*(value.index_select(0, keep) for value in vars(self).values()))


def intersect_ground(rays: Rays, waves: Waves) -> GroundHits:
    """Find the first intersection of every ray with the height field.

    The step is the largest one that cannot pass the surface, from height, slope and the bound on
    the curvature: it becomes Newton's near the surface, and is exact on level ground.
    """
    flat_x, flat_y, flat_z = rays.x.view(-1), rays.y.view(-1), rays.z.view(-1)
    run = torch.sqrt(flat_x * flat_x + flat_y * flat_y)
    # Steeper than the steepest slope: can never come down onto the ground.
    index = torch.nonzero(flat_z < run * waves.max_slope - 1e-6).view(-1)
    dx, dy, dz = (value.index_select(0, index) for value in (flat_x, flat_y, flat_z))
    run = run.index_select(0, index)
    ox, oy, oz = (rays.per_pixel(rays.origins[:, axis], index) for axis in range(3))
    bend = (2 * waves.max_curvature) * run * run

    def step(selection: Tensor | None, depth: Tensor) -> tuple[Tensor, Tensor]:
        def pick(value: Tensor | float) -> Tensor | float:
            if selection is None or isinstance(value, float):
                return value
            return value.index_select(0, selection)

        direction = pick(dx), pick(dy), pick(dz)
        height, slope_x, slope_y = waves.height_and_gradient(
            depth * direction[0] + pick(ox), depth * direction[1] + pick(oy)
        )
        above = (depth * direction[2] + pick(oz) - height).clamp_(min=0)
        closing = slope_x * direction[0] + slope_y * direction[1] - direction[2]
        root = torch.sqrt(closing * closing + pick(bend) * above)
        advance = 2 * above / (closing + root).clamp_(min=1e-9)
        limit = (1.01 * FAR_GROUND_M) / pick(run)
        return (depth + advance).clamp_(max=limit), above

    depth = torch.zeros_like(dx)
    for _ in range(_EASY_STEPS if waves.terms else 1):
        depth, _ = step(None, depth)
    if waves.terms:
        open_rays: Tensor | None = None
        for _ in range(_MAX_STEPS):
            current = depth if open_rays is None else depth.index_select(0, open_rays)
            advanced, above = step(open_rays, current)
            if open_rays is None:
                depth = advanced
                reach = advanced * run
            else:
                depth.index_copy_(0, open_rays, advanced)
                reach = advanced * run.index_select(0, open_rays)
            unfinished = (above > _TOLERANCE * reach) & (reach < FAR_GROUND_M)
            remaining = torch.nonzero(unfinished).view(-1)
            if remaining.numel() == 0:
                break
            open_rays = remaining if open_rays is None else open_rays.index_select(0, remaining)
    keep = torch.nonzero((depth * run < FAR_GROUND_M) & (depth > NEAR_M)).view(-1)
    index, depth, dx, dy = (value.index_select(0, keep) for value in (index, depth, dx, dy))
    ox, oy = (rays.per_pixel(rays.origins[:, axis], index) for axis in range(2))
    x, y = depth * dx + ox, depth * dy + oy
    _, slope_x, slope_y = waves.height_and_gradient(x, y)
    return GroundHits(index, depth, x, y, slope_x, slope_y)


_EDGES = np.array(
    [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 0],
        [4, 5],
        [5, 6],
        [6, 7],
        [7, 4],
        [0, 4],
        [1, 5],
        [2, 6],
        [3, 7],
    ]
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


def _windows(boxes: FloatArray) -> Iterator[tuple[int, slice, slice]]:
    for row, (u0, v0, u1, v1) in enumerate(boxes.astype(int)):
        if u0 <= u1 and v0 <= v1:
            yield row, slice(v0, v1 + 1), slice(u0, u1 + 1)


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
    shape = (rays.num_cameras, rays.height_px, rays.width_px)
    x, y, z = rays.x.view(shape), rays.y.view(shape), rays.z.view(shape)
    for camera in range(rays.num_cameras):
        boxes = _screen_boxes(corners, rays, camera, principal[camera])
        origin = rays.origins[camera]
        for row, rows, columns in _windows(boxes):
            solid = solids[row]
            cosine, sine = float(solid[Column.COS]), float(solid[Column.SIN])
            shift = origin - solid[:3]
            ox = cosine * shift[0] + sine * shift[1]
            oy = cosine * shift[1] - sine * shift[0]
            dx = x[camera, rows, columns]
            dy = y[camera, rows, columns]
            dz = z[camera, rows, columns]
            local_x = torch.add(dx * cosine, dy, alpha=sine)
            local_y = torch.add(dy * cosine, dx, alpha=-sine)
            half_x, half_y = float(solid[Column.HALF_LENGTH]), float(solid[Column.HALF_WIDTH])
            taper = float(solid[Column.TAPER])
            near, far = _slab(local_y, oy, -half_y, half_y)
            entry, leave = _slab(
                dz, shift[2], -float(solid[Column.SKIRT]), float(solid[Column.HEIGHT])
            )
            near, far = torch.maximum(near, entry), torch.minimum(far, leave)
            if taper == 0:
                entry, leave = _slab(local_x, ox, -half_x, half_x)
                near, far = torch.maximum(near, entry), torch.minimum(far, leave)
            else:
                for sign in (1.0, -1.0):
                    # sign * x + taper * z <= half_x
                    speed = torch.add(local_x * sign, dz, alpha=taper)
                    room = half_x - sign * ox - taper * shift[2]
                    wall = room / torch.where(speed == 0, torch.full_like(speed, 1e-12), speed)
                    near = torch.where(speed < 0, torch.maximum(near, wall), near)
                    far = torch.where(speed >= 0, torch.minimum(far, wall), far)
            _keep_nearest(near, near <= far, depth, owner, (camera, rows, columns), row)


def _slab(speed: Tensor, start: float, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the depths at which rays enter and leave low <= coordinate <= high."""
    inverse = torch.reciprocal(torch.where(speed == 0, torch.full_like(speed, 1e-12), speed))
    first, second = inverse * (low - float(start)), inverse * (high - float(start))
    return torch.minimum(first, second), torch.maximum(first, second)


def _keep_nearest(
    candidate: Tensor,
    hit: Tensor,
    depth: Tensor,
    owner: Tensor,
    window: tuple[int, slice, slice],
    row: int,
) -> None:
    behind = depth[window]
    wins = hit & (candidate > NEAR_M) & (candidate < behind)
    depth[window] = torch.where(wins, candidate, behind)
    owner[window].masked_fill_(wins, row)


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
    shape = (rays.num_cameras, rays.height_px, rays.width_px)
    x, y, z = rays.x.view(shape), rays.y.view(shape), rays.z.view(shape)
    tall = trees[:, TreeColumn.TRUNK_HEIGHT] + trees[:, TreeColumn.CROWN_HEIGHT]
    half = 0.55 * np.maximum(trees[:, TreeColumn.CROWN_WIDTH], trees[:, TreeColumn.TRUNK_WIDTH])
    for camera in range(rays.num_cameras):
        origin = rays.origins[camera]
        offset = trees[:, :2] - origin[:2]
        distance = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-6)
        facing = offset / distance[:, None]
        side = np.stack([-facing[:, 1], facing[:, 0]], axis=1) * half[:, None]
        ends = np.stack([trees[:, :2] + side, trees[:, :2] - side] * 2, axis=1)
        ends = np.repeat(ends, 2, axis=1)
        low, high = trees[:, TreeColumn.Z_FOOT] - 0.3, trees[:, TreeColumn.Z_FOOT] + tall * 1.03
        heights = np.stack([low, low, low, low, high, high, high, high], axis=1)
        flat = ends[:, [0, 2, 0, 2, 0, 2, 0, 2]]
        corners = np.concatenate([flat, heights[..., None]], axis=2)
        boxes = _screen_boxes(corners, rays, camera, principal[camera])
        for row, rows, columns in _windows(boxes):
            if distance[row] < 0.5:
                continue
            tree = trees[row]
            dx = x[camera, rows, columns]
            dy = y[camera, rows, columns]
            forward = torch.add(dx * float(facing[row, 0]), dy, alpha=float(facing[row, 1]))
            reach = float(distance[row]) / torch.where(
                forward.abs() < 1e-6, torch.full_like(forward, 1e-6), forward
            )
            across = torch.add(dy * float(facing[row, 0]), dx, alpha=-float(facing[row, 1]))
            across = across.mul_(reach)
            up = z[camera, rows, columns] * reach + float(origin[2] - tree[TreeColumn.Z_FOOT])
            hit = tree_mask(across, up, tree, leaves)
            _keep_nearest(reach, hit, depth, owner, (camera, rows, columns), first_owner + row)


def tree_mask(across: Tensor, up: Tensor, tree: FloatArray, leaves: Tensor) -> Tensor:
    """Tell which points (metres across and above the foot) of the plane of a tree belong to it."""
    trunk_height = float(tree[TreeColumn.TRUNK_HEIGHT])
    crown_height, crown_width = (
        float(tree[TreeColumn.CROWN_HEIGHT]),
        float(tree[TreeColumn.CROWN_WIDTH]),
    )
    seed = float(tree[TreeColumn.SEED] % 97)
    half_trunk = 0.5 * float(tree[TreeColumn.TRUNK_WIDTH])
    trunk = (across.abs() < half_trunk) & (up < trunk_height + 0.5 * crown_height) & (up > -0.3)
    a = across * (2 / crown_width)
    b = (up - (trunk_height + 0.5 * crown_height)) * (2 / crown_height)
    radius = a * a + b * b
    ragged = torch.sin(5.3 * a + 1.3 * torch.sin(2.9 * b + seed)) * torch.sin(4.7 * b + seed)
    noise = leaf_noise(leaves, across, up, seed)
    return trunk | (radius + 0.16 * ragged + 0.5 * (noise - 0.5) < 0.85)


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
