"""The picture of one frame: what the cameras saw, what was predicted, what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from gsmap_core.categories import CATEGORIES
from gsmap_core.errors import DataError
from gsmap_core.structures import CameraRig, ImageArray, SurroundFrame, VectorMap
from gsmap_core.viz.bev import BevStyle, draw_bev, draw_polyline
from gsmap_core.viz.colours import PALETTE, Palette, blend, draw_text, text_size
from gsmap_core.viz.overlay import OverlayStyle, draw_overlay


@dataclass(frozen=True)
class FigureStyle:
    """How a frame figure looks.

    Args:
        width_px: width of the picture.
        min_score: predictions with a lower score are not drawn; the title says so.
        first_title: what the first plan view is called.
        max_row_share: a row of cameras is at most this share of the width high.
        overlay: lines in the camera images.
        palette: colours.
    """

    width_px: int = 1920
    min_score: float = 0.4
    first_title: str = 'Prediction'
    max_row_share: float = 0.24
    overlay: OverlayStyle = field(default_factory=OverlayStyle)
    palette: Palette = PALETTE


def camera_rows(rig: CameraRig) -> tuple[tuple[int, ...], ...]:
    """Return the cameras as a person would lay them out: the front ones, below them the rear ones.

    Args:
        rig: any number of cameras, in any order.

    Returns:
        One or two rows of indices into the rig, each from left to right as seen by somebody who
        looks ahead: front left, front, front right above back left, back, back right.
    """
    axes = np.stack([camera.base_from_camera[:2, 2] for camera in rig.cameras])
    yaw = np.degrees(np.arctan2(axes[:, 1], axes[:, 0]))
    front = [i for i in np.argsort(-yaw, kind='stable').tolist() if abs(yaw[i]) < 90.0]
    rear = [i for i in np.argsort(yaw % 360.0, kind='stable').tolist() if abs(yaw[i]) >= 90.0]
    return tuple(tuple(row) for row in (front, rear) if row)


def draw_legend(
    image: ImageArray,
    categories: Sequence[int],
    position: tuple[float, float],
    size_px: int,
    palette: Palette = PALETTE,
) -> int:
    """Write swatches and names of categories on one line, right-aligned, in place.

    Args:
        image: (H, W, 3) uint8 RGB.
        categories: ids in order.
        position: x of the right end, y of the middle [px].
        size_px: letter size.
        palette: colours.

    Returns:
        Width of the legend [px].
    """
    x, y = position
    start = x
    for category in reversed([c for c in CATEGORIES if c.id in set(categories)]):
        label = category.name.replace('ped_crossing', 'pedestrian crossing')
        width, _ = text_size(label, size_px)
        draw_text(image, label, (x, y), size_px, palette.ink, anchor='right')
        x -= width + 0.5 * size_px
        line = np.array([[x - 1.8 * size_px, y], [x, y]])
        draw_polyline(image, line, category.colour_rgb, max(3, round(0.32 * size_px)))
        x -= 3.4 * size_px
    return int(start - x)


def compose_frame_figure(
    frame: SurroundFrame,
    prediction: VectorMap,
    ground_truth: VectorMap | None,
    *,
    title: str = '',
    style: FigureStyle | None = None,
) -> ImageArray:
    """Compose the cameras with projected predictions above, prediction beside ground truth below.

    Args:
        frame: images and calibration.
        prediction: local map in the ego frame, with scores.
        ground_truth: the same place as it is, or None where it is not known.
        title: headline; empty: scene and time.
        style: appearance; None: the default.

    Returns:
        (H, W, 3) uint8 RGB; the height follows from the rig and the range and is even, as is the
        width.

    Raises:
        DataError: a map is not in the ego frame, or the two cover different ranges.
    """
    style = style or FigureStyle()
    if ground_truth is not None and ground_truth.range != prediction.range:
        raise DataError(
            f'prediction covers {prediction.range}, ground truth {ground_truth.range}; '
            'expected the same range'
        )
    width = style.width_px // 2 * 2
    unit = width / 1920.0
    gap = max(4, round(10 * unit))
    strip = draw_camera_strip(frame, prediction, style, width, gap)
    header = _header(frame, prediction, ground_truth, title, style, width, unit)
    panels = _panels(prediction, ground_truth, style, width, gap, unit)
    page = [header, strip, panels]
    result = np.concatenate(page, axis=0)
    if result.shape[0] % 2:
        spare = np.full((1, width, 3), style.palette.page, dtype=np.uint8)
        result = np.concatenate([result, spare], axis=0)
    return result


def compose_camera_strip(
    frame: SurroundFrame,
    vector_map: VectorMap | None = None,
    *,
    title: str = '',
    style: FigureStyle | None = None,
) -> ImageArray:
    """Compose the cameras alone, with the projected elements of a map if one is given.

    Args:
        frame: images and calibration.
        vector_map: elements in the ego frame; None: nothing is projected.
        title: headline; empty: scene and time.
        style: appearance; None: the default.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the map is not in the ego frame.
    """
    style = style or FigureStyle()
    shown = vector_map if vector_map is not None else VectorMap(stamp_ns=frame.stamp_ns)
    width = style.width_px // 2 * 2
    unit = width / 1920.0
    header = _header(frame, shown, None, title, style, width, unit)
    strip = draw_camera_strip(frame, shown, style, width, max(4, round(10 * unit)))
    return np.concatenate([header, strip])


def _header(
    frame: SurroundFrame,
    prediction: VectorMap,
    ground_truth: VectorMap | None,
    title: str,
    style: FigureStyle,
    width: int,
    unit: float,
) -> ImageArray:
    bar = np.full((max(24, round(56 * unit)), width, 3), style.palette.page, dtype=np.uint8)
    middle, margin = bar.shape[0] / 2, round(12 * unit)
    large, small = max(11, round(24 * unit)), max(9, round(18 * unit))
    headline = title or ' · '.join(
        part
        for part in (
            frame.scene or prediction.scene,
            frame.sample_id or f'{frame.stamp_ns / 1e9:.3f} s',
        )
        if part
    )
    present = {0, 1, 2} | {
        element.category
        for vector_map in (prediction, ground_truth)
        if vector_map is not None
        for element in vector_map.elements
    }
    draw_text(bar, headline, (margin, middle), large, style.palette.ink, bold=True)
    draw_legend(bar, sorted(present), (width - margin, middle), small, style.palette)
    return bar


def draw_camera_strip(
    frame: SurroundFrame, prediction: VectorMap, style: FigureStyle, width: int, gap: int
) -> ImageArray:
    """Draw the cameras in one or two rows (`camera_rows`), with the elements projected.

    Args:
        frame: images and calibration.
        prediction: elements in the ego frame.
        style: appearance; its own width does not matter here.
        width: of the result [px].
        gap: between pictures [px].

    Returns:
        (H, width, 3) uint8 RGB.
    """
    pictures = draw_overlay(frame, prediction, style.overlay, min_score=style.min_score)
    rows = camera_rows(frame.rig)
    aspects = [camera.width_px / camera.height_px for camera in frame.rig.cameras]
    # One height for both rows, so that objects keep their size from one picture to the next.
    height = min(
        [(width - gap * (len(row) + 1)) / sum(aspects[i] for i in row) for row in rows]
        + [style.max_row_share * width]
    )
    strip = np.full(
        (round(len(rows) * (height + gap)), width, 3), style.palette.page, dtype=np.uint8
    )
    for number, row in enumerate(rows):
        widths = [int(height * aspects[i]) for i in row]
        left = (width - sum(widths) - gap * (len(row) - 1)) // 2
        top = round(number * (height + gap))
        for index, picture_width in zip(row, widths, strict=True):
            size = (picture_width, int(height))
            picture = np.asarray(
                cv2.resize(pictures[index], size, interpolation=cv2.INTER_AREA), dtype=np.uint8
            )
            _label(picture, frame.rig.cameras[index].name)
            strip[top : top + int(height), left : left + picture_width] = picture
            left += picture_width + gap
    return strip


def _label(picture: ImageArray, name: str) -> None:
    """Write a camera's name on a dark tag in the top left corner."""
    size = max(9, round(picture.shape[0] * 0.045))
    text = name.removeprefix('cam_').removeprefix('CAM_').replace('_', ' ').lower()
    width, height = text_size(text, size)
    tag = np.full((height + size // 2, width + size), 0.62, dtype=np.float32)
    blend(picture, tag, 0, 0, (18, 22, 28))
    draw_text(picture, text, (size / 2, tag.shape[0] / 2), size, (255, 255, 255))


def _panels(
    prediction: VectorMap,
    ground_truth: VectorMap | None,
    style: FigureStyle,
    width: int,
    gap: int,
    unit: float,
) -> ImageArray:
    shown = sum(1 for e in prediction.elements if e.score is None or e.score >= style.min_score)
    scored = any(element.score is not None for element in prediction.elements)
    limit = f' with score ≥ {style.min_score:g}' if scored else ''
    titles = [f'{style.first_title}   {shown} elements{limit}']
    maps = [prediction]
    if ground_truth is not None:
        titles.append(f'Ground truth   {len(ground_truth)} elements')
        maps.append(ground_truth)
    # The vehicle heads right: two long ranges then fill the width under the cameras.
    scale = (width - 3 * gap) / 2 / prediction.range.length_x_m
    bev_style = BevStyle(
        pixels_per_metre=scale,
        heading='right',
        line_px=max(2, round(3.4 * unit)),
        vertex_px=max(1.5, 3.4 * unit),
        palette=style.palette,
    )
    views = [draw_bev(item, bev_style, min_score=style.min_score) for item in maps]
    caption = max(18, round(46 * unit))
    height = caption + views[0].shape[0] + gap
    page = np.full((height, width, 3), style.palette.page, dtype=np.uint8)
    size = max(9, round(19 * unit))
    left = gap if len(views) == 2 else (width - views[0].shape[1]) // 2
    for view, text in zip(views, titles, strict=True):
        right = min(left + view.shape[1], width)
        page[caption : caption + view.shape[0], left:right] = view[:, : right - left]
        cv2.rectangle(
            page,
            (left, caption),
            (right - 1, caption + view.shape[0] - 1),
            style.palette.frame,
            1,
        )
        name, rest = text.split('   ')
        name_width, _ = text_size(name, size, bold=True)
        draw_text(page, name, (left + 2, caption / 2), size, style.palette.ink, bold=True)
        draw_text(page, rest, (left + name_width + size, caption / 2), size, style.palette.muted)
        ahead = 'ahead →'
        draw_text(page, ahead, (right - 2, caption / 2), size, style.palette.muted, anchor='right')
        left = right + gap
    return page
