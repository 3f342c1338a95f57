"""Cutting the whole map to the surroundings of the vehicle."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from gsmap_core.data.groundtruth import clip_line, cut_local_map, move_local_map
from gsmap_core.errors import DataError
from gsmap_core.geometry.polylines import polyline_length
from gsmap_core.geometry.transforms import (
    invert,
    make_transform,
    rotation_from_rpy,
    transform_points,
)
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap

AREA = PerceptionRange()
DIVIDER, CROSSING, BOUNDARY = 0, 1, 2


def cut(*elements: MapElement, pose: np.ndarray | None = None, **options: float) -> VectorMap:
    return cut_local_map(
        elements, np.eye(4) if pose is None else pose, AREA, 7, 's', 'd', **options
    )


def assert_no_edge_on_border(vertices: np.ndarray) -> None:
    for axis, limits in ((0, (AREA.x_min, AREA.x_max)), (1, (AREA.y_min, AREA.y_max))):
        for limit in limits:
            on = np.abs(vertices[:, axis] - limit) < 1e-6
            assert not (on[:-1] & on[1:]).any()


def test_a_cut_line_ends_on_the_border_with_its_height_there():
    line = MapElement(DIVIDER, np.array([[-50.0, 0.0, 0.0], [50.0, 10.0, 10.0]]), id=4)
    (piece,) = cut(line).elements
    expected = [[-30.0, 2.0, 2.0], [30.0, 8.0, 8.0]]
    np.testing.assert_allclose(piece.vertices, expected, atol=1e-12)
    assert (piece.id, piece.closed, piece.score, piece.category) == (4, False, None, DIVIDER)


def test_a_line_that_leaves_and_comes_back_makes_pieces_in_its_own_order():
    x = np.array([20.0, 20.0, -5.0, -5.0])
    line = np.column_stack([x, [-5.0, 20.0, 20.0, -5.0]])
    first, second = cut(MapElement(DIVIDER, line)).elements
    np.testing.assert_allclose(first.vertices, [[20.0, -5.0], [20.0, 15.0]])
    np.testing.assert_allclose(second.vertices, [[-5.0, 15.0], [-5.0, -5.0]])


def test_a_boundary_ring_inside_stays_closed_and_unchanged():
    ring = np.array([[1.0, 1.0], [5.0, 1.0], [5.0, 5.0], [1.0, 5.0]])
    (element,) = cut(MapElement(BOUNDARY, ring, closed=True)).elements
    assert element.closed
    np.testing.assert_array_equal(element.vertices, ring)


def test_a_boundary_ring_that_leaves_is_open_and_joined_at_its_start():
    # It starts inside, leaves ahead, comes back and ends where it started.
    ring = np.array([[20.0, 0.0], [40.0, -2.0], [40.0, 8.0], [20.0, 8.0], [10.0, 4.0]])
    (element,) = cut(MapElement(BOUNDARY, ring, closed=True)).elements
    assert not element.closed
    expected = [[30.0, 8.0], [20.0, 8.0], [10.0, 4.0], [20.0, 0.0], [30.0, -1.0]]
    np.testing.assert_allclose(element.vertices, expected, atol=1e-12)
    assert_no_edge_on_border(element.vertices)


@pytest.mark.parametrize('shift', range(8))
def test_the_pieces_of_a_ring_do_not_depend_on_where_it_starts(shift):
    angles = np.linspace(0.0, 2 * np.pi, 8, endpoint=False) + 0.1
    ring = np.column_stack([20.0 * np.cos(angles), 20.0 * np.sin(angles)])
    pieces = cut(MapElement(BOUNDARY, np.roll(ring, shift, axis=0), closed=True)).elements
    assert len(pieces) == 2
    assert all(not piece.closed for piece in pieces)
    found = sorted(np.round(piece.vertices, 9).tolist() for piece in pieces)
    reference = cut(MapElement(BOUNDARY, ring, closed=True)).elements
    assert found == sorted(np.round(piece.vertices, 9).tolist() for piece in reference)
    for piece in pieces:
        assert_no_edge_on_border(piece.vertices)


def test_a_crossing_is_cut_as_an_area_and_keeps_direction_and_plane():
    plane = np.array([0.1, -0.05])
    xy = np.array([[25.0, 10.0], [25.0, 20.0], [35.0, 20.0], [35.0, 10.0]])  # clockwise
    ring = np.column_stack([xy, xy @ plane + 3.0])
    (element,) = cut(MapElement(CROSSING, ring, closed=True)).elements
    assert element.closed
    assert not shapely.LinearRing(element.vertices[:, :2]).is_ccw
    assert shapely.Polygon(element.vertices[:, :2]).area == pytest.approx(25.0)
    np.testing.assert_allclose(element.vertices[0, :2], [25.0, 10.0])
    # Also at the corner of the range, which lies inside the crossing.
    heights = element.vertices[:, :2] @ plane + 3.0
    np.testing.assert_allclose(element.vertices[:, 2], heights, atol=1e-9)


def test_a_concave_crossing_falls_into_closed_parts():
    ring = np.array([[20.0, 0.0], [40.0, 0.0], [40.0, 9.0], [20.0, 9.0], [20.0, 6.0], [35.0, 5.0]])
    ring = np.concatenate([ring, [[35.0, 4.0], [20.0, 3.0]]])
    parts = cut(MapElement(CROSSING, ring, closed=True)).elements
    box = shapely.box(-30, -15, 30, 15)
    expected = shapely.Polygon(ring).intersection(box)
    assert len(parts) == len(expected.geoms) == 2
    assert all(part.closed for part in parts)
    areas = sum(shapely.Polygon(part.vertices).area for part in parts)
    assert areas == pytest.approx(expected.area)


def test_slivers_are_dropped_by_the_given_limits():
    short = MapElement(DIVIDER, np.array([[29.7, 0.0], [40.0, 0.0]]))
    small = MapElement(
        CROSSING, np.array([[29.9, 0.0], [35.0, 0.0], [35.0, 4.0], [29.9, 4.0]]), closed=True
    )
    assert len(cut(short, small)) == 0
    assert len(cut(short, small, min_length_m=0.2, min_area_m2=0.3)) == 2


def test_the_whole_pose_moves_elements_with_height():
    pose = make_transform(rotation_from_rpy(0.02, -0.06, 2.5), [500.0, -300.0, 12.0])
    local = np.array([[-10.0, 3.0, -0.4], [0.0, 3.5, 0.1], [12.0, 2.0, 0.3]])
    element = MapElement(DIVIDER, transform_points(pose, local))
    result = cut(element, pose=pose)
    np.testing.assert_allclose(result.elements[0].vertices, local, atol=1e-9)
    assert (result.stamp_ns, result.sample_id, result.scene, result.reference) == (
        7,
        's',
        'd',
        'ego',
    )
    np.testing.assert_array_equal(result.map_from_base, pose)


def test_planar_elements_stay_planar_under_a_tilted_pose():
    pose = make_transform(rotation_from_rpy(0.1, 0.1, np.pi / 2), [10.0, 20.0, 5.0])
    element = MapElement(DIVIDER, np.array([[10.0, 25.0], [10.0, 30.0]]))
    (piece,) = cut(element, pose=pose).elements
    np.testing.assert_allclose(piece.vertices, [[5.0, 0.0], [10.0, 0.0]], atol=1e-12)


def test_lines_agree_with_shapely_on_random_walks():
    generator = np.random.default_rng(3)
    box = shapely.box(AREA.x_min, AREA.y_min, AREA.x_max, AREA.y_max)
    for _ in range(100):
        walk = np.cumsum(generator.normal(0.0, 8.0, (20, 2)), axis=0)
        pieces = clip_line(walk, closed=False, area=AREA)
        expected = shapely.LineString(walk).intersection(box).length
        assert sum(polyline_length(piece) for piece, _ in pieces) == pytest.approx(expected)
        for piece, _ in pieces:
            assert_no_edge_on_border(piece)
            assert (np.diff(piece, axis=0) != 0).any(axis=1).all()


def test_elements_far_away_and_an_empty_map():
    far = MapElement(DIVIDER, np.array([[100.0, 0.0], [200.0, 0.0]]))
    assert len(cut(far)) == 0
    assert len(cut()) == 0


def test_a_pose_that_is_not_rigid_is_refused():
    with pytest.raises(DataError, match='map_from_base'):
        cut(pose=2.0 * np.eye(4))


def test_moving_a_local_map_turns_vertices_and_covariances():
    new_from_old = make_transform(rotation_from_rpy(0.0, 0.0, np.pi / 2), [1.0, 0.0, 0.0])
    element = MapElement(
        DIVIDER, np.array([[2.0, 0.0], [3.0, 0.0]]), covariance=np.array([[4.0, 0.5, 1.0]] * 2)
    )
    moved = move_local_map(VectorMap((element,)), new_from_old).elements[0]
    np.testing.assert_allclose(moved.vertices, [[1.0, 2.0], [1.0, 3.0]], atol=1e-12)
    np.testing.assert_allclose(moved.covariance, [[1.0, -0.5, 4.0]] * 2, atol=1e-12)
    back = move_local_map(VectorMap((moved,)), invert(new_from_old)).elements[0]
    np.testing.assert_allclose(back.vertices, element.vertices, atol=1e-12)
    np.testing.assert_allclose(back.covariance, element.covariance, atol=1e-12)
