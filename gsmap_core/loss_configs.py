"""Configuration of what a model is trained towards: matching costs and losses.

`config.ModelConfig` holds them; defaults are the published values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: Which orders of a ring's points count as the same ring, see `targets.allowed_orders`.
OrderPattern = Literal['v0', 'v1', 'v2', 'v3', 'v4']


@dataclass(frozen=True)
class MatchingConfig:
    """Weights of the matching cost terms (reference-models.md, 3.2, 4.2 and 9.1).

    Args:
        classification: focal cost.
        points: sum of absolute normalised coordinate differences, least over the allowed orders.
        raster: cost of rendered masks: of lines and polygons with points (MapVR), of Gaussians
            with Gaussians (GSMap); 0: not rendered.
        raster_measure: 1 minus `dice` or 1 minus soft `iou`.
        raster_rows: H of the canvas that the cost is rendered on.
        raster_columns: W of it.
        orders: of a ring's points that count as the same ring: the published pattern `v2`, or
            another one (reference-models.md, 3.1).
    """

    classification: float = 2.0
    points: float = 5.0
    raster: float = 0.0
    raster_measure: Literal['dice', 'iou'] = 'dice'
    raster_rows: int = 128
    raster_columns: int = 64
    orders: OrderPattern = 'v2'


@dataclass(frozen=True)
class RasterLossConfig:
    """What the raster loss compares (MapVR: reference-models.md, 4.2; GSMap: 9.1).

    The defaults are GSMap's. Points are rendered as MapVR renders them, Gaussians as GSMap does.

    Args:
        rows: H of the canvas.
        columns: W of the canvas.
        measure: `l1`, `mse` or `bce` per pixel with `foreground_weight` and the structural term
            `ssim_weight`; or `dice` alone (MapVR).
        foreground_weight: weight of pixels of the element; 1 of all others.
        ssim_weight: share of 1 - SSIM; 0: none.
        target: `line` (binary, `line_width_px` wide, crossings as outlines), `filled` (the same
            with crossings filled), or `soft` (the target rendered like a prediction's points,
            MapVR).
        line_width_px: width of lines in binary targets on this canvas [px]; on the canvas of the
            matching cost lines are as wide in metres.
        layers: `all` decoder layers or the `last` one.
        rendered: `matched` predictions, or `all`: the others towards an empty mask.
        one_to_many: loss and matching cost also for the one-to-many queries.
        center_gradient: gradients reach the centres of the Gaussians.
        union: occupancy of an element from its Gaussians (GSMap, eq. 6).
    """

    rows: int = 200
    columns: int = 100
    measure: Literal['l1', 'mse', 'bce', 'dice'] = 'l1'
    foreground_weight: float = 5.0
    ssim_weight: float = 0.2
    target: Literal['line', 'filled', 'soft'] = 'line'
    line_width_px: int = 3
    layers: Literal['all', 'last'] = 'all'
    rendered: Literal['matched', 'all'] = 'matched'
    one_to_many: bool = False
    center_gradient: bool = True
    union: Literal['probabilistic', 'max', 'clamped_sum', 'exponential'] = 'probabilistic'


@dataclass(frozen=True)
class LossConfig:
    """Weights of the named losses; 0 turns one off (reference-models.md, 3.3, 2.5, 4.2 and 9.1).

    Args:
        classification: focal loss.
        points: L1 on normalised coordinates, least over the allowed orders at matching.
        direction: 1 - cosine of edge directions.
        direction_kind: edges against those of the `target` (MapTR), or against the next edge of
            the same prediction, a `smoothness` prior (MapVR).
        raster: rendered masks, see `raster_options`.
        raster_options: what the raster loss compares.
        bev_segmentation: BCE of a BEV mask head (positive weight 4).
        pv_segmentation: BCE of a mask head on the image features (MapTRv2).
        depth: cross-entropy of the depth bins of the LSS view transform (MapTRv2).
        one_to_many: factor on the losses of the one-to-many queries.
    """

    classification: float = 2.0
    points: float = 5.0
    direction: float = 0.005
    direction_kind: Literal['target', 'smoothness'] = 'target'
    raster: float = 0.0
    raster_options: RasterLossConfig = field(default_factory=RasterLossConfig)
    bev_segmentation: float = 0.0
    pv_segmentation: float = 0.0
    depth: float = 0.0
    one_to_many: float = 1.0
