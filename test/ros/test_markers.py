"""Markers: stable and unique ids, deletion of what vanished, closed rings, finite numbers."""

from __future__ import annotations

import numpy as np
import pytest

from gsmap_core.categories import CATEGORIES
from gsmap_core.structures import MapElement, VectorMap
from gsmap_ros.markers import MarkerStyle, clear_markers, map_markers, marker_keys

pytestmark = pytest.mark.usefixtures('ros_messages')
ADD, DELETE, DELETE_ALL = 0, 2, 3
LINE = np.array([[0.0, 0.0], [1.0, 0.0]])
RING = np.array(
    [
        [0.0, 0.0],
        [1.0, 0.0],
        [
            1.0,
            1.0,
        ],
    ]
)


def line(category: int = 0, id: int | None = None) -> MapElement:
    return MapElement(category, LINE, score=0.5, id=id)


def as_map(*elements: MapElement) -> VectorMap:
    return VectorMap(elements, stamp_ns=2_000_000_003)


def actions(array: object) -> list[tuple[str, int, int]]:
    return [(m.ns, m.id, m.action) for m in array.markers]  # type: ignore[attr-defined]


def test_ids_follow_the_place_within_the_category() -> None:
    keys = marker_keys([line(0), line(2), line(0), line(1)])
    assert keys == [('divider', 1), ('boundary', 1), ('divider', 2), ('ped_crossing', 1)]


def test_tracked_ids_are_kept_and_never_given_twice() -> None:
    keys = marker_keys([line(0), line(0, id=1), line(0), line(0, id=3), line(0)])
    assert keys[1] == ('divider', 1) and keys[3] == ('divider', 3)
    assert len(set(keys)) == len(keys)
    assert all(number > 0 for _, number in keys)


def test_vanished_elements_are_deleted_one_by_one() -> None:
    style = MarkerStyle()
    first, shown = map_markers(as_map(line(0), line(0), line(1)), 'base_link', style)
    assert actions(first) == [
        ('divider', 1, ADD), ('divider', 2, ADD), ('ped_crossing', 1, ADD),
    ]  # fmt: skip
    second, shown = map_markers(as_map(line(0)), 'base_link', style, shown)
    assert actions(second) == [
        ('divider', 1, ADD), ('divider', 2, DELETE), ('ped_crossing', 1, DELETE),
    ]  # fmt: skip
    third, shown = map_markers(as_map(), 'base_link', style, shown)
    assert actions(third) == [('divider', 1, DELETE)]
    fourth, _ = map_markers(as_map(), 'base_link', style, shown)
    assert actions(fourth) == []


def test_an_element_that_stays_keeps_its_marker_whatever_comes_and_goes() -> None:
    style = MarkerStyle()
    _, shown = map_markers(as_map(line(0, 7), line(0, 8), line(1, 9)), 'base_link', style)
    second, shown = map_markers(as_map(line(1, 9), line(0, 12), line(0, 8)), 'm', style, shown)
    assert actions(second) == [
        ('ped_crossing', 9, ADD), ('divider', 12, ADD), ('divider', 8, ADD),
        ('divider', 7, DELETE),
    ]  # fmt: skip
    # Ids switched off: the places count from 1, and nothing of before is left.
    third, shown = map_markers(as_map(line(0)), 'm', style, shown)
    assert actions(third) == [
        ('divider', 1, ADD), ('divider', 8, DELETE), ('divider', 12, DELETE),
        ('ped_crossing', 9, DELETE),
    ]  # fmt: skip
    assert shown == {('divider', 1)}


def test_marker_geometry_and_look() -> None:
    element = MapElement(1, RING, closed=True, score=0.5)
    array, _ = map_markers(as_map(element), 'base_link', MarkerStyle(0.3, 1.5))
    (marker,) = array.markers
    assert [(p.x, p.y, p.z) for p in marker.points] == [
        (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.0, 0.0, 0.0),
    ]  # fmt: skip
    assert marker.type == marker.LINE_STRIP
    assert marker.scale.x == 0.3
    assert marker.pose.orientation.w == 1.0
    assert marker.color.a == 1.0
    colour = [round(255 * v) for v in (marker.color.r, marker.color.g, marker.color.b)]
    assert tuple(colour) == CATEGORIES[1].colour_rgb
    assert (marker.lifetime.sec, marker.lifetime.nanosec) == (1, 500_000_000)
    assert marker.frame_locked
    assert marker.header.frame_id == 'base_link'
    assert (marker.header.stamp.sec, marker.header.stamp.nanosec) == (2, 3)


def test_heights_are_drawn() -> None:
    element = MapElement(0, np.array([[0.0, 0.0, 1.5], [1.0, 0.0, 2.5]]), score=0.5)
    array, _ = map_markers(as_map(element), 'base_link', MarkerStyle())
    assert [p.z for p in array.markers[0].points] == [1.5, 2.5]


def test_ellipses_have_their_own_namespace_and_go_when_switched_off() -> None:
    covariance = np.array([[4.0, 0.0, 0.25], [1.0, 0.0, 1.0]])
    element = MapElement(0, np.array([[10.0, 5.0], [20.0, 5.0]]), score=0.5, covariance=covariance)
    shown_map = as_map(element, line(2))
    array, shown = map_markers(shown_map, 'base_link', MarkerStyle(ellipses=True))
    assert actions(array) == [
        ('divider', 1, ADD), ('divider_sigma', 1, ADD), ('boundary', 1, ADD),
    ]  # fmt: skip
    ellipse = array.markers[1]
    assert ellipse.type == ellipse.LINE_LIST and len(ellipse.points) == 2 * 2 * 16
    first = np.array([(p.x, p.y) for p in ellipse.points[:32]])
    # One sigma: 2 m ahead and behind, 0.5 m to the sides.
    np.testing.assert_allclose([first.min(0), first.max(0)], [[8, 4.5], [12, 5.5]], atol=1e-9)
    off, shown = map_markers(shown_map, 'base_link', MarkerStyle(), shown)
    assert ('divider_sigma', 1, DELETE) in actions(off)
    assert ('divider_sigma', 1) not in shown


def test_clearing_everything_is_one_marker_with_a_frame() -> None:
    (marker,) = clear_markers('base_link', 5).markers
    assert marker.action == DELETE_ALL and marker.header.frame_id == 'base_link'
