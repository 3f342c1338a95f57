"""A street whose map is known, and local maps of it with noise whose size is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from gsmap_core.geometry.transforms import invert, make_transform, rotation_from_rpy
from gsmap_core.structures import FloatArray, MapElement, PerceptionRange, VectorMap

RANGE = PerceptionRange(-30.0, 30.0, -15.0, 15.0)
STAMP_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class NoisyStreet:
    """A straight street along x: kerbs at y = -6 and 6, a divider at 0, a crossing at x = 60.

    Args:
        length_m: of the street.
        sigma_m: of the noise across a line, the same for all vertices of a line in a frame.
        step_m: between two frames.
        yaw_rad: the whole street is turned by this angle.
        seed: of the noise.
        covariance: whether elements say how noisy they are.
    """

    length_m: float = 200.0
    sigma_m: float = 0.2
    step_m: float = 2.0
    yaw_rad: float = 0.3
    seed: int = 0
    covariance: bool = True

    @property
    def map_from_street(self) -> FloatArray:
        """(4, 4) the street's own frame in the map frame."""
        return make_transform(rotation_from_rpy(0.0, 0.0, self.yaw_rad), [12.0, -7.0, 0.0])

    @property
    def lines(self) -> list[tuple[int, FloatArray]]:
        """Category and (V, 2) vertices of the lines, in the frame of the street."""
        x = np.arange(-40.0, self.length_m + 40.1, 2.0)
        return [(c, np.stack([x, np.full(len(x), y)], 1)) for c, y in ((2, -6), (0, 0), (2, 6))]

    @property
    def crossing(self) -> FloatArray:
        """(4, 2) corners, in the frame of the street."""
        return np.array([[60.0, -5.0], [64.0, -5.0], [64.0, 5.0], [60.0, 5.0]])

    def truth(self) -> VectorMap:
        """The true map, in the map frame."""
        elements = [MapElement(c, self._placed(line)) for c, line in self.lines]
        elements.append(MapElement(1, self._placed(self.crossing), closed=True))
        return VectorMap(
            tuple(elements), range=PerceptionRange(-1e3, 1e3, -1e3, 1e3), reference='map'
        )

    def _placed(self, xy: FloatArray) -> FloatArray:
        turn = self.map_from_street
        return xy @ turn[:2, :2].T + turn[:2, 3]

    def pose(self, x_m: float) -> FloatArray:
        """Ego pose in the map frame, the vehicle at (x, -3) of the street."""
        return self.map_from_street @ make_transform(np.eye(3), [x_m, -3.0, 0.0])

    def frames(self) -> Iterator[VectorMap]:
        """Local maps from one end of the street to the other."""
        for index, x_m in enumerate(np.arange(0.0, self.length_m, self.step_m)):
            yield self.frame(float(x_m), index)

    def frame(self, x_m: float, index: int) -> VectorMap:
        """The local map of one place; the noise depends on the index."""
        random = np.random.default_rng([self.seed, index])
        pose = self.pose(x_m)
        base_from_street = invert(pose) @ self.map_from_street
        view = shapely.box(RANGE.x_min, RANGE.y_min, RANGE.x_max, RANGE.y_max)
        elements = []
        for category, line in self.lines:
            local = line @ base_from_street[:2, :2].T + base_from_street[:2, 3]
            inside = shapely.intersection(shapely.LineString(local), view)
            if inside.is_empty:
                continue
            xy = shapely.get_coordinates(inside)
            elements.append(self._seen(category, xy, random, closed=False))
        corners = self.crossing @ base_from_street[:2, :2].T + base_from_street[:2, 3]
        area = shapely.intersection(shapely.Polygon(corners), view)
        if area.area > 1.0:
            ring = shapely.get_coordinates(area)[:-1]
            elements.append(self._seen(1, ring, random, closed=True))
        return VectorMap(
            tuple(elements),
            stamp_ns=STAMP_NS + index * 200_000_000,
            range=RANGE,
            map_from_base=pose,
        )

    def _seen(
        self, category: int, xy: FloatArray, random: np.random.Generator, closed: bool
    ) -> MapElement:
        shift = np.array([0.0, self.sigma_m * random.standard_normal()])
        variance = self.sigma_m**2
        covariance = np.tile([variance, 0.0, variance], (len(xy), 1)) if self.covariance else None
        return MapElement(category, xy + shift, closed, 0.9, covariance)


def offset_from(line_y: float, street: NoisyStreet, vertices: FloatArray) -> FloatArray:
    """Return how far vertices of the map frame lie beside the line y = const of a street [m]."""
    turn = invert(street.map_from_street)
    local = vertices[:, :2] @ turn[:2, :2].T + turn[:2, 3]
    return local[:, 1] - line_y
