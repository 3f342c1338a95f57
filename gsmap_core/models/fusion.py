"""Temporal fusion of BEV maps: the frame before, and a memory of key frames (InteractionMap).

The same code trains, evaluates and maps live. What it remembers is a value (`FusionState`) that
goes in and comes out; which streams start anew is the caller's to say.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gsmap_core.config import FusionConfig, ModelConfig
from gsmap_core.errors import DataError
from gsmap_core.models.bev_warp import BevWarp, inverse
from gsmap_core.models.fusion_state import FusionState as FusionState
from gsmap_core.models.residual import WideBlock, narrowing, residual_blocks

#: Strides that may be missing from one before a frame becomes a key frame, for rounded poses.
_STRIDE_TOLERANCE = 1e-6


class ConvGru(nn.Module):
    """Gated recurrent unit on maps, with a layer normalisation over channels behind it.

    z = sigmoid(Wz [h; x]), r = sigmoid(Wr [h; x]), q = Wq [r * h; x], LN((1 - z) h + z q).

    Args:
        dims: C.
        kernel: side of the convolutions.
        tanh: bound q.

    Source: InteractionMap, eq. 2 and 4; StreamMapNet's unit (reference-models.md, 7.2).
    """

    def __init__(self, dims: int, kernel: int, tanh: bool) -> None:
        super().__init__()
        self.tanh = tanh
        padding = kernel // 2
        self.gates = nn.Conv2d(2 * dims, 2 * dims, kernel, padding=padding, bias=False)
        self.candidate = nn.Conv2d(2 * dims, dims, kernel, padding=padding, bias=False)
        self.norm = nn.LayerNorm(dims)

    def forward(self, memory: Tensor, x: Tensor) -> Tensor:
        """Fuse two maps.

        Args:
            memory: h, (B, C, H, W) float32.
            x: the present map, (B, C, H, W) float32.

        Returns:
            (B, C, H, W) float32; only the convolutions follow autocast, because rounding would add
            up from frame to frame.
        """
        gates = torch.sigmoid(self.gates(torch.cat([memory, x], dim=1)).float())
        update, reset = gates.chunk(2, dim=1)
        candidate = self.candidate(torch.cat([reset * memory, x], dim=1)).float()
        if self.tanh:
            candidate = torch.tanh(candidate)
        mixed = torch.lerp(memory, candidate, update)
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(mixed.movedim(1, -1)).movedim(-1, 1)


class Stacking(nn.Module):
    """Convolutions on all maps side by side (InteractionMap, eq. 6).

    Args:
        dims: C of one map.
        config: the fusion.
    """

    def __init__(self, dims: int, config: FusionConfig) -> None:
        super().__init__()
        width, wide = dims * (config.num_previous + 1), config.num_wide_blocks
        if wide:
            # The paper's parameter count needs blocks at this width (docs/interactionmap.md).
            blocks = [WideBlock(width, width) for _ in range(wide - 1)]
            self.blocks = nn.Sequential(*blocks, WideBlock(width, dims))
        else:
            self.blocks = nn.Sequential(
                narrowing(width, dims), *residual_blocks(config.num_residual_blocks, dims)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, N_pre + 1, C, H, W), the present one last, to (B, C, H, W) float32."""
        fused: Tensor = self.blocks(maps.flatten(1, 2)).float()
        return fused


