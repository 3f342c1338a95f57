"""Evaluation over several processes, with the same result as over one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from typing import Any, Protocol, Self

from gsmap_core.errors import ConfigError
from gsmap_core.structures import VectorMap

Pair = tuple[VectorMap, VectorMap]
#: Parts per process: small enough that all processes end at about the same time.
_PARTS_PER_WORKER = 4


class Accumulator(Protocol):
    """What takes frames one by one and can be joined with another of its kind."""

    def add(self, prediction: VectorMap, truth: VectorMap, /) -> None:
        """Take a frame."""

    def merge(self, other: Self, /) -> None:
        """Append the frames of another one, which follow those here."""


def evaluate_pairs(
    make: Callable[[], Mapping[str, Any]],
    pairs: Sequence[Pair],
    *,
    workers: int = 1,
    whole_scenes: bool = False,
    progress: Callable[[int], object] = lambda count: None,
) -> dict[str, Any]:
    """Give every frame to every accumulator.

    Frames are shared out in contiguous parts that are joined in their order, so that the number of
    processes changes nothing.

    Args:
        make: returns empty accumulators by name; a module's function or a `partial` of one.
        pairs: prediction and ground truth of every frame.
        workers: processes; 1: this one.
        whole_scenes: never share out one scene over several parts.
        progress: is told how many frames more are done.

    Returns:
        The accumulators with all frames.

    Raises:
        ConfigError: less than one process.
        DataError: of an accumulator, for the first frame that it does not accept.
    """
    if workers < 1:
        raise ConfigError(f'{workers} workers; expected at least 1')
    parts = list(_parts(pairs, workers * _PARTS_PER_WORKER, whole_scenes))
    if workers == 1 or len(parts) < 2:
        result = dict(make())
        for pair in pairs:
            for accumulator in result.values():
                accumulator.add(*pair)
            progress(1)
        return result
    result = {}
    with ProcessPoolExecutor(min(workers, len(parts)), mp_context=get_context('spawn')) as pool:
        futures = [pool.submit(_evaluate_part, make, part) for part in parts]
        try:
            for part, future in zip(parts, futures, strict=True):
                shares = future.result()
                for name, accumulator in shares.items():
                    if name in result:
                        result[name].merge(accumulator)
                result = result or shares
                progress(len(part))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return result


def _evaluate_part(make: Callable[[], Mapping[str, Any]], part: Sequence[Pair]) -> dict[str, Any]:
    """Return accumulators with the frames of one part; runs in a process of its own."""
    import cv2

    # One process per core: threads inside would only fight over it.
    cv2.setNumThreads(1)
    accumulators = dict(make())
    for pair in part:
        for accumulator in accumulators.values():
            accumulator.add(*pair)
    return accumulators


def _parts(pairs: Sequence[Pair], count: int, whole_scenes: bool) -> Iterator[Sequence[Pair]]:
    """Yield contiguous parts of about equal size."""
    scenes = [truth.scene or prediction.scene for prediction, truth in pairs]
    last = {scene: index for index, scene in enumerate(scenes)}
    size = max(1, -(-len(pairs) // count))
    cuts, open_until = [0], -1
    for index, scene in enumerate(scenes):
        if index - cuts[-1] >= size and (not whole_scenes or open_until < index):
            cuts.append(index)
        open_until = max(open_until, last[scene])
    for start, end in pairwise([*cuts, len(pairs)]):
        if end > start:
            yield pairs[start:end]
