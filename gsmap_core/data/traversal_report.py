"""Reports of traversal analyses: numbers and histograms as JSON values, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gsmap_core.data.traversal_splits import LabelSplits
from gsmap_core.data.traversals import TraversalAnalysis
from gsmap_core.structures import FloatArray

_UNNAMED = '(no name)'


def traversal_report(
    analysis: TraversalAnalysis, splits: LabelSplits | None = None
) -> dict[str, Any]:
    """Return what was found, as plain JSON values.

    `histograms` maps a quantity to `{"title", "unit", "edges", "counts"}`: N + 1 edges, N counts;
    the last bin includes its upper edge.

    Args:
        analysis: of `analyse_traversals`.
        splits: label splits, if there are any.
    """
    config, pairs, drives = analysis.config, analysis.pairs, analysis.drives
    multi = np.array([drive.is_multi_traversal for drive in drives])
    paired = np.zeros(len(drives), dtype=bool)
    paired[pairs.reference_drive] = paired[pairs.adjacent_drive] = True
    extent = config.extent
    return {
        'range': {'x': [extent.x_min, extent.x_max], 'y': [extent.y_min, extent.y_max]},
        'iou': [config.min_iou, config.max_iou],
        'min_overlap_m2': config.min_overlap_m2,
        'drives': len(drives),
        'frames': sum(drive.num_frames for drive in drives),
        'multi_traversal_drives': int(multi.sum()),
        'single_traversal_drives': int((~multi).sum()),
        'overlapping_pairs_of_drives': len(analysis.overlaps),
        'pairs': len(pairs),
        'frames_in_pairs': int((_pairs_per_frame(analysis) > 0).sum()),
        'multi_traversal_drives_without_pairs': [
            drive.name
            for drive, is_paired in zip(drives, paired, strict=True)
            if drive.is_multi_traversal and not is_paired
        ],
        'places': _places(analysis, multi),
        'histograms': _histograms(analysis, multi),
        'splits': None if splits is None else _splits(analysis, splits),
    }


def _places(analysis: TraversalAnalysis, multi: npt.NDArray[np.bool_]) -> dict[str, Any]:
    names = np.array([drive.place for drive in analysis.drives], dtype=object)
    pair_places = names[analysis.pairs.reference_drive]
    result = {}
    for place in sorted(set(names)):
        here = np.flatnonzero(names == place)
        result[place or _UNNAMED] = {
            'drives': len(here),
            'multi_traversal': int(multi[here].sum()),
            'frames': sum(analysis.drives[index].num_frames for index in here),
            'pairs': int((pair_places == place).sum()),
            'seen_km2': round(sum(analysis.polygons[i].area for i in here) * 1e-6, 4),
        }
    return result


def _histograms(
    analysis: TraversalAnalysis, multi: npt.NDArray[np.bool_]
) -> dict[str, dict[str, Any]]:
    config, pairs = analysis.config, analysis.pairs
    overlapping = np.array([len(drive.overlaps) for drive in analysis.drives])
    distance, turn = _pair_geometry(analysis)
    reach = float(np.ceil(distance.max(initial=1.0)))
    of_multi = np.repeat(multi, [drive.num_frames for drive in analysis.drives])
    per_frame = _pairs_per_frame(analysis)[of_multi]
    limits = np.linspace(config.min_iou, config.max_iou, 25)
    if config.min_iou == config.max_iou:
        limits = np.array([config.min_iou - 0.01, config.max_iou + 0.01])
    return {
        'overlapping_drives': _histogram(
            'drives that overlap a drive', 'drives', overlapping, _count_edges(overlapping)
        ),
        'pair_iou': _histogram(
            'IoU of the pairs', '', np.clip(pairs.iou, limits[0], limits[-1]), limits
        ),
        'pairs_per_frame': _histogram(
            'pairs of a frame of a multi-traversal drive',
            'pairs',
            per_frame,
            _count_edges(per_frame),
        ),
        'pair_distance': _histogram(
            'distance of the vehicles of a pair', 'm', distance, np.linspace(0.0, reach, 25)
        ),
        'pair_heading': _histogram(
            'angle between the headings of a pair', 'deg', turn, np.linspace(0.0, 180.0, 25)
        ),
    }


def _histogram(title: str, unit: str, values: npt.ArrayLike, edges: FloatArray) -> dict[str, Any]:
    counts, _ = np.histogram(values, edges)
    rounded = np.round(edges, 6).tolist()
    return {'title': title, 'unit': unit, 'edges': rounded, 'counts': counts.tolist()}


def _count_edges(values: npt.NDArray[np.int64]) -> FloatArray:
    """Return edges between whole numbers from 0 on: at most 40 bins of one width."""
    top = int(values.max()) if len(values) else 0
    width = 1 + top // 40
    return np.arange(0, top + width + 1, width) - 0.5


def _pairs_per_frame(analysis: TraversalAnalysis) -> npt.NDArray[np.int64]:
    """Return how many pairs each frame is in, for all frames of all drives in order."""
    rows = np.concatenate(_pair_rows(analysis))
    return np.bincount(rows, minlength=sum(len(table) for table in analysis.tables))


def _pair_rows(analysis: TraversalAnalysis) -> list[npt.NDArray[np.intp]]:
    """Return where the (E,) reference and adjacent frames are among all frames of all drives."""
    tables, pairs = analysis.tables, analysis.pairs
    # One ascending number per frame, so that one search finds them all.
    base = 1 + max(drive.last_frame for drive in analysis.drives)
    keys = np.concatenate([number * base + table.frames for number, table in enumerate(tables)])
    return [
        np.searchsorted(keys, pairs.reference_drive * base + pairs.reference_frame),
        np.searchsorted(keys, pairs.adjacent_drive * base + pairs.adjacent_frame),
    ]


def _pair_geometry(analysis: TraversalAnalysis) -> tuple[FloatArray, FloatArray]:
    """Return the (E,) distances [m] and angles between headings, 0 to 180 [deg], of the pairs."""
    poses = np.concatenate([table.map_from_base for table in analysis.tables])
    yaw = np.arctan2(poses[:, 1, 0], poses[:, 0, 0])
    first, second = _pair_rows(analysis)
    distance = np.linalg.norm(poses[first, :2, 3] - poses[second, :2, 3], axis=-1)
    turn = np.abs(np.remainder(yaw[first] - yaw[second] + np.pi, 2 * np.pi) - np.pi)
    return distance, np.rad2deg(turn)


def _splits(analysis: TraversalAnalysis, splits: LabelSplits) -> dict[str, Any]:
    frames = {drive.name: drive.num_frames for drive in analysis.drives}

    def count(names: Sequence[str]) -> dict[str, int]:
        return {'drives': len(names), 'frames': sum(frames[name] for name in names)}

    return {
        'seed': splits.seed,
        'val_share': splits.val_share,
        'unlabelled': count(splits.unlabelled),
        'ratios': [
            {
                'percent': split.ratio_percent,
                'labelled': count(split.labelled),
                'validation': count(split.validation),
            }
            for split in splits.splits
        ],
    }


def format_traversals(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown, ending with a newline."""
    x, y = report['range']['x'], report['range']['y']
    unpaired = report['multi_traversal_drives_without_pairs']
    lines = [
        '# Traversals',
        '',
        f'- perception boxes: x {x[0]:g} to {x[1]:g} m, y {y[0]:g} to {y[1]:g} m around each pose',
        f'- drives: {report["drives"]} with {report["frames"]} frames; '
        f'{report["multi_traversal_drives"]} multi-traversal, '
        f'{report["single_traversal_drives"]} single-traversal '
        f'(polygons that share {report["min_overlap_m2"]:g} m2 or more)',
        f'- pairs of frames with IoU {report["iou"][0]:g} to {report["iou"][1]:g}: '
        f'{report["pairs"]}, between {report["overlapping_pairs_of_drives"]} pairs of drives; '
        f'{report["frames_in_pairs"]} frames are in one',
        f'- multi-traversal drives without pairs: {", ".join(unpaired) or "none"}',
        '',
        '| place | drives | multi-traversal | frames | pairs | seen [km2, per drive added up] |',
        '|---|---|---|---|---|---|',
    ]
    for name, place in report['places'].items():
        lines.append(f'| {name} | {" | ".join(str(value) for value in place.values())} |')
    lines += ['', *_split_lines(report['splits'])]
    for item in report['histograms'].values():
        if any(item['counts']):
            lines += ['', *_histogram_lines(item)]
    return '\n'.join(lines) + '\n'


