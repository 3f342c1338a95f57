"""How far the predicted covariances can be trusted: sigma against the actual lateral error.

A vertex of a matched element lies beside the true line by some signed distance; its covariance
says how large that distance should be. Over many vertices the distances divided by their sigmas
should be as wide as a standard normal distribution. Along the line a vertex has no true place
(any sampling of the line is the same line), so that only the lateral part is measured.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsmap_core.categories import PAPER_CATEGORIES
from gsmap_core.evaluation.element_pairs import matched_elements
from gsmap_core.structures import FloatArray, VectorMap

#: Multiples of sigma whose coverage is reported.
SIGMAS: tuple[float, ...] = (1.0, 2.0, 3.0)
_NUM_BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Vertices of similar predicted sigma.

    Args:
        sigma_m: root mean square of the predicted sigmas [m].
        error_m: root mean square of the lateral errors [m].
        count: vertices.
    """

    sigma_m: float
    error_m: float
    count: int


@dataclass(frozen=True)
class Reliability:
    """Agreement of sigmas and errors of a set of vertices.

    Args:
        num_vertices: vertices of matched elements.
        sigma_m: root mean square of the predicted lateral sigmas [m].
        error_m: root mean square of the lateral errors [m].
        coverage: share of the vertices within that many sigmas.
        sigma_factor: what the sigmas would have to be multiplied with so that as many errors lie
            within one of them as of a normal distribution (68.3 %); above 1: over-confident. A
            few vertices that are far off do not move it, as they would a root mean square.
        bins: vertices in groups of about equal size, by rising sigma.
    """

    num_vertices: int
    sigma_m: float
    error_m: float
    coverage: dict[float, float]
    sigma_factor: float
    bins: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; numbers that do not exist are None."""

        def plain(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return {
            'num_vertices': self.num_vertices,
            'sigma_m': plain(self.sigma_m),
            'error_m': plain(self.error_m),
            'coverage': {f'{k:g}': plain(v) for k, v in self.coverage.items()},
            'expected_coverage': {f'{k:g}': expected_coverage(k) for k in self.coverage},
            'sigma_factor': plain(self.sigma_factor),
            'bins': [
                {'sigma_m': b.sigma_m, 'error_m': b.error_m, 'count': b.count} for b in self.bins
            ],
        }


def expected_coverage(num_sigmas: float) -> float:
    """Return the share of a normal distribution within that many standard deviations."""
    return math.erf(num_sigmas / math.sqrt(2))


def lateral_errors(
    vertices: npt.ArrayLike, covariance: npt.ArrayLike, line: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return signed distance to a line and predicted sigma across it, for every vertex.

    Args:
        vertices: (P, 2) predicted vertices [m].
        covariance: (P, 3) xx, xy, yy [m^2].
        line: (V, 2) true line, V >= 2, in the same frame [m]; a ring repeats its first vertex.

    Returns:
        (P,) errors [m], positive to the left of the line's nearest segment, and (P,) sigmas [m]
        along the normal of that segment.
    """
    points = np.asarray(vertices, dtype=np.float64)
    true = np.asarray(line, dtype=np.float64)
    steps = np.diff(true, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    starts, steps, lengths = true[:-1][lengths > 0], steps[lengths > 0], lengths[lengths > 0]
    if not len(lengths):
        return np.zeros(0), np.zeros(0)
    tangents = steps / lengths[:, None]
    offsets = points[:, None] - starts  # (P, S, 2)
    along = np.clip((offsets * tangents).sum(-1), 0.0, lengths)
    gaps = offsets - along[..., None] * tangents
    nearest = np.square(gaps).sum(-1).argmin(axis=1)
    normals = np.stack([-tangents[:, 1], tangents[:, 0]], axis=-1)[nearest]
    errors = (offsets[np.arange(len(points)), nearest] * normals).sum(-1)
    xx, xy, yy = np.asarray(covariance, dtype=np.float64).T
    variances = xx * normals[:, 0] ** 2 + yy * normals[:, 1] ** 2
    variances = variances + 2 * xy * normals[:, 0] * normals[:, 1]
    return errors, np.sqrt(np.maximum(variances, 0.0))


def measure(errors: npt.ArrayLike, sigmas: npt.ArrayLike) -> Reliability:
    """Compare errors with sigmas.

    Args:
        errors: (T,) lateral errors [m].
        sigmas: (T,) predicted standard deviations, positive [m].
    """
    error, sigma = np.asarray(errors, dtype=np.float64), np.asarray(sigmas, dtype=np.float64)
    if not len(error):
        nothing = dict.fromkeys(SIGMAS, math.nan)
        return Reliability(0, math.nan, math.nan, nothing, math.nan, ())

    def rms(values: FloatArray) -> float:
        return float(np.sqrt(np.mean(np.square(values))))

    ratio = np.abs(error) / sigma
    groups = np.array_split(np.argsort(sigma, kind='stable'), min(_NUM_BINS, len(error)))
    return Reliability(
        num_vertices=len(error),
        sigma_m=rms(sigma),
        error_m=rms(error),
        coverage={k: float(np.mean(ratio <= k)) for k in SIGMAS},
        sigma_factor=float(np.quantile(ratio, expected_coverage(1.0))),
        bins=tuple(ReliabilityBin(rms(sigma[g]), rms(error[g]), len(g)) for g in groups),
    )


class ReliabilityEvaluator:
    """Collects the vertices of matched elements over many frames.

    Args:
        categories: names of those that are looked at.
        max_distance_m: greatest chamfer distance of a pair [m]; errors beyond it are not seen, so
            that it bounds what can be measured.
        min_score: predictions with a lower score are left out.
    """

    def __init__(
        self,
        categories: Sequence[str] = PAPER_CATEGORIES,
        max_distance_m: float = 1.5,
        min_score: float = 0.3,
    ) -> None:
        self.max_distance_m, self.min_score = max_distance_m, min_score
        self._values: dict[str, list[tuple[FloatArray, FloatArray]]] = {n: [] for n in categories}
        self.num_frames = 0

    def add(self, prediction: VectorMap, truth: VectorMap) -> None:
        """Add one frame; elements without covariance are passed over."""
        self.num_frames += 1
        if all(element.covariance is None for element in prediction.elements):
            return
        for name, values in self._values.items():
            for predicted, true in matched_elements(
                prediction,
                truth,
                name,
                max_distance_m=self.max_distance_m,
                min_score=self.min_score,
            ):
                if predicted.covariance is not None:
                    values.append(
                        lateral_errors(
                            predicted.vertices[:, :2], predicted.covariance, true.loop_xy()
                        )
                    )

    def merge(self, other: ReliabilityEvaluator) -> None:
        """Append the frames of an evaluator with the same settings."""
        self.num_frames += other.num_frames
        for name, values in self._values.items():
            values += other._values[name]

    @property
    def has_vertices(self) -> bool:
        """Whether any vertex with a covariance was seen."""
        return any(self._values.values())

    def values(self, category: str | None = None) -> tuple[FloatArray, FloatArray]:
        """Return (T,) errors and (T,) sigmas [m] of one category, or of all."""
        names = list(self._values) if category is None else [category]
        pairs = [pair for name in names for pair in self._values[name]]
        if not pairs:
            return np.zeros(0), np.zeros(0)
        errors, sigmas = zip(*pairs, strict=True)
        return np.concatenate(errors), np.concatenate(sigmas)

    def result(self, category: str | None = None) -> Reliability:
        """Return the agreement for one category, or for all."""
        return measure(*self.values(category))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            'max_distance_m': self.max_distance_m,
            'min_score': self.min_score,
            'num_frames': self.num_frames,
            **self.result().to_dict(),
            'per_category': {name: self.result(name).to_dict() for name in self._values},
        }


