"""What every node program does around its node: start, signals, spinning, a clean end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from gsmap_core.errors import GsmapError

#: Longest wait for a callback; a signal is noticed after this time at the latest.
_SPIN_S = 0.1
#: How long a node that asks for it goes on after a signal [s].
_DRAIN_S = 0.3
#: Callbacks that may fail in a row before a node that lives on gives up.
_MAX_FAILURES = 100


class FinishingNode(Protocol):
    """A node that has something to do before it is destroyed."""

    @property
    def exit_code(self) -> int | None:
        """None while the node wants to go on; else the exit code of the process."""
        ...

    @property
    def drains(self) -> bool:
        """Whether messages that are under way when a signal comes should still be taken."""
        ...

    def finish(self) -> None:
        """End the work; the context is still valid."""
        ...


def spin_on(executor: Any, node: Any, timeout_s: float, num_failures: int = 0) -> int:
    """Run callbacks; one that fails is logged with its traceback, and the node goes on.

    A message of whatever content must not end a node that a vehicle depends on. A node whose
    `lives_on` is not set ends with the exception, as one does that only fails.

    Args:
        executor: of the node.
        node: that it spins.
        timeout_s: longest wait for a callback [s].
        num_failures: how many calls before this one failed in a row.

    Returns:
        The same number after this call.
    """
    try:
        executor.spin_once(timeout_sec=timeout_s)
    except Exception:
        if not getattr(node, 'lives_on', False) or num_failures >= _MAX_FAILURES:
            raise
        node.get_logger().error(f'a callback failed: {traceback.format_exc()}')
        return num_failures + 1
    return 0


def run_node(make_node: Callable[[], Any]) -> int:
    """Run one node until SIGINT, SIGTERM or its own end.

    The signals do not shut the context down as rclpy's handlers would: the node still publishes
    its last messages.

    Args:
        make_node: creates the node (see `FinishingNode`).

    Returns:
        Exit code: 0 after a signal, the node's own otherwise, 2 if it could not be made.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        try:
            node = make_node()
        except GsmapError as error:
            print(f'error: {error}', file=sys.stderr)
            return 2
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            num_failures = 0
            while not stop.is_set() and node.exit_code is None:
                num_failures = spin_on(executor, node, _SPIN_S, num_failures)
            end_s = time.monotonic() + (_DRAIN_S if stop.is_set() and node.drains else 0.0)
            while time.monotonic() < end_s:
                executor.spin_once(timeout_sec=0.02)
        finally:
            if rclpy.ok():
                node.finish()
            executor.shutdown()
            node.destroy_node()
        return int(node.exit_code or 0)
    finally:
        rclpy.try_shutdown()


class _ForwardingHandler(logging.Handler):
    """Hands records of standard logging to a ROS logger."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy refuses one call site with changing severities: one line each.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def forward_library_logs(logger: Any) -> None:
    """Send the log of `gsmap_core` and `gsmap_ros` to the node's logger."""
    for name in ('gsmap_core', 'gsmap_ros'):
        library = logging.getLogger(name)
        for handler in [h for h in library.handlers if isinstance(h, _ForwardingHandler)]:
            library.removeHandler(handler)
        library.addHandler(_ForwardingHandler(logger))
        library.setLevel(logging.INFO)
        library.propagate = False
