"""Pictures of BEV features: three principal components as colours, patterns that stay in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.structures import FloatArray, ImageArray, VectorMap
from gsmap_core.viz.bev import BevStyle, BevView, draw_bev
from gsmap_core.viz.colours import PALETTE, draw_text

#: Percentiles of a component that become the darkest and the brightest value.
_LIMITS = (2.0, 98.0)
#: A mean feature this many standard deviations away from the others is drawn darkest.
_PATTERN_LIMIT = 2.0
_CAPTION_PX = 40
_GAP_PX = 12


@dataclass(frozen=True)
class FeaturePanels:
    """What is drawn of one model.

    Args:
        title: of the model.
        numbers: lines of text above the pattern.
        frame: (3, H, W) components of the features of the frame shown.
        mean: (3, H, W) components of the mean features over all frames.
        pattern: (H, W) `FeatureReport.fixed_pattern`.
        grid: of the features.
    """

    title: str
    numbers: tuple[str, ...]
    frame: FloatArray
    mean: FloatArray
    pattern: FloatArray
    grid: BevGrid


def components_of(features: FloatArray, components: FloatArray) -> FloatArray:
    """Return (3, H, W) principal components of features (C, H, W)."""
    return np.einsum('kc,chw->khw', components, features)


def colours_of(components: FloatArray, limits: FloatArray) -> ImageArray:
    """Return (H, W, 3) uint8 colours of (3, H, W) components.

    Args:
        components: red, green, blue.
        limits: (2, 3) values that become 0 and 255.
    """
    low, high = limits[0][:, None, None], limits[1][:, None, None]
    share = np.clip((components - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)
    return np.round(255.0 * np.moveaxis(share, 0, -1)).astype(np.uint8)


def colour_limits(components: FloatArray) -> FloatArray:
    """Return (2, 3) limits for `colours_of` from (3, H, W) components."""
    return np.percentile(components.reshape(3, -1), _LIMITS, axis=1)


def seen_from_above(values: ImageArray, grid: BevGrid, view: BevView) -> ImageArray:
    """Return cells (H, W, ...) of a grid as the picture of a plan view, cell by cell.

    Whatever cell order the grid has, the vehicle points where the view says.
    """
    centres = view.grid.cell_centres()
    row, column = np.moveaxis(np.floor(grid.metres_to_cells(centres)).astype(np.int64), -1, 0)
    row = np.clip(row, 0, grid.num_rows - 1)
    column = np.clip(column, 0, grid.num_columns - 1)
    return np.ascontiguousarray(view.from_grid(values[row, column]))


def draw_bev_features(
    panels: Sequence[FeaturePanels], truth: VectorMap | None, *, title: str = ''
) -> ImageArray:
    """Draw the features of models side by side: one frame, the mean over frames, its pattern.

    Colours of a model come from its own three strongest components: they are comparable within a
    row of one model, not between models.

    Args:
        panels: one per model.
        truth: map of the frame shown, drawn first; None: not known.
        title: headline.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    style = BevStyle(pixels_per_metre=8.0)
    columns = []
    if truth is not None:
        column = [_captioned(draw_bev(truth, style), 'Ground truth')]
        columns.append(np.concatenate(column))
    for panel in panels:
        reference = 'ego' if panel.grid.range.length_x_m > panel.grid.range.length_y_m else 'lidar'
        view = BevView(panel.grid.range, reference, style.pixels_per_metre, style.heading)
        limits = colour_limits(panel.frame)
        pattern = np.clip(panel.pattern / _PATTERN_LIMIT, 0.0, 1.0)
        pictures = [
            ((panel.title,), colours_of(panel.frame, limits)),
            (('mean over all frames',), colours_of(panel.mean, limits)),
            (panel.numbers, _shades(pattern)),
        ]
        column = [
            _captioned(seen_from_above(values, panel.grid, view), *captions)
            for captions, values in pictures
        ]
        columns.append(np.concatenate(column))
    height = max(len(column) for column in columns)
    body = np.concatenate([_framed(column, height) for column in columns], axis=1)
    header = np.full((44, body.shape[1], 3), PALETTE.page, dtype=np.uint8)
    draw_text(header, title, (14, 22), 17, bold=True)
    return np.concatenate([header, body])


def _shades(share: FloatArray) -> ImageArray:
    """Return (H, W, 3): white for 0, dark for 1."""
    levels = np.round(255.0 * (1.0 - share)).astype(np.uint8)
    shades: ImageArray = cv2.cvtColor(
        cv2.applyColorMap(levels, cv2.COLORMAP_BONE), cv2.COLOR_BGR2RGB
    )
    return shades


def _captioned(picture: ImageArray, *captions: str) -> ImageArray:
    strip = np.full((_CAPTION_PX, picture.shape[1], 3), PALETTE.page, dtype=np.uint8)
    for number, caption in enumerate(captions):
        middle = _CAPTION_PX * (number + 0.5) / len(captions)
        draw_text(strip, caption, (4, middle), 13 if len(captions) == 1 else 12)
    return np.concatenate([strip, picture])


def _framed(column: ImageArray, height: int) -> ImageArray:
    """Return a column with a margin, filled up to a height."""
    result = np.full((height + _GAP_PX, column.shape[1] + 2 * _GAP_PX, 3), PALETTE.page, np.uint8)
    result[: len(column), _GAP_PX:-_GAP_PX] = column
    return result
