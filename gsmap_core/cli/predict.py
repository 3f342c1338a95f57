"""`gsmap predict`: map a bag or a folder of images offline, at full speed, without ROS."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from gsmap_core.cli.evaluate import add_metric_argument

    parser.add_argument('source', help='a bag, a folder of bags, or a folder of images (--rig)')
    parser.add_argument('--out', default='out/predict', help='folder for the results')
    parser.add_argument('--weights', default='', help='checkpoint file or shipped name')
    parser.add_argument(
        '--engine',
        choices=('network', 'classical'),
        default='network',
        help='the trained network, or the baseline without learning',
    )
    parser.add_argument('--rig', help='rig name or YAML file; for a folder of images')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--precision', choices=('fp32', 'bf16'), default='fp32')
    parser.add_argument(
        '--score-threshold', type=float, default=0.0, help='leave out elements below it, 0 to 1'
    )
    parser.add_argument('--stride', type=int, default=1, help='map every n-th camera set')
    parser.add_argument('--limit', type=int, help='map at most that many camera sets per drive')
    parser.add_argument(
        '--figures', type=int, default=1, metavar='N', help='draw N camera sets per drive as PNG'
    )
    parser.add_argument(
        '--no-ids',
        action='store_true',
        help='leave out the ids that elements keep from frame to frame',
    )
    parser.add_argument(
        '--fuse',
        action='store_true',
        help='also fuse the maps of each drive into one, and compare it with the true map',
    )
    parser.add_argument('--video', action='store_true', help='also write a video per drive')
    add_metric_argument(parser)
    parser.add_argument('--json', action='store_true', help='print the summary as JSON')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from gsmap_core.cli.offline import predict_source

    return predict_source(args)
