"""From camera sets to what a trained model takes: order of cameras, reference frame, CAN bus.

The transform between the frames goes into the network with the batch, and turns its answer back.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from gsmap_core.config import ModelConfig
from gsmap_core.errors import DataError
from gsmap_core.frame_inputs import can_bus_features, ego_from_lidar, in_order
from gsmap_core.images import FrameBatch, make_frame_batch
from gsmap_core.structures import FloatArray, SurroundFrame

_LOGGER = logging.getLogger(__name__)
#: Pictures that are prepared at once.
_MAX_THREADS = 4

#: What stands for the pose of a camera set that has none, see `FrameBatch.map_from_base`.
_LOST_POSE = np.full((4, 4), np.nan)


@dataclass(frozen=True)
class ModelInputs:
    """One batch for a model.

    Args:
        batch: what the network takes.
        ego_from_reference: B transforms (4, 4) from the model's frame to the ego frame [m]; None
            for models in the ego frame.
    """

    batch: FrameBatch
    ego_from_reference: list[FloatArray] | None


class InputBuilder:
    """Prepares camera sets for one model; remembers the poses that a history belongs to.

    Args:
        config: the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._poses: list[FloatArray] | None = None
        self._has_warned = False
        # Its threads begin with the first camera set.
        num_threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix='prepare')

    def reset(self) -> None:
        """Forget the poses of the sets before."""
        self._poses = None

    def build(self, frames: Sequence[SurroundFrame]) -> ModelInputs:
        """Prepare B camera sets.

        Raises:
            DataError: different numbers of cameras; a rig without the lidar's pose that the model
                needs; or a model with history, and a set without a pose or a changed B.
        """
        names = self.config.cameras
        if names and not self._has_warned and any(set(f.rig.names) != set(names) for f in frames):
            self._has_warned = True
            _LOGGER.warning(
                "model '%s' learned the cameras %s in this order; the rig's are %s and taken in "
                'its own order',
                self.config.name,
                ', '.join(names),
                ', '.join(frames[0].rig.names),
            )
        frames = [in_order(frame, names) for frame in frames]
        batch = make_frame_batch(frames, self.config.image, self._pool)
        transforms = None
        if self.config.reference == 'lidar':
            transforms = [ego_from_lidar(frame.rig, self.config) for frame in frames]
            stacked = torch.from_numpy(np.stack(transforms)).float()
            batch = replace(batch, ego_from_reference=stacked)
        bev = self.config.bev
        if bev.can_bus and bev.can_bus_source == 'pose':
            features = torch.from_numpy(self._can_bus(frames)).float()
            batch = replace(batch, can_bus=features)
        if self.config.has_fusion:
            poses = [_LOST_POSE if f.map_from_base is None else f.map_from_base for f in frames]
            batch = replace(batch, map_from_base=torch.from_numpy(np.stack(poses)))
        return ModelInputs(batch, transforms)

    def _can_bus(self, frames: Sequence[SurroundFrame]) -> FloatArray:
        poses = [frame.map_from_base for frame in frames]
        rest = self.config.bev.can_bus_rest
        if not self.config.bev.history:
            return np.stack([can_bus_features(pose, None, rest) for pose in poses])
        known = [pose for pose in poses if pose is not None]
        if len(known) != len(poses):
            raise DataError(
                f"model '{self.config.name}' looks at the frame before and a camera set has no "
                "ego pose; give poses or a model without 'bev.history'"
            )
        before: Sequence[FloatArray | None] = self._poses or [None] * len(known)
        if len(before) != len(known):
            raise DataError(
                f'{len(known)} camera sets follow {len(before)}; a model with history needs the '
                'same drives in the same rows: reset() first'
            )
        self._poses = known
        return np.stack(
            [can_bus_features(*pair, rest) for pair in zip(known, before, strict=True)]
        )
