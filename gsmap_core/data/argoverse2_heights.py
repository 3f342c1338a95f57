"""Which height the vertices of Argoverse 2 ground truth get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gsmap_core.data.argoverse2_map import GroundHeights
from gsmap_core.errors import ConfigError
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import FloatArray, MapElement

#: Planar elements, the heights of the vector map, or those of the ground height raster.
HEIGHTS: tuple[str, ...] = ('none', 'map', 'ground')


def with_heights(
    elements: Sequence[MapElement],
    heights: str,
    ground: GroundHeights | None,
    city_from_ego: FloatArray,
) -> tuple[MapElement, ...]:
    """Return elements with the wanted heights.

    Args:
        elements: in the ego frame, with the heights of the map [m].
        heights: one of `HEIGHTS`; where the raster knows none, the height of the map stays.
        ground: the raster, or None.
        city_from_ego: (4, 4) pose.

    Raises:
        ConfigError: heights of the ground are wanted and there is no raster.
    """
    if heights == 'none':
        return tuple(replace(item, vertices=item.vertices[:, :2]) for item in elements)
    if heights == 'map':
        return tuple(elements)
    if ground is None:
        raise ConfigError(
            "heights 'ground': the log has no ground height raster "
            "(map/*_ground_height_surface*.npy); expected one, or heights 'map' or 'none'"
        )
    ego_from_city = invert(city_from_ego)
    result = []
    for item in elements:
        points = transform_points(city_from_ego, item.vertices)
        found = ground.at(points)
        points[:, 2] = np.where(np.isnan(found), points[:, 2], found)
        result.append(replace(item, vertices=transform_points(ego_from_city, points)))
    return tuple(result)
