"""Reads map annotations of one's own: GeoJSON whose coordinates are metres of a frame.

GeoJSON by itself means longitude and latitude. These files hold a local map, so they say in which
frame it is: `"frame": "map"` beside the features.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.categories import CATEGORIES, category_by_name
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.structures import FloatArray, MapElement

_LINES = ('LineString', 'MultiLineString')
_POLYGONS = ('Polygon', 'MultiPolygon')


def read_annotations(path: str | Path, frame: str) -> tuple[MapElement, ...]:
    """Read the elements of a map.

    Every feature has a property `category` and a LineString, Polygon or a Multi of them; x, y and
    optionally z are metres. Polygons give closed elements, one per ring; so do lines that end
    where they begin. A property `id` (1 or more) is kept.

    Args:
        path: a GeoJSON FeatureCollection with a member `frame`.
        frame: frame that the poses of the drive are in.

    Returns:
        Elements in that frame, in the order of the file.

    Raises:
        DataError: no such file, no such content, another frame, or a feature that is no map
            element; the message names the file and the feature.
    """
    where = f"annotations '{path}'"
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(f'{where} cannot be read: {error}; expected GeoJSON') from error
    if not isinstance(content, dict) or content.get('type') != 'FeatureCollection':
        raise DataError(f'{where}: expected an object of type FeatureCollection')
    if content.get('frame') != frame:
        raise DataError(
            f'{where}: frame is {content.get("frame")!r}, the poses of the drive are in '
            f'{frame!r}; write the coordinates in metres of that frame and say '
            f'"frame": "{frame}" beside "type" (GeoJSON by itself means longitude and latitude)'
        )
    features = content.get('features')
    if not isinstance(features, list) or not features:
        raise DataError(f'{where}: has no features; expected a list of them')
    elements: list[MapElement] = []
    for index, feature in enumerate(features):
        elements += _elements_of(feature, f'{where}: feature {index}')
    dimensions = {element.vertices.shape[1] for element in elements}
    if len(dimensions) > 1:
        raise DataError(
            f'{where}: some features have heights and some have not; expected all or none'
        )
    return tuple(elements)


def _elements_of(feature: Any, where: str) -> list[MapElement]:
    """Return the elements of one feature."""
    try:
        properties, geometry = feature['properties'], feature['geometry']
        name, kind, coordinates = properties['category'], geometry['type'], geometry['coordinates']
    except (KeyError, TypeError) as error:
        raise DataError(
            f'{where}: no {error}; expected properties.category and geometry with type and '
            'coordinates'
        ) from error
    known = ', '.join(category.name for category in CATEGORIES)
    try:
        category = category_by_name(name)
    except ConfigError as error:
        raise DataError(f"{where}: category '{name}' is unknown; expected {known}") from error
    if kind not in (*_LINES, *_POLYGONS):
        raise DataError(
            f'{where}: geometry of type {kind}; expected {", ".join((*_LINES, *_POLYGONS))}'
        )
    parts = coordinates if kind.startswith('Multi') else [coordinates]
    rings = [ring for part in parts for ring in part] if kind in _POLYGONS else parts
    if category.is_area and kind in _POLYGONS and any(len(part) != 1 for part in parts):
        raise DataError(f'{where}: a {name} with holes; expected areas without holes')
    elements = []
    for ring in rings:
        vertices, closed = _vertices(ring, kind in _POLYGONS, where)
        if category.is_area and not closed:
            raise DataError(f'{where}: a {name} as an open line; expected a closed ring')
        try:
            elements.append(
                MapElement(category.id, vertices, closed=closed, id=properties.get('id'))
            )
        except (DataError, ConfigError) as error:
            raise DataError(f'{where}: {error}') from error
    return elements


def _vertices(coordinates: Any, is_ring: bool, where: str) -> tuple[FloatArray, bool]:
    """Return (P, 2) or (P, 3) vertices, first not repeated, and whether they close."""
    try:
        points = np.array(coordinates, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not np.isfinite(points).all():
        raise DataError(f'{where}: coordinates {str(coordinates)[:60]}; expected [[x, y], ...]')
    closed = len(points) > 2 and bool(np.array_equal(points[0], points[-1]))
    if is_ring and not closed:
        raise DataError(f'{where}: a ring that does not end where it begins; close it')
    least = 4 if closed else 2
    if len(points) < least:
        raise DataError(f'{where}: {len(points)} vertices; expected at least {least}')
    return (points[:-1] if closed else points), closed
