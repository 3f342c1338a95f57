"""Pose tables: where a drive was, frame by frame, without its images.

They are all that an analysis of routes needs; files of them are the business of `pose_files`. A
drive belongs to a place (a city, a town); poses of different places are never compared, and those
of one place are in one frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gsmap_core.data.drives import Recording
from gsmap_core.data.tf_tree import TransformTree
from gsmap_core.errors import DataError
from gsmap_core.structures import FloatArray, check_transform

#: Metadata that names the frame the poses of several drives share: a dataset's, the generator's.
_PLACE_KEYS = ('city_frame', 'town')
_NO_FRAMES = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class PoseTable:
    """The poses of one drive at its frames.

    Args:
        name: of the drive, unique among those compared.
        place: city or town whose frame the poses are in; empty: the one place without a name.
        stamps_ns: (N,) int64, ascending [ns].
        map_from_base: (N, 4, 4) float64 in the frame of the place.
        frames: (N,) int64 numbers of the frames in the drive, ascending. Omitted: 0 to N - 1.

    Raises:
        DataError: no name, no pose, a pose is not rigid, or the lengths or orders do not fit.
    """

    name: str
    place: str
    stamps_ns: npt.NDArray[np.int64]
    map_from_base: FloatArray
    frames: npt.NDArray[np.int64] = field(default_factory=lambda: _NO_FRAMES)

    def __post_init__(self) -> None:
        """Validate and normalise array types."""
        where = f"poses of drive '{self.name}'"
        if not self.name:
            raise DataError('a pose table has no name; expected the name of its drive')
        stamps = np.asarray(self.stamps_ns, dtype=np.int64)
        poses = np.asarray(self.map_from_base, dtype=np.float64)
        if stamps.ndim != 1 or not len(stamps) or poses.shape != (len(stamps), 4, 4):
            raise DataError(
                f'{where}: {stamps.shape} stamps and {poses.shape} poses; expected (N,) and '
                '(N, 4, 4) with N of 1 or more'
            )
        for index, pose in enumerate(poses):
            check_transform(f'{where}: map_from_base[{index}]', pose)
        frames = np.asarray(self.frames, dtype=np.int64)
        frames = frames if len(frames) else np.arange(len(stamps), dtype=np.int64)
        for label, values in (('stamps_ns', stamps), ('frames', frames)):
            if len(values) != len(stamps) or (np.diff(values) <= 0).any() or values[0] < 0:
                raise DataError(
                    f'{where}: {label} are not {len(stamps)} ascending numbers; sort the frames '
                    'by time and leave out repetitions'
                )
        object.__setattr__(self, 'stamps_ns', stamps)
        object.__setattr__(self, 'map_from_base', poses)
        object.__setattr__(self, 'frames', frames)

    def __len__(self) -> int:
        """Return the number of poses N."""
        return len(self.stamps_ns)

    def thinned(self, stride: int) -> PoseTable:
        """Return every `stride`-th pose, beginning with the first; frames keep their numbers.

        Raises:
            DataError: the stride is not positive.
        """
        if stride < 1:
            raise DataError(f'every {stride}th pose was asked for; expected 1 or more')
        kept = slice(None, None, stride)
        return PoseTable(
            self.name,
            self.place,
            self.stamps_ns[kept],
            self.map_from_base[kept],
            self.frames[kept],
        )


class PosedDrive(Protocol):
    """What a drive must be able to say for its poses to be read without its images."""

    @property
    def name(self) -> str:
        """Name of the drive."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free text: city frame, map offset."""
        ...

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def stamp_ns(self, index: int) -> int:
        """Return the stamp of a frame [ns]."""
        ...

    def map_from_base(self, stamp_ns: int) -> FloatArray | None:
        """Return the (4, 4) ego pose at a stamp, or None."""
        ...


def place_and_offset(metadata: Mapping[str, str]) -> tuple[str, FloatArray]:
    """Return what a drive's metadata says about its `map` frame.

    Returns:
        The name of the place, empty if it has none, and the (3,) shift from the `map` frame to
        the frame of the place [m]: converters move `map` near the drive.

    Raises:
        DataError: `map_offset` is not three numbers.
    """
    place = next((metadata[key] for key in _PLACE_KEYS if metadata.get(key)), '')
    text = metadata.get('map_offset', '0 0 0')
    try:
        offset = np.array([float(value) for value in text.split()])
    except ValueError:
        offset = np.full(1, np.nan)
    if offset.shape != (3,) or not np.isfinite(offset).all():
        raise DataError(f"map_offset is '{text}'; expected three numbers x y z [m]")
    return place, offset


def pose_table_of(drive: PosedDrive, place: str | None = None) -> PoseTable:
    """Read the poses of a drive at its frames; no image is decoded.

    Args:
        drive: a bag opened with `open_bag`, or anything that can say the same.
        place: where it was; None: as its metadata says.

    Raises:
        DataError: the drive has no frames or no poses, or its poses are in an odometry frame.
    """
    frame = getattr(drive, 'pose_frame', 'map')
    if frame == 'odom':
        raise DataError(
            f"drive '{drive.name}': poses are in 'odom', which begins anew with every drive; "
            "expected poses in 'map'"
        )
    stamps = [drive.stamp_ns(index) for index in range(len(drive))]
    poses = [drive.map_from_base(stamp) for stamp in stamps]
    known = [pose for pose in poses if pose is not None]
    if not poses or len(known) < len(poses):
        raise DataError(
            f"drive '{drive.name}': {len(poses)} frames, {len(known)} with a pose; expected a "
            'pose for every frame: record /tf'
        )
    stated, offset = place_and_offset(drive.metadata)
    matrices = np.stack(known)
    matrices[:, :3, 3] += offset
    return PoseTable(
        drive.name, stated if place is None else place, np.array(stamps, np.int64), matrices
    )


def pose_table_of_recording(
    recording: Recording, stamps_ns: npt.ArrayLike, place: str | None = None
) -> PoseTable:
    """Read the poses of a recording at the stamps of its frames; no image is made.

    Args:
        recording: a source of bags; its poses are interpolated.
        stamps_ns: (N,) stamps of the frames, ascending [ns].
        place: where it was; None: as its metadata says.

    Raises:
        DataError: there are no stamps, or they are not ascending.
        TransformError: the recorded poses do not cover a stamp.
    """
    tree = TransformTree()
    for sample in recording.poses:
        tree.add('map', 'base', sample.stamp_ns, sample.map_from_base)
    stamps = np.asarray(stamps_ns, dtype=np.int64)
    poses = [tree.lookup('map', 'base', int(stamp)) for stamp in stamps]
    stated, offset = place_and_offset(recording.metadata)
    matrices = np.array(poses, dtype=np.float64).reshape(-1, 4, 4)
    matrices[:, :3, 3] += offset
    return PoseTable(recording.name, stated if place is None else place, stamps, matrices)
