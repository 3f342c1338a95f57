"""Patches, outlines and crossings on shapes whose pieces are counted by hand."""

import numpy as np
import pytest
import shapely

from gsmap_core.data.groundtruth_crossings import (
    merge_compact_crossings,
    merge_parallel_crossings,
)
from gsmap_core.data.groundtruth_patch import Patch, clip_lines, clip_polygons
from gsmap_core.data.groundtruth_rings import area_outlines, to_elements
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.structures import PerceptionRange

RANGE = PerceptionRange(-30.0, 30.0, -15.0, 15.0)
HERE = Patch((0.0, 0.0), 0.0, RANGE)


def rectangle(length, width, centre=(0.0, 0.0), turned_deg=0.0):
    box = shapely.box(-length / 2, -width / 2, length / 2, width / 2)
    turned = shapely.affinity.rotate(box, turned_deg, origin=(0, 0))
    return shapely.affinity.translate(turned, *centre)


def test_patch_moves_map_points_into_the_axes_of_the_frame():
    """Facing north at (100, 50): 20 m north is 20 m ahead, 5 m west is 5 m to the left."""
    pose = make_transform(rotation_from_rpy(0.0, 0.0, np.pi / 2), [100.0, 50.0, 3.0])
    patch = Patch.around(pose, RANGE)
    local = patch.to_local(shapely.LineString([[100.0, 70.0], [95.0, 50.0]]))
    np.testing.assert_allclose(shapely.get_coordinates(local), [[20, 0], [0, 5]], atol=1e-9)
    assert patch.map_polygon.bounds == pytest.approx((85, 20, 115, 80))
    high = patch.to_local(shapely.LineString([[100.0, 70.0, 7.0], [95.0, 50.0, 8.0]]))
    np.testing.assert_allclose(shapely.get_coordinates(high, include_z=True)[:, 2], [7, 8])


def test_a_line_that_leaves_and_returns_gives_two_pieces():
    line = shapely.LineString([[0, 0], [0, 20], [10, 20], [10, 0]])
    pieces = clip_lines([line], HERE)
    assert [shapely.get_coordinates(p).tolist() for p in pieces] == [
        [[0, 0], [0, 15]],
        [[10, 15], [10, 0]],
    ]
    touching = shapely.LineString([[-40, 10], [-30, 15], [-40, 20]])
    assert clip_lines([touching], HERE) == []


def test_boundaries_lose_the_border_and_keep_the_hole():
    """A road across the patch with an island: two kerbs and a ring; nothing along the border."""
    road = shapely.Polygon(
        [(-50, -4), (50, -4), (50, 4), (-50, 4)], [[(-2, -1), (2, -1), (2, 1), (-2, 1)]]
    )
    areas = clip_polygons([road], HERE)
    elements = to_elements(area_outlines(areas, HERE.enlarged(-0.2).local_box), 2)
    opened = sorted((e.vertices.tolist() for e in elements if not e.closed), key=str)
    # The area lies to the right: the southern kerb runs west, the northern one east.
    np.testing.assert_allclose(
        opened, [[[-29.8, 4], [29.8, 4]], [[29.8, -4], [-29.8, -4]]], atol=1e-9
    )
    (island,) = [e for e in elements if e.closed]
    assert len(island.vertices) == 4
    assert shapely.LinearRing(island.vertices).is_ccw


def test_crossings_cut_by_the_border_stay_closed():
    crossing = rectangle(6.0, 4.0, centre=(30.0, 0.0))
    areas = clip_polygons([crossing], HERE)
    (element,) = to_elements(area_outlines(areas, HERE.enlarged(0.2).local_box), 1)
    assert element.closed
    assert not shapely.LinearRing(element.vertices).is_ccw
    assert shapely.Polygon(element.vertices).area == pytest.approx(12.0)


def test_neighbouring_areas_are_one():
    halves = [shapely.box(-20, -4, 0, 4), shapely.box(0, -4, 20, 4)]
    (ring,) = area_outlines(halves, HERE.local_box)
    assert ring.is_closed
    assert ring.length == pytest.approx(96.0)


def test_only_parallel_touching_crossings_merge():
    """Two halves of one crossing merge; one across and one far away do not."""
    left, right = rectangle(6, 4), rectangle(6, 4, centre=(6, 0))
    across = rectangle(6, 4, centre=(0, 4.9), turned_deg=90)
    far = rectangle(6, 4, centre=(0, -20))
    merged = merge_parallel_crossings([left, across, right, far])
    assert [round(polygon.area, 6) for polygon in merged] == [48.0, 24.0, 24.0]
    # Seven degrees are parallel, nine are not: 1 - cos is 0.0075 and 0.0123.
    for angle, count in ((7.0, 1), (9.0, 2)):
        turned = rectangle(6, 4, centre=(5, 0), turned_deg=angle)
        assert len(merge_parallel_crossings([left, turned])) == count


def test_a_crossing_taken_in_takes_nothing_in_itself():
    """Three in a row: the first reaches the second only, the third stays apart."""
    row = [rectangle(6, 4, centre=(6.0 * index, 0)) for index in range(3)]
    assert [polygon.area for polygon in merge_parallel_crossings(row)] == [48.0, 24.0]


def test_compact_crossings_need_to_fill_their_hull():
    """Side by side fills the hull; the diagonal neighbour that touches in a corner does not."""
    base = rectangle(6, 4)
    assert len(merge_compact_crossings([base, rectangle(6, 4, centre=(0, 4))])) == 1
    # Union 48 m^2; hull of the two corner-touching rectangles: 96 - 2 * 12 = 72 m^2; share 0.67.
    assert len(merge_compact_crossings([base, rectangle(6, 4, centre=(6, 4))])) == 2


def test_a_second_pass_takes_in_smaller_neighbours_across():
    """A 1 m x 4 m strip at the end lies across, but the union is the longer rectangle."""
    base, strip = rectangle(6, 4), rectangle(1, 4, centre=(3.5, 0))
    assert len(merge_parallel_crossings([base, strip])) == 2
    (merged,) = merge_compact_crossings([base, strip])
    assert merged.area == pytest.approx(28.0)


def test_small_and_covered_crossings_are_left_out():
    base = rectangle(8, 4)
    inner = rectangle(2, 3, turned_deg=30)
    tiny = rectangle(0.9, 0.9, centre=(20, 0))
    (kept,) = merge_compact_crossings([base, inner, tiny])
    assert kept.equals(base)
