"""Temporal stability: how far predicted elements move in the map between consecutive frames.

The elements of a frame are moved into the next one by the vehicle's motion. Where both frames
looked, an element of one is compared with an element of the other: the distance between the two
lines, over the points of both, is their jitter. Elements are assigned to each other so that the
jitters add up to the least; farther apart than the limit they are not the same element. A world
that stands still and a perfect model give zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from scipy.optimize import linear_sum_assignment

from gsmap_core.categories import category_by_name
from gsmap_core.errors import DataError
from gsmap_core.evaluation.bev_iou import DEFAULT_MIN_SCORE
from gsmap_core.evaluation.frame_metric import FrameEvaluator, FrameResult
from gsmap_core.evaluation.frames import frame_key
from gsmap_core.evaluation.lateral import (
    SceneSums,
    distances_to_lines,
    inside_range,
    mean_of_known,
    moved_in_plane,
    plain,
    points_along,
    ratio,
)
from gsmap_core.geometry.transforms import invert
from gsmap_core.structures import FloatArray, VectorMap

DEFAULT_MAX_JITTER_M = 1.5
#: Points that an element must have where both frames looked, to be compared.
_MIN_POINTS = 4


@dataclass(frozen=True)
class StabilityResult(FrameResult):
    """Movement of elements in the map frame; NaN for a category that was never compared.

    Args:
        jitter_m: mean distance between an element and itself a frame later, by category [m].
        jitter_rms_m: root mean square over the elements, by category [m].
        kept: share of the elements that were found again, by category.
        num_pairs: elements compared, by category.
        num_frame_pairs: consecutive frames compared.
        num_without_pose: frames that were passed over because they have no pose.
        max_jitter_m: elements farther apart are not the same [m].
        min_score: predictions with a lower score were left out.
    """

    jitter_m: dict[str, float]
    jitter_rms_m: dict[str, float]
    kept: dict[str, float]
    num_pairs: dict[str, int]
    num_frame_pairs: int
    num_without_pose: int
    max_jitter_m: float
    min_score: float

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in the order they were asked for."""
        return tuple(self.jitter_m)

    @property
    def per_category(self) -> dict[str, float]:
        """Mean jitter of each category [m]."""
        return self.jitter_m

    @property
    def mean(self) -> float:
        """Mean jitter over the categories that have one [m]."""
        return mean_of_known(list(self.jitter_m.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; null instead of NaN."""
        return {
            'metric': 'stability',
            'max_jitter_m': self.max_jitter_m,
            'min_score': self.min_score,
            **self.frames_to_dict(),
            'num_frame_pairs': self.num_frame_pairs,
            'num_without_pose': self.num_without_pose,
            'mean': plain(self.mean),
            'per_category': {name: plain(value) for name, value in self.jitter_m.items()},
            'categories': {
                name: {
                    'jitter_m': plain(self.jitter_m[name]),
                    'jitter_rms_m': plain(self.jitter_rms_m[name]),
                    'kept': plain(self.kept[name]),
                    'num_pairs': self.num_pairs[name],
                }
                for name in self.jitter_m
            },
        }


@dataclass
class StabilityEvaluator(FrameEvaluator):
    """Collects the frames of scenes, in their order, and gives the jitter of their predictions.

    Args:
        categories: names of the categories to score; elements of others are left out.
        max_jitter_m: elements farther apart are not the same [m].
        min_score: predictions with a lower score are left out.

    Raises:
        ConfigError: a category is unknown.
    """

    max_jitter_m: float = DEFAULT_MAX_JITTER_M
    min_score: float = DEFAULT_MIN_SCORE
    _sums: SceneSums = field(init=False, repr=False)
    _counts: SceneSums = field(init=False, repr=False)
    _previous: dict[str, VectorMap] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        # Elements compared, found again, their jitters and squares; frame pairs, frames passed.
        self._sums, self._counts = SceneSums((4,)), SceneSums((2,))

    def add(self, prediction: VectorMap, ground_truth: VectorMap) -> None:
        """Compare the next frame of its scene with the one before.

        The ground truth is only checked to be of the same frame; its pose serves where the
        prediction has none.

        Raises:
            DataError: the two maps have different references or ranges, a predicted element has no
                score, or the maps are not in the ego frame.
        """
        scene = self._frames.add(prediction, ground_truth)
        if prediction.reference != 'ego':
            raise DataError(
                f"frame '{frame_key(prediction)}': maps in the '{prediction.reference}' frame; "
                'expected the ego frame, which map_from_base moves'
            )
        pose = prediction.map_from_base
        pose = ground_truth.map_from_base if pose is None else pose
        before = self._previous.pop(scene, None)
        if pose is None:
            self._counts.add('', scene, (0, 1))
            return
        current = VectorMap(
            prediction.elements, prediction.stamp_ns, prediction.range, map_from_base=pose
        )
        self._previous[scene] = current
        if before is None or before.map_from_base is None:
            return
        self._counts.add('', scene, (1, 0))
        motion = invert(pose) @ before.map_from_base
        for name in self.categories:
            self._sums.add(name, scene, self._compare(name, before, current, motion))

    def _compare(
        self, category: str, before: VectorMap, current: VectorMap, motion: FloatArray
    ) -> FloatArray:
        """Return how many elements could be found again, were, and their jitters and squares."""
        lines = [self._lines(before, category), self._lines(current, category)]
        lines[0] = [moved_in_plane(motion, line) for line in lines[0]]
        back = invert(motion)
        # Points where both frames looked, of every element that has enough of them.
        seen: list[list[tuple[FloatArray, FloatArray]]] = []
        for side in lines:
            parts = [(line, points_along(line)[0]) for line in side]
            common = [
                (
                    line,
                    points[
                        inside_range(points, current.range)
                        & inside_range(moved_in_plane(back, points), current.range)
                    ],
                )
                for line, points in parts
            ]
            seen.append([(line, points) for line, points in common if len(points) >= _MIN_POINTS])
        jitter = np.full((len(seen[0]), len(seen[1])), np.inf)
        for row, (line, points) in enumerate(seen[0]):
            for column, (other, others) in enumerate(seen[1]):
                there = distances_to_lines(points, [other]).mean()
                back_again = distances_to_lines(others, [line]).mean()
                jitter[row, column] = (there + back_again) / 2
        far = jitter > self.max_jitter_m
        # Worse than any sum of allowed ones, so that as many as possible are assigned.
        cost = np.where(far, self.max_jitter_m * (1 + min(jitter.shape)), jitter)
        pairs = linear_sum_assignment(cost)
        values = jitter[pairs][~far[pairs]]
        return np.array([len(seen[0]), len(values), values.sum(), np.square(values).sum()])

    def _lines(self, frame: VectorMap, category: str) -> list[FloatArray]:
        return [
            element.loop_xy()
            for element in frame.of_category(category_by_name(category).id)
            if (element.score or 0.0) >= self.min_score
        ]

    def merge(self, other: Self) -> None:
        """Add the scenes of an evaluator with the same settings; none may be in both.

        Raises:
            DataError: its frames have another reference or range.
        """
        super().merge(other)
        self._sums.merge(other._sums)
        self._counts.merge(other._counts)

    def result(self, scene: str | None = None) -> StabilityResult:
        """Return the jitter over the frames added so far.

        Args:
            scene: only the frames of this scene; None: all.
        """
        totals = {name: self._sums.total(name, scene) for name in self.categories}
        compared, passed = self._counts.total('', scene)
        return StabilityResult(
            jitter_m={name: ratio(t[2], t[1]) for name, t in totals.items()},
            jitter_rms_m={name: float(np.sqrt(ratio(t[3], t[1]))) for name, t in totals.items()},
            kept={name: ratio(t[1], t[0]) for name, t in totals.items()},
            num_pairs={name: int(t[1]) for name, t in totals.items()},
            num_frame_pairs=int(compared),
            num_without_pose=int(passed),
            max_jitter_m=self.max_jitter_m,
            min_score=self.min_score,
            **self._seen(scene),
        )
