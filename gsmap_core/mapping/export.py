"""A fused map as GeoJSON, as Lanelet2 OSM and as a map file.

With an origin, coordinates are geographic (WGS 84). Files appear under their names only when they
are complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import shapely

from gsmap_core.atomic_files import atomic_text_file
from gsmap_core.errors import DataError
from gsmap_core.geometry.geodesy import MapOrigin, geographic_from_map
from gsmap_core.mapfile import write_map_file
from gsmap_core.mapping.lines import signed_area
from gsmap_core.structures import FloatArray, MapElement, VectorMap

#: Tags of the line strings of a category in Lanelet2.
LANELET2_TAGS: dict[str, dict[str, str]] = {
    'divider': {'type': 'line_thin'},
    'ped_crossing': {'type': 'pedestrian_marking'},
    'boundary': {'type': 'road_border'},
    'centerline': {'type': 'virtual'},
}
#: Of a fused map in a map file: its one frame is the map frame itself.
MAP_FRAME_ID = 'map'


def write_geojson(path: Path | str, fused: VectorMap, origin: MapOrigin | None = None) -> None:
    """Write a map as a GeoJSON FeatureCollection.

    Properties of a feature: `category`, `id`, `score`, `num_observations`, and where the map has
    covariances `sigma_m` (the largest standard deviation of each vertex) and `covariance_m2`
    (east-east, east-north, north-north of each vertex). Lines are LineStrings, rings Polygons that
    run counter-clockwise. Without an origin the coordinates are metres, and a member
    `"frame": "map"` beside the features says so (GeoJSON by itself means longitude and latitude).

    Args:
        path: file to write.
        fused: in the map frame.
        origin: of the map frame.

    Raises:
        DataError: the map is in another frame, or the file cannot be written.
    """
    _require_map_frame(fused)
    features = [_feature(_counter_clockwise(e), origin) for e in fused.elements]
    content: dict[str, Any] = {'type': 'FeatureCollection'}
    if origin is None:
        content['frame'] = MAP_FRAME_ID
    else:
        content['origin'] = vars(origin)
    content['features'] = features
    _write_text(Path(path), json.dumps(content) + '\n')


def _feature(element: MapElement, origin: MapOrigin | None) -> dict[str, Any]:
    points = _coordinates(element, origin)
    geometry: dict[str, Any] = {'type': 'LineString', 'coordinates': points}
    if element.closed:
        geometry = {'type': 'Polygon', 'coordinates': [[*points, points[0]]]}
    properties: dict[str, Any] = {
        'category': element.category_name,
        'score': element.score,
        'num_observations': element.num_observations,
    }
    if element.id:
        properties['id'] = element.id
    if element.covariance is not None:
        properties['sigma_m'] = np.round(largest_sigmas(element.covariance), 4).tolist()
        properties['covariance_m2'] = np.round(element.covariance, 8).tolist()
    return {'type': 'Feature', 'geometry': geometry, 'properties': properties}


def largest_sigmas(covariance: FloatArray) -> FloatArray:
    """Return the (P,) largest standard deviations of (P, 3) covariances xx, xy, yy [m]."""
    xx, xy, yy = covariance.T
    half = 0.5 * (xx + yy)
    return np.sqrt(half + np.sqrt(np.square(0.5 * (xx - yy)) + np.square(xy)))


def _coordinates(element: MapElement, origin: MapOrigin | None) -> list[list[float]]:
    if origin is None:
        return np.round(element.vertices, 4).tolist()
    places = geographic_from_map(_spatial(element), origin)
    columns = [1, 0, 2] if element.has_z else [1, 0]
    # 1e-9 degrees are a tenth of a millimetre.
    return np.round(places[:, columns], 9).tolist()


def _spatial(element: MapElement) -> FloatArray:
    xyz = np.zeros((len(element.vertices), 3))
    xyz[:, : element.vertices.shape[1]] = element.vertices
    return xyz


def _counter_clockwise(element: MapElement) -> MapElement:
    if not element.closed or signed_area(element.vertices[:, :2]) >= 0:
        return element
    covariance = element.covariance
    return replace(
        element,
        vertices=element.vertices[::-1],
        covariance=None if covariance is None else covariance[::-1],
    )


def write_lanelet2(path: Path | str, fused: VectorMap, origin: MapOrigin | None = None) -> None:
    """Write a map as Lanelet2 OSM XML.

    Lines become line strings (`LANELET2_TAGS`), a crossing a lanelet of subtype `crosswalk`
    between its two long sides; lanes are not made up. Every node also has `local_x` and `local_y`,
    its metres in the map frame, and `ele`.

    Args:
        path: file to write.
        fused: in the map frame.
        origin: of the map frame; None: latitude 0, longitude 0, for readers that go by the metres.

    Raises:
        DataError: the map is in another frame, or the file cannot be written.
    """
    _require_map_frame(fused)
    writer = _OsmWriter(origin or MapOrigin(0.0, 0.0))
    for element in fused.elements:
        tags = {**LANELET2_TAGS[element.category_name], **_own_tags(element)}
        if element.category_name == 'ped_crossing' and element.closed:
            left, right = (writer.way(side, tags) for side in _long_sides(element))
            writer.crosswalk(left, right, _own_tags(element))
        else:
            writer.way(_spatial(element), tags, closed=element.closed)
    _write_text(Path(path), writer.text())


def _own_tags(element: MapElement) -> dict[str, str]:
    tags = {'gsmap:category': element.category_name}
    if element.id:
        tags['gsmap:id'] = str(element.id)
    if element.score is not None:
        tags['gsmap:score'] = f'{element.score:.3f}'
    if element.covariance is not None:
        tags['gsmap:sigma_m'] = f'{np.median(largest_sigmas(element.covariance)):.3f}'
    return tags


def _long_sides(element: MapElement) -> tuple[FloatArray, FloatArray]:
    """Return the left and the right long side of a crossing, both in the walking direction.

    The ring is divided at the vertices that are nearest to the corners of the smallest rectangle
    around it.
    """
    ring = _spatial(_counter_clockwise(element))
    rectangle = shapely.minimum_rotated_rectangle(shapely.MultiPoint(ring[:, :2]))
    corners = shapely.get_coordinates(rectangle)[:-1]
    if signed_area(corners) < 0:
        corners = corners[::-1]
    if np.linalg.norm(corners[1] - corners[0]) < np.linalg.norm(corners[2] - corners[1]):
        corners = np.roll(corners, -1, axis=0)
    # Counter-clockwise: the first long side has the area on its left, so it is the right bound.
    gaps = np.linalg.norm(ring[:, None, :2] - corners, axis=2)
    places = [int(gaps[:, k].argmin()) for k in range(4)]
    right = _stretch(ring, places[0], places[1])
    left = _stretch(ring, places[2], places[3])[::-1]
    return left, right


def _stretch(ring: FloatArray, first: int, last: int) -> FloatArray:
    """Return the vertices of a ring from one to another, at least two."""
    count = (last - first) % len(ring)
    return ring[(first + np.arange(max(count, 1) + 1)) % len(ring)]


class _OsmWriter:
    """Collects nodes, ways and relations with identities of their own."""

    def __init__(self, origin: MapOrigin) -> None:
        self._origin = origin
        self._next_id = 1
        self._nodes: list[ElementTree.Element] = []
        self._ways: list[ElementTree.Element] = []
        self._relations: list[ElementTree.Element] = []

    def _element(self, kind: str, **attributes: str) -> ElementTree.Element:
        number, self._next_id = self._next_id, self._next_id + 1
        return ElementTree.Element(
            kind, {'id': str(number), 'visible': 'true', 'version': '1', **attributes}
        )

    def way(self, vertices: FloatArray, tags: dict[str, str], closed: bool = False) -> str:
        """Add a line string of (P, 3) vertices [m]; returns its identity."""
        places = geographic_from_map(vertices, self._origin)
        names = []
        for (latitude, longitude, altitude), (x, y, _) in zip(places, vertices, strict=True):
            node = self._element('node', lat=f'{latitude:.11f}', lon=f'{longitude:.11f}')
            _add_tags(
                node, {'ele': f'{altitude:.4f}', 'local_x': f'{x:.4f}', 'local_y': f'{y:.4f}'}
            )
            self._nodes.append(node)
            names.append(node.get('id', ''))
        way = self._element('way')
        for name in [*names, *(names[:1] if closed else [])]:
            ElementTree.SubElement(way, 'nd', {'ref': name})
        _add_tags(way, tags)
        self._ways.append(way)
        return way.get('id', '')

    def crosswalk(self, left: str, right: str, tags: dict[str, str]) -> None:
        """Add a crosswalk between two line strings."""
        relation = self._element('relation')
        for role, way in (('left', left), ('right', right)):
            ElementTree.SubElement(relation, 'member', {'type': 'way', 'ref': way, 'role': role})
        fixed = {
            'type': 'lanelet',
            'subtype': 'crosswalk',
            'location': 'urban',
            'one_way': 'no',
            'participant:pedestrian': 'yes',
        }
        _add_tags(relation, {**fixed, **tags})
        self._relations.append(relation)

    def text(self) -> str:
        """Return the whole file."""
        root = ElementTree.Element('osm', {'version': '0.6', 'generator': 'gsmap'})
        root.extend([*self._nodes, *self._ways, *self._relations])
        ElementTree.indent(root)
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, 'unicode')


def _add_tags(element: ElementTree.Element, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        ElementTree.SubElement(element, 'tag', {'k': key, 'v': value})


def write_fused_map_file(
    path: Path | str, fused: VectorMap, origin: MapOrigin | None = None
) -> None:
    """Write a map as a map file with one frame, whose ego frame is the map frame itself.

    `map_from_base` is the identity. With an origin the file says where it lies (`origin`).

    Args:
        path: file to write.
        fused: in the map frame.
        origin: of the map frame.

    Raises:
        DataError: the map is in another frame, or the file cannot be written.
    """
    _require_map_frame(fused)
    frame = replace(fused, reference='ego', map_from_base=np.eye(4), sample_id=MAP_FRAME_ID)
    try:
        write_map_file(path, [frame], origin=None if origin is None else vars(origin))
    except OSError as error:
        raise DataError(f"'{path}' cannot be written: {error}") from None


def fused_map_of(maps: list[VectorMap]) -> VectorMap | None:
    """Return the fused map in a map file; None where the file holds local maps."""
    if len(maps) != 1 or maps[0].sample_id != MAP_FRAME_ID or maps[0].reference != 'ego':
        return None
    pose = maps[0].map_from_base
    if pose is None or not np.array_equal(pose, np.eye(4)):
        return None
    return replace(maps[0], reference='map', map_from_base=None, sample_id='')


Writer = Callable[[Path | str, VectorMap, MapOrigin | None], None]
#: Formats by the name that users give, with the ending of their files.
FORMATS: dict[str, tuple[Writer, str]] = {
    'geojson': (write_geojson, '.geojson'),
    'lanelet2': (write_lanelet2, '.osm'),
    'map.json': (write_fused_map_file, '.map.json'),
}


def _require_map_frame(fused: VectorMap) -> None:
    if fused.reference != 'map':
        raise DataError(f"map is in the '{fused.reference}' frame; expected 'map'")


def _write_text(path: Path, text: str) -> None:
    try:
        with atomic_text_file(path) as file:
            file.write(text)
    except OSError as error:
        raise DataError(f"'{path}' cannot be written: {error}") from None
