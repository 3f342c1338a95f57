"""Which predicted element of a frame stands for which true one, for measures beyond AP."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gsmap_core.categories import category_by_name
from gsmap_core.evaluation.matching import chamfer_distances, match_predictions, sample_lines
from gsmap_core.structures import MapElement, VectorMap

#: Samples per line, as MapTR's evaluator takes.
_NUM_POINTS = 100


def matched_elements(
    prediction: VectorMap,
    truth: VectorMap,
    category: str,
    *,
    max_distance_m: float = 1.5,
    min_score: float = 0.3,
) -> Iterator[tuple[MapElement, MapElement]]:
    """Pair the elements of one frame and category as the chamfer AP does.

    Args:
        prediction: predicted elements.
        truth: true elements, in the same frame.
        category: name of the category.
        max_distance_m: greatest chamfer distance of a pair [m].
        min_score: predictions with a lower score are left out; those without one are kept.

    Yields:
        Predicted and true element; each true one at most once, for its best-scored prediction.
    """
    number = category_by_name(category).id
    predicted = [
        e for e in prediction.of_category(number) if e.score is None or e.score >= min_score
    ]
    true = list(truth.of_category(number))
    if not predicted or not true:
        return
    distances = chamfer_distances(
        sample_lines([e.loop_xy() for e in predicted], _NUM_POINTS),
        sample_lines([e.loop_xy() for e in true], _NUM_POINTS),
        max_distance_m=max_distance_m,
    )
    scores = [1.0 if e.score is None else e.score for e in predicted]
    for index in np.flatnonzero(match_predictions(distances, scores, [max_distance_m])[0]):
        yield predicted[index], true[int(distances[index].argmin())]
