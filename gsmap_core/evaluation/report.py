"""Reports of an evaluation: a table to read, JSON to keep, precision-recall curves to look at.

Every report says in which reference frame and over which range it was measured.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gsmap_core.categories import category_by_name
from gsmap_core.evaluation.chamfer import ChamferEvaluator
from gsmap_core.evaluation.consistency import ConsistencyEvaluator
from gsmap_core.evaluation.metrics import Evaluator
from gsmap_core.evaluation.raster import RasterEvaluator
from gsmap_core.evaluation.tables import (
    describe_conditions,
    format_number,
    format_result,
    format_scenes,
)

#: Metrics that have precision-recall curves.
_CurveEvaluator = ChamferEvaluator | RasterEvaluator | ConsistencyEvaluator
_SCENE_KEYS = ('num_frames', 'mean_ap', 'mean', 'flicker_per_frame', 'per_category')


def report_dict(evaluator: Evaluator) -> dict[str, Any]:
    """Return the whole result and that of every scene, as plain values for JSON."""
    report = evaluator.result().to_dict()
    report['scenes'] = {
        scene: {key: values[key] for key in _SCENE_KEYS if key in values}
        for scene, values in (
            (name, evaluator.result(name).to_dict()) for name in evaluator.scenes
        )
    }
    return report


def write_report(folder: str | os.PathLike[str], evaluator: Evaluator) -> list[Path]:
    """Write JSON, table and, for an average precision, curves into a folder.

    Args:
        folder: made if needed; files of these names are replaced.
        evaluator: with every frame added.

    Returns:
        The files, named after the metric: `raster.json`, `raster.txt` and
        `raster_precision_recall.png`; chamfer's curves are `precision_recall.png`.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    report = report_dict(evaluator)
    name = report['metric']
    paths = [target / f'{name}.json', target / f'{name}.txt']
    paths[0].write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    text = format_result(evaluator.result())
    if len(evaluator.scenes) > 1:
        text += '\n\n' + format_scenes({name: evaluator.result(name) for name in evaluator.scenes})
    paths[1].write_text(text + '\n', encoding='utf-8')
    if isinstance(evaluator, _CurveEvaluator):
        prefix = '' if name == 'chamfer' else f'{name}_'
        paths.append(target / f'{prefix}precision_recall.png')
        draw_curves(evaluator, paths[-1])
    return paths


def _panels(evaluator: _CurveEvaluator) -> tuple[str, list[tuple[str, dict[str, float]]]]:
    """Return the title and, per panel, its own title and the threshold of each category."""
    names = evaluator.categories
    if not isinstance(evaluator, RasterEvaluator):
        panels = [(f'within {t:g} m', dict.fromkeys(names, t)) for t in evaluator.thresholds_m]
        return 'Chamfer' if isinstance(evaluator, ChamferEvaluator) else 'Consistency', panels
    all_ious = {name: list(table) for name, table in evaluator.result().ap.items()}
    loosest = {name: ious[0] for name, ious in all_ious.items()}
    strictest = {name: ious[-1] for name, ious in all_ious.items()}
    return 'Raster', [('loosest IoU', loosest), ('strictest IoU', strictest)]


def draw_curves(evaluator: _CurveEvaluator, path: Path) -> None:
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
            label = f'{name}  {format_number(result.ap[name][threshold])}'
            axes.plot(recall, precision, color=colour, linewidth=2, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='recall', title=title)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc='upper right')
        if index == 0:
            axes.set_ylabel('precision')
    figure.suptitle(
        f'{metric} mAP {format_number(result.mean_ap)}   ({describe_conditions(result)})',
        fontsize=10,
    )
    figure.savefig(path)
