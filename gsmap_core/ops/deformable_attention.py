"""Multi-scale deformable attention in plain PyTorch, in two equal ways.

Every query reads a few learned positions of each head's feature map with bilinear interpolation
and sums them with
learned weights (Deformable DETR). Positions are in fractions of the map: a value u lies at pixel u
* W - 0.5; what falls
outside reads zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gsmap_core.errors import ConfigError
from gsmap_core.ops.kernel_attention import gather_weighted_sum


def deformable_attention(
    value: Tensor,  # (B, S, heads, D)
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,  # (B, Q, heads, L, P, 2)
    attention_weights: Tensor,  # (B, Q, heads, L, P)
) -> Tensor:
    """Sample and sum.

    Args:
        value: (B, S, heads, D) features of all levels, row-major, one level after the other; S is
            the sum of H * W.
        spatial_shapes: L pairs (H, W).
        sampling_locations: (B, Q, heads, L, P, 2) positions (u along the width, v along the
            height) as fractions; used in float32 at least, whatever the dtype of the features.
        attention_weights: (B, Q, heads, L, P).

    Returns:
        (B, Q, heads * D) in the dtype of `value`.

    Raises:
        ConfigError: the shapes do not belong together.
    """
    batch, length, heads, _ = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    expected = (batch, queries, heads, len(spatial_shapes), points)
    if (
        length != sum(height * width for height, width in spatial_shapes)
        or tuple(sampling_locations.shape) != (*expected, 2)
        or tuple(attention_weights.shape) != expected
    ):
        raise ConfigError(
            f'deformable attention: value {tuple(value.shape)}, levels {list(spatial_shapes)}, '
            f'locations {tuple(sampling_locations.shape)}, weights '
            f'{tuple(attention_weights.shape)}; expected locations {(*expected, 2)} and weights '
            f'{expected} with value length equal to the sum of H * W'
        )
    # On the CPU the gather is faster, up to seven times at the published sizes.
    sample = (
        deformable_attention_gather if value.device.type == 'cpu' else deformable_attention_grid
    )
    return sample(value, spatial_shapes, sampling_locations, attention_weights)


def deformable_attention_grid(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Compute `deformable_attention` with `grid_sample`: the reference, and the way on a GPU."""
    batch, _, heads, dims = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    # Half precision is not enough for positions; double stays double.
    dtype = torch.promote_types(value.dtype, torch.float32)
    # grid_sample counts from -1 to 1; align_corners=False is the half-pixel convention above.
    grids = sampling_locations.to(dtype) * 2 - 1
    sampled = []
    start = 0
    for level, (height, width) in enumerate(spatial_shapes):
        feature = value[:, start : start + height * width].to(dtype)
        start += height * width
        feature = feature.permute(0, 2, 3, 1).reshape(batch * heads, dims, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).reshape(batch * heads, queries, points, 2)
        sampled.append(
            functional.grid_sample(
                feature, grid, mode='bilinear', padding_mode='zeros', align_corners=False
            )
        )
    samples = torch.cat(sampled, dim=-1)  # (B * heads, D, Q, L * P)
    weights = attention_weights.to(dtype).transpose(1, 2)
    weights = weights.reshape(batch * heads, 1, queries, samples.shape[-1])
    result = (samples * weights).sum(-1)  # (B * heads, D, Q)
    return result.view(batch, heads * dims, queries).transpose(1, 2).to(value.dtype)


def deformable_attention_gather(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Compute `deformable_attention` as weighted sums over the four cells around each position."""
    batch, length, heads, dims = value.shape
    queries, levels, points = (sampling_locations.shape[i] for i in (1, 3, 4))
    device = value.device
    dtype = torch.promote_types(value.dtype, torch.float32)
    # Flat (B, Q, heads, L * P) arrays throughout: short inner dimensions would be slow.
    flat = (batch, queries, heads, levels * points)
    sizes = torch.tensor([list(shape) for shape in spatial_shapes], device=device)
    starts = (sizes.prod(1).cumsum(0) - sizes.prod(1)).int().repeat_interleave(points)
    height = sizes[:, 0].to(dtype).repeat_interleave(points)
    width = sizes[:, 1].to(dtype).repeat_interleave(points)
    locations = sampling_locations.to(dtype)
    x = locations[..., 0].reshape(flat) * width - 0.5
    y = locations[..., 1].reshape(flat) * height - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    right_share, bottom_share = x - left, y - top
    attention = attention_weights.to(dtype).reshape(flat)
    sample = torch.arange(batch, device=device, dtype=torch.int32).view(-1, 1, 1, 1)
    head = torch.arange(heads, device=device, dtype=torch.int32)[:, None]
    base = sample * (length * heads) + starts * heads + head
    row_stride = width.int() * heads
    indices, weights = [], []
    for row, row_share in ((top, 1 - bottom_share), (top + 1, bottom_share)):
        row_weight = attention * row_share * ((row >= 0) & (row < height))
        # Clamped before the conversion: what lies far outside has no integer.
        row_base = base + row.clamp(min=0).minimum(height - 1).int() * row_stride
        for column, share in ((left, 1 - right_share), (left + 1, right_share)):
            weights.append(row_weight * share * ((column >= 0) & (column < width)))
            indices.append(row_base + column.clamp(min=0).minimum(width - 1).int() * heads)
    taps = 4 * levels * points
    result = gather_weighted_sum(
        value.to(dtype).reshape(-1, dims),
        torch.cat(indices, dim=-1).view(-1, taps),
        torch.cat(weights, dim=-1).view(-1, taps),
    )
    return result.view(batch, queries, heads * dims).to(value.dtype)


def compass_offsets(num_heads: int, num_points: int) -> Tensor:
    """Return the (heads, P, 2) initial offsets: one direction per head, farther with each point.

    Directions are evenly spaced and scaled so that the larger component is 1; point i lies i + 1
    pixels out.
    """
    angles = torch.arange(num_heads, dtype=torch.float32) * (2.0 * math.pi / num_heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions / directions.abs().amax(dim=-1, keepdim=True)
    return directions[:, None] * torch.arange(1, num_points + 1, dtype=torch.float32)[:, None]
