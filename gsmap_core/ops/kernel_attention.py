"""Geometric kernel attention: weighted sums over a window of integer positions around a point.

No interpolation and no gradient to positions; positions outside the map are clamped to its border.
The sum itself is
`gather_weighted_sum`, with a plain reference beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gsmap_core.errors import ConfigError

_CHUNK = 4096


def kernel_offsets(rows: int, columns: int, dilation: int = 1) -> Tensor:
    """Return the (rows * columns, 2) int64 offsets (dx, dy) of a kernel; dy changes fastest."""
    dx = (torch.arange(columns) - columns // 2) * dilation
    dy = (torch.arange(rows) - rows // 2) * dilation
    return torch.stack(torch.meshgrid(dx, dy, indexing='ij'), dim=-1).reshape(-1, 2)


def gather_weighted_sum_reference(value: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Plain twin of `gather_weighted_sum`: materialises all gathered rows."""
    return (value[indices.long()] * weights[..., None]).sum(dim=-2)


def gather_weighted_sum(
    value: Tensor,  # (R, D)
    indices: Tensor,  # (G, K)
    weights: Tensor,  # (G, K)
) -> Tensor:
    """Sum K weighted rows of `value` for each of G groups, never holding all gathered rows.

    Args:
        value: (R, D) floating.
        indices: (G, K) int32 or int64, row numbers.
        weights: (G, K) in the dtype of `value`.

    Returns:
        (G, D). Differentiable in `value` and `weights`.
    """
    return _GatherWeightedSum.apply(value, indices, weights)


class _GatherWeightedSum(torch.autograd.Function):
    """`embedding_bag` forward, and again backward over the transposed index list.

    The framework's own gradient of `embedding_bag` adds row by row; summing each row's groups in
    one bag is several
    times faster, and exact in the same way on every run (no atomic additions on the CPU).
    """

    @staticmethod
    def forward(ctx, value: Tensor, indices: Tensor, weights: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(value, indices, weights)
        if not len(indices):
            return value.new_zeros(0, value.shape[1])
        return functional.embedding_bag(indices, value, per_sample_weights=weights, mode='sum')

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        value, indices, weights = ctx.saved_tensors
        (groups, taps), dims = indices.shape, value.shape[1]
        if not groups:
            return torch.zeros_like(value), None, torch.zeros_like(weights)
        grad = grad.contiguous()
        grad_value = grad_weights = None
        if ctx.needs_input_grad[0]:
            flat = indices.reshape(-1)
            order = flat.sort(stable=True).indices.to(indices.dtype)
            counts = torch.bincount(flat, minlength=len(value))
            offsets = (counts.cumsum(0) - counts).to(indices.dtype)
            grad_value = functional.embedding_bag(
                torch.div(order, taps, rounding_mode='trunc'),
                grad,
                offsets,
                per_sample_weights=weights.reshape(-1)[order],
                mode='sum',
            )
        if ctx.needs_input_grad[2]:
            grad_weights = torch.empty_like(weights)
            # A few thousand groups at a time stay in the cache.
            for start in range(0, groups, _CHUNK):
                part = slice(start, start + _CHUNK)
                rows = value.index_select(0, indices[part].reshape(-1)).view(-1, taps, dims)
                grad_weights[part] = torch.bmm(rows, grad[part, :, None]).squeeze(2)
        return grad_value, None, grad_weights


def kernel_attention(
    value: Tensor,  # (B, S, heads, D)
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,  # (B, Q, heads, L, K, 2)
    attention_weights: Tensor,  # (B, Q, heads, L, K)
) -> Tensor:
    """Kernel attention over given integer positions, any number of levels.

    Args:
        value: (B, S, heads, D) features of all levels, row-major, one level after the other.
        spatial_shapes: L pairs (H, W).
        sampling_locations: (B, Q, heads, L, K, 2) int64 pixels (x, y) of the level; clamped to it.
        attention_weights: (B, Q, heads, L, K).

    Returns:
        (B, Q, heads * D).

    Raises:
        ConfigError: the shapes do not belong together.
    """
    batch, length, heads, dims = value.shape
    expected = (batch, sampling_locations.shape[1], heads, len(spatial_shapes))
    if (
        length != sum(height * width for height, width in spatial_shapes)
        or tuple(sampling_locations.shape[:4]) != expected
        or sampling_locations.shape[:-1] != attention_weights.shape
    ):
        raise ConfigError(
            f'kernel attention: value {tuple(value.shape)}, levels {list(spatial_shapes)}, '
            'locations '
            f'{tuple(sampling_locations.shape)}, weights {tuple(attention_weights.shape)}; '
            'expected locations '
            f'{(*expected, "K", 2)} with value length equal to the sum of H * W'
        )
    sizes = torch.tensor(list(spatial_shapes), device=value.device)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])[:, None]
    limit = (sizes - 1)[:, None]
    x = sampling_locations[..., 0].clamp(min=0).minimum(limit[..., 1])
    y = sampling_locations[..., 1].clamp(min=0).minimum(limit[..., 0])
    cells = starts + y * sizes[:, 1:] + x  # (B, Q, heads, L, K)
    sample = torch.arange(batch, device=value.device).view(-1, 1, 1, 1, 1)
    head = torch.arange(heads, device=value.device).view(-1, 1, 1)
    rows = (sample * length + cells) * heads + head
    taps = rows.shape[3] * rows.shape[4]
    result = gather_weighted_sum(
        value.reshape(-1, dims), rows.reshape(-1, taps), attention_weights.reshape(-1, taps)
    )
    return result.view(batch, -1, heads * dims)
