"""The raster cost and the raster loss: elements rendered as masks and compared pixel by pixel.

What a prediction looks like depends on the representation (`_RENDERERS`); what it is compared
with, on the options of the loss. MapVR renders points as lines and polygons on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gsmap_core.categories import category_by_name
from gsmap_core.config import ModelConfig
from gsmap_core.errors import ConfigError
from gsmap_core.gaussians.rasterize import rasterize_gaussians
from gsmap_core.gaussians.representation import centers_to_metres
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.losses.matched import MatchedPredictions
from gsmap_core.losses.raster_measures import mask_loss, pairwise_loss
from gsmap_core.losses.soft_raster import draw_binary, render_vectors
from gsmap_core.targets import MapTargets


@dataclass(frozen=True)
class RasterRequest:
    """T elements to render.

    Args:
        points: (T, P, 2) unit coordinates.
        gaussians: (T, P, 3) scales [m] and angles [rad] of the Gaussians, or None.
        areas: (T,) bool: rendered as an area, where the representation knows areas.
        rows: H of the canvas.
        columns: W of the canvas.
        config: the model.
    """

    points: Tensor
    gaussians: Tensor | None
    areas: Tensor
    rows: int
    columns: int
    config: ModelConfig


@dataclass(frozen=True)
class Renderer:
    """How one representation becomes masks.

    Args:
        render: returns (T, H, W) in [0, 1], with gradients to points and Gaussians.
        knows_areas: an element looks different as an area than as a line.
        pixel_centre: where the centre of pixel 0 lies [px]: 0.0 or 0.5. Targets are drawn alike.
    """

    render: Callable[[RasterRequest], Tensor]
    knows_areas: bool
    pixel_centre: float


def _render_points(request: RasterRequest) -> Tensor:
    size = request.points.new_tensor([request.columns, request.rows])
    return render_vectors(
        request.points[..., :2] * size, request.areas, request.rows, request.columns
    )


def _render_gaussians(request: RasterRequest) -> Tensor:
    """Render Gaussians as GSMap does (eq. 6), in metres at the centres of the canvas's cells."""
    assert request.gaussians is not None  # A model of this representation predicts them.
    config, options = request.config, request.config.losses.raster_options
    points = request.points if options.center_gradient else request.points.detach()
    grid = BevGrid(config.range, request.rows, request.columns, config.bev.order)
    return rasterize_gaussians(
        centers_to_metres(points[..., :2], grid),
        request.gaussians[..., :2],
        request.gaussians[..., 2],
        grid,
        union=options.union,
    )


#: By `config.representation`.
_RENDERERS: dict[str, Renderer] = {
    'gaussians': Renderer(_render_gaussians, knows_areas=False, pixel_centre=0.5),
    'points': Renderer(_render_points, knows_areas=True, pixel_centre=0.0),
}


def renderer_of(config: ModelConfig) -> Renderer:
    """Return how the model's representation is rendered.

    Raises:
        ConfigError: it cannot be rendered.
    """
    if config.representation not in _RENDERERS:
        raise ConfigError(
            f"representation '{config.representation}' cannot be rendered; expected one of "
            f'{", ".join(_RENDERERS)}, or no raster loss and cost'
        )
    return _RENDERERS[config.representation]


def areas_of(labels: Tensor, config: ModelConfig) -> Tensor:
    """Return (T,) bool: labels (T,) of categories that enclose a surface."""
    flags = [category_by_name(name).is_area for name in config.categories]
    return torch.tensor(flags, device=labels.device)[labels]


def render_predictions(
    points: Tensor,
    gaussians: Tensor | None,
    labels: Tensor,
    canvas: tuple[int, int],
    config: ModelConfig,
) -> Tensor:
    """Render predictions the way their representation is rendered.

    Args:
        points: (T, P, 2) unit coordinates.
        gaussians: (T, P, D) further parameters, or None.
        labels: (T,) int64, what each of them is to be rendered as.
        canvas: rows and columns.
        config: the model.

    Returns:
        (T, H, W) in [0, 1], with gradients.
    """
    request = RasterRequest(points, gaussians, areas_of(labels, config), *canvas, config)
    return renderer_of(config).render(request)


@torch.no_grad()
def render_targets(
    points: Tensor, labels: Tensor, canvas: tuple[int, int], config: ModelConfig
) -> Tensor:
    """Render ground truth as `raster_options.target` says.

    Args:
        points: (E, P, 2) unit coordinates; rings repeat their first point.
        labels: (E,) int64.
        canvas: rows and columns.
        config: the model. The width of binary lines belongs to the canvas of the loss and shrinks
            with another one.

    Returns:
        (E, H, W) in [0, 1], without gradients.
    """
    options = config.losses.raster_options
    rows, columns = canvas
    areas = areas_of(labels, config)
    pixels = (
        points[..., :2] * points.new_tensor([columns, rows]) - renderer_of(config).pixel_centre
    )
    if options.target == 'soft':
        return render_vectors(pixels, areas, rows, columns)
    width = max(1.0, options.line_width_px * rows / options.rows)
    filled = areas if options.target == 'filled' else torch.zeros_like(areas)
    return draw_binary(pixels, filled, *canvas, width)


