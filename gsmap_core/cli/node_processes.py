"""Starts nodes as child processes, watches them and always ends them.

Knows processes only: what the nodes do is decided by their parameters.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml

from gsmap_core.cli.run import node_command
from gsmap_core.errors import GsmapError

_LOGGER = logging.getLogger(__name__)
#: How long a node may take to end by itself after each signal [s].
_PATIENCE_S = ((signal.SIGINT, 60.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0))


def _ignores_interrupts() -> bool:
    return signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class NodeProcessError(GsmapError, RuntimeError):
    """A node ended when it should have gone on, or did not end; with the end of its log."""


class NodeProcess:
    """One node in its own process.

    Args:
        node: `mapping`, `replay` or `record`.
        parameters: node parameters that differ from the defaults.
        environment: variables, see `overlay_environment`.
        folder: where its log (`<node>.log`) and its parameter file are written.
    """

    def __init__(
        self,
        node: str,
        parameters: Mapping[str, Any],
        environment: Mapping[str, str],
        folder: Path,
    ) -> None:
        self.node = node
        self.log_path = folder / f'{node}.log'
        parameter_file = folder / f'{node}.params.yaml'
        parameter_file.write_text(
            yaml.safe_dump({'/**': {'ros__parameters': dict(parameters)}}), encoding='utf-8'
        )
        self._log: IO[bytes] = self.log_path.open('wb')
        command = node_command(node, ['--ros-args', '--params-file', str(parameter_file)])
        _LOGGER.info('starting %s', ' '.join(command))
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal reaches us alone; we end the nodes in the right order.
            start_new_session=True,
            # Started in the background by a shell we ignore interrupts, and so would the nodes.
            preexec_fn=_hear_interrupts if _ignores_interrupts() else None,
        )

    @property
    def exit_code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def log_text(self) -> str:
        """Return everything the node has said so far."""
        return self.log_path.read_text(encoding='utf-8', errors='replace')

    def log_tail(self, num_lines: int = 15) -> str:
        """Return the last lines of the log, indented."""
        lines = [line for line in self.log_text().splitlines() if line.strip()]
        return '\n'.join(f'  {line}' for line in lines[-num_lines:]) or '  (it said nothing)'

    def failure(self, what: str) -> NodeProcessError:
        """Return the error for this node, with the end of its log."""
        return NodeProcessError(
            f'{self.node} node {what}; the end of {self.log_path}:\n{self.log_tail()}'
        )

    def stop(self) -> int:
        """End the node, politely first; returns its exit code."""
        for number, patience_s in _PATIENCE_S:
            if self._process.poll() is None:
                self._signal(number)
            try:
                self._process.wait(patience_s)
                break
            except subprocess.TimeoutExpired:
                _LOGGER.warning('%s node does not end on %s', self.node, number.name)
        self._log.close()
        return self._process.returncode

    def _signal(self, number: signal.Signals) -> None:
        try:
            # The last resort takes what the node may have started as well.
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except ProcessLookupError:
            pass  # it has just ended


class NodeGroup:
    """Several nodes that live and die together; use as a context manager.

    Leaving the block ends whatever still runs, in reverse order of starting.
    """

    def __init__(self) -> None:
        self._processes: list[NodeProcess] = []

    def start(self, process: NodeProcess) -> NodeProcess:
        """Take a process into the group."""
        self._processes.append(process)
        return process

    def check(self, may_end: Sequence[NodeProcess] = ()) -> None:
        """Make sure that everything still runs.

        Args:
            may_end: nodes that may have ended, with exit code 0.

        Raises:
            NodeProcessError: a node ended.
        """
        for process in self._processes:
            code = process.exit_code
            if code is not None and (code != 0 or process not in may_end):
                raise process.failure(f'ended with exit code {code}')

    def wait_for_end(
        self, process: NodeProcess, timeout_s: float, poll: Any = None, interval_s: float = 0.2
    ) -> None:
        """Wait until one node has ended by itself while the others go on.

        Args:
            process: the one to wait for.
            timeout_s: how long [s].
            poll: called without arguments after every look, e.g. to show progress.
            interval_s: pause between looks [s].

        Raises:
            NodeProcessError: it took too long, it failed, or another node ended.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self.check(may_end=(process,))
            if poll is not None:
                poll()
            if process.exit_code is not None:
                return
            if time.monotonic() > deadline:
                raise process.failure(f'has not ended after {timeout_s:.0f} s')
            time.sleep(interval_s)

    def stop(self, process: NodeProcess) -> None:
        """End one node.

        Raises:
            NodeProcessError: it ended with an error.
        """
        code = process.stop()
        self._processes.remove(process)
        if code != 0:
            raise process.failure(f'ended with exit code {code}')

    def __enter__(self) -> NodeGroup:
        """Return the group."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what still runs."""
        for process in reversed(self._processes):
            process.stop()
        self._processes.clear()
