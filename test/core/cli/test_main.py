"""The command line: registry, errors, exit codes, speed of the help."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import gsmap_core
from gsmap_core.cli import main as cli
from gsmap_core.errors import DataError


def _verb(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    """Register a verb `probe` that calls `run`."""
    module = types.ModuleType('gsmap_core.cli.probe')
    module.add_arguments = lambda parser: parser.add_argument('--count', type=int, default=0)  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'gsmap_core.cli.probe', module)
    monkeypatch.setattr(cli, 'available_verbs', lambda: {'probe': 'a verb for tests'})


def test_a_verb_gets_its_arguments_and_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    _verb(monkeypatch, lambda args: args.count)
    assert cli.main(['probe', '--count', '7']) == 7
    assert cli.main(['--log-level', 'error', 'probe', '--count', '3']) == 3


def test_own_errors_become_a_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise DataError("'x.mcap' is cut off; record it again")

    _verb(monkeypatch, fail)
    assert cli.main(['probe']) == 2
    captured = capsys.readouterr()
    assert captured.err == "gsmap: error: 'x.mcap' is cut off; record it again\n"
    assert captured.out == ''


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise KeyError('bug')

    _verb(monkeypatch, fail)
    with pytest.raises(KeyError):
        cli.main(['probe'])


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    _verb(monkeypatch, interrupt)
    assert cli.main(['probe']) == 130


def test_every_offered_verb_is_complete() -> None:
    """Each module has both functions, and its parser can be built."""
    offered = cli.available_verbs()
    assert {'demo', 'run', 'predict'} <= set(offered)
    for verb in offered:
        module = __import__(cli.module_name(verb), fromlist=['run'])
        assert callable(module.run)
        assert cli.build_parser(verb).format_help()


def test_verbs_without_a_module_are_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    missing = set(cli.VERBS) - set(cli.available_verbs())
    for verb in missing:
        with pytest.raises(SystemExit) as stopped:
            cli.main([verb])
        assert stopped.value.code == 2
        assert 'invalid choice' in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(['--version'])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f'gsmap {gsmap_core.__version__}\n'


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_answers_at_once_and_imports_nothing_heavy(repo_root: Path) -> None:
    code = (
        'import sys\n'
        'from gsmap_core.cli.main import main\n'
        'try:\n    main(["--help"])\nexcept SystemExit:\n    pass\n'
        'heavy = {"torch", "numpy", "cv2", "rclpy", "matplotlib"} & set(sys.modules)\n'
        'sys.exit(f"imported {heavy}" if heavy else 0)\n'
    )
    best = float('inf')
    for _ in range(3):
        start = _children_cpu_s()
        done = subprocess.run(
            [sys.executable, '-c', code], cwd=repo_root, capture_output=True, text=True, timeout=30
        )
        best = min(best, _children_cpu_s() - start)
        assert done.returncode == 0, done.stderr
        assert 'usage: gsmap' in done.stdout
    assert best < 0.3  # processor time: what others do on the machine does not count


def test_a_terminated_command_ends_what_it_started(tmp_path):
    """`synth` makes drives in other processes; SIGTERM to it must not leave them behind."""
    code = (
        'import sys; from gsmap_core.cli.main import main; '
        f"sys.exit(main(['synth', '--out', {str(tmp_path)!r}, '--towns', '40', '--workers', '2', "
        "'--duration', '20', '--width', '320']))"
    )
    process = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)
    deadline = time.monotonic() + 60
    while len(members(process.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(members(process.pid)) >= 3
    process.terminate()
    assert process.wait(60) == 130
    deadline = time.monotonic() + 30
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not members(process.pid)


def members(session: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / 'stat').read_text().rsplit(')', 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != 'Z':
                found.append(int(entry.name))
    return found
