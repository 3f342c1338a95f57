"""Writes drives as recordings that follow the bag contract of the architecture.

Topics, order and stamps are decided here; the file itself is `bag_recorder`'s.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.data import messages as msg
from gsmap_core.data.bag_reader import QosProfile
from gsmap_core.data.bag_recorder import BagRecorder, BagSummary
from gsmap_core.data.drive_messages import (
    camera_info_message,
    odometry_message,
    point_cloud_message,
)
from gsmap_core.data.drives import RecordedFrame, Recording
from gsmap_core.errors import DataError
from gsmap_core.structures import CameraRig

_log = logging.getLogger(__name__)

#: How the topics of a drive are recorded (ros-conventions: section 6, and converter rule 1).
IMAGE_QOS = QosProfile('reliable', 'volatile', 'keep_last', 5)
TF_QOS = QosProfile('reliable', 'volatile', 'keep_last', 100)
LATCHED_QOS = QosProfile('reliable', 'transient_local', 'keep_last', 1)

GROUND_TRUTH_TOPIC = '/ground_truth/local_map'
GLOBAL_MAP_TOPIC = '/ground_truth/map'
LIDAR_TOPIC = '/lidar_top/points'
ODOMETRY_TOPIC = '/odom'

# Of messages with one stamp, poses go first: a listener has them when the image comes.
_STATIC, _POSE, _INFO, _IMAGE, _OTHER = range(5)
#: Poses this long after the last image are kept when a drive is cut short [ns].
_POSES_PAST_END_NS = 200_000_000


def write_bag(
    recording: Recording,
    path: str | Path,
    *,
    lidar: bool = False,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
    limit: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> BagSummary:
    """Write a drive with everything that is known about it.

    Topics: `/tf`, `/tf_static`, `/odom`, per camera `image_rect/compressed` and `camera_info`,
        `/ground_truth/local_map` and `/ground_truth/map` where known, `/lidar_top/points` on
        request. Log time = header stamp = sensor time.

    Args:
        recording: the drive; one without a rig (`rig` None) is written without cameras.
        path: folder to make, or a file ending in `.mcap`.
        lidar: also write the point clouds.
        progress: called with the number of sets written and the total, 0 if that is unknown.
        overwrite: replace an existing recording.
        limit: stop after that many camera sets.
        metadata: more free text for the bag.

    Raises:
        DataError: the path exists; frames are not in time order; an image names no camera of the
            rig; there are no
            frames or no poses.
    """
    rig: CameraRig | None = recording.rig
    cameras = () if rig is None else rig.cameras
    distorted = [camera.name for camera in cameras if camera.distortion_model != 'none']
    if distorted:
        raise DataError(
            f"drive '{recording.name}': cameras {', '.join(distorted)} have lens distortion; "
            'image_rect holds rectified images: rectify them first'
        )
    if not recording.poses:
        raise DataError(f"drive '{recording.name}' has no poses; expected at least one")
    text = {
        'scene': recording.name,
        'rig': '' if rig is None else rig.name,
        'cameras': ','.join(camera.name for camera in cameras),
        **recording.metadata,
        **(metadata or {}),
    }
    with BagRecorder(path, text, overwrite=overwrite) as recorder:
        queue = _DriveQueue(recorder, recording)
        total = len(recording) if isinstance(recording, Sized) else 0
        total = min(total, limit) if limit is not None and total else total
        for frame in recording.frames():
            if limit is not None and queue.num_frames >= limit:
                break
            queue.add_frame(frame, lidar)
            if progress is not None:
                progress(queue.num_frames, total)
        if not queue.num_frames:
            raise DataError(f"drive '{recording.name}' has no camera sets; nothing was written")
        queue.finish(is_cut=limit is not None)
        summary = recorder.close()
    _log.info(
        "wrote '%s': %d sets, %.1f s, %.1f MB",
        summary.path,
        queue.num_frames,
        summary.duration_s,
        summary.size_bytes / 1e6,
    )
    return replace(summary, num_frames=queue.num_frames)


@dataclass(order=True)
class _Pending:
    stamp_ns: int
    rank: int
    number: int
    topic: str = field(compare=False)
    message: Any = field(compare=False)


class _DriveQueue:
    """Brings the messages of a drive into time order while it holds one camera set only."""

    def __init__(self, recorder: BagRecorder, recording: Recording) -> None:
        self._recorder = recorder
        self._recording = recording
        self._rig: CameraRig | None = recording.rig
        self._cameras = () if self._rig is None else self._rig.cameras
        self._poses = sorted(recording.poses, key=lambda pose: pose.stamp_ns)
        self._next_pose = 0
        self._heap: list[_Pending] = []
        self._number = 0
        self._written_ns = -1
        self._sample_ids: list[str] = []
        self.num_frames = 0
        recorder.add_topic('/tf_static', msg.TF_MESSAGE, LATCHED_QOS)
        recorder.add_topic('/tf', msg.TF_MESSAGE, TF_QOS)
        recorder.add_topic(ODOMETRY_TOPIC, msg.ODOMETRY, TF_QOS)
        for camera in self._cameras:
            recorder.add_topic(image_topic(camera.name), msg.COMPRESSED_IMAGE, IMAGE_QOS)
            recorder.add_topic(info_topic(camera.name), msg.CAMERA_INFO, IMAGE_QOS)

    def add_frame(self, frame: RecordedFrame, lidar: bool) -> None:
        """Take in one camera set and write everything older than it."""
        stamps = [frame.stamp_ns, *(image.stamp_ns for image in frame.images)]
        if self.num_frames == 0:
            self._write_static(min(*stamps, self._poses[0].stamp_ns))
        self._flush(min(stamps))
        for image in frame.images:
            assert self._rig is not None, 'a drive without a rig has no images'
            camera = self._rig.camera(image.camera)
            self._push(
                image.stamp_ns,
                _INFO,
                info_topic(camera.name),
                camera_info_message(camera, image.stamp_ns),
            )
            self._push(
                image.stamp_ns,
                _IMAGE,
                image_topic(camera.name),
                msg.make_message(
                    msg.COMPRESSED_IMAGE,
                    header=msg.make_header(image.stamp_ns, camera.frame_id),
                    format='rgb8; jpeg compressed bgr8',
                    data=np.frombuffer(image.data, dtype=np.uint8),
                ),
            )
        if frame.ground_truth is not None:
            self._recorder.add_topic(GROUND_TRUTH_TOPIC, msg.MAP_ELEMENT_ARRAY, IMAGE_QOS)
            truth = msg.local_map_to_message(frame.ground_truth)
            self._push(frame.ground_truth.stamp_ns, _OTHER, GROUND_TRUTH_TOPIC, truth)
        if lidar and frame.lidar_points is not None:
            self._recorder.add_topic(LIDAR_TOPIC, msg.POINT_CLOUD, IMAGE_QOS)
            cloud = point_cloud_message(frame.lidar_points, frame.stamp_ns)
            self._push(frame.stamp_ns, _OTHER, LIDAR_TOPIC, cloud)
        if frame.sample_id:
            self._sample_ids.append(f'{frame.stamp_ns}={frame.sample_id}')
        self.num_frames += 1

    def finish(self, is_cut: bool) -> None:
        """Write what is left; of a drive that was cut short only the poses just past its end."""
        if is_cut:
            end_ns = max((item.stamp_ns for item in self._heap), default=self._written_ns)
            kept = [p for p in self._poses if p.stamp_ns < end_ns + _POSES_PAST_END_NS]
            kept += self._poses[len(kept) : len(kept) + 1]
            self._poses = kept
        self._flush(None)
        if self._sample_ids:
            self._recorder.set_metadata('sample_ids', ' '.join(self._sample_ids))

    def _push(self, stamp_ns: int, rank: int, topic: str, message: Any) -> None:
        self._number += 1
        heapq.heappush(self._heap, _Pending(stamp_ns, rank, self._number, topic, message))

    def _flush(self, until_ns: int | None) -> None:
        """Write what is older than a stamp, with the poses in between; None: everything."""
        while self._next_pose < len(self._poses) and (
            until_ns is None or self._poses[self._next_pose].stamp_ns <= until_ns
        ):
            self._push_pose(self._next_pose)
            self._next_pose += 1
        while self._heap and (until_ns is None or self._heap[0].stamp_ns < until_ns):
            item = heapq.heappop(self._heap)
            if item.stamp_ns < self._written_ns:
                raise DataError(
                    f"drive '{self._recording.name}': {item.topic} at {item.stamp_ns} ns "
                    f'comes after {self._written_ns} ns was written; '
                    'expected camera sets in time order'
                )
            self._recorder.write(item.topic, item.stamp_ns, item.message)
            self._written_ns = item.stamp_ns

    def _push_pose(self, index: int) -> None:
        pose = self._poses[index]
        transform = msg.make_transform_stamped(
            pose.stamp_ns, msg.ODOM_FRAME, msg.BASE_FRAME, pose.map_from_base
        )
        message = msg.make_message(msg.TF_MESSAGE, transforms=[transform])
        self._push(pose.stamp_ns, _POSE, '/tf', message)
        odometry = odometry_message(self._poses, index)
        self._push(pose.stamp_ns, _POSE, ODOMETRY_TOPIC, odometry)

    def _write_static(self, stamp_ns: int) -> None:
        transforms = [
            msg.make_transform_stamped(stamp_ns, msg.MAP_FRAME, msg.ODOM_FRAME, np.eye(4))
        ]
        transforms += [
            msg.make_transform_stamped(
                stamp_ns, msg.BASE_FRAME, camera.frame_id, camera.base_from_camera
            )
            for camera in self._cameras
        ]
        if self._rig is not None and self._rig.base_from_lidar is not None:
            transforms.append(
                msg.make_transform_stamped(
                    stamp_ns, msg.BASE_FRAME, msg.NUSCENES_LIDAR_FRAME, self._rig.base_from_lidar
                )
            )
        message = msg.make_message(msg.TF_MESSAGE, transforms=transforms)
        self._push(stamp_ns, _STATIC, '/tf_static', message)
        whole = self._recording.global_map
        if whole is not None:
            self._recorder.add_topic(GLOBAL_MAP_TOPIC, msg.VECTOR_MAP, LATCHED_QOS)
            message = msg.global_map_to_message(whole)
            message.header.stamp = msg.make_time(stamp_ns)
            self._push(stamp_ns, _STATIC, GLOBAL_MAP_TOPIC, message)


def image_topic(camera: str) -> str:
    """Return the topic of a camera's rectified JPEG images."""
    return f'/{camera}/image_rect/compressed'


def info_topic(camera: str) -> str:
    """Return the topic of a camera's calibration."""
    return f'/{camera}/camera_info'
