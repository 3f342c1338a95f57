"""Consistency-aware average precision of tracked elements, as MapTracker's evaluator computes it.

A prediction is right if it is right in its frame (StreamMapNet's chamfer rules: 200 points, no
gate) and carries the identity that was first matched to its true element in this scene; a right
prediction of another identity becomes a wrong one. `plain` is the same without identities.
Peculiar to the published program: a frame without ground truth of a category adds nothing for it,
so that predictions there are not wrong; and an element keeps the identity that claimed it first,
for the whole scene. Source: MapTracker, `calculate_cmap.py` (reference-model facts 6.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gsmap_core.evaluation.chamfer import ChamferResult
from gsmap_core.evaluation.frame_metric import FrameEvaluator
from gsmap_core.evaluation.frames import frame_key
from gsmap_core.evaluation.identities import ElementLinker, SideIdentities
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
    check_thresholds,
    line_of,
    protocol_by_name,
    simplified,
)
from gsmap_core.structures import FloatArray, VectorMap

_NUM_POINTS = 200
#: Ground truth is first brought to the number of points that a model is trained with.
_NUM_TRUE_POINTS = 20
#: Predictions without identities below this score are left out before they are linked.
MIN_LINKED_SCORE = 0.4


@dataclass(frozen=True)
class ConsistencyResult(ChamferResult):
    """Consistency-aware average precision of a set of frames.

    Args:
        plain: the same predictions scored without their identities.
        linked: `predictions` or `ground truth`, where their identities were made here.
    """

    plain: ChamferResult | None = None
    linked: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = super().to_dict() | {'metric': 'consistency', 'linked': list(self.linked)}
        if self.plain is not None:
            plain = self.plain.to_dict()
            values['plain'] = {
                key: plain[key]
                for key in ('mean_ap', 'per_category', 'per_threshold', 'categories')
            }
        return values


@dataclass
class ConsistencyEvaluator(FrameEvaluator):
    """Collects the frames of scenes, in their order, and gives the consistency-aware AP.

    Identities are those of the files. A side whose first element has none is linked here, as
    MapTracker does for such files; predictions then need a score above `MIN_LINKED_SCORE`.

    Args:
        categories: names of the categories to score; elements of others are left out.
        thresholds_m: chamfer distances up to which a prediction is right [m].
        num_dims: 2: distances in the plane; 3: in space, and every element needs heights.
        simplify_m: thins out the ground truth of maps [m]; None: as StreamMapNet does.

    Raises:
        ConfigError: a category is unknown, or there is no threshold.
    """

    thresholds_m: tuple[float, ...] = DEFAULT_THRESHOLDS_M
    num_dims: int = 2
    simplify_m: float | None = None
    _pools: dict[str, MatchPool] = field(init=False, repr=False)
    #: By category, scene, threshold and true track: the predicted track that claimed it.
    _claims: dict[tuple[str, str, int, int], int] = field(
        init=False, repr=False, default_factory=dict
    )
    _sides: tuple[SideIdentities, SideIdentities] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        self.thresholds_m = check_thresholds(self.thresholds_m)
        if self.simplify_m is None:
            self.simplify_m = protocol_by_name('streammapnet').simplify_m
        count = len(self.thresholds_m)
        self._pools = {kind: MatchPool(self.categories, count) for kind in ('consistent', 'plain')}
        self._sides = (
            SideIdentities('predictions', ElementLinker.of_predictions, MIN_LINKED_SCORE),
            SideIdentities('ground truth', ElementLinker.of_ground_truth),
        )

    def add(self, prediction: VectorMap, ground_truth: VectorMap) -> None:
        """Match the next frame of its scene.

        Raises:
            DataError: the two maps have different references or ranges, a predicted element has no
                score, some elements have ids and others none, or ids have to be made and the maps
                have no poses.
        """
        scene, key = self._frames.add(prediction, ground_truth), frame_key(ground_truth)
        for name in self.categories:
            predicted, predicted_ids = self._sides[0].of(name, prediction, scene)
            true, true_ids = self._sides[1].of(name, ground_truth, scene)
            self.add_lines(
                name,
                [line_of(element, self.num_dims) for element in predicted],
                [element.score or 0.0 for element in predicted],
                predicted_ids,
                [
                    simplified(line_of(element, self.num_dims), self.simplify_m or 0.0)
                    for element in true
                ],
                true_ids,
                scene=scene,
                frame=key,
            )

    def add_lines(
        self,
        category: str,
        predictions: Sequence[npt.ArrayLike],
        scores: Sequence[float],
        predicted_ids: Sequence[int],
        ground_truth: Sequence[npt.ArrayLike],
        true_ids: Sequence[int],
        scene: str = '',
        frame: str = '',
    ) -> BoolArray:
        """Match one category of the next frame of a scene, given as plain lines.

        Args:
            category: its name.
            predictions: (V, D) vertices each [m], V >= 2.
            scores: confidence of each prediction.
            predicted_ids: identity of each prediction within the scene.
            ground_truth: (V, D) vertices each [m]; not thinned out here.
            true_ids: identity of each true element within the scene.
            scene: the frame's scene.
            frame: what the frame is called.

        Returns:
            (T, M) bool: which predictions are right and consistent at each threshold.
        """
        if not len(ground_truth):
            return np.zeros((len(self.thresholds_m), len(predictions)), dtype=bool)
        coarse = sample_lines(ground_truth, _NUM_TRUE_POINTS, self.num_dims)
        truth = sample_lines(list(coarse), _NUM_POINTS, self.num_dims)
        distances = chamfer_distances(
            sample_lines(predictions, _NUM_POINTS, self.num_dims),
            truth,
            max_distance_m=max(self.thresholds_m),
        )
        plain = match_predictions(distances, scores, self.thresholds_m)
        consistent = plain.copy()
        for level, row in enumerate(consistent):
            for index in np.flatnonzero(row):
                track = true_ids[int(distances[index].argmin())]
                owner = self._claims.setdefault(
                    (category, scene, level, track), predicted_ids[index]
                )
                row[index] = owner == predicted_ids[index]
        confidence = np.asarray(scores, dtype=np.float64)
        for kind, flags in (('consistent', consistent), ('plain', plain)):
            self._pools[kind].add(category, confidence, flags, len(ground_truth), scene, frame)
        return consistent

    def merge(self, other: Self) -> None:
        """Append the scenes of an evaluator with the same settings; none may be in both.

        Raises:
            DataError: its frames have another reference or range, or one has ids and one has none.
        """
        for side, others in zip(self._sides, other._sides, strict=True):
            side.merge(others, next(iter(other.scenes), ''))
        super().merge(other)
        for kind, pool in self._pools.items():
            pool.merge(other._pools[kind])

    def result(self, scene: str | None = None) -> ConsistencyResult:
        """Return the average precision over the frames added so far.

        Args:
            scene: only the frames of this scene; None: all.
        """
        common: dict[str, Any] = {
            'protocol': 'maptracker',
            'thresholds_m': self.thresholds_m,
            **self._seen(scene),
            'num_dims': self.num_dims,
        }
        tables = {
            kind: tables_of(pool, self.thresholds_m, scene) for kind, pool in self._pools.items()
        }
        return ConsistencyResult(
            **common,
            **tables['consistent'],
            plain=ChamferResult(**common, **tables['plain']),
            linked=tuple(side.side for side in self._sides if side.are_made),
        )

    def curve(self, category: str, threshold_m: float) -> tuple[FloatArray, FloatArray]:
        """Return (M,) recall and (M,) precision of one category at one of the thresholds."""
        flags, total = self._pools['consistent'].pooled(category)
        level = self.thresholds_m.index(threshold_m)
        _, recall, precision = average_precision(flags[level], total)
        return recall, precision
