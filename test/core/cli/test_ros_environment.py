"""The environment of node processes: what is put where, what is said when it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gsmap_core.cli import ros_environment as env
from gsmap_core.cli import run as run_verb
from gsmap_core.cli.main import main
from gsmap_core.errors import EnvironmentProblemError


@pytest.fixture
def overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An overlay folder as colcon leaves it, named by the variable; no ROS sourced."""
    prefix = tmp_path / 'install'
    (prefix / 'share/gsmap_ros').mkdir(parents=True)
    (prefix / 'share/gsmap_ros/local_setup.sh').touch()
    monkeypatch.setenv(env.OVERLAY_VARIABLE, str(prefix))
    for variable in ('ROS_DISTRO', 'AMENT_PREFIX_PATH', 'PYTHONPATH'):
        monkeypatch.delenv(variable, raising=False)
    return prefix


def test_overlay_comes_first_and_what_was_there_stays(
    overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env, 'is_ros_sourced', lambda: True)  # no packages from PyPI to add
    monkeypatch.setenv('PYTHONPATH', f'/elsewhere{os.pathsep}/other')
    result = env.overlay_environment(ROS_DOMAIN_ID='42')
    site = overlay / f'lib/python3.{sys.version_info.minor}/site-packages'
    code_root = Path(env.__file__).resolve().parents[2]
    assert result['PYTHONPATH'].split(os.pathsep) == [
        str(code_root),
        str(site),
        '/elsewhere',
        '/other',
    ]
    assert result['AMENT_PREFIX_PATH'].split(os.pathsep)[0] == str(overlay)
    assert result['LD_LIBRARY_PATH'].split(os.pathsep)[0] == str(overlay / 'lib')
    assert result['ROS_DOMAIN_ID'] == '42'


def test_it_can_be_applied_twice(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, 'is_ros_sourced', lambda: True)
    once = env.overlay_environment()
    monkeypatch.setenv('PYTHONPATH', once['PYTHONPATH'])
    assert env.overlay_environment()['PYTHONPATH'] == once['PYTHONPATH']


def test_a_sourced_workspace_needs_no_overlay(
    overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(overlay))
    monkeypatch.delenv(env.OVERLAY_VARIABLE)
    assert env.find_overlay() is None


def test_a_missing_overlay_names_the_command(
    overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env.OVERLAY_VARIABLE, str(tmp_path / 'nowhere'))
    with pytest.raises(EnvironmentProblemError, match=r'nowhere.*make build'):
        env.overlay_environment()


def test_no_ros_at_all_names_the_command(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(EnvironmentProblemError, match='make build'):
        env.overlay_environment()


def test_gsmap_run_says_it_too(
    overlay: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(env.OVERLAY_VARIABLE, str(tmp_path / 'nowhere'))
    assert main(['run', 'mapping']) == 2
    assert 'make build' in capsys.readouterr().err


def test_gsmap_run_hands_the_arguments_on(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(env, 'is_ros_sourced', lambda: True)
    monkeypatch.setattr(
        run_verb.os, 'execvpe', lambda file, command, environ: started.append(command)
    )
    with pytest.raises(TypeError):  # exec never returns; here it does, with nothing to exit with
        main(['run', 'replay', '--ros-args', '-p', 'bag:=x.mcap'])
    assert started == [
        [sys.executable, '-m', 'gsmap_ros.replay_node', '--ros-args', '-p', 'bag:=x.mcap']
    ]


def test_every_node_of_the_verb_has_a_program(repo_root: Path) -> None:
    for node in run_verb.NODES:
        assert (repo_root / 'gsmap_ros' / f'{node}_node.py').is_file()


def test_the_real_environment_finds_ros_and_the_messages(
    ros_environment: dict[str, str], tmp_path: Path
) -> None:
    """From any folder, in a fresh process: both homes of ROS 2 answer alike."""
    code = (
        'import rclpy\n'
        'from gsmap_ros.msg import MapElement, MapElementArray, VectorMap\n'
        'from tf2_msgs.msg import TFMessage\n'
        'from rclpy.serialization import deserialize_message, serialize_message\n'
        'message = MapElementArray(sample_id="a", elements=[MapElement(category=2)])\n'
        'back = deserialize_message(serialize_message(message), MapElementArray)\n'
        'assert back == message\n'
        'import gsmap_ros, gsmap_core\n'
        'print(gsmap_core.__file__)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=ros_environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == Path(env.__file__).resolve().parents[1]


def test_a_command_runs_in_it(ros_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'gsmap_core.cli.ros_environment',
            sys.executable,
            '-c',
            'import gsmap_ros.msg',
        ],
        cwd=Path(env.__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
