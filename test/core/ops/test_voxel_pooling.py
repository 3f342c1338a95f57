import pytest
import torch

from gsmap_core.errors import ConfigError
from gsmap_core.ops.voxel_pooling import voxel_pooling, voxel_pooling_reference


def _case(dtype: torch.dtype, index_dtype: torch.dtype = torch.int64):
    """Three images of four cells, five bins; some points outside, some voxels empty."""
    generator = torch.Generator().manual_seed(1)
    probability = torch.rand(3, 5, 4, generator=generator, dtype=dtype)
    context = torch.randn(3, 4, 2, generator=generator, dtype=dtype)
    voxels = torch.randint(-3, 6, (3, 5, 4), generator=generator).to(index_dtype)
    return probability.requires_grad_(), context.requires_grad_(), voxels


@pytest.mark.parametrize('index_dtype', [torch.int32, torch.int64])
def test_equals_the_reference_with_gradients(index_dtype: torch.dtype) -> None:
    results = []
    for function in (voxel_pooling, voxel_pooling_reference):
        probability, context, voxels = _case(torch.float32, index_dtype)
        pooled = function(probability, context, voxels, 9)
        assert (pooled[6:] == 0).all()
        (pooled * torch.arange(18.0).view(9, 2)).sin().sum().backward()
        results.append((pooled.detach(), probability.grad, context.grad))
    for fast, reference in zip(*results, strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-5, atol=1e-6)


def test_gradients_against_finite_differences() -> None:
    probability, context, voxels = _case(torch.float64)
    assert torch.autograd.gradcheck(
        lambda p, c: voxel_pooling(p, c, voxels, 6), (probability, context)
    )


def test_one_point_by_hand() -> None:
    """Probability 0.5 of a cell with context (2, 4) lands in voxel 3; the other bin is outside."""
    voxels = torch.tensor([[[3], [-1]]])
    probability = torch.tensor([[[0.5], [0.5]]])
    pooled = voxel_pooling(probability, torch.tensor([[[2.0, 4.0]]]), voxels, 5)
    assert pooled.tolist() == [[0, 0], [0, 0], [0, 0], [1, 2], [0, 0]]


def test_nothing_inside_gives_zeros_and_zero_gradients() -> None:
    probability, context, voxels = _case(torch.float32)
    pooled = voxel_pooling(probability, context, torch.full_like(voxels, -1), 4)
    pooled.sum().backward()
    assert pooled.tolist() == [[0, 0]] * 4
    assert not probability.grad.any() and not context.grad.any()


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    probability, context, voxels = _case(torch.float32)
    with pytest.raises(ConfigError, match=r'context \(3, 3, 2\)'):
        voxel_pooling(probability, context[:, :3], voxels, 6)


@pytest.mark.gpu
def test_equals_the_reference_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip('no CUDA device')
    results = []
    for function in (voxel_pooling, voxel_pooling_reference):
        probability, context, voxels = _case(torch.float32, torch.int32)
        pooled = function(probability.cuda(), context.cuda(), voxels.cuda(), 9)
        pooled.sin().sum().backward()
        results.append((pooled.detach().cpu(), probability.grad, context.grad))
    for fast, reference in zip(*results, strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-5, atol=1e-6)
