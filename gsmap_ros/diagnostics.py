"""Counters of the mapping node and their way to `/diagnostics`."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rclpy.node import Node

OK, WARN, ERROR, STALE = 0, 1, 2, 3
#: Latencies and arrival times over which rates and percentiles are taken.
_WINDOW = 200


@dataclass(frozen=True)
class Status:
    """One diagnostic status.

    Args:
        name: of the component.
        level: `OK`, `WARN` (degraded, output continues), `ERROR` (no output) or `STALE` (no input
            seen yet).
        message: a sentence.
        values: further numbers and texts.
    """

    name: str
    level: int
    message: str
    values: Mapping[str, object]


class DiagnosticsPublisher:
    """Publishes statuses on `/diagnostics`.

    Args:
        node: creates the publisher; its name goes in front of every status name.
    """

    def __init__(self, node: Node) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def publish(self, statuses: Sequence[Status], hardware_id: str) -> None:
        """Publish one array.

        Args:
            statuses: in the order in which they should be shown.
            hardware_id: name of the rig.
        """
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [
            DiagnosticStatus(
                level=bytes([status.level]),
                name=f'{self._node.get_name()}: {status.name}',
                message=status.message,
                hardware_id=hardware_id,
                values=[KeyValue(key=key, value=str(v)) for key, v in status.values.items()],
            )
            for status in statuses
        ]
        self._publisher.publish(array)

    def flush(self, timeout_s: float = 1.0) -> None:
        """Wait until every subscriber has what was published, at most `timeout_s`."""
        from rclpy.duration import Duration

        self._publisher.wait_for_all_acked(Duration(nanoseconds=int(timeout_s * 1e9)))


class SetAccount:
    """What became of every camera set; safe to use from several threads.

    Every set that `receive` counts ends in exactly one of `map_done` or `drop`, so that
    received = mapped + dropped + in flight.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._mapped = 0
        self._partial = 0
        self._dropped: Counter[str] = Counter()
        self._latencies_ms: deque[float] = deque(maxlen=100_000)
        self._finished_s: deque[float] = deque(maxlen=_WINDOW)

    def receive(self, is_partial: bool) -> None:
        """Count a set that left the synchroniser (dropped ones included)."""
        with self._lock:
            self._received += 1
            self._partial += is_partial

    def map_done(self, latency_ms: float) -> None:
        """Count a set whose map was published.

        Args:
            latency_ms: wall time from the closing of the set to the published map [ms].
        """
        with self._lock:
            self._mapped += 1
            self._latencies_ms.append(latency_ms)
            self._finished_s.append(time.monotonic())

    def drop(self, reason: str) -> None:
        """Count a set that gave no map."""
        with self._lock:
            self._dropped[reason] += 1

    def values(self) -> dict[str, object]:
        """Return sets received, mapped and dropped by reason, latencies and rate."""
        with self._lock:
            dropped = sum(self._dropped.values())
            result: dict[str, object] = {
                'sets_received': self._received,
                'sets_partial': self._partial,
                'sets_mapped': self._mapped,
                'sets_dropped': dropped,
                'sets_in_flight': self._received - self._mapped - dropped,
            }
            result |= {f'sets_dropped.{name}': n for name, n in sorted(self._dropped.items())}
            if self._latencies_ms:
                p50, p95 = np.percentile(np.array(self._latencies_ms), [50, 95])
                result |= {'latency_p50_ms': f'{p50:.1f}', 'latency_p95_ms': f'{p95:.1f}'}
            result['rate_hz'] = f'{_rate_hz(self._finished_s):.2f}'
            return result

    @property
    def num_mapped(self) -> int:
        """Sets whose map was published."""
        return self._mapped

    @property
    def num_dropped(self) -> int:
        """Sets that gave no map."""
        with self._lock:
            return self._dropped.total()

    @property
    def num_received(self) -> int:
        """Sets that left the synchroniser."""
        return self._received


class Arrivals:
    """Rate and age of the messages of one topic."""

    def __init__(self) -> None:
        self._arrived_s: deque[float] = deque(maxlen=_WINDOW)
        self.count = 0

    def note(self) -> None:
        """Count a message that has just arrived."""
        self.count += 1
        self._arrived_s.append(time.monotonic())

    @property
    def age_s(self) -> float | None:
        """Wall time since the last message [s]; None before the first."""
        return time.monotonic() - self._arrived_s[-1] if self._arrived_s else None

    @property
    def rate_hz(self) -> float:
        """Mean rate over the last messages [1/s]."""
        return _rate_hz(self._arrived_s)


def _rate_hz(times_s: Sequence[float] | deque[float]) -> float:
    if len(times_s) < 2 or times_s[-1] <= times_s[0]:
        return 0.0
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])
