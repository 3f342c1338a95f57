"""Voxel pooling of lifted image features: sums over all frustum points in a voxel.

A frustum point is a depth bin of an image cell: its feature is the context vector of the cell,
times the probability of the bin. The points' features are never held: pooling is a sparse product.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gsmap_core.errors import ConfigError

_CHUNK = 16384


def voxel_pooling_reference(
    probability: Tensor, context: Tensor, voxels: Tensor, num_voxels: int
) -> Tensor:
    """Plain twin of `voxel_pooling`: holds the feature of every frustum point."""
    points = probability[..., None] * context[:, None]  # (I, D, S, C)
    inside = voxels >= 0
    result = points.new_zeros(num_voxels, context.shape[-1])
    return result.index_add(0, voxels[inside].long(), points[inside])


def voxel_pooling(
    probability: Tensor,  # (I, D, S)
    context: Tensor,  # (I, S, C)
    voxels: Tensor,  # (I, D, S)
    num_voxels: int,
) -> Tensor:
    """Sum the features of all frustum points in each voxel.

    Args:
        probability: (I, D, S) of D depth bins of S cells of I images, floating.
        context: (I, S, C) in the dtype of `probability`.
        voxels: (I, D, S) int32 or int64, the voxel of a point; negative: outside the grid.
        num_voxels: V.

    Returns:
        (V, C), zeros in voxels without points. Differentiable in `probability` and `context`.

    Raises:
        ConfigError: the shapes do not belong together.
    """
    images, bins, cells = probability.shape
    if voxels.shape != probability.shape or context.shape[:2] != (images, cells):
        raise ConfigError(
            f'voxel pooling: probability {tuple(probability.shape)}, context '
            f'{tuple(context.shape)}, voxels {tuple(voxels.shape)}; expected (I, D, S), '
            '(I, S, C) and (I, D, S)'
        )
    # Image cell by image cell, so that the rows of the table come sorted.
    voxels = voxels.transpose(1, 2).reshape(-1)
    point = (voxels >= 0).nonzero().squeeze(1)
    weights = probability.transpose(1, 2).reshape(-1).index_select(0, point)
    rows = torch.div(point, bins, rounding_mode='trunc').to(voxels.dtype)
    return _SparseProduct.apply(
        context.flatten(0, 1), weights, rows, voxels.index_select(0, point), num_voxels
    )


def _bag_starts(sorted_bags_of: Tensor, num_bags: int) -> Tensor:
    """Return (num_bags,) where each bag starts when entries are sorted by bag."""
    counts = torch.bincount(sorted_bags_of, minlength=num_bags)
    return (counts.cumsum(0) - counts).to(sorted_bags_of.dtype)


class _SparseProduct(torch.autograd.Function):
    """result[bag] = sum of weight * table[row] over K entries that are sorted by row."""

    @staticmethod
    def forward(ctx, table, weights, rows, bags, num_bags):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(table, weights, rows, bags)
        if not len(rows):
            return table.new_zeros(num_bags, table.shape[1])
        order = bags.sort(stable=True).indices
        return functional.embedding_bag(
            rows[order],
            table,
            _bag_starts(bags, num_bags),
            per_sample_weights=weights[order],
            mode='sum',
        )

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        table, weights, rows, bags = ctx.saved_tensors
        grad_table, grad_weights = torch.zeros_like(table), torch.zeros_like(weights)
        if not len(rows):
            return grad_table, grad_weights, None, None, None
        grad = grad.contiguous()
        if ctx.needs_input_grad[0]:
            grad_table = functional.embedding_bag(
                bags,
                grad,
                _bag_starts(rows, len(table)),
                per_sample_weights=weights,
                mode='sum',
            )
        if ctx.needs_input_grad[1]:
            # Some thousand points at a time stay in the cache.
            for start in range(0, len(rows), _CHUNK):
                part = slice(start, start + _CHUNK)
                features = table.index_select(0, rows[part])
                grad_weights[part] = (features * grad.index_select(0, bags[part])).sum(1)
        return grad_table, grad_weights, None, None, None
