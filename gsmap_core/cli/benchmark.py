"""`gsmap benchmark`: train the rows of a suite under equal conditions and compare them."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)
    run_parser = actions.add_parser('run', help='train and score what has no record yet')
    report = actions.add_parser('report', help='write the tables of what has a record')
    for action in (run_parser, report):
        action.add_argument('suite', metavar='SUITE', help='a name of config/benchmarks or a YAML')
        action.add_argument(
            '--results',
            metavar='DIR',
            help='folder of the records, one JSON per run (out/benchmark/SUITE/records)',
        )
    run_parser.add_argument(
        '--work', default='out/benchmark', metavar='DIR', help='drives and trainings go there'
    )
    run_parser.add_argument('--rows', nargs='+', metavar='NAME', help='only these rows')
    run_parser.add_argument('--seeds', nargs='+', type=int, metavar='N', help='only these seeds')
    run_parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    run_parser.add_argument(
        '--max-minutes',
        type=float,
        metavar='M',
        help='stop after this time; called again it goes on where it was',
    )
    report.add_argument('--out', metavar='MD', help='write the report there instead of printing')
    report.add_argument(
        '--plot', metavar='PNG', help='draw scores over the share of labels (mapgclr suites)'
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import sys
    from pathlib import Path

    from gsmap_core.cli.benchmark_labels import draw_label_curves
    from gsmap_core.cli.benchmark_records import read_records
    from gsmap_core.cli.benchmark_report import write_report
    from gsmap_core.cli.benchmark_run import run_suite
    from gsmap_core.training.suite import load_suite

    suite = load_suite(args.suite)
    results = Path(args.results or f'out/benchmark/{suite.name}/records')
    if args.action == 'run':
        return run_suite(suite, results, args)
    records = read_records(suite, results)
    if args.plot:
        draw_label_curves(suite, records, Path(args.plot))
        print(f'wrote {args.plot}', file=sys.stderr)
    text = write_report(suite, records)
    if args.out:
        Path(args.out).write_text(text, encoding='utf-8')
        print(f'wrote {args.out}')
    else:
        print(text, end='')
    return 0