class TemporalFusion(nn.Module):
    """Fuses the BEV map of a frame with those of the frames before it.

    Args:
        config: a model with `fusion.kind` other than `none`.

    Source: InteractionMap, sec. 3.1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, fusion = config.fusion, config.fusion
        dims = config.embed_dims
        self.map_shape = (dims, config.bev.num_rows, config.bev.num_columns)
        self.warp = BevWarp(config.grid)
        self.local_gru = ConvGru(dims, fusion.gru_kernel, fusion.gru_tanh)
        self.local_blocks = residual_blocks(fusion.num_residual_blocks, dims)
        self.global_gru = self.stacking = None
        if fusion.kind == 'keyframe_streaming':
            self.global_gru = ConvGru(dims, fusion.gru_kernel, fusion.gru_tanh)
        elif fusion.kind == 'keyframe_stacking':
            self.stacking = Stacking(dims, fusion)

    @property
    def num_slots(self) -> int:
        """K of the state, maps of key frames that are kept; stacking keeps more in training."""
        if self.stacking is not None:
            return self.config.num_candidates if self.training else self.config.num_previous
        return 0 if self.global_gru is None else 1

    def create_state(self, batch_size: int, device: torch.device | str = 'cpu') -> FusionState:
        """Return the state of B streams before their first frame."""
        return FusionState.create(batch_size, self.map_shape, self.num_slots, device)

    def forward(
        self,
        bev: Tensor,
        map_from_base: Tensor,
        ego_from_reference: Tensor | None = None,
        state: FusionState | None = None,
    ) -> tuple[Tensor, FusionState]:
        """Fuse one frame of each of B streams.

        Args:
            bev: F_local, (B, C, H, W) BEV map of the frame alone.
            map_from_base: (B, 4, 4) float64 ego pose [m]. A row that is not finite is a lost pose:
                its frame is mapped alone and its stream's memory stays as it is.
            ego_from_reference: (B, 4, 4), frame of the grid to the ego frame [m]; None: the same.
            state: of the frame before; None: all streams start anew.

        Returns:
            F_global (F_submap without key frames), (B, C, H, W) float32, and the new state.

        Raises:
            DataError: the poses have another shape or precision, or the state belongs to another
                number of streams or another model.
        """
        bev = bev.float()
        if state is None:
            state = self.create_state(len(bev), bev.device)
        self._check(bev, map_from_base, state)
        known = torch.isfinite(map_from_base).all(-1).all(-1)
        moved = state.moved(map_from_base, known, self.config.odometer_step_m)
        geometry = (moved.map_from_base, ego_from_reference)

        before = self._warped(state.submap[:, None], state.map_from_base[:, None], *geometry)
        submap = self._local(before[:, 0], bev, state.has_submap & known)
        usable, strides = state.has_memory & known[:, None], self._strides(moved)
        fused = submap
        if self.global_gru is not None:
            memory = self._warped(state.memory, state.memory_map_from_base, *geometry)
            fused = self._streamed(memory[:, 0], submap, usable[:, 0])
        elif self.stacking is not None:
            memory, poses = state.memory, state.memory_map_from_base
            if self.training:
                slots = self._drawn_slots(usable, strides)
                memory, poses, usable = (_taken(item, slots) for item in (memory, poses, usable))
            fused = self._stacked(self._warped(memory, poses, *geometry), submap, usable)
        return fused, self._remembered(moved, submap, fused, known, strides)

    def _check(self, bev: Tensor, map_from_base: Tensor, state: FusionState) -> None:
        # Single precision is half a metre where coordinates are those of a country.
        if map_from_base.shape != (len(bev), 4, 4) or map_from_base.dtype != torch.float64:
            raise DataError(
                f'map_from_base is {map_from_base.dtype} {tuple(map_from_base.shape)}; expected '
                f'float64 ({len(bev)}, 4, 4)'
            )
        given = (len(state), *state.memory.shape[1:])
        expected = (len(bev), self.num_slots, *bev.shape[1:])
        if given != expected:
            raise DataError(
                f'fusion state of {given[0]} streams with {given[1]} maps of {given[2:]}; this '
                f'batch and model{" in training" if self.training else ""} take {expected[0]} '
                f'with {expected[1]} of {expected[2:]}; start anew with state None'
            )

    def _warped(
        self, maps: Tensor, poses: Tensor, pose: Tensor, ego_from_reference: Tensor | None
    ) -> Tensor:
        """Bring (B, K, C, H, W) maps from their (B, K, 4, 4) poses to the (B, 4, 4) of now."""
        num_slots = maps.shape[1]
        then_from_now = inverse(poses) @ pose[:, None]
        if ego_from_reference is not None:
            ego_from_reference = ego_from_reference.repeat_interleave(num_slots, dim=0)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.detach_memory):
            warped = self.warp(maps.flatten(0, 1), then_from_now.flatten(0, 1), ego_from_reference)
        return warped.unflatten(0, maps.shape[:2])

    def _local(self, before: Tensor, bev: Tensor, has_before: Tensor) -> Tensor:
        """Fuse with the frame before (eq. 1 and 2); the first frame with a copy of itself."""
        before = torch.where(has_before.view(-1, 1, 1, 1), before, self._as_memory(bev))
        submap: Tensor = self.local_blocks(self.local_gru(before, bev)).float()
        return submap

    def _streamed(self, memory: Tensor, submap: Tensor, has_memory: Tensor) -> Tensor:
        """Fuse with the last key frame's global map (eq. 3 and 4), or a copy of the submap."""
        assert self.global_gru is not None
        memory = torch.where(has_memory.view(-1, 1, 1, 1), memory, self._as_memory(submap))
        fused: Tensor = self.global_gru(memory, submap)
        return fused

    def _stacked(self, maps: Tensor, submap: Tensor, is_there: Tensor) -> Tensor:
        """Fuse with the submaps of several key frames, oldest first (eq. 5 and 6)."""
        assert self.stacking is not None
        now = submap[:, None]
        missing = now if self.config.missing == 'current' else torch.zeros_like(now)
        maps = torch.where(is_there[:, :, None, None, None], maps, missing)
        fused: Tensor = self.stacking(torch.cat([maps, now], dim=1))
        return fused

    def _as_memory(self, value: Tensor) -> Tensor:
        return value.detach() if self.config.detach_memory else value

    def _strides(self, moved: FusionState) -> Tensor:
        """Return (B, K) float64: how far now is from each key frame, in units of the rule."""
        config = self.config
        if config.keyframe_rule == 'every_k':
            now = moved.num_frames[:, None] - 1
            return (now - moved.memory_frames).double() / config.every_k
        if config.keyframe_rule == 'euclidean':
            here, there = moved.map_from_base[:, None, :3, 3], moved.memory_map_from_base
            return torch.linalg.vector_norm(here - there[..., :3, 3], dim=-1) / config.stride_m
        return (moved.travelled_m[:, None] - moved.memory_travelled_m) / config.stride_m

    def _drawn_slots(self, usable: Tensor, strides: Tensor) -> Tensor:
        """Return (B, N_pre) slots of random candidates, oldest first, not usable ones before them.

        In training the previous N_pre maps are drawn (from torch's generator) within N_pre strides
        (InteractionMap, sec. 3.1.2). Where a fast vehicle left fewer there, the latest ones behind
        follow: on the vehicle key frames then lie as far apart.
        """
        config, num_slots = self.config, usable.shape[1]
        near = usable & (strides <= config.num_previous + _STRIDE_TOLERANCE)
        drawn = torch.rand(usable.shape, dtype=torch.float64, device=usable.device)
        age = torch.arange(num_slots, dtype=torch.float64, device=usable.device) / num_slots
        # Near ones at random, then far ones by age, then empty slots.
        priority = torch.where(near, 2.0 + drawn, torch.where(usable, 1.0 + age, age))
        chosen: Tensor = priority.topk(config.num_previous, dim=1).indices.sort(dim=1).values
        return chosen

    def _remembered(
        self,
        moved: FusionState,
        submap: Tensor,
        fused: Tensor,
        known: Tensor,
        strides: Tensor,
    ) -> FusionState:
        """Return the state for the next frame; key frames go into the memory."""
        rows = known.view(-1, 1, 1, 1)
        state = replace(
            moved,
            submap=torch.where(rows, self._as_memory(submap), moved.submap),
            has_submap=moved.has_submap | known,
        )
        if not self.num_slots:
            return state
        due = 1.0
        if self.training and self.stacking is not None:
            # Candidates to draw from: closer than key frames, so many that they cover the range.
            due = self.config.num_previous / self.config.num_candidates
        is_key = known & (~moved.has_memory[:, -1] | (strides[:, -1] >= due - _STRIDE_TOLERANCE))
        item = submap if self.global_gru is None else fused
        return state.with_key_frames(self._as_memory(item), is_key)


def _taken(values: Tensor, slots: Tensor) -> Tensor:
    """Return (B, N, ...) of (B, K, ...) at (B, N) slots."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    return values[rows, slots]
