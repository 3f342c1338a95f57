"""Camera sets of drives at the size of the network input, kept in memory once prepared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from gsmap_core.config import ModelConfig
from gsmap_core.data.augmentation import AugmentationConfig, PreparedFrame, prepare_frame
from gsmap_core.data.drives import Drive
from gsmap_core.data.frame_cache import FrameCache
from gsmap_core.errors import ConfigError
from gsmap_core.frame_inputs import in_order
from gsmap_core.images import decode_width

logger = logging.getLogger(__name__)

_BYTES_PER_GB = 1024**3


class PreparedFrames:
    """Frames of drives by one number, read and prepared when asked for.

    Args:
        drives: where they come from.
        frames: number of the drive and number of the set in it, of every frame.
        config: of the model.
        augmentation: what training does to the pictures afterwards, or None.
        cache_gb: memory for prepared pictures [GiB]; 0: none.

    Raises:
        ConfigError: a cache was asked for with colours that change before pictures are prepared.
    """

    def __init__(
        self,
        drives: Sequence[Drive],
        frames: Sequence[tuple[int, int]],
        config: ModelConfig,
        augmentation: AugmentationConfig | None,
        cache_gb: float,
    ) -> None:
        self.drives, self.frames, self.config = tuple(drives), frames, config
        self.cache: FrameCache | None = None
        num_cameras = max(len(drive.rig) for drive in self.drives)
        per_frame = FrameCache.frame_bytes(num_cameras, config.image)
        places = min(len(frames), int(cache_gb * _BYTES_PER_GB / per_frame))
        if places:
            if augmentation is not None and augmentation.changes_recorded:
                raise ConfigError(
                    f"cache_gb is {cache_gb} but augmentation.colours_at is 'recorded', so that "
                    'prepared pictures differ every time; set cache_gb to 0 or colours_at to '
                    "'prepared'"
                )
            self.cache = FrameCache(places, num_cameras, config.image)
            logger.info('caching %d of %d frames, up to %.1f GiB', places, len(frames), cache_gb)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def describe(self, index: int) -> str:
        """Name a frame for messages."""
        number, frame = self.frames[index]
        drive = self.drives[number]
        return f"drive '{drive.name}', frame {frame}, stamp {drive.stamp_ns(frame)}"

    def prepared(
        self, index: int, change: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> PreparedFrame:
        """Return the pictures and calibration of one frame, from the cache where possible.

        Args:
            index: number of the frame.
            change: applied to the recorded pictures; only without a cache.

        Raises:
            DataError: an image cannot be read.
        """
        frame = self.cache.get(index) if self.cache else None
        if frame is None:
            number, position = self.frames[index]
            image = self.config.image
            recorded = self.drives[number].frame(position, decode_width(image))
            if self.config.cameras:
                recorded = in_order(recorded, self.config.cameras)
            frame = prepare_frame(recorded, image, change)
            if self.cache:
                self.cache.put(index, frame)
        return frame
