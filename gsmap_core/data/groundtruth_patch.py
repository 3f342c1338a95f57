"""The rectangle of the map plane that ground truth is cut to, and the cutting of map layers.

Geometries are Shapely's: in the plane of the map on the way in, in the axes of the reference frame
on the way out. What the pieces mean (dividers, crossings, boundaries) is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

from gsmap_core.geometry.transforms import yaw_of
from gsmap_core.structures import FloatArray, PerceptionRange


@dataclass(frozen=True)
class Patch:
    """A rectangle around a reference frame (vehicle or LiDAR), turned by its heading.

    Args:
        origin_xy: (x, y) of the reference frame in the map [m].
        yaw_rad: heading of its x axis in the map [rad].
        area: what to keep along its axes [m].
    """

    origin_xy: tuple[float, float]
    yaw_rad: float
    area: PerceptionRange

    @classmethod
    def around(cls, map_from_reference: npt.ArrayLike, area: PerceptionRange) -> Patch:
        """Return the patch at a pose; only position and heading matter.

        Args:
            map_from_reference: (4, 4) pose of the reference frame.
            area: what to keep along its axes [m].
        """
        pose = np.asarray(map_from_reference, dtype=np.float64)
        return cls((float(pose[0, 3]), float(pose[1, 3])), yaw_of(pose), area)

    def enlarged(self, margin_m: float) -> Patch:
        """Return the patch with every border moved outwards [m]; negative: inwards."""
        area = self.area
        grown = PerceptionRange(
            area.x_min - margin_m,
            area.x_max + margin_m,
            area.y_min - margin_m,
            area.y_max + margin_m,
        )
        return replace(self, area=grown)

    @cached_property
    def local_box(self) -> shapely.Polygon:
        """The rectangle in the reference frame."""
        area = self.area
        return shapely.box(area.x_min, area.y_min, area.x_max, area.y_max)

    @cached_property
    def map_polygon(self) -> shapely.Polygon:
        """The rectangle in the map."""
        corners = shapely.get_coordinates(self.local_box)
        return shapely.Polygon(corners @ self._rotation.T + self.origin_xy)

    def to_local(self, geometry: shapely.Geometry) -> shapely.Geometry:
        """Express a geometry of the map in the reference frame; heights stay as they are."""
        return shapely.transform(
            geometry,
            lambda points: np.column_stack(
                [(points[:, :2] - self.origin_xy) @ self._rotation, points[:, 2:]]
            ),
            include_z=bool(shapely.has_z(geometry)),
        )

    @cached_property
    def _rotation(self) -> FloatArray:
        cosine, sine = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        return np.array([[cosine, -sine], [sine, cosine]])


def clip_lines(lines: Iterable[shapely.LineString], patch: Patch) -> list[shapely.LineString]:
    """Cut lines of the map to a patch and express the pieces in its reference frame.

    Returns:
        The pieces in the order of the lines and along them; points where a line only touches the
        border are left out. Pieces are not merged.
    """
    pieces = []
    for line in lines:
        inside = shapely.intersection(line, patch.map_polygon)
        pieces += [patch.to_local(piece) for piece in line_parts(inside)]
    return pieces


def clip_polygons(polygons: Iterable[shapely.Polygon], patch: Patch) -> list[shapely.Polygon]:
    """Cut areas of the map to a patch and express the pieces in its reference frame.

    Returns:
        Polygons with their holes, in the order of the areas.
    """
    pieces = []
    for polygon in polygons:
        inside = shapely.intersection(polygon, patch.map_polygon)
        pieces += [patch.to_local(piece) for piece in polygon_parts(inside)]
    return pieces


def line_parts(geometry: shapely.Geometry) -> list[shapely.LineString]:
    """Return the lines inside any geometry, points and areas left out."""
    found = []
    for part in shapely.get_parts(geometry):
        if part.is_empty:
            continue
        if part.geom_type in ('LineString', 'LinearRing'):
            found.append(shapely.LineString(part))
        elif shapely.get_num_geometries(part) > 1:
            found += line_parts(part)
    return found


def polygon_parts(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    """Return the polygons inside any geometry, points and lines left out."""
    found = []
    for part in shapely.get_parts(geometry):
        if part.is_empty:
            continue
        if part.geom_type == 'Polygon':
            found.append(part)
        elif shapely.get_num_geometries(part) > 1:
            found += polygon_parts(part)
    return found
