"""The runs of a suite: drives, trainings, scores and speed, one record each."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from gsmap_core.cli.benchmark_occlusion import score_by_occlusion
from gsmap_core.cli.benchmark_prepare import make_drives, prepare_parts
from gsmap_core.cli.benchmark_records import (
    name_of_share,
    pretraining_path,
    pretraining_settings,
    read_pretraining,
    read_records,
    settings_of,
    write_record,
)
from gsmap_core.cli.benchmark_scores import (
    TEST,
    predict_drives,
    read_scored,
    run_gsmap,
    score_run,
    speed_of,
    training_cost,
)
from gsmap_core.config import config_path
from gsmap_core.data.traversal_splits import draw_labelled
from gsmap_core.errors import ConfigError
from gsmap_core.training.benchmark_dataset import load_dataset
from gsmap_core.training.recipe import TrainConfig, load_changed_recipe, split_assignments
from gsmap_core.training.run_directory import environment
from gsmap_core.training.suite import Suite, SuiteRow, check_rows, resolve_row

#: Drives past the same streets, of which only images and poses are used.
_UNLABELLED = 'unlabelled'


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
            built, processes cannot share its batch, or a record of other settings is in the way.
        TrainingError: one of the commands failed.
    """
    deadline = deadline or deadline_of(args)
    rows = _chosen(args.rows, list(suite.rows), 'row')
    seeds = _chosen(args.seeds, list(suite.seeds), 'seed')
    resolved = check_rows(suite)
    for row in rows:
        batch_shares(resolved[row][1], args.processes)
    models = {row: model for row, (model, _) in resolved.items()}
    records = read_records(suite, results)
    work = Path(args.work).resolve() / suite.name
    missing = [
        (row, seed)
        for seed in seeds
        for row in rows
        if not any(record['seed'] == seed for record in records[row])
    ]
    print(f'{suite.name}: {len(missing)} runs to do', file=sys.stderr)
    # Those of earlier versions tell neither size nor speed.
    incomplete = [
        (row, record) for row in suite.rows for record in records[row] if 'speed' not in record
    ]
    # Made once; every run is trained and scored on the same ones.
    folders = _all_drives(suite, work) if missing or incomplete else {}
    for row, record in incomplete:
        record |= speed_of(suite, models, row, folders[TEST], args.device)
        record.pop('frames_per_second', None)
        write_record(results / f'{row}-seed{record["seed"]}.json', record)
        ratio = record['speed']['of_host']
        print(f"{row}, seed {record['seed']}: {ratio:.2f} of the host's speed")
    if suite.by_occlusion:
        _add_occlusion(suite, records, results, work)
    for row, seed in missing:
        start = _pretrained(suite, row, results, folders, work, args, deadline)
        if start is None and suite.pretraining is not None:
            print(f'{suite.name}: stopped in the pretraining; call again to go on')
            return False
        run = _train(suite, row, seed, folders, work, args, deadline, start)
        if run is None:
            print(f'{suite.name}: stopped in {row}, seed {seed}; call again to go on')
            return False
        record = {
            'settings': settings_of(suite, row),
            'seed': seed,
            **score_run(suite, models[row], run, folders, args.device),
            **speed_of(suite, models, row, folders[TEST], args.device),
            **training_cost(run),
            'environment': _environment(args.processes),
        }
        write_record(results / f'{row}-seed{seed}.json', record)
        print(
            f'{row}, seed {seed}: chamfer mAP {record["chamfer_map"]:.3f}, '
            f'raster mAP {record["raster_map"]:.3f}'
        )
    return True


def _environment(processes: int) -> dict[str, Any]:
    """Return that of a record: it travels, and the paths in a command line should not."""
    return {k: v for k, v in environment().items() if k != 'command'} | {'processes': processes}


def batch_shares(recipe: TrainConfig, processes: int) -> list[str]:
    """Return what makes several processes take together what a row takes in one per step.

    Args:
        recipe: of the row.
        processes: that train together.

    Returns:
        Overrides of the recipe; none where it states `total_batch_size` already.

    Raises:
        ConfigError: they cannot share the batch equally.
    """
    if processes == 1 or recipe.total_batch_size is not None:
        return []
    sizes = {'batch_size': recipe.batch_size}
    if recipe.contrastive is not None:
        sizes['contrastive.pairs.per_batch'] = recipe.contrastive.pairs.per_batch
    for key, size in sizes.items():
        if size % processes:
            raise ConfigError(
                f'--processes {processes} cannot share {key} {size} of recipe '
                f"'{recipe.name}' equally; take a number that divides it"
            )
    return [f'{key}={size // processes}' for key, size in sizes.items()]


