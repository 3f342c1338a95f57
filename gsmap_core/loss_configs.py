"""Configuration of what a model is trained towards: matching costs and losses.

`config.ModelConfig` holds them; defaults are the published values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gsmap_core.errors import ConfigError

#: Which orders of a ring's points count as the same ring, see `targets.allowed_orders`.
OrderPattern = Literal['v0', 'v1', 'v2', 'v3', 'v4']
#: What positives are pulled towards: 1 (`focal`), or how well they are located.
FocalKind = Literal['focal', 'geometry_aware']


@dataclass(frozen=True)
class AlignmentConfig:
    """Geometry-aware scores and focal terms (InteractionMap, sec. 3.3; reference-models.md, 9.2).

    Loss and cost share them; which of the two uses them is said by `losses.classification_kind`,
    `matching.classification_kind` and the same of instance masks.

    Args:
        terms: what the score of a prediction is made of: distance of its `points` (eq. 16),
            `direction` of its edges (eq. 17), `giou` of the enclosing boxes (eq. 18).
        combination: of several terms.
        alpha: weight of negatives.
        gamma: exponent on the probability of negatives.
        negatives: `all` entries (query, category) but the matched one, or only those of
            `unmatched` queries.
        normaliser: the classification loss is divided by the number of `positives`, or by the sum
            of their `scores`.
    """

    terms: tuple[Literal['points', 'direction', 'giou'], ...] = ('points', 'direction')
    combination: Literal['product', 'mean', 'geometric_mean'] = 'product'
    alpha: float = 0.75
    gamma: float = 2.0
    negatives: Literal['all', 'unmatched'] = 'all'
    normaliser: Literal['positives', 'scores'] = 'positives'

    def __post_init__(self) -> None:
        """Refuse a score of nothing, and weights that turn the loss round."""
        if not self.terms or len(set(self.terms)) != len(self.terms):
            raise ConfigError(
                f"terms {list(self.terms)}; expected one or more of 'points', 'direction', "
                "'giou', each once"
            )
        if self.alpha < 0 or self.gamma < 0:
            raise ConfigError(
                f'alpha {self.alpha} and gamma {self.gamma}; expected neither below 0'
            )


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
        classification_kind: of the cost from the category: `geometry_aware` is InteractionMap's
            GFC (eq. 19), see `AlignmentConfig`.
        instance_mask: cost per pixel between instance masks (InteractionMap: 30).
        instance_dice: 1 minus dice of instance masks (InteractionMap: 3).
        instance_mask_kind: of the cost per pixel: `geometry_aware` is InteractionMap's MGFC.
    """

    classification: float = 2.0
    points: float = 5.0
    raster: float = 0.0
    raster_measure: Literal['dice', 'iou'] = 'dice'
    raster_rows: int = 128
    raster_columns: int = 64
    orders: OrderPattern = 'v2'
    classification_kind: FocalKind = 'focal'
    instance_mask: float = 0.0
    instance_dice: float = 0.0
    instance_mask_kind: FocalKind = 'geometry_aware'

    @property
    def has_instance_masks(self) -> bool:
        """Whether masks of instances are compared."""
        return self.instance_mask > 0 or self.instance_dice > 0

    @property
    def is_geometry_aware(self) -> bool:
        """Whether any cost needs the score of `AlignmentConfig`."""
        masks = self.instance_mask > 0 and self.instance_mask_kind == 'geometry_aware'
        return self.classification_kind == 'geometry_aware' or masks


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
class InstanceMaskConfig:
    """Query instance segmentation (InteractionMap, eq. 20 and 21; reference-models.md, 9.2).

    Args:
        kind: of the loss per pixel: `geometry_aware` is InteractionMap's MGFL.
        layers: `all` decoder layers or the `last` one; the others have neither mask nor cost.
        one_to_many: masks, loss and cost also for the one-to-many queries.
        stride: BEV cells per pixel of a mask, along each side.
        num_mlp_layers: of the network that turns a query into a mask embedding.
        target: crossings `filled`, or as outlines like every other `line`.
        line_width_px: width of lines in the targets, on the canvas of the masks [px].
    """

    kind: FocalKind = 'geometry_aware'
    layers: Literal['all', 'last'] = 'all'
    one_to_many: bool = False
    stride: int = 1
    num_mlp_layers: int = 3
    target: Literal['filled', 'line'] = 'filled'
    line_width_px: int = 3

    def __post_init__(self) -> None:
        """Refuse sizes that do not exist."""
        for name in ('stride', 'num_mlp_layers', 'line_width_px'):
            if getattr(self, name) < 1:
                raise ConfigError(f'{name} {getattr(self, name)}; expected at least 1')


@dataclass(frozen=True)
class LossConfig:
    """Weights of the named losses; 0 turns one off (reference-models.md, 3.3, 2.5, 4.2, 9.1, 9.2).

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
        classification_kind: `geometry_aware` is InteractionMap's GFL (eq. 15), see
            `AlignmentConfig`.
        points_kind: `l1`, or `smooth_l1`, quadratic below `points_beta` (InteractionMap).
        points_beta: where it passes into a straight line, in unit coordinates.
        instance_mask: loss per pixel of instance masks (InteractionMap: 30).
        instance_dice: 1 - dice of instance masks (InteractionMap: 3).
        instance_mask_options: which masks are predicted and compared.
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
    classification_kind: FocalKind = 'focal'
    points_kind: Literal['l1', 'smooth_l1'] = 'l1'
    points_beta: float = 0.01
    instance_mask: float = 0.0
    instance_dice: float = 0.0
    instance_mask_options: InstanceMaskConfig = field(default_factory=InstanceMaskConfig)

    def __post_init__(self) -> None:
        """Refuse a smooth loss without a smooth part."""
        if self.points_beta <= 0:
            raise ConfigError(
                f"points_beta {self.points_beta}; expected more than 0, or points_kind 'l1'"
            )

    @property
    def has_instance_masks(self) -> bool:
        """Whether the model predicts masks of instances."""
        return self.instance_mask > 0 or self.instance_dice > 0

    @property
    def is_geometry_aware(self) -> bool:
        """Whether any loss needs the score of `AlignmentConfig`."""
        masks = self.instance_mask > 0 and self.instance_mask_options.kind == 'geometry_aware'
        return self.classification_kind == 'geometry_aware' or masks
