"""Child processes are watched, their failures surface with their log, and none survives."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from gsmap_core.cli import node_processes
from gsmap_core.cli.node_processes import NodeGroup, NodeProcess, NodeProcessError


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a node, run the Python text in the parameter `code`."""

    def command(node: str, arguments: list[str]) -> list[str]:
        loader = (
            'import sys, yaml;'
            'exec(yaml.safe_load(open(sys.argv[-1]))["/**"]["ros__parameters"]["code"])'
        )
        return [sys.executable, '-c', loader, *arguments]

    monkeypatch.setattr(node_processes, 'node_command', command)


def start(code: str, folder: Path, node: str = 'mapping') -> NodeProcess:
    return NodeProcess(node, {'code': code}, dict(os.environ), folder)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


SLEEPER = 'import time; print("up", flush=True); time.sleep(60)'


def test_the_group_ends_what_still_runs(program: None, tmp_path: Path) -> None:
    with NodeGroup() as group:
        first = group.start(start(SLEEPER, tmp_path, 'mapping'))
        second = group.start(start(SLEEPER, tmp_path, 'record'))
        group.check()
        pids = [process._process.pid for process in (first, second)]
        assert all(is_running(pid) for pid in pids)
    assert not any(is_running(pid) for pid in pids)


def test_nodes_hear_interrupts_that_we_ignore(program: None, tmp_path: Path) -> None:
    """As in the background of a shell, which lets its jobs ignore them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        node = start(SLEEPER, tmp_path)
        while 'up' not in node.log_path.read_text():
            time.sleep(0.01)
        os.kill(node._process.pid, signal.SIGINT)
        assert node._process.wait(timeout=30) != 0
        node.stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_group_ends_them_after_an_error_too(program: None, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match='ours'), NodeGroup() as group:
        process = group.start(start(SLEEPER, tmp_path))
        raise RuntimeError('ours')
    assert process.exit_code is not None


def test_a_node_that_ends_early_is_reported_with_its_log(program: None, tmp_path: Path) -> None:
    with NodeGroup() as group:
        replay = group.start(start(SLEEPER, tmp_path, 'replay'))
        group.start(start('print("no checkpoint here"); raise SystemExit(3)', tmp_path, 'mapping'))
        with pytest.raises(
            NodeProcessError, match=r'(?s)mapping node.*code 3.*no checkpoint here'
        ):
            group.wait_for_end(replay, timeout_s=20)


def test_waiting_ends_with_the_node(program: None, tmp_path: Path) -> None:
    looks: list[float] = []
    with NodeGroup() as group:
        replay = group.start(start('pass', tmp_path, 'replay'))
        group.start(start(SLEEPER, tmp_path, 'mapping'))
        group.wait_for_end(replay, timeout_s=20, poll=lambda: looks.append(time.monotonic()))
        group.check(may_end=(replay,))
    assert looks


def test_waiting_has_a_limit(program: None, tmp_path: Path) -> None:
    with NodeGroup() as group:
        replay = group.start(start(SLEEPER, tmp_path, 'replay'))
        with pytest.raises(NodeProcessError, match='has not ended after 0 s'):
            group.wait_for_end(replay, timeout_s=0.3, interval_s=0.05)


def test_a_stubborn_node_is_ended_all_the_same(
    program: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = tuple((number, 0.5) for number, _ in node_processes._PATIENCE_S)
    monkeypatch.setattr(node_processes, '_PATIENCE_S', patience)
    code = (
        'import signal, time\n'
        'for number in (signal.SIGINT, signal.SIGTERM):\n'
        '    signal.signal(number, signal.SIG_IGN)\n'
        'print("up", flush=True)\n'
        'time.sleep(60)\n'
    )
    with NodeGroup() as group:
        process = group.start(start(code, tmp_path))
        while 'up' not in process.log_text():
            time.sleep(0.02)
        with pytest.raises(NodeProcessError, match='exit code -9'):
            group.stop(process)
    assert process.exit_code == -9


def test_parameters_reach_the_node(program: None, tmp_path: Path) -> None:
    code = (
        'values = yaml.safe_load(open(sys.argv[-1]))["/**"]["ros__parameters"]\n'
        'print(values["rate"], values["topics"], values["flag"])'
    )
    process = NodeProcess(
        'replay',
        {'code': code, 'rate': 1.0, 'topics': ['/a', '/b'], 'flag': True},
        dict(os.environ),
        tmp_path,
    )
    process._process.wait(20)
    assert process.stop() == 0
    assert process.log_text().strip() == "1.0 ['/a', '/b'] True"
