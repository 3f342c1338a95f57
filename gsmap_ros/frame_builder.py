"""Turns a camera set of messages into a `SurroundFrame`: images, calibration, ego motion.

Images are decoded by several threads at once, outside the executor, when the worker has taken the
set: those of sets that nobody will map cost nothing.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from gsmap_core.errors import CalibrationError, DataError, TransformError
from gsmap_core.structures import Camera, CameraRig, FloatArray, ImageArray, SurroundFrame
from gsmap_ros.calibration import CameraCalibration
from gsmap_ros.camera_sync import CameraSet
from gsmap_ros.pose_source import EgoMotion, PoseSource
from gsmap_ros.stage_times import ReceivedImage, StageTimer

_LOGGER = logging.getLogger(__name__)

#: Decodes one image message; the second argument is the topic, for errors. Returns the picture and
#: the denominator of the fraction of its size it was decoded at.
ImageDecoder = Callable[[Any, str], tuple[ImageArray, int]]


class SetRejectedError(DataError):
    """A camera set cannot be mapped.

    Attributes:
        reason: under which it is counted.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FrameBuilder:
    """Builds frames for the predictor; call it in the worker thread.

    Args:
        calibrations: by camera, in the order of the rig.
        image_topics: by camera, named in errors.
        decode: for the kind of image message that is subscribed.
        pose_source: ego pose and extrinsics.
        min_cameras: sets with fewer usable images are rejected.
        rig_name: name of the rig in the frames.
    """

    def __init__(
        self,
        calibrations: Mapping[str, CameraCalibration],
        image_topics: Mapping[str, str],
        decode: ImageDecoder,
        pose_source: PoseSource,
        min_cameras: int,
        rig_name: str,
    ) -> None:
        self._calibrations = calibrations
        self._image_topics = image_topics
        self._decode = decode
        self._pose_source = pose_source
        self._min_cameras = min(min_cameras, len(calibrations))
        self._rig_name = rig_name
        self._placed: dict[str, Camera] = {}
        num_threads = min(len(calibrations), len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix='decode')
        self.unusable_images: Counter[str] = Counter()
        self.last_image_errors: dict[str, str] = {}

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def build(
        self,
        camera_set: CameraSet[ReceivedImage],
        tf_timeout_s: float,
        now_ns: Callable[[], int],
        is_stopping: Callable[[], bool],
        timer: StageTimer | None = None,
    ) -> SurroundFrame:
        """Build the frame of a camera set; an unusable image counts as a missing one.

        Args:
            camera_set: messages by camera.
            tf_timeout_s: how long to wait for transforms [s].
            now_ns: the node clock [ns].
            is_stopping: ends the wait.
            timer: notes the stages `decode` and `tf`.

        Raises:
            SetRejectedError: reason `unusable_images` (corrupt, uncalibrated), `no_transform`.
        """
        images, cameras = self._usable_images(camera_set)
        if timer is not None:
            timer.stage('decode')
        stamps = {name: camera_set.images[name][0] for name in images}
        motion = self._transforms(
            camera_set.stamp_ns, stamps, cameras, tf_timeout_s, now_ns, is_stopping
        )
        if timer is not None:
            timer.stage('tf')
        for name, extrinsics in motion.extrinsics.items():
            self._placed[name] = replace(cameras[name], base_from_camera=extrinsics)
        # A camera that is away keeps its last place in the rig; one that was never seen has no
        # place.
        names = [name for name in self._calibrations if name in self._placed]
        rig = CameraRig(self._rig_name, tuple(self._placed[name] for name in names))
        return SurroundFrame(
            stamp_ns=camera_set.stamp_ns,
            rig=rig,
            images=tuple(images.get(name) for name in names),
            camera_stamps_ns=tuple(stamps.get(name) for name in names),
            map_from_base=motion.fixed_from_base,
            base_from_cameras=np.stack(
                [
                    motion.base_from_cameras.get(name, self._placed[name].base_from_camera)
                    for name in names
                ]
            ),
        )

    def _picture(self, name: str, message: Any) -> tuple[ImageArray, Camera]:
        """Return one picture, rectified, and its calibration (in a thread of the pool)."""
        image, reduction = self._decode(message, self._image_topics[name])
        return self._calibrations[name].fit(image, reduction)

    def _usable_images(
        self, camera_set: CameraSet[ReceivedImage]
    ) -> tuple[dict[str, ImageArray], dict[str, Camera]]:
        images: dict[str, ImageArray] = {}
        cameras: dict[str, Camera] = {}
        problems: list[str] = []
        pictures = {
            name: self._pool.submit(self._picture, name, image.message)
            for name, (_, image) in camera_set.images.items()
        }
        for name, picture in pictures.items():
            try:
                images[name], cameras[name] = picture.result()
                self.last_image_errors.pop(name, None)
            except (DataError, CalibrationError) as error:
                self.unusable_images[name] += 1
                if name not in self.last_image_errors:
                    _LOGGER.warning('%s', error)
                self.last_image_errors[name] = str(error)
                problems.append(str(error))
        if len(images) < max(1, self._min_cameras):
            raise SetRejectedError(
                'unusable_images',
                f'{len(images)} usable images, {self._min_cameras} needed; {"; ".join(problems)}',
            )
        return images, cameras

    def _transforms(
        self,
        stamp_ns: int,
        stamps_ns: dict[str, int],
        cameras: dict[str, Camera],
        timeout_s: float,
        now_ns: Callable[[], int],
        is_stopping: Callable[[], bool],
    ) -> EgoMotion:
        frames = {name: camera.frame_id for name, camera in cameras.items()}
        known: dict[str, FloatArray] = {
            name: calibration.override.base_from_camera
            for name, calibration in self._calibrations.items()
            if calibration.override is not None
        }
        try:
            return self._pose_source.wait(
                lambda: self._pose_source.resolve(stamp_ns, stamps_ns, frames, known),
                timeout_s,
                now_ns,
                is_stopping,
            )
        except TransformError as error:
            raise SetRejectedError('no_transform', str(error)) from error
