"""The nuScenes map expansion as `VectorLayers`; coordinates are those of the city [m]."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from gsmap_core.data.nuscenes_devkit import lane_polyline, open_map
from gsmap_core.data.vector_layers import Layer, VectorLayers

_log = logging.getLogger(__name__)
#: Distance of the points of centre lines [m].
_LANE_STEP_M = 0.5


@lru_cache(maxsize=4)
def load_layers(root: Path, location: str) -> VectorLayers:
    """Read the map of a city; the four last read stay in memory.

    Records that cannot be used (broken or invalid geometry) are left out and listed in `problems`.

    Args:
        root: folder of the dataset.
        location: e.g. `boston-seaport`.

    Raises:
        DataError: the map expansion is missing, broken or too old.
        EnvironmentProblemError: nuscenes-devkit is not installed.
    """
    city = open_map(root, location)
    problems: list[str] = []

    def lines(layer: str) -> list[shapely.LineString]:
        records = ((record['token'], record['line_token']) for record in getattr(city, layer))
        return _read(layer, records, city.extract_line, problems)

    def areas(layer: str) -> list[shapely.Polygon]:
        records = ((record['token'], record['polygon_token']) for record in getattr(city, layer))
        return _read(layer, records, city.extract_polygon, problems)

    centerlines, successors = _read_lanes(city)
    layers = VectorLayers(
        place=location,
        # The order of the layers is that of the elements in the published ground truth.
        dividers=Layer(lines('road_divider') + lines('lane_divider')),
        crossings=Layer(areas('ped_crossing')),
        roads=Layer(areas('road_segment') + areas('lane')),
        centerlines=centerlines,
        successors=successors,
        problems=tuple(problems),
    )
    if problems:
        _log.warning(
            "map '%s' of '%s': %d records cannot be used and are left out; the first: %s",
            location,
            root,
            len(problems),
            problems[0],
        )
    return layers


def _read(
    layer: str,
    records: Iterable[tuple[str, str]],
    extract: Callable[[str], shapely.Geometry],
    problems: list[str],
) -> list[Any]:
    found = []
    for token, geometry_token in records:
        reason = ''
        try:
            geometry = extract(geometry_token)
        except (KeyError, ValueError, shapely.errors.ShapelyError) as error:
            reason = f'{error!r}'
        else:
            if geometry.is_empty:
                continue  # the map has such records for lines without nodes
            if not np.isfinite(shapely.get_coordinates(geometry)).all():
                reason = 'vertices with NaN or infinity'
            elif geometry.geom_type == 'Polygon' and not geometry.is_valid:
                reason = shapely.is_valid_reason(geometry)
        if reason:
            problems.append(f"{layer} '{token}': {reason}")
        else:
            found.append(geometry)
    return found


def _read_lanes(city: Any) -> tuple[Layer, dict[str, tuple[str, ...]]]:
    names, lines = [], []
    for record in [*city.lane_connector, *city.lane]:
        points = np.array(lane_polyline(city, record['token'], _LANE_STEP_M))
        if len(points) >= 2:
            names.append(record['token'])
            lines.append(shapely.LineString(points[:, :2]))
    known = set(names)
    successors = {
        name: tuple(other for other in city.connectivity[name]['outgoing'] if other in known)
        for name in names
        if name in city.connectivity
    }
    return Layer(lines, names), successors
