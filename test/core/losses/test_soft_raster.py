"""Soft lines and polygons: values by hand, a plain reference, gradients by finite differences."""

import pytest
import torch

from gsmap_core.losses import soft_raster
from gsmap_core.losses.soft_raster import render_vectors

LINE, POLYGON = torch.tensor([False]), torch.tensor([True])


def plain(points, area, rows, columns, shift=0.0):
    """One element, every pixel with every edge of the closed loop, as the publication draws it."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij')
    centres = torch.stack([x, y], dim=-1).to(points)[:, :, None]
    start = points if area else torch.cat([points, points.flip(0) + shift])
    along = start.roll(-1, 0) - start
    share = ((centres - start) * along).sum(-1) / (along.square().sum(-1) + 1e-5)
    nearest = start + share.clamp(0, 1)[..., None] * along
    squared = (centres - nearest).square().sum(-1).amin(-1)
    if not area:
        return torch.exp(-squared / 2)
    (x0, y0), (x1, y1) = start.T, start.roll(-1, 0).T
    between = (y0 > centres[..., 1]) != (y1 > centres[..., 1])
    crossing = x0 + (centres[..., 1] - y0) * (x1 - x0) / torch.where(y1 == y0, 1.0, y1 - y0)
    inside = (between & (centres[..., 0] < crossing)).sum(-1) % 2 == 1
    return torch.sigmoid(torch.where(inside, squared, -squared) / 4)


def random_points(count, num_points, rows, columns, seed=0):
    """Points on the canvas and up to a fifth of it outside."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(count, num_points, 2, generator=generator, dtype=torch.float64)
    return (1.4 * unit - 0.2) * torch.tensor([columns, rows])


def test_line_values_by_hand():
    # 8.4: 0, 1 and 2 px beside a line.
    line = torch.tensor([[[2.0, 3.0], [9.0, 3.0], [17.0, 3.0]]])
    mask = render_vectors(line, LINE, 8, 20)[0]
    expected = torch.tensor([1.0, 0.60653, 0.13534])
    torch.testing.assert_close(mask[3:6, 10], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(mask[[3, 2, 1], 5], expected, rtol=0, atol=1e-5)
    # Beyond the end the distance is that to the end: sqrt(2) px.
    assert float(mask[4, 18]) == pytest.approx(0.36788, abs=1e-5)


def test_polygon_values_by_hand():
    # 8.4: 0, 1, 2 px inside and 2 px outside. The last vertex is joined to the first.
    square = torch.tensor([[[4.0, 4.0], [14.0, 4.0], [14.0, 14.0], [4.0, 14.0]]])
    for points in (square, torch.cat([square, square[:, :1]], dim=1), square.flip(1)):
        mask = render_vectors(points, POLYGON, 24, 24)[0]
        expected = torch.tensor([0.26894, 0.5, 0.56218, 0.73106])
        torch.testing.assert_close(mask[9, [2, 4, 5, 6]], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(mask[[16, 14, 13, 12], 9], expected, rtol=0, atol=1e-5)
        assert float(mask[9, 9]) == pytest.approx(1 / (1 + 2.718281828 ** (-25 / 4)), abs=1e-6)


def test_even_odd_rule_leaves_holes_where_a_ring_crosses_itself():
    # A pentagram: its heart is wound around twice.
    angle = torch.arange(5) * 4 * torch.pi / 5
    star = torch.stack([30 + 28 * angle.sin(), 30 - 28 * angle.cos()], dim=1)[None]
    mask = render_vectors(star, POLYGON, 60, 60)[0]
    assert float(mask[30, 30]) < 0.01
    assert float(mask[12, 30]) > 0.9


@pytest.mark.parametrize('area', [False, True])
def test_masks_equal_the_plain_formula(area):
    rows, columns = 40, 24
    points = random_points(6, 9, rows, columns)
    # A vertex given twice, and a closed ring.
    points[1, 4], points[2, -1] = points[1, 3], points[2, 0]
    areas = torch.full((6,), area)
    masks = render_vectors(points, areas, rows, columns)
    expected = torch.stack([plain(line, area, rows, columns) for line in points])
    torch.testing.assert_close(masks, expected, rtol=0, atol=5e-8)
    single = render_vectors(points.float(), areas, rows, columns)
    torch.testing.assert_close(single, masks.float(), rtol=0, atol=1e-4)


def test_walking_back_shifted_as_published_changes_little():
    rows, columns = 40, 24
    points = random_points(6, 9, rows, columns)
    masks = render_vectors(points, LINE.expand(6), rows, columns)
    published = torch.stack([plain(line, False, rows, columns, 0.01) for line in points])
    # The steepest slope of exp(-d^2 / 2) is exp(-1/2), the distance changes by up to sqrt(2) %.
    assert 0 < (masks - published).abs().max() < 0.607 * 0.01415


def test_many_blocks_give_what_one_block_gives(monkeypatch):
    points, areas = random_points(7, 5, 12, 9).float(), torch.arange(7) % 3 == 0
    whole = render_vectors(points, areas, 12, 9)
    monkeypatch.setattr(soft_raster, '_CACHED_PIXELS', 12 * 9 * 2)
    torch.testing.assert_close(render_vectors(points, areas, 12, 9), whole, rtol=0, atol=0)


def test_gradient_equals_finite_differences():
    points = random_points(4, 5, 8, 7, seed=3).requires_grad_()
    areas = torch.tensor([False, True, False, True])
    assert torch.autograd.gradcheck(lambda x: render_vectors(x, areas, 8, 7), (points,))


def test_line_is_drawn_towards_a_near_pixel_unlike_in_the_published_backward():
    # 1 px beside the line: the published derivative has the opposite sign there (value >= 1/2).
    points = torch.tensor([[[2.0, 3.0], [9.0, 3.0]]], requires_grad=True)
    render_vectors(points, LINE, 8, 12)[0, 4, 5].backward()
    # d/dy exp(-(4 - y)^2 / 2) at y = 3, spread over both ends as 4/7 and 3/7.
    expected = 0.60653 * torch.tensor([4 / 7, 3 / 7])
    torch.testing.assert_close(points.grad[0, :, 1], expected, rtol=0, atol=1e-4)


def test_empty_and_diverged_elements():
    empty = render_vectors(torch.zeros(0, 5, 2), torch.zeros(0, dtype=torch.bool), 4, 6)
    assert empty.shape == (0, 4, 6)
    points = random_points(3, 5, 4, 6)
    points[1, 2, 0] = torch.nan
    masks = render_vectors(points, torch.tensor([False, True, True]), 4, 6)
    assert masks[1].isnan().all() and masks[[0, 2]].isfinite().all()
