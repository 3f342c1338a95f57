"""Masks in the images and depth bins by hand."""

import numpy as np
import pytest

from gsmap_core.config import BackboneConfig, ImageConfig, ModelConfig
from gsmap_core.image_targets import depth_bins, draw_pv_masks, line_with_heights, project_sweep
from gsmap_core.structures import MapElement, VectorMap

CONFIG = ModelConfig(image=ImageConfig(width_px=160, height_px=96), backbone=BackboneConfig())


def ahead(height_m: float = 1.6) -> np.ndarray:
    """Return pixels_from_ego of a camera above the ego origin, f = 80 px, looking along +x."""
    camera_from_ego = np.array([[0.0, -1, 0, 0], [0, 0, -1, height_m], [1, 0, 0, 0], [0, 0, 0, 1]])
    pixels = np.eye(4)
    pixels[:3, :3] = [[80, 0, 80], [0, 80, 48], [0, 0, 1]]
    return pixels @ camera_from_ego


@pytest.mark.parametrize(('depth_m', 'expected'), [(1.0, 0), (1.49, 0), (1.5, 1), (34.9, 67)])
def test_published_bins(depth_m: float, expected: int) -> None:
    """reference-models.md, 8.4: 1.0 m is bin 0, 34.9 m is bin 67."""
    bins = depth_bins(np.array([[0, 40, 70]]), np.array([depth_m]), 1, CONFIG)
    assert bins.shape == (1, 3, 5)
    assert bins[0, 1, 2] == expected
    assert (bins >= 0).sum() == 1


def test_the_nearest_point_in_range_counts() -> None:
    pixels = np.array([[1, 31, 0], [1, 0, 31], [1, 5, 5], [1, 32, 0]])
    bins = depth_bins(pixels, np.array([8.0, 6.2, 0.9, 35.0]), 2, CONFIG)
    assert bins[1, 0, 0] == 10  # floor((6.2 - 1) / 0.5); 0.9 m and 35 m lie outside.
    assert (bins >= 0).sum() == 1


def test_points_become_pixels_of_the_cameras_that_see_them() -> None:
    """(10, 1, 0): u = 80 - 80 / 10 = 72, v = 48 + 80 * 1.6 / 10 = 60.8, rounded to 61."""
    points = np.array([[10.0, 1, 0], [-10, 1, 0], [10, 9.95, 0]])
    turned = ahead() @ np.diag([-1.0, -1, 1, 1])
    sizes = np.array([[160, 96], [160, 60]])
    pixels, depths = project_sweep(points, np.stack([ahead(), turned]), sizes)
    # The second camera looks back; its picture ends above row 61.
    assert pixels.tolist() == [[0, 61, 72], [0, 61, 0]]
    assert depths.tolist() == [10.0, 10.0]


def test_masks_follow_the_calibration_and_the_heights() -> None:
    """A line on the ground ahead: v = 48 + 128 / x; at camera height it lies on row 48."""
    line = np.array([[4.0, 0.0], [40.0, 0.0]])
    flat, raised = (MapElement(0, line), MapElement(0, np.insert(line, 2, 1.6, axis=1)))
    cameras = np.stack([ahead(), ahead()])
    mask = np.array([True, False])
    for element, rows in ((flat, {1, 2}), (raised, {1})):
        masks = draw_pv_masks(VectorMap((element,)), cameras, mask, CONFIG, {0})
        assert masks.shape == (2, 1, 3, 5)
        found = np.argwhere(masks[0, 0] == 1)
        # u = 80 falls into column 2; v = 80 of x = 4 into row 2, v = 51.2 of x = 40 into row 1.
        assert set(found[:, 0]) == rows and set(found[:, 1]) == {2}
        assert (masks[1] == -1).all()
    assert not draw_pv_masks(VectorMap((flat,)), cameras, mask, CONFIG, {2})[0].any()


def test_points_behind_the_camera_are_left_out() -> None:
    line = MapElement(0, np.array([[-40.0, 1.0], [-1.0, 1.0]]))
    assert not draw_pv_masks(
        VectorMap((line,)), ahead()[None], np.ones(1, bool), CONFIG, {0}
    ).any()


def test_missing_heights_are_the_ground_of_the_frame() -> None:
    line = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    closed = line_with_heights(MapElement(1, line, closed=True), 'ego')
    assert closed[:, 2].tolist() == [0, 0, 0, 0] and (closed[0] == closed[3]).all()
    assert (line_with_heights(MapElement(0, line), 'lidar')[:, 2] == -1.6).all()
    given = np.insert(line, 2, [3.0, 4.0, 5.0], axis=1)
    assert (line_with_heights(MapElement(0, given), 'lidar') == given).all()
