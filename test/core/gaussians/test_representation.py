"""Parameters, covariance and density of Gaussians, by hand and by inverse."""

import math

import numpy as np
import pytest
import torch

from gsmap_core.gaussians.representation import (
    angles_from_double,
    centers_to_metres,
    chord_angles,
    covariances,
    covariances_to_triples,
    densities,
    precisions,
    triples_to_covariances,
    triples_to_scales,
    wrap_angles,
)
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.structures import PerceptionRange

EGO = BevGrid(PerceptionRange(), 200, 100)
OFFICIAL = BevGrid(PerceptionRange(-15, 15, -30, 30), 200, 100, 'official')


def _parameters(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    scales = torch.rand(*shape, 2, generator=generator, dtype=dtype) * 2 + 0.1
    return scales, torch.randn(*shape, generator=generator, dtype=dtype) * 2


def test_covariance_by_hand() -> None:
    """3 m along the axis at 90 degrees, 1 m across: the long axis is y."""
    matrix = covariances(torch.tensor([3.0, 1.0]), torch.tensor(math.pi / 2))
    torch.testing.assert_close(matrix, torch.tensor([[1.0, 0], [0, 9]]), atol=2e-6, rtol=0)
    # At 45 degrees: mean of the variances on the diagonal, half of their difference beside it.
    matrix = covariances(torch.tensor([3.0, 1.0]), torch.tensor(math.pi / 4))
    torch.testing.assert_close(matrix, torch.tensor([[5.0, 4], [4, 5]]), atol=2e-6, rtol=0)


def test_floor_keeps_points_invertible() -> None:
    zero = covariances(torch.zeros(2, dtype=torch.float64), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(zero, torch.eye(2, dtype=torch.float64) * 1e-6)


def test_precision_is_the_inverse() -> None:
    scales, thetas = _parameters(3, 4)
    product = covariances(scales, thetas) @ precisions(scales, thetas)
    torch.testing.assert_close(product, torch.eye(2).double().expand(3, 4, 2, 2))


def test_density_is_the_exponential_of_the_quadratic_form() -> None:
    scales, thetas = _parameters(6)
    generator = torch.Generator().manual_seed(1)
    points, centers = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    offset = (points - centers)[..., None]
    form = (offset.mT @ torch.linalg.inv(covariances(scales, thetas)) @ offset)[..., 0, 0]
    torch.testing.assert_close(densities(points, centers, scales, thetas), (-form / 2).exp())


def test_triples_and_back() -> None:
    scales, thetas = _parameters(5)
    matrices = covariances(scales, thetas)
    triples = covariances_to_triples(matrices)
    assert triples[0].tolist() == [matrices[0, 0, 0], matrices[0, 0, 1], matrices[0, 1, 1]]
    torch.testing.assert_close(triples_to_covariances(triples), matrices)
    back_scales, back_thetas = triples_to_scales(triples)
    assert (back_scales[:, 0] >= back_scales[:, 1]).all()
    torch.testing.assert_close(covariances(back_scales, back_thetas), matrices)


@pytest.mark.parametrize('grid', [EGO, OFFICIAL])
def test_unit_centres_become_metres_as_the_grid_says(grid: BevGrid) -> None:
    unit = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    metres = centers_to_metres(unit, grid)
    np.testing.assert_allclose(metres.numpy(), grid.unit_to_metres(unit.numpy()), atol=1e-12)
    unit = unit.float().requires_grad_()
    centers_to_metres(unit, grid).sum().backward()
    # x + y in metres: 60 m per unit of one coordinate and 30 m per unit of the other.
    assert sorted(unit.grad[0, 0].abs().tolist()) == pytest.approx([30, 60])


def test_wrapped_angles_describe_the_same_gaussian() -> None:
    scales, thetas = _parameters(7)
    wrapped = wrap_angles(thetas * 3)
    assert (wrapped >= -math.pi / 2).all() and (wrapped < math.pi / 2).all()
    torch.testing.assert_close(covariances(scales, wrapped), covariances(scales, thetas * 3))


def test_double_angles() -> None:
    angles = torch.tensor([-1.2, 0.0, 0.4, 1.5])
    vectors = torch.stack([(2 * angles).cos(), (2 * angles).sin()], -1) * 7
    torch.testing.assert_close(angles_from_double(vectors), angles)
    zero = torch.zeros(2, requires_grad=True)
    angle = angles_from_double(zero)
    angle.backward()
    assert angle.item() == 0 and zero.grad.isfinite().all()


def test_chord_angles() -> None:
    corner = torch.tensor([[0.0, 0], [1, 0], [1, 1]], requires_grad=True)
    angles = chord_angles(corner)
    expected = torch.tensor([0.0, math.pi / 4, math.pi / 2])
    torch.testing.assert_close(angles, expected)
    same = torch.ones(3, 2, requires_grad=True)
    chord_angles(same).sum().backward()
    assert same.grad.isfinite().all()
    assert chord_angles(torch.ones(4, 1, 2)).tolist() == [[0.0]] * 4
