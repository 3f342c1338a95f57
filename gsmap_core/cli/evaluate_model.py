"""The maps that `gsmap evaluate` scores when it is given a checkpoint and bags."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from gsmap_core.data.bag import open_bag
from gsmap_core.data.loading import find_bags
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.runtime.predictor import Predictor
from gsmap_core.structures import VectorMap

_LOGGER = logging.getLogger(__name__)

Pair = tuple[VectorMap, VectorMap]


@dataclass
class MappedBag:
    """What became of one bag.

    Args:
        path: the bag.
        pairs: prediction and ground truth of every camera set that has both.
        indices: number of the camera set of each pair.
        failed: what could not be read, with file and id.
    """

    path: Path
    pairs: list[Pair] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def bags_of(sources: list[str]) -> list[Path]:
    """Return all bags at some paths, each once.

    Raises:
        DataError: a path holds none.
    """
    return list(dict.fromkeys(path for source in sources for path in find_bags(source)))


def map_bags(args: argparse.Namespace) -> list[MappedBag] | None:
    """Map the bags with a checkpoint; torchrun's processes share them out.

    Args:
        args: `data`, `weights`, `device`, `precision`, `stride`, `limit`.

    Returns:
        All bags in their order; None in the processes of torchrun that do not report.

    Raises:
        DataError: no bag, or none with ground truth.
        ConfigError: a stride or limit below 1.
    """
    import torch.distributed as dist

    from gsmap_core.training.distributed import joined_processes

    for name in ('stride', 'limit'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f'--{name} {value}; expected at least 1')
    paths = bags_of(args.data)
    with joined_processes(args.device) as processes:
        predictor = Predictor(
            args.weights,
            device=str(processes.device),
            precision=args.precision,
            # Published metrics are computed on all decoded points.
            closing_distance_m=0.0,
        )
        mine = {
            index: _map_bag(paths[index], predictor, args.stride, args.limit)
            for index in range(processes.rank, len(paths), processes.count)
        }
        if processes.count > 1:
            shares: list[dict[int, MappedBag]] = [{} for _ in range(processes.count)]
            dist.all_gather_object(shares, mine)
            mine = {index: bag for share in shares for index, bag in share.items()}
        if not processes.is_main:
            return None
    bags = [mine[index] for index in sorted(mine)]
    if not any(bag.pairs for bag in bags):
        problems = [message for bag in bags for message in bag.failed]
        raise DataError(
            f'{", ".join(map(str, paths[:5]))}: no camera set with ground truth'
            + (f' ({problems[0]})' if problems else '')
            + '; expected bags with /ground_truth/local_map'
        )
    return bags


def _map_bag(path: Path, predictor: Predictor, stride: int, limit: int | None) -> MappedBag:
    """Map one bag; what cannot be read is listed, the rest goes on."""
    result = MappedBag(path)
    try:
        drive = open_bag(path)
    except DataError as error:
        _LOGGER.warning('%s', error)
        result.failed.append(str(error))
        return result
    predictor.reset()
    chosen = range(0, len(drive), stride)[:limit]
    for index in tqdm(chosen, desc=drive.name, unit='frame', file=sys.stderr, disable=None):
        try:
            frame, truth = drive.frame(index), drive.ground_truth(index)
        except DataError as error:
            _LOGGER.warning('%s', error)
            result.failed.append(str(error))
            continue
        prediction = predictor.predict(frame)
        if truth is not None:
            result.pairs.append((prediction, truth))
            result.indices.append(index)
    return result
