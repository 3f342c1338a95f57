"""BEV features as colours: right way up in every cell order and frame."""

import numpy as np
import pytest

from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.structures import PerceptionRange, VectorMap
from gsmap_core.viz.bev import BevView
from gsmap_core.viz.bev_features import (
    FeaturePanels,
    colour_limits,
    colours_of,
    components_of,
    draw_bev_features,
    seen_from_above,
)

LIDAR_RANGE = PerceptionRange(-15.0, 15.0, -30.0, 30.0)


@pytest.mark.parametrize('order', ['ego', 'official'])
@pytest.mark.parametrize('reference', ['ego', 'lidar'])
def test_front_left_is_up_left(order, reference):
    area = PerceptionRange() if reference == 'ego' else LIDAR_RANGE
    grid = BevGrid(area, 12, 12, order)
    centres = grid.cell_centres()
    ahead, left = centres[..., 0], centres[..., 1]
    if reference == 'lidar':
        ahead, left = centres[..., 1], -centres[..., 0]
    values = np.zeros((12, 12, 3), np.uint8)
    values[(ahead > 20) & (left > 10)] = 255
    picture = seen_from_above(values, grid, BevView(area, reference, 2.0))
    assert picture.shape == (120, 60, 3)
    rows, columns = np.nonzero(picture[..., 0])
    assert rows.max() < 25 and columns.max() < 12 and len(rows) > 100


def test_components_become_colours():
    features = np.zeros((4, 10, 10))
    features[1] = np.arange(100).reshape(10, 10)
    components = components_of(features, np.eye(4)[[1, 0, 2]])
    limits = colour_limits(components)
    np.testing.assert_allclose(limits[:, 0], [1.98, 97.02])
    colours = colours_of(components, limits)
    assert colours[0, 0].tolist() == [0, 0, 0] and colours[9, 9, 0] == 255
    assert colours[5, 0, 0] == pytest.approx(128, abs=3) and not colours[..., 1:].any()


@pytest.mark.parametrize('truth', [None, VectorMap((), stamp_ns=0)])
def test_models_are_drawn_side_by_side(truth):
    grid = BevGrid(PerceptionRange(), 20, 10)
    components = np.random.default_rng(0).random((3, 20, 10))
    panels = [
        FeaturePanels(
            name, ('12 % fixed', 'one place 0.3'), components, components, components[0], grid
        )
        for name in ('without', 'with')
    ]
    picture = draw_bev_features(panels, truth, title='A drive')
    one = draw_bev_features(panels[:1], truth)
    assert picture.shape[0] == one.shape[0] and picture.dtype == np.uint8
    assert picture.shape[1] == (2 + (truth is not None)) * (240 + 24)
    assert (picture[44 + 40 :, -252:-12] != 255).mean() > 0.5
