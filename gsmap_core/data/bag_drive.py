"""Reads a recording as a drive: camera sets with calibration and pose, ground truth, by number.

Works on any bag with the topics of the contract, ours or not; what is absent (poses, ground truth,
whole map) is None.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsmap_core.data import messages as msg
from gsmap_core.data.bag_cameras import CameraTopics
from gsmap_core.data.bag_queries import add_odometry, read_transforms
from gsmap_core.data.bag_reader import BagReader, RawMessage, TopicInfo
from gsmap_core.data.bag_rig import pick_cameras, read_rig
from gsmap_core.data.bag_writer import GLOBAL_MAP_TOPIC, GROUND_TRUTH_TOPIC, LIDAR_TOPIC
from gsmap_core.data.camera_sets import CameraSet, build_camera_sets
from gsmap_core.data.drive_messages import points_from_message
from gsmap_core.data.groundtruth import move_local_map
from gsmap_core.errors import TransformError
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import (
    Camera,
    CameraRig,
    FloatArray,
    ImageArray,
    SurroundFrame,
    VectorMap,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BagOptions:
    """How a recording is read.

    Args:
        set_tolerance_s: greatest distance of an image, or of ground truth, to its set's stamp [s].
        base_frame: vehicle frame.
        map_frame: frame of the poses.
        odom_frame: taken instead where the recording has no `map_frame`.
    """

    set_tolerance_s: float = 0.1
    base_frame: str = msg.BASE_FRAME
    map_frame: str = msg.MAP_FRAME
    odom_frame: str = msg.ODOM_FRAME


def open_bag(
    path: str | Path, *, rig: CameraRig | None = None, options: BagOptions | None = None
) -> BagDrive:
    """Open a recording as a drive.

    Args:
        path: bag folder, `.mcap` or `.db3` file.
        rig: calibration to use instead of CameraInfo and `/tf_static`; it also picks the cameras
            and their order.
        options: how to read it.

    Raises:
        DataError: no recording, cut off, or without camera images.
        CalibrationError: CameraInfo is missing, uncalibrated or not supported, or the extrinsics
            are missing.
    """
    return BagDrive(BagReader(path), rig, options or BagOptions())


class BagDrive:
    """One recording as a `gsmap_core.data.drives.Drive`. Can be pickled for worker processes.

    Camera sets whose moment the recorded poses do not cover are left out and counted in
    `sets_dropped`.

    Args:
        reader: the recording.
        rig: see `open_bag`.
        options: how to read it.
    """

    def __init__(self, reader: BagReader, rig: CameraRig | None, options: BagOptions) -> None:
        self.reader = reader
        self.options = options
        self.sets_dropped: dict[str, int] = {}
        self._tolerance_ns = round(options.set_tolerance_s * 1e9)
        self._tree = read_transforms(reader)
        self._pose_topic = '/tf'
        self._pose_frame = self._find_pose_frame()
        if self._pose_frame is None:
            self._pose_topic = add_odometry(reader, self._tree, options.base_frame)
            self._pose_frame = self._find_pose_frame()
        self._topics = pick_cameras(reader, rig)
        self._rig, self._pictures = read_rig(
            reader, self._topics, self._tree, options.base_frame, rig, self.name
        )
        self._stamps = [
            reader.header_stamps_ns(self._topics[name].image)
            if name in self._topics
            else np.zeros(0, dtype=np.int64)
            for name in self._rig.names
        ]
        self._sets = self._covered(build_camera_sets(self._stamps, self._tolerance_ns))
        self._set_stamps = np.array([item.stamp_ns for item in self._sets], dtype=np.int64)
        self._sample_ids = _parse_sample_ids(reader.metadata.get('sample_ids', ''))

    @property
    def path(self) -> Path:
        """Where the recording lies."""
        return self.reader.path

    @property
    def name(self) -> str:
        """Scene name from the metadata, else the name of the recording."""
        return self.metadata.get('scene') or self.path.stem

    @property
    def metadata(self) -> dict[str, str]:
        """Free text stored with the recording."""
        return self.reader.metadata

    @property
    def topics(self) -> dict[str, TopicInfo]:
        """Every topic by name."""
        return self.reader.topics

    @property
    def camera_topics(self) -> dict[str, CameraTopics]:
        """Topics of the cameras that deliver, by camera name."""
        return self._topics

    @property
    def rig(self) -> CameraRig:
        """Calibration for full-size, rectified images."""
        return self._rig

    @property
    def pose_frame(self) -> str | None:
        """Frame of the poses: `map`, or `odom` in a recording without one; None: no poses."""
        return self._pose_frame

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return len(self._sets)

    def stamp_ns(self, index: int) -> int:
        """Return the reference stamp of a set [ns]."""
        return self._sets[index].stamp_ns

    @property
    def num_incomplete(self) -> int:
        """Sets in which a camera is missing."""
        return sum(None in item.indices for item in self._sets)

    @property
    def num_annotated(self) -> int:
        """Sets that have ground truth."""
        return sum(
            self._own_index(self._truth_stamps, index) is not None for index in range(len(self))
        )

    def sample_id(self, index: int) -> str:
        """Return the dataset's id of a set; empty if it has none."""
        found = self._own_index(self._sample_ids[0], index)
        if found is not None:
            return self._sample_ids[1][found]
        truth = None if self._sample_ids[1] else self._ground_truth_message(index)
        return truth.sample_id if truth is not None else ''

    def image_stamps_ns(self, index: int) -> tuple[int | None, ...]:
        """Return the stamps of a set's images in the order of the rig; None: missing [ns]."""
        return tuple(
            None if image is None else int(stamps[image])
            for stamps, image in zip(self._stamps, self._sets[index].indices, strict=True)
        )

    def recorded_jpeg(self, index: int, camera: int) -> bytes | None:
        """Return an image of a set as it was recorded, if that is a rectified JPEG; else None.

        Args:
            index: number of the set.
            camera: number of the camera in the rig.
        """
        image = self._sets[index].indices[camera]
        name = self._rig.names[camera]
        if image is None or not self._pictures[name].keeps_pixels:
            return None
        data = self.reader.message(self._topics[name].image, image).data.tobytes()
        return data if data[:2] == b'\xff\xd8' else None

    @cached_property
    def pose_stamps_ns(self) -> list[int]:
        """Stamps of the recorded poses, ascending [ns]; none in a recording without poses."""
        if self._pose_frame is None or self._pose_topic not in self.topics:
            return []
        span = self._tree.coverage_ns(self._pose_frame, self.options.base_frame)
        if span is None:
            return []
        stamps = np.unique(self.reader.log_times_ns(self._pose_topic))
        if self._pose_topic != '/tf':
            stamps = np.unique(self.reader.header_stamps_ns(self._pose_topic))
        return [int(stamp) for stamp in stamps if span[0] <= stamp <= span[1]]

    def map_from_base(self, stamp_ns: int) -> FloatArray | None:
        """Return the (4, 4) ego pose at a stamp; None in a recording without poses.

        Raises:
            TransformError: the recorded poses do not cover the stamp.
        """
        if self._pose_frame is None:
            return None
        return self._tree.lookup(self._pose_frame, self.options.base_frame, stamp_ns)

    def frame(self, index: int, max_width_px: int | None = None) -> SurroundFrame:
        """Decode one camera set; ego motion inside it is in the extrinsics. See `Drive.frame`.

        Raises:
            DataError: an image is corrupt; the message names file, topic and stamp.
            CalibrationError: an image has another shape than its calibration.
        """
        chosen = self._sets[index]
        map_from_base = self.map_from_base(chosen.stamp_ns)
        images: list[ImageArray | None] = []
        cameras: list[Camera] = []
        stamps: list[int | None] = []
        extrinsics: list[FloatArray] = []
        for number, camera in enumerate(self._rig.cameras):
            image_index = chosen.indices[number]
            if image_index is None:
                images.append(None)
                stamps.append(None)
                cameras.append(camera)
                extrinsics.append(camera.base_from_camera)
                continue
            topics = self._topics[camera.name]
            stamp_ns = int(self._stamps[number][image_index])
            where = f"'{self.path}': topic '{topics.image}' at {stamp_ns} ns"
            message = self.reader.message(topics.image, image_index)
            picture, fitted = self._pictures[camera.name].read(message, where, max_width_px)
            images.append(picture)
            cameras.append(fitted)
            stamps.append(stamp_ns)
            extrinsic = camera.base_from_camera
            if map_from_base is not None and stamp_ns != chosen.stamp_ns:
                map_from_base_then = self.map_from_base(stamp_ns)
                assert map_from_base_then is not None
                extrinsic = invert(map_from_base) @ map_from_base_then @ extrinsic
            extrinsics.append(extrinsic)
        return SurroundFrame(
            stamp_ns=chosen.stamp_ns,
            rig=replace(self._rig, cameras=tuple(cameras)),
            images=tuple(images),
            camera_stamps_ns=tuple(stamps),
            map_from_base=map_from_base,
            base_from_cameras=np.stack(extrinsics),
            sample_id=self.sample_id(index),
            scene=self.name,
        )

    def ground_truth(self, index: int) -> VectorMap | None:
        """Return the elements at the set's stamp, in the frame they were recorded in, or None.

        That is the ego frame, or the LiDAR frame of the nuScenes protocols. A recorded map belongs
        to the one set nearest to it; if it is of a slightly different moment, it is moved by the
        ego motion in between.

        Raises:
            DataError: the recorded message is not valid.
            TransformError: it must be moved and the poses do not allow it.
        """
        message = self._ground_truth_message(index)
        if message is None:
            return None
        stamp_ns = self.stamp_ns(index)
        truth = msg.local_map_from_message(
            message, self.name, where=f"'{self.path}': topic '{GROUND_TRUTH_TOPIC}'"
        )
        pose, pose_then = self.map_from_base(stamp_ns), self.map_from_base(truth.stamp_ns)
        if truth.stamp_ns != stamp_ns:
            if pose is None or pose_then is None:
                raise TransformError(
                    f"'{self.path}': ground truth at {truth.stamp_ns} ns belongs to the images at "
                    f'{stamp_ns} ns, but there are no poses to move it by; record /tf'
                )
            motion = invert(pose) @ pose_then
            if truth.reference == 'lidar':
                motion = self._in_lidar_frame(motion)
            truth = move_local_map(truth, motion)
        sample_id = truth.sample_id or self.sample_id(index)
        return replace(truth, stamp_ns=stamp_ns, map_from_base=pose, sample_id=sample_id)

    @cached_property
    def global_map(self) -> VectorMap | None:
        """The whole map in the `map` frame, or None."""
        info = self.topics.get(GLOBAL_MAP_TOPIC)
        if info is None or not info.count:
            return None
        message = self.reader.message(GLOBAL_MAP_TOPIC, info.count - 1)
        where = f"'{self.path}': topic '{GLOBAL_MAP_TOPIC}'"
        return msg.global_map_from_message(message, self.name, where)

    def lidar_points(self, index: int) -> np.ndarray | None:
        """Return the sweep nearest to a set, in the ego frame at the set's stamp.

        Returns:
            (P, 4) float32 x, y, z [m] and intensity; None where there is none within the
            tolerance.

        Raises:
            DataError: the cloud has no x, y, z and intensity.
            TransformError: its frame is not connected to the vehicle.
        """
        if LIDAR_TOPIC not in self.topics:
            return None
        stamp_ns = self.stamp_ns(index)
        found = _nearest_index(self._lidar_stamps, stamp_ns, self._tolerance_ns)
        if found is None:
            return None
        message = self.reader.message(LIDAR_TOPIC, found)
        points = points_from_message(message, f"'{self.path}': topic '{LIDAR_TOPIC}'")
        then_ns = msg.time_to_ns(message.header.stamp)
        motion = self._tree.lookup(self.options.base_frame, message.header.frame_id, then_ns)
        pose, pose_then = self.map_from_base(stamp_ns), self.map_from_base(then_ns)
        if pose is not None and pose_then is not None:
            motion = invert(pose) @ pose_then @ motion
        points[:, :3] = transform_points(motion, points[:, :3])
        return points

    def messages(self, topics: list[str] | None = None) -> Iterator[RawMessage]:
        """Yield the messages as recorded, by log time."""
        return self.reader.messages(topics)

    def _in_lidar_frame(self, motion: FloatArray) -> FloatArray:
        """Express a motion of the ego frame as one of the nuScenes LiDAR frame."""
        base_from_lidar = self._rig.base_from_lidar
        if base_from_lidar is None:
            raise TransformError(
                f"'{self.path}': ground truth is in the frame '{msg.NUSCENES_LIDAR_FRAME}', which "
                'is not in /tf_static; record it, or give a rig file with base_from_lidar'
            )
        return invert(base_from_lidar) @ motion @ base_from_lidar

    @cached_property
    def _lidar_stamps(self) -> npt.NDArray[np.int64]:
        return self.reader.header_stamps_ns(LIDAR_TOPIC)

    @cached_property
    def _truth_stamps(self) -> npt.NDArray[np.int64]:
        info = self.topics.get(GROUND_TRUTH_TOPIC)
        if info is None or info.type != msg.MAP_ELEMENT_ARRAY:
            return np.zeros(0, dtype=np.int64)
        return self.reader.header_stamps_ns(GROUND_TRUTH_TOPIC)

    def _ground_truth_message(self, index: int) -> Any | None:
        found = self._own_index(self._truth_stamps, index)
        return None if found is None else self.reader.message(GROUND_TRUTH_TOPIC, found)

    def _own_index(self, stamps: npt.NDArray[np.int64], index: int) -> int | None:
        """Return which of the stamps is nearest to a set, if that set is the nearest to it too.

        Annotated samples may be rarer than camera sets: one must not serve several sets.
        """
        found = _nearest_index(stamps, self.stamp_ns(index), self._tolerance_ns)
        if found is None:
            return None
        owner = _nearest_index(self._set_stamps, int(stamps[found]), self._tolerance_ns)
        return found if owner == index else None

    def _find_pose_frame(self) -> str | None:
        for frame in (self.options.map_frame, self.options.odom_frame):
            if self._tree.is_connected(frame, self.options.base_frame):
                if frame != self.options.map_frame:
                    _log.warning(
                        "'%s': no '%s' frame; poses are in '%s'",
                        self.reader.path,
                        self.options.map_frame,
                        frame,
                    )
                return frame
        return None

    def _covered(self, sets: list[CameraSet]) -> list[CameraSet]:
        """Leave out the sets in which an image has no pose."""
        if self._pose_frame is None:
            return sets
        span = self._tree.coverage_ns(self._pose_frame, self.options.base_frame)
        if span is None:
            return sets
        kept = []
        for item in sets:
            stamps = [
                int(self._stamps[camera][index])
                for camera, index in enumerate(item.indices)
                if index is not None
            ]
            if span[0] <= min(stamps) and max(stamps) <= span[1]:
                kept.append(item)
        if len(kept) < len(sets):
            self.sets_dropped['no_pose'] = len(sets) - len(kept)
            _log.warning(
                "'%s': %d of %d camera sets lie outside the recorded poses and are left out",
                self.path,
                len(sets) - len(kept),
                len(sets),
            )
        return kept


def _nearest_index(stamps: npt.NDArray[np.int64], stamp_ns: int, tolerance_ns: int) -> int | None:
    if not len(stamps):
        return None
    distance = np.abs(stamps - stamp_ns)
    index = int(np.argmin(distance))
    return index if distance[index] <= tolerance_ns else None


def _parse_sample_ids(text: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    pairs = [item.split('=', 1) for item in text.split() if '=' in item]
    stamps = np.array([int(stamp) for stamp, _ in pairs], dtype=np.int64)
    return stamps, [sample_id for _, sample_id in pairs]
