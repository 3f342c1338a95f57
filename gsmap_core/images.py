"""Image decoding and preparation, with the intrinsics that follow; shared by all sides.

A `SurroundFrame` becomes one row of a `FrameBatch`, the only thing a model takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gsmap_core.config import ImageConfig
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import invert
from gsmap_core.structures import Camera, FloatArray, ImageArray, SurroundFrame

#: Prepared pictures: uint8, or float32 with bilinear interpolation.
PictureArray = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

_SCRATCH = threading.local()
_JPEG, _PNG = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
#: No camera has more; a few bytes that announce more are an attack on the memory.
_MAX_PIXELS = 100_000_000

_REDUCED_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True)
class FrameBatch:
    """Camera sets as a model takes them.

    Args:
        images: (B, N, 3, H, W) float32, RGB, normalised; zeros where the camera is missing.
        pixels_from_ego: (B, N, 4, 4) float32, ego frame at the reference stamp [m] to homogeneous
            pixels of the padded network input; pixel (0, 0) has its centre at 0, 0.
        base_from_cameras: (B, N, 4, 4) float32, camera frame to ego frame [m].
        intrinsics: (B, N, 3, 3) float32 of the network input [px].
        camera_mask: (B, N) bool, False where the camera is missing.
        can_bus: (B, 18) float32 or None (only models with `bev.can_bus`).
        input_from_image: (B, N, 3, 3) float32, pixels of the image that the intrinsics were once
            given for to pixels of the network input; only the camera-aware LSS view transform
            looks at it. None: as `image.scale` of the configuration says.
        ego_from_reference: (B, 4, 4) float32, the frame that a model with `reference: lidar`
            predicts in to the ego frame [m]; None for models in the ego frame.
        map_from_base: (B, 4, 4) float64 ego pose at the reference stamp [m], which models with
            fusion need; a row of NaN is a frame whose pose is lost. With mirrored pictures it
            holds the reflection (y to -y of the ego frame) as well. None: no poses.
    """

    images: Tensor
    pixels_from_ego: Tensor
    base_from_cameras: Tensor
    intrinsics: Tensor
    camera_mask: Tensor
    can_bus: Tensor | None = None
    input_from_image: Tensor | None = None
    ego_from_reference: Tensor | None = None
    map_from_base: Tensor | None = None

    def to(self, device: torch.device | str) -> FrameBatch:
        """Return the batch on another device."""
        return self._mapped(lambda value: value.to(device))

    def rows(self, chosen: slice) -> FrameBatch:
        """Return some of the samples."""
        return self._mapped(lambda value: value[chosen])

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> FrameBatch:
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        changed: dict[str, Any] = {k: v if v is None else change(v) for k, v in values.items()}
        return FrameBatch(**changed)

    def __len__(self) -> int:
        """Return the batch size B."""
        return self.images.shape[0]


def _announced_size(data: bytes) -> tuple[int, int]:
    """Return width and height that a JPEG or PNG announces [px]; 0, 0 for anything else."""
    if data[:8] == _PNG:
        return int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:24], 'big')
    return jpeg_size(data) or (0, 0)


def decode_jpeg(data: bytes, where: str, reduction: int = 1) -> ImageArray:
    """Decode a JPEG (or PNG) to RGB.

    Args:
        data: the compressed bytes.
        where: names file, topic or stamp in the error.
        reduction: 1, 2, 4 or 8: decode at that fraction of the size.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the bytes are no image.
    """
    width, height = _announced_size(data)
    if width * height > _MAX_PIXELS:
        raise DataError(
            f'{where}: the picture says it is {width} x {height} px; expected at most '
            f'{_MAX_PIXELS // 1_000_000} million pixels'
        )
    # OpenCV decodes a JPEG that is cut off and paints the rest grey, without a word.
    is_cut_off = data[:2] == _JPEG and data.rfind(b'\xff\xd9', len(data) // 2) < 0
    # IGNORE_ORIENTATION: a camera's EXIF tag must not turn the picture away from its calibration.
    flags = _REDUCED_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    image = None
    if width and height and not is_cut_off:
        try:
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
        except cv2.error:
            image = None
    if image is None:
        raise DataError(
            f'{where}: {len(data)} bytes are not a readable image (corrupt or truncated); '
            'expected JPEG or PNG; drop or re-record this frame'
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG from its header [px]; None if it is no JPEG."""
    if data[:2] != b'\xff\xd8':
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        # The frame header; C4, C8 and CC in its range are tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[position + 5 : position + 7])
            return int.from_bytes(data[position + 7 : position + 9]), height
        # Fill bytes and markers without a body have no length.
        has_body = marker not in (0x01, 0xFF) and not 0xD0 <= marker <= 0xD8
        position += 2 + length if has_body else 1 if marker == 0xFF else 2
    return None


