"""`gsmap evaluate`: score predicted map files against ground truth."""

from __future__ import annotations

import argparse

#: Metrics by name; the ones that are not there yet are named so that the error can say it.
METRICS = ('chamfer', 'raster')
PLANNED_METRICS = ('consistency',)


def add_metric_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--metric`; see `metric_names` for what it holds."""
    parser.add_argument(
        '--metric',
        type=lambda text: text.split(','),
        action='extend',
        default=None,
        metavar='NAME',
        help=f'what to compute: {", ".join(METRICS)}; several with commas; default: chamfer',
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('predictions', metavar='PRED.map.json', help='predicted map file')
    parser.add_argument('ground_truth', metavar='GT.map.json', help='ground-truth map file')
    add_metric_argument(parser)
    parser.add_argument(
        '--protocol',
        default='maptr',
        help='whose chamfer evaluator to follow: maptr, maptr_v2 or streammapnet',
    )
    parser.add_argument(
        '--dims',
        type=int,
        choices=(2, 3),
        default=2,
        help='chamfer distances in the plane, or in space (both files need heights)',
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


def metric_names(given: list[str] | None) -> list[str]:
    """Return the metrics asked for, each once.

    Raises:
        ConfigError: one of them does not exist.
    """
    from gsmap_core.errors import ConfigError

    names = given or [METRICS[0]]
    for name in names:
        if name in PLANNED_METRICS:
            raise ConfigError(
                f'--metric {name}: not part of this version; expected {", ".join(METRICS)}'
            )
        if name not in METRICS:
            raise ConfigError(f"--metric '{name}': unknown; expected {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import json
    import sys

    from tqdm import tqdm

    from gsmap_core.categories import PAPER_CATEGORIES
    from gsmap_core.evaluation.chamfer import DEFAULT_THRESHOLDS_M, ChamferEvaluator
    from gsmap_core.evaluation.frames import pair_frames
    from gsmap_core.evaluation.raster import RasterEvaluator
    from gsmap_core.evaluation.reliability import (
        ReliabilityEvaluator,
        format_reliability,
        write_reliability,
    )
    from gsmap_core.evaluation.report import (
        Evaluator,
        format_result,
        format_scenes,
        report_dict,
        write_report,
    )
    from gsmap_core.mapfile import read_map_file

    categories = tuple(args.categories or PAPER_CATEGORIES)
    evaluators: dict[str, Evaluator] = {}
    for name in metric_names(args.metric):
        if name == 'chamfer':
            thresholds = tuple(args.thresholds or DEFAULT_THRESHOLDS_M)
            evaluators[name] = ChamferEvaluator(categories, thresholds, args.protocol, args.dims)
        else:
            evaluators[name] = RasterEvaluator(categories)
    reliability = ReliabilityEvaluator(categories)
    pairs = pair_frames(
        read_map_file(args.predictions), read_map_file(args.ground_truth), args.missing
    )
    for prediction, truth in tqdm(pairs, desc='evaluate', unit='frame', file=sys.stderr):
        for evaluator in evaluators.values():
            evaluator.add(prediction, truth)
        reliability.add(prediction, truth)
    files = [
        path
        for evaluator in evaluators.values()
        for path in (write_report(args.out, evaluator) if args.out else [])
    ]
    has_covariances = reliability.has_vertices
    if args.out and has_covariances:
        files += write_reliability(args.out, reliability)
    if args.json:
        reports = {name: report_dict(evaluator) for name, evaluator in evaluators.items()}
        # One metric is the report itself, several are reports by name.
        report = reports if len(reports) > 1 else next(iter(reports.values()))
        if has_covariances:
            report['reliability'] = reliability.to_dict()
        print(json.dumps({**report, 'outputs': [str(path) for path in files]}))
        return 0
    for index, evaluator in enumerate(evaluators.values()):
        if index:
            print()
        print(format_result(evaluator.result()))
        if len(evaluator.scenes) > 1:
            print()
            print(format_scenes({name: evaluator.result(name) for name in evaluator.scenes}))
    if has_covariances:
        print('\n' + format_reliability(reliability))
    for path in files:
        print(f'wrote {path}')
    return 0