def _split_lines(splits: Mapping[str, Any] | None) -> list[str]:
    if splits is None:
        return ['No label splits: they need at least two single-traversal drives.']
    rule = (
        'those that are not labelled validate'
        if splits['val_share'] is None
        else f'a share of {splits["val_share"]:g} validates, the same at every ratio'
    )
    lines = [
        f'Label splits with seed {splits["seed"]}: single-traversal drives only; {rule}. '
        f'Unlabelled at every ratio: all {splits["unlabelled"]["drives"]} multi-traversal drives, '
        f'{splits["unlabelled"]["frames"]} frames.',
        '',
        '| labels | labelled drives | frames | validation drives | frames |',
        '|---|---|---|---|---|',
    ]
    for item in splits['ratios']:
        numbers = [*item['labelled'].values(), *item['validation'].values()]
        lines.append(f'| {item["percent"]:g} % | {" | ".join(map(str, numbers))} |')
    return lines


def _histogram_lines(item: Mapping[str, Any]) -> list[str]:
    """Return a histogram as a table, empty bins left out."""
    unit = f' [{item["unit"]}]' if item['unit'] and item['unit'] not in item['title'] else ''
    lines = [f'| {item["title"]}{unit} | count |', '|---|---|']
    whole = item['unit'] in ('drives', 'pairs')
    for low, high, count in zip(
        item['edges'][:-1], item['edges'][1:], item['counts'], strict=True
    ):
        if not count:
            continue
        if whole:
            first, last = round(low + 0.5), round(high - 0.5)
            label = f'{first}' if first == last else f'{first} to {last}'
        else:
            label = f'{low:.4g} to {high:.4g}'
        lines.append(f'| {label} | {count} |')
    return lines
