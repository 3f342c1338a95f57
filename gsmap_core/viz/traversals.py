"""Pictures of traversal analyses: where drives pass the same streets, and histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely

from gsmap_core.errors import DataError
from gsmap_core.structures import FloatArray, ImageArray
from gsmap_core.viz.bev import draw_dot, draw_polyline
from gsmap_core.viz.colours import PALETTE, Colour, Palette, blend, draw_text, text_size

_SHIFT = 4
#: Streets that one drive passes, and streets that several pass.
SINGLE_COLOUR: Colour = (70, 130, 180)
MULTI_COLOUR: Colour = (214, 106, 38)


@dataclass(frozen=True)
class TraversalMapStyle:
    """How the map of a place looks.

    Args:
        max_side_px: longer side of the drawing.
        max_pixels_per_metre: a small place is not enlarged beyond this.
        margin_m: around everything drawn.
        opacity: of the polygon of one drive; those of several add up.
        palette: colours.
    """

    max_side_px: int = 2000
    max_pixels_per_metre: float = 6.0
    margin_m: float = 15.0
    opacity: float = 0.28
    palette: Palette = PALETTE


def draw_traversal_map(
    polygons: Sequence[shapely.Geometry],
    paths: Sequence[FloatArray],
    is_multi: Sequence[bool],
    *,
    title: str = '',
    style: TraversalMapStyle | None = None,
) -> ImageArray:
    """Draw what each drive at one place has seen, and its way: darker where several pass.

    Args:
        polygons: D unions of perception boxes [m].
        paths: D (N, 2) positions in the same frame [m].
        is_multi: D, whether the drive is multi-traversal.
        title: headline.
        style: appearance; None: the default.

    Returns:
        (H, W, 3) uint8 RGB, x to the right and y up.

    Raises:
        DataError: there is no drive.
    """
    style = style or TraversalMapStyle()
    if not len(polygons):
        raise DataError('nothing to draw: no drive; expected at least one polygon')
    bounds = np.array([polygon.bounds for polygon in polygons])
    low = bounds[:, :2].min(axis=0) - style.margin_m
    high = bounds[:, 2:].max(axis=0) + style.margin_m
    scale = min(style.max_pixels_per_metre, style.max_side_px / float((high - low).max()))
    width, height = (max(int(value), 1) for value in np.ceil((high - low) * scale))
    image = np.full((height, width, 3), style.palette.panel, dtype=np.uint8)

    def pixels(line: FloatArray) -> FloatArray:
        return np.stack([line[:, 0] - low[0], high[1] - line[:, 1]], axis=-1) * scale - 0.5

    # Single-traversal drives first: what several have seen must not be hidden.
    for kind, colour in ((False, SINGLE_COLOUR), (True, MULTI_COLOUR)):
        chosen = [i for i, multi in enumerate(is_multi) if bool(multi) == kind]
        clear = np.ones((height, width), dtype=np.float32)
        for index in chosen:
            rings = [pixels(ring) for ring in _rings(polygons[index])]
            _darken(clear, rings, style.opacity)
        blend(image, 1.0 - clear, 0, 0, colour)
    line_px = max(1, round(0.5 * scale))
    for path in paths:
        line = pixels(np.asarray(path, dtype=np.float64)[:, :2])
        draw_polyline(image, line, style.palette.vehicle, line_px)
        draw_dot(image, line[0], max(2.0, 0.8 * scale), style.palette.vehicle)
    return _with_header(image, scale, title, is_multi, style.palette)


def _rings(polygon: shapely.Geometry) -> list[FloatArray]:
    """Return the (P, 2) outlines of a polygon's parts and holes."""
    parts = [part for part in shapely.get_parts(polygon) if part.geom_type == 'Polygon']
    return [
        shapely.get_coordinates(ring)
        for part in parts
        for ring in (part.exterior, *part.interiors)
    ]


def _darken(clear: np.ndarray, rings: list[FloatArray], opacity: float) -> None:
    """Lay a polygon over (H, W) float32 transparency, in place; holes stay clear."""
    if not rings:
        return
    points = np.concatenate(rings)
    limits = (clear.shape[1], clear.shape[0])
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 2, limits)
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), dtype=np.uint8)
    fixed = [np.round((ring - low) * (1 << _SHIFT)).astype(np.int32) for ring in rings]
    # Filled together, rings inside others are holes.
    cv2.fillPoly(mask, fixed, (255,), cv2.LINE_AA, _SHIFT)
    share = mask.astype(np.float32) * (opacity / 255.0)
    clear[low[1] : high[1], low[0] : high[0]] *= 1.0 - share


def _with_header(
    image: ImageArray, scale: float, title: str, is_multi: Sequence[bool], palette: Palette
) -> ImageArray:
    """Add headline, legend and scale bar; a narrow drawing is centred on a page wide enough."""
    width = max(image.shape[1], 1000)
    unit = width / 1300
    large, small, margin = round(24 * unit), round(18 * unit), round(16 * unit)
    bar = np.full((round(60 * unit), width, 3), palette.page, dtype=np.uint8)
    middle = bar.shape[0] / 2
    draw_text(bar, title or 'Traversals', (margin, middle), large, palette.ink, bold=True)
    num_multi = sum(map(bool, is_multi))
    right = float(width - margin)
    for text, colour in (
        (f'{len(is_multi) - num_multi} single-traversal', SINGLE_COLOUR),
        (f'{num_multi} multi-traversal', MULTI_COLOUR),
    ):
        draw_text(bar, text, (right, middle), small, palette.ink, anchor='right')
        end = right - text_size(text, small)[0] - 0.5 * small
        line = np.array([[end - 1.8 * small, middle], [end, middle]])
        draw_polyline(bar, line, colour, max(3, round(0.5 * small)))
        right = end - 3.2 * small
    steps = (2000, 1000, 500, 200, 100, 50, 20, 10)
    step = next((s for s in steps if s * scale <= 0.3 * image.shape[1]), 5)
    y = image.shape[0] - 14.0 * unit
    draw_polyline(image, np.array([[margin, y], [margin + step * scale, y]]), palette.ink, 2)
    end_px = margin + step * scale + 10
    draw_text(image, f'{step} m', (end_px, y - 2), small, palette.ink)
    page = np.full((image.shape[0], width, 3), palette.page, dtype=np.uint8)
    left = (width - image.shape[1]) // 2
    page[:, left : left + image.shape[1]] = image
    return np.concatenate([bar, page], axis=0)


def draw_histograms(
    histograms: Mapping[str, Mapping[str, Any]], path: Path, *, title: str = ''
) -> None:
    """Draw histograms side by side into a picture file.

    Args:
        histograms: name -> `title`, `unit`, `edges` (N + 1) and `counts` (N).
        path: file to write; its ending says the format.
        title: headline.

    Raises:
        DataError: there is no histogram.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not histograms:
        raise DataError('nothing to draw: no histogram; expected at least one')
    columns = min(3, len(histograms))
    rows = -(-len(histograms) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.2 * rows + 0.4), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    colour = tuple(value / 255 for value in SINGLE_COLOUR)
    for position, item in enumerate(histograms.values()):
        axes = figure.add_subplot(rows, columns, position + 1)
        edges = np.asarray(item['edges'], dtype=np.float64)
        axes.bar(edges[:-1], item['counts'], np.diff(edges), align='edge', color=colour)
        axes.set_title(item['title'], fontsize=10)
        axes.set_xlabel(item['unit'])
        axes.set_xlim(edges[0], edges[-1])
        axes.grid(axis='y', alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=11)
    figure.savefig(path)
