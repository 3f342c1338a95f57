"""What a model returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianShapes:
    """Scales and angles of the Gaussians whose centres are the predicted points (GSMap, eq. 1).

    Args:
        scales: (..., M, P, 2) standard deviations along the Gaussian's own two axes [m].
        thetas: (..., M, P) angle of the first axis from the +x axis of the reference frame,
            counter-clockwise [rad]; not wrapped.
    """

    scales: Tensor
    thetas: Tensor

    def packed(self) -> Tensor:
        """Return (..., M, P, 3): both scales [m] and the angle [rad] of every Gaussian."""
        return torch.cat([self.scales, self.thetas[..., None]], dim=-1)

    def __getitem__(self, key: Any) -> GaussianShapes:
        """Index the leading dimensions of both."""
        return GaussianShapes(self.scales[key], self.thetas[key])


@dataclass(frozen=True)
class Lifted:
    """What frames give before they are fused with others and decoded.

    Args:
        bev: (B, C, H, W) refined BEV map.
        depth_logits: (B, N, D, h, w), see `MapperOutput`, or None.
        history: (B, C, H, W) what `bev.history` hands to the next frame, or None without.
    """

    bev: Tensor
    depth_logits: Tensor | None = None
    history: Tensor | None = None

    def __getitem__(self, rows: slice) -> Lifted:
        """Return some of the samples."""

        def part(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[rows]

        return Lifted(self.bev[rows], part(self.depth_logits), part(self.history))


@dataclass(frozen=True)
class MapperOutput:
    """Predictions of every decoder layer.

    Args:
        class_logits: (L, B, M, K) logits, K categories in the order of `config.categories`, no
            background.
        points: (L, B, M, P, 2 or 3) float32 unit coordinates (u along columns, v along rows of the
            BEV grid, then height where the model predicts it) in (0, 1);
            `config.grid.unit_to_metres` turns them into coordinates of the reference frame.
        bev: (B, C, H, W) BEV features that the decoder read.
        bev_mask_logits: (B, 1, H, W) logits of the BEV mask head, or None without one.
        pv_mask_logits: (B, N, 1, h, w) logits of the mask head on the image features, or None.
        depth_logits: (B, N, D, h, w) float32 logits of the depth bins of `config.bev.lss`, or None
            with another view transform; meaningless where a camera is missing.
        one_to_many: class logits (L, B, M', K) and points (L, B, M', P, 2 or 3) of the
            training-only queries, or None.
        gaussians: shapes (L, B, M, P) of the Gaussians around `points`, or None where a vertex is
            a point.
        one_to_many_gaussians: the same of the training-only queries, or None.
        instance_masks: (L', B, M, H, W) logits of the masks of the instances on the BEV grid
            (divided by `losses.instance_mask_options.stride`) of the last L' layers: all, or one.
            None outside training unless asked for, and without losses of instance masks.
        one_to_many_instance_masks: the same of the training-only queries, or None.
        state: what temporal fusion hands to the next frame; None without fusion.
    """

    class_logits: Tensor
    points: Tensor
    bev: Tensor
    bev_mask_logits: Tensor | None = None
    pv_mask_logits: Tensor | None = None
    depth_logits: Tensor | None = None
    one_to_many: tuple[Tensor, Tensor] | None = None
    gaussians: GaussianShapes | None = None
    one_to_many_gaussians: GaussianShapes | None = None
    instance_masks: Tensor | None = None
    one_to_many_instance_masks: Tensor | None = None
    state: Any = None
