"""Errors of localisation put on pose tables, to measure what they cost."""

from __future__ import annotations

import hashlib

import numpy as np

from gsmap_core.contrastive_config import PoseError, PoseNoiseConfig
from gsmap_core.data.pose_tables import PoseTable
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.structures import FloatArray


def with_pose_noise(table: PoseTable, config: PoseNoiseConfig, seed: int) -> PoseTable:
    """Return the poses of a drive as imperfect localisation would have recorded them.

    The errors follow from the seed, the name of the drive and the number of the frame alone. The
    one of the drive shifts along the axes of the map and turns about the vehicle; the one of a
    frame shifts and turns along the axes of the vehicle.

    Args:
        table: true poses.
        config: standard deviations.
        seed: of the draw.
    """
    if config.is_none:
        return table
    digest = hashlib.sha256(table.name.encode()).digest()
    key = (seed, int.from_bytes(digest[:8], 'little'))
    shift = _draw(config.drive, np.random.default_rng(key))
    turn = shift.copy()
    turn[:3, 3], shift[:3, :3] = 0.0, np.eye(3)
    poses = [
        shift @ pose @ turn @ _draw(config.frame, np.random.default_rng((*key, int(frame))))
        for pose, frame in zip(table.map_from_base, table.frames, strict=True)
    ]
    return PoseTable(table.name, table.place, table.stamps_ns, np.stack(poses), table.frames)


def _draw(error: PoseError, generator: np.random.Generator) -> FloatArray:
    """Draw a (4, 4) planar motion."""
    x, y, heading = generator.standard_normal(3) * (error.x_m, error.y_m, error.heading_deg)
    return make_transform(rotation_from_rpy(0.0, 0.0, np.radians(heading)), [x, y, 0.0])
