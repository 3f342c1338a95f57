"""LiDAR sweeps of drives as depth targets of the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gsmap_core.config import ModelConfig
from gsmap_core.data.augmentation import PreparedFrame
from gsmap_core.data.drives import Drive
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import invert
from gsmap_core.image_targets import UNKNOWN, depth_bins, project_sweep


class DepthTargets:
    """Depth bins from the sweeps of drives; kept in memory once worked out.

    Args:
        drives: where the sweeps come from.
        config: the model that is trained.

    Raises:
        DataError: a drive has no LiDAR.
    """

    def __init__(self, drives: Sequence[Drive], config: ModelConfig) -> None:
        self._drives, self._config = drives, config
        self._kept: dict[tuple[int, int, bool], npt.NDArray[np.int16]] = {}
        for drive in drives:
            probes = {0, len(drive) // 2, len(drive) - 1} if len(drive) else set()
            if probes and all(drive.lidar_points(index) is None for index in probes):
                raise DataError(
                    f"drive '{drive.name}' has no LiDAR sweeps and losses.depth is "
                    f'{config.losses.depth}; record it with sweeps (gsmap synth --lidar), or set '
                    'losses.depth to 0'
                )

    def bins(self, drive: int, index: int, frame: PreparedFrame) -> npt.NDArray[np.int64]:
        """Return the bins of one camera set.

        Args:
            drive: number of the drive.
            index: of the set in it.
            frame: its calibration, mirrored or not; the same at every call.

        Returns:
            (N, h, w), -1 where there is no point or the camera is missing.

        Raises:
            DataError: there is no sweep near the set.
        """
        key = (drive, index, frame.mirrored)
        found = self._kept.get(key)
        if found is None:
            found = self._project(drive, index, frame).astype(np.int16)
            self._kept[key] = found
        result = found.astype(np.int64)
        result[~frame.camera_mask] = UNKNOWN
        return result

    def _project(self, drive: int, index: int, frame: PreparedFrame) -> npt.NDArray[np.int64]:
        points = self._drives[drive].lidar_points(index)
        if points is None:
            name = self._drives[drive].name
            raise DataError(f"drive '{name}', frame {index}: has no LiDAR sweep near it")
        points = points[:, :3].astype(np.float64)
        if frame.mirrored:
            points[:, 1] *= -1
        pixels, depths_m = project_sweep(points, pixels_from_ego(frame), frame.sizes)
        return depth_bins(pixels, depths_m, len(frame.camera_mask), self._config)


def pixels_from_ego(frame: PreparedFrame) -> npt.NDArray[np.float64]:
    """Return (N, 4, 4) from the ego frame [m] to pixels of the network input."""
    pixels_from_camera = np.tile(np.eye(4), (len(frame.pictures), 1, 1))
    pixels_from_camera[:, :3, :3] = frame.intrinsics
    return pixels_from_camera @ invert(frame.base_from_cameras)
