"""The records of a suite: one JSON per run, with everything that made it what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsmap_core.atomic_files import atomic_text_file
from gsmap_core.config import to_plain
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.training.suite import Suite, SuiteDrives, SuiteRow

#: Records of a suite's pretraining by the share of the labels that it saw [percent].
Pretrained = dict[float, dict[str, Any]]


def settings_of(suite: Suite, row: str) -> dict[str, Any]:
    """Return what makes a run of a row what it is, beside its seed."""
    chosen, drives = suite.rows[row], to_plain(suite.drives)
    # What came later is left out where it has its default: older records stay what they are.
    for key in ('rig', 'conditions', 'unlabelled'):
        if drives[key] == getattr(SuiteDrives, key):
            del drives[key]
    settings = {
        'suite': suite.name,
        'row': row,
        'config': chosen.config,
        'overrides': list(suite.overrides_of(row)),
        'recipe': suite.recipe_of(row),
        'steps': suite.steps,
        'drives': drives,
    }
    if chosen.label_percent != SuiteRow.label_percent:
        settings['label_percent'] = chosen.label_percent
    if suite.metrics:
        settings['metrics'] = list(suite.metrics)
    if suite.extra_tests:
        settings['extra_tests'] = dict(suite.extra_tests)
    if suite.pretraining is not None:
        settings['pretraining'] = to_plain(suite.pretraining)
    return settings


def name_of_share(name: str, share: float) -> str:
    """Return a name with a share of the labels [percent] in it; without where it is all."""
    return name if share == SuiteRow.label_percent else f'{name}_{share:g}'


def pretraining_path(results: Path, share: float) -> Path:
    """Return where the record of a pretraining is kept; `share` of the labels in percent."""
    return results / f'{name_of_share("pretraining", share)}.json'


def pretraining_settings(suite: Suite, share: float) -> dict[str, Any]:
    """Return what makes a pretraining of a suite what it is; `share` of the labels in percent."""
    settings = settings_of(suite, next(iter(suite.rows)))
    kept = {key: settings[key] for key in ('suite', 'drives', 'pretraining')}
    if suite.overrides:
        kept['overrides'] = list(suite.overrides)
    if share != SuiteRow.label_percent:
        kept['label_percent'] = share
    return {**kept, 'recipe': suite.recipe}


def read_pretraining(suite: Suite, results: Path) -> Pretrained:
    """Read the records of a suite's pretraining that are there.

    Raises:
        ConfigError: it belongs to other settings than the suite has now.
        DataError: it cannot be read.
    """
    if suite.pretraining is None:
        return {}
    found = {}
    for share in sorted({suite.pretrained_share(row) for row in suite.rows}):
        path = pretraining_path(results, share)
        record = _read(path, pretraining_settings(suite, share), suite)
        if record is not None:
            found[share] = record
    return found


def read_records(suite: Suite, results: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the records of a suite, by row and in the order of the seeds.

    Raises:
        ConfigError: a record belongs to other settings than the suite has now.
        DataError: a record cannot be read.
    """
    records: dict[str, list[dict[str, Any]]] = {}
    for row in suite.rows:
        settings = settings_of(suite, row)
        records[row] = []
        for seed in suite.seeds:
            record = _read(results / f'{row}-seed{seed}.json', settings, suite)
            if record is not None:
                records[row].append(record)
    return records


def _read(path: Path, settings: dict[str, Any], suite: Suite) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(f"record '{path}' cannot be read: {error}; remove it") from None
    other = [k for k, v in settings.items() if record.get('settings', {}).get(k) != v]
    if other:
        raise ConfigError(
            f"record '{path}' was made with other values of {', '.join(other)} than suite "
            f"'{suite.name}' has; move it away or give another --results"
        )
    return record


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record, whole or not at all; its folder is made."""
    with atomic_text_file(path) as file:
        file.write(json.dumps(record, indent=1) + '\n')
