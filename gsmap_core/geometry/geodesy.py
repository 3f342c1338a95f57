"""Metres of the map frame to latitude and longitude: the tangent plane of a place on WGS 84.

The map frame is east-north-up (REP 103) at its origin. The way over geocentric coordinates is
exact; it is what GeographicLib calls LocalCartesian and PROJ topocentric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gsmap_core.errors import ConfigError
from gsmap_core.structures import FloatArray

#: Semi-major axis [m] and flattening of WGS 84.
_A, _F = 6_378_137.0, 1.0 / 298.257223563
_E2 = _F * (2.0 - _F)
#: Steps of the latitude's fixed point; each gains two and a half digits.
_STEPS = 8


@dataclass(frozen=True)
class MapOrigin:
    """Where the origin of the map frame lies on the earth.

    Args:
        latitude_deg: WGS 84, -89.9 to 89.9 (at the poles east and north have no meaning).
        longitude_deg: WGS 84, -180 to 180.
        altitude_m: above the ellipsoid [m].

    Raises:
        ConfigError: a number is out of range.
    """

    latitude_deg: float
    longitude_deg: float
    altitude_m: float = 0.0

    def __post_init__(self) -> None:
        """Validate."""
        for name, value, limit in (
            ('latitude', self.latitude_deg, 89.9),
            ('longitude', self.longitude_deg, 180.0),
            ('altitude', self.altitude_m, 1e5),
        ):
            if not abs(value) <= limit:
                raise ConfigError(
                    f'origin of the map: {name} is {value}; expected -{limit:g} to {limit:g}'
                )


def geographic_from_map(points: npt.ArrayLike, origin: MapOrigin) -> FloatArray:
    """Return latitude [deg], longitude [deg] and altitude [m] of points of the map frame.

    Args:
        points: (P, 3) east, north, up of the origin [m].
        origin: of the map frame.
    """
    enu = np.asarray(points, dtype=np.float64)
    return _geographic(_geocentric_origin(origin) + enu @ _east_north_up(origin))


def map_from_geographic(places: npt.ArrayLike, origin: MapOrigin) -> FloatArray:
    """Return (P, 3) metres of the map frame for (P, 3) latitude, longitude and altitude."""
    latitude, longitude, altitude = np.asarray(places, dtype=np.float64).T
    offset = _geocentric(latitude, longitude, altitude) - _geocentric_origin(origin)
    return np.asarray(offset @ _east_north_up(origin).T)


def _geocentric_origin(origin: MapOrigin) -> FloatArray:
    values = (origin.latitude_deg, origin.longitude_deg, origin.altitude_m)
    return _geocentric(*(np.array([value]) for value in values))


def _east_north_up(origin: MapOrigin) -> FloatArray:
    """Return (3, 3), the directions east, north and up of a place as rows."""
    phi, lam = math.radians(origin.latitude_deg), math.radians(origin.longitude_deg)
    sp, cp, sl, cl = math.sin(phi), math.cos(phi), math.sin(lam), math.cos(lam)
    return np.array([[-sl, cl, 0.0], [-sp * cl, -sp * sl, cp], [cp * cl, cp * sl, sp]])


def _geocentric(latitude_deg: FloatArray, longitude_deg: FloatArray, up: FloatArray) -> FloatArray:
    phi, lam = np.radians(latitude_deg), np.radians(longitude_deg)
    radius = _A / np.sqrt(1.0 - _E2 * np.sin(phi) ** 2)
    across = (radius + up) * np.cos(phi)
    return np.stack(
        [across * np.cos(lam), across * np.sin(lam), (radius * (1.0 - _E2) + up) * np.sin(phi)],
        axis=-1,
    )


def _geographic(xyz: FloatArray) -> FloatArray:
    x, y, z = xyz.T
    across = np.hypot(x, y)
    phi = np.arctan2(z, across * (1.0 - _E2))
    for _ in range(_STEPS):
        radius = _A / np.sqrt(1.0 - _E2 * np.sin(phi) ** 2)
        phi = np.arctan2(z + _E2 * radius * np.sin(phi), across)
    radius = _A / np.sqrt(1.0 - _E2 * np.sin(phi) ** 2)
    # Away from the poles: `MapOrigin` keeps them out.
    altitude = across / np.cos(phi) - radius
    return np.stack([np.degrees(phi), np.degrees(np.arctan2(y, x)), altitude], axis=-1)
