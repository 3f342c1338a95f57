"""Metres to latitude and longitude, against published numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gsmap_core.errors import ConfigError
from gsmap_core.geometry.geodesy import MapOrigin, geographic_from_map, map_from_geographic


def test_the_example_of_the_epsg_guidance_note() -> None:
    """IOGP guidance note 7-2, method 9837 (geographic to topocentric), its worked example."""
    place = [[53 + 48 / 60 + 33.82 / 3600, 2 + 7 / 60 + 46.38 / 3600, 73.0]]
    result = map_from_geographic(place, MapOrigin(55.0, 5.0, 200.0))
    np.testing.assert_allclose(result, [[-189_013.869, -128_642.040, -4_220.171]], atol=1e-3)


@pytest.mark.parametrize('latitude', [-80.0, -33.9, 0.0, 48.1, 71.0])
def test_there_and_back(latitude: float) -> None:
    origin = MapOrigin(latitude, 179.99, 520.0)
    random = np.random.default_rng(1)
    points = random.uniform(-20_000, 20_000, (50, 3)) * [1, 1, 0.01]
    back = map_from_geographic(geographic_from_map(points, origin), origin)
    np.testing.assert_allclose(back, points, atol=1e-6)


def test_axes_are_east_and_north() -> None:
    origin = MapOrigin(48.0, 11.0)
    east, north = geographic_from_map([[1000.0, 0, 0], [0, 1000.0, 0]], origin)
    # A degree of latitude is 111.2 km there, one of longitude 74.6 km.
    assert east[1] - 11.0 == pytest.approx(1 / 74.6, rel=1e-3) and abs(east[0] - 48.0) < 1e-5
    assert north[0] - 48.0 == pytest.approx(1 / 111.2, rel=1e-3) and abs(north[1] - 11.0) < 1e-9


@pytest.mark.parametrize('values', [(90.0, 0.0), (0.0, 181.0), (float('nan'), 0.0), (0, 0, 1e9)])
def test_impossible_origins_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match='origin of the map'):
        MapOrigin(*values)
