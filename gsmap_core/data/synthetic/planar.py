"""Small planar geometry for the town: curves by arc length, offsets, rings in a canonical form."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from gsmap_core.geometry.polylines import cumulative_length
from gsmap_core.structures import FloatArray


@dataclass(frozen=True)
class Curve:
    """A planar curve that answers by arc length (station) and lateral offset.

    Args:
        points: (P, 2) closely spaced points [m].
    """

    points: FloatArray
    stations: FloatArray = field(init=False)
    tangents: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Precompute arc length and unit tangents."""
        tangents = np.gradient(self.points, axis=0)
        # One-sided ends would tilt the first cross-section of a curve by half a step.
        tangents[0] = self.points[1] - self.points[0]
        tangents[-1] = self.points[-1] - self.points[-2]
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
        object.__setattr__(self, 'stations', cumulative_length(self.points))
        object.__setattr__(self, 'tangents', tangents)

    @property
    def length_m(self) -> float:
        """Arc length [m]."""
        return float(self.stations[-1])

    def tangent(self, station: FloatArray | float) -> FloatArray:
        """Return (..., 2) unit tangents."""
        value = np.stack(
            [np.interp(station, self.stations, self.tangents[:, d]) for d in range(2)], axis=-1
        )
        return np.asarray(value / np.linalg.norm(value, axis=-1, keepdims=True))

    def at(self, station: FloatArray | float, offset: FloatArray | float = 0.0) -> FloatArray:
        """Return (..., 2) points at a station, moved to the left by `offset` [m]."""
        base = np.stack(
            [np.interp(station, self.stations, self.points[:, d]) for d in range(2)], axis=-1
        )
        return base + left_normal(self.tangent(station)) * np.asarray(offset)[..., None]

    def stretch(self, begin: float, end: float, step: float = 1.0) -> FloatArray:
        """Return stations from begin to end, both included, at most `step` apart [m]."""
        return np.linspace(begin, end, max(int(np.ceil((end - begin) / step)), 1) + 1)

    def min_radius_m(self) -> float:
        """Return the smallest radius of curvature [m]."""
        return float(1.0 / max(np.abs(curvature(self.points)).max(), 1e-9))


def left_normal(direction: FloatArray) -> FloatArray:
    """Return (..., 2) directions turned left by 90 degrees."""
    return np.stack([-direction[..., 1], direction[..., 0]], axis=-1)


def curvature(points: FloatArray) -> FloatArray:
    """Return (P,) signed curvature [1/m] of closely spaced points, left positive."""
    first = np.gradient(points, axis=0)
    second = np.gradient(first, axis=0)
    speed = np.linalg.norm(first, axis=1) ** 3
    return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / np.maximum(speed, 1e-12)


def resample(points: FloatArray, step: float) -> FloatArray:
    """Return the polyline at even spacing close to `step` [m], both ends kept."""
    arc = cumulative_length(points)
    targets = np.linspace(0.0, arc[-1], max(int(round(arc[-1] / step)), 1) + 1)
    return np.stack([np.interp(targets, arc, points[:, d]) for d in range(2)], axis=1)


def resample_smooth(points: FloatArray, step: float) -> FloatArray:
    """Return a smooth curve at even spacing close to `step` [m], no kinks as of `resample`."""
    arc = cumulative_length(points)
    targets = np.linspace(0.0, arc[-1], max(int(round(arc[-1] / step)), 1) + 1)
    return np.asarray(CubicSpline(arc, points, axis=0)(targets))


def smooth(points: FloatArray, sigma_samples: float) -> FloatArray:
    """Smooth evenly spaced points with a Gaussian; both ends stay where they are."""
    pad = min(int(np.ceil(4 * sigma_samples)), len(points) - 1)
    before = 2 * points[0] - points[pad:0:-1]
    after = 2 * points[-1] - points[-2 : -pad - 2 : -1]
    padded = np.concatenate([before, points, after])
    result = gaussian_filter1d(padded, sigma_samples, axis=0, mode='nearest')
    return np.asarray(result[pad : pad + len(points)])


def strip(curve: Curve, stations: FloatArray, right: float, left: float) -> FloatArray:
    """Return the counter-clockwise ring between two offsets of a curve (`right` < `left`)."""
    return np.concatenate([curve.at(stations, right), curve.at(stations[::-1], left)])


def simplified(points: FloatArray, tolerance: float) -> FloatArray:
    """Drop points of an open polyline that lie within `tolerance` [m] of the rest."""
    return np.asarray(shapely.LineString(points).simplify(tolerance).coords)[:, :2]


def densified(points: FloatArray, spacing: float, closed: bool = False) -> FloatArray:
    """Insert points so that no edge is longer than `spacing` [m]; the given points stay."""
    loop = np.concatenate([points, points[:1]]) if closed else points
    pieces = []
    for start, end in zip(loop[:-1], loop[1:], strict=True):
        count = max(int(np.ceil(np.linalg.norm(end - start) / spacing - 1e-9)), 1)
        pieces.append(start + (end - start) * (np.arange(count) / count)[:, None])
    if not closed:
        pieces.append(loop[-1:])
    return np.concatenate(pieces)


def canonical_ring(coordinates: FloatArray) -> FloatArray:
    """Return a ring, last vertex not repeated, from its lexicographically smallest vertex on."""
    ring = np.asarray(coordinates, dtype=np.float64)[:, :2]
    if np.array_equal(ring[0], ring[-1]):
        ring = ring[:-1]
    start = np.lexsort((ring[:, 1], ring[:, 0]))[0]
    return np.roll(ring, -start, axis=0)


def polygon_rings(polygon: shapely.Polygon) -> tuple[FloatArray, tuple[FloatArray, ...]]:
    """Return exterior (counter-clockwise) and holes (clockwise) in canonical form and order."""
    oriented = shapely.geometry.polygon.orient(polygon)
    holes = [canonical_ring(np.asarray(ring.coords)) for ring in oriented.interiors]
    holes.sort(key=lambda ring: (round(ring[0, 0], 3), round(ring[0, 1], 3)))
    return canonical_ring(np.asarray(oriented.exterior.coords)), tuple(holes)


def polygons_of(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    """Return the polygons of a geometry, by their lower left corner."""
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type == 'Polygon']
    return sorted(parts, key=lambda part: tuple(round(value, 3) for value in part.bounds))


def line_on_ground(points: FloatArray, spacing: float, tolerance: float = 0.015) -> FloatArray:
    """Return an open line, sparse on straights but with no edge longer than `spacing` [m]."""
    return densified(simplified(points, tolerance), spacing)
