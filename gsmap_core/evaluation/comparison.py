"""Comparison of trainings: means over seeds, spreads, and whether a difference exceeds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: One run's record, as `gsmap benchmark run` writes it.
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the comparison.

    Args:
        title: headline.
        path: keys that lead to the number in a record.
        digits: after the point.
        scale: what the number is multiplied by.
        is_optional: left out where no record has the number.
    """

    title: str
    path: tuple[str, ...]
    digits: int = 3
    scale: float = 1.0
    is_optional: bool = True


COLUMNS: tuple[Column, ...] = (
    Column('chamfer mAP', ('chamfer_map',), is_optional=False),
    Column('divider', ('per_category', 'divider'), is_optional=False),
    Column('crossing', ('per_category', 'ped_crossing'), is_optional=False),
    Column('boundary', ('per_category', 'boundary'), is_optional=False),
    Column('chamfer mAP 3D', ('chamfer_3d_map',)),
    Column('raster mAP', ('raster_map',), is_optional=False),
    Column('divider', ('raster_per_category', 'divider'), is_optional=False),
    Column('crossing', ('raster_per_category', 'ped_crossing'), is_optional=False),
    Column('boundary', ('raster_per_category', 'boundary'), is_optional=False),
    Column('turn deg/m', ('turning', 'predicted_deg_per_m'), 1, is_optional=False),
    Column('flicker', ('flicker', 'flicker_per_frame'), 2),
    Column('found', ('flicker', 'found'), 2),
    Column('jitter m', ('stability', 'mean'), 3),
    Column('M parameters', ('parameters',), 3, 1e-6),
    Column('frames/s', ('speed', 'frames_per_second'), 1),
    Column('of host', ('speed', 'of_host'), 2),
    Column('peak GiB', ('peak_memory_mib',), 2, 1 / 1024),
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

    def scaled(self, factor: float) -> Spread:
        """Return the same in another unit."""
        return Spread(self.mean * factor, self.spread * factor, self.count)

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


def comparison_table(
    rows: Mapping[str, Sequence[Record]], more: Sequence[Column] = ()
) -> list[str]:
    """Return a Markdown table: one line per row, mean and half the spread over its seeds.

    Args:
        rows: name -> records of its seeds.
        more: columns behind those that every comparison has.
    """
    every = [record for records in rows.values() for record in records]
    columns = [
        column
        for column in (*COLUMNS, *more)
        if not column.is_optional or any(number_of(r, column.path) is not None for r in every)
    ]
    titles = ['', *(column.title for column in columns), 'seeds', 'min']
    lines = ['| ' + ' | '.join(titles) + ' |', '|' + '---|' * len(titles)]
    for name, records in rows.items():
        cells = [
            spread_of(records, column.path).scaled(column.scale).text(column.digits)
            for column in columns
        ]
        minutes = spread_of(records, ('train_minutes',))
        cells += [str(len(records)), '-' if not minutes.count else f'{minutes.mean:.0f}']
        lines.append(f'| `{name}` | ' + ' | '.join(cells) + ' |')
    return lines


def difference_table(
    rows: Mapping[str, Sequence[Record]],
    pairs: Sequence[tuple[str, str]],
    more: Sequence[Column] = (),
    published: Mapping[str, float] | None = None,
) -> list[str]:
    """Return a Markdown table: the difference of each pair of rows and what it is worth.

    Args:
        rows: name -> records of its seeds.
        pairs: row and host.
        more: scores that are compared beside chamfer and raster mAP; more of them is better.
        published: chamfer mAP of rows in the table that they stand for [percent]; told beside it
            where both rows of a pair have one.
    """
    compared = [
        Column('chamfer mAP', ('chamfer_map',)),
        *more,
        Column('raster mAP', ('raster_map',)),
    ]
    known = published or {}
    titles = [cell for column in compared for cell in (column.title, '')]
    titles += ['published'] if known else []
    lines = ['| | ' + ' | '.join(titles).replace('  ', ' ').rstrip() + ' |']
    lines.append('|' + '---|' * (1 + len(titles)))
    for row, host in pairs:
        cells = []
        for column in compared:
            mine, theirs = spread_of(rows[row], column.path), spread_of(rows[host], column.path)
            if mine.count and theirs.count:
                cells += [f'{mine.mean - theirs.mean:+.3f}', verdict(mine, theirs)]
            else:
                cells += ['-', 'not run']
        if known:
            has_both = row in known and host in known
            cells.append(f'{(known[row] - known[host]) / 100:+.3f}' if has_both else '-')
        lines.append(f'| `{row}` against `{host}` | ' + ' | '.join(cells) + ' |')
    return lines
