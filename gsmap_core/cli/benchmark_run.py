"""The runs of a suite: drives, trainings, scores, one record each; and the report of records."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gsmap_core.errors import ConfigError, DataError, TrainingError
from gsmap_core.evaluation.comparison import comparison_table, difference_table
from gsmap_core.evaluation.frames import pair_frames
from gsmap_core.evaluation.turning import TurningEvaluator
from gsmap_core.mapfile import read_map_file
from gsmap_core.training.run_directory import environment, write_atomically
from gsmap_core.training.suite import Suite, SuiteRow, Towns

_LOGGER = logging.getLogger(__name__)


def run_suite(suite: Suite, results: Path, args: argparse.Namespace) -> int:
    """Train and score every row and seed that has no record; returns the exit code.

    Raises:
        ConfigError: a row or seed was asked for that the suite does not have, or a record of
            other settings is in the way.
        TrainingError: one of the commands failed.
    """
    deadline = None if args.max_minutes is None else time.monotonic() + 60.0 * args.max_minutes
    rows = _chosen(args.rows, list(suite.rows), 'row')
    seeds = _chosen(args.seeds, list(suite.seeds), 'seed')
    records = read_records(suite, results)
    work = Path(args.work).resolve() / suite.name
    missing = [
        (row, seed)
        for seed in seeds
        for row in rows
        if not any(record['seed'] == seed for record in records[row])
    ]
    print(f'{suite.name}: {len(missing)} runs to do', file=sys.stderr)
    # Made once; every run is trained and scored on the same ones.
    towns = {'train': suite.drives.train, 'test': suite.drives.test} if missing else {}
    folders = {part: _drives(suite, work, part, towns[part], args.device) for part in towns}
    for row, seed in missing:
        record = _run_one(suite, row, seed, work, folders, args.device, deadline)
        if record is None:
            print(f'{suite.name}: stopped in {row}, seed {seed}; call again to go on')
            return 0
        results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1) + '\n'
        write_atomically(results / f'{row}-seed{seed}.json', text.encode())
        print(
            f'{row}, seed {seed}: chamfer mAP {record["chamfer_map"]:.3f}, '
            f'raster mAP {record["raster_map"]:.3f}'
        )
    return 0


def _chosen(wanted: list[Any] | None, known: list[Any], what: str) -> list[Any]:
    for item in wanted or ():
        if item not in known:
            raise ConfigError(f'{what} {item!r} is not in the suite; expected some of {known}')
    return wanted or known


def settings_of(suite: Suite, row: str) -> dict[str, Any]:
    """Return what makes a run of a row what it is, beside its seed."""
    from gsmap_core.config import to_plain

    return {
        'suite': suite.name,
        'row': row,
        **to_plain(suite.rows[row]),
        'recipe': suite.recipe,
        'steps': suite.steps,
        'drives': to_plain(suite.drives),
    }


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
            path = results / f'{row}-seed{seed}.json'
            if not path.exists():
                continue
            try:
                record = json.loads(path.read_text(encoding='utf-8'))
            except (OSError, ValueError) as error:
                raise DataError(f"record '{path}' cannot be read: {error}; remove it") from None
            other = [k for k, v in settings.items() if record.get('settings', {}).get(k) != v]
            if other:
                raise ConfigError(
                    f"record '{path}' was made with other values of {', '.join(other)} than suite "
                    f"'{suite.name}' has; move it away or give another --results"
                )
            records[row].append(record)
    return records


def _run_one(
    suite: Suite,
    row: str,
    seed: int,
    work: Path,
    drives: dict[str, Path],
    device: str,
    deadline: float | None,
) -> dict[str, Any] | None:
    """Train and score one row with one seed; None where the time ran out."""
    name = f'{row}-seed{seed}'
    run = _train(suite, suite.rows[row], name, seed, drives['train'], work, device, deadline)
    if run is None:
        return None
    scored = run / 'test'
    _gsmap(
        'predict', str(drives['test']), '--weights', str(run / 'model.safetensors'),
        '--out', str(scored), '--figures', '0', '--metric', 'chamfer,raster', '--device', device,
    )  # fmt: skip
    summary = json.loads((scored / 'summary.json').read_text(encoding='utf-8'))
    keys = (
        'chamfer_map', 'per_category', 'raster_map', 'raster_per_category', 'reliability',
        'frames_mapped', 'frames_per_second',
    )  # fmt: skip
    state = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    trained_s = max(entry.get('trained_s', 0.0) for entry in state)
    return {
        'settings': settings_of(suite, row),
        'seed': seed,
        **{key: summary[key] for key in keys if key in summary},
        'turning': _turning(scored),
        'train_minutes': round(trained_s / 60.0, 2),
        # Without the command line: a record travels, the paths of its machine do not.
        'environment': {k: v for k, v in environment().items() if k != 'command'},
    }


def _drives(suite: Suite, work: Path, part: str, towns: Towns, device: str) -> Path:
    """Make the drives that are not there yet; returns their folder."""
    folder = work / 'drives' / part
    drives = suite.drives
    _gsmap(
        'synth', '--out', str(folder), '--setting', drives.setting,
        '--first-seed', str(towns.first_seed), '--towns', str(towns.towns),
        '--duration', str(drives.duration_s), '--rate', str(drives.rate_hz),
        '--width', str(drives.width_px), *(['--lidar'] if drives.lidar else []),
        *(['--device', device] if device.startswith('cuda') else []),
    )  # fmt: skip
    return folder


def _train(
    suite: Suite,
    row: SuiteRow,
    name: str,
    seed: int,
    data: Path,
    work: Path,
    device: str,
    deadline: float | None,
) -> Path | None:
    """Train, or go on with a training that was stopped; None where the time ran out."""
    run = work / 'runs' / f'{name}-000'
    if (run / 'model.safetensors').exists():
        return run
    limit = []
    if deadline is not None:
        left = (deadline - time.monotonic()) / 60.0
        if left <= 0:
            return None
        limit = ['--max-minutes', f'{left:.2f}']
    if (run / 'last.pt').exists():
        _gsmap('train', '--resume', str(run), '--device', device, *limit)
    else:
        # Without validation the last averaged weights count: nothing is selected.
        _gsmap(
            'train', '--config', row.config, '--recipe', suite.recipe, '--data', str(data),
            '--out', str(run.parent), '--name', name, '--steps', str(suite.steps),
            '--device', device, '--set', f'seed={seed}', *row.overrides, *limit,
        )  # fmt: skip
    return run if (run / 'model.safetensors').exists() else None


def _turning(scored: Path) -> dict[str, Any]:
    evaluator = TurningEvaluator()
    predictions = read_map_file(scored / 'predictions.map.json')
    for prediction, truth in pair_frames(
        predictions, read_map_file(scored / 'ground_truth.map.json'), 'error'
    ):
        evaluator.add(prediction, truth)
    return evaluator.to_dict()


def _gsmap(*arguments: str) -> None:
    """Run another verb in a process of its own, so that memory and threads start anew.

    Raises:
        TrainingError: it failed.
    """
    _LOGGER.info('gsmap %s', ' '.join(arguments))
    command = [sys.executable, '-m', 'gsmap_core.cli.main', *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        code = process.wait()
    except BaseException:
        # A training saves what it has; nothing goes on alone.
        process.terminate()
        process.wait()
        raise
    if code:
        raise TrainingError(
            f'gsmap {" ".join(arguments)} ended with {code}; see its message above; what is '
            'finished is kept, call again once it is mended'
        )


def write_report(suite: Suite, records: dict[str, list[dict[str, Any]]]) -> str:
    """Return the report as Markdown: settings, scores, differences, covariances."""
    drives = suite.drives
    runs = [record for row in records.values() for record in row]
    lines = [
        f'# {suite.title}',
        '',
        f'Written by `gsmap benchmark report {suite.name}` from the records of {len(runs)} runs; '
        'not typed.',
        '',
        f'Every row: recipe `{suite.recipe}`, {suite.steps} steps, seeds '
        f'{", ".join(map(str, suite.seeds))}; trained on {drives.train.towns} {drives.setting} '
        f'towns from seed {drives.train.first_seed}, scored on {drives.test.towns} towns from '
        f'seed {drives.test.first_seed} (drives of {drives.duration_s:g} s at {drives.rate_hz:g} '
        'Hz, ego frame, x from -30 to 30 m, y from -15 to 15 m). Scores are fractions, the mean '
        'over the seeds ± half their range. Chamfer columns come first, raster columns second; '
        'the turning angle is that of matched boundaries.',
        '',
        *comparison_table(records),
        '',
        'A difference that does not exceed the larger range of the two rows is called noise.',
        '',
        *difference_table(records, [(pair.row, pair.host) for pair in suite.comparisons]),
    ]
    truth = [r['turning']['true_deg_per_m'] for r in runs if r['turning']['true_deg_per_m']]
    if truth:
        lines += [
            '',
            f'The true boundaries turn by {sum(truth) / len(truth):.1f} degrees per metre.',
        ]
    lines += _covariance_lines(records)
    return '\n'.join(lines) + '\n'


def _covariance_lines(records: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the table of predicted sigmas against lateral errors, of the rows that have any."""
    found = {
        name: [record['reliability'] for record in row if 'reliability' in record]
        for name, row in records.items()
    }
    found = {name: values for name, values in found.items() if values}
    if not found:
        return []
    lines = [
        '',
        'Covariances: lateral error and predicted sigma of matched vertices (root mean squares), '
        'the share within one sigma (0.68 expected), and the factor that would calibrate them.',
        '',
        '| | vertices | error m | sigma m | within 1 sigma | factor |',
        '|---|---|---|---|---|---|',
    ]
    for name, values in found.items():
        mean = [
            sum(pick(v) for v in values) / len(values)
            for pick in (
                lambda v: v['num_vertices'],
                lambda v: v['error_m'],
                lambda v: v['sigma_m'],
                lambda v: v['coverage']['1'],
                lambda v: v['sigma_factor'],
            )
        ]
        lines.append(
            f'| `{name}` | {mean[0]:.0f} | {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.2f} | '
            f'{mean[4]:.2f} |'
        )
    return lines
