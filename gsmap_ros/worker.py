"""A thread that always works on the newest item and never lets a queue build up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar('T')

_LOGGER = logging.getLogger(__name__)


class NewestWinsWorker(Generic[T]):
    """Processes the newest submitted item in a thread of its own.

    Args:
        process: called in the thread with one item at a time.
        on_dropped: called with an item that will not be processed and the reason (`superseded`,
            `stopped`), from the submitting or stopping thread.
        on_error: called in the thread with the item and the exception that `process` raised; the
            thread lives on.
        name: of the thread.
    """

    def __init__(
        self,
        process: Callable[[T], None],
        on_dropped: Callable[[T, str], None],
        on_error: Callable[[T, Exception], None],
        name: str = 'worker',
    ) -> None:
        self._process = process
        self._on_dropped = on_dropped
        self._on_error = on_error
        self._condition = threading.Condition()
        self._next: list[T] = []
        self._is_busy = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waiting and nothing is being processed."""
        with self._condition:
            return not self._next and not self._is_busy

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called; long waits inside `process` should end."""
        return self._is_stopping

    def submit(self, item: T) -> None:
        """Hand over an item; one that still waits is replaced and reported as `superseded`.

        After `stop` the item is reported as `stopped`.
        """
        with self._condition:
            if self._is_stopping:
                dropped, reason = [item], 'stopped'
            else:
                dropped, reason = self._next, 'superseded'
                self._next = [item]
                self._condition.notify()
        for old in dropped:
            self._on_dropped(old, reason)

    def drop_waiting(self, reason: str) -> None:
        """Drop the item that waits, if there is one; what is being processed goes on."""
        with self._condition:
            dropped, self._next = self._next, []
        for old in dropped:
            self._on_dropped(old, reason)

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread after the item it is processing; the waiting one is dropped as `stopped`.

        Args:
            timeout_s: how long to wait for the thread [s].

        Returns:
            Whether the thread has ended.
        """
        with self._condition:
            self._is_stopping = True
            dropped, self._next = self._next, []
            self._condition.notify()
        for old in dropped:
            self._on_dropped(old, 'stopped')
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._next or self._is_stopping)
                if self._is_stopping:
                    return
                item = self._next.pop()
                self._is_busy = True
            try:
                self._process(item)
            except Exception as error:
                self._report(item, error)
            finally:
                with self._condition:
                    self._is_busy = False

    def _report(self, item: T, error: Exception) -> None:
        try:
            self._on_error(item, error)
        except Exception:
            _LOGGER.exception('reporting the error %r failed', error)