def _add_occlusion(
    suite: Suite, records: dict[str, list[dict[str, Any]]], results: Path, work: Path
) -> None:
    """Score runs of before the suite asked for it, where their predictions are still there."""
    for row, found in records.items():
        for record in found:
            name = f'{row}-seed{record["seed"]}'
            run = work / 'runs' / f'{name}-000'
            if 'by_occlusion' not in record and (run / TEST).is_dir():
                thirds = score_by_occlusion(read_scored(run / TEST), suite.parts()[TEST])
                write_record(results / f'{name}.json', record | {'by_occlusion': thirds})
                print(f'{row}, seed {record["seed"]}: scored by what vehicles hide')


def deadline_of(args: argparse.Namespace) -> float | None:
    """Return when to stop, as `time.monotonic()` counts, or None."""
    return None if args.max_minutes is None else time.monotonic() + 60.0 * args.max_minutes


def _chosen(wanted: list[Any] | None, known: list[Any], what: str) -> list[Any]:
    for item in wanted or ():
        if item not in known:
            raise ConfigError(f'{what} {item!r} is not in the suite; expected some of {known}')
    return wanted or known


def _all_drives(suite: Suite, work: Path) -> dict[str, Path]:
    """Make the drives that are not there yet; returns their folders.

    Those of a benchmark dataset are verified, and lie where other suites find them too. The cores
    render whatever trains: sixteen of them were four times as fast as sixteen processes that
    share a GPU.
    """
    parts = suite.parts()
    if suite.dataset:
        dataset = load_dataset(suite.dataset)
        names = {what: str(dataset.part_like(part)) for what, part in parts.items()}
        made = prepare_parts(suite.dataset, dict.fromkeys(names.values()), work.parent)
        return {what: made[name] for what, name in names.items()}
    folders = {what: work / 'drives' / what for what in parts}
    for what, part in parts.items():
        make_drives(part, folders[what])
    return folders


def _pretrained(
    suite: Suite,
    row: str,
    results: Path,
    folders: dict[str, Path],
    work: Path,
    args: argparse.Namespace,
    deadline: float | None,
) -> Path | None:
    """Return the weights that a row starts from, and keep a record of what they score.

    None: there are none, or the time ran out.
    """
    before = suite.pretraining
    if before is None:
        return None
    share = suite.pretrained_share(row)
    own = before.setting is None
    data = _labelled(folders['train'], share) if own else [str(folders['pretrain'])]
    recipe_sets, _ = split_assignments(suite.overrides)
    recipe = load_changed_recipe(config_path('train', suite.recipe), recipe_sets)
    options = [
        '--config', before.config, '--recipe', suite.recipe, '--data', *data,
        '--steps', str(before.steps), '--set', f'seed={before.seed}', *suite.overrides,
        *batch_shares(recipe, args.processes),
    ]  # fmt: skip
    name = name_of_share('pretrained', share)
    run = _train_once(work / 'runs', name, options, args, deadline)
    if run is None:
        return None
    if share not in read_pretraining(suite, results):
        test = folders[TEST if own else 'pretrain-test']
        scored = predict_drives(run, 'test', test, [], args.device)
        scores = {key: scored[key] for key in ('chamfer_map', 'per_category', 'frames_mapped')}
        record = {'settings': pretraining_settings(suite, share), **scores, **training_cost(run)}
        write_record(pretraining_path(results, share), record)
        print(f'{name}: chamfer mAP {record["chamfer_map"]:.3f}')
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
        '--set', f'seed={seed}', *suite.overrides_of(row), *batch_shares(recipe, args.processes),
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
        started = json.loads((run / 'environment.json').read_text('utf-8')).get('processes', 1)
        if started != args.processes:
            raise ConfigError(
                f'{run} was started with --processes {started} and would take other batches with '
                f'{args.processes}; go on with {started}, or remove the folder to begin anew'
            )
        options = ['--resume', str(run)]
    else:
        options = ['--out', str(runs), '--name', name, *options]
    run_gsmap(
        'train', '--device', args.device, *limit, *options, processes=args.processes
    )  # fmt: skip
    return run if (run / 'model.safetensors').exists() else None


def _data(row: SuiteRow, recipe: TrainConfig, folders: dict[str, Path]) -> list[str]:
    """Return the options that name the drives of a row."""
    data = _labelled(folders['train'], row.label_percent)
    if recipe.contrastive is None:
        return ['--data', *data]
    return ['--data', *data, '--unlabelled', str(folders[_UNLABELLED])]


def _labelled(folder: Path, percent: float) -> list[str]:
    """Return the drives of a folder that are a share of the labels; all: the folder itself."""
    if percent == 100:
        return [str(folder)]
    bags = {path.stem: path for path in folder.glob('*.mcap')}
    return [str(bags[name]) for name in draw_labelled(list(bags), percent)]
