"""`gsmap evaluate`: score predicted map files, or a checkpoint on bags, against ground truth."""

from __future__ import annotations

import argparse

from gsmap_core.evaluation.metric_names import METRICS


def add_metric_argument(parser: argparse.ArgumentParser, default: str = METRICS[0]) -> None:
    """Declare `--metric`; see `metric_names` for what it holds."""
    parser.add_argument(
        '--metric',
        type=lambda text: text.split(','),
        action='extend',
        default=None,
        metavar='NAME',
        help=f'what to compute: {", ".join(METRICS)}; several with commas; default: {default}',
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        'predictions', nargs='?', metavar='PRED.map.json', help='predicted map file'
    )
    parser.add_argument(
        'ground_truth', nargs='?', metavar='GT.map.json', help='ground-truth map file'
    )
    model = parser.add_argument_group(
        'a checkpoint on bags, instead of map files (torchrun shares the bags out)'
    )
    model.add_argument('--weights', help='checkpoint file or shipped name')
    model.add_argument('--data', nargs='+', metavar='BAG', help='bags, or folders of bags')
    model.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    model.add_argument('--precision', choices=('fp32', 'bf16'), default='fp32')
    model.add_argument('--stride', type=int, default=1, help='map every n-th camera set')
    model.add_argument('--limit', type=int, help='map at most that many camera sets per drive')
    model.add_argument(
        '--store-calibration',
        action='store_true',
        help='fit how far the vertices are to be trusted, on these bags (validation data), and '
        'write it into the checkpoint; its tensors stay as they are',
    )
    add_metric_argument(parser)
    _add_rules(parser.add_argument_group('rules of the metrics'))
    parser.add_argument(
        '--missing',
        choices=('error', 'empty'),
        default='error',
        help='a ground-truth frame without prediction is an error, or counts as empty',
    )
    parser.add_argument(
        '--bad-frames',
        choices=('error', 'skip'),
        default='error',
        help='a frame that is not allowed (NaN vertices, a line of one vertex) is an error, or is '
        'left out on both sides and listed',
    )
    parser.add_argument(
        '--workers', type=int, default=1, metavar='N', help='processes that score (1)'
    )
    parser.add_argument('--out', metavar='DIR', help='also write JSON, table and curves there')
    parser.add_argument(
        '--worst',
        type=int,
        default=0,
        metavar='N',
        help='also draw the N frames of the least chamfer AP into DIR',
    )
    parser.add_argument('--json', action='store_true', help='print the result as JSON')


def _add_rules(parser: argparse._ArgumentGroup) -> None:
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
        nargs='+',
        default=None,
        metavar='M',
        help='chamfer distances that count as found [m], or a set: standard (0.5 1.0 1.5), strict '
        '(0.2 0.5 1.0), large (1.0 1.5 2.0); default: standard, and large where StreamMapNet and '
        'MapTracker take it (100 x 50 m)',
    )
    parser.add_argument(
        '--simplify',
        type=float,
        default=None,
        metavar='M',
        help='thin out ground truth by that tolerance before chamfer distances [m]; default: 0.2 '
        'as StreamMapNet and MapTracker do, 0 for the others',
    )
    parser.add_argument(
        '--min-score',
        type=float,
        default=None,
        metavar='S',
        help='least score of what bev_iou, geometry, stability and flicker look at; default: 0.4',
    )
    parser.add_argument(
        '--categories',
        nargs='+',
        default=None,
        metavar='NAME',
        help='categories to score; default: divider ped_crossing boundary',
    )


def metric_names(given: list[str] | None) -> list[str]:
    """Return the metrics asked for, each once.

    Raises:
        ConfigError: one of them does not exist.
    """
    from gsmap_core.errors import ConfigError

    names = given or [METRICS[0]]
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"--metric '{name}': unknown; expected {', '.join(METRICS)}")
    return list(dict.fromkeys(names))


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from gsmap_core.cli.evaluate_run import evaluate

    return evaluate(args)
