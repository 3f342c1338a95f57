"""What a person looks at after a demo: a frame, the drive as film and page, the whole map."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
from tqdm import tqdm

from gsmap_core.data.bag import BagDrive
from gsmap_core.structures import ImageArray, VectorMap
from gsmap_core.viz.drive_map import DriveMapStyle, draw_map
from gsmap_core.viz.figure import FigureStyle, compose_frame_figure
from gsmap_core.viz.map_page import PageFrame, PageLimits, camera_strip_jpeg, write_map_page
from gsmap_core.viz.video import write_video

#: Elements with a lower score count in the score, but are not drawn.
DRAWN_SCORE = 0.4


def draw_pictures(
    drive: BagDrive, maps: dict[int, VectorMap], out: Path, video: bool
) -> dict[str, str]:
    """Draw the results of a drive.

    Args:
        drive: the played bag.
        maps: recorded map per index of the camera set.
        out: folder to write into.
        video: also make the video.

    Returns:
        Written files by what they are: `map`, `video`, `accumulated_map`, `page`. Empty
        without maps.
    """
    if not maps:
        return {}
    path = out / 'map.png'
    _save(path, _figure(drive, maps, most_telling(drive, maps)))
    written = {'map': str(path)}
    posed = [item for item in maps.values() if item.map_from_base is not None]
    if posed:
        path = out / 'accumulated_map.png'
        style = DriveMapStyle(min_score=DRAWN_SCORE)
        title = f'{len(posed)} local maps of {drive.name}'
        _save(path, draw_map(posed, drive.global_map, title=title, style=style))
        written['accumulated_map'] = str(path)
        written['page'] = str(_write_page(drive, maps, out))
    if video:
        written['video'] = str(_write_video(drive, maps, out))
    return written


def most_telling(drive: BagDrive, maps: dict[int, VectorMap]) -> int:
    """Return the mapped set that shows most: categories first, then elements.

    Of the ground truth where there is one, so that a good prediction is not picked on purpose.
    """

    def richness(index: int) -> tuple[int, int]:
        truth = drive.ground_truth(index)
        shown = maps[index].elements if truth is None else truth.elements
        shown = tuple(e for e in shown if e.score is None or e.score >= DRAWN_SCORE)
        return len({element.category for element in shown}), len(shown)

    return max(sorted(maps), key=richness)


def _figure(drive: BagDrive, maps: dict[int, VectorMap], index: int) -> ImageArray:
    return compose_frame_figure(
        drive.frame(index),
        maps[index],
        drive.ground_truth(index),
        style=FigureStyle(min_score=DRAWN_SCORE),
    )


def _write_video(drive: BagDrive, maps: dict[int, VectorMap], out: Path) -> Path:
    indices = sorted(maps)
    span_s = (drive.stamp_ns(indices[-1]) - drive.stamp_ns(indices[0])) * 1e-9
    rate = (len(indices) - 1) / span_s if span_s > 0 else 5.0

    def pictures() -> Iterator[ImageArray]:
        for index in tqdm(indices, desc='video', unit='frame', file=sys.stderr, disable=None):
            yield _figure(drive, maps, index)

    return write_video(out / 'drive.mp4', pictures(), rate).path


def _write_page(drive: BagDrive, maps: dict[int, VectorMap], out: Path) -> Path:
    limits = PageLimits()
    frames = []
    indices = [index for index in sorted(maps) if maps[index].map_from_base is not None]
    for index in tqdm(indices, desc='page', unit='frame', file=sys.stderr, disable=None):
        frame = drive.frame(index, limits.strip_width_px // 2)
        strip = camera_strip_jpeg(frame, maps[index], DRAWN_SCORE, limits)
        frames.append(PageFrame(index, maps[index], strip))
    return write_map_page(
        out / 'drive.html',
        frames,
        drive.global_map,
        title=drive.name,
        min_score=DRAWN_SCORE,
        limits=limits,
    ).path


def _save(path: Path, picture: ImageArray) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
