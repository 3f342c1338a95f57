"""Plan views of local maps: what lies around the vehicle, seen from above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from gsmap_core.categories import category_by_id
from gsmap_core.errors import DataError
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.geometry.ellipses import covariance_ellipses
from gsmap_core.structures import (
    FloatArray,
    ImageArray,
    MapElement,
    PerceptionRange,
    VectorMap,
)
from gsmap_core.viz.colours import (
    PALETTE,
    Colour,
    Palette,
    blend,
    category_colour,
    draw_text,
    mix,
    score_opacity,
    text_size,
)

#: cv2 takes fixed-point coordinates: this many fractional bits.
_SHIFT = 4
Heading = Literal['up', 'right']
_LABEL_ANGLE_RAD = np.radians(24.0)


@dataclass(frozen=True)
class BevStyle:
    """How a plan view looks.

    Args:
        pixels_per_metre: scale.
        heading: where the vehicle points in the picture.
        line_px: width of map lines.
        vertex_px: radius of the vertex dots; 0: none.
        ring_step_m: distance between range rings; 0: none.
        vehicle_length_m: of the ego symbol.
        vehicle_width_m: of the ego symbol.
        show_direction: mark the direction of open elements with a chevron in the middle.
        fill_opacity: of areas enclosed by closed elements.
        palette: colours.
    """

    pixels_per_metre: float = 12.0
    heading: Heading = 'up'
    line_px: int = 3
    vertex_px: float = 3.0
    ring_step_m: float = 10.0
    vehicle_length_m: float = 4.6
    vehicle_width_m: float = 1.9
    show_direction: bool = True
    fill_opacity: float = 0.18
    palette: Palette = PALETTE


@dataclass(frozen=True)
class BevView:
    """Where metres of a local map land in a plan view.

    Args:
        range: metric extent in the reference frame.
        reference: `ego` (x forward, y left) or `lidar` (x right, y forward).
        pixels_per_metre: scale.
        heading: where the vehicle points in the picture.

    Raises:
        DataError: a map of another reference has no vehicle to point anywhere.
    """

    range: PerceptionRange
    reference: str = 'ego'
    pixels_per_metre: float = 12.0
    heading: Heading = 'up'

    def __post_init__(self) -> None:
        """Validate the reference."""
        if self.reference not in ('ego', 'lidar'):
            raise DataError(
                f"cannot draw a map in '{self.reference}' around the vehicle; expected a local "
                f'map '
                "in 'ego' or 'lidar' (draw_map shows whole drives)"
            )

    @property
    def grid(self) -> BevGrid:
        """The pixels as cells in the reference frame, before the picture is turned."""
        scale = self.pixels_per_metre
        along_x = max(1, round(self.range.length_x_m * scale))
        along_y = max(1, round(self.range.length_y_m * scale))
        if self.reference == 'ego':
            return BevGrid(self.range, along_x, along_y, 'ego')
        return BevGrid(self.range, along_y, along_x, 'official')

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the picture [px]."""
        grid = self.grid
        if self.heading == 'up':
            return grid.num_columns, grid.num_rows
        return grid.num_rows, grid.num_columns

    def pixels(self, points_xy: npt.ArrayLike) -> FloatArray:
        """Convert (..., 2) x, y [m] to (..., 2) column, row [px]; pixel centres at integers."""
        grid = self.grid
        cells = grid.metres_to_cells(points_xy)
        rows, columns = cells[..., 0], cells[..., 1]
        if self.reference == 'lidar':
            rows = grid.num_rows - rows  # Official grids begin behind the vehicle.
        if self.heading == 'right':
            # Turned by 90 degrees clockwise: ahead goes from up to right, left from left to up.
            rows, columns = columns, grid.num_rows - rows
        return np.stack([columns, rows], axis=-1) - 0.5

    def from_grid(self, values: FloatArray) -> FloatArray:
        """Turn (rows, columns) values on `grid` into (H, W) of the picture."""
        if self.reference == 'lidar':
            values = values[::-1]
        if self.heading == 'right':
            values = np.rot90(values, -1)
        return values


