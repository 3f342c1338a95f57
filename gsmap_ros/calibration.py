"""Calibration as messages and rig files give it: CameraInfo rules, undistortion, sizes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from gsmap_core.errors import CalibrationError
from gsmap_core.structures import DISTORTION_MODELS, Camera, FloatArray, ImageArray

_LOGGER = logging.getLogger(__name__)
#: Relative difference of the scales along x and y up to which an image counts as resized, not
#: cropped.
_ASPECT_TOLERANCE = 0.01


def camera_from_info(info: Any, name: str, topic: str, is_rectified: bool) -> Camera:
    """Read a `sensor_msgs/CameraInfo`; the extrinsics are left at identity.

    Args:
        info: the message (read by attribute).
        name: of the camera.
        topic: named in errors.
        is_rectified: True: the images are rectified and `P` holds; False: they are raw, `K` and
            `D` hold.

    Returns:
        The calibration of the image as delivered: binning and region of interest are in it.

    Raises:
        CalibrationError: uncalibrated (K[0] == 0), no size, or a distortion model that is not
            supported.
    """
    k = np.array(info.k, dtype=np.float64).reshape(3, 3)
    if not np.isfinite(k).all() or k[0, 0] == 0 or k[1, 1] == 0:
        raise CalibrationError(
            f"camera '{name}': topic '{topic}' has K[0] == {k[0, 0]:g} (uncalibrated); publish a "
            f'calibrated CameraInfo '
            f'or set cameras.{name}.intrinsics in the rig file'
        )
    matrix, model = k, 'none'
    coefficients: tuple[float, ...] = ()
    if is_rectified:
        p = np.array(info.p, dtype=np.float64).reshape(3, 4)
        # Some drivers of undistorted cameras leave P empty; K then describes the same image.
        matrix = p[:, :3] if p[0, 0] > 0 else k
    else:
        model, coefficients = _distortion(info, name, topic)
    matrix, width, height = _binned(info, matrix)
    if width <= 0 or height <= 0:
        raise CalibrationError(
            f"camera '{name}': topic '{topic}' gives an image of {width} x {height} px; expected "
            f'the calibrated size'
        )
    try:
        return Camera(
            name, info.header.frame_id, width, height, matrix, np.eye(4), model, coefficients
        )
    except CalibrationError as error:
        raise CalibrationError(f"topic '{topic}': {error}") from None


def _distortion(info: Any, name: str, topic: str) -> tuple[str, tuple[float, ...]]:
    coefficients = tuple(float(value) for value in info.d)
    if not any(coefficients):
        return 'none', ()
    if info.distortion_model not in DISTORTION_MODELS:
        supported = ', '.join(model for model in DISTORTION_MODELS if model != 'none')
        raise CalibrationError(
            f"camera '{name}': topic '{topic}' has distortion model '{info.distortion_model}'; "
            f'supported: {supported}'
        )
    return info.distortion_model, coefficients


def _binned(info: Any, matrix: FloatArray) -> tuple[FloatArray, int, int]:
    """Apply region of interest, then binning, to the intrinsics of the full picture."""
    result = matrix.copy()
    roi = info.roi
    width, height = int(roi.width or info.width), int(roi.height or info.height)
    result[0, 2] -= roi.x_offset
    result[1, 2] -= roi.y_offset
    for row, binning in ((0, max(1, int(info.binning_x))), (1, max(1, int(info.binning_y)))):
        # The centre of a binned pixel is the mean of the centres of those in it.
        shift = 0.5 / binning - 0.5
        result[row] /= binning
        result[row, 2] += shift
    return result, width // max(1, int(info.binning_x)), height // max(1, int(info.binning_y))


@dataclass
class _Undistortion:
    camera: Camera
    map_x: np.ndarray
    map_y: np.ndarray


def _undistortion(camera: Camera) -> _Undistortion:
    """Build the tables that turn raw images into rectified ones with the same matrix."""
    size = (camera.width_px, camera.height_px)
    coefficients = np.array(camera.distortion, dtype=np.float64)
    if camera.distortion_model == 'equidistant':
        make_maps: Any = cv2.fisheye.initUndistortRectifyMap
        coefficients = coefficients[:4]
    else:
        make_maps = cv2.initUndistortRectifyMap
    map_x, map_y = make_maps(
        camera.intrinsics, coefficients, np.eye(3), camera.intrinsics, size, cv2.CV_16SC2
    )
    return _Undistortion(camera, map_x, map_y)


def _reduced(camera: Camera, reduction: int) -> Camera:
    """Return a camera for pictures that JPEG decodes at exactly 1/n, whatever their size."""
    if reduction == 1:
        return camera
    intrinsics = camera.intrinsics / reduction
    intrinsics[:2, 2] += 0.5 / reduction - 0.5
    intrinsics[2, 2] = 1.0
    width, height = -(-camera.width_px // reduction), -(-camera.height_px // reduction)
    return replace(camera, width_px=width, height_px=height, intrinsics=intrinsics)


@dataclass
class CameraCalibration:
    """What is known about one camera, and what follows for its images.

    Args:
        name: of the camera.
        info_topic: named in errors.
        is_rectified: whether the images are.
        override: calibration from a rig file; it wins over CameraInfo.
    """

    name: str
    info_topic: str
    is_rectified: bool = True
    override: Camera | None = None
    error: str = field(default='', init=False)
    _camera: Camera | None = field(default=None, init=False)
    _seen: tuple[Any, ...] = field(default=(), init=False)
    #: Calibration, size and reduction of the last image, and what it is there: one value, so that
    #: a change that arrives during a fit (another thread) is not undone by it.
    _fitted: tuple[Camera, tuple[int, int, int], Camera] | None = field(default=None, init=False)
    _warned_for: Camera | None = field(default=None, init=False)
    _undistortion: _Undistortion | None = field(default=None, init=False)

    @property
    def camera(self) -> Camera | None:
        """The calibration in use, or None until there is a usable one."""
        return self.override or self._camera

    def update(self, info: Any) -> bool:
        """Take a CameraInfo; equal ones cost nothing.

        Returns:
            Whether the calibration changed. A wrong one is told in `error` and removes what was
            there.
        """
        signature = (
            info.header.frame_id,
            info.width,
            info.height,
            info.distortion_model,
            tuple(info.d),
            tuple(info.k),
            tuple(info.p),
            info.binning_x,
            info.binning_y,
            (info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height),
        )
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            self._camera = camera_from_info(info, self.name, self.info_topic, self.is_rectified)
        except CalibrationError as error:
            self._camera, self.error = None, str(error)
            return True
        self.error = ''
        if self.override is not None:
            self._compare(self._camera, self.override)
        return True

    def _compare(self, given: Camera, override: Camera) -> None:
        scaled = given.scaled(override.width_px, override.height_px)
        difference = float(np.abs(scaled.intrinsics - override.intrinsics).max())
        if difference > 1.0:
            _LOGGER.warning(
                "camera '%s': rig file (fx %.1f, cx %.1f) and topic '%s' (fx %.1f, cx %.1f) "
                'differ by %.1f px; the rig '
                'file is used',
                self.name,
                override.intrinsics[0, 0],
                override.intrinsics[0, 2],
                self.info_topic,
                scaled.intrinsics[0, 0],
                scaled.intrinsics[0, 2],
                difference,
            )

    def fit(self, image: ImageArray, reduction: int = 1) -> tuple[ImageArray, Camera]:
        """Return an image as the network may see it (rectified) and its calibration.

        Args:
            image: (H, W, 3) uint8 RGB as received.
            reduction: it was decoded at 1/reduction of its size.

        Raises:
            CalibrationError: there is no calibration, or its size has another aspect than the
                image.
        """
        camera = self.camera
        if camera is None:
            raise CalibrationError(
                self.error
                or f"camera '{self.name}': nothing received on topic '{self.info_topic}' yet"
            )
        key, known = (image.shape[1], image.shape[0], reduction), self._fitted
        if known is not None and known[0] is camera and known[1] == key:
            fitted = known[2]
        else:
            fitted = self._scaled(camera, *key)
            self._fitted = (camera, key, fitted)
        if fitted.distortion_model == 'none':
            return image, fitted
        if self._undistortion is None or self._undistortion.camera is not fitted:
            self._undistortion = _undistortion(fitted)
        maps = self._undistortion
        flat = cv2.remap(image, maps.map_x, maps.map_y, cv2.INTER_LINEAR)
        rectified = replace(fitted, distortion_model='none', distortion=())
        return np.asarray(flat, dtype=np.uint8), rectified

    def _scaled(self, camera: Camera, width: int, height: int, reduction: int) -> Camera:
        if (width, height) == (
            -(-camera.width_px // reduction),
            -(-camera.height_px // reduction),
        ):
            return _reduced(camera, reduction)
        scale_x, scale_y = width / camera.width_px, height / camera.height_px
        if abs(scale_x / scale_y - 1) > _ASPECT_TOLERANCE:
            raise CalibrationError(
                f"camera '{self.name}': image is {width * reduction} x {height * reduction} px, "
                f"topic '{self.info_topic}' is calibrated for "
                f'{camera.width_px} x {camera.height_px} px; expected the same size or the same '
                f'aspect'
            )
        if self._warned_for is camera:
            return camera.scaled(width, height)
        self._warned_for = camera
        _LOGGER.warning(
            "camera '%s': image is %d x %d px, calibrated for %d x %d px; the intrinsics are "
            'scaled',
            self.name,
            width * reduction,
            height * reduction,
            camera.width_px,
            camera.height_px,
        )
        return camera.scaled(width, height)
