"""How much of the ground truth of a synthetic drive its cameras see, and how much vehicles hide.

A line of sight runs from a camera to a point of a map element and is met, or not, by the solids
and trees that the renderer draws. The ground itself hides nothing here: towns are too flat for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from gsmap_core.data.synthetic.occluders import hit_solid, hit_tree, solid_numbers, tree_numbers
from gsmap_core.data.synthetic.planar import densified
from gsmap_core.data.synthetic.raycast import NEAR_M
from gsmap_core.data.synthetic.scene import Box, Town
from gsmap_core.data.synthetic.solids import Column, Look, solid_table, tree_table
from gsmap_core.data.synthetic.textures import leaf_tile
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import Camera, FloatArray, MapElement, PerceptionRange

if TYPE_CHECKING:
    from gsmap_core.data.synthetic.recording import SyntheticRecording

BoolArray = npt.NDArray[np.bool_]

#: Lines are looked at in pieces no longer than this [m].
PIECE_M = 0.5
#: What stands farther from the vehicle than this hides nothing in the range [m].
_REACH_M = 60.0
#: A line of sight is free if nothing is met before this share of it.
_ARRIVED = 1.0 - 1e-4
_VEHICLE_LOOKS = (Look.CAR_BODY, Look.CAR_CABIN, Look.VAN)


@dataclass(frozen=True)
class LinePieces:
    """Map elements cut into short pieces.

    Args:
        points: (P, 3) middle of every piece, map frame [m].
        lengths_m: (P,) [m].
        categories: (P,) category ids.
    """

    points: FloatArray
    lengths_m: FloatArray
    categories: npt.NDArray[np.int64]


def cut_into_pieces(elements: Sequence[MapElement], piece_m: float = PIECE_M) -> LinePieces:
    """Cut elements with heights, rings included, into pieces no longer than `piece_m` [m]."""
    points, lengths, categories = [np.zeros((0, 3))], [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    for element in elements:
        vertices = densified(element.vertices, piece_m, closed=element.closed)
        ends = np.roll(vertices, -1, axis=0) if element.closed else vertices[1:]
        starts = vertices[: len(ends)]
        points.append((starts + ends) / 2)
        lengths.append(np.linalg.norm(ends - starts, axis=1))
        categories.append(np.full(len(ends), element.category))
    return LinePieces(np.concatenate(points), np.concatenate(lengths), np.concatenate(categories))


class Sight:
    """Tells which points cameras in a town see.

    Args:
        town: what stands there.
    """

    def __init__(self, town: Town) -> None:
        self._town = town
        self._solids = solid_table(town.boxes, town.ground, 0.0)
        self._trees = tree_table(town.billboards, town.ground)
        self._leaves = torch.from_numpy(leaf_tile().reshape(-1).copy())

    def look(
        self,
        points: FloatArray,
        cameras: Sequence[Camera],
        map_from_cameras: FloatArray,
        times_s: Sequence[float],
        moving_boxes: Sequence[Box] = (),
    ) -> tuple[BoolArray, BoolArray]:
        """Look at points from all cameras.

        Args:
            points: (P, 3) map frame [m].
            cameras: N cameras.
            map_from_cameras: (N, 4, 4) pose of every camera when it is triggered.
            times_s: N drive times at which they are triggered [s].
            moving_boxes: vehicles in addition to the town's, moved to the times.

        Returns:
            (P,) whether any camera sees a point, and whether any would if there were no vehicles.
        """
        seen, would = np.zeros(len(points), dtype=bool), np.zeros(len(points), dtype=bool)
        for camera, pose, time_s in zip(cameras, map_from_cameras, times_s, strict=True):
            projection = project_points(camera, points, pose, NEAR_M)
            chosen = np.flatnonzero(projection.is_visible)
            if not len(chosen):
                continue
            moving = solid_table(moving_boxes, self._town.ground, time_s)
            solids = _near(np.concatenate([self._solids, moving]), pose[:2, 3])
            is_vehicle = np.isin(solids[:, Column.LOOK], _VEHICLE_LOOKS)
            sights = _Lines(points[chosen], projection.depth_m[chosen], pose[:3, 3])
            free = ~sights.hit(solids[~is_vehicle])
            free &= ~sights.hit_trees(_near(self._trees, pose[:2, 3]), self._leaves)
            would[chosen] |= free
            seen[chosen] |= free & ~sights.hit(solids[is_vehicle])
        return seen, would


class _Lines:
    """Lines of sight from one place.

    Args:
        points: (P, 3) where they end [m].
        depths_m: (P,) along the optical axis [m].
        origin: (3,) where they begin [m].
    """

    def __init__(self, points: FloatArray, depths_m: FloatArray, origin: FloatArray) -> None:
        self._origin = origin
        # Directions of depth 1, as the renderer has them.
        rays = torch.from_numpy((points - origin) / depths_m[:, None])
        self._axes = (rays[:, 0:1], rays[:, 1:2], rays[:, 2:3])
        self._end = torch.from_numpy(depths_m * _ARRIVED)[:, None]

    def hit(self, solids: FloatArray) -> BoolArray:
        """Return (P,) whether a solid is in the way."""
        numbers = torch.from_numpy(solid_numbers(solids, self._origin)).T[:, None]
        depth, is_hit = hit_solid(self._axes, list(numbers))
        return self._any(depth, is_hit)

    def hit_trees(self, trees: FloatArray, leaves: torch.Tensor) -> BoolArray:
        """Return (P,) whether a tree is in the way."""
        numbers = torch.from_numpy(tree_numbers(trees, self._origin)).T[:, None]
        depth, is_hit = hit_tree(self._axes, list(numbers), leaves)
        return self._any(depth, is_hit)

    def _any(self, depth: torch.Tensor, is_hit: torch.Tensor) -> BoolArray:
        in_the_way = is_hit & (depth > NEAR_M) & (depth < self._end)
        return np.asarray(in_the_way.any(dim=1).numpy())


def _near(table: FloatArray, centre_xy: FloatArray) -> FloatArray:
    """Return the rows around a place; X and Y are the first columns of every table."""
    distance = np.hypot(table[:, 0] - centre_xy[0], table[:, 1] - centre_xy[1])
    # A long building reaches farther than its middle.
    return table[distance < _REACH_M + 12.0]


@dataclass(frozen=True)
class DriveVisibility:
    """What vehicles hide over a drive; shares of line length, summed over the frames.

    Args:
        frames: camera sets.
        in_range_m: mean length of the ground truth in the range per frame [m].
        viewed_share: of it, what some camera would see without vehicles.
        hidden_share: of what would be seen, what vehicles hide from every camera.
        seen_before_share: of what is hidden, what an earlier frame of the drive saw.
        seen_ever_share: of what is hidden, what any frame of the drive saw.
        hidden_by_frame: `hidden_share` of every frame; 0 where nothing would be seen.
    """

    frames: int
    in_range_m: float
    viewed_share: float
    hidden_share: float
    seen_before_share: float
    seen_ever_share: float
    hidden_by_frame: tuple[float, ...]


def measure_visibility(
    recording: SyntheticRecording, perception_range: PerceptionRange | None = None
) -> DriveVisibility:
    """Measure how much of the ground truth the cameras of a drive see; nothing is rendered.

    A piece counts as seen by a frame only while it is inside the range: what is seen from
    farther away never reaches a map of that size.

    Args:
        recording: the drive.
        perception_range: extent of the ground truth, ego frame; None: the recording's.
    """
    area = perception_range or recording.range
    pieces = cut_into_pieces(recording.town.elements)
    shape = (len(recording), len(pieces.points))
    inside, seen, would = (np.zeros(shape, dtype=bool) for _ in range(3))
    sight = Sight(recording.town)
    for index in range(len(recording)):
        base = recording.trajectory.pose(recording.frame_stamp_ns(index))
        local = transform_points(invert(base), pieces.points)
        inside[index] = (
            (local[:, 0] >= area.x_min)
            & (local[:, 0] <= area.x_max)
            & (local[:, 1] >= area.y_min)
            & (local[:, 1] <= area.y_max)
        )
        chosen = np.flatnonzero(inside[index])
        poses, times = recording.camera_moments(index)
        seen[index, chosen], would[index, chosen] = sight.look(
            pieces.points[chosen],
            recording.rig.cameras,
            poses,
            times,
            recording.moving_boxes(index),
        )
    return _summary(pieces.lengths_m, inside, seen, would)


def _summary(
    lengths: FloatArray, inside: BoolArray, seen: BoolArray, would: BoolArray
) -> DriveVisibility:
    """Sum up (T, P) what is in the range, seen, and seen if there were no vehicles."""
    hidden = would & ~seen
    before = np.zeros_like(seen)
    before[1:] = np.logical_or.accumulate(seen, axis=0)[:-1]
    by_frame = (hidden @ lengths) / np.maximum(would @ lengths, 1e-9)

    def length(mask: BoolArray) -> float:
        return float((mask @ lengths).sum())

    def share(part: BoolArray, whole: BoolArray) -> float:
        return length(part) / max(length(whole), 1e-9)

    return DriveVisibility(
        frames=len(inside),
        in_range_m=length(inside) / len(inside),
        viewed_share=share(would, inside),
        hidden_share=share(hidden, would),
        seen_before_share=share(hidden & before, hidden),
        seen_ever_share=share(hidden & seen.any(axis=0), hidden),
        hidden_by_frame=tuple(float(value) for value in by_frame),
    )
