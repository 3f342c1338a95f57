"""From a loaded batch to what the model takes, with the augmentation drawn per batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gsmap_core.config import ImageConfig
from gsmap_core.data.batches import Batch
from gsmap_core.data.published_augmentation import draw_grid_mask
from gsmap_core.images import FrameBatch
from gsmap_core.training.recipe import TrainConfig


def batch_frames(
    batch: Batch,
    image: ImageConfig,
    recipe: TrainConfig,
    device: torch.device,
    grid_mask: float,
    generator: np.random.Generator,
) -> FrameBatch:
    """Move a batch to the device, normalise it there and hide squares of it.

    Args:
        batch: as loaded.
        image: gives mean and standard deviation.
        recipe: memory layout.
        device: where the model is.
        grid_mask: probability that squares of all its images are hidden.
        generator: draws for this batch.
    """
    frames = batch.frame_batch(image, device)
    images = frames.images if recipe.channels_last else frames.images.contiguous()
    if generator.random() < grid_mask:
        height, width = images.shape[-2:]
        mask = torch.from_numpy(draw_grid_mask(height, width, generator))
        images = images * mask.to(images.device)
    return replace(frames, images=images)
