"""Masks of map elements that cover only the window an element lies in; same answers, less memory.

`raster_masks` draws every element on the whole canvas, which is the plain way and what the tests
compare with. Nearly all of such a mask is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gsmap_core.evaluation.raster_masks import DILATION_PX, RasterCanvas
from gsmap_core.structures import FloatArray

_SQUARE = np.ones((DILATION_PX, DILATION_PX), dtype=np.uint8)
_REACH_PX = DILATION_PX // 2


@dataclass(frozen=True)
class MaskWindow:
    """One element's mask: a rectangle of the canvas, everything outside of it is empty.

    Args:
        top: first row.
        left: first column.
        pixels: (h, w) uint8, 0 or 1.
        area: pixels set.
    """

    top: int
    left: int
    pixels: npt.NDArray[np.uint8]
    area: int

    @property
    def bottom(self) -> int:
        """First row below it."""
        return self.top + self.pixels.shape[0]

    @property
    def right(self) -> int:
        """First column to the right of it."""
        return self.left + self.pixels.shape[1]


def draw_windows(
    lines: Sequence[npt.ArrayLike], canvas: RasterCanvas, filled: bool
) -> list[MaskWindow]:
    """Draw elements as `raster_masks.draw_masks` does, each in its window.

    Args:
        lines: (V, 2) vertices each [m]; taken as they are, not resampled.
        canvas: where to draw; what lies outside is lost.
        filled: polygons with their outline, else lines.
    """
    if not len(lines):
        return []
    arrays = [np.asarray(line, dtype=np.float64)[:, :2] for line in lines]
    ends = np.cumsum([len(line) for line in arrays])
    every = canvas.to_pixels(np.concatenate(arrays))
    starts = np.concatenate([[0], ends[:-1]])
    # The window ends where the canvas ends, so that lines are cut in the same place.
    low = np.maximum(np.minimum.reduceat(every, starts) - _REACH_PX, 0).tolist()
    limit = np.array(canvas.shape[::-1])
    high = np.minimum(np.maximum.reduceat(every, starts) + _REACH_PX + 1, limit).tolist()
    windows = []
    for start, end, (left, top), (right, bottom) in zip(starts, ends, low, high, strict=True):
        if left >= right or top >= bottom:
            windows.append(MaskWindow(0, 0, np.zeros((0, 0), dtype=np.uint8), 0))
            continue
        mask = np.zeros((bottom - top, right - left), dtype=np.uint8)
        pixels = every[start:end] - np.array([left, top], dtype=np.int32)
        if filled:
            cv2.fillPoly(mask, [pixels], (1,))
        else:
            cv2.polylines(mask, [pixels], False, (1,), 1)
        mask = np.asarray(cv2.dilate(mask, _SQUARE), dtype=np.uint8)
        windows.append(MaskWindow(top, left, mask, cv2.countNonZero(mask)))
    return windows


def window_overlaps(masks: Sequence[MaskWindow], truth: Sequence[MaskWindow]) -> FloatArray:
    """Return (M, G) IoU of every mask with every mask; 0 for two empty ones."""
    shared = np.zeros((len(masks), len(truth)))
    if not shared.size:
        return shared
    sides = [np.array([(w.top, w.left, w.bottom, w.right) for w in s]) for s in (masks, truth)]
    low = np.maximum(sides[0][:, None, :2], sides[1][None, :, :2])
    high = np.minimum(sides[0][:, None, 2:], sides[1][None, :, 2:])
    rows, columns = np.nonzero((low < high).all(axis=2))
    extents = np.concatenate([low, high], axis=2)[rows, columns].tolist()
    for row, column, (top, left, bottom, right) in zip(
        rows.tolist(), columns.tolist(), extents, strict=True
    ):
        one, other = masks[row], truth[column]
        both = cv2.bitwise_and(
            one.pixels[top - one.top : bottom - one.top, left - one.left : right - one.left],
            other.pixels[
                top - other.top : bottom - other.top, left - other.left : right - other.left
            ],
        )
        shared[row, column] = cv2.countNonZero(both)
    areas = [np.array([w.area for w in side], dtype=np.float64) for side in (masks, truth)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1.0))


def union_counts(
    masks: Sequence[MaskWindow], truth: Sequence[MaskWindow], canvas: RasterCanvas
) -> tuple[int, int]:
    """Return intersection and union of all masks together with all true ones [px]."""
    planes = []
    for windows in (masks, truth):
        plane = np.zeros(canvas.shape, dtype=np.uint8)
        for window in windows:
            part = plane[window.top : window.bottom, window.left : window.right]
            np.bitwise_or(part, window.pixels, out=part)
        planes.append(plane)
    shared = cv2.countNonZero(cv2.bitwise_and(*planes))
    return shared, cv2.countNonZero(planes[0]) + cv2.countNonZero(planes[1]) - shared
