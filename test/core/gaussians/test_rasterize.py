"""Rasterised Gaussians: by hand, against finite differences, and the fast way against the plain.

Tolerances of the comparison in single precision: occupancies 2e-6, gradients 1e-5 of the largest.
"""

import math

import pytest
import torch

from gsmap_core.errors import ConfigError
from gsmap_core.gaussians import tiles
from gsmap_core.gaussians.rasterize import rasterize_gaussians
from gsmap_core.gaussians.unions import UNIONS
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.structures import PerceptionRange

#: Cells of 1 m x 1 m; the middle one has its centre at the origin.
METRE = BevGrid(PerceptionRange(-3.5, 3.5, -2.5, 2.5), 7, 5)
#: Neither side a multiple of a tile, cells not square.
CANVAS = BevGrid(PerceptionRange(-9, 9, -6, 6), 37, 21)
OFFICIAL = BevGrid(PerceptionRange(-6, 6, -9, 9), 37, 21, 'official')
WAYS = ('reference', 'fast')


def draw(
    *batch: int, places: int = 5, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gaussians of many sizes and angles, some of them outside the canvas."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*batch, places, *shape, generator=generator, dtype=torch.float64)

    values = ((rand(2) - 0.5) * 20, 0.1 + rand(2).square() * 2.5, rand() * 8 - 4)
    centers, scales, thetas = (value.to(dtype).requires_grad_() for value in values)
    return centers, scales, thetas


def result_and_gradients(inputs, grid: BevGrid, union: str, way: str) -> list[torch.Tensor]:
    """Occupancies and the gradients of a weighted sum of them."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    occupancy = rasterize_gaussians(*leaves, grid, union, way)
    weights = torch.arange(occupancy.numel(), dtype=torch.float64).mul(0.7).sin()
    (occupancy * weights.view_as(occupancy).to(occupancy)).sum().backward()
    return [occupancy.detach(), *(leaf.grad for leaf in leaves)]


def assert_same(inputs, grid: BevGrid, union: str, atol: float = 2e-6, rtol: float = 1e-5) -> None:
    fast, reference = (result_and_gradients(inputs, grid, union, way) for way in WAYS[::-1])
    assert fast[0].shape == reference[0].shape and fast[0].dtype == reference[0].dtype
    torch.testing.assert_close(fast[0], reference[0], atol=atol, rtol=0)
    for found, expected in zip(fast[1:], reference[1:], strict=True):
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(found, expected, atol=rtol * max(largest, 1.0), rtol=0)


def gaussian(x: float, y: float, along: float, across: float, theta: float = 0.0):
    """One element of one Gaussian in double precision."""
    return (
        torch.tensor([[x, y]], dtype=torch.float64),
        torch.tensor([[along, across]], dtype=torch.float64),
        torch.tensor([theta], dtype=torch.float64),
    )


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('union', UNIONS)
def test_one_gaussian_at_a_cell_centre(union: str, way: str) -> None:
    """Two metres along x, one along y: rows run along x, columns along y."""
    occupancy = rasterize_gaussians(*gaussian(0, 0, 2, 1), METRE, union, way)
    assert occupancy.shape == (7, 5)
    density = {(3, 2): 1.0, (1, 2): math.exp(-0.5), (3, 3): math.exp(-0.5), (5, 1): math.exp(-1)}
    for cell, value in density.items():
        if union == 'exponential':
            value = 1 - math.exp(-value)
        elif union == 'probabilistic':
            value = min(value, 1 - 1e-4)
        assert occupancy[cell].item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize('way', WAYS)
def test_two_overlapping_gaussians(way: str) -> None:
    """Half way between two Gaussians two metres apart, and on the first one."""
    pairs = zip(gaussian(1, 0, 1, 1), gaussian(-1, 0, 1, 1), strict=True)
    two = [torch.cat(pair) for pair in pairs]
    near, far = math.exp(-0.5), math.exp(-2)
    expected = {
        'probabilistic': (1 - (1 - near) ** 2, 1 - 1e-4 * (1 - far)),
        'max': (near, 1.0),
        'clamped_sum': (1.0, 1.0),
        'exponential': (1 - math.exp(-2 * near), 1 - math.exp(-1 - far)),
    }
    for union, values in expected.items():
        occupancy = rasterize_gaussians(*two, METRE, union, way)
        found = (occupancy[3, 2].item(), occupancy[2, 2].item())
        assert found == pytest.approx(values, abs=2e-6), union
    # One metre beside the middle: G = exp(-1) of both, whose sum stays below 1.
    assert rasterize_gaussians(*two, METRE, 'clamped_sum', way)[3, 1].item() == pytest.approx(
        2 * math.exp(-1), abs=2e-6
    )


@pytest.mark.parametrize('way', WAYS)
def test_angle_runs_from_x_towards_y_in_both_orders(way: str) -> None:
    """A long Gaussian at 45 degrees covers the cell ahead on the left, not that on the right."""
    official = BevGrid(PerceptionRange(-3.5, 3.5, -2.5, 2.5), 5, 7, 'official')
    for grid in (METRE, official):
        occupancy = rasterize_gaussians(*gaussian(0, 0, 2, 0.5, math.pi / 4), grid, 'max', way)
        centres = torch.as_tensor(grid.cell_centres())
        at = {
            tuple(int(v) for v in point): value.item()
            for point, value in zip(centres.round().view(-1, 2), occupancy.view(-1), strict=True)
        }
        assert at[1, 1] == at[-1, -1] == pytest.approx(math.exp(-0.25), abs=1e-5)
        assert at[1, -1] == at[-1, 1] == pytest.approx(math.exp(-4), abs=1e-5)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('union', UNIONS)
def test_gradients_against_finite_differences(union: str, way: str) -> None:
    inputs = draw(2, places=3, dtype=torch.float64, seed=3)
    inputs[0].data *= 0.4  # most of them on the canvas
    grid = BevGrid(PerceptionRange(-5, 5, -4, 4), 11, 9)
    assert torch.autograd.gradcheck(
        lambda *values: rasterize_gaussians(*values, grid, union, way), inputs
    )


@pytest.mark.parametrize('grid', [CANVAS, OFFICIAL, METRE], ids=['ego', 'official', 'tiny'])
@pytest.mark.parametrize('union', UNIONS)
def test_fast_equals_reference(union: str, grid: BevGrid) -> None:
    assert_same(draw(6), grid, union)


@pytest.mark.parametrize('batch', [(), (1,), (0,), (2, 3), (2, 0, 3)])
@pytest.mark.parametrize('places', [1, 4])
def test_any_batch_shape(batch: tuple[int, ...], places: int) -> None:
    inputs = draw(*batch, places=places)
    assert_same(inputs, CANVAS, 'probabilistic')
    assert rasterize_gaussians(*inputs, CANVAS).shape == (*batch, 37, 21)


@pytest.mark.parametrize('union', UNIONS)
def test_batches_are_drawn_element_by_element(union: str) -> None:
    inputs = draw(2, 3)
    whole = rasterize_gaussians(*inputs, CANVAS, union)
    alone = rasterize_gaussians(*(value[1, 2] for value in inputs), CANVAS, union)
    torch.testing.assert_close(whole[1, 2], alone, atol=1e-7, rtol=0)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('union', UNIONS)
def test_no_gaussians_give_an_empty_canvas(union: str, way: str) -> None:
    inputs = draw(2, places=0)
    occupancy = rasterize_gaussians(*inputs, CANVAS, union, way)
    assert torch.equal(occupancy, torch.zeros(2, 37, 21))
    occupancy.sum().backward()
    assert inputs[0].grad.shape == (2, 0, 2)


@pytest.mark.parametrize('union', UNIONS)
@pytest.mark.parametrize('scale', [0.0, 1e-4, 50.0, 1e4])
def test_tiny_and_huge_scales(scale: float, union: str) -> None:
    """Points between or on cell centres, and Gaussians that cover everything."""
    centers, scales, thetas = draw(3)
    with torch.no_grad():
        scales[..., 0] = scale
        scales[0, :, 1] = scale
        # On a cell centre, so that even a point is seen.
        centers[:, 0] = torch.as_tensor(CANVAS.cell_centres()[3, 4]).float()
    # Across a thin Gaussian, far along it, the offset is a difference of large numbers.
    assert_same((centers, scales, thetas), CANVAS, union, atol=2e-5, rtol=1e-4)


def test_far_outside_and_on_the_edge() -> None:
    centers, scales, thetas = draw(3)
    with torch.no_grad():
        centers[0] *= 1e6
        centers[1] = torch.tensor([9.0, 6.0])  # the corner of the canvas
    assert_same((centers, scales, thetas), CANVAS, 'probabilistic')
    assert not rasterize_gaussians(centers, scales, thetas, CANVAS)[0].any()


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype, way: str) -> None:
    halves = [value.detach().to(dtype).requires_grad_() for value in draw(2)]
    occupancy = rasterize_gaussians(*halves, CANVAS, backend=way)
    occupancy.sum().backward()
    assert occupancy.dtype == dtype and all(value.grad.dtype == dtype for value in halves)
    singles = [value.detach().float().requires_grad_() for value in halves]
    expected = rasterize_gaussians(*singles, CANVAS, backend=way)
    assert torch.equal(occupancy, expected.to(dtype))
    expected.sum().backward()
    for half, single in zip(halves, singles, strict=True):
        torch.testing.assert_close(half.grad, single.grad.to(dtype))


@pytest.mark.parametrize('way', WAYS)
def test_mixed_precision_changes_nothing(way: str) -> None:
    inputs = draw(2)
    plain = result_and_gradients(inputs, CANVAS, 'probabilistic', way)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = result_and_gradients(inputs, CANVAS, 'probabilistic', way)
    for first, second in zip(plain, mixed, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize('way', WAYS)
def test_the_first_of_equal_gaussians_has_the_gradient_of_max(way: str) -> None:
    """As in a ring, whose last Gaussian repeats the first."""
    inputs = [value.detach()[:, [0, 1, 0]].requires_grad_() for value in draw(2)]
    rasterize_gaussians(*inputs, CANVAS, 'max', way).square().sum().backward()
    for value in inputs:
        assert value.grad[:, 0].abs().sum() > 0
        assert not value.grad[:, 2].any()


def test_cut_off_tails_stay_within_the_stated_error() -> None:
    """Twenty equal Gaussians, whose tails add up; in double precision rounding is no excuse."""
    inputs = [value.expand(20, *value.shape[1:]).clone() for value in gaussian(0.3, 0.1, 1.1, 0.9)]
    for dtype, limit in ((torch.float32, 1.2e-6), (torch.float64, 1e-14)):
        for union in UNIONS:
            given = [value.to(dtype) for value in inputs]
            fast, reference = (rasterize_gaussians(*given, CANVAS, union, way) for way in WAYS)
            assert (fast - reference).abs().max() <= limit, union


def test_nothing_large_is_kept_for_the_backward_pass() -> None:
    """One number per cell, whereas the reference keeps every Gaussian at every cell."""
    kept = {}
    for way in WAYS:
        sizes: list[int] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda value, sizes=sizes: sizes.append(value.numel()) or value, lambda value: value
        )
        with hooks:
            size = rasterize_gaussians(*draw(4, places=20), CANVAS, backend=way).numel()
        kept[way] = sum(sizes) / size
    assert kept['fast'] < 2 < 20 < kept['reference']


@pytest.mark.parametrize('union', UNIONS)
def test_the_incoming_gradient_is_left_alone(union: str) -> None:
    """On a canvas of exactly one tile, where cutting it up could be no copy."""
    inputs = draw(1)
    occupancy = rasterize_gaussians(*inputs, BevGrid(PerceptionRange(), 8, 8), union, 'fast')
    incoming = torch.full_like(occupancy, 2.0)
    occupancy.backward(incoming)
    assert torch.all(incoming == 2.0) and inputs[0].grad.any()


def test_long_gaussians_are_not_evaluated_off_their_axis() -> None:
    """At 45 degrees the oriented box leaves most of the window empty."""
    grid = BevGrid(PerceptionRange(-40, 40, -40, 40), 160, 160)
    inputs = [value.float()[None] for value in gaussian(0, 0, 6, 0.2, math.pi / 4)]
    cut = tiles._Tiles.of(grid, inputs[0])
    found = sum(len(chunk.tiles) for chunk in tiles._chunks(*inputs, grid, cut, False))
    assert 10 < found < 0.2 * cut.per_element
    assert_same(inputs, grid, 'probabilistic')


@pytest.mark.parametrize('way', WAYS)
def test_numbers_that_are_not_finite_show_up(way: str) -> None:
    centers, scales, thetas = (value.detach() for value in draw(2))
    centers[1, 0, 0] = math.nan
    for union in UNIONS:
        occupancy = rasterize_gaussians(centers, scales, thetas, CANVAS, union, way)
        assert occupancy[0].isfinite().all() and occupancy[1].isnan().all()


def test_wrong_arguments_are_named() -> None:
    centers, scales, thetas = draw(2)
    with pytest.raises(ConfigError, match=r'centers \(2, 5, 2\).*thetas \(5,\)'):
        rasterize_gaussians(centers, scales, thetas[0], CANVAS)
    with pytest.raises(ConfigError, match='floating-point'):
        rasterize_gaussians(centers, scales, thetas.long(), CANVAS)
    with pytest.raises(ConfigError, match="union 'sum'"):
        rasterize_gaussians(centers, scales, thetas, CANVAS, 'sum')
    with pytest.raises(ConfigError, match="backend 'cuda'"):
        rasterize_gaussians(centers, scales, thetas, CANVAS, backend='cuda')
