"""Image decoding and preparation, with the intrinsics that follow; shared by all sides.

A `SurroundFrame` becomes one row of a `FrameBatch`, the only thing a model takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from gsmap_core.config import ImageConfig
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import invert
from gsmap_core.structures import Camera, FloatArray, ImageArray, SurroundFrame

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
        ego_from_reference: (B, 4, 4) float32, the frame that a model with `reference: lidar`
            predicts in to the ego frame [m]; None for models in the ego frame.
    """

    images: Tensor
    pixels_from_ego: Tensor
    base_from_cameras: Tensor
    intrinsics: Tensor
    camera_mask: Tensor
    can_bus: Tensor | None = None
    ego_from_reference: Tensor | None = None

    def to(self, device: torch.device | str) -> FrameBatch:
        """Return the batch on another device."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        moved: dict[str, Any] = {k: v if v is None else v.to(device) for k, v in values.items()}
        return FrameBatch(**moved)

    def __len__(self) -> int:
        """Return the batch size B."""
        return self.images.shape[0]


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
    # OpenCV decodes a JPEG that is cut off and paints the rest grey, without a word.
    is_cut_off = data[:2] == b'\xff\xd8' and data.rfind(b'\xff\xd9', len(data) // 2) < 0
    buffer = np.frombuffer(b'' if is_cut_off else data, dtype=np.uint8)
    # IGNORE_ORIENTATION: a camera's EXIF tag must not turn the picture away from its calibration.
    flags = _REDUCED_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(buffer, flags) if len(buffer) else None
    if image is None:
        raise DataError(
            f'{where}: {len(data)} bytes are not a readable image (corrupt or truncated); '
            'expected JPEG or PNG; drop or re-record this frame'
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def fitted_size(camera: Camera, image: ImageConfig) -> tuple[int, int]:
    """Return width and height [px] of a camera's picture inside the network input, aspect kept."""
    scale = min(image.width_px / camera.width_px, image.height_px / camera.height_px)
    return (
        min(image.width_px, max(1, round(camera.width_px * scale))),
        min(image.height_px, max(1, round(camera.height_px * scale))),
    )


def prepare_image(picture: ImageArray, camera: Camera, image: ImageConfig) -> np.ndarray:
    """Resize one picture with its aspect kept and pad it at the bottom and right.

    Args:
        picture: (h, w, 3) uint8 RGB.
        camera: its calibration.
        image: the network input.

    Returns:
        (H, W, 3) uint8; the padding is the mean colour, so that it normalises to about zero.
    """
    size = fitted_size(camera, image)
    if (picture.shape[1], picture.shape[0]) != size:
        shrinks = size[0] < picture.shape[1]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized = cv2.resize(picture, size, interpolation=interpolation)
        picture = np.asarray(resized, dtype=np.uint8)
    canvas = np.empty((image.height_px, image.width_px, 3), dtype=np.uint8)
    canvas[:] = np.round(image.mean)
    canvas[: size[1], : size[0]] = picture
    return canvas


def prepared_intrinsics(camera: Camera, image: ImageConfig) -> FloatArray:
    """Return the (3, 3) intrinsics for the network input [px]; padding moves nothing."""
    return camera.scaled(*fitted_size(camera, image)).intrinsics


def normalise(pictures: np.ndarray, image: ImageConfig) -> Tensor:
    """Turn (..., H, W, 3) uint8 RGB into (..., 3, H, W) float32, less mean, divided by std."""
    values = torch.from_numpy(np.ascontiguousarray(pictures)).movedim(-1, -3).float()
    mean = torch.tensor(image.mean).view(3, 1, 1)
    std = torch.tensor(image.std).view(3, 1, 1)
    return (values - mean) / std


def make_frame_batch(frames: Sequence[SurroundFrame], image: ImageConfig) -> FrameBatch:
    """Prepare camera sets for a model.

    Args:
        frames: B sets with the same number of cameras.
        image: the network input.

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
        row_pictures: list[np.ndarray | None] = []
        row_intrinsics = []
        for camera, picture in zip(frame.rig.cameras, frame.images, strict=True):
            if picture is None:
                row_pictures.append(None)
            else:
                row_pictures.append(prepare_image(picture, camera, image))
            row_intrinsics.append(prepared_intrinsics(camera, image))
        present = np.array([picture is not None for picture in row_pictures])
        blank = np.zeros((image.height_px, image.width_px, 3), dtype=np.uint8)
        row = normalise(np.stack([blank if p is None else p for p in row_pictures]), image)
        row[~torch.from_numpy(present)] = 0.0
        pictures.append(row)
        intrinsics.append(np.stack(row_intrinsics))
        matrix = np.tile(np.eye(4), (len(frame.rig), 1, 1))
        matrix[:, :3, :3] = intrinsics[-1]
        matrices.append(matrix @ invert(frame.base_from_cameras))
        extrinsics.append(frame.base_from_cameras)
        masks.append(present)
    return FrameBatch(
        images=torch.stack(pictures),
        pixels_from_ego=torch.from_numpy(np.stack(matrices)).float(),
        base_from_cameras=torch.from_numpy(np.stack(extrinsics)).float(),
        intrinsics=torch.from_numpy(np.stack(intrinsics)).float(),
        camera_mask=torch.from_numpy(np.stack(masks)),
    )
