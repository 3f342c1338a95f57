"""Pose tables that were never driven."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsmap_core.data.pose_tables import PoseTable


def pose_table(
    name: str, planar: Sequence[Sequence[float]] | np.ndarray, place: str = 'town', **fields
) -> PoseTable:
    """Return a drive through (N, 3) x, y [m], yaw [rad], one pose every half second."""
    planar = np.asarray(planar, dtype=np.float64)
    poses = np.tile(np.eye(4), (len(planar), 1, 1))
    cosine, sine = np.cos(planar[:, 2]), np.sin(planar[:, 2])
    poses[:, 0, 0], poses[:, 0, 1] = cosine, -sine
    poses[:, 1, 0], poses[:, 1, 1] = sine, cosine
    poses[:, :2, 3] = planar[:, :2]
    return PoseTable(name, place, 500_000_000 * np.arange(len(planar)), poses, **fields)


def straight(
    name: str, start: tuple[float, float], *, num: int = 3, step_m: float = 5.0, **fields
) -> PoseTable:
    """Return a drive along +x."""
    x = start[0] + step_m * np.arange(num)
    return pose_table(name, np.stack([x, np.full(num, start[1]), np.zeros(num)], -1), **fields)
