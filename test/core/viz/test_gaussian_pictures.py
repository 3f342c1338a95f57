"""Occupancy and ellipses lie where the covariances say, in every orientation of the view."""

import numpy as np
import pytest

from gsmap_core.categories import DIVIDER
from gsmap_core.errors import DataError
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap
from gsmap_core.viz.bev import BevStyle, BevView
from gsmap_core.viz.gaussians import (
    compose_gaussian_figure,
    draw_gaussians,
    draw_occupancy,
    element_occupancy,
)

#: Ahead and to the left, 2 m long ahead and 0.5 m wide; the second vertex far behind.
ELEMENT = MapElement(
    DIVIDER.id,
    np.array([[10.0, 6.0], [-20.0, -8.0]]),
    score=1.0,
    covariance=np.array([[4.0, 0.0, 0.25], [0.01, 0.0, 0.01]]),
)


def turned_to_lidar(element: MapElement) -> MapElement:
    """Return the same element in a frame with x right and y forward."""
    vertices = np.stack([-element.vertices[:, 1], element.vertices[:, 0]], -1)
    return MapElement(
        element.category, vertices, score=1.0, covariance=element.covariance[:, ::-1]
    )


@pytest.mark.parametrize('heading', ['up', 'right'])
@pytest.mark.parametrize('reference', ['ego', 'lidar'])
def test_occupancy_is_drawn_where_the_view_puts_it(heading: str, reference: str) -> None:
    element, extent = ELEMENT, PerceptionRange()
    if reference == 'lidar':
        element, extent = turned_to_lidar(ELEMENT), PerceptionRange(-15, 15, -30, 30)
    view = BevView(extent, reference, 4.0, heading)
    (mask,) = element_occupancy([element], view)
    assert mask.shape == view.size_px[::-1]
    row, column = np.unravel_index(mask.argmax(), mask.shape)
    expected = view.pixels(element.vertices)
    assert min(np.abs(expected - (column, row)).max(axis=1)) <= 1.0
    x, y = np.round(expected[0]).astype(int)
    assert mask[y, x] > 0.9
    # Two metres ahead is one sigma; two metres to the side are four.
    ahead = (0, -8) if heading == 'up' else (8, 0)
    side = (8, 0) if heading == 'up' else (0, 8)
    assert mask[y + ahead[1], x + ahead[0]] == pytest.approx(np.exp(-0.5), abs=0.1)
    assert mask[y + side[1], x + side[0]] < 0.02


def test_pictures_colour_what_is_covered() -> None:
    vector_map = VectorMap((ELEMENT,))
    style = BevStyle(pixels_per_metre=6.0, ring_step_m=0)
    x, y = np.round(BevView(vector_map.range, 'ego', 6.0).pixels([10.0, 6.4])).astype(int)
    panel = np.array(style.palette.panel)
    for picture in (draw_occupancy(vector_map, style), draw_gaussians(vector_map, style)):
        colour = np.array(DIVIDER.colour_rgb)
        seen = picture[y, x].astype(float)
        assert np.linalg.norm(seen - colour) < np.linalg.norm(panel - colour)
        assert np.abs(picture[5, 5].astype(int) - panel).max() <= 1


def test_weak_elements_are_left_out() -> None:
    vector_map = VectorMap((ELEMENT,))
    blank = draw_occupancy(VectorMap(), BevStyle())
    np.testing.assert_array_equal(draw_occupancy(vector_map, min_score=1.1), blank)


def test_figure_shows_four_views_and_needs_covariances() -> None:
    one = compose_gaussian_figure(VectorMap((ELEMENT,)), title='one', pixels_per_metre=4.0)
    two = compose_gaussian_figure(
        VectorMap((ELEMENT,)), VectorMap((ELEMENT,)), title='two', pixels_per_metre=4.0
    )
    assert two.shape[1] - one.shape[1] == 4 * 30 + 12
    bare = MapElement(DIVIDER.id, ELEMENT.vertices, score=1.0)
    with pytest.raises(DataError, match='has no covariance'):
        compose_gaussian_figure(VectorMap((bare,)))
