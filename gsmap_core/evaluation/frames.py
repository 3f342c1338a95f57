"""Frames of an evaluation: which prediction belongs to which ground truth, and what was seen.

Shared by all metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gsmap_core.errors import DataError
from gsmap_core.structures import PerceptionRange, VectorMap


@dataclass
class FrameLog:
    """Checks every frame that a metric takes and counts them by scene.

    Args:
        reference: frame that the elements are given in, as of the first frame seen.
        range: extent that the maps cover [m], as of the first frame seen; None: no frame was seen.
    """

    reference: str = 'ego'
    range: PerceptionRange | None = None
    _counts: Counter[str] = field(init=False, repr=False, default_factory=Counter)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Scenes seen so far, in order."""
        return tuple(self._counts)

    def count(self, scene: str | None = None) -> int:
        """Return the number of frames of a scene; None: of all."""
        return self._counts.total() if scene is None else self._counts[scene]

    def add(self, prediction: VectorMap, ground_truth: VectorMap) -> str:
        """Count one frame; return its scene.

        Raises:
            DataError: the two maps have different references or ranges, or others than the frames
                before, or a predicted element has no score.
        """
        self._check(prediction, ground_truth)
        for element in prediction.elements:
            if element.score is None:
                raise DataError(
                    f"frame '{frame_key(prediction)}': predicted '{element.category_name}' has "
                    f'no score; predictions '
                    'need one (were prediction and ground truth swapped?)'
                )
        if self.range is None:
            self.range, self.reference = ground_truth.range, ground_truth.reference
        scene = ground_truth.scene or prediction.scene
        self._counts[scene] += 1
        return scene

    def merge(self, other: FrameLog) -> None:
        """Count the frames of another log as well.

        Raises:
            DataError: they have another reference or range.
        """
        if other.range is None:
            return
        if self.range is None:
            self.range, self.reference = other.range, other.reference
        elif self.reference != other.reference or not _same_range(self.range, other.range):
            raise DataError(
                f"scene '{next(iter(other.scenes), '')}': '{other.reference}', {other.range} "
                f"differs from the frames before ('{self.reference}', {self.range}); expected one "
                'reference and range in one evaluation'
            )
        self._counts.update(other._counts)

    def _check(self, prediction: VectorMap, ground_truth: VectorMap) -> None:
        where = f"frame '{frame_key(ground_truth)}'"
        if prediction.reference != ground_truth.reference:
            raise DataError(
                f"{where}: prediction is given in '{prediction.reference}', ground truth in "
                f"'{ground_truth.reference}'; expected the same reference frame"
            )
        if not _same_range(prediction.range, ground_truth.range):
            raise DataError(
                f'{where}: prediction covers {prediction.range}, ground truth '
                f'{ground_truth.range}; expected the same range'
            )
        if self.range is None:
            return
        if self.reference != ground_truth.reference or not _same_range(
            self.range, ground_truth.range
        ):
            raise DataError(
                f"{where}: '{ground_truth.reference}', {ground_truth.range} differs from the "
                f'frames before '
                f"('{self.reference}', {self.range}); expected one reference and range in one "
                f'evaluation'
            )


def _same_range(first: PerceptionRange, second: PerceptionRange) -> bool:
    # Messages carry the range as float32.
    return np.allclose(
        [first.x_min, first.x_max, first.y_min, first.y_max],
        [second.x_min, second.x_max, second.y_min, second.y_max],
        rtol=0.0,
        atol=1e-3,
    )


def frame_key(vector_map: VectorMap) -> str:
    """Return what identifies a frame: its sample id, else its stamp."""
    return vector_map.sample_id or str(vector_map.stamp_ns)


def pair_frames(
    predictions: Iterable[VectorMap],
    ground_truth: Iterable[VectorMap],
    missing: Literal['error', 'empty'] = 'error',
) -> list[tuple[VectorMap, VectorMap]]:
    """Pair predictions with ground truth by sample id.

    Where there is no id the stamp is used; where ids repeat, the scene too.

    Args:
        predictions: predicted local maps.
        ground_truth: their ground truth.
        missing: what a ground-truth frame without prediction means: an error, or a frame in which
            nothing was predicted.

    Returns:
        Pairs in the order of the ground truth.

    Raises:
        DataError: a frame occurs twice, or has no counterpart; the message lists the frames.
    """
    predicted, truth = list(predictions), list(ground_truth)
    keys = [[frame_key(item) for item in side] for side in (predicted, truth)]
    if any(len(set(side)) < len(side) for side in keys):
        keys = [
            [f'{item.scene}/{frame_key(item)}' if item.scene else frame_key(item) for item in side]
            for side in (predicted, truth)
        ]
    for side, name in zip(keys, ('predictions', 'ground truth'), strict=True):
        twice = [key for key, count in Counter(side).items() if count > 1]
        if twice:
            raise DataError(
                f'{name}: {_listed(twice)} occur twice; expected unique frame ids (or stamps)'
            )
    by_key = dict(zip(keys[0], predicted, strict=True))
    without_truth = [key for key in keys[0] if key not in set(keys[1])]
    without_prediction = [key for key in keys[1] if key not in by_key]
    problems = []
    if without_truth:
        problems.append(f'predictions without ground truth: {_listed(without_truth)}')
    if without_prediction and missing == 'error':
        problems.append(f'ground truth without prediction: {_listed(without_prediction)}')
    if problems:
        raise DataError(
            f'frames do not match; {"; ".join(problems)}; expected the same frames on both sides '
            f'(a frame without '
            'elements is written with an empty list)'
        )
    pairs = []
    for key, item in zip(keys[1], truth, strict=True):
        empty = VectorMap(
            (), item.stamp_ns, item.range, item.reference, item.sample_id, item.scene
        )
        pairs.append((by_key.get(key, empty), item))
    return pairs


def _listed(keys: Sequence[str], limit: int = 10) -> str:
    shown = ', '.join(f"'{key}'" for key in keys[:limit])
    return shown if len(keys) <= limit else f'{shown} and {len(keys) - limit} more'


def range_dict(limits: PerceptionRange | None) -> dict[str, Any] | None:
    """Return an extent as plain values for JSON [m]."""
    if limits is None:
        return None
    return {'x': [limits.x_min, limits.x_max], 'y': [limits.y_min, limits.y_max]}
