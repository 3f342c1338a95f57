"""Raster average precision of vectorised maps, as MapVR's evaluation toolkit computes it.

Every element is drawn on a canvas of 8 px per metre and dilated by 5 x 5 px (`raster_masks`):
lines as lines, crossings filled. Predictions below score 0.05 are left out, at most 100 per frame
and category are kept. In falling score order each takes the free ground truth of the highest IoU
that reaches the threshold: 0.25 to 0.50 for lines, 0.50 to 0.75 for areas. AP is the precision
envelope read at 101 recalls, over all frames, averaged over the thresholds; categories without
ground truth do not count in the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from gsmap_core.categories import PAPER_CATEGORIES, category_by_name
from gsmap_core.evaluation.frame_metric import FrameEvaluator, FrameResult
from gsmap_core.evaluation.frames import pair_frames
from gsmap_core.evaluation.lateral import mean_of_known, plain
from gsmap_core.evaluation.matching import BoolArray, pool_by_score
from gsmap_core.evaluation.raster_masks import (
    RasterCanvas,
    interpolated_precision,
    match_masks,
)
from gsmap_core.evaluation.raster_windows import draw_windows, union_counts, window_overlaps
from gsmap_core.structures import FloatArray, VectorMap

LINE_IOU = tuple(float(value) for value in np.linspace(0.25, 0.50, 6))
AREA_IOU = tuple(float(value) for value in np.linspace(0.50, 0.75, 6))
MIN_SCORE = 0.05
#: Most predictions per frame and category; average recall is given for the smaller ones as well.
MAX_DETECTIONS = (1, 10, 100)


def iou_thresholds(category: str) -> tuple[float, ...]:
    """Return the overlaps from which on a prediction of a category is right.

    Raises:
        ConfigError: no category has that name.
    """
    return AREA_IOU if category_by_name(category).is_area else LINE_IOU


@dataclass(frozen=True)
class RasterResult(FrameResult):
    """Raster average precision of a set of frames; NaN for a category without ground truth.

    Args:
        ap: AP by category and IoU, 0 to 1.
        average_recall: share of the ground truth found, mean over the IoUs, by category and most
            predictions per frame.
        frame_miou: IoU of everything predicted with everything there, mean over the frames that
            have either, by category; NaN without such frames.
        num_ground_truth: elements, by category.
        num_predictions: elements that were scored, by category.
    """

    ap: dict[str, dict[float, float]]
    average_recall: dict[str, dict[int, float]]
    frame_miou: dict[str, float]
    num_ground_truth: dict[str, int]
    num_predictions: dict[str, int]

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in the order they were asked for."""
        return tuple(self.ap)

    @property
    def per_category(self) -> dict[str, float]:
        """AP of each category, mean over its IoUs."""
        return {name: float(np.mean(list(values.values()))) for name, values in self.ap.items()}

    @property
    def mean_ap(self) -> float:
        """Mean over the categories that have ground truth; NaN if none has."""
        return mean_of_known(list(self.per_category.values()))

    @property
    def line_ap(self) -> float:
        """Mean over the line categories that have ground truth; NaN if none has."""
        return mean_of_known(self._lines(self.per_category))

    @property
    def line_average_recall(self) -> float:
        """Average recall of the line categories that have ground truth; NaN if none has."""
        most = MAX_DETECTIONS[-1]
        recall = {name: values[most] for name, values in self.average_recall.items()}
        return mean_of_known(self._lines(recall))

    def _lines(self, values: dict[str, float]) -> list[float]:
        return [v for name, v in values.items() if not category_by_name(name).is_area]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: thresholds as text (`0.25`), null instead of NaN."""
        return {
            'metric': 'raster',
            **self.frames_to_dict(),
            'mean_ap': plain(self.mean_ap),
            'line_ap': plain(self.line_ap),
            'line_average_recall': plain(self.line_average_recall),
            'per_category': {name: plain(value) for name, value in self.per_category.items()},
            'categories': {
                name: {
                    'ap': {f'{iou:.2f}': plain(v) for iou, v in self.ap[name].items()},
                    'average_recall': {
                        str(most): plain(v) for most, v in self.average_recall[name].items()
                    },
                    'frame_miou': plain(self.frame_miou[name]),
                    'num_ground_truth': self.num_ground_truth[name],
                    'num_predictions': self.num_predictions[name],
                }
                for name in self.ap
            },
        }


@dataclass
class _Record:
    """What is kept of one category in one frame; predictions in falling score order."""

    scene: str
    scores: FloatArray
    true_positives: BoolArray
    num_ground_truth: int
    #: Of all predictions together with all ground truth; None: neither was there.
    frame_iou: float | None


@dataclass
class RasterEvaluator(FrameEvaluator):
    """Collects frames one by one and gives the raster AP of all of them, or of one scene.

    Args:
        categories: names of the categories to score; elements of others are left out.

    Raises:
        ConfigError: a category is unknown.
    """

    _records: dict[str, list[_Record]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        self._records = {name: [] for name in self.categories}

    def add(self, prediction: VectorMap, ground_truth: VectorMap) -> None:
        """Match one frame.

        Raises:
            DataError: the two maps have different references or ranges, or a predicted element has
                no score.
        """
        scene = self._frames.add(prediction, ground_truth)
        canvas = RasterCanvas(ground_truth.range, ground_truth.reference)
        for name in self.categories:
            category = category_by_name(name).id
            predicted = prediction.of_category(category)
            self.add_lines(
                name,
                [element.loop_xy() for element in predicted],
                [element.score or 0.0 for element in predicted],
                [element.loop_xy() for element in ground_truth.of_category(category)],
                canvas,
                scene=scene,
            )

    def add_lines(
        self,
        category: str,
        predictions: Sequence[npt.ArrayLike],
        scores: Sequence[float],
        ground_truth: Sequence[npt.ArrayLike],
        canvas: RasterCanvas,
        scene: str = '',
    ) -> FloatArray:
        """Match one category of one frame given as plain lines; call once per category and frame.

        Args:
            category: its name.
            predictions: (V, 2) vertices each [m]; lines with fewer than two vertices are dropped.
            scores: confidence of each prediction.
            ground_truth: (V, 2) vertices each [m], V >= 2.
            canvas: what they are drawn on.
            scene: the frame's scene.

        Returns:
            (M, G) IoU of the predictions that were kept, in falling score order.
        """
        kept = [
            index
            for index, (line, score) in enumerate(zip(predictions, scores, strict=True))
            if score >= MIN_SCORE and len(np.asarray(line)) >= 2
        ]
        kept.sort(key=lambda index: -scores[index])
        kept = kept[: MAX_DETECTIONS[-1]]
        filled = category_by_name(category).is_area
        masks = draw_windows([predictions[index] for index in kept], canvas, filled)
        truth = draw_windows(ground_truth, canvas, filled)
        iou = window_overlaps(masks, truth)
        frame_iou = None
        if masks or truth:
            shared, covered = union_counts(masks, truth, canvas)
            frame_iou = shared / max(covered, 1)
        matched = match_masks(iou, iou_thresholds(category))
        kept_scores = np.array([scores[index] for index in kept], dtype=np.float64)
        self._records[category].append(
            _Record(scene, kept_scores, matched, len(ground_truth), frame_iou)
        )
        return iou

    def merge(self, other: Self) -> None:
        """Append the frames of an evaluator with the same settings; they follow those here.

        Raises:
            DataError: its frames have another reference or range.
        """
        super().merge(other)
        for name, records in self._records.items():
            records += other._records[name]

    def result(self, scene: str | None = None) -> RasterResult:
        """Return the raster AP over the frames added so far.

        Args:
            scene: only the frames of this scene; None: all.
        """
        ap: dict[str, dict[float, float]] = {}
        recall: dict[str, dict[int, float]] = {}
        miou: dict[str, float] = {}
        num_ground_truth: dict[str, int] = {}
        num_predictions: dict[str, int] = {}
        for name in self.categories:
            records = self._of_scene(name, scene)
            flags, total = _pooled(records, len(iou_thresholds(name)))
            num_ground_truth[name], num_predictions[name] = total, flags.shape[1]
            ap[name] = {
                iou: interpolated_precision(row, total)[0] if total else math.nan
                for iou, row in zip(iou_thresholds(name), flags, strict=True)
            }
            recall[name] = {most: _average_recall(records, most) for most in MAX_DETECTIONS}
            frames = [record.frame_iou for record in records if record.frame_iou is not None]
            miou[name] = float(np.mean(frames)) if frames else math.nan
        return RasterResult(
            ap=ap,
            average_recall=recall,
            frame_miou=miou,
            num_ground_truth=num_ground_truth,
            num_predictions=num_predictions,
            **self._seen(scene),
        )

    def curve(self, category: str, iou: float) -> tuple[FloatArray, FloatArray]:
        """Return (M,) recall and (M,) precision of one category at one of its thresholds.

        Both are empty without ground truth.
        """
        thresholds = iou_thresholds(category)
        flags, total = _pooled(self._of_scene(category, None), len(thresholds))
        if not total:
            return np.zeros(0), np.zeros(0)
        _, recall, precision = interpolated_precision(flags[thresholds.index(iou)], total)
        return recall, precision

    def _of_scene(self, category: str, scene: str | None) -> list[_Record]:
        return [r for r in self._records[category] if scene is None or r.scene == scene]


def _pooled(records: Sequence[_Record], num_thresholds: int) -> tuple[BoolArray, int]:
    """Return (T, M) matches of all predictions in falling score order, and the total truth."""
    flags = pool_by_score(
        [record.scores for record in records],
        [record.true_positives for record in records],
        num_thresholds,
    )
    return flags, sum(record.num_ground_truth for record in records)


def _average_recall(records: Sequence[_Record], most: int) -> float:
    """Return the share of ground truth found, mean over the thresholds; NaN without any."""
    total = sum(record.num_ground_truth for record in records)
    if not total:
        return math.nan
    found = sum(record.true_positives[:, :most].sum(axis=1) for record in records)
    return float(np.mean(found) / total)


def raster_average_precision(
    predictions: Iterable[VectorMap],
    ground_truth: Iterable[VectorMap],
    categories: Sequence[str] = PAPER_CATEGORIES,
    missing: Literal['error', 'empty'] = 'error',
) -> RasterResult:
    """Return the raster average precision of predictions against ground truth.

    Args:
        predictions: local maps with scores.
        ground_truth: local maps of the same frames, matched by sample id, else by stamp.
        categories: names of the categories to score.
        missing: ground-truth frames without prediction are an `error`, or count as `empty`
            predictions.

    Raises:
        DataError: frames do not match, references or ranges differ, or a prediction has no score.
        ConfigError: a category is unknown.
    """
    evaluator = RasterEvaluator(tuple(categories))
    for prediction, truth in pair_frames(predictions, ground_truth, missing):
        evaluator.add(prediction, truth)
    return evaluator.result()
