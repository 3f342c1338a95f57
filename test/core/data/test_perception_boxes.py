"""Oriented boxes and their exact overlaps, against numbers by hand and against shapely."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from core.data.helpers.made_up_poses import pose_table

from gsmap_core.data.perception_boxes import (
    box_corners,
    box_iou,
    drive_polygon,
    intersection_areas,
    iou_bound,
    planar_boxes,
)
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.structures import PerceptionRange

RANGE = PerceptionRange()
QUARTER = np.pi / 2


@pytest.mark.parametrize(
    ('other', 'area'),
    [
        ((0.0, 0.0, 0.0), 1800.0),  # the same box
        ((0.0, 0.0, np.pi), 1800.0),  # the same, driven the other way
        ((20.0, 0.0, 0.0), 40.0 * 30.0),
        ((20.0, 10.0, 0.0), 40.0 * 20.0),
        ((-20.0, -10.0, np.pi), 40.0 * 20.0),
        ((0.0, 0.0, QUARTER), 30.0 * 30.0),  # crossing streets
        ((30.0, 0.0, QUARTER), 15.0 * 30.0),
        ((60.0, 0.0, 0.0), 0.0),  # they touch
        ((0.0, 45.0, QUARTER), 0.0),
        ((300.0, 7.0, 0.3), 0.0),
    ],
)
def test_intersection_area_by_hand(other: tuple[float, float, float], area: float) -> None:
    first = np.array([[0.0, 0.0, 0.0]])
    assert intersection_areas(first, [other], RANGE)[0] == pytest.approx(area, abs=1e-9)
    assert box_iou(first, [other], RANGE)[0] == pytest.approx(area / (3600 - area), abs=1e-12)
    # The same pair elsewhere in the city and turned as a whole; and seen from the other box.
    turn, centre = 0.7, np.array([301_234.5, -4_012_345.25])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = [*(rotation @ other[:2] + centre), other[2] + turn]
    for a, b in (([*centre, turn], moved), (moved, [*centre, turn])):
        assert intersection_areas([a], [b], RANGE)[0] == pytest.approx(area, abs=1e-5)


def test_squares_turned_by_45_degrees_share_a_regular_octagon() -> None:
    square = PerceptionRange(-10.0, 10.0, -10.0, 10.0)
    area = intersection_areas([[5.0, 5.0, 0.2]], [[5.0, 5.0, 0.2 + QUARTER / 2]], square)
    assert area[0] == pytest.approx(2 * (np.sqrt(2.0) - 1) * 20.0**2, abs=1e-9)


def test_areas_equal_shapely_for_random_boxes() -> None:
    rng = np.random.default_rng(0)
    extent = PerceptionRange(-10.0, 40.0, -12.0, 8.0)
    first = rng.uniform([-30, -30, -4], [30, 30, 4], (500, 3))
    second = rng.uniform([-30, -30, -4], [30, 30, 4], (500, 3))
    second[:60, 2] = first[:60, 2]  # parallel
    second[60:80] = first[60:80]  # equal
    second[80:100, 2] = first[80:100, 2] + 1e-9
    polygons = [shapely.polygons(box_corners(boxes, extent)) for boxes in (first, second)]
    expected = shapely.area(shapely.intersection(*polygons))
    areas = intersection_areas(first, second, extent)
    np.testing.assert_allclose(areas, expected, atol=1e-6)
    assert (expected > 100).sum() > 200 and (expected == 0).sum() > 20
    iou = box_iou(first, second, extent)
    np.testing.assert_allclose(iou, expected / (2 * 50 * 20 - expected), atol=1e-9)
    bound = iou_bound(first, second, extent)
    assert (bound >= iou - 1e-12).all()
    np.testing.assert_allclose(bound[:60], iou[:60], atol=1e-12)
    assert (bound[(iou == 0)] == 0).any()


def test_boxes_turn_with_the_heading_and_ignore_pitch() -> None:
    pose = make_transform(rotation_from_rpy(0.1, -0.2, QUARTER), [100.0, 50.0, 7.0])
    extent = PerceptionRange(-10.0, 40.0, -5.0, 9.0)  # its centre is 15 m ahead, 2 m left
    boxes = planar_boxes(pose[None], extent)
    np.testing.assert_allclose(boxes, [[98.0, 65.0, QUARTER]], atol=1e-12)
    corners = box_corners(boxes, extent)[0]
    np.testing.assert_allclose(corners, [[91, 90], [91, 40], [105, 40], [105, 90]], atol=1e-12)


def test_the_polygon_of_a_drive_is_the_union_of_its_boxes() -> None:
    table = pose_table('a', [[0, 0, 0], [20, 0, 0], [20, 0, 0], [300, 0, QUARTER]])
    polygon = drive_polygon(planar_boxes(table.map_from_base, RANGE), RANGE)
    assert polygon.area == pytest.approx(80 * 30 + 1800)
    assert polygon.bounds == pytest.approx((-30, -30, 315, 30))
    assert len(shapely.get_parts(polygon)) == 2
