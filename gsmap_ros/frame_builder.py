"""Turns a camera set of messages into a `SurroundFrame`: images, calibration, ego motion."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gsmap_core.errors import CalibrationError, DataError, TransformError
from gsmap_core.structures import Camera, CameraRig, FloatArray, ImageArray, SurroundFrame
from gsmap_ros.calibration import CameraCalibration
from gsmap_ros.camera_sync import CameraSet
from gsmap_ros.pose_source import EgoMotion, PoseSource

_LOGGER = logging.getLogger(__name__)

#: Decodes one image message; the second argument is the topic, for errors.
ImageDecoder = Callable[[Any, str], ImageArray]


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
        self.unusable_images: Counter[str] = Counter()
        self.last_image_errors: dict[str, str] = {}

    def build(
        self,
        camera_set: CameraSet[Any],
        tf_timeout_s: float,
        now_ns: Callable[[], int],
        is_stopping: Callable[[], bool],
    ) -> SurroundFrame:
        """Build the frame of a camera set; an unusable image counts as a missing one.

        Args:
            camera_set: messages by camera.
            tf_timeout_s: how long to wait for transforms [s].
            now_ns: the node clock [ns].
            is_stopping: ends the wait.

        Raises:
            SetRejectedError: reason `unusable_images` (corrupt, uncalibrated), `no_transform`.
        """
        images, cameras = self._usable_images(camera_set)
        stamps = {name: camera_set.images[name][0] for name in images}
        motion = self._transforms(
            camera_set.stamp_ns, stamps, cameras, tf_timeout_s, now_ns, is_stopping
        )
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

    def _usable_images(
        self, camera_set: CameraSet[Any]
    ) -> tuple[dict[str, ImageArray], dict[str, Camera]]:
        images: dict[str, ImageArray] = {}
        cameras: dict[str, Camera] = {}
        problems: list[str] = []
        for name, (_, message) in camera_set.images.items():
            try:
                image = self._decode(message, self._image_topics[name])
                images[name], cameras[name] = self._calibrations[name].fit(image)
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
