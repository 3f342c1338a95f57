"""What a model needs of a camera set beside the pictures, live and in training.

This is the only place where a model in the lidar frame meets a vehicle in the ego frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gsmap_core.config import ModelConfig
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import (
    invert,
    matrix_to_quaternion,
    transform_from_quaternion,
)
from gsmap_core.structures import CameraRig, FloatArray, SurroundFrame

_NUM_CAN_BUS = 18


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
