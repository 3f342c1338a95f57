"""Chamfer average precision of vectorised maps, as the published evaluators compute it.

Protocols (source: MapTR's `mean_ap.py`, `tpfp.py` and `tpfp_chamfer.py`; StreamMapNet's `AP.py`
and `distance.py`):

- `maptr`: both sides resampled to 100 points; a pair counts only if the two lines, widened by 2 m
  on either side, touch.
- `maptr_v2`: the same, but a prediction that already has exactly 100 vertices is taken as it is.
- `streammapnet`: 200 points, no proximity gate, ground truth simplified by 0.2 m.

In all of them: distance = mean of the two directed mean nearest-point distances, in the plane (or
in space, for models that predict heights: MapTRv2 on Argoverse 2; lines are sampled and gated in
the plane all the same);
predictions in falling score order look only at their own nearest ground truth; AP = area under the
precision envelope over all frames; a category without ground truth has AP 0 and counts in the
mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from gsmap_core.categories import PAPER_CATEGORIES, category_by_name
from gsmap_core.errors import ConfigError
from gsmap_core.evaluation.frame_metric import FrameEvaluator, FrameResult
from gsmap_core.evaluation.frames import frame_key, pair_frames
from gsmap_core.evaluation.matching import (
    BoolArray,
    average_precision,
    chamfer_distances,
    match_predictions,
    sample_lines,
)
from gsmap_core.evaluation.pool import MatchPool, tables_of
from gsmap_core.evaluation.protocols import (
    DEFAULT_THRESHOLDS_M,
    Protocol,
    check_thresholds,
    line_of,
    protocol_by_name,
    simplified,
)
from gsmap_core.structures import FloatArray, VectorMap


@dataclass(frozen=True)
class ChamferResult(FrameResult):
    """Average precision of a set of frames.

    Args:
        protocol: name of the protocol.
        thresholds_m: chamfer distances up to which a prediction is right [m].
        ap: AP by category and threshold, 0 to 1.
        recall: share of the ground truth found, by category and threshold.
        num_ground_truth: elements, by category.
        num_predictions: elements, by category.
        num_true_positives: matched predictions, by category and threshold.
        num_dims: 2, distances in the plane, or 3, in space.
    """

    protocol: str
    thresholds_m: tuple[float, ...]
    ap: dict[str, dict[float, float]]
    recall: dict[str, dict[float, float]]
    num_ground_truth: dict[str, int]
    num_predictions: dict[str, int]
    num_true_positives: dict[str, dict[float, int]]
    num_dims: int = 2

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in the order they were asked for."""
        return tuple(self.ap)

    @property
    def per_category(self) -> dict[str, float]:
        """AP of each category, mean over the thresholds."""
        return {name: float(np.mean(list(values.values()))) for name, values in self.ap.items()}

    @property
    def per_threshold(self) -> dict[float, float]:
        """AP at each threshold, mean over the categories."""
        return {
            threshold: float(np.mean([values[threshold] for values in self.ap.values()]))
            for threshold in self.thresholds_m
        }

    @property
    def mean_ap(self) -> float:
        """Mean over categories and thresholds; a category without ground truth counts as 0."""
        return float(np.mean(list(self.per_category.values())))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; thresholds become text keys (`0.5`)."""

        def by_threshold(table: dict[float, Any]) -> dict[str, Any]:
            return {f'{threshold:g}': value for threshold, value in table.items()}

        return {
            'metric': 'chamfer',
            'protocol': self.protocol,
            'num_dims': self.num_dims,
            **self.frames_to_dict(),
            'thresholds_m': list(self.thresholds_m),
            'mean_ap': self.mean_ap,
            'per_category': self.per_category,
            'per_threshold': by_threshold(self.per_threshold),
            'categories': {
                name: {
                    'ap': by_threshold(self.ap[name]),
                    'recall': by_threshold(self.recall[name]),
                    'num_ground_truth': self.num_ground_truth[name],
                    'num_predictions': self.num_predictions[name],
                    'num_true_positives': by_threshold(self.num_true_positives[name]),
                }
                for name in self.ap
            },
        }


@dataclass
class ChamferEvaluator(FrameEvaluator):
    """Collects frames one by one and gives the average precision of all of them, or of one scene.

    Args:
        categories: names of the categories to score; elements of others are left out.
        thresholds_m: chamfer distances up to which a prediction is right [m].
        protocol: `maptr`, `maptr_v2` or `streammapnet`.
        num_dims: 2: distances in the plane; 3: in space, and every element needs heights.
        simplify_m: thins out the ground truth of maps [m], 0: not at all; None: as the protocol
            does.

    Raises:
        ConfigError: a category or the protocol is unknown, there is no threshold, or no such
            number of dimensions.
    """

    thresholds_m: tuple[float, ...] = DEFAULT_THRESHOLDS_M
    protocol: str = 'maptr'
    num_dims: int = 2
    simplify_m: float | None = None
    _rules: Protocol = field(init=False, repr=False)
    _pool: MatchPool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        self.thresholds_m = check_thresholds(self.thresholds_m)
        if self.num_dims not in (2, 3):
            raise ConfigError(f'num_dims {self.num_dims}; expected 2 or 3')
        self._rules = protocol_by_name(self.protocol)
        self._pool = MatchPool(self.categories, len(self.thresholds_m))
        if self.simplify_m is None:
            self.simplify_m = self._rules.simplify_m

    def add(self, prediction: VectorMap, ground_truth: VectorMap) -> None:
        """Match one frame.

        Raises:
            DataError: the two maps have different references or ranges, a predicted element has no
                score, or one has no heights where they are needed.
        """
        scene, key = self._frames.add(prediction, ground_truth), frame_key(ground_truth)
        ids = {category_by_name(name).id: name for name in self.categories}
        predicted = [element for element in prediction.elements if element.category in ids]
        true = [element for element in ground_truth.elements if element.category in ids]
        kinds = [np.array([e.category for e in side], dtype=int) for side in (predicted, true)]
        # All categories at once: fewer and larger arrays.
        distances = self._distances(
            [line_of(element, self.num_dims) for element in predicted],
            [
                simplified(line_of(element, self.num_dims), self.simplify_m or 0.0)
                for element in true
            ],
            kinds[0][:, None] == kinds[1],
        )
        scores = np.array([element.score for element in predicted], dtype=np.float64)
        for number, name in ids.items():
            rows, columns = (np.flatnonzero(kind == number) for kind in kinds)
            matched = match_predictions(
                distances[rows[:, None], columns], scores[rows], self.thresholds_m
            )
            self._pool.add(name, scores[rows], matched, len(columns), scene, key)

    def add_lines(
        self,
        category: str,
        predictions: Sequence[npt.ArrayLike],
        scores: Sequence[float],
        ground_truth: Sequence[npt.ArrayLike],
        scene: str = '',
        frame: str = '',
    ) -> BoolArray:
        """Match one category of one frame given as plain lines; call once per category and frame.

        Args:
            category: its name.
            predictions: (V, D) vertices each [m], D is `num_dims`; rings repeat their first
                vertex; lines with fewer than two vertices are dropped, as the published
                evaluators do.
            scores: confidence of each prediction.
            ground_truth: (V, D) vertices each [m], V >= 2; not thinned out here.
            scene: the frame's scene.
            frame: what the frame is called.

        Returns:
            (T, M) bool: which of the predictions that were kept are right at each threshold.
        """
        kept = [i for i, line in enumerate(predictions) if len(np.asarray(line)) >= 2]
        lines = [np.asarray(predictions[i], dtype=np.float64) for i in kept]
        kept_scores = np.array([scores[i] for i in kept], dtype=np.float64)
        distances = self._distances(lines, ground_truth)
        matched = match_predictions(distances, kept_scores, self.thresholds_m)
        self._pool.add(category, kept_scores, matched, len(ground_truth), scene, frame)
        return matched

    def _distances(
        self,
        lines: Sequence[FloatArray],
        ground_truth: Sequence[npt.ArrayLike],
        allowed: BoolArray | None = None,
    ) -> FloatArray:
        """Return (M, G) distances of predicted and true lines [m], infinity where out of reach."""
        rules = self._rules
        sampled = sample_lines(lines, rules.num_points, self.num_dims)
        if rules.keep_sampled_predictions:
            for target, line in zip(sampled, lines, strict=True):
                if len(line) == rules.num_points:
                    target[:] = line
        return chamfer_distances(
            sampled,
            sample_lines(ground_truth, rules.num_points, self.num_dims),
            gate_m=rules.gate_m,
            max_distance_m=max(self.thresholds_m),
            allowed=allowed,
        )

    def merge(self, other: Self) -> None:
        """Append the frames of an evaluator with the same settings; they follow those here.

        Raises:
            DataError: its frames have another reference or range.
        """
        super().merge(other)
        self._pool.merge(other._pool)

    def frame_scores(self) -> list[tuple[str, str, float]]:
        """Return scene, frame and AP of every frame that has ground truth."""
        return list(self._pool.frame_scores())

    def result(self, scene: str | None = None) -> ChamferResult:
        """Return the average precision over the frames added so far.

        Args:
            scene: only the frames of this scene; None: all.
        """
        return ChamferResult(
            protocol=self.protocol,
            thresholds_m=self.thresholds_m,
            **tables_of(self._pool, self.thresholds_m, scene, self._rules.dtype),
            **self._seen(scene),
            num_dims=self.num_dims,
        )

    def curve(self, category: str, threshold_m: float) -> tuple[FloatArray, FloatArray]:
        """Return (M,) recall and (M,) precision of one category at one of the thresholds."""
        flags, total = self._pool.pooled(category)
        _, recall, precision = average_precision(
            flags[self.thresholds_m.index(threshold_m)], total
        )
        return recall, precision


def chamfer_average_precision(
    predictions: Iterable[VectorMap],
    ground_truth: Iterable[VectorMap],
    categories: Sequence[str] = PAPER_CATEGORIES,
    thresholds_m: Sequence[float] = DEFAULT_THRESHOLDS_M,
    protocol: str = 'maptr',
    missing: Literal['error', 'empty'] = 'error',
) -> ChamferResult:
    """Return the chamfer average precision of predictions against ground truth.

    Args:
        predictions: local maps with scores.
        ground_truth: local maps of the same frames, matched by sample id, else by stamp.
        categories: names of the categories to score.
        thresholds_m: chamfer distances up to which a prediction is right [m].
        protocol: `maptr`, `maptr_v2` or `streammapnet`.
        missing: ground-truth frames without prediction are an `error`, or count as `empty`
            predictions.

    Raises:
        DataError: frames do not match, references or ranges differ, or a prediction has no score.
        ConfigError: a category or the protocol is unknown.
    """
    evaluator = ChamferEvaluator(tuple(categories), tuple(thresholds_m), protocol)
    for prediction, truth in pair_frames(predictions, ground_truth, missing):
        evaluator.add(prediction, truth)
    return evaluator.result()
