"""Curves with spreads, as a picture file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gsmap_core.errors import DataError


@dataclass(frozen=True)
class CurvePoint:
    """A point of a curve and how far its repetitions lie apart.

    Args:
        x: position.
        y: mean.
        low: smallest.
        high: largest.
    """

    x: float
    y: float
    low: float
    high: float


def draw_curves(
    curves: Mapping[str, Sequence[CurvePoint]],
    path: Path,
    *,
    x_label: str = '',
    y_label: str = '',
    title: str = '',
) -> None:
    """Draw curves over a logarithmic axis into a picture file.

    Args:
        curves: name -> points, in any order; positions above 0.
        path: file to write; its ending says the format.
        x_label: quantity along x.
        y_label: quantity along y.
        title: headline.

    Raises:
        DataError: there is no point.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

    points = [point for curve in curves.values() for point in curve]
    if not points:
        raise DataError('nothing to draw: no curve has a point; expected at least one')
    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        ordered = sorted(curve, key=lambda point: point.x)
        x, y = [point.x for point in ordered], [point.y for point in ordered]
        (line,) = axes.plot(x, y, marker='o', markersize=4, label=name)
        low, high = [point.low for point in ordered], [point.high for point in ordered]
        axes.fill_between(x, low, high, alpha=0.18, color=line.get_color(), linewidth=0)
    axes.set_xscale('log')
    axes.xaxis.set_major_locator(FixedLocator(sorted({point.x for point in points})))
    axes.xaxis.set_major_formatter(FormatStrFormatter('%g'))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)
    if title:
        axes.set_title(title, fontsize=10)
    figure.savefig(path)
