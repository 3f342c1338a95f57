"""Transforms without a node."""

from __future__ import annotations

import numpy as np

from gsmap_ros.tf_buffer import TransformBuffer


class BufferSource:
    """The own buffer without a node."""

    implementation = 'test'

    def __init__(self) -> None:
        self.buffer = TransformBuffer()

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        return self.buffer.lookup(target, source, stamp_ns).matrix

    def clear(self) -> None:
        self.buffer.clear()

    def close(self) -> None:
        pass
