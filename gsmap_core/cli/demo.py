"""`gsmap demo`: from camera images to a scored vector map over ROS 2, in one command.

Three nodes run as separate processes over DDS: one replays a bag, one maps, one records. Without
`--bag` the drive is synthetic, in a town that no training has seen.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--bag', help='map this bag instead of a synthetic drive')
    parser.add_argument('--out', default='out/demo', help='folder for the results')
    parser.add_argument('--weights', default='', help='checkpoint file or shipped name')
    parser.add_argument(
        '--single-frame',
        default='',
        metavar='WEIGHTS',
        help='checkpoint that maps every set alone, to compare with; the same one unless given',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda[:N]')
    parser.add_argument(
        '--rate',
        type=float,
        help='replay speed, 1.0 is real time; as fast as this machine can follow unless given',
    )
    parser.add_argument(
        '--no-video', action='store_true', help='leave out the video, which takes the longest'
    )
    parser.add_argument('--json', action='store_true', help='print the summary as JSON')


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        GsmapError: the bag, the environment or a node failed; the message says which.
    """
    from gsmap_core.cli.demo_steps import run_demo

    return run_demo(args)
