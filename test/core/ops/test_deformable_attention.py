import pytest
import torch
from safetensors.torch import load_file

from gsmap_core.errors import ConfigError
from gsmap_core.ops.deformable_attention import (
    compass_offsets,
    deformable_attention,
    deformable_attention_gather,
    deformable_attention_grid,
)

WAYS = (deformable_attention_gather, deformable_attention_grid)


def _sample(way, u: float, v: float) -> float:
    """Read the map [[0, 1, 2], [3, 4, 5]] at one position."""
    value = torch.arange(6.0).view(1, 6, 1, 1)
    location = torch.tensor([u, v]).view(1, 1, 1, 1, 1, 2)
    return float(way(value, [(2, 3)], location, torch.ones(1, 1, 1, 1, 1)))


@pytest.mark.parametrize('way', WAYS)
def test_positions_are_fractions_with_half_pixel_centres(way) -> None:
    assert _sample(way, 0.5 / 3, 0.25) == pytest.approx(0.0, abs=1e-6)  # centre of the first cell
    assert _sample(way, 2.5 / 3, 0.75) == pytest.approx(5.0, abs=1e-5)  # centre of the last
    assert _sample(way, 0.5, 0.5) == pytest.approx(2.5, abs=1e-6)  # between rows: (1 + 4) / 2
    assert _sample(way, 0.5 / 3, 0.0) == pytest.approx(0.0, abs=1e-6)
    assert _sample(way, 2.5 / 3, 1.0) == pytest.approx(2.5, abs=1e-5)  # half of 5, half outside
    assert _sample(way, 3.0, 0.5) == 0.0
    assert _sample(way, -1e12, 1e12) == 0.0


@pytest.mark.parametrize('way', WAYS)
def test_gradients_against_finite_differences(way) -> None:
    """Positions keep clear of the cell borders, where bilinear interpolation has kinks."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    value = draw(2, 6, 2, 3).requires_grad_()
    locations = (draw(2, 4, 2, 1, 2, 2) * 0.1 + 0.3).requires_grad_()
    weights = draw(2, 4, 2, 1, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *inputs: way(inputs[0], [(2, 3)], inputs[1], inputs[2]),
        (value, locations, weights),
    )


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_both_ways_agree_over_levels_and_outside(dtype: torch.dtype) -> None:
    """Values and gradients; a third of the positions lies outside the maps."""
    shapes, results = [(4, 5), (2, 3)], []
    for way in WAYS:
        generator = torch.Generator().manual_seed(3)

        def draw(*shape: int, generator=generator) -> torch.Tensor:
            return torch.rand(*shape, generator=generator, dtype=dtype)

        value = draw(2, 26, 3, 4).requires_grad_()
        locations = (draw(2, 7, 3, 2, 4, 2) * 1.5 - 0.25).requires_grad_()
        weights = draw(2, 7, 3, 2, 4).requires_grad_()
        result = way(value, shapes, locations, weights)
        (result * draw(2, 7, 12)).sum().backward()
        results.append([result.detach(), value.grad, locations.grad, weights.grad])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_compass_offsets() -> None:
    offsets = compass_offsets(4, 2)
    expected = torch.tensor(
        [[[1.0, 0], [2, 0]], [[0, 1], [0, 2]], [[-1, 0], [-2, 0]], [[0, -1], [0, -2]]]
    )
    torch.testing.assert_close(offsets, expected, rtol=0, atol=1e-6)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ConfigError, match='levels'):
        deformable_attention(
            torch.zeros(1, 5, 1, 1),
            [(2, 3)],
            torch.zeros(1, 1, 1, 1, 1, 2),
            torch.ones(1, 1, 1, 1, 1),
        )


@pytest.mark.golden
def test_golden_maptr_deformable_attention(golden_dir) -> None:
    """The published operator over two levels, forward."""
    ops = load_file(golden_dir / 'maptr' / 'ops.safetensors')
    shapes = [(int(h), int(w)) for h, w in ops['msda.spatial_shapes']]
    result = deformable_attention(
        ops['msda.value'], shapes, ops['msda.sampling_locations'], ops['msda.attention_weights']
    )
    torch.testing.assert_close(result, ops['msda.output'], rtol=0, atol=1e-5)
