"""What benchmarks share: interleaved times, peak memory of a process of its own, the machine."""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

#: Builds what is measured and returns the function to call; crosses a process border.
Preparation = Callable[[], Callable[[], object]]


def describe_device(device: Any) -> dict[str, Any]:
    """Return what a measured number depends on."""
    import platform

    import torch

    on_gpu = device.type == 'cuda'
    return {
        'device': torch.cuda.get_device_name(device) if on_gpu else 'cpu',
        'machine': platform.machine(),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
    }


def interleaved_seconds(
    ways: Mapping[str, Callable[[], object]], repeats: int, device: Any
) -> dict[str, list[float]]:
    """Time several ways in turn, so that what else the machine does hits all of them alike.

    Args:
        ways: name -> function; each is called once before anything is timed.
        repeats: rounds; every other one runs the ways in reverse order.
        device: torch device to wait for.

    Returns:
        Name -> `repeats` times [s]; equal indices belong to the same round.
    """
    import torch

    def wait() -> None:
        if device.type == 'cuda':
            torch.cuda.synchronize(device)

    times: dict[str, list[float]] = {name: [] for name in ways}
    for function in ways.values():
        function()
    for index in range(repeats):
        names = list(ways) if index % 2 == 0 else list(ways)[::-1]
        for name in names:
            wait()
            start = time.perf_counter()
            ways[name]()
            wait()
            times[name].append(time.perf_counter() - start)
    return times


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median of the ratios of pairs."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def peak_memory_bytes(prepare: Preparation, device: Any) -> int | None:
    """Return how much memory a call takes at its peak beyond what was there before it.

    On a GPU the allocator counts. On the CPU the resident memory of a fresh process does, where
    the operating system tells its peak (Linux).

    Args:
        prepare: builds the inputs and returns the function; a module's function or a `partial`
            of one, with plain arguments.
        device: torch device that it works on.

    Returns:
        Bytes; None where it cannot be measured.

    Raises:
        EnvironmentProblemError: the process was ended from outside, as by a lack of memory.
    """
    import torch

    from gsmap_core.errors import EnvironmentProblemError

    if device.type == 'cuda':
        function = prepare()
        torch.cuda.synchronize(device)
        gc.collect()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        try:
            return pool.submit(_peak_in_this_process, prepare, threads).result()
        except BrokenProcessPool:
            raise EnvironmentProblemError(
                'the process that measures memory was ended from outside, most likely because '
                'memory ran out; measure smaller sizes'
            ) from None


def _peak_in_this_process(prepare: Preparation, threads: int) -> int | None:
    """Measure in a process that has done nothing else."""
    import torch

    torch.set_num_threads(threads)
    function = prepare()
    gc.collect()
    try:
        # Memory that the allocator keeps for later would hide what the call takes.
        ctypes.CDLL(None).malloc_trim(0)
        # Linux: the highest resident size starts anew from the present one.
        Path('/proc/self/clear_refs').write_text('5')
        before = status_bytes('VmRSS')
        function()
        return status_bytes('VmHWM') - before
    except (OSError, AttributeError, ValueError):
        return None


def status_bytes(field: str) -> int:
    """Return a size that Linux reports about this process.

    Raises:
        OSError: there is no such report.
        ValueError: the field is missing.
    """
    match = re.search(rf'^{field}:\s+(\d+) kB', Path('/proc/self/status').read_text(), re.M)
    if match is None:
        raise ValueError(field)
    return int(match[1]) * 1024
