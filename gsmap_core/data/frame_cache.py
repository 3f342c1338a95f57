"""Prepared pictures in memory that loader workers share."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from gsmap_core.config import ImageConfig
from gsmap_core.data.augmentation import PreparedFrame
from gsmap_core.images import blank_pictures


class FrameCache:
    """Prepared frames in memory that forked loader workers share.

    Args:
        num_frames: frames that get a place; further ones are not cached.
        num_cameras: N.
        image: gives H, W and the type of the pictures.
    """

    def __init__(self, num_frames: int, num_cameras: int, image: ImageConfig) -> None:
        self.shape = (num_frames, num_cameras)
        blank = blank_pictures(1, image)[0]
        self._pictures = self._shared((*self.shape, *blank.shape), blank.dtype)
        # Intrinsics (9), extrinsics (16), size (2) and presence (1) of every camera.
        self._geometry = self._shared((*self.shape, 28), np.float64)
        self._is_filled = self._shared((num_frames,), np.uint8)

    @staticmethod
    def _shared(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Allocate zeroed memory that stays shared after a fork and is committed page by page."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return (
            np.frombuffer(mmap.mmap(-1, max(size, 1)), dtype=np.uint8)[:size]
            .view(dtype)
            .reshape(shape)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse to travel to a spawned process, where the memory would be a silent copy."""
        raise TypeError('a FrameCache is shared by fork only; use fork workers or cache_gb 0')

    @staticmethod
    def frame_bytes(num_cameras: int, image: ImageConfig) -> int:
        """Return the memory one frame takes [bytes]."""
        return num_cameras * (blank_pictures(1, image).nbytes + 28 * 8) + 1

    def get(self, index: int) -> PreparedFrame | None:
        """Return a cached frame (not to be written to), or None."""
        if index >= self.shape[0] or not self._is_filled[index]:
            return None
        geometry = self._geometry[index]
        num_cameras = int((geometry[:, 27] >= 0).sum())
        geometry = geometry[:num_cameras]
        return PreparedFrame(
            pictures=self._pictures[index, :num_cameras],
            sizes=geometry[:, 25:27].astype(np.int64),
            intrinsics=geometry[:, :9].reshape(-1, 3, 3).copy(),
            base_from_cameras=geometry[:, 9:25].reshape(-1, 4, 4).copy(),
            camera_mask=geometry[:, 27] > 0,
        )

    def put(self, index: int, frame: PreparedFrame) -> None:
        """Keep a frame if it has a place. Two workers may write the same one at the same time."""
        if index >= self.shape[0]:
            return
        num_cameras = len(frame.pictures)
        geometry = self._geometry[index]
        self._pictures[index, :num_cameras] = frame.pictures
        geometry[:num_cameras, :9] = frame.intrinsics.reshape(-1, 9)
        geometry[:num_cameras, 9:25] = frame.base_from_cameras.reshape(-1, 16)
        geometry[:num_cameras, 25:27] = frame.sizes
        geometry[:num_cameras, 27] = frame.camera_mask
        # Cameras that this drive does not have.
        geometry[num_cameras:, 27] = -1
        self._is_filled[index] = 1

    @property
    def num_filled(self) -> int:
        """Number of frames in the cache."""
        return int(self._is_filled.sum())
