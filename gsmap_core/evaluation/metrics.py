"""The metrics by name, and what can be set about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsmap_core.categories import PAPER_CATEGORIES
from gsmap_core.errors import ConfigError
from gsmap_core.evaluation.bev_iou import DEFAULT_MIN_SCORE, BevIouEvaluator, BevIouResult
from gsmap_core.evaluation.chamfer import ChamferEvaluator, ChamferResult
from gsmap_core.evaluation.consistency import ConsistencyEvaluator, ConsistencyResult
from gsmap_core.evaluation.flicker import FlickerEvaluator, FlickerResult
from gsmap_core.evaluation.line_geometry import GeometryEvaluator, GeometryResult
from gsmap_core.evaluation.metric_names import METRICS
from gsmap_core.evaluation.protocols import DEFAULT_THRESHOLDS_M
from gsmap_core.evaluation.raster import RasterEvaluator, RasterResult
from gsmap_core.evaluation.stability import StabilityEvaluator, StabilityResult

#: What can be reported on.
Evaluator = (
    ChamferEvaluator
    | RasterEvaluator
    | ConsistencyEvaluator
    | BevIouEvaluator
    | GeometryEvaluator
    | StabilityEvaluator
    | FlickerEvaluator
)
Result = (
    ChamferResult
    | RasterResult
    | ConsistencyResult
    | BevIouResult
    | GeometryResult
    | StabilityResult
    | FlickerResult
)


@dataclass(frozen=True)
class MetricOptions:
    """What can be set about the metrics.

    Args:
        categories: names of the categories to score.
        thresholds_m: chamfer distances up to which a prediction is right [m].
        protocol: `maptr`, `maptr_v2` or `streammapnet`.
        num_dims: 2: chamfer distances in the plane; 3: in space.
        simplify_m: thins out ground truth for chamfer distances [m]; None: as the protocol does.
        min_score: predictions with a lower score are no part of the map; average precisions do
            not use it.
    """

    categories: tuple[str, ...] = PAPER_CATEGORIES
    thresholds_m: tuple[float, ...] = DEFAULT_THRESHOLDS_M
    protocol: str = 'maptr'
    num_dims: int = 2
    simplify_m: float | None = None
    min_score: float = DEFAULT_MIN_SCORE


def make_evaluator(name: str, options: MetricOptions) -> Evaluator:
    """Return an empty evaluator of a metric.

    Raises:
        ConfigError: the metric or something in the options is unknown.
    """
    categories, min_score = options.categories, options.min_score
    match name:
        case 'chamfer':
            return ChamferEvaluator(
                categories,
                options.thresholds_m,
                options.protocol,
                options.num_dims,
                options.simplify_m,
            )
        case 'raster':
            return RasterEvaluator(categories)
        case 'consistency':
            return ConsistencyEvaluator(
                categories, options.thresholds_m, options.num_dims, options.simplify_m
            )
        case 'bev_iou':
            return BevIouEvaluator(categories, min_score)
        case 'geometry':
            return GeometryEvaluator(categories, min_score=min_score)
        case 'stability':
            return StabilityEvaluator(categories, min_score=min_score)
        case 'flicker':
            return FlickerEvaluator(categories, min_score)
    raise ConfigError(f"metric '{name}': unknown; expected {', '.join(METRICS)}")


def make_evaluators(names: Sequence[str], options: MetricOptions) -> dict[str, Evaluator]:
    """Return an empty evaluator of each metric, by name.

    Raises:
        ConfigError: a metric or something in the options is unknown.
    """
    return {name: make_evaluator(name, options) for name in names}
