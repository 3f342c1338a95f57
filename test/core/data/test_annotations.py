"""Reading one's own map annotations, with hand-made files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gsmap_core.data.annotations import read_annotations
from gsmap_core.errors import DataError


def feature(category, kind, coordinates, **properties):
    return {
        'type': 'Feature',
        'properties': {'category': category, **properties},
        'geometry': {'type': kind, 'coordinates': coordinates},
    }


def write(path, *features, frame='map'):
    content = {'type': 'FeatureCollection', 'frame': frame, 'features': list(features)}
    path.write_text(json.dumps(content))
    return path


SQUARE = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
HOLE = [[1, 1], [1, 2], [2, 2], [1, 1]]


def test_lines_rings_and_parts(tmp_path):
    path = write(
        tmp_path / 'map.geojson',
        feature('divider', 'LineString', [[0, 1], [5, 1.5]], id=7),
        feature('ped_crossing', 'Polygon', [SQUARE]),
        feature('boundary', 'Polygon', [SQUARE, HOLE]),
        feature('boundary', 'MultiLineString', [[[0, 0], [1, 0]], HOLE]),
    )
    elements = read_annotations(path, 'map')
    assert [(e.category, e.closed, e.id, len(e.vertices)) for e in elements] == [
        (0, False, 7, 2),
        (1, True, None, 4),
        (2, True, None, 4),
        (2, True, None, 3),
        (2, False, None, 2),
        (2, True, None, 3),
    ]
    np.testing.assert_array_equal(elements[0].vertices, [[0, 1], [5, 1.5]])
    np.testing.assert_array_equal(elements[3].vertices, [[1, 1], [1, 2], [2, 2]])
    with_z = write(tmp_path / 'z', feature('divider', 'LineString', [[0, 1, 2], [5, 1, 3]]))
    assert read_annotations(with_z, 'map')[0].has_z


@pytest.mark.parametrize(
    ('features', 'expected'),
    [
        ([feature('kerb', 'LineString', [[0, 0], [1, 0]])], "feature 0: category 'kerb'"),
        ([feature('divider', 'Point', [0, 0])], 'geometry of type Point'),
        ([feature('divider', 'LineString', [[0, 0]])], '1 vertices; expected at least 2'),
        ([feature('divider', 'LineString', [[0, float('nan')], [1, 1]])], 'coordinates'),
        ([feature('divider', 'LineString', [[0, 0], [1]])], 'coordinates'),
        ([feature('boundary', 'Polygon', [SQUARE[:-1]])], 'does not end where it begins'),
        ([feature('ped_crossing', 'LineString', [[0, 0], [1, 0]])], 'as an open line'),
        ([feature('ped_crossing', 'Polygon', [SQUARE, HOLE])], 'with holes'),
        ([{'type': 'Feature', 'properties': {}}], "no 'geometry'"),
        ([], 'has no features'),
        (
            [
                feature('divider', 'LineString', [[0, 0], [1, 0]]),
                feature('divider', 'LineString', [[0, 0, 0], [1, 0, 0]]),
            ],
            'some features have heights',
        ),
    ],
)
def test_what_is_no_map_is_refused_with_its_place(tmp_path, features, expected):
    path = write(tmp_path / 'map.geojson', *features)
    with pytest.raises(DataError, match=expected) as caught:
        read_annotations(path, 'map')
    assert 'map.geojson' in str(caught.value)


def test_the_frame_must_be_said(tmp_path):
    line = feature('divider', 'LineString', [[13.4, 52.5], [13.5, 52.5]])
    path = write(tmp_path / 'geo.json', line, frame=None)
    with pytest.raises(DataError, match='longitude and latitude'):
        read_annotations(path, 'map')
    with pytest.raises(DataError, match='cannot be read'):
        read_annotations(tmp_path / 'absent', 'map')
