"""What `gsmap view` draws."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gsmap_core.data.bag import BagDrive, open_bag
from gsmap_core.errors import DataError
from gsmap_core.evaluation.frames import frame_key
from gsmap_core.mapfile import read_map_file
from gsmap_core.structures import ImageArray, VectorMap
from gsmap_core.viz.bev import BevStyle, draw_bev
from gsmap_core.viz.colours import PALETTE, draw_text
from gsmap_core.viz.drive_map import DriveMapStyle, draw_map
from gsmap_core.viz.figure import (
    FigureStyle,
    compose_camera_strip,
    compose_frame_figure,
    draw_legend,
)
from gsmap_core.viz.gaussians import compose_gaussian_figure
from gsmap_core.viz.overlay import draw_points


def check_frame(index: int, count: int, source: str) -> None:
    """Refuse a frame number that is not there.

    Raises:
        DataError: the index is not in 0 to count - 1.
    """
    if not 0 <= index < count:
        raise DataError(
            f"--frame {index}: '{source}' has {count} frames; expected 0 to {count - 1}"
        )


def picture_of_bag(args: argparse.Namespace) -> tuple[ImageArray, dict[str, Any]]:
    """Draw a camera set of a bag, or its whole map; predictions come from a map file.

    Raises:
        DataError: the bag, the frame or its prediction is not there.
    """
    drive = open_bag(args.source)
    predicted = [] if args.predictions is None else _maps_of(args.predictions, drive.name)
    if args.drive:
        maps = predicted
        if not maps:
            truths = [drive.ground_truth(index) for index in range(len(drive))]
            maps = [item for item in truths if item is not None]
        picture = draw_map(
            maps,
            drive.global_map,
            title=drive.name,
            style=DriveMapStyle(min_score=args.min_score),
        )
        return picture, {'title': drive.name, 'frames': len(maps)}
    check_frame(args.frame, len(drive), args.source)
    frame = drive.frame(args.frame)
    truth = drive.ground_truth(args.frame)
    title = f'{drive.name} · frame {args.frame}'
    if args.lidar:
        return _picture_of_lidar(drive, args.frame, title, args.source)
    if not predicted:
        if truth is None:
            raise DataError(
                f"'{args.source}' has no ground truth; give a map file (--predictions)"
            )
        prediction, other, label = truth, None, 'Ground truth'
    else:
        by_frame = _by_frame(predicted)
        found = by_frame.get(frame.sample_id) or by_frame.get(str(frame.stamp_ns))
        if found is None:
            raise DataError(
                f"'{args.predictions}' has no frame with id '{frame.sample_id}' or stamp "
                f'{frame.stamp_ns}; it holds {", ".join(frame_key(m) for m in predicted[:5])} ...'
            )
        prediction, other, label = found, truth, 'Prediction'
    if args.gaussians:
        return _picture_of_gaussians(prediction, other, title, args.min_score)
    picture = compose_frame_figure(
        frame,
        prediction,
        other,
        title=title,
        style=FigureStyle(min_score=args.min_score, first_title=label),
    )
    return picture, {'title': title, 'elements': len(prediction)}


def _picture_of_lidar(
    drive: BagDrive, index: int, title: str, source: str
) -> tuple[ImageArray, dict[str, Any]]:
    """Draw the LiDAR points into the cameras: what is right lies on the edges of things."""
    points = drive.lidar_points(index)
    if points is None:
        raise DataError(
            f"'{source}' has no LiDAR sweep at frame {index}; make the bag with --lidar, or view "
            'another frame'
        )
    frame = drive.frame(index)
    images = tuple(
        None if image is None else draw_points(image, camera, points, extrinsics)
        for image, camera, extrinsics in zip(
            frame.images, frame.rig.cameras, frame.base_from_cameras, strict=True
        )
    )
    picture = compose_camera_strip(
        replace(frame, images=images), drive.ground_truth(index), title=f'{title} · LiDAR'
    )
    return picture, {'title': title, 'points': len(points)}


def _picture_of_gaussians(
    prediction: VectorMap, truth: VectorMap | None, title: str, min_score: float
) -> tuple[ImageArray, dict[str, Any]]:
    picture = compose_gaussian_figure(prediction, truth, title=title, min_score=min_score)
    return picture, {'title': title, 'elements': len(prediction)}


def picture_of_map_file(args: argparse.Namespace) -> tuple[ImageArray, dict[str, Any]]:
    """Draw a frame of a map file from above (beside its prediction), or all its frames.

    Raises:
        DataError: the file or the frame is not there.
    """
    maps = read_map_file(args.source)
    if args.drive:
        picture = draw_map(maps, title=args.source, style=DriveMapStyle(min_score=args.min_score))
        return picture, {'title': args.source, 'frames': len(maps)}
    check_frame(args.frame, len(maps), args.source)
    chosen = maps[args.frame]
    key = frame_key(chosen)
    shown = [(args.source, chosen)]
    if args.predictions is not None:
        beside = _by_frame(_maps_of(args.predictions, chosen.scene))
        if key not in beside:
            raise DataError(f"'{args.predictions}' has no frame '{key}'")
        shown.insert(0, (args.predictions, beside[key]))
    title = ' · '.join(part for part in (chosen.scene, key) if part)
    if args.gaussians:
        # The file beside holds the predictions where one is given; the first then is the truth.
        truth = chosen if len(shown) == 2 else None
        return _picture_of_gaussians(shown[0][1], truth, title, args.min_score)
    shown = [(name.rsplit('/', 1)[-1], vector_map) for name, vector_map in shown]
    return picture_of_maps(shown, title, args.min_score), {
        'title': title,
        'elements': len(chosen),
    }


def picture_of_maps(
    shown: Sequence[tuple[str, VectorMap]], title: str, min_score: float
) -> ImageArray:
    """Draw maps of one frame from above, side by side.

    Args:
        shown: caption and map of each column.
        title: headline.
        min_score: elements with a lower score are not drawn.
    """
    style = BevStyle(pixels_per_metre=14.0)
    columns = []
    for name, vector_map in shown:
        view = draw_bev(vector_map, style, min_score=min_score)
        caption = np.full((40, view.shape[1], 3), PALETTE.page, dtype=np.uint8)
        draw_text(caption, f'{name} · {len(vector_map)} elements', (4, 20), 14)
        gap = np.full((40 + len(view), 12, 3), PALETTE.page, dtype=np.uint8)
        columns += [gap, np.concatenate([caption, view])]
    body = np.concatenate([*columns, columns[0]], axis=1)
    header = np.full((44, body.shape[1], 3), PALETTE.page, dtype=np.uint8)
    draw_text(header, title, (14, 22), 17, bold=True)
    footer = np.full((40, body.shape[1], 3), PALETTE.page, dtype=np.uint8)
    categories = {0, 1, 2} | {e.category for _, item in shown for e in item.elements}
    draw_legend(footer, sorted(categories), (body.shape[1] - 14, 20), 13)
    return np.concatenate([header, body, footer])


def _maps_of(path: str, scene: str) -> list[VectorMap]:
    """Return the maps of a file; only those of one scene where the file tells scenes apart."""
    maps = read_map_file(path)
    return [item for item in maps if item.scene == scene] or maps


def _by_frame(maps: list[VectorMap]) -> dict[str, VectorMap]:
    """Return maps by sample id and by stamp."""
    return {str(m.stamp_ns): m for m in maps} | {frame_key(m): m for m in maps}
