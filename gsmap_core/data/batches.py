"""Training samples and batches of them: what a loader hands to the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gsmap_core.config import ImageConfig
from gsmap_core.images import FrameBatch
from gsmap_core.targets import MapTargets


@dataclass(frozen=True)
class Sample:
    """One prepared training or validation sample.

    Args:
        pictures: (N, H, W, 3) RGB, uint8 or float32 as prepared.
        pixels_from_ego: (N, 4, 4) float32.
        base_from_cameras: (N, 4, 4) float32.
        intrinsics: (N, 3, 3) float32.
        camera_mask: (N,) bool.
        targets: what to train towards.
        index: position of the frame in the dataset.
        can_bus: (18,) float32 for models with `bev.can_bus_source: pose`, else None.
        ego_from_reference: (4, 4) float32 for models in the lidar frame, else None.
        map_from_base: (4, 4) float64 for models with fusion, else None; from the mirrored ego
            frame where the sample is mirrored, so that it holds the reflection.
        bad_frames: indices that could not be read before this one was drawn instead.
        starts: whether a sub-sequence begins with this frame; None: a single frame.
    """

    pictures: Tensor
    pixels_from_ego: Tensor
    base_from_cameras: Tensor
    intrinsics: Tensor
    camera_mask: Tensor
    targets: MapTargets
    index: int
    can_bus: Tensor | None = None
    ego_from_reference: Tensor | None = None
    map_from_base: Tensor | None = None
    bad_frames: tuple[int, ...] = ()
    starts: bool | None = None


@dataclass(frozen=True)
class Batch:
    """Collated samples; pictures are normalised on the device that uses them.

    Args:
        pictures: (B, N, H, W, 3) RGB, uint8 or float32 as prepared.
        pixels_from_ego: (B, N, 4, 4) float32.
        base_from_cameras: (B, N, 4, 4) float32.
        intrinsics: (B, N, 3, 3) float32.
        camera_mask: (B, N) bool.
        targets: B targets.
        indices: B positions in the dataset.
        can_bus: (B, 18) float32, or None.
        ego_from_reference: (B, 4, 4) float32, or None.
        map_from_base: (B, 4, 4) float64, or None.
        bad_frames: indices of frames that could not be read.
        starts: (B,) bool, True where a row begins a new sub-sequence; None: single frames.
    """

    pictures: Tensor
    pixels_from_ego: Tensor
    base_from_cameras: Tensor
    intrinsics: Tensor
    camera_mask: Tensor
    targets: tuple[MapTargets, ...]
    indices: tuple[int, ...]
    can_bus: Tensor | None = None
    ego_from_reference: Tensor | None = None
    map_from_base: Tensor | None = None
    bad_frames: tuple[int, ...] = ()
    starts: Tensor | None = None

    def __len__(self) -> int:
        """Return the batch size B."""
        return len(self.pictures)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; called by the loader when it feeds a GPU."""
        return replace(
            self,
            pictures=self.pictures.pin_memory(),
            pixels_from_ego=self.pixels_from_ego.pin_memory(),
            base_from_cameras=self.base_from_cameras.pin_memory(),
            intrinsics=self.intrinsics.pin_memory(),
            camera_mask=self.camera_mask.pin_memory(),
        )

    def frame_batch(self, image: ImageConfig, device: torch.device | str = 'cpu') -> FrameBatch:
        """Move to a device and normalise there.

        Args:
            image: gives mean and standard deviation.
            device: where the model is.
        """
        mask = self.camera_mask.to(device, non_blocking=True)
        # The strides of (..., H, W, 3) survive: images are channels-last without a copy.
        pictures = self.pictures.to(device, non_blocking=True).movedim(-1, -3)
        mean = torch.tensor(image.mean, device=device).view(3, 1, 1)
        std = torch.tensor(image.std, device=device).view(3, 1, 1)
        # Not in place: pictures that already are floating point belong to the batch.
        images = (pictures.float() - mean).div_(std)
        if not bool(self.camera_mask.all()):
            images[~mask] = 0.0

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, non_blocking=True)

        return FrameBatch(
            images=images,
            pixels_from_ego=self.pixels_from_ego.to(device, non_blocking=True),
            base_from_cameras=self.base_from_cameras.to(device, non_blocking=True),
            intrinsics=self.intrinsics.to(device, non_blocking=True),
            camera_mask=mask,
            can_bus=moved(self.can_bus),
            ego_from_reference=moved(self.ego_from_reference),
            map_from_base=moved(self.map_from_base),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; rigs with fewer cameras are filled up with missing ones."""
    num_cameras = max(len(sample.pictures) for sample in samples)

    def stack(name: str) -> Tensor:
        rows = [getattr(sample, name) for sample in samples]
        for i, row in enumerate(rows):
            missing = num_cameras - len(row)
            if missing:
                # A repeated calibration keeps the projection finite; the mask hides the camera.
                filler = torch.zeros_like(row[:1]) if name == 'camera_mask' else row[:1]
                rows[i] = torch.cat([row, filler.expand(missing, *row.shape[1:])])
        return torch.stack(rows)

    def optional(name: str) -> Tensor | None:
        # Of one dataset and one model: all samples have it, or none has.
        rows = [getattr(sample, name) for sample in samples]
        return None if rows[0] is None else torch.stack(rows)

    starts = [sample.starts for sample in samples if sample.starts is not None]
    return Batch(
        pictures=stack('pictures'),
        pixels_from_ego=stack('pixels_from_ego'),
        base_from_cameras=stack('base_from_cameras'),
        intrinsics=stack('intrinsics'),
        camera_mask=stack('camera_mask'),
        targets=tuple(sample.targets for sample in samples),
        indices=tuple(sample.index for sample in samples),
        can_bus=optional('can_bus'),
        ego_from_reference=optional('ego_from_reference'),
        map_from_base=optional('map_from_base'),
        bad_frames=tuple(i for sample in samples for i in sample.bad_frames),
        starts=torch.tensor(starts) if starts else None,
    )
