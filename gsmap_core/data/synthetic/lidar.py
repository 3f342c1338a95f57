"""A simulated LiDAR sweep: rays against ground, boxes and trees, all at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from gsmap_core.data.synthetic import raycast
from gsmap_core.data.synthetic.scene import Box, Material, Town
from gsmap_core.data.synthetic.solids import Column, TreeColumn, solid_table, tree_table
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import FloatArray, check_transform

#: Share of the light that comes back, 0 to 255.
_GROUND_INTENSITY: dict[Material, int] = {
    Material.GRASS: 38,
    Material.SIDEWALK: 30,
    Material.ASPHALT: 10,
    Material.PAINT_WHITE: 120,
    Material.PAINT_YELLOW: 90,
    Material.KERB: 34,
    Material.ASPHALT_PATCH: 7,
}
_TREE_INTENSITY = 32.0
_TEXEL_M = 0.1
_SHIFT = 6


@dataclass(frozen=True)
class LidarConfig:
    """The scanner.

    Args:
        num_beams: beams, evenly spread over the elevations.
        elevation_deg: lowest and highest beam [deg].
        azimuth_step_deg: between neighbouring columns [deg].
        max_range_m: nothing beyond returns [m].
        position_m: of the scanner in the ego frame [m].
        range_noise_m: standard deviation of a range [m].
        noise_seed: of the range noise.
    """

    num_beams: int = 32
    elevation_deg: tuple[float, float] = (-30.0, 10.0)
    azimuth_step_deg: float = 1.0
    max_range_m: float = 70.0
    position_m: tuple[float, float, float] = (0.95, 0.0, 1.85)
    range_noise_m: float = 0.02
    noise_seed: int = 0


def simulate_lidar(
    town: Town,
    moving_boxes: Sequence[Box],
    map_from_base: npt.ArrayLike,
    time_s: float,
    config: LidarConfig | None = None,
) -> npt.NDArray[np.float32]:
    """Cast one sweep.

    Args:
        town: what stands still.
        moving_boxes: boxes in addition, moved to the drive time.
        map_from_base: (4, 4) pose of the vehicle in the town frame.
        time_s: drive time [s].
        config: the scanner; None: the default one.

    Returns:
        (P, 4) float32: x, y, z in the ego frame at that moment [m] and intensity, 0 to 255; rays
        without a return are left out.

    Raises:
        DataError: the pose is not a rigid transform.
    """
    scanner = LidarConfig() if config is None else config
    pose = check_transform('map_from_base', map_from_base)
    centre = np.append(np.round(pose[:2, 3]), 0.0)
    origin = transform_points(pose, [scanner.position_m])[0] - centre
    directions = _directions(scanner) @ pose[:3, :3].T

    ground_range = _ground_ranges(town, origin, directions, centre)
    solids = solid_table([*town.boxes, *moving_boxes], town.ground, time_s)
    solids[:, :3] -= centre
    reach = np.hypot(solids[:, Column.HALF_LENGTH], solids[:, Column.HALF_WIDTH])
    distance = np.hypot(solids[:, 0] - origin[0], solids[:, 1] - origin[1])
    solids = solids[distance - reach < scanner.max_range_m]
    solid_range, solid_row = _solid_ranges(solids, origin, directions)
    trees = tree_table(town.billboards, town.ground)
    trees[:, :3] -= centre
    distance = np.hypot(trees[:, 0] - origin[0], trees[:, 1] - origin[1])
    trees = trees[distance - trees[:, TreeColumn.CROWN_WIDTH] < scanner.max_range_m]
    tree_range = _tree_ranges(trees, origin, directions)

    ranges = np.minimum(np.minimum(ground_range, solid_range), tree_range)
    returns = ranges < scanner.max_range_m
    points = origin + ranges[returns, None] * directions[returns] + centre
    on_ground = (ground_range == ranges)[returns]
    on_solid = (solid_range == ranges)[returns] & ~on_ground
    intensity = np.full(len(points), _TREE_INTENSITY)
    if on_solid.any():
        colour = solids[solid_row[returns][on_solid]][:, [Column.RED, Column.GREEN, Column.BLUE]]
        intensity[on_solid] = 15 + 70 * colour.mean(axis=1)
    if on_ground.any():
        intensity[on_ground] = _ground_intensity(town, points[on_ground, :2])
    if scanner.range_noise_m > 0:
        generator = np.random.default_rng([scanner.noise_seed & 0xFFFFFFFF, 7400])
        noise = generator.standard_normal(len(ranges))[returns] * scanner.range_noise_m
        points = points + noise[:, None] * directions[returns]
    in_ego = transform_points(invert(pose), points)
    return np.column_stack([in_ego, intensity]).astype(np.float32)


def _directions(scanner: LidarConfig) -> FloatArray:
    """Return (beams * columns, 3) unit directions in the ego frame, column by column."""
    low, high = np.deg2rad(scanner.elevation_deg)
    elevation = np.linspace(low, high, scanner.num_beams)
    columns = max(1, round(360 / scanner.azimuth_step_deg))
    azimuth = (np.arange(columns) * (2 * np.pi / columns))[:, None]
    flat = np.cos(elevation)
    directions = np.stack(
        [
            flat * np.cos(azimuth),
            flat * np.sin(azimuth),
            np.broadcast_to(np.sin(elevation), (columns, scanner.num_beams)),
        ],
        axis=-1,
    )
    return directions.reshape(-1, 3)


def _ground_ranges(
    town: Town, origin: FloatArray, directions: FloatArray, centre: FloatArray
) -> FloatArray:
    axes = torch.from_numpy(directions.T.astype(np.float32).copy())
    rays = raycast.Rays(
        origins=origin[None],
        rotations=np.eye(3)[None],
        steps=np.zeros((1, 2)),
        x=axes[0][None],
        y=axes[1][None],
        z=axes[2][None],
        height_px=1,
        width_px=len(directions),
    )
    hits = raycast.intersect_ground(rays, raycast.Waves(town.ground, centre[:2]))
    ranges = np.full(len(directions), np.inf)
    ranges[hits.index.numpy()] = hits.depth.numpy()
    return ranges


def _solid_ranges(
    solids: FloatArray, origin: FloatArray, directions: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return the nearest range to a solid per ray [m], inf for none, and the row of that solid."""
    best = np.full(len(directions), np.inf)
    rows = np.zeros(len(directions), dtype=np.int64)
    for row, solid in enumerate(solids):
        cosine, sine = solid[Column.COS], solid[Column.SIN]
        turn = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        start = turn @ (origin - solid[:3])
        along = directions @ turn.T
        half_length, half_width = solid[Column.HALF_LENGTH], solid[Column.HALF_WIDTH]
        taper = solid[Column.TAPER]
        # Half spaces normal . p <= offset.
        planes = np.array(
            [
                [1, 0, taper, half_length],
                [-1, 0, taper, half_length],
                [0, 1, 0, half_width],
                [0, -1, 0, half_width],
                [0, 0, 1, solid[Column.HEIGHT]],
                [0, 0, -1, solid[Column.SKIRT]],
            ]
        )
        speed = along @ planes[:, :3].T
        room = planes[:, 3] - planes[:, :3] @ start
        with np.errstate(divide='ignore', invalid='ignore'):
            at = room / speed
        near = np.where(speed < 0, at, -np.inf).max(axis=1)
        far = np.where(speed > 0, at, np.inf).min(axis=1)
        parallel_outside = ((speed == 0) & (room < 0)).any(axis=1)
        hit = (near <= far) & (near > 0) & (near < best) & ~parallel_outside
        best = np.where(hit, near, best)
        rows = np.where(hit, row, rows)
    return best, rows


