"""Ground truth of many drives at once, in worker processes, in the order of the drives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import shapely
from tqdm import tqdm

from gsmap_core.data.drives import Drive
from gsmap_core.errors import GsmapError
from gsmap_core.structures import VectorMap


@dataclass(frozen=True)
class DriveGroundTruth:
    """Ground truth of one drive.

    Args:
        name: name of the drive.
        frames: one map per camera set, in time order; None where there is none.
        problems: frame number and reason of each map that could not be made.
    """

    name: str
    frames: tuple[VectorMap | None, ...]
    problems: tuple[tuple[int, str], ...] = ()


def ground_truth_of(
    drives: Sequence[Drive], workers: int = 1, *, progress: bool = False
) -> Iterator[DriveGroundTruth]:
    """Yield the ground truth of drives, in their order; the number of workers changes nothing.

    Args:
        drives: what to look at; with several workers they must allow pickling.
        workers: processes; 1: this process alone.
        progress: show a bar on standard error.

    Yields:
        One result per drive. A frame that cannot be made is listed, the others go on.
    """
    total = sum(len(drive) for drive in drives)
    with tqdm(total=total, desc='ground truth', unit='frame', disable=not progress) as bar:
        for result in _results(drives, workers):
            bar.update(len(result.frames))
            yield result


def _results(drives: Sequence[Drive], workers: int) -> Iterator[DriveGroundTruth]:
    if workers <= 1 or len(drives) < 2:
        yield from map(_of_drive, drives)
        return
    # Spawned, not forked: the caller may have threads of PyTorch running.
    context = get_context('spawn')
    with ProcessPoolExecutor(min(workers, len(drives)), mp_context=context) as pool:
        yield from pool.map(_of_drive, drives)


def _of_drive(drive: Drive) -> DriveGroundTruth:
    frames: list[VectorMap | None] = []
    problems: list[tuple[int, str]] = []
    for index in range(len(drive)):
        try:
            frames.append(drive.ground_truth(index))
        except (GsmapError, shapely.errors.ShapelyError) as error:
            frames.append(None)
            problems.append((index, f'{drive.name}, frame {index}: {error}'))
    return DriveGroundTruth(drive.name, tuple(frames), tuple(problems))
