import pytest
import torch
from safetensors.torch import load_file

from gsmap_core.errors import ConfigError
from gsmap_core.ops.kernel_attention import (
    gather_weighted_sum,
    gather_weighted_sum_reference,
    kernel_attention,
    kernel_offsets,
)


def _case(groups: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(groups)
    value = torch.randn(37, 5, generator=generator, dtype=dtype)
    indices = torch.randint(0, 37, (groups, 6), generator=generator)
    weights = torch.randn(groups, 6, generator=generator, dtype=dtype)
    return value.requires_grad_(), indices, weights.requires_grad_()


@pytest.mark.parametrize('index_dtype', [torch.int32, torch.int64])
@pytest.mark.parametrize('groups', [1, 64])
def test_fast_sum_equals_the_reference_with_gradients(groups: int, index_dtype) -> None:
    """Equal up to the order of float32 sums; rows repeat, and some are never used."""
    results = []
    for function in (gather_weighted_sum, gather_weighted_sum_reference):
        value, indices, weights = _case(groups, torch.float32)
        result = function(value, indices.to(index_dtype), weights)
        (result * torch.arange(5.0)).sin().sum().backward()
        results.append((result.detach(), value.grad, weights.grad))
    for fast, reference in zip(*results, strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-4, atol=2e-5)


def test_fast_sum_gradients_against_finite_differences() -> None:
    value, indices, weights = _case(9, torch.float64)
    assert torch.autograd.gradcheck(
        lambda v, w: gather_weighted_sum(v, indices, w), (value, weights)
    )


def test_no_groups_give_an_empty_result_and_zero_gradients() -> None:
    value, indices, weights = _case(1, torch.float32)
    result = gather_weighted_sum(value, indices[:0], weights[:0])
    assert result.shape == (0, 5)
    result.sum().backward()
    assert torch.equal(value.grad, torch.zeros_like(value))


def test_kernel_offsets_run_along_y_first() -> None:
    assert kernel_offsets(3, 5)[:4].tolist() == [[-2, -1], [-2, 0], [-2, 1], [-1, -1]]
    assert kernel_offsets(3, 5)[-1].tolist() == [2, 1]


def test_positions_outside_repeat_the_border() -> None:
    value = torch.arange(6.0).view(1, 6, 1, 1)  # 2 rows x 3 columns
    locations = torch.tensor([[-5, 0], [9, 9], [1, -1]]).view(1, 3, 1, 1, 1, 2)
    result = kernel_attention(value, [(2, 3)], locations, torch.ones(1, 3, 1, 1, 1))
    assert result.flatten().tolist() == [0.0, 5.0, 1.0]


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ConfigError, match=r'value \(1, 6, 1, 1\)'):
        kernel_attention(
            torch.zeros(1, 6, 1, 1),
            [(2, 2)],
            torch.zeros(1, 3, 1, 1, 1, 2, dtype=torch.int64),
            torch.ones(1, 3, 1, 1, 1),
        )


@pytest.mark.golden
def test_golden_maptr_kernel_attention(golden_dir) -> None:
    """Forward and both gradients of the published operator (two levels)."""
    ops = load_file(golden_dir / 'maptr' / 'ops.safetensors')
    for rows, columns, dilation in ((3, 5, 1), (3, 3, 2)):
        expected = ops[f'gka.grid_offsets_xy.k{rows}x{columns}_d{dilation}']
        assert torch.equal(kernel_offsets(rows, columns, dilation), expected)
    value = ops['gka.value'].requires_grad_()
    weights = ops['gka.attention_weights'].requires_grad_()
    shapes = [(int(h), int(w)) for h, w in ops['gka.spatial_shapes']]
    result = kernel_attention(value, shapes, ops['gka.sampling_locations'], weights)
    torch.testing.assert_close(result, ops['gka.output'], rtol=0, atol=1e-5)
    result.backward(ops['gka.grad_output'])
    torch.testing.assert_close(value.grad, ops['gka.grad_value'], rtol=0, atol=1e-5)
    torch.testing.assert_close(weights.grad, ops['gka.grad_attention_weights'], rtol=0, atol=1e-5)
