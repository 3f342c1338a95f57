"""What a drive is: the interface between sources, bags, training and evaluation.

A `Recording` is raw enough to be written as a bag (JPEG bytes, every pose). A `Drive` is what
training, prediction and evaluation read: random access to `SurroundFrame`s and ground truth.
`data.bag` turns the first into the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from gsmap_core.structures import CameraRig, FloatArray, SurroundFrame, VectorMap


@dataclass(frozen=True)
class RecordedImage:
    """One compressed image as it goes into a bag.

    Args:
        camera: name of the camera in the rig.
        stamp_ns: acquisition time [ns].
        data: JPEG bytes, unchanged from the source.
    """

    camera: str
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class RecordedFrame:
    """The images of one set, with the ground truth at its reference stamp.

    Args:
        stamp_ns: reference stamp [ns].
        images: one per camera that delivered, any order.
        ground_truth: elements in the ego frame at `stamp_ns`, or None.
        lidar_points: (P, 4) float32 x, y, z in the ego frame at `stamp_ns` [m] and intensity, or
            None.
        sample_id: id of the frame in its dataset.
    """

    stamp_ns: int
    images: tuple[RecordedImage, ...]
    ground_truth: VectorMap | None = None
    lidar_points: np.ndarray | None = None
    sample_id: str = ''


@dataclass(frozen=True)
class PoseSample:
    """The vehicle's pose at a moment.

    Args:
        stamp_ns: time [ns].
        map_from_base: (4, 4) float64.
    """

    stamp_ns: int
    map_from_base: FloatArray


@runtime_checkable
class Recording(Protocol):
    """A drive that can be written as a bag."""

    @property
    def name(self) -> str:
        """Name of the drive (scene, log)."""
        ...

    @property
    def rig(self) -> CameraRig:
        """Calibration, constant over the drive."""
        ...

    @property
    def poses(self) -> list[PoseSample]:
        """Every pose, by time; they begin no later than the first and end after the last image."""
        ...

    @property
    def global_map(self) -> VectorMap | None:
        """The whole map in the `map` frame (`reference='map'`), or None."""
        ...

    @property
    def metadata(self) -> dict[str, str]:
        """Free text for the bag: source, seed, city frame, map offset, origin of the map."""
        ...

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the camera sets in time order."""
        ...


@runtime_checkable
class Drive(Protocol):
    """A drive that can be trained on, predicted and evaluated."""

    @property
    def name(self) -> str:
        """Name of the drive."""
        ...

    @property
    def rig(self) -> CameraRig:
        """Calibration, constant over the drive."""
        ...

    def __len__(self) -> int:
        """Return the number of camera sets."""
        ...

    def stamp_ns(self, index: int) -> int:
        """Return the reference stamp of a set [ns]."""
        ...

    def frame(self, index: int, max_width_px: int | None = None) -> SurroundFrame:
        """Decode one camera set.

        Args:
            index: 0 to len - 1, in time order.
            max_width_px: allow decoding at reduced size (1/2, 1/4, 1/8) as long as the width stays
                at least this; the rig of the returned frame follows. None: full size.

        Raises:
            DataError: an image is corrupt; the message names the file, topic and stamp.
        """
        ...

    def ground_truth(self, index: int) -> VectorMap | None:
        """Return the elements in the ego frame at the set's stamp, or None if there are none."""
        ...

    def lidar_points(self, index: int) -> np.ndarray | None:
        """Return the LiDAR sweep nearest to a set, in the ego frame at the set's stamp.

        Returns:
            (P, 4) float32 x, y, z [m] and intensity, or None where there is none.
        """
        ...

    @property
    def global_map(self) -> VectorMap | None:
        """The whole map in the `map` frame, or None."""
        ...


@dataclass(frozen=True)
class DriveInfo:
    """Summary of a drive for reports.

    Args:
        name: name of the drive.
        num_frames: camera sets.
        duration_s: from the first to the last set [s].
        metadata: the bag's free text.
    """

    name: str
    num_frames: int
    duration_s: float
    metadata: dict[str, str] = field(default_factory=dict)
