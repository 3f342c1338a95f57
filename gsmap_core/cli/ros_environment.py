"""The environment in which node processes find ROS 2, the project's messages and this code.

A sourced ROS 2 is used as it is. Otherwise ROS 2 comes as packages of this Python, and the
project's messages from `install/` of the checkout; neither needs a shell to source anything.

`python -m gsmap_core.cli.ros_environment COMMAND ...` runs any command in it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gsmap_core.errors import EnvironmentProblemError

#: Names another folder than `install/` of the checkout for the built messages.
OVERLAY_VARIABLE = 'GSMAP_OVERLAY'
_CODE_ROOT = Path(__file__).resolve().parents[2]
_MARKER = Path('share/gsmap_ros/local_setup.sh')


def is_ros_sourced(environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether a ROS 2 installation is sourced and its rclpy belongs to this Python."""
    environment = os.environ if environment is None else environment
    if not environment.get('ROS_DISTRO'):
        return False
    spec = importlib.util.find_spec('rclpy')
    return spec is not None and not str(spec.origin).startswith(sys.prefix + os.sep)


def find_overlay() -> Path | None:
    """Return the prefix with the project's messages that has to be added, or None.

    None where the environment has them already: a sourced workspace.

    Raises:
        EnvironmentProblemError: they were never built.
    """
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if prefix and (Path(prefix) / _MARKER).is_file():
            return None
    given = os.environ.get(OVERLAY_VARIABLE)
    candidates = [Path(given)] if given else [_CODE_ROOT / 'install', Path(sys.prefix)]
    for candidate in candidates:
        if (candidate / _MARKER).is_file():
            return candidate.resolve()
    tried = ', '.join(f"'{candidate}'" for candidate in candidates)
    raise EnvironmentProblemError(
        f'the ROS 2 messages of gsmap_ros are not built (looked at {tried}); run `make build` in '
        f'the checkout, source the workspace they are in, or set {OVERLAY_VARIABLE}'
    )


def _site_packages(prefix: Path) -> Path:
    return prefix / f'lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages'


def overlay_paths(prefix: Path | None) -> dict[str, list[str]]:
    """Return what goes in front of each search path variable.

    Args:
        prefix: the messages' installation, or None where the environment has it already.

    Raises:
        EnvironmentProblemError: there is no ROS 2 at all.
    """
    paths: dict[str, list[str]] = {
        'AMENT_PREFIX_PATH': [],
        'LD_LIBRARY_PATH': [],
        # This very code first: a copy that was installed beside the messages may be older.
        'PYTHONPATH': [str(_CODE_ROOT)],
    }
    if prefix is not None:
        paths['AMENT_PREFIX_PATH'].append(str(prefix))
        paths['LD_LIBRARY_PATH'].append(str(prefix / 'lib'))
        paths['PYTHONPATH'].append(str(_site_packages(prefix)))
    if not is_ros_sourced():
        if importlib.util.find_spec('rclpy') is None:
            raise EnvironmentProblemError(
                f'no ROS 2 for this Python ({sys.executable}): rclpy is not installed and no ROS '
                'is sourced; run `make build` in the checkout, or source '
                '/opt/ros/<distro>/setup.bash'
            )
        environment = Path(sys.prefix)
        paths['AMENT_PREFIX_PATH'].append(str(environment))
        paths['LD_LIBRARY_PATH'].append(str(environment / 'lib'))
        wheel_libraries = sorted(_site_packages(environment).glob('ros_*.libs'))
        paths['LD_LIBRARY_PATH'] += [str(folder) for folder in wheel_libraries]
    return paths


def overlay_environment(**extra: str) -> dict[str, str]:
    """Return the environment variables for a node process: those of this process and the overlay.

    Args:
        extra: further variables, e.g. `ROS_DOMAIN_ID='42'`.

    Raises:
        EnvironmentProblemError: ROS 2 or the project's messages are missing; the message names the
            command that provides them.
    """
    result = dict(os.environ)
    for variable, first in overlay_paths(find_overlay()).items():
        rest = [part for part in result.get(variable, '').split(os.pathsep) if part]
        result[variable] = os.pathsep.join(dict.fromkeys([*first, *rest]))
    if not is_ros_sourced():
        # The packages from PyPI restart Python once to set LD_LIBRARY_PATH; it is set already.
        result['_ROS_WHEELS_BOOTSTRAP_COMPLETE'] = '1'
    result.update(extra)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Replace this process by the given command, run in the overlay's environment."""
    command = list(sys.argv[1:] if arguments is None else arguments)
    if not command:
        raise SystemExit('usage: python -m gsmap_core.cli.ros_environment COMMAND [ARGUMENT ...]')
    try:
        environment = overlay_environment()
    except EnvironmentProblemError as error:
        raise SystemExit(f'gsmap: error: {error}') from None
    os.execvpe(command[0], command, environment)


if __name__ == '__main__':
    main()
