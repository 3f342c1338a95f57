"""What temporal fusion remembers between frames, as an explicit value.

One row per stream; every tensor has a fixed shape, so that memory does not grow with a drive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from gsmap_core.errors import DataError


@dataclass(frozen=True)
class FusionState:
    """Memory of B streams; no method changes it, all return a new one.

    Args:
        submap: (B, C, H, W) float32, F_submap of the frame before (eq. 1).
        map_from_base: (B, 4, 4) float64, ego pose of that frame [m].
        has_submap: (B,) bool, False where a stream starts anew.
        memory: (B, K, C, H, W) float32, maps of key frames, the newest last: F_global with
            streaming (K = 1), F_submap with stacking (K = N_pre; in training the candidates), none
            without key frames (K = 0).
        memory_map_from_base: (B, K, 4, 4) float64, their ego poses [m].
        memory_travelled_m: (B, K) float64, way travelled up to them [m].
        memory_frames: (B, K) int64, frames before them.
        has_memory: (B, K) bool, which of them are there.
        num_frames: (B,) int64, frames that were fused (those without a pose are not).
        num_key_frames: (B,) int64, frames that went into the memory.
        odometer_m: (B,) float64, way travelled up to `odometer_xyz` [m].
        odometer_xyz: (B, 3) float64, where moves were last added up, in the map frame [m].
    """

    submap: Tensor
    map_from_base: Tensor
    has_submap: Tensor
    memory: Tensor
    memory_map_from_base: Tensor
    memory_travelled_m: Tensor
    memory_frames: Tensor
    has_memory: Tensor
    num_frames: Tensor
    num_key_frames: Tensor
    odometer_m: Tensor
    odometer_xyz: Tensor

    @staticmethod
    def create(
        batch_size: int,
        map_shape: tuple[int, int, int],
        num_slots: int,
        device: torch.device | str = 'cpu',
    ) -> FusionState:
        """Return the state before the first frame.

        Args:
            batch_size: B.
            map_shape: C, H and W.
            num_slots: K.
            device: where the model is.
        """
        slots = (batch_size, num_slots)

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        pose = torch.eye(4, dtype=torch.float64, device=device)
        return FusionState(
            submap=zeros(batch_size, *map_shape, dtype=torch.float32),
            map_from_base=pose.repeat(batch_size, 1, 1),
            has_submap=zeros(batch_size, dtype=torch.bool),
            memory=zeros(*slots, *map_shape, dtype=torch.float32),
            memory_map_from_base=pose.repeat(*slots, 1, 1),
            memory_travelled_m=zeros(*slots),
            memory_frames=zeros(*slots, dtype=torch.int64),
            has_memory=zeros(*slots, dtype=torch.bool),
            num_frames=zeros(batch_size, dtype=torch.int64),
            num_key_frames=zeros(batch_size, dtype=torch.int64),
            odometer_m=zeros(batch_size),
            odometer_xyz=zeros(batch_size, 3),
        )

    def __len__(self) -> int:
        """Return the number of streams B."""
        return len(self.submap)

    @property
    def travelled_m(self) -> Tensor:
        """(B,) float64, way travelled since the stream's first frame [m]."""
        step = torch.linalg.vector_norm(self.map_from_base[:, :3, 3] - self.odometer_xyz, dim=-1)
        return self.odometer_m + step

    @property
    def num_bytes(self) -> int:
        """Memory of all tensors."""
        return sum(value.numel() * value.element_size() for value in self.save().values())

    def moved(self, map_from_base: Tensor, known: Tensor, step_m: float) -> FusionState:
        """Return the state with the pose and the counters of the next frame, and the old maps.

        Args:
            map_from_base: (B, 4, 4) float64 [m].
            known: (B,) bool; the others stand still and count no frame.
            step_m: shorter moves are not yet added up [m].
        """
        pose = torch.where(known[:, None, None], map_from_base.double(), self.map_from_base)
        first, xyz = self.num_frames == 0, pose[:, :3, 3]
        origin = torch.where(first[:, None], xyz, self.odometer_xyz)
        step = torch.linalg.vector_norm(xyz - origin, dim=-1)
        is_added = known & (first | (step >= step_m))
        return replace(
            self,
            map_from_base=pose,
            num_frames=self.num_frames + known,
            odometer_m=torch.where(is_added, self.odometer_m + step, self.odometer_m),
            odometer_xyz=torch.where(is_added[:, None], xyz, self.odometer_xyz),
        )

    def with_key_frames(self, maps: Tensor, rows: Tensor) -> FusionState:
        """Return the state with the frame before as the newest key frame of some streams.

        Args:
            maps: (B, C, H, W) float32, what to keep of it.
            rows: (B,) bool, which streams.
        """
        if not bool(rows.any()):
            return self

        def pushed(values: Tensor, newest: Tensor) -> Tensor:
            shifted = torch.cat([values[:, 1:], newest[:, None].to(values.dtype)], dim=1)
            return torch.where(rows.view(-1, *(1,) * (values.dim() - 1)), shifted, values)

        return replace(
            self,
            memory=pushed(self.memory, maps),
            memory_map_from_base=pushed(self.memory_map_from_base, self.map_from_base),
            memory_travelled_m=pushed(self.memory_travelled_m, self.travelled_m),
            memory_frames=pushed(self.memory_frames, self.num_frames - 1),
            has_memory=pushed(self.has_memory, torch.ones_like(rows)),
            num_key_frames=self.num_key_frames + rows,
        )

    def reset(self, rows: Tensor | Sequence[bool]) -> FusionState:
        """Return the state with some streams as before their first frame.

        Args:
            rows: (B,) bool, which ones.
        """
        rows = torch.as_tensor(rows, dtype=torch.bool)
        if rows.shape != (len(self),):
            raise DataError(
                f'rows to reset have shape {tuple(rows.shape)}; expected one flag for each of '
                f'{len(self)} streams'
            )
        if not bool(rows.any()):
            return self
        _, num_slots, *map_shape = self.memory.shape
        channels, height, width = map_shape
        fresh = self.create(len(self), (channels, height, width), num_slots, self.submap.device)
        return self.where(~rows, fresh)

    def where(self, rows: Tensor, other: FusionState) -> FusionState:
        """Return this state in some streams and another one in the rest.

        Args:
            rows: (B,) bool, True: this one.
            other: of the same shapes.
        """
        rows = rows.to(self.submap.device)
        mine, theirs = self.save(), other.save()
        return FusionState(
            **{
                name: torch.where(rows.view(-1, *(1,) * (value.dim() - 1)), value, theirs[name])
                for name, value in mine.items()
            }
        )

    def detach(self) -> FusionState:
        """Return the state without its history of gradients."""
        return FusionState(**{name: value.detach() for name, value in self.save().items()})

    def to(self, device: torch.device | str) -> FusionState:
        """Return the state on another device."""
        return FusionState(**{name: value.to(device) for name, value in self.save().items()})

    def save(self) -> dict[str, Tensor]:
        """Return all tensors by name, for `restore`."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @staticmethod
    def restore(tensors: Mapping[str, Tensor]) -> FusionState:
        """Return the state that `save` gave.

        Raises:
            DataError: tensors are missing, or there are others.
        """
        expected = [item.name for item in fields(FusionState)]
        if sorted(tensors) != sorted(expected):
            raise DataError(
                f'a saved fusion state has the tensors {", ".join(sorted(tensors))}; expected '
                f'{", ".join(expected)}'
            )
        return FusionState(**tensors)
