"""`gsmap convert`: turns datasets into bags. One sub-verb per dataset."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gsmap_core.cli.convert_sources import SOURCES

#: Exit code when some scenes could not be converted and the others were.
EXIT_SOME_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sources = parser.add_subparsers(dest='dataset', metavar='DATASET', required=True)
    for name, source in SOURCES.items():
        verb = sources.add_parser(name, help=source.help, description=source.description)
        verb.add_argument('source', metavar='SRC', help=source.source_help)
        verb.add_argument('destination', metavar='DST', help='folder for the bags, made if needed')
        source.add_arguments(verb)
        _add_common(verb)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--scenes',
        '--scene',
        dest='scenes',
        action='extend',
        nargs='+',
        metavar='NAME',
        help='only these scenes; * and ? stand for any text and any letter',
    )
    parser.add_argument(
        '--scenes-file', metavar='FILE', help='only the scenes named in this file, one a line'
    )
    parser.add_argument('--limit', type=int, metavar='N', help='at most N camera sets per scene')
    parser.add_argument('--no-lidar', action='store_true', help='leave out LiDAR sweeps')
    parser.add_argument(
        '--workers', type=int, metavar='N', help='scenes at the same time (one per core)'
    )
    parser.add_argument('--dry-run', action='store_true', help='only say what would be written')
    parser.add_argument('--overwrite', action='store_true', help='replace bags that exist')
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args: argparse.Namespace) -> int:
    """Convert; a scene that fails is listed and costs the others nothing.

    Returns:
        0: every scene has its bag; 1: some have not.
    """
    from gsmap_core.cli.convert_run import convert_jobs, options_of, plan_jobs

    source = SOURCES[args.dataset]
    notice = source.notice()
    if notice:
        print(notice, file=sys.stderr)
    found = source.find(args)
    options = options_of(args)
    jobs, problems = plan_jobs(args, found.jobs, found.problems)
    outcomes = [*problems, *convert_jobs(jobs, options, args.workers)]
    num_failed = sum(outcome.state == 'failed' for outcome in outcomes)
    if args.json:
        bags = [outcome.as_dict() for outcome in outcomes]
        print(json.dumps({'bags': bags, 'failed': num_failed, 'licence': notice}))
    else:
        for outcome in outcomes:
            print(_as_text(outcome))
        if num_failed:
            print(
                f'{num_failed} of {len(outcomes)} scenes failed; bags that are complete are kept, '
                'the same command again tries the rest',
                file=sys.stderr,
            )
    return EXIT_SOME_FAILED if num_failed else 0


def _as_text(outcome: Any) -> str:
    """Return an outcome in lines."""
    if outcome.state == 'failed':
        return f'{outcome.scene}: failed: {outcome.reason}'
    if outcome.state == 'kept':
        return f'{outcome.bag}: there already, kept'
    notes = [f'  note: {note}' for note in outcome.notes]
    if outcome.state == 'planned':
        return '\n'.join(
            [f'{outcome.bag}: would hold {outcome.frames} camera sets{outcome.reason}', *notes]
        )
    lines = [
        f'{outcome.bag}: {outcome.frames} camera sets, {outcome.duration_s} s, '
        f'{outcome.size_bytes / 1e6:.1f} MB'
    ]
    lines += [f'  {count:6d}  {topic}' for topic, count in outcome.topics.items()]
    return '\n'.join([*lines, *notes])
