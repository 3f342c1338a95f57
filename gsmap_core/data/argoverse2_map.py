"""The vector map of an Argoverse 2 log as plain arrays and geometries, without the devkit.

Everything is in the city frame of the log [m]. What becomes a map element is decided by
`groundtruth_argoverse2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

from gsmap_core.structures import FloatArray


@dataclass(frozen=True)
class LaneSegment:
    """One piece of one lane.

    Args:
        id: number inside the log's map.
        left: (P, 3) left boundary in driving direction [m].
        right: (P, 3) right boundary in driving direction [m].
        centerline: (P, 3) middle, in driving direction [m].
        left_mark: type of the painted line, e.g. `SOLID_WHITE`, `NONE` or `UNKNOWN`.
        right_mark: the same on the right.
        left_neighbor: lane to the left, which may be outside the map, or None.
        right_neighbor: lane to the right, which may be outside the map, or None.
        predecessors: lanes that lead here, some of them possibly outside the map.
        successors: lanes that this one leads to, some of them possibly outside the map.
        is_intersection: whether it lies in an intersection.
    """

    id: int
    left: FloatArray
    right: FloatArray
    centerline: FloatArray
    left_mark: str = 'NONE'
    right_mark: str = 'NONE'
    left_neighbor: int | None = None
    right_neighbor: int | None = None
    predecessors: tuple[int, ...] = ()
    successors: tuple[int, ...] = ()
    is_intersection: bool = False

    @cached_property
    def polygon(self) -> shapely.Polygon:
        """The area between the two boundaries."""
        return shapely.Polygon(np.concatenate([self.right, self.left[::-1]]))


@dataclass(frozen=True)
class GroundHeights:
    """Ground height on a grid over the city plane.

    Args:
        heights_m: (H, W) heights in the city frame, NaN where unknown [m].
        grid_from_city: (3, 3) similarity; (x, y) in the city to (column, row).
    """

    heights_m: FloatArray
    grid_from_city: FloatArray

    def at(self, points_xy: npt.ArrayLike) -> FloatArray:
        """Return the (P,) height below (P, 2) points of the city plane [m]; NaN where unknown."""
        points = np.asarray(points_xy, dtype=np.float64)[:, :2]
        cells = points @ self.grid_from_city[:2, :2].T + self.grid_from_city[:2, 2]
        column, row = np.floor(cells).astype(np.int64).T
        height, width = self.heights_m.shape
        is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        result = np.full(len(points), np.nan)
        result[is_inside] = self.heights_m[row[is_inside], column[is_inside]]
        return result


@dataclass(frozen=True)
class CityMap:
    """The map around one log.

    Args:
        lanes: lane segments by id, in the order of the file.
        crossings: (5, 3) outlines, the first vertex repeated [m].
        drivable_areas: (P, 3) outlines, the first vertex repeated [m].
        ground: heights of the ground, or None where the raster is missing.
    """

    lanes: Mapping[int, LaneSegment]
    crossings: tuple[FloatArray, ...]
    drivable_areas: tuple[FloatArray, ...]
    ground: GroundHeights | None = field(default=None, compare=False)

    @cached_property
    def lane_list(self) -> list[LaneSegment]:
        """Lanes whose outline is a valid polygon, in the order of the file."""
        return [lane for lane in self.lanes.values() if lane.polygon.is_valid]

    @cached_property
    def area_polygons(self) -> list[shapely.Polygon]:
        """Drivable areas; outlines that cross themselves are left out, as the protocols do."""
        return _valid_polygons(self.drivable_areas)

    @cached_property
    def crossing_polygons(self) -> list[shapely.Polygon]:
        """Crossings; outlines that cross themselves are left out, as the protocols do."""
        return _valid_polygons(self.crossings)

    def lanes_touching(self, area: shapely.Polygon) -> list[LaneSegment]:
        """Return the lanes that touch an area of the city plane, in the order of the file."""
        touching = shapely.intersects(self._lane_polygons, area)
        return [lane for lane, is_near in zip(self.lane_list, touching, strict=True) if is_near]

    def extent(self) -> tuple[float, float, float, float]:
        """Return x_min, y_min, x_max, y_max of everything in the map [m]; zeros if it is empty."""
        parts = [*self.crossings, *self.drivable_areas]
        parts += [line for lane in self.lanes.values() for line in (lane.left, lane.right)]
        if not parts:
            return 0.0, 0.0, 0.0, 0.0
        points = np.concatenate([part[:, :2] for part in parts])
        low, high = points.min(axis=0), points.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @cached_property
    def _lane_polygons(self) -> npt.NDArray[np.object_]:
        polygons = np.array([lane.polygon for lane in self.lane_list], dtype=object)
        shapely.prepare(polygons)
        return polygons


def _valid_polygons(outlines: tuple[FloatArray, ...]) -> list[shapely.Polygon]:
    polygons = [shapely.Polygon(outline) for outline in outlines if len(outline) >= 4]
    return [polygon for polygon in polygons if polygon.is_valid]