def _tree_ranges(trees: FloatArray, origin: FloatArray, directions: FloatArray) -> FloatArray:
    """Return the nearest range to a trunk (upright cylinder) or crown (ellipsoid) per ray."""
    best = np.full(len(directions), np.inf)
    for tree in trees:
        half = 0.5 * np.array(
            [
                tree[TreeColumn.CROWN_WIDTH],
                tree[TreeColumn.CROWN_WIDTH],
                tree[TreeColumn.CROWN_HEIGHT],
            ]
        )
        # The crown is drawn a little smaller than its ellipse.
        half = half * 0.9
        foot = tree[:3]
        middle = foot + [0, 0, tree[TreeColumn.TRUNK_HEIGHT] + 0.5 * tree[TreeColumn.CROWN_HEIGHT]]
        best = np.minimum(best, _quadric((origin - middle) / half, directions / half))
        radius = 0.5 * max(tree[TreeColumn.TRUNK_WIDTH], 0.05)
        trunk = _quadric((origin - foot)[:2] / radius, directions[:, :2] / radius)
        with np.errstate(invalid='ignore'):
            height = origin[2] - foot[2] + trunk * directions[:, 2]
        top = tree[TreeColumn.TRUNK_HEIGHT] + 0.5 * tree[TreeColumn.CROWN_HEIGHT]
        best = np.where((height < top) & (height > -0.5) & (trunk < best), trunk, best)
    return best


def _quadric(start: FloatArray, direction: FloatArray) -> FloatArray:
    """Return the first range at which rays enter the unit sphere (or circle), inf for never."""
    a = np.einsum('ij,ij->i', direction, direction)
    b = direction @ start
    c = float(start @ start) - 1
    discriminant = b * b - a * c
    with np.errstate(divide='ignore', invalid='ignore'):
        at = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    return np.where((discriminant > 0) & (a > 0) & (at > 0), at, np.inf)


def _ground_intensity(town: Town, xy: FloatArray) -> FloatArray:
    """Return the intensity of ground points (P, 2) in the town frame."""
    low = xy.min(axis=0) - 1
    columns, rows = (np.ceil((xy.max(axis=0) + 1 - low) / _TEXEL_M)).astype(int)
    image = np.full((rows, columns), _GROUND_INTENSITY[Material.GRASS], dtype=np.uint8)
    high = low + np.array([columns, rows]) * _TEXEL_M
    for patch in town.patches:
        if (patch.outline.max(axis=0) < low).any() or (patch.outline.min(axis=0) > high).any():
            continue
        value = _GROUND_INTENSITY[patch.material]
        if patch.material in (Material.PAINT_WHITE, Material.PAINT_YELLOW):
            bare = _GROUND_INTENSITY[Material.ASPHALT]
            value = round(bare + (1 - patch.wear) * (value - bare))
        rings = [
            np.rint(((ring - low) / _TEXEL_M - 0.5) * (1 << _SHIFT)).astype(np.int32)
            for ring in (patch.outline, *patch.holes)
        ]
        cv2.fillPoly(image, rings, (value,), lineType=cv2.LINE_8, shift=_SHIFT)
    index = np.floor((xy - low) / _TEXEL_M).astype(int)
    return image[index[:, 1], index[:, 0]].astype(np.float64)
