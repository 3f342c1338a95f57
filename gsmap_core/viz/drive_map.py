"""The map of a whole drive: local maps laid over each other in the map frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import transform_points
from gsmap_core.structures import FloatArray, ImageArray, MapElement, VectorMap
from gsmap_core.viz.bev import draw_dot, draw_polyline
from gsmap_core.viz.colours import PALETTE, Palette, blend, category_colour, draw_text, text_size
from gsmap_core.viz.figure import draw_legend

_SHIFT = 4
_MAX_STEP_M = 30.0


@dataclass(frozen=True)
class DriveMapStyle:
    """How the map of a drive looks.

    Args:
        max_side_px: longer side of the drawing.
        max_pixels_per_metre: a short drive is not enlarged beyond this.
        margin_m: around everything drawn.
        line_m: width of predicted lines on the ground.
        opacity: of one prediction with score 1; those of many frames add up where they agree.
        min_score: elements with a lower score are left out.
        palette: colours.
    """

    max_side_px: int = 2000
    max_pixels_per_metre: float = 12.0
    margin_m: float = 8.0
    line_m: float = 0.25
    opacity: float = 0.35
    min_score: float = 0.3
    palette: Palette = PALETTE


def draw_map(
    predictions: Sequence[VectorMap],
    ground_truth: VectorMap | None = None,
    trajectory: npt.ArrayLike | None = None,
    *,
    title: str = '',
    style: DriveMapStyle | None = None,
) -> ImageArray:
    """Draw the local maps of a drive over each other, the ground truth beneath.

    Args:
        predictions: local maps in the ego frame, each with its pose; or one map in the map frame.
        ground_truth: the whole map in the map frame, or None.
        trajectory: (N, 2 or 3) positions in the map frame [m]; None: those of the predictions.
        title: headline.
        style: appearance; None: the default.

    Returns:
        (H, W, 3) uint8 RGB, x of the map frame to the right and y up.

    Raises:
        DataError: there is nothing to draw, a local map has no pose, or the ground truth is local.
    """
    style = style or DriveMapStyle()
    elements = [item for vector_map in predictions for item in _in_map_frame(vector_map, style)]
    if ground_truth is not None and ground_truth.reference != 'map':
        raise DataError(
            f"ground truth of a drive is given in '{ground_truth.reference}'; expected 'map'"
        )
    if trajectory is None:
        poses = [item.map_from_base for item in predictions if item.map_from_base is not None]
        path = np.array([pose[:2, 3] for pose in poses]).reshape(-1, 2)
    else:
        path = np.asarray(trajectory, dtype=np.float64)[:, :2]
    corners = [line for line, _ in elements] + [path]
    if not sum(len(points) for points in corners):
        raise DataError('nothing to draw: no element and no pose; expected predictions with poses')
    points = np.concatenate(corners)
    low, high = points.min(axis=0) - style.margin_m, points.max(axis=0) + style.margin_m
    scale = min(style.max_pixels_per_metre, style.max_side_px / float((high - low).max()))
    width, height = (int(value) for value in np.ceil((high - low) * scale))
    image = np.full((height, width, 3), style.palette.panel, dtype=np.uint8)

    def pixels(line: FloatArray) -> FloatArray:
        return np.stack([line[:, 0] - low[0], high[1] - line[:, 1]], axis=-1) * scale - 0.5

    if ground_truth is not None:
        thick = max(2, round(3.0 * style.line_m * scale))
        for element in ground_truth.elements:
            line = element.loop_xy()
            if (line.max(axis=0) >= low).all() and (line.min(axis=0) <= high).all():
                draw_polyline(image, pixels(line), style.palette.truth, thick)
    thin = max(1, round(style.line_m * scale))
    for category in sorted({element.category for _, element in elements}):
        lines = [(pixels(line), e.score) for line, e in elements if e.category == category]
        coverage = _accumulate(lines, (height, width), thin, style.opacity)
        blend(image, coverage, 0, 0, category_colour(category))
    if len(path) > 1:
        ink = style.palette.vehicle
        # Nobody drives that far between two frames: there another drive begins.
        jumps = np.flatnonzero(np.linalg.norm(np.diff(path, axis=0), axis=1) > _MAX_STEP_M) + 1
        for piece in np.split(path, jumps):
            draw_polyline(image, pixels(piece), (255, 255, 255), max(4, round(0.5 * scale)))
            draw_polyline(image, pixels(piece), ink, max(2, round(0.25 * scale)))
        first, last = pixels(path[[0, -1]])
        draw_dot(image, first, max(5.0, 0.7 * scale), ink)
        draw_dot(image, first, max(3.0, 0.4 * scale), (255, 255, 255))
        draw_dot(image, last, max(5.0, 0.7 * scale), ink)
    return _with_header(image, elements, ground_truth is not None, scale, title, style)


def _in_map_frame(
    vector_map: VectorMap, style: DriveMapStyle
) -> list[tuple[FloatArray, MapElement]]:
    pose = np.eye(4)
    if vector_map.reference != 'map':
        if vector_map.reference != 'ego' or vector_map.map_from_base is None:
            raise DataError(
                f"local map '{vector_map.sample_id or vector_map.stamp_ns}' "
                f"('{vector_map.reference}') has no pose in the map; expected ego maps with "
                'map_from_base'
            )
        pose = vector_map.map_from_base
    result = []
    for element in vector_map.elements:
        if element.score is None or element.score >= style.min_score:
            line = element.loop_xy()
            height = element.vertices[:, 2] if element.has_z else np.zeros(len(element.vertices))
            if element.closed:
                height = np.append(height, height[:1])
            spatial = np.column_stack([line, height])
            result.append((transform_points(pose, spatial)[:, :2], element))
    return result


def _accumulate(
    lines: list[tuple[FloatArray, float | None]],
    shape: tuple[int, int],
    width_px: int,
    opacity: float,
) -> npt.NDArray[np.float32]:
    """Return (H, W) coverage, 0 to 1, of lines that add up like layers of ink."""
    clear = np.ones(shape, dtype=np.float32)
    for pixels, score in lines:
        low = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 2 * width_px, 0)
        high = np.minimum(
            np.ceil(pixels.max(axis=0)).astype(int) + 2 * width_px + 1, (shape[1], shape[0])
        )
        if (low >= high).any():
            continue
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), dtype=np.uint8)
        fixed = np.round((pixels - low) * (1 << _SHIFT)).astype(np.int32)
        cv2.polylines(mask, [fixed], False, (255,), width_px, cv2.LINE_AA, _SHIFT)
        share = opacity * (1.0 if score is None else float(score)) / 255.0
        clear[low[1] : high[1], low[0] : high[0]] *= 1.0 - mask.astype(np.float32) * share
    return 1.0 - clear


def _with_header(
    image: ImageArray,
    elements: list[tuple[FloatArray, MapElement]],
    has_truth: bool,
    scale: float,
    title: str,
    style: DriveMapStyle,
) -> ImageArray:
    """Add headline, legend and scale bar; a narrow drawing is centred on a page wide enough."""
    palette = style.palette
    width = max(image.shape[1], 1000)
    unit = width / 1300
    large, small, margin = round(24 * unit), round(18 * unit), round(16 * unit)
    bar = np.full((round(60 * unit), width, 3), palette.page, dtype=np.uint8)
    middle = bar.shape[0] / 2
    draw_text(bar, title or 'Map of the drive', (margin, middle), large, palette.ink, bold=True)
    categories = sorted({0, 1, 2} | {element.category for _, element in elements})
    used = draw_legend(bar, categories, (width - margin, middle), small, palette)
    if has_truth:
        right = width - margin - used
        draw_text(bar, 'ground truth', (right, middle), small, palette.ink, anchor='right')
        end = right - text_size('ground truth', small)[0] - 0.5 * small
        line = np.array([[end - 1.8 * small, middle], [end, middle]])
        draw_polyline(bar, line, palette.truth, max(3, round(0.5 * small)))
    step = next((s for s in (100, 50, 20, 10, 5) if s * scale <= 0.3 * image.shape[1]), 2)
    y = image.shape[0] - 22.0 * unit
    ends = np.array([[margin, y], [margin + step * scale, y]])
    draw_polyline(image, ends, palette.ink, 2)
    for end in ends:
        draw_polyline(image, np.array([end - (0, 5), end + (0, 5)]), palette.ink, 2)
    draw_text(image, f'{step} m', (float(ends[1, 0]) + 10, y), small, palette.ink)
    page = np.full((image.shape[0], width, 3), palette.page, dtype=np.uint8)
    left = (width - image.shape[1]) // 2
    page[:, left : left + image.shape[1]] = image
    return np.concatenate([bar, page], axis=0)
