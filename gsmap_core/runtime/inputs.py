"""From camera sets to what a trained model takes: order of cameras, reference frame, CAN bus.

This is the only place where a model in the lidar frame meets a vehicle in the ego frame: the
transform found here goes into the network with the batch, and turns its answer back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gsmap_core.config import ModelConfig
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import (
    invert,
    matrix_to_quaternion,
    transform_from_quaternion,
)
from gsmap_core.images import FrameBatch, make_frame_batch
from gsmap_core.structures import CameraRig, FloatArray, SurroundFrame

_LOGGER = logging.getLogger(__name__)
_NUM_CAN_BUS = 18


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
        batch = make_frame_batch(frames, self.config.image)
        transforms = None
        if self.config.reference == 'lidar':
            transforms = [ego_from_lidar(frame.rig, self.config) for frame in frames]
            stacked = torch.from_numpy(np.stack(transforms)).float()
            batch = replace(batch, ego_from_reference=stacked)
        bev = self.config.bev
        if bev.can_bus and bev.can_bus_source == 'pose':
            features = torch.from_numpy(self._can_bus(frames)).float()
            batch = replace(batch, can_bus=features)
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


def in_order(frame: SurroundFrame, names: Sequence[str]) -> SurroundFrame:
    """Return a camera set with the cameras in the given order, if those are its cameras."""
    if frame.rig.names == tuple(names) or set(frame.rig.names) != set(names):
        return frame
    order = [frame.rig.names.index(name) for name in names]
    return replace(
        frame,
        rig=replace(frame.rig, cameras=tuple(frame.rig.cameras[index] for index in order)),
        images=tuple(frame.images[index] for index in order),
        camera_stamps_ns=tuple(frame.camera_stamps_ns[index] for index in order),
        base_from_cameras=frame.base_from_cameras[order],
    )


def ego_from_lidar(rig: CameraRig, config: ModelConfig) -> FloatArray:
    """Return the (4, 4) transform from a lidar-frame model to a vehicle's ego frame [m].

    Raises:
        DataError: neither the rig nor the model knows it.
    """
    if rig.base_from_lidar is not None:
        return rig.base_from_lidar
    if config.lidar_pose is None:
        raise DataError(
            f"model '{config.name}' maps in the frame of the nuScenes lidar (x right, y forward) "
            f"and rig '{rig.name}' does not say where that is; add base_from_lidar (translation, "
            'quaternion) to the rig file, or lidar_pose to the configuration'
        )
    return transform_from_quaternion(config.lidar_pose.translation, config.lidar_pose.quaternion)


def can_bus_features(
    map_from_base: FloatArray | None, map_from_base_before: FloatArray | None, rest: float = 0.0
) -> FloatArray:
    """Return the CAN-bus features of a vehicle of which only poses are known.

    Args:
        map_from_base: (4, 4) ego pose; None: heading along x of the map.
        map_from_base_before: that of the frame before; None: a first or single frame.
        rest: what the features get that no pose gives ([7:16]: acceleration, rates, velocity).

    Returns:
        (18,): translation since the frame before in the map frame [m], quaternion w x y z, nine
        times `rest`, heading [rad, 0 to 2 pi], change of heading since the frame before [deg].

    Source: reference-models.md, 1.6.
    """
    pose = np.eye(4) if map_from_base is None else map_from_base
    features = np.full(_NUM_CAN_BUS, rest)
    x, y, z, w = matrix_to_quaternion(pose[:3, :3])
    heading = _heading(pose)
    features[0:3] = 0.0
    features[3:7] = w, x, y, z
    features[16], features[17] = heading % (2 * np.pi), 0.0
    if map_from_base_before is not None:
        features[0:3] = pose[:3, 3] - map_from_base_before[:3, 3]
        turned = invert(map_from_base_before) @ pose
        features[17] = np.degrees(_heading(turned))
    return features


def _heading(pose: FloatArray) -> float:
    return float(np.arctan2(pose[1, 0], pose[0, 0]))
