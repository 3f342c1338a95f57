"""Masks of map elements, their overlap, matching of one frame, AP from a curve read at 101 points.

Plain arrays in and out; which categories are filled and which thresholds apply is decided in
`raster`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gsmap_core.evaluation.matching import BoolArray
from gsmap_core.structures import FloatArray, PerceptionRange

PIXELS_PER_METRE = 8
#: Side of the square that every mask is dilated by [px]; a line becomes that wide.
DILATION_PX = 5
#: Pixels are limited to that before they are drawn: OpenCV calculates with few integer bits.
_MAX_PIXEL = 2**15 - 1
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class RasterCanvas:
    """The picture that elements are compared on: columns to the right of travel, rows ahead.

    Args:
        range: metric extent.
        reference: frame of the coordinates. `lidar`: x is to the right, y ahead, as published. Any
            other: x is ahead and y to the left, so that a map turned into the ego frame falls on
            the same pixels.
    """

    range: PerceptionRange
    reference: str = 'ego'

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ahead, across = self.range.length_x_m, self.range.length_y_m
        if self.reference == 'lidar':
            ahead, across = across, ahead
        return round(ahead * PIXELS_PER_METRE), round(across * PIXELS_PER_METRE)

    def to_pixels(self, points_xy: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return (V, 2) column, row of points (V, 2) [m], halves rounded to even."""
        points = np.asarray(points_xy, dtype=np.float64)[:, :2]
        limits = self.range
        if self.reference == 'lidar':
            right, ahead = points[:, 0] - limits.x_min, points[:, 1] - limits.y_min
        else:
            right, ahead = limits.y_max - points[:, 1], points[:, 0] - limits.x_min
        pixels = np.rint(np.stack([right, ahead], axis=1) * PIXELS_PER_METRE)
        return np.clip(pixels, -_MAX_PIXEL, _MAX_PIXEL).astype(np.int32)


def draw_masks(lines: Sequence[npt.ArrayLike], canvas: RasterCanvas, filled: bool) -> BoolArray:
    """Draw elements, each on its own, and dilate them.

    Args:
        lines: (V, 2) vertices each [m]; taken as they are, not resampled.
        canvas: where to draw; what lies outside is lost.
        filled: polygons with their outline, closed where they are not, by the even-odd rule; else
            lines, 8-connected and one pixel thin before the dilation.

    Returns:
        (M, H * W) bool.
    """
    masks = np.zeros((len(lines), *canvas.shape), dtype=np.uint8)
    square = np.ones((DILATION_PX, DILATION_PX), dtype=np.uint8)
    for mask, line in zip(masks, lines, strict=True):
        pixels = canvas.to_pixels(line)
        if filled:
            cv2.fillPoly(mask, [pixels], (1,))
        else:
            cv2.polylines(mask, [pixels], isClosed=False, color=(1,), thickness=1)
        cv2.dilate(mask, square, dst=mask)
    return masks.reshape(len(lines), math.prod(canvas.shape)).view(np.bool_)


def intersection_over_union(masks: BoolArray, truth: BoolArray) -> FloatArray:
    """Return (M, G) IoU of every mask (M, A) with every mask (G, A); 0 for two empty ones."""
    areas, true_areas = masks.sum(axis=1), truth.sum(axis=1)
    shared = np.zeros((len(masks), len(truth)))
    for row, mask in zip(shared, masks, strict=True):
        row[:] = truth[:, np.flatnonzero(mask)].sum(axis=1)
    return shared / np.maximum(areas[:, None] + true_areas - shared, 1)


def match_masks(iou: FloatArray, thresholds: Sequence[float]) -> BoolArray:
    """Decide which predictions of one frame and category are true positives.

    Args:
        iou: (M, G) of the predictions in falling score order.
        thresholds: T values of IoU from which on (inclusive) a match is right.

    Returns:
        (T, M) bool. Each prediction takes the free ground truth that it overlaps most (the last
        one of equals); it may fall back to a second choice.
    """
    result = np.zeros((len(thresholds), len(iou)), dtype=bool)
    if not iou.size:
        return result
    for row, threshold in zip(result, thresholds, strict=True):
        free = iou.copy()
        for index in np.flatnonzero(iou.max(axis=1) >= threshold):
            best = free.shape[1] - 1 - int(free[index, ::-1].argmax())
            if free[index, best] >= threshold:
                row[index] = True
                free[:, best] = -1.0
    return result


def interpolated_precision(
    true_positives: npt.ArrayLike, num_ground_truth: int
) -> tuple[float, FloatArray, FloatArray]:
    """Return the mean of the precision envelope at the recalls 0, 0.01 ... 1, and the curve.

    Args:
        true_positives: (M,) bool in falling score order.
        num_ground_truth: elements that could have been found, at least 1.

    Returns:
        AP (recalls that are not reached count as 0), (M,) recall, (M,) precision.
    """
    hits = np.cumsum(np.asarray(true_positives, dtype=np.float64))
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / num_ground_truth
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(recall, _RECALLS, side='left')
    return float(np.append(envelope, 0.0)[reached].mean()), recall, precision
