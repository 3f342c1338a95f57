"""Reports of an evaluation: a table to read, JSON to keep, precision-recall curves to look at.

Every report says in which reference frame and over which range it was measured.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsmap_core.categories import category_by_name
from gsmap_core.evaluation.chamfer import ChamferEvaluator, ChamferResult
from gsmap_core.evaluation.raster import (
    AREA_IOU,
    LINE_IOU,
    MAX_DETECTIONS,
    RasterEvaluator,
    RasterResult,
)

#: What can be reported on.
Evaluator = ChamferEvaluator | RasterEvaluator
Result = ChamferResult | RasterResult


def format_result(result: Result, title: str = '') -> str:
    """Return a table: one row per category, its AP at every threshold and their mean.

    Args:
        result: what was measured.
        title: first line; empty: the name of the metric.
    """
    if isinstance(result, RasterResult):
        return _format_raster(result, title or 'Raster average precision')
    return _format_chamfer(result, title or 'Chamfer average precision')


def _format_chamfer(result: ChamferResult, title: str) -> str:
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


def _format_raster(result: RasterResult, title: str) -> str:
    """Return the table; its columns stand for other IoUs with areas than with lines."""
    ious = [f'{line:.2f}/{area:.2f}' for line, area in zip(LINE_IOU, AREA_IOU, strict=True)]
    header = ['category', *ious, 'mean', 'recall', 'mIoU', 'truth', 'predicted']
    rows = [
        [
            name,
            *(_number(value) for value in result.ap[name].values()),
            _number(result.per_category[name]),
            _number(result.average_recall[name][MAX_DETECTIONS[-1]]),
            _number(result.frame_miou[name]),
            str(result.num_ground_truth[name]),
            str(result.num_predictions[name]),
        ]
        for name in result.categories
    ]
    totals = [sum(result.num_ground_truth.values()), sum(result.num_predictions.values())]
    total = ['mean', *[''] * len(ious), _number(result.mean_ap), '', '', *map(str, totals)]
    lines = [title, describe_conditions(result), '', *format_table(header, rows, total)]
    lines.append('columns: least IoU of lines/areas')
    absent = [name for name in result.categories if result.num_ground_truth[name] == 0]
    if absent:
        lines.append(f'no ground truth of {", ".join(absent)}: left out of the mean')
    return '\n'.join(lines)


def _number(value: float) -> str:
    return '-' if math.isnan(value) else f'{value:.3f}'


def format_scenes(scenes: Mapping[str, Result]) -> str:
    """Return a table with one row per scene: frames, AP of each category, mean."""
    names = next(iter(scenes.values())).categories
    header = ['scene', 'frames', *names, 'mean']
    rows = [
        [
            scene or '(none)',
            str(result.num_frames),
            *(_number(result.per_category[name]) for name in names),
            _number(result.mean_ap),
        ]
        for scene, result in scenes.items()
    ]
    return '\n'.join(format_table(header, rows))


def describe_conditions(result: Result) -> str:
    """Return one line: protocol, if there are several, frames, reference frame and range."""
    limits = result.range
    extent = (
        'unknown range'
        if limits is None
        else (
            f'x [{limits.x_min:g}, {limits.x_max:g}] m, y [{limits.y_min:g}, {limits.y_max:g}] m'
        )
    )
    protocol = f"protocol '{result.protocol}', " if isinstance(result, ChamferResult) else ''
    return f"{protocol}{result.num_frames} frames, reference frame '{result.reference}', {extent}"


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


def report_dict(evaluator: Evaluator) -> dict[str, Any]:
    """Return the whole result and that of every scene, as plain values for JSON."""
    report = evaluator.result().to_dict()
    report['scenes'] = {
        scene: {key: values[key] for key in ('num_frames', 'mean_ap', 'per_category')}
        for scene, values in (
            (name, evaluator.result(name).to_dict()) for name in evaluator.scenes
        )
    }
    return report


def write_report(folder: str | os.PathLike[str], evaluator: Evaluator) -> list[Path]:
    """Write JSON, table and curves into a folder.

    Args:
        folder: made if needed; files of these names are replaced.
        evaluator: with every frame added.

    Returns:
        The files: `chamfer.json`, `chamfer.txt` and `precision_recall.png`, or `raster.json`,
        `raster.txt` and `raster_precision_recall.png`.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    is_raster = isinstance(evaluator, RasterEvaluator)
    name, curves = (
        ('raster', 'raster_precision_recall') if is_raster else ('chamfer', 'precision_recall')
    )
    paths = [target / f'{name}.json', target / f'{name}.txt', target / f'{curves}.png']
    paths[0].write_text(json.dumps(report_dict(evaluator), indent=2) + '\n', encoding='utf-8')
    text = format_result(evaluator.result())
    if len(evaluator.scenes) > 1:
        text += '\n\n' + format_scenes({name: evaluator.result(name) for name in evaluator.scenes})
    paths[1].write_text(text + '\n', encoding='utf-8')
    draw_curves(evaluator, paths[2])
    return paths


def _panels(evaluator: Evaluator) -> tuple[str, list[tuple[str, dict[str, float]]]]:
    """Return the title and, per panel, its own title and the threshold of each category."""
    names = evaluator.categories
    if isinstance(evaluator, ChamferEvaluator):
        panels = [(f'within {t:g} m', dict.fromkeys(names, t)) for t in evaluator.thresholds_m]
        return 'Chamfer', panels
    all_ious = {name: list(table) for name, table in evaluator.result().ap.items()}
    loosest = {name: ious[0] for name, ious in all_ious.items()}
    strictest = {name: ious[-1] for name, ious in all_ious.items()}
    return 'Raster', [('loosest IoU', loosest), ('strictest IoU', strictest)]


def draw_curves(evaluator: Evaluator, path: Path) -> None:
    """Draw precision over recall, one panel per threshold, one line per category.

    Of the raster metric's thresholds the lowest and the highest are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    result = evaluator.result()
    metric, panels = _panels(evaluator)
    count = len(panels)
    figure = Figure(figsize=(4.2 * count, 4.4), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    for index, (title, thresholds) in enumerate(panels):
        axes = figure.add_subplot(1, count, index + 1)
        for name, threshold in thresholds.items():
            recall, precision = evaluator.curve(name, threshold)
            colour = tuple(value / 255 for value in category_by_name(name).colour_rgb)
            label = f'{name}  {_number(result.ap[name][threshold])}'
            axes.plot(recall, precision, color=colour, linewidth=2, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='recall', title=title)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc='upper right')
        if index == 0:
            axes.set_ylabel('precision')
    figure.suptitle(
        f'{metric} mAP {_number(result.mean_ap)}   ({describe_conditions(result)})', fontsize=10
    )
    figure.savefig(path)