def draw_bev(
    vector_map: VectorMap,
    style: BevStyle | None = None,
    *,
    min_score: float = 0.0,
    background: ImageArray | None = None,
) -> ImageArray:
    """Draw a local map from above, the vehicle in its place.

    Args:
        vector_map: elements in the `ego` or `lidar` frame.
        style: appearance; None: the default.
        min_score: elements with a lower score are left out.
        background: (H, W, 3) uint8 picture of the same view to draw on (an image seen from above);
            None: a plain panel with range rings.

    Returns:
        (H, W, 3) uint8 RGB of the map's range at the style's scale.

    Raises:
        DataError: the map is not local, or the background has another size.
    """
    style = style or BevStyle()
    view = BevView(vector_map.range, vector_map.reference, style.pixels_per_metre, style.heading)
    width, height = view.size_px
    if background is None:
        image = np.full((height, width, 3), style.palette.panel, dtype=np.uint8)
        _draw_rings(image, view, style)
    else:
        if background.shape != (height, width, 3):
            raise DataError(
                f'background has shape {background.shape}; expected ({height}, {width}, 3)'
            )
        image = background.copy()
    shown = [e for e in vector_map.elements if e.score is None or e.score >= min_score]
    # Areas below lines, weak below strong, so that what is certain stays readable.
    shown.sort(key=lambda e: (not _is_area(e), 1.0 if e.score is None else e.score))
    for element in shown:
        _fill_area(image, view, element, style)
    for element in shown:
        _draw_element(image, view, element, style)
    _draw_vehicle(image, view, style)
    return image


def draw_polyline(
    image: ImageArray, pixels: FloatArray, colour: Colour, width_px: int, closed: bool = False
) -> None:
    """Draw an anti-aliased line through (P, 2) column, row positions, in place."""
    cv2.polylines(image, [_fixed(pixels)], closed, colour, width_px, cv2.LINE_AA, _SHIFT)


def draw_dot(image: ImageArray, pixel: FloatArray, radius_px: float, colour: Colour) -> None:
    """Draw an anti-aliased filled dot at a column, row position, in place."""
    x, y = _fixed(pixel[None])[0]
    radius = max(1, int(round(radius_px * (1 << _SHIFT))))
    cv2.circle(image, (int(x), int(y)), radius, colour, -1, cv2.LINE_AA, _SHIFT)


def _fixed(pixels: FloatArray) -> npt.NDArray[np.int32]:
    # Far outside the picture the fixed-point numbers would overflow inside cv2.
    limited = np.clip(pixels, -20_000, 20_000)
    return np.round(limited * (1 << _SHIFT)).astype(np.int32)


def _is_area(element: MapElement) -> bool:
    return element.closed and category_by_id(element.category).is_area


def _fill_area(image: ImageArray, view: BevView, element: MapElement, style: BevStyle) -> None:
    if not _is_area(element):
        return
    layer = image.copy()
    cv2.fillPoly(
        layer,
        [_fixed(view.pixels(element.vertices[:, :2]))],
        category_colour(element.category),
        cv2.LINE_AA,
        _SHIFT,
    )
    share = style.fill_opacity * score_opacity(element.score)
    cv2.addWeighted(layer, share, image, 1.0 - share, 0.0, dst=image)


def _draw_element(image: ImageArray, view: BevView, element: MapElement, style: BevStyle) -> None:
    colour = mix(
        category_colour(element.category), style.palette.panel, score_opacity(element.score)
    )
    pixels = view.pixels(element.vertices[:, :2])
    if element.covariance is not None:
        _draw_ellipses(image, view, element, colour)
    draw_polyline(image, pixels, colour, style.line_px, element.closed)
    if style.vertex_px > 0:
        dark = mix(colour, (0, 0, 0), 0.72)
        for pixel in pixels:
            draw_dot(image, pixel, style.vertex_px, dark)
    if style.show_direction and not element.closed:
        _draw_chevron(image, pixels, colour, style)


