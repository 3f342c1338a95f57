"""Every export is read back by a reader of its format."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely

from gsmap_core.data.annotations import read_annotations
from gsmap_core.errors import DataError
from gsmap_core.geometry.geodesy import MapOrigin, map_from_geographic
from gsmap_core.mapfile import read_map_file
from gsmap_core.mapping.export import (
    fused_map_of,
    largest_sigmas,
    write_fused_map_file,
    write_geojson,
    write_lanelet2,
)
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap

ORIGIN = MapOrigin(48.1, 11.5, 500.0)


def fused_map() -> VectorMap:
    line = np.array([[10.0, 2.0], [20.0, 2.5], [30.0, 3.0]])
    clockwise = np.array([[0.0, 0.0], [0.0, 8.0], [3.0, 8.0], [3.0, 0.0]])
    covariance = np.array([[0.04, 0.0, 0.01], [0.02, 0.01, 0.02], [0.01, 0.0, 0.09]])
    return VectorMap(
        (
            MapElement(0, line, score=0.9, covariance=covariance, id=7, num_observations=12),
            MapElement(1, clockwise, closed=True, score=0.8, id=9, num_observations=5),
            MapElement(2, line + [0.0, 4.0], score=0.7, id=11),
            MapElement(2, clockwise + 20.0, closed=True, score=0.6, id=12),
            MapElement(3, line - [0.0, 2.0], score=0.5),
        ),
        stamp_ns=5,
        range=PerceptionRange(-50.0, 50.0, -50.0, 50.0),
        reference='map',
    )


def test_geojson_is_read_by_shapely_at_its_place_on_earth(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'town.geojson'
    write_geojson(path, fused_map(), ORIGIN)
    shapes = shapely.get_parts(shapely.from_geojson(path.read_text(encoding='utf-8')))
    assert [shape.geom_type for shape in shapes] == [
        'LineString', 'Polygon', 'LineString', 'Polygon', 'LineString',
    ]  # fmt: skip
    for shape, element in zip(shapes, fused_map().elements, strict=True):
        assert shape.is_valid
        places = shapely.get_coordinates(shape)[:, ::-1]
        heights = np.full((len(places), 1), np.nan)
        # Heights are not written for planar maps: on the plane of the origin they are this high.
        heights[:] = 500.0
        back = map_from_geographic(np.hstack([places, heights]), ORIGIN)[:, :2]
        expected = element.loop_xy()
        if element.closed:
            assert shape.exterior.is_ccw  # RFC 7946
            back = back[::-1]
        np.testing.assert_allclose(back[0], back[-1] if element.closed else expected[0], atol=1e-3)
        for vertex in element.vertices[:, :2]:
            assert np.linalg.norm(back - vertex, axis=1).min() < 1e-3


def test_geojson_says_sigma_per_vertex(tmp_path: Path) -> None:
    write_geojson(tmp_path / 'a.geojson', fused_map(), ORIGIN)
    content = json.loads((tmp_path / 'a.geojson').read_text(encoding='utf-8'))
    first, second = content['features'][:2]
    assert first['properties']['category'] == 'divider' and first['properties']['id'] == 7
    assert first['properties']['num_observations'] == 12
    # xx 0.04; the middle one has 0.03 along a diagonal; yy 0.09.
    assert first['properties']['sigma_m'] == pytest.approx([0.2, np.sqrt(0.03), 0.3], abs=1e-4)
    assert first['properties']['covariance_m2'][1] == [0.02, 0.01, 0.02]
    assert 'sigma_m' not in second['properties']
    assert content['origin']['latitude_deg'] == 48.1 and 'frame' not in content


def test_geojson_without_an_origin_is_metres_that_annotations_are_read_from(
    tmp_path: Path,
) -> None:
    write_geojson(tmp_path / 'a.geojson', fused_map())
    elements = read_annotations(tmp_path / 'a.geojson', 'map')
    assert [e.category for e in elements] == [0, 1, 2, 2, 3]
    np.testing.assert_allclose(elements[0].vertices, fused_map().elements[0].vertices)
    assert elements[1].closed and elements[1].id == 9


def test_the_largest_sigma_is_that_of_the_ellipse() -> None:
    values = np.array([[4.0, 0.0, 1.0], [2.0, 1.5, 3.0]])
    matrices = values[:, [0, 1, 1, 2]].reshape(-1, 2, 2)
    expected = np.sqrt(np.linalg.eigvalsh(matrices)[:, -1])
    np.testing.assert_allclose(largest_sigmas(values), expected)


def test_lanelet2_reads_what_was_written(tmp_path: Path) -> None:
    lanelet2 = pytest.importorskip(
        'lanelet2', reason='lanelet2 has wheels for Linux on x86_64 only'
    )
    path = tmp_path / 'town.osm'
    write_lanelet2(path, fused_map(), ORIGIN)
    origin = lanelet2.io.Origin(ORIGIN.latitude_deg, ORIGIN.longitude_deg, ORIGIN.altitude_m)
    projector = lanelet2.projection.LocalCartesianProjector(origin)
    found, errors = lanelet2.io.loadRobust(str(path), projector)
    assert not list(errors)
    assert len(found.lineStringLayer) == 6 and len(found.laneletLayer) == 1
    for point in found.pointLayer:
        # Latitude and longitude, projected by Lanelet2, are the metres that we started from.
        assert point.x == pytest.approx(float(point.attributes['local_x']), abs=1e-3)
        assert point.y == pytest.approx(float(point.attributes['local_y']), abs=1e-3)
    (crosswalk,) = found.laneletLayer
    assert crosswalk.attributes['subtype'] == 'crosswalk'
    # 3 m x 8 m: the bounds are the long sides, the left one on the left.
    left, right = (
        np.array([[p.x, p.y] for p in bound])
        for bound in (crosswalk.leftBound, crosswalk.rightBound)
    )
    way = left[-1] - left[0]
    assert np.linalg.norm(way) == pytest.approx(8.0, abs=1e-2)
    across = right[0] - left[0]
    assert way[0] * across[1] - way[1] * across[0] == pytest.approx(-24.0, abs=0.1)
    kinds = sorted(line.attributes['type'] for line in found.lineStringLayer)
    assert kinds == [
        'line_thin', 'pedestrian_marking', 'pedestrian_marking', 'road_border', 'road_border',
        'virtual',
    ]  # fmt: skip


def test_osm_is_strict_xml_whose_references_exist(tmp_path: Path) -> None:
    path = tmp_path / 'town.osm'
    write_lanelet2(path, fused_map())
    root = ElementTree.fromstring(path.read_text(encoding='utf-8'))
    assert root.tag == 'osm' and root.get('version') == '0.6'
    assert {child.tag for child in root} == {'node', 'way', 'relation'}
    identities = [child.get('id') for child in root]
    assert len(set(identities)) == len(identities)
    nodes = {child.get('id') for child in root.iter('node')}
    ways = {child.get('id') for child in root.iter('way')}
    assert {nd.get('ref') for nd in root.iter('nd')} == nodes
    assert {member.get('ref') for member in root.iter('member')} <= ways
    ring = next(
        way
        for way in root.iter('way')
        if any(t.get('k') == 'gsmap:id' and t.get('v') == '12' for t in way.iter('tag'))
    )
    references = [nd.get('ref') for nd in ring.iter('nd')]
    assert references[0] == references[-1] and len(references) == 5


def test_a_map_file_comes_back_as_the_fused_map(tmp_path: Path) -> None:
    path = tmp_path / 'town.map.json'
    write_fused_map_file(path, fused_map(), ORIGIN)
    found = fused_map_of(read_map_file(path))
    assert found is not None and found.reference == 'map' and found.stamp_ns == 5
    for a, b in zip(fused_map().elements, found.elements, strict=True):
        assert (a.category, a.closed, a.score, a.id) == (b.category, b.closed, b.score, b.id)
        np.testing.assert_array_equal(a.vertices, b.vertices)
        if a.covariance is not None:
            np.testing.assert_array_equal(a.covariance, b.covariance)
    # The keys of the contract, and where the map frame lies.
    content = json.loads(path.read_text(encoding='utf-8'))
    assert content['reference'] == 'ego' and content['origin']['longitude_deg'] == 11.5
    write_fused_map_file(path, fused_map())
    assert set(json.loads(path.read_text())) == {'version', 'reference', 'range', 'frames'}


def test_local_maps_are_no_fused_map(tmp_path: Path) -> None:
    local = VectorMap((), map_from_base=np.eye(4), sample_id='f0')
    assert fused_map_of([local]) is None and fused_map_of([]) is None
    for write in (write_geojson, write_lanelet2, write_fused_map_file):
        with pytest.raises(DataError, match="expected 'map'"):
            write(tmp_path / 'x', local)
        assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    for write in (write_geojson, write_lanelet2, write_fused_map_file):
        with pytest.raises(DataError, match='cannot be written'):
            write(tmp_path / 'file' / 'town', fused_map())
