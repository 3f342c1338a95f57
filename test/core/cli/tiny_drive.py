"""A drive of a few small pictures, for tests of commands that need any bag."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from gsmap_core.data.bag import write_bag
from gsmap_core.data.drives import PoseSample, RecordedFrame, RecordedImage
from gsmap_core.data.groundtruth import cut_local_map
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.rig import load_rig, scaled_rig
from gsmap_core.structures import CameraRig, FloatArray, MapElement, PerceptionRange, VectorMap

START_NS = 1_700_000_000_000_000_000


class TinyDrive:
    """A straight road along x: a divider at y = 0, a kerb at y = 4, one crossing.

    Args:
        num_frames: camera sets, 5 per second, at 10 m/s.
        width_px: of the front camera.
        ground_truth: whether the map is known.
    """

    name = 'tiny'

    def __init__(self, num_frames: int = 4, width_px: int = 64, ground_truth: bool = True) -> None:
        self.num_frames = num_frames
        self.rig: CameraRig = scaled_rig(load_rig('nuscenes_like'), width_px)
        self.metadata = {'source': 'test'}
        self._ground_truth = ground_truth

    @property
    def elements(self) -> tuple[MapElement, ...]:
        """The whole map, in the map frame."""
        crossing = np.array([[30.0, -4.0], [34.0, -4.0], [34.0, 4.0], [30.0, 4.0]])
        return (
            MapElement(0, np.array([[-100.0, 0.0], [200.0, 0.0]])),
            MapElement(2, np.array([[-100.0, 4.0], [200.0, 4.0]])),
            MapElement(1, crossing, closed=True),
        )

    @property
    def global_map(self) -> VectorMap | None:
        """The whole map."""
        if not self._ground_truth:
            return None
        return VectorMap(
            self.elements, range=PerceptionRange(-100.0, 200.0, -20.0, 20.0), reference='map'
        )

    def pose(self, stamp_ns: int) -> FloatArray:
        """Ego pose."""
        return make_transform(translation=[10.0 * (stamp_ns - START_NS) * 1e-9, 0.0, 0.0])

    def stamp_ns(self, index: int) -> int:
        """Reference stamp of a set."""
        return START_NS + index * 200_000_000

    @property
    def poses(self) -> list[PoseSample]:
        """50 Hz, off the image stamps."""
        first, last = START_NS - 107_000_000, self.stamp_ns(self.num_frames - 1) + 200_000_000
        return [PoseSample(s, self.pose(s)) for s in range(first, last, 20_000_000)]

    def frames(self) -> Iterator[RecordedFrame]:
        """Grey pictures with noise."""
        rng = np.random.default_rng(0)
        for index in range(self.num_frames):
            stamp_ns = self.stamp_ns(index)
            images = []
            for number, camera in enumerate(self.rig.cameras):
                picture = rng.integers(0, 255, (camera.height_px, camera.width_px, 3), np.uint8)
                data = cv2.imencode('.jpg', picture)[1].tobytes()
                images.append(RecordedImage(camera.name, stamp_ns + number * 2_000_000, data))
            truth = None
            if self._ground_truth:
                truth = cut_local_map(
                    self.elements, self.pose(stamp_ns), PerceptionRange(), stamp_ns
                )
            yield RecordedFrame(stamp_ns, tuple(images), ground_truth=truth)

    def write(self, path: Path) -> Path:
        """Write it as a bag."""
        write_bag(self, path)
        return path
