"""`gsmap benchmark`: train the rows of a suite under equal conditions and compare them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gsmap_core.errors import ConfigError

if TYPE_CHECKING:
    from gsmap_core.training.suite import Suite


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)
    run_parser = actions.add_parser('run', help='train and score what has no record yet')
    report = actions.add_parser('report', help='write the tables of what has a record')
    prepare = actions.add_parser('prepare', help='make and verify the drives of a dataset')
    prepare.add_argument('dataset', metavar='DATASET', help='a name of config/datasets or a YAML')
    prepare.add_argument(
        '--out', default='out/benchmark', metavar='DIR', help='drives go to DIR/DATASET/PART'
    )
    prepare.add_argument('--parts', nargs='+', metavar='NAME', help='only these parts')
    prepare.add_argument('--device', default='cpu', help='where to render: cpu or cuda (cpu)')
    prepare.add_argument('--workers', type=int, metavar='N', help='processes (one per core)')
    what = prepare.add_mutually_exclusive_group()
    what.add_argument(
        '--hashes-only',
        action='store_true',
        help='compare towns, trajectories and ground truth; render nothing',
    )
    what.add_argument(
        '--write-hashes', action='store_true', help='for a new dataset: write its hashes down'
    )
    for action in (run_parser, report):
        action.add_argument(
            'suite',
            metavar='SUITE',
            help='a name of config/benchmarks or a YAML; or small or full (config/collections)',
        )
        action.add_argument(
            '--results',
            metavar='DIR',
            help='folder of the records, one JSON per run (out/benchmark/SUITE/records); of small '
            'and full: the folder over those of the suites',
        )
    run_parser.add_argument(
        '--work', default='out/benchmark', metavar='DIR', help='drives and trainings go there'
    )
    run_parser.add_argument('--rows', nargs='+', metavar='NAME', help='only these rows')
    run_parser.add_argument('--seeds', nargs='+', type=int, metavar='N', help='only these seeds')
    run_parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    run_parser.add_argument(
        '--processes',
        type=int,
        default=1,
        metavar='N',
        help='train with N together (torchrun), which share the batch of a row',
    )
    run_parser.add_argument(
        '--max-minutes',
        type=float,
        metavar='M',
        help='stop after this time; called again it goes on where it was',
    )
    report.add_argument('--out', metavar='MD', help='write the report there instead of printing')
    report.add_argument(
        '--plot',
        metavar='PNG',
        help='draw scores over the share of labels (mapgclr suites), or the claims (small, full)',
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from gsmap_core.cli.benchmark_prepare import run_prepare
    from gsmap_core.cli.benchmark_run import run_suite
    from gsmap_core.training.suite import load_suite

    if args.action == 'prepare':
        return run_prepare(args)
    if args.suite in _names('collections'):
        return _run_collection(args)
    suite = load_suite(args.suite)
    results = Path(args.results) if args.results else _own_records(suite)
    if args.action == 'run':
        run_suite(suite, results, args)
        return 0
    return _report(suite, results, args)


def _own_records(suite: Suite) -> Path:
    """Return where the records of a suite lie unless somebody says otherwise."""
    return Path(f'out/benchmark/{suite.name}/records')


def _names(kind: str) -> list[str]:
    from gsmap_core.resources import resource_dir

    return [path.stem for path in (resource_dir('config') / kind).glob('*.yaml')]


def _report(suite: Suite, results: Path, args: argparse.Namespace) -> int:
    from gsmap_core.cli.benchmark_labels import draw_label_curves
    from gsmap_core.cli.benchmark_records import read_pretraining, read_records
    from gsmap_core.cli.benchmark_report import write_report

    records = read_records(suite, results)
    if args.plot:
        draw_label_curves(suite, records, Path(args.plot))
        print(f'wrote {args.plot}', file=sys.stderr)
    _put(write_report(suite, records, read_pretraining(suite, results)), args.out)
    return 0


def _run_collection(args: argparse.Namespace) -> int:
    """Run or report rows of several suites."""
    from gsmap_core.cli.benchmark_page import Collected, differences, write_page
    from gsmap_core.cli.benchmark_records import read_pretraining, read_records
    from gsmap_core.cli.benchmark_reuse import reuse_records
    from gsmap_core.cli.benchmark_run import deadline_of, run_suite
    from gsmap_core.training.collection import load_collection
    from gsmap_core.viz.differences import draw_differences

    collection = load_collection(args.suite)
    suites = [
        (
            item,
            suite,
            Path(args.results) / suite.name if args.results else _own_records(suite),
        )
        for item, suite in collection.load()
    ]
    if args.action == 'run':
        if args.rows:
            raise ConfigError(
                f'--rows: {args.suite} holds several suites; run one of them with --rows, e.g. '
                f'`gsmap benchmark run {suites[0][1].name} --rows ...`'
            )
        deadline = deadline_of(args)
        folders = [results for _, _, results in suites]
        for _, suite, results in suites:
            for text in reuse_records(suite, results, folders):
                print(f'{suite.name}, {text}')
            if not run_suite(suite, results, args, deadline):
                break
        return 0
    collected = [
        Collected(item, suite, read_records(suite, folder), read_pretraining(suite, folder))
        for item, suite, folder in suites
    ]
    if args.plot:
        draw_differences(differences(collected), Path(args.plot), x_label='chamfer mAP')
        print(f'wrote {args.plot}', file=sys.stderr)
    picture = None
    if args.plot and args.out:
        picture = Path(os.path.relpath(args.plot, Path(args.out).parent))
    _put(write_page(collection, collected, picture), args.out)
    return 0


def _put(text: str, out: str | None) -> None:
    """Write a report to its file, or print it."""
    if out:
        Path(out).write_text(text, encoding='utf-8')
        print(f'wrote {out}')
    else:
        print(text, end='')
