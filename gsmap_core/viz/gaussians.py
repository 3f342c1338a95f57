"""Pictures of what only Gaussians show: their extent, and the occupancy that they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from gsmap_core.errors import DataError
from gsmap_core.gaussians.rasterize import rasterize_gaussians
from gsmap_core.gaussians.representation import triples_to_scales
from gsmap_core.geometry.ellipses import covariance_ellipses
from gsmap_core.structures import FloatArray, ImageArray, MapElement, VectorMap
from gsmap_core.viz.bev import BevStyle, BevView, draw_bev, draw_dot, draw_polyline
from gsmap_core.viz.colours import PALETTE, category_colour, draw_text, score_opacity
from gsmap_core.viz.figure import draw_legend

#: Outlines of the drawn ellipses [sigmas], the outer one first.
_SIGMAS = (2.0, 1.0)


def element_occupancy(elements: Sequence[MapElement], view: BevView) -> FloatArray:
    """Return how much each element covers every pixel of a plan view.

    Args:
        elements: M elements, each with covariances, in the frame of the view.
        view: range, scale and orientation.

    Returns:
        (M, H, W) float64 in [0, 1]; pixel centres as in `BevView.pixels`.

    Raises:
        DataError: an element has no covariances.

    Source: GSMap, eq. 6.
    """
    width, height = view.size_px
    result = np.zeros((len(elements), height, width))
    for layer, element in zip(result, elements, strict=True):
        if element.covariance is None:
            raise DataError(
                f"element '{element.category_name}' has no covariance; occupancy needs a model "
                'that predicts Gaussians (gsmap_*)'
            )
        scales, thetas = triples_to_scales(torch.from_numpy(element.covariance.copy()))
        centers = torch.from_numpy(element.vertices[:, :2].copy())
        layer[:] = view.from_grid(rasterize_gaussians(centers, scales, thetas, view.grid).numpy())
    return result


def draw_occupancy(
    vector_map: VectorMap, style: BevStyle | None = None, *, min_score: float = 0.0
) -> ImageArray:
    """Draw the soft occupancy of a map's elements from above, in the colours of their categories.

    Args:
        vector_map: elements with covariances, in the `ego` or `lidar` frame.
        style: gives scale, heading and colours; None: the default.
        min_score: elements with a lower score are left out.

    Returns:
        (H, W, 3) uint8 RGB of the map's range at the style's scale.

    Raises:
        DataError: the map is not local, or an element has no covariances.
    """
    style = style or BevStyle()
    view = _view_of(vector_map, style)
    shown = _above(vector_map, min_score)
    picture = np.empty((*view.size_px[::-1], 3))
    picture[:] = style.palette.panel
    for element in sorted(shown, key=lambda e: 1.0 if e.score is None else e.score):
        share = element_occupancy([element], view)[0] * score_opacity(element.score)
        colour = np.array(category_colour(element.category), dtype=np.float64)
        picture += share[..., None] * (colour - picture)
    return np.round(picture).astype(np.uint8)


def draw_gaussians(
    vector_map: VectorMap, style: BevStyle | None = None, *, min_score: float = 0.0
) -> ImageArray:
    """Draw every Gaussian as its one- and two-sigma ellipses around its centre.

    Arguments, result and errors as `draw_occupancy`.
    """
    style = style or BevStyle()
    view = _view_of(vector_map, style)
    image = draw_bev(replace(vector_map, elements=()), style)
    for element in _above(vector_map, min_score):
        if element.covariance is None:
            raise DataError(
                f"element '{element.category_name}' has no covariance; expected the map of a "
                'model that predicts Gaussians (gsmap_*)'
            )
        colour = category_colour(element.category)
        for number, num_sigmas in enumerate(_SIGMAS):
            outlines = covariance_ellipses(element.covariance, 32, num_sigmas)
            layer = image.copy()
            for vertex, outline in zip(element.vertices[:, :2], outlines, strict=True):
                corners = np.round(view.pixels(vertex + outline)).astype(np.int32)
                cv2.fillPoly(layer, [corners], colour, cv2.LINE_AA)
            share = 0.25 + 0.3 * number
            cv2.addWeighted(layer, share, image, 1.0 - share, 0.0, dst=image)
            if num_sigmas == 1.0:
                for vertex, outline in zip(element.vertices[:, :2], outlines, strict=True):
                    draw_polyline(image, view.pixels(vertex + outline), colour, 1, True)
        for vertex in element.vertices[:, :2]:
            draw_dot(image, view.pixels(vertex), 1.6, (20, 20, 20))
    return image


def compose_gaussian_figure(
    prediction: VectorMap,
    ground_truth: VectorMap | None = None,
    *,
    title: str = '',
    min_score: float = 0.4,
    pixels_per_metre: float = 12.0,
) -> ImageArray:
    """Compose representation, raster and vectors of one local map side by side.

    Args:
        prediction: map with covariances.
        ground_truth: the same place as it is, drawn last, or None.
        title: headline.
        min_score: predictions with a lower score are left out.
        pixels_per_metre: scale of each view.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the prediction has no covariances, or a map is not local.
    """
    style = BevStyle(pixels_per_metre=pixels_per_metre)
    bare = tuple(replace(element, covariance=None) for element in prediction.elements)
    views = [
        ('Gaussians, 1 and 2 sigma', draw_gaussians(prediction, style, min_score=min_score)),
        ('Soft occupancy', draw_occupancy(prediction, style, min_score=min_score)),
        ('Vectors', draw_bev(replace(prediction, elements=bare), style, min_score=min_score)),
    ]
    if ground_truth is not None:
        views.append(('Ground truth', draw_bev(ground_truth, style)))
    columns = []
    for name, picture in views:
        caption = np.full((40, picture.shape[1], 3), PALETTE.page, dtype=np.uint8)
        draw_text(caption, name, (4, 20), 15, bold=True)
        gap = np.full((40 + len(picture), 12, 3), PALETTE.page, dtype=np.uint8)
        columns += [gap, np.concatenate([caption, picture])]
    body = np.concatenate([*columns, columns[0]], axis=1)
    header = np.full((44, body.shape[1], 3), PALETTE.page, dtype=np.uint8)
    draw_text(header, title, (14, 22), 17, bold=True)
    present = {e.category for e in _above(prediction, min_score)} | {0, 1, 2}
    footer = np.full((40, body.shape[1], 3), PALETTE.page, dtype=np.uint8)
    draw_legend(footer, sorted(present), (body.shape[1] - 14, 20), 13)
    return np.concatenate([header, body, footer])


def _view_of(vector_map: VectorMap, style: BevStyle) -> BevView:
    return BevView(vector_map.range, vector_map.reference, style.pixels_per_metre, style.heading)


def _above(vector_map: VectorMap, min_score: float) -> list[MapElement]:
    return [e for e in vector_map.elements if e.score is None or e.score >= min_score]
