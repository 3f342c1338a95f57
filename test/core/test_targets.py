"""Training targets: resampling, allowed orders, unit coordinates, masks."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gsmap_core.config import BevConfig, DecoderConfig, ModelConfig
from gsmap_core.errors import DataError
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap
from gsmap_core.targets import MAX_ORDERS, allowed_orders, draw_bev_mask, make_targets

SQUARE = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])


def make_map(*elements: MapElement, **kwargs) -> VectorMap:
    return VectorMap(elements=elements, **kwargs)


def test_open_line_has_two_orders_with_both_ends():
    orders = allowed_orders(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]]), False, 5)
    expected = [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]]
    assert orders.shape == (2, 5, 2)
    np.testing.assert_allclose(orders[0], expected, atol=1e-12)
    np.testing.assert_allclose(orders[1], expected[::-1], atol=1e-12)


def test_ring_starts_at_every_vertex_in_one_direction():
    orders = allowed_orders(SQUARE, True, 9)
    assert orders.shape == (4, 9, 2)
    # Order k starts at vertex (n - k) mod n.
    np.testing.assert_allclose(orders[:, 0], SQUARE[[0, 3, 2, 1]], atol=1e-12)
    np.testing.assert_allclose(orders[:, -1], orders[:, 0], atol=1e-12)
    for order in orders:
        x, y = order[:, 0], order[:, 1]
        area = 0.5 * np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])
        assert area == pytest.approx(16.0)  # same (counter-clockwise) direction


def test_number_of_orders_of_every_pattern():
    """reference-models.md, 8.4: a crossing of four vertices, and an open line."""
    for pattern, count in (('v0', 20), ('v1', 19), ('v2', 4), ('v3', 8), ('v4', 38)):
        orders = allowed_orders(SQUARE, True, 20, pattern=pattern)
        assert orders.shape == (count, 20, 2)
        np.testing.assert_allclose(orders[0, 0], SQUARE[0], atol=1e-12)
        # Both ends of a ring are the same point, but for v0, where the repeated one wanders.
        assert np.allclose(orders[:, 0], orders[:, -1]) == (pattern != 'v0')
        line = allowed_orders(SQUARE[:2], False, 20, pattern=pattern)
        assert line.shape == (2, 20, 2)


@pytest.mark.golden
@pytest.mark.parametrize('pattern', ['v0', 'v1', 'v2', 'v3', 'v4'])
def test_every_pattern_of_orders_equals_golden_maptr(golden_dir, pattern):
    golden = load_file(golden_dir / 'maptr' / 'gkt_targets.safetensors')
    rings = 0
    for sample in range(2):
        for vertices, count, expected in zip(
            golden[f'gt.{sample}.vertices'].numpy(),
            golden[f'gt.{sample}.num_vertices'],
            golden[f'gt.{sample}.orders_{pattern}'].numpy(),
            strict=True,
        ):
            vertices = vertices[: int(count)]
            closed = bool((vertices[0] == vertices[-1]).all())
            rings += closed
            orders = allowed_orders(
                vertices[:-1] if closed else vertices, closed, expected.shape[1], pattern=pattern
            )
            orders = np.clip(orders, [-15, -30], [15, 30])
            valid = (expected > -9999).all(axis=(1, 2))
            assert len(orders) == valid.sum()
            np.testing.assert_allclose(orders, expected[valid], atol=1e-5)
    assert rings >= 2


def test_large_ring_keeps_a_random_subset_of_orders():
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 5
    first = allowed_orders(ring, True, 20, np.random.default_rng(1))
    second = allowed_orders(ring, True, 20, np.random.default_rng(2))
    assert first.shape == second.shape == (MAX_ORDERS, 20, 2)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, allowed_orders(ring, True, 20, np.random.default_rng(1)))
    starts = first[:, 0]
    assert len(np.unique(starts.round(9), axis=0)) == MAX_ORDERS
    assert np.abs(starts[:, None] - ring).sum(-1).min(1).max() < 1e-9


def test_targets_are_clamped_unit_coordinates_with_padded_orders():
    config = ModelConfig(decoder=DecoderConfig(num_points=5))
    line = MapElement(2, np.array([[-40.0, -15.0, 1.0], [40.0, -15.0, 2.0]]))
    crossing = MapElement(1, SQUARE, closed=True)
    centre = MapElement(3, np.array([[0.0, 0.0], [1.0, 0.0]]))  # not predicted by the model
    targets = make_targets(make_map(line, centre, crossing), config)
    assert targets.labels.tolist() == [2, 1]
    assert targets.num_orders.tolist() == [2, 4]
    assert targets.orders.shape == (2, 4, 5, 2)
    # u grows to the right (-y), v grows backwards (-x).
    np.testing.assert_allclose(targets.points[0, :, 0], 1.0)
    np.testing.assert_allclose(targets.points[0, :, 1], [1, 5 / 6, 0.5, 1 / 6, 0], atol=1e-6)
    torch.testing.assert_close(targets.orders[0, 2], targets.orders[0, 0])
    metres = config.grid.unit_to_metres(targets.orders[1].numpy())
    np.testing.assert_allclose(metres, allowed_orders(SQUARE, True, 5), atol=1e-4)


def test_empty_map_gives_empty_targets():
    targets = make_targets(make_map(), ModelConfig())
    assert len(targets) == 0
    assert targets.points.shape == (0, 20, 2)
    assert targets.orders.shape[2:] == (20, 2)
    assert int(targets.bev_mask.sum()) == 0


def test_map_of_another_frame_is_refused():
    with pytest.raises(DataError, match="frame 'lidar'.*predicts in 'ego'"):
        make_targets(make_map(reference='lidar'), ModelConfig())


def test_mask_is_a_thick_line_around_the_element():
    config = ModelConfig(bev=BevConfig(num_rows=60, num_columns=30))
    vector_map = make_map(MapElement(0, np.array([[-20.0, 5.5], [20.0, 5.5]])))
    mask = draw_bev_mask(vector_map, config.grid, {0})
    # y = 5.5 lies in column 9 (row 0 is x = 30, column 0 is y = 15, one metre each).
    # OpenCV draws a thickness of 3 between fixed-point corners 3 to 5 pixels wide.
    columns = np.nonzero(mask[30])[0]
    assert columns.mean() == 9 and 3 <= len(columns) <= 5
    assert mask[5].sum() == 0
    assert draw_bev_mask(vector_map, config.grid, {1}).sum() == 0


@pytest.mark.golden
@pytest.mark.parametrize('name', ['gkt', 'bevformer', 'v2'])
def test_orders_and_masks_equal_golden_maptr(golden_dir, name):
    golden = load_file(golden_dir / 'maptr' / f'{name}_targets.safetensors')
    config = ModelConfig(
        reference='lidar',
        range=PerceptionRange(-15.0, 15.0, -30.0, 30.0),
        bev=BevConfig(num_rows=40, num_columns=20, order='official'),
    )
    for sample in range(2):
        elements = []
        for label, vertices, count in zip(
            golden[f'gt.{sample}.labels'],
            golden[f'gt.{sample}.vertices'].numpy(),
            golden[f'gt.{sample}.num_vertices'],
            strict=True,
        ):
            vertices = vertices[: int(count)]
            closed = bool((vertices[0] == vertices[-1]).all())
            elements.append(
                MapElement(int(label), vertices[:-1] if closed else vertices, closed=closed)
            )
        targets = make_targets(make_map(*elements, reference='lidar'), config)
        torch.testing.assert_close(targets.labels, golden[f'gt.{sample}.labels'])
        torch.testing.assert_close(targets.num_orders, golden[f'gt.{sample}.num_orders_v2'])
        for row, expected, count in zip(
            targets.orders, golden[f'gt.{sample}.orders_v2'], targets.num_orders, strict=True
        ):
            metres = config.grid.unit_to_metres(row[: int(count)].numpy())
            np.testing.assert_allclose(metres, expected[: int(count)].numpy(), atol=1e-5)
        metres = config.grid.unit_to_metres(targets.points.numpy())
        np.testing.assert_allclose(metres, golden[f'gt.{sample}.pts'].numpy(), atol=1e-5)
        if name == 'v2':
            torch.testing.assert_close(targets.bev_mask, golden[f'gt.{sample}.bev_mask'])


def test_directed_lines_count_in_one_direction_only():
    """Centre lines (reference-models.md, 2.8): one order; dividers still have two."""
    config = ModelConfig(categories=('divider', 'centerline'), decoder=DecoderConfig(num_points=3))
    line = np.array([[0.0, 0.0], [10.0, 0.0]])
    targets = make_targets(make_map(MapElement(3, line), MapElement(0, line)), config)
    assert targets.labels.tolist() == [1, 0]
    assert targets.num_orders.tolist() == [1, 2]
    torch.testing.assert_close(targets.orders[0, 0], targets.points[0])
    torch.testing.assert_close(targets.orders[0, 1], targets.points[0])  # Filled up.
    torch.testing.assert_close(targets.orders[1, 1], targets.points[1].flip(0))


def test_heights_are_sampled_along_the_plane_and_clamped():
    """A step of 3 m in height does not move the samples; z runs over the model's heights."""
    config = ModelConfig(
        bev=BevConfig(z_min_m=-5.0, z_max_m=3.0),
        decoder=DecoderConfig(num_points=5, num_dims=3),
    )
    line = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 3.0], [8.0, 0.0, 9.0]])
    flat = MapElement(0, line[:, :2])
    targets = make_targets(make_map(MapElement(0, line), flat), config)
    assert targets.points.shape == (2, 5, 3) and targets.orders.shape == (2, 2, 5, 3)
    metres = config.grid.unit_to_metres(targets.points.numpy())
    np.testing.assert_allclose(metres[0, :, 0], [0, 2, 4, 6, 8], atol=1e-4)
    np.testing.assert_allclose(metres[0, :, 2], [0, 3, 3, 3, 3], atol=1e-4)
    np.testing.assert_allclose(metres[1, :, 2], 0.0, atol=1e-4)
    assert targets.points[0, 0, 2].item() == pytest.approx(5 / 8)
    ring = MapElement(1, np.insert(SQUARE, 2, [0.0, 1.0, 2.0, 1.0], axis=1), closed=True)
    rings = make_targets(make_map(ring), config)
    assert rings.num_orders.tolist() == [4]
    torch.testing.assert_close(rings.orders[0, :, 0], rings.orders[0, :, -1])
    empty = make_targets(make_map(), config)
    assert empty.points.shape == (0, 5, 3) and empty.orders.shape == (0, 1, 5, 3)
