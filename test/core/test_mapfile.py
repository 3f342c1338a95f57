"""Map files: what is written comes back, and what is wrong is named."""

import json

import numpy as np
import pytest

from gsmap_core.errors import DataError
from gsmap_core.mapfile import read_map_file, write_map_file
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap


def example_maps():
    pose = np.eye(4)
    pose[:3, 3] = [100.123456789012, -7.5, 0.25]
    ring = MapElement(
        1,
        np.array([[0.1, 0.2], [4.0, 0.0], [4.0, 3.0]]),
        closed=True,
        score=0.123456789,
        covariance=np.array([[0.1, 0.0, 0.2], [0.3, 0.01, 0.2], [0.1, 0.0, 0.4]]),
        id=7,
    )
    high = MapElement(2, np.array([[0.0, 1.0, 0.5], [10.0, 1.0, 0.75]]))
    limits = PerceptionRange(-50, 50, -25, 25)
    return [
        VectorMap((ring, high), 1_700_000_000_123_456_789, limits, 'ego', 'f0', 'scene-1', pose),
        VectorMap((), 1_700_000_000_223_456_789, limits, 'ego', 'f1'),
    ]


def assert_same(first, second):
    assert (first.stamp_ns, first.range, first.reference, first.sample_id, first.scene) == (
        (second.stamp_ns, second.range, second.reference, second.sample_id, second.scene)
    )
    if first.map_from_base is None:
        assert second.map_from_base is None
    else:
        np.testing.assert_array_equal(first.map_from_base, second.map_from_base)
    assert len(first) == len(second)
    for a, b in zip(first.elements, second.elements, strict=True):
        assert (a.category, a.closed, a.score, a.id) == (b.category, b.closed, b.score, b.id)
        np.testing.assert_array_equal(a.vertices, b.vertices)
        assert (a.covariance is None) == (b.covariance is None)
        if a.covariance is not None:
            np.testing.assert_array_equal(a.covariance, b.covariance)


def test_round_trip_is_exact(tmp_path):
    path = tmp_path / 'new' / 'x.map.json'
    maps = example_maps()
    assert write_map_file(path, iter(maps)) == 2
    for before, after in zip(maps, read_map_file(path), strict=True):
        assert_same(before, after)


def test_layout_is_the_documented_one(tmp_path):
    path = tmp_path / 'x.map.json'
    write_map_file(path, example_maps())
    content = json.loads(path.read_text())
    assert list(content) == ['version', 'reference', 'range', 'frames']
    assert content['version'] == 1
    assert content['range'] == {'x': [-50, 50], 'y': [-25, 25]}
    first, second = content['frames']
    assert list(first) == ['id', 'stamp_ns', 'scene', 'map_from_base', 'elements']
    assert list(second) == ['id', 'stamp_ns', 'elements']
    ring, high = first['elements']
    assert list(ring) == ['category', 'vertices', 'closed', 'score', 'covariance', 'id']
    assert ring['category'] == 'ped_crossing'
    assert len(ring['vertices']) == 3
    assert list(high) == ['category', 'vertices', 'closed']
    assert high['vertices'][0] == [0.0, 1.0, 0.5]


def test_empty_file(tmp_path):
    path = tmp_path / 'x.map.json'
    assert write_map_file(path, [], reference='lidar') == 0
    assert read_map_file(path) == []
    assert json.loads(path.read_text())['reference'] == 'lidar'


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / 'x.map.json'
    write_map_file(path, example_maps())
    before = path.read_bytes()

    def broken():
        yield example_maps()[0]
        raise RuntimeError('source failed')

    with pytest.raises(RuntimeError, match='source failed'):
        write_map_file(path, broken())
    mixed = [example_maps()[0], VectorMap((), 1)]
    with pytest.raises(DataError, match="frame '1'.*one file holds one of each"):
        write_map_file(path, mixed)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ['x.map.json']


def test_map_frame_maps_are_refused(tmp_path):
    with pytest.raises(DataError, match="reference 'map'"):
        write_map_file(tmp_path / 'x.map.json', [VectorMap(reference='map')])


def drop(*keys):
    def change(content):
        target = content
        for key in keys[:-1]:
            target = target[key]
        del target[keys[-1]]

    return change


def put(value, *keys):
    def change(content):
        target = content
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return change


ELEMENT = ('frames', 0, 'elements', 1)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (put(2, 'version'), 'version is 2; expected 1'),
        (drop('version'), 'version is None; expected 1'),
        (drop('range'), "key 'range' is missing"),
        (put([1, 0], 'range', 'x'), 'range: .*expected min < max'),
        (put('map', 'reference'), "reference is 'map'; expected one of ego, lidar"),
        (drop('frames', 0, 'stamp_ns'), r"frame 0 \(id 'f0'\): key 'stamp_ns' is missing"),
        (put(1.5, 'frames', 0, 'stamp_ns'), 'stamp_ns is 1.5; expected whole nanoseconds'),
        (put([[1]], 'frames', 0, 'map_from_base'), r"\(id 'f0'\).*expected \(4, 4\)"),
        (drop(*ELEMENT, 'closed'), r"\(id 'f0'\): element 1: key 'closed' is missing"),
        (put(3, *ELEMENT, 'scores'), "element 1: key 'scores' is unknown"),
        (put('kerb', *ELEMENT, 'category'), "element 1: category 'kerb': unknown"),
        (put(['divider'], *ELEMENT, 'category'), r"\(id 'f0'\): element 1: "),
        (put(float('nan'), *ELEMENT, 'vertices', 0, 1), 'element 1: .*NaN or infinite'),
        (
            put([[1.0, 2.0]], *ELEMENT, 'vertices'),
            'element 1: .*has 1 vertices; expected at least',
        ),
        (put([[1, 2], [3]], *ELEMENT, 'vertices'), 'element 1: vertices: not a table of numbers'),
        (put(1.5, *ELEMENT, 'score'), r'element 1: .*score 1.5; expected a number in \[0, 1\]'),
        (put(float('nan'), *ELEMENT, 'score'), 'element 1: score is nan'),
        (put('high', *ELEMENT, 'score'), "element 1: score is 'high'"),
        (put('yes', *ELEMENT, 'closed'), "element 1: closed is 'yes'; expected true or false"),
        (put([[1, 2, 3]], *ELEMENT, 'covariance'), r'element 1: .*covariance has shape \(1, 3\)'),
        (put({}, 'frames'), 'frames is a dict; expected a list'),
        (put(5, 'frames', 0, 'elements', 1), r'element 1: holds a int; expected an object'),
    ],
)
def test_errors_name_file_frame_and_element(tmp_path, change, message):
    path = tmp_path / 'x.map.json'
    write_map_file(path, example_maps())
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        read_map_file(path)
    assert str(caught.value).startswith(str(path))


def test_missing_truncated_and_foreign_files(tmp_path):
    path = tmp_path / 'x.map.json'
    with pytest.raises(DataError, match=r'x\.map\.json: no such file'):
        read_map_file(path)
    write_map_file(path, example_maps())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r'x\.map\.json: not complete JSON at line 2'):
        read_map_file(path)
    path.write_bytes(b'\xff\xfe\x00\x80')
    with pytest.raises(DataError, match=r'x\.map\.json: cannot be read'):
        read_map_file(path)
    path.write_text('[1]')
    with pytest.raises(DataError, match='holds a list; expected an object'):
        read_map_file(path)
