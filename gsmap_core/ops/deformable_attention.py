"""Multi-scale deformable attention in plain PyTorch.

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
            height) as fractions; used in
            float32 at least, whatever the dtype of the features.
        attention_weights: (B, Q, heads, L, P).

    Returns:
        (B, Q, heads * D) in the dtype of `value`.

    Raises:
        ConfigError: the shapes do not belong together.
    """
    batch, length, heads, dims = value.shape
    queries, levels, points = (sampling_locations.shape[i] for i in (1, 3, 4))
    expected = (batch, queries, heads, len(spatial_shapes), points)
    if (
        length != sum(height * width for height, width in spatial_shapes)
        or tuple(sampling_locations.shape) != (*expected, 2)
        or tuple(attention_weights.shape) != expected
    ):
        raise ConfigError(
            f'deformable attention: value {tuple(value.shape)}, levels {list(spatial_shapes)}, '
            'locations '
            f'{tuple(sampling_locations.shape)}, weights {tuple(attention_weights.shape)}; '
            'expected locations '
            f'{(*expected, 2)} and weights {expected} with value length equal to the sum of H * W'
        )
    # Half precision is not enough for positions; double stays double.
    dtype = torch.promote_types(value.dtype, torch.float32)
    # grid_sample counts from -1 to 1 over the map; align_corners=False is exactly the half-pixel
    # convention above.
    grids = sampling_locations.to(dtype) * 2 - 1
    sampled = []
    start = 0
    for level in range(levels):
        height, width = spatial_shapes[level]
        feature = value[:, start : start + height * width]
        start += height * width
        feature = feature.permute(0, 2, 3, 1).reshape(batch * heads, dims, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).reshape(batch * heads, queries, points, 2)
        sampled.append(
            functional.grid_sample(
                feature.to(dtype), grid, mode='bilinear', padding_mode='zeros', align_corners=False
            )
        )
    samples = torch.cat(sampled, dim=-1)  # (B * heads, D, Q, L * P)
    weights = attention_weights.to(dtype).transpose(1, 2)
    weights = weights.reshape(batch * heads, 1, queries, levels * points)
    result = (samples * weights).sum(-1)  # (B * heads, D, Q)
    return result.view(batch, heads * dims, queries).transpose(1, 2).to(value.dtype)


def compass_offsets(num_heads: int, num_points: int) -> Tensor:
    """Return the (heads, P, 2) initial offsets: one direction per head, farther with each point.

    Directions are evenly spaced and scaled so that the larger component is 1; point i lies i + 1
    pixels out.
    """
    angles = torch.arange(num_heads, dtype=torch.float32) * (2.0 * math.pi / num_heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions / directions.abs().amax(dim=-1, keepdim=True)
    return directions[:, None] * torch.arange(1, num_points + 1, dtype=torch.float32)[:, None]
