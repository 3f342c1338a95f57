"""Entry point of the command `gsmap`: the table of verbs, logging, errors and exit codes.

A verb is a module of this package with `add_arguments(parser)` and `run(args) -> int`. Only the
verb that was asked for is imported, so that `gsmap --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import gsmap_core
from gsmap_core.errors import GsmapError

#: Every verb of the command and what it does; a verb is offered where its module exists.
VERBS: dict[str, str] = {
    'demo': 'drive through a synthetic town, map it over ROS 2, score it and draw it',
    'synth': 'make synthetic drives with ground truth',
    'convert': 'turn a dataset into bags',
    'train': 'train a model',
    'evaluate': 'score map files, or a checkpoint on bags, against ground truth',
    'predict': 'map a bag or a folder of images offline, no ROS running',
    'run': 'start a node: mapping, map_builder, replay or record',
    'export': 'write a fused map for other programs: GeoJSON, Lanelet2, map file',
    'bench': 'measure how long the parts of a model take',
    'benchmark': 'run the published suite of methods',
    'view': 'look at a bag, a prediction or a map file',
    'info': 'print versions, devices, models and checkpoints, ready for a bug report',
    'import-weights': 'turn official MapTR weights into a checkpoint of this package',
}
EXIT_OK, EXIT_ERROR, EXIT_INTERRUPTED = 0, 2, 130
LOG_LEVELS = ('debug', 'info', 'warning', 'error')

logger = logging.getLogger(__name__)


def module_name(verb: str) -> str:
    """Return the module that implements a verb."""
    return f'gsmap_core.cli.{verb.replace("-", "_")}'


def available_verbs() -> dict[str, str]:
    """Return the verbs whose module is part of this version, with their help."""
    return {
        verb: text for verb, text in VERBS.items() if importlib.util.find_spec(module_name(verb))
    }


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """Build the parser; only `verb` gets its own arguments (and its module imported).

    Args:
        verb: the verb about to be run, or None for the overview.
    """
    parser = argparse.ArgumentParser(
        prog='gsmap', description='Online vectorised HD mapping from surround cameras.'
    )
    parser.add_argument('--version', action='version', version=f'gsmap {gsmap_core.__version__}')
    parser.add_argument(
        '--log-level', choices=LOG_LEVELS, default='warning', help='what to log on stderr'
    )
    commands = parser.add_subparsers(dest='verb', metavar='VERB', required=True)
    for name, text in available_verbs().items():
        command = commands.add_parser(name, help=text, description=f'{text[0].upper()}{text[1:]}.')
        if name == verb:
            importlib.import_module(module_name(name)).add_arguments(command)
    return parser


def _verb_of(arguments: Sequence[str]) -> str | None:
    """Return the first argument that is a verb, skipping the options before it."""
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == '--log-level':
            skip = True
        elif not argument.startswith('-'):
            return argument
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program name; None: of this process.

    Returns:
        Exit code: 0 done, 2 wrong input or environment (said on stderr), 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        verb = _verb_of(arguments)
        args = build_parser(verb).parse_args(arguments)
        logging.basicConfig(
            level=args.log_level.upper(),
            format='%(levelname)s %(name)s: %(message)s',
            stream=sys.stderr,
        )
        with _termination_as_interrupt():
            return int(importlib.import_module(module_name(args.verb)).run(args))
    except GsmapError as error:
        print(f'gsmap: error: {error}', file=sys.stderr)
        logger.debug('traceback of the error above', exc_info=True)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print('gsmap: interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout (`| head`) has left; nobody is there to be told.
        sys.stderr.close()
        return EXIT_OK


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a command like Ctrl-C, so that it ends the processes it has started.

    A verb that stops more gently (train) sets a handler of its own.
    """

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == '__main__':
    sys.exit(main())
