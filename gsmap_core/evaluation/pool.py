"""Matches of all frames of a set, kept by category until a curve is drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gsmap_core.evaluation.matching import BoolArray, average_precision, pool_by_score
from gsmap_core.structures import FloatArray


@dataclass(frozen=True)
class FrameMatches:
    """What is kept of one category in one frame.

    Args:
        scene: the frame's scene.
        scores: (m,) confidences.
        true_positives: (T, m) which predictions are right at each threshold.
        num_ground_truth: elements that could have been found.
        frame: what the frame is called.
    """

    scene: str
    scores: FloatArray
    true_positives: BoolArray
    num_ground_truth: int
    frame: str = ''


@dataclass
class MatchPool:
    """Matches by category; equal scores keep the order in which they were added.

    Args:
        categories: names, in the order of reports.
        num_thresholds: T.
    """

    categories: tuple[str, ...]
    num_thresholds: int
    _records: dict[str, list[FrameMatches]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self._records = {name: [] for name in self.categories}

    def add(
        self,
        category: str,
        scores: FloatArray,
        true_positives: BoolArray,
        num_ground_truth: int,
        scene: str = '',
        frame: str = '',
    ) -> None:
        """Keep the matches of one category of one frame; predictions in any order."""
        # Pooled sorting is stable: predictions of one frame enter in the order in which they were
        # matched.
        order = np.argsort(-scores, kind='stable')
        self._records[category].append(
            FrameMatches(scene, scores[order], true_positives[:, order], num_ground_truth, frame)
        )

    def merge(self, other: MatchPool) -> None:
        """Append everything of a pool whose frames follow."""
        for name, records in self._records.items():
            records += other._records[name]

    def pooled(self, category: str, scene: str | None = None) -> tuple[BoolArray, int]:
        """Return (T, M) matches in falling score order, and the number of true elements.

        Args:
            category: its name.
            scene: only the frames of this scene; None: all.
        """
        records = [r for r in self._records[category] if scene is None or r.scene == scene]
        flags = pool_by_score(
            [record.scores for record in records],
            [record.true_positives for record in records],
            self.num_thresholds,
        )
        return flags, sum(record.num_ground_truth for record in records)

    def frame_scores(self) -> Iterator[tuple[str, str, float]]:
        """Yield scene, frame and AP of every frame on its own, frames without truth left out.

        The AP is the mean over the thresholds and over the categories that the frame has.
        """
        gathered: dict[tuple[str, str], list[float]] = {}
        for records in self._records.values():
            for record in records:
                if record.num_ground_truth:
                    areas = [
                        average_precision(row, record.num_ground_truth)[0]
                        for row in record.true_positives
                    ]
                    key = record.scene, record.frame
                    gathered.setdefault(key, []).append(float(np.mean(areas)))
        for (scene, frame), values in gathered.items():
            yield scene, frame, float(np.mean(values))


def tables_of(
    pool: MatchPool, thresholds: Sequence[float], scene: str | None, dtype: str = 'float64'
) -> dict[str, Any]:
    """Return the fields that a result shares with its pool, by the names of `ChamferResult`.

    Args:
        pool: matches at these thresholds.
        thresholds: T values.
        scene: only the frames of this scene; None: all.
        dtype: precision in which the AP is returned.
    """
    tables: dict[str, dict[str, Any]] = {
        key: {}
        for key in ('ap', 'recall', 'num_true_positives', 'num_ground_truth', 'num_predictions')
    }
    for name in pool.categories:
        flags, total = pool.pooled(name, scene)
        tables['num_ground_truth'][name] = total
        tables['num_predictions'][name] = flags.shape[1]
        curves = [average_precision(row, total) for row in flags]
        tables['ap'][name] = {
            t: float(np.dtype(dtype).type(area))
            for t, (area, _, _) in zip(thresholds, curves, strict=True)
        }
        tables['recall'][name] = {
            t: float(recall[-1]) if len(recall) else 0.0
            for t, (_, recall, _) in zip(thresholds, curves, strict=True)
        }
        tables['num_true_positives'][name] = {
            t: int(row.sum()) for t, row in zip(thresholds, flags, strict=True)
        }
    return tables