def _draw_chevron(image: ImageArray, pixels: FloatArray, colour: Colour, style: BevStyle) -> None:
    """Mark the middle of a line with an arrow head along it."""
    steps = np.linalg.norm(np.diff(pixels, axis=0), axis=1)
    arc = np.concatenate([[0.0], np.cumsum(steps)])
    size = 3.2 * style.line_px
    if arc[-1] < 4 * size:
        return
    index = min(int(np.searchsorted(arc, arc[-1] / 2, side='right')) - 1, len(steps) - 1)
    if steps[index] == 0:
        return
    direction = (pixels[index + 1] - pixels[index]) / steps[index]
    middle = pixels[index] + direction * (arc[-1] / 2 - arc[index])
    normal = np.array([-direction[1], direction[0]])
    head = np.stack(
        [
            middle + direction * size,
            middle - direction * 0.6 * size + normal * 0.8 * size,
            middle - direction * 0.6 * size - normal * 0.8 * size,
        ]
    )
    cv2.fillPoly(image, [_fixed(head)], colour, cv2.LINE_AA, _SHIFT)


def _draw_ellipses(image: ImageArray, view: BevView, element: MapElement, colour: Colour) -> None:
    """Draw the one-sigma ellipse of every vertex."""
    assert element.covariance is not None
    pale = mix(colour, (255, 255, 255), 0.6)
    outlines = covariance_ellipses(element.covariance, 24)
    for vertex, outline in zip(element.vertices[:, :2], outlines, strict=True):
        draw_polyline(image, view.pixels(vertex + outline), pale, 1, True)


def _draw_rings(image: ImageArray, view: BevView, style: BevStyle) -> None:
    palette = style.palette
    limits = view.range
    for ends in (
        [[limits.x_min, 0.0], [limits.x_max, 0.0]],
        [[0.0, limits.y_min], [0.0, limits.y_max]],
    ):
        draw_polyline(image, view.pixels(ends), palette.grid, 1)
    if style.ring_step_m <= 0:
        return
    farthest = max(abs(v) for v in (limits.x_min, limits.x_max, limits.y_min, limits.y_max))
    size_px = max(10, round(style.pixels_per_metre))
    angles = np.linspace(0.0, 2 * np.pi, 181)
    for radius in np.arange(style.ring_step_m, farthest + 1e-9, style.ring_step_m):
        ring = radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        draw_polyline(image, view.pixels(ring), palette.grid, 1)
        # Ahead and a little to the right: inside a range that is twice as long as wide.
        label = radius * np.array([np.cos(_LABEL_ANGLE_RAD), -np.sin(_LABEL_ANGLE_RAD)])
        if view.reference == 'lidar':
            label = np.array([-label[1], label[0]])
        text = f'{radius:g} m'
        column, row = view.pixels(label)
        width, height = text_size(text, size_px)
        plate = np.ones((height - 2, width + 4), dtype=np.float32)
        blend(image, plate, round(column - width / 2 - 2), round(row - height / 2), palette.panel)
        draw_text(image, text, (column, row), size_px, palette.muted, anchor='centre')


def _draw_vehicle(image: ImageArray, view: BevView, style: BevStyle) -> None:
    """Draw the ego vehicle: body, windscreen, and a nose that shows where it heads."""
    half_length, half_width = style.vehicle_length_m / 2, style.vehicle_width_m / 2

    def outline(points: list[tuple[float, float]]) -> npt.NDArray[np.int32]:
        local = np.array(points) * (half_length, half_width)
        if view.reference == 'lidar':
            local = np.stack([-local[:, 1], local[:, 0]], axis=-1)
        return _fixed(view.pixels(local))

    body = outline(
        [(1.0, 0.45), (0.82, 0.92), (0.6, 1.0), (-0.85, 1.0), (-1.0, 0.8)]
        + [(-1.0, -0.8), (-0.85, -1.0), (0.6, -1.0), (0.82, -0.92), (1.0, -0.45)]
    )
    cv2.fillPoly(image, [body], style.palette.vehicle, cv2.LINE_AA, _SHIFT)
    cv2.polylines(image, [body], True, (255, 255, 255), 1, cv2.LINE_AA, _SHIFT)
    glass = outline([(0.42, 0.72), (0.42, -0.72), (0.12, -0.6), (0.12, 0.6)])
    cv2.fillPoly(
        image, [glass], mix(style.palette.vehicle, (255, 255, 255), 0.35), cv2.LINE_AA, _SHIFT
    )
