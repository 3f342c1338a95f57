"""Cameras of a recording: which topics belong to one, its calibration, its pictures.

Pictures leave rectified and in RGB, whatever they were; the calibration follows. Everything about
one image or one CameraInfo is here; grouping images into sets is not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from gsmap_core.data import messages as msg
from gsmap_core.data.bag_reader import TopicInfo
from gsmap_core.errors import CalibrationError, DataError
from gsmap_core.images import decode_jpeg
from gsmap_core.structures import Camera, FloatArray, ImageArray

_log = logging.getLogger(__name__)

# In the order of preference where a camera has several.
_IMAGE_SUFFIXES = (
    ('/image_rect/compressed', msg.COMPRESSED_IMAGE, True),
    ('/image_rect', msg.IMAGE, True),
    ('/image_raw/compressed', msg.COMPRESSED_IMAGE, False),
    ('/image_raw', msg.IMAGE, False),
)
_COEFFICIENTS = {'plumb_bob': (4, 5), 'rational_polynomial': (8,), 'equidistant': (4,)}
_ENCODINGS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1, '8UC3': 3}
_REDUCTIONS = (8, 4, 2)


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera.

    Args:
        name: name of the camera: its namespace without the leading slash.
        image: image topic.
        info: CameraInfo topic.
        is_compressed: JPEG or PNG rather than raw.
        is_rectified: `image_rect` rather than `image_raw`.
    """

    name: str
    image: str
    info: str
    is_compressed: bool
    is_rectified: bool


def find_camera_topics(topics: Iterable[TopicInfo]) -> dict[str, CameraTopics]:
    """Return the cameras that have images, by name; of several image topics the most finished.

    Empty topics do not count.
    """
    present = {(topic.name, topic.type) for topic in topics if topic.count}
    found: dict[str, CameraTopics] = {}
    for suffix, type_name, is_rectified in _IMAGE_SUFFIXES:
        for topic, kind in sorted(present):
            if kind != type_name or not topic.endswith(suffix):
                continue
            namespace = topic.removesuffix(suffix)
            name = namespace.lstrip('/')
            if name and name not in found:
                is_compressed = type_name == msg.COMPRESSED_IMAGE
                found[name] = CameraTopics(
                    name, topic, f'{namespace}/camera_info', is_compressed, is_rectified
                )
    return found


def camera_from_info(
    info: Any, topics: CameraTopics, base_from_camera: FloatArray
) -> tuple[Camera, Camera]:
    """Read a `sensor_msgs/CameraInfo`.

    Args:
        info: the message; binning and region of interest are applied.
        topics: the camera's topics.
        base_from_camera: (4, 4) extrinsics [m].

    Returns:
        The camera as its images are, and as they are once rectified; the same if they are
        rectified already.

    Raises:
        CalibrationError: uncalibrated, or a distortion model or number of coefficients that is not
            supported.
    """
    k, p = np.asarray(info.k).reshape(3, 3), np.asarray(info.p).reshape(3, 4)[:, :3]
    coefficients = tuple(float(value) for value in info.d)
    if k[0, 0] == 0 or (topics.is_rectified and p[0, 0] == 0):
        which = 'K[0]' if k[0, 0] == 0 else 'P[0]'
        raise CalibrationError(
            f"camera '{topics.name}': topic '{topics.info}' has {which} == 0 (uncalibrated); "
            f'record a calibrated CameraInfo or set cameras.{topics.name}.intrinsics in a rig file'
        )
    has_projection = p[0, 0] != 0
    rectified = Camera(
        name=topics.name,
        frame_id=info.header.frame_id.lstrip('/'),
        width_px=int(info.width),
        height_px=int(info.height),
        intrinsics=p if has_projection else k,
        base_from_camera=base_from_camera,
    )
    rotation = np.asarray(info.r).reshape(3, 3)
    if has_projection and rotation.any() and not np.allclose(rotation, np.eye(3), atol=1e-9):
        raise CalibrationError(
            f"camera '{topics.name}': topic '{topics.info}' has a stereo rotation R; "
            'expected the identity: publish a mono calibration'
        )
    if topics.is_rectified or not any(coefficients):
        camera = rectified if topics.is_rectified else replace(rectified, intrinsics=k)
        cropped = _apply_binning(camera, info)
        return cropped, cropped
    model = info.distortion_model
    if len(coefficients) not in _COEFFICIENTS.get(model, ()):
        supported = ', '.join(
            f'{name} ({" or ".join(map(str, counts))})' for name, counts in _COEFFICIENTS.items()
        )
        raise CalibrationError(
            f"camera '{topics.name}': topic '{topics.info}' has distortion model '{model}' with "
            f'{len(coefficients)} coefficients; expected {supported}'
        )
    raw = replace(rectified, intrinsics=k, distortion_model=model, distortion=coefficients)
    return _apply_binning(raw, info), _apply_binning(rectified, info)


