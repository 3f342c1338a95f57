"""Where the tests find the repository, the golden numbers and the small pieces of real data."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest

from gsmap_core.cli.ros_environment import find_overlay, overlay_environment
from gsmap_core.errors import EnvironmentProblemError

REPOSITORY = Path(__file__).resolve().parent.parent
# Nobody else's nodes take part in the tests, nor the tests in theirs.
os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


def _load_overlay() -> None:
    """Make rclpy and the project's messages usable inside this process.

    Node processes get the environment at their start. This process has already started, so the
    dynamic linker no longer looks at LD_LIBRARY_PATH; libraries that are loaded by hand are found
    by their name.
    """
    prefix = find_overlay()
    os.environ.update(overlay_environment())
    sys.path[:0] = [part for part in os.environ['PYTHONPATH'].split(os.pathsep) if part]
    if prefix is not None:
        for library in sorted((prefix / 'lib').glob('lib*__rosidl_*.so')):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


try:
    _load_overlay()
    ROS_PROBLEM = ''
except EnvironmentProblemError as error:
    ROS_PROBLEM = str(error)


def _shared_folder(variable: str, default: str) -> Path:
    given = os.environ.get(variable)
    folder = Path(given) if given else REPOSITORY.parent / 'shared' / default
    if not folder.is_dir():
        pytest.skip(f"{variable} is not set to a folder and the default '{folder}' does not exist")
    return folder


@pytest.fixture(scope='session')
def repo_root() -> Path:
    """The root of the checkout the tests belong to."""
    return REPOSITORY


@pytest.fixture(scope='session')
def golden_dir() -> Path:
    """Expected numbers computed by the peers' own code (`GSMAP_GOLDEN`)."""
    return _shared_folder('GSMAP_GOLDEN', 'golden')


@pytest.fixture(scope='session')
def data_dir() -> Path:
    """Small pieces of real data (`GSMAP_DATA`)."""
    return _shared_folder('GSMAP_DATA', 'data')


@pytest.fixture(scope='session')
def ros_environment() -> dict[str, str]:
    """Environment for node processes; skips where neither home of ROS 2 is there."""
    if ROS_PROBLEM:
        pytest.skip(ROS_PROBLEM)
    return overlay_environment()
