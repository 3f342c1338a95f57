"""Scores over the share of labels: a table with the gain over the host, and curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gsmap_core.data.traversal_splits import draw_labelled
from gsmap_core.evaluation.comparison import Spread, spread_of, verdict
from gsmap_core.training.suite import Suite
from gsmap_core.viz.curves import CurvePoint, draw_curves

_SCORES = (
    ('chamfer mAP', ('chamfer_map',)),
    ('divider', ('per_category', 'divider')),
    ('crossing', ('per_category', 'ped_crossing')),
    ('boundary', ('per_category', 'boundary')),
)
Records = dict[str, list[dict[str, Any]]]


def label_lines(suite: Suite, records: Records) -> list[str]:
    """Return the table of rows by share of labels; nothing where all rows have all labels."""
    if all(row.label_percent == 100 for row in suite.rows.values()):
        return []
    hosts = {pair.row: pair.host for pair in suite.comparisons}
    titles = ['', 'labels', 'drives', *(title for title, _ in _SCORES), 'gain', '', 'relative']
    titles += [f'gain {title}' for title, _ in _SCORES[1:]]
    lines = [
        '',
        'By share of labels: chamfer AP, and the gain over the row with the same labels that it '
        f'is compared with. {_about_drives(suite)}',
        '',
        '| ' + ' | '.join(titles).replace('  ', ' ') + ' |',
        '|' + '---|' * len(titles),
    ]
    for name in sorted(suite.rows, key=lambda row: suite.rows[row].label_percent):
        row = suite.rows[name]
        mine = [spread_of(records[name], path) for _, path in _SCORES]
        cells = [f'`{name}`', f'{row.label_percent:g} %', str(_num_drives(suite, name))]
        cells += [score.text(3) for score in mine]
        host = hosts.get(name)
        theirs = [spread_of(records[host], path) for _, path in _SCORES] if host else []
        lines.append('| ' + ' | '.join([*cells, *_gains(mine, theirs)]) + ' |')
    return lines


def _gains(mine: list[Spread], theirs: list[Spread]) -> list[str]:
    """Return the cells that compare a row with its host; empty ones for a host."""
    if not theirs:
        return [''] * (3 + len(mine) - 1)
    if not mine[0].count or not theirs[0].count:
        return ['-', 'not run', '-'] + ['-'] * (len(mine) - 1)
    gain = mine[0].mean - theirs[0].mean
    relative = f'{gain / theirs[0].mean:+.0%}' if theirs[0].mean > 0 else '-'
    of_categories = [f'{a.mean - b.mean:+.3f}' for a, b in zip(mine[1:], theirs[1:], strict=True)]
    return [f'{gain:+.3f}', verdict(mine[0], theirs[0]), relative, *of_categories]


def _num_drives(suite: Suite, row: str) -> int:
    names = [str(number) for number in range(suite.drives.train.towns)]
    return len(draw_labelled(names, suite.rows[row].label_percent))


def _about_drives(suite: Suite) -> str:
    towns = suite.drives.unlabelled
    if towns is None:
        return ''
    return (
        f'Unlabelled: {towns.towns} further towns from seed {towns.first_seed}, the same route '
        f'{towns.repeat + 1} times through each in other light, on another line, in both '
        'directions. The labelled drives of a smaller share are among those of a larger one, and '
        'the same for every seed.'
    )


def draw_label_curves(suite: Suite, records: Records, path: Path) -> None:
    """Draw chamfer mAP over the share of labels, a curve per `SuiteRow.curve`.

    Raises:
        DataError: no row has a curve and a record.
    """
    curves: dict[str, list[CurvePoint]] = {}
    for name, row in suite.rows.items():
        found = [float(record['chamfer_map']) for record in records[name]]
        if row.curve and found:
            point = CurvePoint(row.label_percent, sum(found) / len(found), min(found), max(found))
            curves.setdefault(row.curve, []).append(point)
    draw_curves(curves, path, x_label='labels [%]', y_label='chamfer mAP', title=suite.title)
