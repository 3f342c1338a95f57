"""Pictures of traversal analyses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely

from gsmap_core.errors import DataError
from gsmap_core.viz.colours import PALETTE
from gsmap_core.viz.traversals import (
    MULTI_COLOUR,
    SINGLE_COLOUR,
    TraversalMapStyle,
    draw_histograms,
    draw_traversal_map,
)

PANEL = np.array(PALETTE.panel, dtype=float)


def test_map_of_a_place() -> None:
    ring = shapely.box(0, 0, 60, 60) - shapely.box(20, 20, 40, 40)
    polygons = [ring, shapely.box(40, 0, 100, 15), shapely.box(140, 0, 200, 60)]
    paths = [np.array([[5.0, 55.0], [9.0, 55.0]])] * 3
    style = TraversalMapStyle(max_pixels_per_metre=5.0, margin_m=10.0, opacity=0.4)
    image = draw_traversal_map(polygons, paths, [True, True, False], title='x', style=style)
    # 220 x 80 m at 5 px: 1100 x 400, below a header of 51 px.
    assert image.shape[1:] == (1100, 3) and image.dtype == np.uint8

    def colour(x: float, y: float) -> np.ndarray:
        return image[image.shape[0] - 400 + round((70 - y) * 5), round((x + 10) * 5)].astype(float)

    def over(ink: tuple[int, int, int], layers: int) -> np.ndarray:
        left = 0.6**layers
        return PANEL * left + np.array(ink) * (1 - left)

    np.testing.assert_allclose(colour(10, 30), over(MULTI_COLOUR, 1), atol=2)
    np.testing.assert_allclose(colour(50, 7), over(MULTI_COLOUR, 2), atol=2)
    np.testing.assert_allclose(colour(170, 40), over(SINGLE_COLOUR, 1), atol=2)
    np.testing.assert_allclose(colour(30, 30), PANEL)  # the hole
    np.testing.assert_allclose(colour(120, 30), PANEL)
    np.testing.assert_allclose(colour(5, 55), PALETTE.vehicle, atol=2)
    with pytest.raises(DataError, match='no drive'):
        draw_traversal_map([], [], [])


def test_a_small_place_gets_a_page_wide_enough_for_the_header() -> None:
    image = draw_traversal_map([shapely.box(0, 0, 60, 30)], [np.zeros((1, 2))], [False])
    assert image.shape[1] == 1000


def test_histograms(tmp_path) -> None:
    items = {
        name: {'title': name, 'unit': 'm', 'edges': [0, 1, 2], 'counts': [3, number]}
        for number, name in enumerate('abcd')
    }
    path = tmp_path / 'x.png'
    draw_histograms(items, path, title='all')
    picture = cv2.imread(str(path))
    # Four panels in two rows, the second row with one.
    height, width = picture.shape[:2]
    assert width > height > 500
    empty = picture[int(0.55 * height) :, int(0.4 * width) :]
    assert (empty == 255).all() and (picture != 255).any()
    with pytest.raises(DataError, match='no histogram'):
        draw_histograms({}, path)
