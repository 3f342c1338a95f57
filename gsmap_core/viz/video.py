"""Pictures in a row as a film: MP4 where the codec is there, else an animated GIF that says so."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gsmap_core.errors import DataError
from gsmap_core.structures import ImageArray

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoResult:
    """What was written.

    Args:
        path: the file; its ending tells the format.
        codec: `mp4v` or `gif`.
        num_frames: pictures in it.
        note: why it is not what was asked for; empty if it is.
    """

    path: Path
    codec: str
    num_frames: int
    note: str = ''


def write_video(
    path: str | os.PathLike[str], frames: Iterable[ImageArray], fps: float
) -> VideoResult:
    """Write pictures as a film.

    Args:
        path: `*.mp4` or `*.gif`. Where OpenCV cannot write MPEG-4, an `*.mp4` becomes a `*.gif`
            beside it: the log warns and the result says so.
        frames: (H, W, 3) uint8 RGB each, all of one size; taken one at a time.
        fps: pictures per second.

    Raises:
        DataError: no picture, pictures of different sizes, an unknown ending, or fps is not
            positive.
    """
    target = Path(path)
    if target.suffix not in ('.mp4', '.gif'):
        raise DataError(f"{target}: a film is written as '*.mp4' or '*.gif'; give one of these")
    if not fps > 0:
        raise DataError(f'{target}: {fps} pictures per second; expected a positive number')
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise DataError(f'{target}: no picture to write; expected at least one')
    target.parent.mkdir(parents=True, exist_ok=True)
    pictures = _checked(itertools.chain([first], iterator), first.shape, target)
    if target.suffix == '.gif':
        return VideoResult(target, 'gif', _write_gif(target, pictures, fps))
    height, width = (size + size % 2 for size in first.shape[:2])
    partial = target.with_name(f'.{target.stem}.part.mp4')
    writer = _open_writer(partial, fps, (width, height))
    if not writer.isOpened():
        writer.release()
        partial.unlink(missing_ok=True)
        fallback = target.with_suffix('.gif')
        note = (
            f"this OpenCV ({cv2.__version__}) cannot write MPEG-4 ('mp4v'); "
            f'wrote {fallback.name} instead of {target.name}'
        )
        _LOG.warning('%s', note)
        return VideoResult(fallback, 'gif', _write_gif(fallback, pictures, fps), note)
    count = 0
    try:
        for picture in pictures:
            # The codec wants even sizes; the last row and column are repeated where needed.
            pad = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
            writer.write(np.ascontiguousarray(np.pad(picture, pad, mode='edge')[..., ::-1]))
            count += 1
        writer.release()
        os.replace(partial, target)
    finally:
        writer.release()
        partial.unlink(missing_ok=True)
    return VideoResult(target, 'mp4v', count)


def _open_writer(path: Path, fps: float, size_px: tuple[int, int]) -> Any:
    code = cv2.VideoWriter.fourcc(*'mp4v')
    return cv2.VideoWriter(str(path), code, float(fps), size_px)


def _checked(
    frames: Iterable[ImageArray], shape: tuple[int, ...], target: Path
) -> Iterator[ImageArray]:
    for number, picture in enumerate(frames):
        if picture.shape != shape or picture.ndim != 3 or picture.dtype != np.uint8:
            raise DataError(
                f'{target}: picture {number} is {picture.dtype} {picture.shape}; expected uint8 '
                f'{shape} like the first, three channels'
            )
        yield picture


def _write_gif(path: Path, frames: Iterator[ImageArray], fps: float, max_width: int = 960) -> int:
    """Write an endless GIF, at most `max_width` wide (a full-size one would be unwieldy)."""
    from PIL import Image

    count = 0

    def images() -> Iterator[Image.Image]:
        nonlocal count
        for picture in frames:
            scale = min(1.0, max_width / picture.shape[1])
            size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            count += 1
            yield Image.fromarray(small).convert('P', palette=Image.Palette.ADAPTIVE)

    rest = images()
    next(rest).save(
        path,
        save_all=True,
        append_images=rest,
        duration=round(1000.0 / fps),
        loop=0,
    )
    return count
