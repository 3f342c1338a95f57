"""The inference thread: newest wins, failures do not kill it, it ends when told."""

from __future__ import annotations

import threading
import time

from gsmap_ros.worker import NewestWinsWorker


class Harness:
    """A worker whose processing can be held up."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started = threading.Event()
        self.done: list[int] = []
        self.dropped: list[tuple[int, str]] = []
        self.errors: list[tuple[int, str]] = []
        self.worker: NewestWinsWorker[int] = NewestWinsWorker(
            self.process,
            lambda item, reason: self.dropped.append((item, reason)),
            lambda item, error: self.errors.append((item, str(error))),
        )

    def process(self, item: int) -> None:
        self.started.set()
        assert self.gate.wait(5.0)
        if item < 0:
            raise ValueError(f'cannot do {item}')
        self.done.append(item)

    def wait_idle(self) -> None:
        deadline = time.monotonic() + 5.0
        while not self.worker.is_idle:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_items_that_wait_are_superseded_by_newer_ones() -> None:
    harness = Harness()
    harness.worker.submit(1)
    assert harness.started.wait(5.0)
    for item in (2, 3, 4):
        harness.worker.submit(item)
    harness.gate.set()
    harness.wait_idle()
    assert harness.done == [1, 4]
    assert harness.dropped == [(2, 'superseded'), (3, 'superseded')]
    assert harness.worker.stop()


def test_an_exception_is_reported_and_the_thread_goes_on() -> None:
    harness = Harness()
    harness.gate.set()
    for item in (-1, 5):
        harness.worker.submit(item)
        harness.wait_idle()
    assert harness.errors == [(-1, 'cannot do -1')]
    assert harness.done == [5]
    assert harness.worker.stop()


def test_a_failing_report_does_not_kill_the_thread() -> None:
    done: list[int] = []

    def process(item: int) -> None:
        if item == 0:
            raise ValueError('first')
        done.append(item)

    def report(item: int, error: Exception) -> None:
        raise RuntimeError('second')

    worker: NewestWinsWorker[int] = NewestWinsWorker(process, lambda *_: None, report)
    for item in (0, 1):
        worker.submit(item)
        deadline = time.monotonic() + 5.0
        while not worker.is_idle and time.monotonic() < deadline:
            time.sleep(0.001)
    assert done == [1]
    assert worker.stop()


def test_stop_finishes_the_current_item_and_drops_the_waiting_one() -> None:
    harness = Harness()
    harness.worker.submit(1)
    assert harness.started.wait(5.0)
    harness.worker.submit(2)
    threading.Timer(0.05, harness.gate.set).start()
    assert harness.worker.stop()
    harness.worker.submit(3)
    assert harness.done == [1]
    assert harness.dropped == [(2, 'stopped'), (3, 'stopped')]


def test_stop_tells_when_the_thread_is_stuck() -> None:
    harness = Harness()
    harness.worker.submit(1)
    assert harness.started.wait(5.0)
    assert not harness.worker.stop(timeout_s=0.01)
    assert harness.worker.is_stopping
    harness.gate.set()


def test_drop_waiting_leaves_the_current_item_alone() -> None:
    harness = Harness()
    harness.worker.submit(1)
    assert harness.started.wait(5.0)
    harness.worker.submit(2)
    harness.worker.drop_waiting('reset')
    harness.gate.set()
    harness.wait_idle()
    assert harness.done == [1]
    assert harness.dropped == [(2, 'reset')]
    assert harness.worker.stop()
