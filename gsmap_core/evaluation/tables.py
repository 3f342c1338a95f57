"""Results as tables of plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gsmap_core.evaluation.bev_iou import BevIouResult
from gsmap_core.evaluation.chamfer import ChamferResult
from gsmap_core.evaluation.consistency import ConsistencyResult
from gsmap_core.evaluation.flicker import FlickerResult
from gsmap_core.evaluation.line_geometry import GeometryResult
from gsmap_core.evaluation.metrics import Result
from gsmap_core.evaluation.raster import AREA_IOU, LINE_IOU, MAX_DETECTIONS, RasterResult
from gsmap_core.evaluation.stability import StabilityResult


def format_result(result: Result, title: str = '') -> str:
    """Return a table: one row per category, its values and their mean.

    Args:
        result: what was measured.
        title: first line; empty: the name of the metric.
    """
    if isinstance(result, RasterResult):
        return _format_raster(result, title or 'Raster average precision')
    if isinstance(result, BevIouResult):
        return _format_bev_iou(result, title or 'IoU of the BEV raster')
    if isinstance(result, GeometryResult):
        return _format_geometry(result, title or 'Lateral error and completeness of lines')
    if isinstance(result, StabilityResult):
        return _format_stability(result, title or 'Temporal stability')
    if isinstance(result, FlickerResult):
        return _format_flicker(result, title or 'Flicker')
    if isinstance(result, ConsistencyResult):
        return _format_chamfer(result, title or 'Consistency-aware average precision')
    return _format_chamfer(result, title or 'Chamfer average precision')


def headline(result: Result) -> float:
    """Return the number that stands for a result: mean over categories, of events their sum."""
    if isinstance(result, FlickerResult):
        return result.flicker_per_frame
    return result.mean_ap if isinstance(result, ChamferResult | RasterResult) else result.mean


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
    if isinstance(result, ConsistencyResult) and result.plain is not None:
        lines.append(f'without identities: {result.plain.mean_ap:.3f}')
        if result.linked:
            lines.append(f'identities made from the geometry: {", ".join(result.linked)}')
    return '\n'.join(lines)


def _format_raster(result: RasterResult, title: str) -> str:
    """Return the table; its columns stand for other IoUs with areas than with lines."""
    ious = [f'{line:.2f}/{area:.2f}' for line, area in zip(LINE_IOU, AREA_IOU, strict=True)]
    header = ['category', *ious, 'mean', 'recall', 'mIoU', 'truth', 'predicted']
    rows = [
        [
            name,
            *(format_number(value) for value in result.ap[name].values()),
            format_number(result.per_category[name]),
            format_number(result.average_recall[name][MAX_DETECTIONS[-1]]),
            format_number(result.frame_miou[name]),
            str(result.num_ground_truth[name]),
            str(result.num_predictions[name]),
        ]
        for name in result.categories
    ]
    totals = [sum(result.num_ground_truth.values()), sum(result.num_predictions.values())]
    total = ['mean', *[''] * len(ious), format_number(result.mean_ap), '', '', *map(str, totals)]
    lines = [title, describe_conditions(result), '', *format_table(header, rows, total)]
    lines.append('columns: least IoU of lines/areas')
    absent = [name for name in result.categories if result.num_ground_truth[name] == 0]
    if absent:
        lines.append(f'no ground truth of {", ".join(absent)}: left out of the mean')
    return '\n'.join(lines)


def _format_bev_iou(result: BevIouResult, title: str) -> str:
    rows = [
        [
            name,
            format_number(result.iou[name]),
            f'{result.intersection_m2[name]:.0f}',
            f'{result.union_m2[name]:.0f}',
        ]
        for name in result.categories
    ]
    header = ['category', 'IoU', 'both m2', 'either m2']
    total = ['mean', format_number(result.mean), '', '']
    lines = [title, describe_conditions(result), '', *format_table(header, rows, total)]
    return '\n'.join([*lines, f'predictions with a score of {result.min_score:g} or more'])


def _format_geometry(result: GeometryResult, title: str) -> str:
    """Return the table: one row per category and distance band, the whole range first."""
    header = [
        'category',
        'band m',
        'lateral m',
        'rms m',
        'complete',
        'correct',
        'true m',
        'pred m',
    ]
    rows = []
    for name in result.categories:
        for band, quality in {'all': result.overall[name], **result.bands[name]}.items():
            rows.append(
                [
                    name if band == 'all' else '',
                    band,
                    format_number(quality.lateral_error_m),
                    format_number(quality.lateral_rms_m),
                    format_number(quality.completeness),
                    format_number(quality.correctness),
                    f'{quality.true_length_m:.0f}',
                    f'{quality.predicted_length_m:.0f}',
                ]
            )
    total = ['mean', 'all', format_number(result.mean), *[''] * 5]
    lines = [title, describe_conditions(result), '', *format_table(header, rows, total)]
    lines.append(
        f'predictions with a score of {result.min_score:g} or more, lines within '
        f'{result.tolerance_m:g} m'
    )
    return '\n'.join(lines)


def _format_stability(result: StabilityResult, title: str) -> str:
    rows = [
        [
            name,
            format_number(result.jitter_m[name]),
            format_number(result.jitter_rms_m[name]),
            format_number(result.kept[name]),
            str(result.num_pairs[name]),
        ]
        for name in result.categories
    ]
    header = ['category', 'jitter m', 'rms m', 'kept', 'elements']
    total = ['mean', format_number(result.mean), '', '', str(sum(result.num_pairs.values()))]
    lines = [title, describe_conditions(result), '', *format_table(header, rows, total)]
    lines.append(
        f'{result.num_frame_pairs} pairs of consecutive frames, predictions with a score of '
        f'{result.min_score:g} or more'
    )
    if result.num_without_pose:
        lines.append(f'{result.num_without_pose} frames without a pose were passed over')
    return '\n'.join(lines)


def _format_flicker(result: FlickerResult, title: str) -> str:
    header = ['category', 'per frame', 'births', 'deaths', 'id changes', 'found', 'elements']
    counts = (result.births, result.deaths, result.id_changes)
    rows = [
        [
            name,
            format_number(result.per_category[name]),
            *(str(count[name]) for count in counts),
            format_number(result.found[name]),
            str(result.num_elements[name]),
        ]
        for name in result.categories
    ]
    total = [
        'all',
        format_number(result.flicker_per_frame),
        *(str(sum(count.values())) for count in counts),
        format_number(result.found_overall),
        str(sum(result.num_elements.values())),
    ]
    lines = [title, describe_conditions(result), '', *format_table(header, rows, total)]
    lines.append(
        f'{result.num_frame_pairs} pairs of consecutive frames, predictions with a score of '
        f'{result.min_score:g} or more within {result.max_distance_m:g} m'
        + (', their ids made here' if result.are_linked else '')
    )
    if result.num_without_pose:
        lines.append(f'{result.num_without_pose} frames without a pose were passed over')
    return '\n'.join(lines)


def format_number(value: float) -> str:
    """Return three decimals, a dash for NaN."""
    return '-' if math.isnan(value) else f'{value:.3f}'


def format_scenes(scenes: Mapping[str, Result]) -> str:
    """Return a table with one row per scene: frames, value of each category, headline."""
    first = next(iter(scenes.values()))
    names = first.categories
    header = ['scene', 'frames', *names, 'all' if isinstance(first, FlickerResult) else 'mean']
    rows = [
        [
            scene or '(none)',
            str(result.num_frames),
            *(format_number(result.per_category[name]) for name in names),
            format_number(headline(result)),
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