def decoding_reduction(width_px: int, least_width_px: int | None) -> int:
    """Return at which fraction a JPEG may be decoded: 1, 2, 4 or 8.

    Args:
        width_px: of the picture.
        least_width_px: it must stay at least that wide (`decode_width`); None: full size.
    """
    if least_width_px is None:
        return 1
    return next((n for n in (8, 4, 2) if -(-width_px // n) >= least_width_px), 1)


def fitted_size(camera: Camera, image: ImageConfig) -> tuple[int, int]:
    """Return width and height [px] of a camera's picture inside the network input, aspect kept.

    With `image.fill` the picture includes the strip that it is padded with before the resize.
    """
    if image.scale is None or image.recorded_px is None:
        scale = min(image.width_px / camera.width_px, image.height_px / camera.height_px)
        return (
            min(image.width_px, max(1, round(camera.width_px * scale))),
            min(image.height_px, max(1, round(camera.height_px * scale))),
        )
    if image.fill is not None:
        width, height = (size * image.scale for size in image.recorded_px)
    else:
        factor = _factor(camera, image)
        width, height = camera.width_px * factor, camera.height_px * factor
    # Truncated as published; the summand is for products like 3 * 0.1 that are whole on paper.
    return max(1, int(width + 1e-6)), max(1, int(height + 1e-6))


def _factor(camera: Camera, image: ImageConfig) -> float:
    """Return `image.scale` for a camera whose pictures may not have the size it belongs to."""
    assert image.scale is not None and image.recorded_px is not None
    width, height = image.recorded_px
    return image.scale * min(width / camera.width_px, height / camera.height_px)


def decode_width(image: ImageConfig) -> int | None:
    """Return the width that pictures may be decoded down to (`Drive.frame`), None: full size.

    What the published models were trained on is the recorded size; JPEG's own reduction would
    come before the resize with another filter.
    """
    exact = image.scale is not None or image.interpolation == 'bilinear'
    return None if exact else image.width_px


def _blank(image: ImageConfig) -> np.ndarray:
    """Return one padding pixel, see `blank_pictures`."""
    if image.interpolation == 'bilinear':
        return np.array(image.mean, dtype=np.float32)
    return np.round(image.mean).astype(np.uint8)


def blank_pictures(num_pictures: int, image: ImageConfig) -> PictureArray:
    """Return (N, H, W, 3) prepared pictures of the padding colour.

    uint8 with the rounded mean colour, or with bilinear interpolation float32 with the mean
    colour, which normalises to exactly 0 as in the published models.
    """
    shape = (num_pictures, image.height_px, image.width_px, 3)
    return np.broadcast_to(_blank(image), shape).copy()


def as_pictures(values: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    """Return pictures as another type; floating point is rounded and clipped to fit uint8."""
    if dtype == np.uint8 and values.dtype != np.uint8:
        values = np.clip(np.rint(values), 0, 255)
    return values.astype(dtype, copy=False)


def _as_floats(picture: np.ndarray) -> np.ndarray:
    """Return a picture as float32, in memory that the thread's next picture takes again.

    A full-size picture is 17 MB, which the system would hand out and take back page by page.
    """
    scratch: np.ndarray | None = getattr(_SCRATCH, 'floats', None)
    if scratch is None or scratch.shape != picture.shape:
        scratch = _SCRATCH.floats = np.empty(picture.shape, dtype=np.float32)
    np.copyto(scratch, picture)
    return scratch


def prepare_image(picture: np.ndarray, camera: Camera, image: ImageConfig) -> PictureArray:
    """Resize one picture with its aspect kept and pad it at the bottom and right.

    The published models normalise before (MapTR) or after (MapTRv2) they resize. Weights of a
    bilinear resize sum to 1, so that both give the same numbers but for rounding.

    Args:
        picture: (h, w, 3) uint8 RGB, or float32 (0 to 255 scale) after a change of colours.
        camera: its calibration.
        image: the network input.

    Returns:
        (H, W, 3) uint8, or float32 with bilinear interpolation; not normalised. The padding has
        the mean colour, so that it normalises to about zero.

    Source: MapTR and MapTRv2 (reference-models.md, 1.2 and 2.7).
    """
    size = fitted_size(camera, image)
    padding = _blank(image)
    canvas = np.empty((image.height_px, image.width_px, 3), dtype=padding.dtype)
    canvas[size[1] :], canvas[:, size[0] :] = padding, padding
    if picture.dtype == np.uint8 and canvas.dtype == np.float32:
        picture = _as_floats(picture)
    picture = as_pictures(picture, canvas.dtype)
    if image.fill is not None and image.recorded_px is not None:
        picture = _filled(picture, image.recorded_px, image.fill)
    if (picture.shape[1], picture.shape[0]) != size:
        is_area = image.interpolation == 'area' and size[0] < picture.shape[1]
        interpolation = cv2.INTER_AREA if is_area else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, size, interpolation=interpolation))
    canvas[: size[1], : size[0]] = picture
    return canvas


def _filled(picture: np.ndarray, recorded_px: tuple[int, int], fill: int) -> np.ndarray:
    """Pad at the bottom and right to the proportions of `recorded_px`."""
    height, width = picture.shape[:2]
    enlarged = max(width / recorded_px[0], height / recorded_px[1])
    full_width, full_height = (max(1, round(size * enlarged)) for size in recorded_px)
    result = np.full((full_height, full_width, 3), fill, dtype=picture.dtype)
    result[:height, :width] = picture
    return result


def prepared_intrinsics(camera: Camera, image: ImageConfig) -> FloatArray:
    """Return the (3, 3) intrinsics for the network input [px]; padding moves nothing."""
    if image.scale is None:
        return camera.scaled(*fitted_size(camera, image)).intrinsics
    intrinsics = camera.intrinsics.copy()
    intrinsics[:2] *= _factor(camera, image)
    return intrinsics


def normalise(pictures: np.ndarray, image: ImageConfig) -> Tensor:
    """Turn (..., H, W, 3) RGB pictures into (..., 3, H, W) float32, less mean, over std."""
    # NumPy, in place: torch would split this little work over threads that it must wake first.
    values = np.moveaxis(pictures, -1, -3).astype(np.float32, order='C')
    values -= np.array(image.mean, dtype=np.float32)[:, None, None]
    values /= np.array(image.std, dtype=np.float32)[:, None, None]
    return torch.from_numpy(values)


def _prepared_or_none(
    image: ImageConfig, picture: ImageArray | None, camera: Camera
) -> PictureArray | None:
    return None if picture is None else prepare_image(picture, camera, image)


def make_frame_batch(
    frames: Sequence[SurroundFrame], image: ImageConfig, pool: ThreadPoolExecutor | None = None
) -> FrameBatch:
    """Prepare camera sets for a model.

    Args:
        frames: B sets with the same number of cameras.
        image: the network input.
        pool: prepares several pictures at once; None: one after the other.

    Raises:
        DataError: no frame, or different numbers of cameras.
    """
    counts = {len(frame.rig) for frame in frames}
    if len(counts) != 1:
        raise DataError(
            f'cannot batch frames with {sorted(counts)} cameras; expected one or more frames '
            'of one rig size'
        )
    pictures, matrices, extrinsics, intrinsics, masks = [], [], [], [], []
    for frame in frames:
        run: Any = map if pool is None else pool.map
        row_pictures: list[np.ndarray | None] = list(
            run(partial(_prepared_or_none, image), frame.images, frame.rig.cameras)
        )
        row_intrinsics = [prepared_intrinsics(camera, image) for camera in frame.rig.cameras]
        present = np.array([picture is not None for picture in row_pictures])
        known = [picture for picture in row_pictures if picture is not None]
        if len(known) < len(row_pictures):
            blank = blank_pictures(1, image)[0]
            known = [blank if picture is None else picture for picture in row_pictures]
        row = normalise(np.stack(known), image)
        if not present.all():
            row[~torch.from_numpy(present)] = 0.0
        pictures.append(row)
        intrinsics.append(np.stack(row_intrinsics))
        matrix = np.tile(np.eye(4), (len(frame.rig), 1, 1))
        matrix[:, :3, :3] = intrinsics[-1]
        matrices.append(matrix @ invert(frame.base_from_cameras))
        extrinsics.append(frame.base_from_cameras)
        masks.append(present)
    return FrameBatch(
        images=pictures[0][None] if len(pictures) == 1 else torch.stack(pictures),
        pixels_from_ego=torch.from_numpy(np.stack(matrices)).float(),
        base_from_cameras=torch.from_numpy(np.stack(extrinsics)).float(),
        intrinsics=torch.from_numpy(np.stack(intrinsics)).float(),
        camera_mask=torch.from_numpy(np.stack(masks)),
    )
