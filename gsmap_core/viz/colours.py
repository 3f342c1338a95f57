"""Colours and type of every picture: the palette, category colours, crisp text on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from gsmap_core.categories import category_by_id
from gsmap_core.structures import ImageArray

Colour = tuple[int, int, int]
Anchor = Literal['left', 'centre', 'right']


@dataclass(frozen=True)
class Palette:
    """Colours of a picture, RGB 0 to 255.

    Args:
        page: behind everything.
        panel: behind a plan view.
        grid: range rings and axes.
        frame: thin border of a panel.
        ink: main text.
        muted: secondary text.
        vehicle: body of the ego vehicle.
        truth: ground truth drawn beneath predictions.
    """

    page: Colour = (255, 255, 255)
    panel: Colour = (247, 248, 250)
    grid: Colour = (218, 222, 228)
    frame: Colour = (200, 205, 212)
    ink: Colour = (28, 32, 38)
    muted: Colour = (112, 120, 130)
    vehicle: Colour = (52, 60, 72)
    truth: Colour = (188, 194, 202)


PALETTE = Palette()


def category_colour(category: int) -> Colour:
    """Return the display colour of a category, RGB 0 to 255."""
    return category_by_id(category).colour_rgb


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """Return `share` of the first colour over the second, 0 to 1."""
    red, green, blue = (
        int(round(a * share + b * (1 - share))) for a, b in zip(colour, other, strict=True)
    )
    return red, green, blue


def score_opacity(score: float | None) -> float:
    """Return how opaque an element of this score is drawn: 1 without score, never below 0.3."""
    return 1.0 if score is None else 0.3 + 0.7 * float(np.clip(score, 0.0, 1.0))


@lru_cache(maxsize=1)
def _font_folder() -> Path:
    import matplotlib  # Only for the typeface it ships: the same letters on every machine.

    return Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'


@lru_cache(maxsize=512)
def _text_coverage(text: str, size_px: int, bold: bool) -> tuple[npt.NDArray[np.float32], int]:
    """Return (h, w) coverage of a line of text, 0 to 1, and the row of its baseline."""
    from PIL import Image, ImageDraw, ImageFont

    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    font = ImageFont.truetype(str(_font_folder() / name), size_px)
    ascent, descent = font.getmetrics()
    canvas = Image.new('L', (max(1, int(np.ceil(font.getlength(text))) + 2), ascent + descent))
    ImageDraw.Draw(canvas).text((1, ascent), text, font=font, fill=255, anchor='ls')
    return np.asarray(canvas, dtype=np.float32) / 255.0, ascent


def text_size(text: str, size_px: int, bold: bool = False) -> tuple[int, int]:
    """Return width and height of a line of text [px]."""
    coverage, _ = _text_coverage(text, size_px, bold)
    return coverage.shape[1], coverage.shape[0]


def draw_text(
    image: ImageArray,
    text: str,
    position: tuple[float, float],
    size_px: int = 14,
    colour: Colour = PALETTE.ink,
    *,
    anchor: Anchor = 'left',
    bold: bool = False,
) -> None:
    """Write a line of text into an image, in place; what lies outside is cut off.

    Args:
        image: (H, W, 3) uint8 RGB.
        text: one line.
        position: x of the anchor, y of the vertical middle of the line [px].
        size_px: letter size.
        colour: RGB.
        anchor: which end of the text is at `position`.
        bold: weight.
    """
    coverage, _ = _text_coverage(text, size_px, bold)
    height, width = coverage.shape
    shift = {'left': 0.0, 'centre': 0.5, 'right': 1.0}[anchor]
    left = int(round(position[0] - shift * width))
    top = int(round(position[1] - height / 2))
    blend(image, coverage, left, top, colour)


def blend(
    image: ImageArray, coverage: npt.NDArray[np.float32], left: int, top: int, colour: Colour
) -> None:
    """Paint a colour through a coverage mask, in place; parts outside the image are cut off.

    Args:
        image: (H, W, 3) uint8 RGB.
        coverage: (h, w) float32, 0 to 1.
        left: column of the mask's first column.
        top: row of the mask's first row.
        colour: RGB.
    """
    height, width = coverage.shape
    y_from, y_to = max(top, 0), min(top + height, image.shape[0])
    x_from, x_to = max(left, 0), min(left + width, image.shape[1])
    if y_from >= y_to or x_from >= x_to:
        return
    part = coverage[y_from - top : y_to - top, x_from - left : x_to - left, None]
    region = image[y_from:y_to, x_from:x_to]
    mixed = region * (1.0 - part) + np.asarray(colour, dtype=np.float32) * part
    image[y_from:y_to, x_from:x_to] = np.round(mixed).astype(np.uint8)
