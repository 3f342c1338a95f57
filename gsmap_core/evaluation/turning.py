"""How jagged predicted lines are: turning angle per metre (what GSMap's figure 5 shows by eye)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gsmap_core.evaluation.element_pairs import matched_elements
from gsmap_core.structures import VectorMap


def turning_and_length(line: npt.ArrayLike) -> tuple[float, float]:
    """Return the sum of the absolute turning angles [rad] and the length [m] of a line.

    Args:
        line: (V, 2) vertices [m]; steps without length are passed over. A ring repeats its first
            vertex; the turn there is not counted.
    """
    steps = np.diff(np.asarray(line, dtype=np.float64), axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    steps = steps[lengths > 0]
    before, after = steps[:-1], steps[1:]
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    angles = np.arctan2(cross, (before * after).sum(axis=1))
    return float(np.abs(angles).sum()), float(lengths.sum())


class TurningEvaluator:
    """Mean turning angle per metre of the predictions that were found, and of the truth there.

    Args:
        category: name of the category.
        max_distance_m: greatest chamfer distance of a pair [m].
        min_score: predictions with a lower score are left out.
    """

    def __init__(
        self, category: str = 'boundary', max_distance_m: float = 1.5, min_score: float = 0.3
    ) -> None:
        self.category = category
        self.max_distance_m, self.min_score = max_distance_m, min_score
        self._predicted = np.zeros(2)
        self._true = np.zeros(2)
        self.num_elements = 0

    def add(self, prediction: VectorMap, truth: VectorMap) -> None:
        """Add the matched elements of one frame."""
        for predicted, true in matched_elements(
            prediction,
            truth,
            self.category,
            max_distance_m=self.max_distance_m,
            min_score=self.min_score,
        ):
            self._predicted += turning_and_length(predicted.loop_xy())
            self._true += turning_and_length(true.loop_xy())
            self.num_elements += 1

    def to_dict(self) -> dict[str, float | int | str | None]:
        """Return degrees per metre of predictions and truth; None without a matched element."""

        def degrees_per_metre(sums: np.ndarray) -> float | None:
            return float(np.degrees(sums[0]) / sums[1]) if sums[1] > 0 else None

        return {
            'category': self.category,
            'num_elements': self.num_elements,
            'predicted_deg_per_m': degrees_per_metre(self._predicted),
            'true_deg_per_m': degrees_per_metre(self._true),
        }