def format_reliability(evaluator: ReliabilityEvaluator) -> str:
    """Return the agreement in one readable line per number."""
    result = evaluator.result()
    shares = ', '.join(
        f'{result.coverage[k]:.1%} within {k:g} sigma ({expected_coverage(k):.1%} expected)'
        for k in SIGMAS
    )
    return (
        f'Covariances of {result.num_vertices} vertices of matched elements '
        f'(within {evaluator.max_distance_m:g} m, score >= {evaluator.min_score:g})\n'
        f'lateral error {result.error_m:.3f} m rms, predicted sigma {result.sigma_m:.3f} m rms; '
        f'calibrated sigma = {result.sigma_factor:.2f} x predicted\n{shares}'
    )


def write_reliability(
    folder: str | os.PathLike[str], evaluator: ReliabilityEvaluator
) -> list[Path]:
    """Write `reliability.json` and `reliability.png` into a folder, which is made if needed.

    The evaluator must have seen vertices (`has_vertices`).
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / 'reliability.json', target / 'reliability.png']
    paths[0].write_text(json.dumps(evaluator.to_dict(), indent=2) + '\n', encoding='utf-8')
    draw_reliability(evaluator, paths[1])
    return paths


def draw_reliability(evaluator: ReliabilityEvaluator, path: Path) -> None:
    """Draw errors over sigmas, and the actual over the expected coverage."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    result = evaluator.result()
    figure = Figure(figsize=(9.2, 4.4), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    sigmas = [b.sigma_m for b in result.bins]
    left.plot(sigmas, [b.error_m for b in result.bins], 'o-', linewidth=2, label='measured')
    top = 1.08 * max([*sigmas, *(b.error_m for b in result.bins)])
    left.plot([0, top], [0, top], '--', color='0.5', label='calibrated')
    left.set(
        xlim=(0, top),
        ylim=(0, top),
        xlabel='predicted lateral sigma [m]',
        ylabel='actual lateral error, rms [m]',
        title=f'{result.num_vertices} vertices in {len(result.bins)} groups',
    )
    errors, predicted = evaluator.values()
    ratio = np.sort(np.abs(errors) / predicted)
    multiples = np.linspace(0.0, 3.0, 61)
    expected = [expected_coverage(k) for k in multiples]
    actual = np.searchsorted(ratio, multiples, side='right') / len(ratio)
    right.plot(expected, actual, linewidth=2, label='measured')
    right.plot([0, 1], [0, 1], '--', color='0.5', label='calibrated')
    right.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel='expected share within k sigma',
        ylabel='actual share',
        title=f'calibrated sigma = {result.sigma_factor:.2f} x predicted',
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(frameon=False, loc='lower right')
    figure.savefig(path)
