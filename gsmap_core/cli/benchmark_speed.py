"""How fast the rows of a suite are: in turn, in one process, on the same camera sets."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gsmap_core.config import ModelConfig

#: Consecutive camera sets of a drive that a pass maps; long enough to fill a memory of key frames.
_NUM_FRAMES = 12
_ROUNDS = 7


@dataclass(frozen=True)
class Speed:
    """Size and speed of a model.

    Args:
        parameters: that it uses.
        frames_per_second: median over the rounds, from decoded images to the vector map.
        of_first: its speed divided by that of the first model, median over pairs of one round.
    """

    parameters: int
    frames_per_second: float
    of_first: float


def measure_speed(
    models: Mapping[str, ModelConfig], drive: Path, device: str, rounds: int = _ROUNDS
) -> dict[str, Speed]:
    """Measure models on the beginning of a drive, each as a stream that starts anew every round.

    The weights are random: speed does not depend on them.

    Args:
        models: name -> configuration; the first one is what the others are compared with.
        drive: a bag.
        device: `auto`, `cpu` or `cuda[:N]`.
        rounds: passes of every model, interleaved; one more before them is not timed.

    Raises:
        DataError: the bag cannot be read.
        ConfigError: the device is not there.
    """
    import torch

    from gsmap_core.cli.bench_measure import interleaved_seconds, median_ratio
    from gsmap_core.data.bag import open_bag
    from gsmap_core.models.checkpoint import save_checkpoint
    from gsmap_core.models.mapper import OnlineMapper, parameter_report
    from gsmap_core.runtime.predictor import Predictor, resolve_device

    source = open_bag(drive)
    frames = [source.frame(index) for index in range(min(_NUM_FRAMES, len(source)))]

    def way(predictor: Predictor) -> Callable[[], object]:
        def run() -> object:
            predictor.reset()
            return [predictor.predict(frame) for frame in frames]

        return run

    ways = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, config) in enumerate(models.items()):
            torch.manual_seed(0)
            path = Path(folder) / f'{number}.safetensors'
            save_checkpoint(path, OnlineMapper(config))
            ways[name] = way(Predictor(path, device=device))
    times = interleaved_seconds(ways, rounds, resolve_device(device))
    first = times[next(iter(models))]
    return {
        name: Speed(
            parameters=parameter_report(config)['used_parameters'],
            frames_per_second=round(len(frames) / statistics.median(times[name]), 2),
            of_first=round(median_ratio(first, times[name]), 4),
        )
        for name, config in models.items()
    }
