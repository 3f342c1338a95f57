"""Pictures of a dataset, file by file, decoded for a calibrated camera."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gsmap_core.errors import DataError
from gsmap_core.images import decode_jpeg
from gsmap_core.structures import Camera, ImageArray

_REDUCTIONS = (8, 4, 2)


def read_file(path: Path, what: str) -> bytes:
    """Return the bytes of a file.

    Args:
        path: the file.
        what: names it in the error.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{what} '{path}' cannot be read: {error.strerror or error}") from error


def decode_picture(
    camera: Camera, data: bytes, where: str, max_width_px: int | None = None
) -> tuple[ImageArray, Camera]:
    """Decode a picture, reduced where allowed, and return it with the calibration for its size.

    Args:
        camera: calibration at full size.
        data: JPEG bytes.
        where: names the file in errors.
        max_width_px: allow 1/2, 1/4 or 1/8 of the size as long as the width stays at least this;
            None: full size.

    Raises:
        DataError: the bytes are no picture, or of another size than the calibration.
    """
    reduction = next(
        (
            factor
            for factor in _REDUCTIONS
            if max_width_px is not None and -(-camera.width_px // factor) >= max_width_px
        ),
        1,
    )
    picture = decode_jpeg(data, where, reduction)
    height, width = picture.shape[:2]
    expected = -(-camera.width_px // reduction), -(-camera.height_px // reduction)
    if (width, height) != expected:
        raise DataError(
            f'{where}: picture of {width} x {height} px (at 1/{reduction}); calibration of '
            f"camera '{camera.name}' is for {camera.width_px} x {camera.height_px} px"
        )
    if reduction == 1:
        return picture, camera
    # JPEG decodes at exactly 1/n even where the size is no multiple of n.
    intrinsics = camera.intrinsics / reduction
    intrinsics[:2, 2] += 0.5 / reduction - 0.5
    intrinsics[2, 2] = 1.0
    return picture, replace(camera, width_px=width, height_px=height, intrinsics=intrinsics)
