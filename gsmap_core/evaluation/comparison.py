"""Comparison of trainings: means over seeds, spreads, and whether a difference exceeds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: One run's record, as `gsmap benchmark run` writes it.
Record = Mapping[str, Any]

#: Column title, path of the number in a record, digits, whether more is better.
COLUMNS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ('chamfer mAP', ('chamfer_map',), 3),
    ('divider', ('per_category', 'divider'), 3),
    ('crossing', ('per_category', 'ped_crossing'), 3),
    ('boundary', ('per_category', 'boundary'), 3),
    ('raster mAP', ('raster_map',), 3),
    ('divider', ('raster_per_category', 'divider'), 3),
    ('crossing', ('raster_per_category', 'ped_crossing'), 3),
    ('boundary', ('raster_per_category', 'boundary'), 3),
    ('turn deg/m', ('turning', 'predicted_deg_per_m'), 1),
)


@dataclass(frozen=True)
class Spread:
    """Mean of a number over the seeds of one row, and how far they lie apart.

    Args:
        mean: over the seeds; NaN without a number.
        spread: largest minus smallest.
        count: seeds with a number.
    """

    mean: float
    spread: float
    count: int

    def text(self, digits: int) -> str:
        """Return `0.312 ± 0.010`: the mean and half the spread."""
        if not self.count:
            return '-'
        half = f' ± {self.spread / 2:.{digits}f}' if self.count > 1 else ''
        return f'{self.mean:.{digits}f}{half}'


def number_of(record: Record, path: Sequence[str]) -> float | None:
    """Return a number of a record, or None where it has none."""
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def spread_of(records: Sequence[Record], path: Sequence[str]) -> Spread:
    """Return mean and spread of one number over the seeds of a row."""
    found = [v for v in (number_of(record, path) for record in records) if v is not None]
    if not found:
        return Spread(math.nan, math.nan, 0)
    return Spread(sum(found) / len(found), max(found) - min(found), len(found))


def verdict(row: Spread, host: Spread) -> str:
    """Say what a difference is worth: below the larger spread of the two it is called noise."""
    if row.count < 2 or host.count < 2:
        return 'needs two seeds'
    difference = row.mean - host.mean
    if abs(difference) <= max(row.spread, host.spread):
        return 'noise'
    return 'better' if difference > 0 else 'worse'


def comparison_table(rows: Mapping[str, Sequence[Record]]) -> list[str]:
    """Return a Markdown table: one line per row, mean and half the spread over its seeds."""
    titles = ['', *(title for title, _, _ in COLUMNS), 'seeds', 'min']
    lines = ['| ' + ' | '.join(titles) + ' |', '|' + '---|' * len(titles)]
    for name, records in rows.items():
        cells = [spread_of(records, path).text(digits) for _, path, digits in COLUMNS]
        minutes = spread_of(records, ('train_minutes',))
        cells += [str(len(records)), '-' if not minutes.count else f'{minutes.mean:.0f}']
        lines.append(f'| `{name}` | ' + ' | '.join(cells) + ' |')
    return lines


def difference_table(
    rows: Mapping[str, Sequence[Record]], pairs: Sequence[tuple[str, str]]
) -> list[str]:
    """Return a Markdown table: the difference of each pair of rows and what it is worth."""
    lines = ['| | chamfer mAP | | raster mAP | |', '|---|---|---|---|---|']
    for row, host in pairs:
        cells = []
        for path in (('chamfer_map',), ('raster_map',)):
            mine, theirs = spread_of(rows[row], path), spread_of(rows[host], path)
            if mine.count and theirs.count:
                cells += [f'{mine.mean - theirs.mean:+.3f}', verdict(mine, theirs)]
            else:
                cells += ['-', 'not run']
        lines.append(f'| `{row}` against `{host}` | ' + ' | '.join(cells) + ' |')
    return lines
