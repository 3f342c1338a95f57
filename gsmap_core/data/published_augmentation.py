"""Colour changes and GridMask as the published MapTR family trains with them.

The cheaper variants that the project uses by default are in `augmentation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gsmap_core.data.augmentation import AugmentationConfig

#: The stripes are laid out on a canvas this much larger than the images, whose middle is used.
_CANVAS_FACTOR = 1.5


def distort_in_hsv(
    picture: np.ndarray, config: AugmentationConfig, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Change the colours of one picture, saturation and hue in HSV.

    In this order, each with the probability `photometric`: brightness, contrast (here or, by the
    toss of a coin, after the HSV steps), saturation, hue, exchange of channels.

    Args:
        picture: (H, W, 3) RGB, uint8 or float32 (0 to 255 scale); not changed.
        config: probability and ranges.
        generator: drawn from equally often whatever is chosen.

    Returns:
        (H, W, 3) float32, not clipped to 0 to 255, as published.

    Source: MapTR (reference-models.md, 1.2).
    """
    chosen = generator.random(5) < config.photometric
    is_contrast_first = generator.random() < 0.5
    amount = generator.uniform(-1.0, 1.0, 4)
    order = generator.permutation(3)
    result: np.ndarray = picture.astype(np.float32)
    contrast = np.float32(1.0 + config.contrast * amount[1])
    if chosen[0]:
        result += np.float32(config.brightness * amount[0])
    if chosen[1] and is_contrast_first:
        result = result * contrast
    if chosen[2] or chosen[3]:
        # H in degrees, S as a fraction.
        hsv: np.ndarray = np.asarray(cv2.cvtColor(result, cv2.COLOR_RGB2HSV))
        if chosen[2]:
            hsv[..., 1] *= np.float32(1.0 + config.saturation * amount[2])
        if chosen[3]:
            hsv[..., 0] = (hsv[..., 0] + np.float32(config.hue_deg * amount[3])) % 360.0
        result = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    if chosen[1] and not is_contrast_first:
        result = result * contrast
    if chosen[4] and config.swap_channels:
        result = np.ascontiguousarray(result[..., order])
    return np.asarray(result, dtype=np.float32)


def kept_stripes(length: int, period: int, offset: int) -> npt.NDArray[np.bool_]:
    """Return (length,) bool, where the stripes of one direction lie.

    Only whole periods carry a stripe, so that the end of the canvas may have none.

    Args:
        length: of the image side [px].
        period: from stripe to stripe, at least 2 [px].
        offset: of the first stripe on the canvas, 0 to period - 1 [px].
    """
    canvas = int(_CANVAS_FACTOR * length)
    stripe = min(max(int(period / 2 + 0.5), 1), period - 1)
    kept = np.zeros(canvas, dtype=np.bool_)
    for number in range(canvas // period):
        start = offset + number * period
        kept[start : start + stripe] = True
    first = (canvas - length) // 2
    return kept[first : first + length]


def draw_grid_mask(
    height: int, width: int, generator: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Draw a GridMask: squares between horizontal and vertical stripes are hidden.

    Args:
        height: H of the images [px], more than 2.
        width: W of the images [px].
        generator: draws the period, 2 to H - 1, and an offset for each direction.

    Returns:
        (H, W) bool, True where the images stay as they are.

    Source: MapTR (reference-models.md, 1.2).
    """
    period = int(generator.integers(2, height))
    rows = kept_stripes(height, period, int(generator.integers(period)))
    columns = kept_stripes(width, period, int(generator.integers(period)))
    return rows[:, None] | columns[None, :]
