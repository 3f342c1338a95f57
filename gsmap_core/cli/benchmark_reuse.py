"""Runs of other suites that were trained and scored alike: they need not be made again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gsmap_core.cli.benchmark_records import settings_of, write_record
from gsmap_core.training.suite import Suite

#: Where a run was made does not change what comes out, nor what else was scored.
_IGNORED = ('suite', 'row', 'metrics', 'extra_tests')


def reuse_records(suite: Suite, results: Path, others: Iterable[Path]) -> list[str]:
    """Copy records of other suites whose settings agree into those of a suite.

    Args:
        suite: whose rows and seeds without a record are looked for.
        results: folder of its records.
        others: folders of records; what cannot be read there is not looked at.

    Returns:
        What was copied, one text per record.
    """
    found = _readable(folder for folder in others if folder.resolve() != results.resolve())
    copied = []
    for row in suite.rows:
        wanted = settings_of(suite, row)
        for seed in suite.seeds:
            path = results / f'{row}-seed{seed}.json'
            if path.exists():
                continue
            like = (r for r in found if r['seed'] == seed and _agrees(r, wanted))
            record = next(like, None)
            if record is not None:
                source = {key: record['settings'][key] for key in ('suite', 'row')}
                write_record(path, {**record, 'settings': wanted, 'reused_from': source})
                copied.append(f'{row}, seed {seed}: as {source["row"]} of {source["suite"]}')
    return copied


def _readable(folders: Iterable[Path]) -> list[dict[str, Any]]:
    records = []
    for folder in folders:
        for path in sorted(folder.glob('*-seed*.json')):
            try:
                record = json.loads(path.read_text(encoding='utf-8'))
            except (OSError, ValueError):
                continue
            if isinstance(record, dict) and isinstance(record.get('settings'), dict):
                records.append(record)
    return records


def _agrees(record: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a run was trained alike, and scored in every way that is wanted."""
    mine = record['settings']
    for key in (mine.keys() | wanted.keys()) - set(_IGNORED):
        if mine.get(key) != wanted.get(key):
            return False
    scored = set(mine.get('metrics', ())) >= set(wanted.get('metrics', ()))
    extra = mine.get('extra_tests', {}).items() >= wanted.get('extra_tests', {}).items()
    return scored and extra and 'reused_from' not in record
