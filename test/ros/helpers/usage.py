"""What a process holds: memory, threads and files, read from /proc."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_KIB = 1024.0


@dataclass(frozen=True)
class Usage:
    """One look at a process.

    Args:
        memory_mib: resident memory that is its own (not files that are mapped) [MiB].
        threads: number of threads.
        files: number of open files.
    """

    memory_mib: float
    threads: int
    files: int


def usage(pid: int) -> Usage:
    """Look at a process now."""
    lines = dict(
        line.split(':', 1)
        for line in Path(f'/proc/{pid}/status').read_text(encoding='utf-8').splitlines()
    )
    memory_kib = float(lines['RssAnon'].split()[0])
    return Usage(memory_kib / _KIB, int(lines['Threads']), len(os.listdir(f'/proc/{pid}/fd')))


def growth(samples: Sequence[Usage], name: str) -> float:
    """Return the median of the last quarter less that of the second quarter.

    The first quarter is left out: caches fill, allocators settle.
    """
    quarter = len(samples) // 4
    values = [float(getattr(sample, name)) for sample in samples]
    settled, last = values[quarter : 2 * quarter], values[-quarter:]
    return statistics.median(last) - statistics.median(settled)
