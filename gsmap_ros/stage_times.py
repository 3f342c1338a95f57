"""Where the time from the exposure of an image to the published map goes, stage by stage.

The stages of one set follow each other without a gap, so that they add up to `total`: from the
stamp of the set to the moment its map was published.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gsmap_ros.camera_sync import CameraSet
from gsmap_ros.diagnostics import OK, STALE, Status

#: Every stage in order, and what happens in it.
STAGES: dict[str, str] = {
    'stagger': 'from the stamp of the set to that of its image that arrived last: cameras that '
    'are not exposed at the same moment; negative where the reference is exposed last',
    'transport': "from that image's stamp to its arrival in the node: driver, network",
    'sync_wait': 'from its arrival to the closing of the set: nothing in a complete set',
    'queue': 'until the worker is free',
    'decode': 'images decoded, in parallel, and undistorted',
    'tf': 'transforms: waiting for them, looking them up',
    'prepare': 'images resized and normalised for the network',
    'model': 'the network',
    'postprocess': 'elements from its answer, and their ids',
    'publish': 'messages and markers made and handed to the middleware',
}
#: What is neither the network nor the exposure times of the cameras.
OVERHEAD = tuple(name for name in STAGES if name not in ('stagger', 'model'))
#: Sets over which percentiles are taken.
_WINDOW = 500


class ReceivedImage(NamedTuple):
    """An image message and when it came.

    Args:
        message: as received.
        arrived_ns: node clock [ns].
        arrived_s: monotonic clock [s].
    """

    message: Any
    arrived_ns: int
    arrived_s: float


class ClosedSet(NamedTuple):
    """A camera set on its way through the node.

    Args:
        camera_set: its images.
        closed_s: monotonic clock when it left the synchroniser [s].
    """

    camera_set: CameraSet[ReceivedImage]
    closed_s: float


class StageTimer:
    """Times the stages of one set; begin it when the worker takes the set.

    Args:
        item: the set.
        clock: monotonic [s].
    """

    def __init__(self, item: ClosedSet, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        stamp_ns, image = max(item.camera_set.images.values(), key=lambda pair: pair[1].arrived_s)
        begin_s = clock()
        self.times_ms: dict[str, float] = {
            'stagger': (stamp_ns - item.camera_set.stamp_ns) / 1e6,
            'transport': (image.arrived_ns - stamp_ns) / 1e6,
            'sync_wait': 1e3 * (item.closed_s - image.arrived_s),
            'queue': 1e3 * (begin_s - item.closed_s),
        }
        self._last_s = begin_s

    def stage(self, name: str, **inner_s: float) -> None:
        """Note that a stage has just ended; it began where the one before ended.

        Args:
            name: of the stage.
            inner_s: stages within that were timed by others [s]; they are taken out of this one.
        """
        now_s = self._clock()
        self.times_ms |= {key: 1e3 * value for key, value in inner_s.items()}
        self.times_ms[name] = 1e3 * (now_s - self._last_s - sum(inner_s.values()))
        self._last_s = now_s


@dataclass(frozen=True)
class StageSummary:
    """Percentiles of one stage [ms]."""

    p50: float
    p95: float


class StageTimes:
    """Stage times of the last sets; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: deque[Mapping[str, float]] = deque(maxlen=_WINDOW)

    def add(self, times_ms: Mapping[str, float]) -> None:
        """Take the stages of a mapped set [ms]; one that did not happen counts as 0."""
        row = {name: times_ms.get(name, 0.0) for name in STAGES}
        row['overhead'] = sum(row[name] for name in OVERHEAD)
        row['total'] = sum(row[name] for name in STAGES)
        with self._lock:
            self._sets.append(row)

    def summary(self) -> dict[str, StageSummary]:
        """Return the percentiles of every stage, `overhead` and `total`; empty without sets."""
        with self._lock:
            rows = list(self._sets)
        if not rows:
            return {}
        values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return {
            name: StageSummary(*np.percentile(column, [50, 95]).tolist())
            for name, column in values.items()
        }

    def status(self) -> Status:
        """Return the diagnostic status `timing`."""
        summary = self.summary()
        values: dict[str, object] = {'sets': len(self._sets)}
        for name, item in summary.items():
            values |= {f'{name}_p50_ms': f'{item.p50:.1f}', f'{name}_p95_ms': f'{item.p95:.1f}'}
        if not summary:
            return Status('timing', STALE, 'no set mapped yet', values)
        text = (
            f'{summary["total"].p50:.0f} ms from stamp to map at the median: network '
            f'{summary["model"].p50:.0f} ms, cameras apart {summary["stagger"].p50:.0f} ms, '
            f'everything else {summary["overhead"].p50:.0f} ms'
        )
        return Status('timing', OK, text, values)
