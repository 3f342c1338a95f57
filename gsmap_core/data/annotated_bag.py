"""A bag of one's own vehicle as a recording that follows the bag contract, with ground truth.

What the vehicle recorded (raw images, odometry instead of TF, other frames) becomes what training
reads; ground truth is cut out of annotations of the whole map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import cv2
import numpy as np

from gsmap_core.data.bag_drive import BagDrive
from gsmap_core.data.drives import PoseSample, RecordedFrame, RecordedImage
from gsmap_core.data.groundtruth import cut_local_map
from gsmap_core.errors import DataError
from gsmap_core.structures import CameraRig, MapElement, PerceptionRange, VectorMap

#: Quality of the JPEG images that are made of raw or distorted ones.
_QUALITY = 95


class AnnotatedBag:
    """A recorded drive as a `gsmap_core.data.drives.Recording`.

    Args:
        drive: the bag, opened with the rig of the vehicle or with its own calibration.
        elements: the whole map in the frame of the drive's poses; None: no ground truth.
        perception_range: extent of the ground truth of a frame, ego frame; None: the default.
        lidar: whether frames come with their sweeps.

    Raises:
        DataError: the bag has no poses.
    """

    def __init__(
        self,
        drive: BagDrive,
        elements: Sequence[MapElement] | None = None,
        *,
        perception_range: PerceptionRange | None = None,
        lidar: bool = True,
    ) -> None:
        if drive.pose_frame is None:
            raise DataError(
                f"'{drive.path}' has no poses: no '{drive.options.map_frame}' or "
                f"'{drive.options.odom_frame}' above '{drive.options.base_frame}' in /tf, and no "
                'nav_msgs/Odometry; record one of them'
            )
        self._drive = drive
        self._elements = None if elements is None else tuple(elements)
        self._range = perception_range or PerceptionRange()
        self._lidar = lidar

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return len(self._drive)

    @property
    def name(self) -> str:
        """Name of the drive."""
        return self._drive.name

    @property
    def rig(self) -> CameraRig:
        """Calibration of the rectified images."""
        return self._drive.rig

    @cached_property
    def poses(self) -> list[PoseSample]:
        """The pose at every recorded pose, camera set and image."""
        drive = self._drive
        stamps = set(drive.pose_stamps_ns)
        for index in range(len(drive)):
            stamps.add(drive.stamp_ns(index))
            stamps.update(stamp for stamp in drive.image_stamps_ns(index) if stamp is not None)
        samples = []
        for stamp in sorted(stamps):
            pose = drive.map_from_base(stamp)
            assert pose is not None, 'checked when the drive was given'
            samples.append(PoseSample(stamp, pose))
        return samples

    @property
    def global_map(self) -> VectorMap | None:
        """The annotations."""
        if self._elements is None:
            return None
        points = np.concatenate([element.vertices[:, :2] for element in self._elements])
        (x_min, y_min), (x_max, y_max) = points.min(axis=0) - 1.0, points.max(axis=0) + 1.0
        return VectorMap(
            elements=self._elements,
            stamp_ns=self._drive.stamp_ns(0),
            range=PerceptionRange(float(x_min), float(x_max), float(y_min), float(y_max)),
            reference='map',
            scene=self.name,
        )

    @property
    def metadata(self) -> dict[str, str]:
        """What the bag says of itself, and where it came from."""
        # Frames get their ids anew; how this bag was made is not how the next one is.
        own = {k: v for k, v in self._drive.metadata.items() if k not in ('sample_ids', 'cameras')}
        return {'source': 'own bag', **own, 'recorded_in': str(self._drive.path.name)}

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the camera sets by time.

        JPEG images that are rectified stay as they are; others are rectified and compressed.

        Raises:
            DataError: an image is corrupt; the message names file, topic and stamp.
        """
        drive = self._drive
        for index in range(len(drive)):
            stamp_ns = drive.stamp_ns(index)
            sample_id = drive.sample_id(index) or f'{self.name}-{index:06d}'
            truth = None
            if self._elements is not None:
                pose = drive.map_from_base(stamp_ns)
                assert pose is not None, 'checked when the drive was given'
                truth = cut_local_map(
                    self._elements, pose, self._range, stamp_ns, sample_id, self.name
                )
            yield RecordedFrame(
                stamp_ns=stamp_ns,
                images=tuple(self._images(index)),
                ground_truth=truth,
                lidar_points=drive.lidar_points(index) if self._lidar else None,
                sample_id=sample_id,
            )

    def _images(self, index: int) -> Iterator[RecordedImage]:
        """Yield the images of a set as rectified JPEG."""
        drive = self._drive
        stamps = drive.image_stamps_ns(index)
        as_recorded = [drive.recorded_jpeg(index, number) for number in range(len(stamps))]
        decoded = None
        for number, (camera, stamp_ns) in enumerate(zip(self.rig.cameras, stamps, strict=True)):
            if stamp_ns is None:
                continue
            data = as_recorded[number]
            if data is None:
                decoded = decoded or drive.frame(index)
                picture = decoded.images[number]
                assert picture is not None, 'the set has this image'
                data = _jpeg(picture, (camera.width_px, camera.height_px))
            yield RecordedImage(camera.name, stamp_ns, data)


def _jpeg(picture: np.ndarray, size: tuple[int, int]) -> bytes:
    """Compress (H, W, 3) RGB at the size of the calibration."""
    if picture.shape[1::-1] != size:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()
