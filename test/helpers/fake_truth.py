"""A drive with nothing but ground truth; worker processes can import it."""

from __future__ import annotations

import numpy as np

from gsmap_core.errors import DataError
from gsmap_core.structures import MapElement, VectorMap


class LineDrive:
    """One divider per frame, at the frame's number; one frame may be broken."""

    def __init__(self, name: str, num_frames: int, broken: int | None = None) -> None:
        self.name, self._num_frames, self._broken = name, num_frames, broken

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._num_frames

    def ground_truth(self, index: int) -> VectorMap:
        """Return the frame's divider."""
        if index == self._broken:
            raise DataError('no map here')
        return VectorMap((MapElement(0, np.array([[index, 0.0], [index, 9.0]])),))