def _apply_binning(camera: Camera, info: Any) -> Camera:
    """Return the camera of the pictures themselves: cut to the region of interest, then binned."""
    roi = info.roi
    width, height = int(roi.width) or camera.width_px, int(roi.height) or camera.height_px
    intrinsics = camera.intrinsics.copy()
    intrinsics[0, 2] -= int(roi.x_offset)
    intrinsics[1, 2] -= int(roi.y_offset)
    cut = replace(camera, width_px=width, height_px=height, intrinsics=intrinsics)
    bin_x, bin_y = max(1, int(info.binning_x)), max(1, int(info.binning_y))
    return cut if bin_x == bin_y == 1 else cut.scaled(width // bin_x, height // bin_y)


class PictureReader:
    """Turns the image messages of one camera into rectified RGB pictures with their calibration.

    Args:
        topics: the camera's topics.
        raw: calibration of the images as they are.
        rectified: calibration of the pictures to return.
    """

    def __init__(self, topics: CameraTopics, raw: Camera, rectified: Camera) -> None:
        self._topics = topics
        self._raw = raw
        self._rectified = rectified
        self._maps: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        self._has_warned = False

    @property
    def keeps_pixels(self) -> bool:
        """Whether pictures are compressed and rectified already."""
        return self._topics.is_compressed and self._raw is self._rectified

    def read(
        self, message: Any, where: str, max_width_px: int | None = None
    ) -> tuple[ImageArray, Camera]:
        """Decode one image message.

        Args:
            message: `sensor_msgs/CompressedImage` or `sensor_msgs/Image`.
            where: names file, topic and stamp in errors.
            max_width_px: decode at 1/2, 1/4 or 1/8 while the width stays at least this.

        Returns:
            (H, W, 3) uint8 RGB, and its calibration.

        Raises:
            DataError: the bytes are no picture, or an encoding that is not supported.
            CalibrationError: the picture has another shape than the calibration says.
        """
        reduction = next(
            (
                factor
                for factor in _REDUCTIONS
                if max_width_px is not None and -(-self._raw.width_px // factor) >= max_width_px
            ),
            1,
        )
        if self._topics.is_compressed:
            picture = decode_jpeg(np.asarray(message.data).tobytes(), where, reduction)
        else:
            picture = raw_to_rgb(message, where)
            if reduction > 1:
                size = (-(-picture.shape[1] // reduction), -(-picture.shape[0] // reduction))
                picture = np.asarray(
                    cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8
                )
        raw = self._fitted(self._raw, picture, reduction, where)
        if self._raw is self._rectified:
            return picture, raw
        rectified = self._fitted(self._rectified, picture, reduction, where)
        return self._rectify(picture, raw, rectified), rectified

    def _fitted(self, camera: Camera, picture: ImageArray, reduction: int, where: str) -> Camera:
        """Return the calibration for a picture of this size."""
        height, width = picture.shape[:2]
        if (width, height) == (camera.width_px, camera.height_px):
            return camera
        reduced = -(-camera.width_px // reduction), -(-camera.height_px // reduction)
        if (width, height) == reduced:
            # JPEG decodes at exactly 1/n even where the size is no multiple of n.
            intrinsics = camera.intrinsics / reduction
            intrinsics[:2, 2] += 0.5 / reduction - 0.5
            intrinsics[2, 2] = 1.0
            return replace(camera, width_px=width, height_px=height, intrinsics=intrinsics)
        if abs(width * camera.height_px - height * camera.width_px) > camera.width_px + width:
            raise CalibrationError(
                f"{where}: picture of {width} x {height} px, topic '{self._topics.info}' says "
                f'{camera.width_px} x {camera.height_px} px; expected the same shape: record the '
                'calibration of this image size'
            )
        if not self._has_warned and reduction == 1:
            self._has_warned = True
            _log.warning(
                '%s: picture of %d x %d px, calibration for %d x %d px; intrinsics are scaled',
                where,
                width,
                height,
                camera.width_px,
                camera.height_px,
            )
        return camera.scaled(width, height)

    def _rectify(self, picture: ImageArray, raw: Camera, rectified: Camera) -> ImageArray:
        size = (picture.shape[1], picture.shape[0])
        if size not in self._maps:
            self._maps[size] = rectification_maps(raw, rectified)
        return np.asarray(cv2.remap(picture, *self._maps[size], cv2.INTER_LINEAR), dtype=np.uint8)


def rectification_maps(raw: Camera, rectified: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return the `cv2.remap` maps from a camera with lens distortion to the rectified one."""
    size = (rectified.width_px, rectified.height_px)
    coefficients = np.array(raw.distortion)
    build = (
        cv2.fisheye.initUndistortRectifyMap
        if raw.distortion_model == 'equidistant'
        else cv2.initUndistortRectifyMap
    )
    maps = build(raw.intrinsics, coefficients, np.eye(3), rectified.intrinsics, size, cv2.CV_16SC2)
    return maps[0], maps[1]


def raw_to_rgb(message: Any, where: str) -> ImageArray:
    """Convert a `sensor_msgs/Image` to (H, W, 3) uint8 RGB; `8UC3` is taken for BGR.

    Raises:
        DataError: the encoding is not supported, or the bytes do not fit the size.
    """
    channels = _ENCODINGS.get(message.encoding)
    if channels is None:
        raise DataError(
            f"{where}: encoding '{message.encoding}' is not supported; expected one of "
            f'{", ".join(_ENCODINGS)}'
        )
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.asarray(message.data, dtype=np.uint8)
    if step < width * channels or len(data) < step * height or not height or not width:
        raise DataError(
            f'{where}: {len(data)} bytes with step {step} for {width} x {height} px of '
            f'{message.encoding}; expected at least {width * channels} bytes a row: fix the driver'
        )
    # Rows may be padded: step is the distance between them.
    rows = data[: step * height].reshape(height, step)[:, : width * channels]
    pixels = rows.reshape(height, width, channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if message.encoding in ('bgr8', 'bgra8', '8UC3'):
        return np.ascontiguousarray(pixels[:, :, 2::-1])
    return np.ascontiguousarray(pixels[:, :, :3])
