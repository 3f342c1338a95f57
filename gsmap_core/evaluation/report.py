"""Reports of an evaluation: a table to read, JSON to keep, precision-recall curves to look at.

Every report says in which reference frame and over which range it was measured.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gsmap_core.categories import category_by_name
from gsmap_core.evaluation.chamfer import ChamferEvaluator, ChamferResult


def format_result(result: ChamferResult, title: str = 'Chamfer average precision') -> str:
    """Return a table: one row per category, one column per threshold, their means.

    Args:
        result: what was measured.
        title: first line.
    """
    header = ['category', *(f'{t:g} m' for t in result.thresholds_m), 'mean', 'truth', 'predicted']
    rows = [
        [
            name,
            *(f'{result.ap[name][t]:.3f}' for t in result.thresholds_m),
            f'{result.per_category[name]:.3f}',
            str(result.num_ground_truth[name]),
            str(result.num_predictions[name]),
        ]
        for name in result.categories
    ]
    total = [
        'mean',
        *(f'{result.per_threshold[t]:.3f}' for t in result.thresholds_m),
        f'{result.mean_ap:.3f}',
        str(sum(result.num_ground_truth.values())),
        str(sum(result.num_predictions.values())),
    ]
    lines = [title, describe_conditions(result), '', *format_table(header, rows, total)]
    absent = [name for name in result.categories if result.num_ground_truth[name] == 0]
    if absent:
        lines.append(f'no ground truth of {", ".join(absent)}: counted as 0 in the mean')
    return '\n'.join(lines)


def format_scenes(scenes: dict[str, ChamferResult]) -> str:
    """Return a table with one row per scene: frames, AP of each category, mean."""
    names = next(iter(scenes.values())).categories
    header = ['scene', 'frames', *names, 'mean']
    rows = [
        [
            scene or '(none)',
            str(result.num_frames),
            *(f'{result.per_category[name]:.3f}' for name in names),
            f'{result.mean_ap:.3f}',
        ]
        for scene, result in scenes.items()
    ]
    return '\n'.join(format_table(header, rows))


def describe_conditions(result: ChamferResult) -> str:
    """Return one line: protocol, frames, reference frame and range."""
    limits = result.range
    extent = (
        'unknown range'
        if limits is None
        else (
            f'x [{limits.x_min:g}, {limits.x_max:g}] m, y [{limits.y_min:g}, {limits.y_max:g}] m'
        )
    )
    return (
        f"protocol '{result.protocol}', {result.num_frames} frames, "
        f"reference frame '{result.reference}', {extent}"
    )


def format_table(
    header: list[str], rows: list[list[str]], total: list[str] | None = None
) -> list[str]:
    """Return the lines of a table: first column to the left, the others to the right."""
    every = [header, *rows, *([total] if total else [])]
    widths = [max(len(row[i]) for row in every) for i in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        return '  '.join(
            cells + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        )

    rule = '-' * (sum(widths) + 2 * (len(widths) - 1))
    lines = [line(header), rule, *(line(row) for row in rows)]
    return [*lines, rule, line(total)] if total else lines


def report_dict(evaluator: ChamferEvaluator) -> dict[str, Any]:
    """Return the whole result and that of every scene, as plain values for JSON."""
    report = evaluator.result().to_dict()
    report['scenes'] = {
        scene: {
            'num_frames': result.num_frames,
            'mean_ap': result.mean_ap,
            'per_category': result.per_category,
        }
        for scene, result in ((name, evaluator.result(name)) for name in evaluator.scenes)
    }
    return report


def write_report(folder: str | os.PathLike[str], evaluator: ChamferEvaluator) -> list[Path]:
    """Write `chamfer.json`, `chamfer.txt` and `precision_recall.png` into a folder.

    Args:
        folder: made if needed; files of these names are replaced.
        evaluator: with every frame added.

    Returns:
        The files.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / name for name in ('chamfer.json', 'chamfer.txt', 'precision_recall.png')]
    paths[0].write_text(json.dumps(report_dict(evaluator), indent=2) + '\n', encoding='utf-8')
    text = format_result(evaluator.result())
    if len(evaluator.scenes) > 1:
        text += '\n\n' + format_scenes({name: evaluator.result(name) for name in evaluator.scenes})
    paths[1].write_text(text + '\n', encoding='utf-8')
    draw_curves(evaluator, paths[2])
    return paths


def draw_curves(evaluator: ChamferEvaluator, path: Path) -> None:
    """Draw precision over recall, one panel per threshold, one line per category."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    result = evaluator.result()
    count = len(result.thresholds_m)
    figure = Figure(figsize=(4.2 * count, 4.4), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    for index, threshold in enumerate(result.thresholds_m):
        axes = figure.add_subplot(1, count, index + 1)
        for name in result.categories:
            recall, precision = evaluator.curve(name, threshold)
            colour = tuple(value / 255 for value in category_by_name(name).colour_rgb)
            label = f'{name}  {result.ap[name][threshold]:.3f}'
            axes.plot(recall, precision, color=colour, linewidth=2, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='recall', title=f'within {threshold:g} m')
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc='upper right')
        if index == 0:
            axes.set_ylabel('precision')
    figure.suptitle(
        f'Chamfer mAP {result.mean_ap:.3f}   ({describe_conditions(result)})', fontsize=10
    )
    figure.savefig(path)
