"""Whether a difference that a paper states shows in trainings of our own: a test over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from gsmap_core.evaluation.comparison import Record, number_of

#: Share of repetitions whose interval holds the true difference.
CONFIDENCE = 0.9


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two rows, seed by seed.

    Args:
        mean: over the seeds that both rows have; NaN without one.
        half_width: of the interval of `CONFIDENCE` around it (Student's t); NaN below two seeds.
        count: seeds that both rows have.
    """

    mean: float
    half_width: float
    count: int

    def text(self) -> str:
        """Return `+0.012 ± 0.004`."""
        if not self.count:
            return '-'
        spread = '' if math.isnan(self.half_width) else f' ± {self.half_width:.3f}'
        return f'{self.mean:+.3f}{spread}'

    def verdict(self, published: float) -> str:
        """Say what became of a claim.

        Args:
            published: difference in the paper; only its sign counts.

        Returns:
            `reproduced` where the whole interval lies on the published side of 0, `not reproduced`
            where it lies on the other, else `within noise`; or what is missing.
        """
        if not self.count:
            return 'not run'
        if self.count < 2:
            return 'needs two seeds'
        if abs(self.mean) <= self.half_width:
            return 'within noise'
        return 'reproduced' if (self.mean > 0) == (published > 0) else 'not reproduced'


def paired_difference(
    row: Sequence[Record], host: Sequence[Record], path: Sequence[str]
) -> PairedDifference:
    """Return the difference of one number between two rows, over the seeds that both have.

    Seeds are paired because runs with the same seed see the same samples in the same order.

    Args:
        row: records of the row that claims to be better.
        host: records of the other.
        path: keys that lead to the number.
    """
    mine, theirs = ({r['seed']: number_of(r, path) for r in rows} for rows in (row, host))
    pairs = [(mine[seed], theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())]
    found = [a - b for a, b in pairs if a is not None and b is not None]
    if not found:
        return PairedDifference(math.nan, math.nan, 0)
    mean, count = statistics.fmean(found), len(found)
    if count == 1:
        return PairedDifference(mean, math.nan, 1)
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    half_width = quantile * statistics.stdev(found) / math.sqrt(count)
    return PairedDifference(mean, half_width, count)
