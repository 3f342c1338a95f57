"""`gsmap evaluate`: score predicted map files against ground truth."""

from __future__ import annotations

import argparse

#: Metrics by name; the ones that are not there yet are named so that the error can say it.
METRICS = ('chamfer',)
PLANNED_METRICS = ('raster', 'consistency')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('predictions', metavar='PRED.map.json', help='predicted map file')
    parser.add_argument('ground_truth', metavar='GT.map.json', help='ground-truth map file')
    parser.add_argument(
        '--metric', default='chamfer', help=f'what to compute: {", ".join(METRICS)}'
    )
    parser.add_argument(
        '--protocol',
        default='maptr',
        help='whose evaluator to follow: maptr, maptr_v2 or streammapnet',
    )
    parser.add_argument(
        '--thresholds',
        type=float,
        nargs='+',
        default=None,
        metavar='M',
        help='chamfer distances that count as found [m]; default: 0.5 1.0 1.5',
    )
    parser.add_argument(
        '--categories',
        nargs='+',
        default=None,
        metavar='NAME',
        help='categories to score; default: divider ped_crossing boundary',
    )
    parser.add_argument(
        '--missing',
        choices=('error', 'empty'),
        default='error',
        help='a ground-truth frame without prediction is an error, or counts as empty',
    )
    parser.add_argument('--out', metavar='DIR', help='also write JSON, table and curves there')
    parser.add_argument('--json', action='store_true', help='print the result as JSON')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import json
    import sys

    from tqdm import tqdm

    from gsmap_core.categories import PAPER_CATEGORIES
    from gsmap_core.errors import ConfigError
    from gsmap_core.evaluation.chamfer import (
        DEFAULT_THRESHOLDS_M,
        ChamferEvaluator,
        pair_frames,
    )
    from gsmap_core.evaluation.report import (
        format_result,
        format_scenes,
        report_dict,
        write_report,
    )
    from gsmap_core.mapfile import read_map_file

    if args.metric in PLANNED_METRICS:
        raise ConfigError(
            f'--metric {args.metric}: not part of this version; expected {", ".join(METRICS)}'
        )
    if args.metric not in METRICS:
        raise ConfigError(f"--metric '{args.metric}': unknown; expected {', '.join(METRICS)}")
    evaluator = ChamferEvaluator(
        tuple(args.categories or PAPER_CATEGORIES),
        tuple(args.thresholds or DEFAULT_THRESHOLDS_M),
        args.protocol,
    )
    pairs = pair_frames(
        read_map_file(args.predictions), read_map_file(args.ground_truth), args.missing
    )
    for prediction, truth in tqdm(pairs, desc='evaluate', unit='frame', file=sys.stderr):
        evaluator.add(prediction, truth)
    files = write_report(args.out, evaluator) if args.out else []
    if args.json:
        report = report_dict(evaluator)
        report['outputs'] = [str(path) for path in files]
        print(json.dumps(report))
        return 0
    print(format_result(evaluator.result()))
    if len(evaluator.scenes) > 1:
        print()
        print(format_scenes({name: evaluator.result(name) for name in evaluator.scenes}))
    for path in files:
        print(f'wrote {path}')
    return 0
