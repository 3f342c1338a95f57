"""Differences that are claimed beside those that were measured, as a picture file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gsmap_core.errors import DataError


@dataclass(frozen=True)
class Difference:
    """One claim.

    Args:
        name: of it.
        published: difference in the paper.
        mean: ours.
        half_width: of the interval around ours; NaN: unknown.
    """

    name: str
    published: float
    mean: float
    half_width: float


def draw_differences(claims: Sequence[Difference], path: Path, *, x_label: str = '') -> None:
    """Draw a line per claim: the published difference, ours and its interval.

    Args:
        claims: from top to bottom.
        path: file to write; its ending says the format.
        x_label: quantity.

    Raises:
        DataError: there is no claim.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not claims:
        raise DataError('nothing to draw: no claim has runs; expected at least one')
    height = 1.2 + 0.32 * len(claims)
    figure = Figure(figsize=(8.6, height), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = range(len(claims))
    widths = [0.0 if math.isnan(claim.half_width) else claim.half_width for claim in claims]
    axes.axvline(0.0, color='0.6', linewidth=0.8)
    axes.scatter([c.published for c in claims], rows, marker='|', s=140, color='C1', zorder=3)
    axes.errorbar([c.mean for c in claims], rows, xerr=widths, fmt='o', markersize=4, capsize=2)
    axes.set_yticks(list(rows), [claim.name for claim in claims], fontsize=8)
    axes.set_ylim(len(claims) - 0.5, -0.5)
    axes.set_xlabel(x_label)
    axes.grid(axis='x', alpha=0.3)
    axes.spines[['top', 'right', 'left']].set_visible(False)
    figure.legend(
        ['no difference', 'published', 'here'],
        frameon=False,
        fontsize=8,
        ncols=3,
        loc='outside upper right',
    )
    figure.savefig(path)
