"""The runs of a suite: drives, trainings, scores and speed, one record each."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.categories import PAPER_CATEGORIES
from gsmap_core.cli.benchmark_prepare import make_drives, prepare_parts
from gsmap_core.cli.benchmark_records import (
    PRETRAINING,
    pretraining_settings,
    read_pretraining,
    read_records,
    settings_of,
)
from gsmap_core.cli.benchmark_speed import measure_speed
from gsmap_core.config import ModelConfig
from gsmap_core.data.traversal_splits import draw_labelled
from gsmap_core.errors import ConfigError, TrainingError
from gsmap_core.evaluation.frames import pair_frames
from gsmap_core.evaluation.metrics import MetricOptions, make_evaluator
from gsmap_core.evaluation.report import report_dict
from gsmap_core.evaluation.turning import TurningEvaluator
from gsmap_core.mapfile import read_map_file
from gsmap_core.structures import VectorMap
from gsmap_core.training.benchmark_dataset import load_dataset
from gsmap_core.training.recipe import TrainConfig
from gsmap_core.training.run_directory import environment, write_atomically
from gsmap_core.training.suite import Suite, SuiteRow, check_rows, resolve_row

#: Test drives of the suite's own kind of town; those of `Suite.extra_tests` are `test-TITLE`.
_TEST = 'test'
#: Drives past the same streets, of which only images and poses are used.
_UNLABELLED = 'unlabelled'

_LOGGER = logging.getLogger(__name__)


def run_suite(
    suite: Suite, results: Path, args: argparse.Namespace, deadline: float | None = None
) -> bool:
    """Train and score every row and seed that has no record.

    Args:
        suite: the rows.
        results: folder of the records.
        args: of the command.
        deadline: stop when `time.monotonic()` reaches it; None: `args.max_minutes` from now.

    Returns:
        Whether all are done; else the time was up.

    Raises:
        ConfigError: a row or seed was asked for that the suite does not have, a row cannot be
            built, or a record of other settings is in the way.
        TrainingError: one of the commands failed.
    """
    deadline = deadline or deadline_of(args)
    rows = _chosen(args.rows, list(suite.rows), 'row')
    seeds = _chosen(args.seeds, list(suite.seeds), 'seed')
    models = {row: model for row, (model, _) in check_rows(suite).items()}
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
    folders = _all_drives(suite, work, args.device) if missing else {}
    start = _pretrained(suite, results, folders, work, args, deadline) if missing else None
    if start is None and missing and suite.pretraining is not None:
        print(f'{suite.name}: stopped in the pretraining; call again to go on')
        return False
    for row, seed in missing:
        run = _train(suite, row, seed, folders, work, args, deadline, start)
        if run is None:
            print(f'{suite.name}: stopped in {row}, seed {seed}; call again to go on')
            return False
        record = {
            'settings': settings_of(suite, row),
            'seed': seed,
            **_scores(suite, models[row], run, folders, args.device),
            **_speed(suite, models, row, folders[_TEST], args.device),
            **_training_cost(run),
            # Without the command line: a record travels, the paths of its machine do not.
            'environment': {k: v for k, v in environment().items() if k != 'command'},
        }
        results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, indent=1) + '\n'
        write_atomically(results / f'{row}-seed{seed}.json', text.encode())
        print(
            f'{row}, seed {seed}: chamfer mAP {record["chamfer_map"]:.3f}, '
            f'raster mAP {record["raster_map"]:.3f}'
        )
    return True


def deadline_of(args: argparse.Namespace) -> float | None:
    """Return when to stop, as `time.monotonic()` counts, or None."""
    return None if args.max_minutes is None else time.monotonic() + 60.0 * args.max_minutes


def _chosen(wanted: list[Any] | None, known: list[Any], what: str) -> list[Any]:
    for item in wanted or ():
        if item not in known:
            raise ConfigError(f'{what} {item!r} is not in the suite; expected some of {known}')
    return wanted or known


def _all_drives(suite: Suite, work: Path, device: str) -> dict[str, Path]:
    """Make the drives that are not there yet; returns their folders.

    Those of a benchmark dataset are verified, and lie where other suites find them too.
    """
    parts = suite.parts()
    if suite.dataset:
        dataset = load_dataset(suite.dataset)
        names = {what: str(dataset.part_like(part)) for what, part in parts.items()}
        render = device if device.startswith('cuda') else 'cpu'
        made = prepare_parts(suite.dataset, dict.fromkeys(names.values()), work.parent, render)
        return {what: made[name] for what, name in names.items()}
    folders = {what: work / 'drives' / what for what in parts}
    for what, part in parts.items():
        make_drives(part, folders[what], device)
    return folders


def _scores(
    suite: Suite, model: ModelConfig, run: Path, folders: dict[str, Path], device: str
) -> dict[str, Any]:
    """Map the test drives, each as one stream in the order of time, and score them."""
    own = _predict(run, _TEST, folders[_TEST], ['raster', *suite.metrics], device)
    keys = (
        'chamfer_map', 'per_category', 'raster_map', 'raster_per_category', 'reliability',
        'frames_mapped', *suite.metrics,
    )  # fmt: skip
    result = {key: own[key] for key in keys if key in own}
    if model.decoder.num_dims == 3:
        spatial = make_evaluator('chamfer', MetricOptions(PAPER_CATEGORIES, num_dims=3))
        for pair in _pairs(run / _TEST):
            spatial.add(*pair)
        result['chamfer_3d_map'] = report_dict(spatial)['mean_ap']
    turning = TurningEvaluator()
    for pair in _pairs(run / _TEST):
        turning.add(*pair)
    result['turning'] = turning.to_dict()
    if suite.extra_tests:
        extra = {}
        for title in suite.extra_tests:
            part = f'{_TEST}-{title}'
            summary = _predict(run, part, folders[part], [], device)
            extra[title] = {
                key: summary[key] for key in ('chamfer_map', 'per_category', 'frames_mapped')
            }
        result['extra'] = extra
    return result


def _predict(
    run: Path, part: str, drives: Path, metrics: list[str], device: str
) -> dict[str, Any]:
    """Return the summary of `gsmap predict`, scored by chamfer AP and other metrics."""
    _gsmap(
        'predict', str(drives), '--weights', str(run / 'model.safetensors'),
        '--out', str(run / part), '--figures', '0',
        '--metric', ','.join(['chamfer', *metrics]), '--device', device,
    )  # fmt: skip
    summary: dict[str, Any] = json.loads((run / part / 'summary.json').read_text(encoding='utf-8'))
    return summary


def _speed(
    suite: Suite, models: dict[str, ModelConfig], row: str, drives: Path, device: str
) -> dict[str, Any]:
    """Measure a row and the host in turn, when no training of this suite is running."""
    drive = min(drives.glob('*.mcap'))
    host = suite.speed_host
    speeds = measure_speed({host: models[host], row: models[row]}, drive, device)
    return {
        'parameters': speeds[row].parameters,
        'speed': {
            'frames_per_second': speeds[row].frames_per_second,
            'of_host': speeds[row].of_first,
            'host': host,
            'host_frames_per_second': speeds[host].frames_per_second,
        },
    }


def _training_cost(run: Path) -> dict[str, Any]:
    """Return how long a training took and how much memory.

    Time in which the machine slept is not counted: a window of steps that took more than ten times
    as long as the median counts as one of the median.
    """
    lines = (run / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    logged = [values for values in map(json.loads, lines) if 'trained_s' in values]
    windows = np.diff([0.0, *(values['trained_s'] for values in logged)])
    # A training that goes on from its last state logs some steps again.
    windows = windows[windows > 0]
    usual = float(np.median(windows))
    trained_s = float(np.where(windows > 10 * usual, usual, windows).sum())
    # Trainings begun by earlier versions do not tell.
    peaks = [values['peak_memory_mib'] for values in logged if 'peak_memory_mib' in values]
    return {
        'train_minutes': round(trained_s / 60.0, 2),
        **({'peak_memory_mib': max(peaks)} if peaks else {}),
    }


def _pretrained(
    suite: Suite,
    results: Path,
    folders: dict[str, Path],
    work: Path,
    args: argparse.Namespace,
    deadline: float | None,
) -> Path | None:
    """Return the weights that all rows start from, and keep a record of what they score.

    None: there are none, or the time ran out.
    """
    before = suite.pretraining
    if before is None:
        return None
    options = [
        '--config', before.config, '--recipe', suite.recipe, '--data', str(folders['pretrain']),
        '--steps', str(before.steps), '--set', f'seed={before.seed}',
    ]  # fmt: skip
    run = _train_once(work / 'runs', 'pretrained', options, args, deadline)
    if run is None:
        return None
    if read_pretraining(suite, results) is None:
        own = _predict(run, 'test', folders['pretrain-test'], [], args.device)
        scores = {key: own[key] for key in ('chamfer_map', 'per_category', 'frames_mapped')}
        record = {'settings': pretraining_settings(suite), **scores, **_training_cost(run)}
        results.mkdir(parents=True, exist_ok=True)
        write_atomically(results / PRETRAINING, (json.dumps(record, indent=1) + '\n').encode())
        print(f'pretrained: chamfer mAP {record["chamfer_map"]:.3f} in {before.setting} towns')
    return run / 'model.safetensors'


def _train(
    suite: Suite,
    row: str,
    seed: int,
    folders: dict[str, Path],
    work: Path,
    args: argparse.Namespace,
    deadline: float | None,
    start: Path | None,
) -> Path | None:
    """Train a row from the weights in `start`, if any; None where the time ran out."""
    chosen = suite.rows[row]
    _, recipe = resolve_row(suite, row)
    # Without validation the last averaged weights count: nothing is selected.
    options = [
        '--config', chosen.config, '--recipe', suite.recipe_of(row),
        *_data(chosen, recipe, folders), '--steps', str(suite.steps),
        *([] if start is None else ['--init', str(start), '--init-partly']),
        '--set', f'seed={seed}', *chosen.overrides,
    ]  # fmt: skip
    return _train_once(work / 'runs', f'{row}-seed{seed}', options, args, deadline)


def _train_once(
    runs: Path, name: str, options: list[str], args: argparse.Namespace, deadline: float | None
) -> Path | None:
    """Train, or go on with a training that was stopped; None where the time ran out."""
    run = runs / f'{name}-000'
    if (run / 'model.safetensors').exists():
        return run
    limit = []
    if deadline is not None:
        left = (deadline - time.monotonic()) / 60.0
        if left <= 0:
            return None
        limit = ['--max-minutes', f'{left:.2f}']
    if (run / 'last.pt').exists():
        options = ['--resume', str(run)]
    else:
        options = ['--out', str(runs), '--name', name, *options]
    _gsmap(
        'train', '--device', args.device, *limit, *options, processes=args.processes
    )  # fmt: skip
    return run if (run / 'model.safetensors').exists() else None


def _data(row: SuiteRow, recipe: TrainConfig, folders: dict[str, Path]) -> list[str]:
    """Return the options that name the drives of a row."""
    data = [str(folders['train'])]
    if row.label_percent < 100:
        bags = {path.stem: path for path in folders['train'].glob('*.mcap')}
        data = [str(bags[name]) for name in draw_labelled(list(bags), row.label_percent)]
    if recipe.contrastive is None:
        return ['--data', *data]
    return ['--data', *data, '--unlabelled', str(folders[_UNLABELLED])]


def _pairs(scored: Path) -> list[tuple[VectorMap, VectorMap]]:
    """Return predictions and ground truth that `gsmap predict` has written."""
    return pair_frames(
        read_map_file(scored / 'predictions.map.json'),
        read_map_file(scored / 'ground_truth.map.json'),
        'error',
    )


def _gsmap(*arguments: str, processes: int = 1) -> None:
    """Run another verb in a process of its own, so that memory and threads start anew.

    Args:
        arguments: of `gsmap`.
        processes: that train together under torchrun; 1: without it.

    Raises:
        TrainingError: it failed.
    """
    _LOGGER.info('gsmap %s', ' '.join(arguments))
    together = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}']
    command = [sys.executable, *(together if processes > 1 else [])]
    command += ['-m', 'gsmap_core.cli.main', *arguments]
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
