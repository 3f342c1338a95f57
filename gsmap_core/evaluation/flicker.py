"""Flicker: predicted elements that come, go or change their id while the true element stays.

In every frame true elements are paired with predictions. From one frame to the next, a true
element that stays in range causes one event if it was not found and now is (a birth), was found
and no longer is (a death), or is found under another id (an id change). Events are counted per
pair of consecutive frames. A model that finds nothing has none, so that the share of elements
found belongs to the number. Pairs are kept from frame to frame as long as they are close enough,
as CLEAR MOT has it: two predictions for one line are no id change. Source: Bernardin and
Stiefelhagen, "Evaluating multiple object tracking performance: the CLEAR MOT metrics", sec.
2.1.3 (keeping pairs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from scipy.optimize import linear_sum_assignment

from gsmap_core.categories import category_by_name
from gsmap_core.errors import DataError
from gsmap_core.evaluation.bev_iou import DEFAULT_MIN_SCORE
from gsmap_core.evaluation.frame_metric import FrameEvaluator, FrameResult
from gsmap_core.evaluation.frames import frame_key
from gsmap_core.evaluation.identities import ElementLinker, SideIdentities
from gsmap_core.evaluation.lateral import (
    SceneSums,
    inside_range,
    moved_in_plane,
    plain,
    points_along,
    ratio,
)
from gsmap_core.evaluation.matching import chamfer_distances, sample_lines
from gsmap_core.geometry.transforms import invert
from gsmap_core.structures import FloatArray, MapElement, VectorMap

#: Greatest chamfer distance of a true element and its prediction [m]: the widest that AP allows.
DEFAULT_MAX_DISTANCE_M = 1.5
#: Samples per line, as MapTR's evaluator takes.
_NUM_POINTS = 100
#: Half metres that an element must have where both frames looked, to stay in range.
_MIN_POINTS = 4


@dataclass(frozen=True)
class FlickerResult(FrameResult):
    """Events by category; NaN where no two consecutive frames were compared.

    Args:
        births: found now, not found in the frame before.
        deaths: not found now, found in the frame before.
        id_changes: found in both under different ids.
        num_elements: true elements that stayed in range, over all pairs of frames.
        num_found: those of them that were found in the later frame.
        num_frame_pairs: consecutive frames compared.
        num_without_pose: frames that were passed over because they have no pose.
        are_linked: whether the ids of the predictions were made here.
        max_distance_m: greatest chamfer distance of a true element and its prediction [m].
        min_score: predictions with a lower score were left out.
    """

    births: dict[str, int]
    deaths: dict[str, int]
    id_changes: dict[str, int]
    num_elements: dict[str, int]
    num_found: dict[str, int]
    num_frame_pairs: int
    num_without_pose: int
    are_linked: bool
    max_distance_m: float
    min_score: float

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in the order they were asked for."""
        return tuple(self.births)

    @property
    def per_category(self) -> dict[str, float]:
        """Events per frame of each category."""
        return {
            name: ratio(
                self.births[name] + self.deaths[name] + self.id_changes[name],
                self.num_frame_pairs,
            )
            for name in self.categories
        }

    @property
    def flicker_per_frame(self) -> float:
        """Events per frame, all categories together."""
        return float(sum(self.per_category.values()))

    @property
    def found(self) -> dict[str, float]:
        """Share of the elements in range that were found, by category."""
        return {
            name: ratio(self.num_found[name], self.num_elements[name]) for name in self.categories
        }

    @property
    def found_overall(self) -> float:
        """Share of the elements in range that were found, all categories together."""
        return ratio(sum(self.num_found.values()), sum(self.num_elements.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; null instead of NaN."""
        return {
            'metric': 'flicker',
            'max_distance_m': self.max_distance_m,
            'min_score': self.min_score,
            **self.frames_to_dict(),
            'linked': ['predictions'] if self.are_linked else [],
            'num_frame_pairs': self.num_frame_pairs,
            'num_without_pose': self.num_without_pose,
            'flicker_per_frame': plain(self.flicker_per_frame),
            'found': plain(self.found_overall),
            'per_category': {name: plain(value) for name, value in self.per_category.items()},
            'categories': {
                name: {
                    'births': self.births[name],
                    'deaths': self.deaths[name],
                    'id_changes': self.id_changes[name],
                    'found': plain(self.found[name]),
                    'num_elements': self.num_elements[name],
                }
                for name in self.categories
            },
        }


@dataclass(frozen=True)
class _Before:
    """The frame before: its true elements by identity, and the predicted id of each one found."""

    truth: VectorMap
    pose: FloatArray
    lines: dict[str, dict[int, FloatArray]]
    found: dict[str, dict[int, int]]


@dataclass
class FlickerEvaluator(FrameEvaluator):
    """Collects the frames of scenes, in their order, and counts what comes, goes or changes.

    True elements are followed by linking them from frame to frame, whether they have ids or not:
    a true element that the range cuts into pieces has one id for all of them. Ids of predictions
    are those of the file; if it has none they are made as MapTracker makes them.

    Args:
        categories: names of the categories to score; elements of others are left out.
        min_score: predictions with a lower score are left out.
        max_distance_m: greatest chamfer distance of a true element and its prediction [m].

    Raises:
        ConfigError: a category is unknown.
    """

    min_score: float = DEFAULT_MIN_SCORE
    max_distance_m: float = DEFAULT_MAX_DISTANCE_M
    _sums: SceneSums = field(init=False, repr=False)
    _counts: SceneSums = field(init=False, repr=False)
    _before: dict[str, _Before] = field(init=False, repr=False, default_factory=dict)
    _predicted: SideIdentities = field(init=False, repr=False)
    _true: dict[tuple[str, str], ElementLinker] = field(
        init=False, repr=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        # Births, deaths, id changes, elements that stayed, found; frame pairs, frames passed.
        self._sums, self._counts = SceneSums((5,)), SceneSums((2,))
        self._predicted = SideIdentities('predictions', ElementLinker.of_predictions)

    def add(self, prediction: VectorMap, ground_truth: VectorMap) -> None:
        """Pair the next frame of its scene and compare it with the one before.

        Raises:
            DataError: the two maps have different references or ranges, a predicted element has no
                score, some have ids and others none, or the maps are not in the ego frame.
        """
        scene = self._frames.add(prediction, ground_truth)
        if ground_truth.reference != 'ego':
            raise DataError(
                f"frame '{frame_key(ground_truth)}': maps in the '{ground_truth.reference}' "
                'frame; expected the ego frame, which map_from_base moves'
            )
        pose = ground_truth.map_from_base
        pose = prediction.map_from_base if pose is None else pose
        before = self._before.pop(scene, None)
        if pose is None:
            self._counts.add('', scene, (0, 1))
            return
        truth = replace(ground_truth, map_from_base=pose)
        shown = tuple(e for e in prediction.elements if (e.score or 0.0) >= self.min_score)
        prediction = replace(prediction, elements=shown, map_from_base=pose)
        lines: dict[str, dict[int, FloatArray]] = {}
        found: dict[str, dict[int, int]] = {}
        for name in self.categories:
            true = truth.of_category(category_by_name(name).id)
            linker = self._true.setdefault((name, scene), ElementLinker.of_ground_truth(name))
            lines[name] = {
                number: element.loop_xy()
                for number, element in zip(linker.link(true, truth), true, strict=True)
            }
            elements, ids = self._predicted.of(name, prediction, scene)
            kept = {} if before is None else before.found[name]
            found[name] = self._pairs(lines[name], elements, ids, kept)
        current = _Before(truth, pose, lines, found)
        self._before[scene] = current
        if before is not None:
            self._counts.add('', scene, (1, 0))
            for name in self.categories:
                self._sums.add(name, scene, _events(name, before, current))

    def _pairs(
        self,
        true: Mapping[int, FloatArray],
        elements: Sequence[MapElement],
        ids: Sequence[int],
        before: Mapping[int, int],
    ) -> dict[int, int]:
        """Return the predicted id of every true element that was found.

        Args:
            true: lines by identity.
            elements: predictions of the same category.
            ids: their identities.
            before: the pairs of the frame before, which stay as long as they are close enough.
        """
        if not true or not elements:
            return {}
        numbers = list(true)
        distances = chamfer_distances(
            sample_lines([true[number] for number in numbers], _NUM_POINTS),
            sample_lines([element.loop_xy() for element in elements], _NUM_POINTS),
            max_distance_m=self.max_distance_m,
        )
        pairs: dict[int, int] = {}
        for row, number in enumerate(numbers):
            same = [column for column, id in enumerate(ids) if id == before.get(number)]
            column = min(same, key=lambda place: distances[row, place], default=-1)
            if column >= 0 and np.isfinite(distances[row, column]):
                pairs[number] = ids[column]
                distances[row, :] = distances[:, column] = np.inf
        # One left alone costs as much as the farthest pair that is allowed.
        rows, columns = linear_sum_assignment(np.minimum(distances, self.max_distance_m))
        for row, column in zip(rows, columns, strict=True):
            if np.isfinite(distances[row, column]):
                pairs[numbers[row]] = ids[column]
        return pairs

    def merge(self, other: Self) -> None:
        """Add the scenes of an evaluator with the same settings; none may be in both.

        Raises:
            DataError: its frames have another reference or range, or one has ids and one has none.
        """
        self._predicted.merge(other._predicted, next(iter(other.scenes), ''))
        super().merge(other)
        self._sums.merge(other._sums)
        self._counts.merge(other._counts)

    def result(self, scene: str | None = None) -> FlickerResult:
        """Return the events of the frames added so far.

        Args:
            scene: only the frames of this scene; None: all.
        """
        totals = {name: self._sums.total(name, scene) for name in self.categories}
        births, deaths, id_changes, num_elements, num_found = (
            {name: int(total[index]) for name, total in totals.items()} for index in range(5)
        )
        compared, passed = self._counts.total('', scene)
        return FlickerResult(
            births=births,
            deaths=deaths,
            id_changes=id_changes,
            num_elements=num_elements,
            num_found=num_found,
            num_frame_pairs=int(compared),
            num_without_pose=int(passed),
            are_linked=self._predicted.are_made,
            max_distance_m=self.max_distance_m,
            min_score=self.min_score,
            **self._seen(scene),
        )


def _events(category: str, before: _Before, current: _Before) -> FloatArray:
    """Return births, deaths, id changes, elements that stayed in range and those of them found."""
    motion = invert(current.pose) @ before.pose
    totals = np.zeros(5)
    for number, line in before.lines[category].items():
        if number not in current.lines[category]:
            continue
        points = moved_in_plane(motion, points_along(line)[0])
        if inside_range(points, current.truth.range).sum() < _MIN_POINTS:
            continue
        then, now = (frame.found[category].get(number) for frame in (before, current))
        totals += (
            then is None and now is not None,
            then is not None and now is None,
            then is not None and now is not None and then != now,
            1,
            now is not None,
        )
    return totals
