"""What `gsmap view BAG` writes: the drive as a page for the browser, and as a film."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gsmap_core.data.bag import BagDrive, open_bag
from gsmap_core.errors import DataError
from gsmap_core.mapfile import read_map_file
from gsmap_core.mapping.identity import IdentityTracker
from gsmap_core.mapping.tracked import TrackedPredictor
from gsmap_core.structures import ImageArray, SurroundFrame, VectorMap
from gsmap_core.viz.figure import FigureStyle, compose_frame_figure
from gsmap_core.viz.map_page import PageFrame, PageLimits, camera_strip_jpeg, write_map_page
from gsmap_core.viz.video import write_video

_FILM_WIDTH_PX = 1280


class _MapSource:
    """Gives the local map of each frame, and says where it comes from.

    Args:
        args: options of the command.
        drive: the bag.
    """

    def __init__(self, args: argparse.Namespace, drive: BagDrive) -> None:
        self._drive = drive
        self._maps: dict[str, VectorMap] | None = None
        self._mapper: TrackedPredictor | None = None
        self.min_score = args.min_score
        given = [args.predictions is not None, args.ground_truth, args.weights is not None]
        if sum(given) > 1:
            raise DataError('give one of --predictions, --ground-truth and --weights')
        if args.ground_truth:
            self.label, self.min_score = 'Ground truth', 0.0
            if not drive.num_annotated:
                raise DataError(f"'{drive.path}' has no ground truth; leave --ground-truth out")
        elif args.predictions is not None:
            self.label = 'Prediction'
            maps = read_map_file(args.predictions)
            maps = [item for item in maps if item.scene == drive.name] or maps
            self._maps = {str(m.stamp_ns): m for m in maps}
            self._maps |= {m.sample_id: m for m in maps if m.sample_id}
        else:
            from gsmap_core.runtime.predictor import Predictor
            from gsmap_core.runtime.stream import StreamGuard

            predictor = Predictor(args.weights or '', device=args.device)
            self.label = predictor.config.name
            self._mapper = TrackedPredictor(predictor, IdentityTracker(), StreamGuard())

    def local_map(self, index: int, frame: SurroundFrame) -> VectorMap | None:
        """Return the map of a frame in the ego frame, or None."""
        if self._mapper is not None:
            return self._mapper.predict(frame)
        if self._maps is None:
            return self._drive.ground_truth(index)
        return self._maps.get(frame.sample_id) or self._maps.get(str(frame.stamp_ns))


def page_of_bag(args: argparse.Namespace, limits: PageLimits | None = None) -> dict[str, Any]:
    """Write the page and the film of a bag.

    Args:
        args: options of the command.
        limits: of the page.

    Returns:
        Names and sizes of what was written.

    Raises:
        DataError: the bag has no camera set, no poses or no frame with a map.
    """
    limits = limits or PageLimits()
    drive = open_bag(args.source)
    source = _MapSource(args, drive)
    if drive.pose_frame is None:
        raise DataError(
            f"'{drive.path}' has no poses (/tf), so that its frames have no place on a map; "
            'draw a single frame (--frame 0)'
        )
    out = Path(args.out or 'out/view')
    frames: list[PageFrame] = []

    def pictures() -> Iterator[ImageArray]:
        """Map frame by frame; the page's part is taken on the way."""
        style = FigureStyle(
            width_px=_FILM_WIDTH_PX, min_score=source.min_score, first_title=source.label
        )
        for index in tqdm(range(len(drive)), desc=drive.name, unit='frame', file=sys.stderr):
            frame = drive.frame(index)
            local_map = source.local_map(index, frame)
            if local_map is None:
                continue
            strip = camera_strip_jpeg(frame, local_map, source.min_score, limits)
            frames.append(PageFrame(index, local_map, strip))
            truth = None if args.ground_truth else drive.ground_truth(index)
            # Another range or frame of reference cannot be drawn beside it.
            if truth is not None and truth.range != local_map.range:
                truth = None
            if not args.no_video:
                yield compose_frame_figure(frame, local_map, truth, style=style)

    written: dict[str, Any] = {}
    film = None
    if args.no_video:
        for _ in pictures():
            pass
    else:
        try:
            film = write_video(out / f'{drive.name}.mp4', pictures(), _rate_hz(drive))
            written['video'] = str(film.path)
        except DataError:
            # Without a picture there is no map either, and that says more.
            if frames:
                raise
    if not frames:
        given = args.predictions or drive.path
        raise DataError(f"'{given}' has no frame of '{drive.path}' (by id or stamp)")
    page = write_map_page(
        out / f'{drive.name}.html',
        frames,
        None if args.ground_truth else drive.global_map,
        title=f'{drive.name} · {source.label}',
        min_score=source.min_score,
        limits=limits,
    )
    written['page'] = str(page.path)
    texts = [
        f'{page.path}: {page.num_frames} frames, {page.num_pictures} camera pictures, '
        f'{page.num_bytes / 1e6:.1f} MB; open it in a browser'
    ]
    if film is not None:
        texts.append(f'{film.path}: {film.num_frames} frames')
    return {
        'title': drive.name,
        'frames': page.num_frames,
        'pictures': page.num_pictures,
        'bytes': page.num_bytes,
        'out': written,
        'texts': texts,
    }


def _rate_hz(drive: BagDrive) -> float:
    span_s = (drive.stamp_ns(len(drive) - 1) - drive.stamp_ns(0)) * 1e-9
    return (len(drive) - 1) / span_s if span_s > 0 else 5.0
