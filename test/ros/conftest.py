"""Makes the built messages usable in this process, and isolates the ROS domains of tests."""

from __future__ import annotations

import ctypes
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gsmap_core.cli.ros_environment import find_overlay, overlay_environment
from gsmap_core.errors import EnvironmentProblemError


def _use_overlay() -> str:
    """Put the overlay on the paths of this process; return why it is not there, or nothing."""
    try:
        overlay = find_overlay()
    except EnvironmentProblemError as error:
        return str(error)
    if overlay is None:
        return ''
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    packages = str(overlay / 'lib' / version / 'site-packages')
    if packages not in sys.path:
        sys.path.append(packages)
    if 'gsmap_ros' in sys.modules:
        path = sys.modules['gsmap_ros'].__path__
        if f'{packages}/gsmap_ros' not in path:
            path.append(f'{packages}/gsmap_ros')
    _load_libraries(overlay / 'lib')
    return ''


def _load_libraries(folder: Path) -> None:
    """Load the type support now: a running process no longer looks at LD_LIBRARY_PATH."""
    waiting = sorted(folder.glob('lib*.so'))
    for _ in range(len(waiting)):
        failed = []
        for library in waiting:
            try:
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            except OSError:
                failed.append(library)  # needs one of the others first
        waiting = failed


_MISSING = _use_overlay()


@pytest.fixture(scope='session')
def ros_messages() -> None:
    """Require the built message classes in this process."""
    if _MISSING:
        pytest.skip(_MISSING)


def isolated(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment in a ROS domain of its own, on this machine only."""
    result = {
        **environment,
        'ROS_DOMAIN_ID': str(random.SystemRandom().randint(1, 101)),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'PYTHONUNBUFFERED': '1',
        'OMP_NUM_THREADS': '1',
    }
    result.pop('ROS_LOCALHOST_ONLY', None)
    return result


@pytest.fixture
def node_environment(ros_messages: None) -> dict[str, str]:
    """Variables for node processes, isolated from everything else that runs."""
    return isolated(overlay_environment())


@pytest.fixture(scope='module')
def ros_context(ros_messages: None) -> Iterator[None]:
    """Initialise rclpy in this process, in a domain of its own."""
    import rclpy

    wanted = isolated({})
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    rclpy.init(domain_id=int(wanted['ROS_DOMAIN_ID']))
    yield
    rclpy.try_shutdown()
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
