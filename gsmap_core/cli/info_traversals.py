"""What `gsmap info --traversals` does: poses in; report, pictures, pairs and splits out."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import cv2

from gsmap_core.atomic_files import atomic_text_file
from gsmap_core.data.pose_files import collect_pose_tables
from gsmap_core.data.traversal_file import TraversalPlan, write_traversal_file
from gsmap_core.data.traversal_report import format_traversals, traversal_report
from gsmap_core.data.traversal_splits import LabelSplits, SplitConfig, make_label_splits
from gsmap_core.data.traversals import TraversalAnalysis, TraversalConfig, analyse_traversals
from gsmap_core.errors import DataError
from gsmap_core.viz.traversals import draw_histograms, draw_traversal_map

FILE_NAME = 'drives.traversals.json'


def report_traversals(args: argparse.Namespace) -> int:
    """Analyse the drives at `args.traversals`; returns the exit code."""
    config = TraversalConfig(min_iou=args.iou[0], max_iou=args.iou[1])
    split_config = SplitConfig(seed=args.seed)
    workers = args.workers or os.cpu_count() or 1
    tables, failed = collect_pose_tables(args.traversals, workers)
    analysis = analyse_traversals([table.thinned(args.every) for table in tables], config)
    try:
        splits = make_label_splits(analysis.drives, split_config)
    except DataError as error:
        splits = None
        print(f'gsmap: no label splits: {error}', file=sys.stderr)
    report = traversal_report(analysis, splits)
    report['failed'] = failed
    report['outputs'] = _write(Path(args.out), analysis, splits, report) if args.out else []
    if args.json:
        print(json.dumps(report))
    else:
        print(format_traversals(report), end='')
        print('\n'.join(report['outputs']))
    for reason in failed.values():
        print(f'gsmap: left out: {reason}', file=sys.stderr)
    return 0


def _write(
    out: Path, analysis: TraversalAnalysis, splits: LabelSplits | None, report: dict[str, Any]
) -> list[str]:
    """Write everything into a folder and return the paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in (FILE_NAME, 'report.json', 'report.md', 'histograms.png')]
    plan = TraversalPlan(analysis.config, analysis.drives, analysis.pairs, splits)
    write_traversal_file(paths[0], plan)
    for path, text in (
        (paths[1], json.dumps(report, indent=1) + '\n'),
        (paths[2], format_traversals(report)),
    ):
        with atomic_text_file(path) as stream:
            stream.write(text)
    draw_histograms(report['histograms'], paths[3])
    return [str(path) for path in (*paths, *_draw_maps(out, analysis))]


def _draw_maps(out: Path, analysis: TraversalAnalysis) -> list[Path]:
    """Draw one map per place."""
    paths: list[Path] = []
    for place in sorted({drive.place for drive in analysis.drives}):
        chosen = [i for i, drive in enumerate(analysis.drives) if drive.place == place]
        image = draw_traversal_map(
            [analysis.polygons[i] for i in chosen],
            [analysis.tables[i].map_from_base[:, :2, 3] for i in chosen],
            [analysis.drives[i].is_multi_traversal for i in chosen],
            title=place or 'Traversals',
        )
        name = re.sub(r'[^A-Za-z0-9._-]+', '_', place)
        path = out / (f'map_{name}.png' if name else 'map.png')
        # Names that differ in other letters only must not share a picture.
        paths.append(path if path not in paths else path.with_stem(f'{path.stem}_{len(paths)}'))
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return paths
