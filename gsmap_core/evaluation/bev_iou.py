"""IoU of the BEV raster: everything predicted of a category against everything there.

Elements are drawn as the raster AP draws them (8 px per metre, lines 0.625 m wide, crossings
filled). Intersections and unions are summed over all frames before they are divided, as is usual
for semantic maps since HDMapNet, so that a frame counts by what is in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from gsmap_core.categories import category_by_name
from gsmap_core.evaluation.frame_metric import FrameEvaluator, FrameResult
from gsmap_core.evaluation.lateral import SceneSums, mean_of_known, plain, ratio
from gsmap_core.evaluation.raster_masks import RasterCanvas
from gsmap_core.evaluation.raster_windows import draw_windows, union_counts
from gsmap_core.structures import VectorMap

#: Predictions below it are not part of the predicted map.
DEFAULT_MIN_SCORE = 0.4


@dataclass(frozen=True)
class BevIouResult(FrameResult):
    """IoU of the BEV raster; NaN for a category that is neither predicted nor there.

    Args:
        iou: by category, 0 to 1.
        intersection_m2: area covered by both, by category [m^2].
        union_m2: area covered by either, by category [m^2].
        min_score: predictions with a lower score were left out.
    """

    iou: dict[str, float]
    intersection_m2: dict[str, float]
    union_m2: dict[str, float]
    min_score: float

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in the order they were asked for."""
        return tuple(self.iou)

    @property
    def per_category(self) -> dict[str, float]:
        """IoU of each category."""
        return self.iou

    @property
    def mean(self) -> float:
        """Mean over the categories that have an IoU."""
        return mean_of_known(list(self.iou.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; null instead of NaN."""
        return {
            'metric': 'bev_iou',
            'min_score': self.min_score,
            **self.frames_to_dict(),
            'mean': plain(self.mean),
            'per_category': {name: plain(value) for name, value in self.iou.items()},
            'intersection_m2': self.intersection_m2,
            'union_m2': self.union_m2,
        }


@dataclass
class BevIouEvaluator(FrameEvaluator):
    """Collects frames one by one and gives the IoU over all of them, or over one scene.

    Args:
        categories: names of the categories to score; elements of others are left out.
        min_score: predictions with a lower score are left out.

    Raises:
        ConfigError: a category is unknown.
    """

    min_score: float = DEFAULT_MIN_SCORE
    _sums: SceneSums = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        self._sums = SceneSums((2,))

    def add(self, prediction: VectorMap, ground_truth: VectorMap) -> None:
        """Compare one frame.

        Raises:
            DataError: the two maps have different references or ranges, or a predicted element has
                no score.
        """
        scene = self._frames.add(prediction, ground_truth)
        canvas = RasterCanvas(ground_truth.range, ground_truth.reference)
        for name in self.categories:
            category = category_by_name(name)
            predicted, true = (
                draw_windows(
                    [
                        element.loop_xy()
                        for element in side.of_category(category.id)
                        if element.score is None or element.score >= self.min_score
                    ],
                    canvas,
                    category.is_area,
                )
                for side in (prediction, ground_truth)
            )
            self._sums.add(name, scene, union_counts(predicted, true, canvas))

    def merge(self, other: Self) -> None:
        """Add the frames of an evaluator with the same settings.

        Raises:
            DataError: its frames have another reference or range.
        """
        super().merge(other)
        self._sums.merge(other._sums)

    def result(self, scene: str | None = None) -> BevIouResult:
        """Return the IoU over the frames added so far.

        Args:
            scene: only the frames of this scene; None: all.
        """
        totals = {name: self._sums.total(name, scene) for name in self.categories}
        limits = self._frames.range
        cell_m2 = 0.0
        if limits is not None:
            height, width = RasterCanvas(limits, self._frames.reference).shape
            cell_m2 = limits.length_x_m * limits.length_y_m / (height * width)
        return BevIouResult(
            iou={name: ratio(shared, covered) for name, (shared, covered) in totals.items()},
            intersection_m2={name: float(t[0] * cell_m2) for name, t in totals.items()},
            union_m2={name: float(t[1] * cell_m2) for name, t in totals.items()},
            min_score=self.min_score,
            **self._seen(scene),
        )
