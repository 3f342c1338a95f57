"""`gsmap run`: start a node where there is no `ros2 run`, in the right environment."""

from __future__ import annotations

import argparse
import os
import sys

from gsmap_core.cli.ros_environment import overlay_environment

NODES: dict[str, str] = {
    'mapping': 'camera images and TF in, vector map out',
    'map_builder': 'local vector maps and TF in, one persistent map out',
    'replay': 'play a bag on its topics, with /clock',
    'record': 'write topics into a bag',
}


def node_command(node: str, arguments: list[str]) -> list[str]:
    """Return the command that starts a node with this Python."""
    return [sys.executable, '-m', f'gsmap_ros.{node}_node', *arguments]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'node', choices=tuple(NODES), help='; '.join(f'{k}: {v}' for k, v in NODES.items())
    )
    parser.add_argument(
        'arguments',
        nargs=argparse.REMAINDER,
        help='handed to the node, e.g. --ros-args -p rig.file:=my_rig.yaml -r __ns:=/car',
    )


def run(args: argparse.Namespace) -> int:
    """Replace this process by the node, so that signals reach it directly.

    Raises:
        EnvironmentProblemError: ROS 2 or the project's messages are missing.
    """
    environment = overlay_environment()
    command = node_command(args.node, args.arguments)
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)
