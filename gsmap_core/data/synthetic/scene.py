"""The plain description of a town that the generator writes and the renderer reads.

Everything is in the town frame (x east, y north, z up) [m]. The ground is a smooth height field;
whatever lies on it (asphalt, paint, kerbs) is a planar polygon draped over it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from gsmap_core.structures import FloatArray, MapElement


class Material(IntEnum):
    """What a ground patch is made of; the renderer gives each a texture."""

    GRASS = 0
    SIDEWALK = 1
    ASPHALT = 2
    PAINT_WHITE = 3
    PAINT_YELLOW = 4
    KERB = 5
    ASPHALT_PATCH = 6


class BoxKind(IntEnum):
    """What a box shows; decides its texture."""

    BUILDING = 0
    VEHICLE = 1
    PLAIN = 2


@dataclass(frozen=True)
class GroundPatch:
    """A planar area on the ground; later patches of a town lie on top of earlier ones.

    Args:
        outline: (P, 2) ring, first vertex not repeated [m].
        material: what it is made of.
        holes: rings left out, same form.
        wear: 0 (fresh) to 1 (gone); for paint the share of it that traffic has taken off.
    """

    outline: FloatArray
    material: Material
    holes: tuple[FloatArray, ...] = ()
    wear: float = 0.0


@dataclass(frozen=True)
class HeightField:
    """z = sum of amplitude_m * sin(kx * x + ky * y + phase), smooth and analytic.

    Args:
        amplitude_m: (S,) [m].
        wave_xy: (S, 2) wave vector [rad/m].
        phase_rad: (S,) [rad].
    """

    amplitude_m: FloatArray = field(default_factory=lambda: np.zeros(0))
    wave_xy: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    phase_rad: FloatArray = field(default_factory=lambda: np.zeros(0))

    def height(self, xy: FloatArray) -> FloatArray:
        """Return (...,) heights [m] of (..., 2) points."""
        points = np.asarray(xy, dtype=np.float64)
        return np.sin(points @ self.wave_xy.T + self.phase_rad) @ self.amplitude_m

    def gradient(self, xy: FloatArray) -> FloatArray:
        """Return (..., 2) slopes dz/dx, dz/dy of (..., 2) points."""
        points = np.asarray(xy, dtype=np.float64)
        return (np.cos(points @ self.wave_xy.T + self.phase_rad) * self.amplitude_m) @ self.wave_xy


@dataclass(frozen=True)
class Box:
    """A solid box standing on the ground, upright.

    Args:
        centre_xy: (2,) [m].
        size_m: length (along its heading), width, height [m].
        yaw_rad: heading.
        kind: texture.
        colour_rgb: base colour, 0 to 1.
        seed: for its texture.
        velocity_xy: (2,) [m/s]; the box is at centre_xy + velocity_xy * t at drive time t [s].
        base_z_m: height of its foot above the ground [m].
    """

    centre_xy: FloatArray
    size_m: tuple[float, float, float]
    yaw_rad: float
    kind: BoxKind
    colour_rgb: tuple[float, float, float]
    seed: int = 0
    velocity_xy: tuple[float, float] = (0.0, 0.0)
    base_z_m: float = 0.0


@dataclass(frozen=True)
class Billboard:
    """A tree: a trunk and an elliptic crown that always face the camera.

    Args:
        centre_xy: (2,) foot [m].
        trunk_height_m: height at which the crown begins [m].
        trunk_width_m: [m].
        crown_width_m: [m].
        crown_height_m: [m].
        colour_rgb: crown colour, 0 to 1.
        seed: for its texture.
    """

    centre_xy: FloatArray
    trunk_height_m: float
    trunk_width_m: float
    crown_width_m: float
    crown_height_m: float
    colour_rgb: tuple[float, float, float]
    seed: int = 0


@dataclass(frozen=True)
class Conditions:
    """Light and weather of one drive.

    Args:
        name: e.g. `noon`, `overcast`, `dusk`, `wet`, `night`.
        sun_azimuth_rad: direction the light comes from, town frame.
        sun_elevation_rad: above the horizon.
        sun_strength: 0 (overcast, no shadows) to 1.
        ambient: sky light, 0 to 1.
        tint_rgb: colour of the light.
        sky_rgb: colour of the sky at the zenith, 0 to 1.
        wetness: 0 dry to 1 wet (darker, mirroring asphalt).
        haze_per_m: extinction coefficient of the air [1/m].
        exposure_jitter: standard deviation of the slow, per-camera exposure walk (log scale).
        noise: standard deviation of the sensor noise, 0 to 1 scale.
        headlights: whether the ego vehicle lights the road (night).
    """

    name: str = 'noon'
    sun_azimuth_rad: float = 0.8
    sun_elevation_rad: float = 0.9
    sun_strength: float = 0.7
    ambient: float = 0.5
    tint_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sky_rgb: tuple[float, float, float] = (0.45, 0.65, 0.95)
    wetness: float = 0.0
    haze_per_m: float = 0.002
    exposure_jitter: float = 0.03
    noise: float = 0.01
    headlights: bool = False


@dataclass(frozen=True)
class Town:
    """A whole town.

    Args:
        name: unique, e.g. `town-0007`.
        seed: what it was generated from.
        extent: (4,) x_min, y_min, x_max, y_max [m].
        ground: height field.
        patches: painted areas, bottom first; everything else is grass.
        boxes: static boxes (buildings, parked vehicles).
        billboards: trees.
        elements: ground-truth map elements in the town frame, 3D vertices on the ground.
        lanes: drivable lane centre lines as (P, 2) arrays, in driving direction, with their
            successors in `lane_successors`.
        lane_successors: for each lane the indices of the lanes that continue it.
        lane_streets: for each lane +k if it follows street k (from 1), -k if it runs against
            it, 0 inside a junction; the
            lanes of one street and direction stand together, innermost first, and have equally
            many points.
    """

    name: str
    seed: int
    extent: FloatArray
    ground: HeightField
    patches: tuple[GroundPatch, ...]
    boxes: tuple[Box, ...]
    billboards: tuple[Billboard, ...]
    elements: tuple[MapElement, ...]
    lanes: tuple[FloatArray, ...]
    lane_successors: tuple[tuple[int, ...], ...]
    lane_streets: tuple[int, ...] = ()