class RasterCosts:
    """The unweighted raster cost of every sample of a batch.

    What the elements look like is drawn once and for all samples together: a device that waits
    for every launch would spend most of a training step on drawing them one sample at a time.

    Args:
        targets: of the samples.
        config: gives the canvas and the measure (`matching`).

    Source: MapVR, matching; GSMap, eq. 9.
    """

    @torch.no_grad()
    def __init__(self, targets: Sequence[MapTargets], config: ModelConfig) -> None:
        self.config = config
        weights = config.matching
        self.canvas = (weights.raster_rows, weights.raster_columns)
        points = torch.cat([target.points for target in targets])
        labels = torch.cat([target.labels for target in targets])
        sizes = [len(target) for target in targets]
        self.truth = render_targets(points, labels, self.canvas, config).split(sizes)
        self.areas = areas_of(labels, config).split(sizes)

    @torch.no_grad()
    def __call__(self, points: Tensor, gaussians: Tensor | None, sample: int) -> Tensor:
        """Compare the predictions of one sample with its elements.

        A prediction is rendered as what the element is: as a polygon for the column of a crossing.

        Args:
            points: (L, M, P, 2) unit coordinates.
            gaussians: (L, M, P, D) further parameters, or None.
            sample: its index; it has G >= 1 elements.

        Returns:
            (L, M, G) from 0 (alike) to 1.
        """
        renderer, measure = renderer_of(self.config), self.config.matching.raster_measure
        truth, areas = self.truth[sample], self.areas[sample]
        flat = points.flatten(0, 1)
        flat_gaussians = None if gaussians is None else gaussians.flatten(0, 1)

        def masks(as_area: bool) -> Tensor:
            shape = torch.full((len(flat),), as_area, device=points.device)
            request = RasterRequest(flat, flat_gaussians, shape, *self.canvas, self.config)
            return renderer.render(request)

        if renderer.knows_areas:
            cost = points.new_zeros(len(flat), len(truth))
            for as_area in (False, True):
                chosen = areas == as_area
                if bool(chosen.any()):
                    cost[:, chosen] = pairwise_loss(masks(as_area), truth[chosen], measure)
        else:
            cost = pairwise_loss(masks(False), truth, measure)
        return cost.unflatten(0, points.shape[:2])


def raster_loss(matched: MatchedPredictions, config: ModelConfig) -> Tensor:
    """Return (L,) raster losses summed over the pairs of each layer.

    With `raster_options.rendered: all` the other queries are compared with an empty mask, and the
    mean over all queries takes the place of the mean over the pairs. Layers that
    `raster_options.layers` leaves out have 0.

    Source: MapVR, raster loss; GSMap, eq. 12.
    """
    options = config.losses.raster_options
    canvas = (options.rows, options.columns)
    num_layers = len(matched.class_logits)
    truth = render_targets(matched.element_points, matched.element_labels, canvas, config)
    first = num_layers - 1 if options.layers == 'last' else 0
    pairs = (matched.layer >= first).nonzero()[:, 0]
    layer, element = matched.layer[pairs], matched.element[pairs]
    gaussians = None if matched.gaussians is None else matched.gaussians[pairs]
    labels = matched.element_labels[element]
    masks = render_predictions(matched.points[pairs], gaussians, labels, canvas, config)
    losses = masks.new_zeros(num_layers)
    losses = losses.index_add(0, layer, mask_loss(masks, truth[element], options))
    if options.rendered == 'all':
        losses = losses + _unmatched_loss(matched, first, canvas, config)
        num_queries = matched.class_logits.shape[1:3].numel()
        losses = losses * (max(len(matched.layer) / num_layers, 1.0) / num_queries)
    return losses


def _unmatched_loss(
    matched: MatchedPredictions, first: int, canvas: tuple[int, int], config: ModelConfig
) -> Tensor:
    """Return (L,) losses of the queries without element, from layer `first` on, against nothing.

    They are rendered as what they are taken for.
    """
    free = matched.class_targets.sum(-1) == 0
    free[:first] = False
    gaussians = None if matched.all_gaussians is None else matched.all_gaussians[free]
    labels = matched.class_logits[free].argmax(-1)
    masks = render_predictions(matched.all_points[free], gaussians, labels, canvas, config)
    values = mask_loss(masks, torch.zeros_like(masks), config.losses.raster_options)
    return values.new_zeros(len(free)).index_add(0, free.nonzero()[:, 0], values)
