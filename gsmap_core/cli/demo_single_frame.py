"""The maps that the demo's model makes of every camera set alone, for comparison with the node's.

By default the same weights, whose state is dropped before every set: the difference is what memory
brings, and nothing else differs. Another checkpoint can be named instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gsmap_core.cli.demo_score import Score, score
from gsmap_core.config import ModelConfig
from gsmap_core.data.bag import BagDrive
from gsmap_core.mapping.identity import IdentityTracker
from gsmap_core.models.checkpoint import read_checkpoint_config
from gsmap_core.runtime.predictor import Predictor
from gsmap_core.structures import VectorMap

#: How the figures came about, as the summary says it.
SAME_RUN = "the node's own run: its model has no memory"
NO_STATE = 'state dropped before every camera set'


@dataclass(frozen=True)
class SingleFrame:
    """Figures of a model that maps every camera set alone.

    Args:
        weights: checkpoint.
        how: how it was run.
        quality: its figures; None without ground truth.
    """

    weights: Path
    how: str
    quality: Score | None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the summary."""
        figures = {} if self.quality is None else self.quality.to_dict()
        return {'weights': self.weights.name, 'how': self.how, **figures}


def is_temporal(config: ModelConfig) -> bool:
    """Whether a model carries anything from frame to frame."""
    return config.has_fusion or config.bev.history


def single_frame(
    drive: BagDrive,
    mapped: Iterable[int],
    quality: Score | None,
    weights: Path,
    other: Path | None,
    device: str,
) -> SingleFrame:
    """Return the figures of the single frame for the camera sets that the node mapped.

    Args:
        drive: the played bag.
        mapped: indices of the camera sets that have a map.
        quality: of the node's maps.
        weights: the node's checkpoint.
        other: checkpoint to compare with; None: the same without memory.
        device: torch device.

    Raises:
        CheckpointError: a checkpoint is not usable.
    """
    if other is None and not is_temporal(read_checkpoint_config(weights)):
        return SingleFrame(weights, SAME_RUN, quality)
    checkpoint = weights if other is None else other
    # Without ground truth there is nothing to compare.
    maps = {} if quality is None else map_alone(drive, sorted(mapped), checkpoint, device)
    return SingleFrame(checkpoint, NO_STATE, None if quality is None else score(drive, maps))


def map_alone(
    drive: BagDrive, indices: list[int], weights: Path, device: str
) -> dict[int, VectorMap]:
    """Map camera sets as if each were the first; ids are made over time as in the node.

    Args:
        drive: the bag.
        indices: camera sets, in order.
        weights: checkpoint.
        device: torch device.
    """
    predictor, tracker = Predictor(weights, device=device), IdentityTracker()
    maps = {}
    for index in tqdm(indices, desc='single frame', unit='set', file=sys.stderr, disable=None):
        predictor.reset()
        maps[index] = tracker.update(predictor.predict(drive.frame(index)))
    return maps
