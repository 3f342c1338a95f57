"""Writes the card of a shipped checkpoint from its training run and its scores on held-out towns.

    python tools/write_card.py RUN_DIR --test SUMMARY.json --baseline SUMMARY.json \
        --weights gsmap_core/weights/maptr_tiny.safetensors

The numbers stand between two markers and are rewritten; the text around them is kept. A model that
has no card yet gets one. The curve of the training is drawn into docs/images.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = '<!-- begin numbers -->', '<!-- end numbers -->'
CATEGORIES = ('divider', 'ped_crossing', 'boundary')
NEW_CARD = f"""# {{name}}

Configuration `config/models/{{name}}.yaml`, trained on synthetic drives only (`gsmap synth`). It
has never seen a real road and is not expected to map one.

{BEGIN}
{END}

![Training loss and validation score](../../docs/images/{{name}}_curve.png)
"""


def seed_ranges(names: list[str]) -> str:
    """Say which towns a list of drives went through."""
    seeds = sorted({int(name.split('-d')[0].rsplit('-', 1)[-1]) for name in names})
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ', '.join(str(a) if a == b else f'{a} to {b}' for a, b in runs)


def score_row(name: str, summary: dict[str, Any]) -> str:
    """Return one row of the table of scores."""
    values = [summary['chamfer_map'], *(summary['per_category'][key] for key in CATEGORIES)]
    return f'| {name} | ' + ' | '.join(f'{value:.3f}' for value in values) + ' |'


def numbers(
    metadata: dict[str, str],
    metrics: list[dict[str, Any]],
    test: dict[str, Any],
    baseline: dict[str, Any],
    environment: dict[str, Any],
    started_from: str,
) -> str:
    """Return the measured part of the card."""
    curve = [row for row in metrics if 'chamfer_map' in row]
    before = metrics[-1]['step'] - int(metadata['total_steps'])
    train, val = json.loads(metadata['train_drives']), json.loads(metadata['val_drives'])
    recipe = json.loads(metadata['recipe'])
    lines = [
        f'| Training | {metadata["train_frames"]} camera sets of {len(train)} synthetic drives |',
        '|---|---|',
        f'| Towns trained on | seeds {seed_ranges(train)} |',
        f'| Towns validated on | seeds {seed_ranges(val)} |',
        f'| Towns tested on | {test["drives"]} drives, {test["frames_mapped"]} camera sets |',
        f'| Steps | {metadata["step"]} of {metadata["total_steps"]}{_after(before)}, '
        f'batch {_batch(recipe, environment)}, {recipe["precision"]} |',
        f'| Time | {metrics[-1]["trained_s"] / 3600:.2f} h on {_machine(environment)} |',
        f'| Seed | {metadata["seed"]} |',
        f'| Started from | {started_from} |',
        f'| Pretrained backbone | {metadata["pretrained_backbone"]} |',
        '',
        'Chamfer AP as a fraction, mean over 0.5, 1.0 and 1.5 m; ego frame, x from -30 to 30 m, '
        'y from -15 to 15 m; towns that training never saw:',
        '',
        '| | mAP | divider | ped_crossing | boundary |',
        '|---|---|---|---|---|',
        score_row('this checkpoint', test),
        score_row('baseline without learning', baseline),
        '',
        'Validation during training:',
        '',
        '| Step | mAP | divider | ped_crossing | boundary |',
        '|---|---|---|---|---|',
    ]
    for row in curve:
        cells = [row['chamfer_map'], *(row['ap'][key] for key in CATEGORIES)]
        lines.append(f'| {row["step"]} | ' + ' | '.join(f'{cell:.3f}' for cell in cells) + ' |')
    return '\n'.join(lines)


def _after(steps: int) -> str:
    return f' after {steps} of the trainings before' if steps > 0 else ''


def joined(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Put the metrics of trainings that continue each other in one row.

    Every entry gets the time that had been trained by then (`trained_s`).
    """
    result: list[dict[str, Any]] = []
    step = seconds = 0.0
    for run in runs:
        within = 0.0
        for entry in run:
            within = entry.get('trained_s', within)
            so_far = {'step': int(step + entry['step']), 'trained_s': seconds + within}
            result.append({**entry, **so_far})
        step, seconds = step + run[-1]['step'], seconds + within
    return result


def _batch(recipe: dict[str, Any], environment: dict[str, Any]) -> int:
    if recipe['total_batch_size'] is not None:
        return int(recipe['total_batch_size'])
    processes = environment.get('processes', 1)
    return int(recipe['batch_size'] * recipe['accumulate_steps'] * processes)


def _machine(environment: dict[str, Any]) -> str:
    if environment.get('gpu'):
        return str(environment['gpu'])
    cores = environment['torch_threads'] * environment.get('processes', 1)
    return f'{cores} of {environment["cpu_count"]} CPU cores'


def draw_curve(metrics: list[dict[str, Any]], path: Path) -> None:
    """Draw loss and validation score over the steps."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    losses = [(row['step'], row['loss']['total']) for row in metrics if 'loss' in row]
    scores = [(row['step'], row['chamfer_map']) for row in metrics if 'chamfer_map' in row]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout='constrained')
    left.plot(*zip(*losses, strict=True), lw=1, color='#2e86de')
    left.set(xlabel='step', ylabel='training loss', yscale='log')
    right.plot(*zip(*scores, strict=True), 'o-', color='#26a65b')
    right.set(xlabel='step', ylabel='chamfer mAP, validation towns', ylim=(0, None))
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> int:
    """Write the card; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', type=Path, help='folder of the training')
    parser.add_argument(
        '--before',
        type=Path,
        nargs='+',
        default=[],
        help='trainings that it went on from, in order',
    )
    parser.add_argument('--test', type=Path, required=True, help='summary.json of gsmap predict')
    parser.add_argument('--baseline', type=Path, required=True, help='the same, classical engine')
    parser.add_argument('--weights', type=Path, required=True, help='the shipped checkpoint')
    args = parser.parse_args()

    from gsmap_core.models.checkpoint import load_checkpoint
    from gsmap_core.training.run_directory import RunDirectory

    metadata = load_checkpoint(args.weights).metadata
    runs = [*args.before, args.run]
    metrics = joined([RunDirectory(run).metrics() for run in runs])
    first = yaml.safe_load((runs[0] / 'config.yaml').read_text(encoding='utf-8'))
    started_from = Path(first.get('initial_weights') or 'random weights').name
    test, baseline = (json.loads(path.read_text()) for path in (args.test, args.baseline))
    picture = ROOT / 'docs' / 'images' / f'{args.weights.stem}_curve.png'
    draw_curve(metrics, picture)
    card = args.weights.with_suffix('.md')
    text = NEW_CARD.format(name=card.stem)
    if card.exists():
        text = card.read_text(encoding='utf-8')
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    environment = json.loads((args.run / 'environment.json').read_text(encoding='utf-8'))
    body = numbers(metadata, metrics, test, baseline, environment, started_from)
    card.write_text(f'{before}{BEGIN}\n{body}\n{END}{after}', encoding='utf-8')
    print(f'wrote {card} and {picture}')
    return 0


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
