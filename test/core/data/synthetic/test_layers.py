"""The layers of a town with slopes and islands: pieces of the asphalt, lanes inside it."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from gsmap_core.categories import BOUNDARY
from gsmap_core.data.synthetic.layers import build_layers, town_asphalt
from gsmap_core.data.synthetic.nuscenes_map import map_expansion
from gsmap_core.data.synthetic.town import generate_town


@pytest.fixture(scope='module')
def town():
    return generate_town(0)


@pytest.fixture(scope='module')
def layers(town):
    return build_layers(town)


def test_road_areas_have_no_holes_and_make_up_the_asphalt(town, layers):
    polygons = [shapely.Polygon(area.outline) for area in layers.road_areas]
    assert all(polygon.is_valid for polygon in polygons)
    united = shapely.union_all(polygons)
    outlines = [e.vertices[:, :2] for e in town.elements if e.category == BOUNDARY.id]
    rings = shapely.union_all([shapely.LinearRing(outline) for outline in outlines])
    assert shapely.hausdorff_distance(united.boundary, rings) < 1e-9
    # Neighbours overlap: lines that clip both leave no seam between them.
    touching = [(a, b) for i, a in enumerate(polygons) for b in polygons[:i] if a.intersects(b)]
    assert touching and all(a.intersection(b).area > 1.0 for a, b in touching)


def test_islands_stay_islands_where_lanes_run_beside_them(town, layers):
    asphalt = shapely.union_all(town_asphalt(town))
    assert any(segment.is_beside_island for segment in layers.segments)
    content = map_expansion([(layers, np.zeros(2))], (1.0, 1.0))
    nodes = {node['token']: (node['x'], node['y']) for node in content['node']}
    outlines = {
        polygon['token']: [nodes[token] for token in polygon['exterior_node_tokens']]
        for polygon in content['polygon']
    }
    lanes = shapely.union_all(
        [shapely.Polygon(outlines[r['polygon_token']]) for r in content['lane']]
    )
    assert lanes.difference(asphalt).area < 1e-6


def test_neighbours_share_their_line(layers):
    pairs = 0
    for number, segment in enumerate(layers.segments):
        if segment.left_neighbour is not None:
            other = layers.segments[segment.left_neighbour]
            if np.sign(other.street) == np.sign(segment.street):
                assert other.right_neighbour == number
                np.testing.assert_array_equal(other.right, segment.left)
            else:
                assert other.left_neighbour == number
                np.testing.assert_array_equal(other.left[::-1], segment.left)
            pairs += 1
        for following in segment.successors:
            gap = layers.segments[following].centre[0] - segment.centre[-1]
            assert np.linalg.norm(gap) < 0.05
    assert pairs > 10
