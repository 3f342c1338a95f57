"""Splits for training with few labels: who is labelled, who validates, who is seen unlabelled."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gsmap_core.data.traversals import TraversedDrive
from gsmap_core.errors import ConfigError, DataError

#: Label ratios of the paper's tables, and all labels [%].
RATIOS_PERCENT: tuple[float, ...] = (2.5, 5.0, 10.0, 20.0, 30.0, 40.0, 100.0)


@dataclass(frozen=True)
class SplitConfig:
    """How single-traversal drives are divided.

    Args:
        ratios_percent: label ratios, ascending [%].
        val_share: share of the single-traversal drives that validates, the same drives at every
            ratio; the ratios are shares of the remaining ones. None: as the paper's summary has
            it, ratios are shares of all single-traversal drives and those left over validate.
        seed: of the draw.

    Raises:
        ConfigError: a ratio or share is not allowed, or nothing would be left to validate.
    """

    ratios_percent: tuple[float, ...] = RATIOS_PERCENT
    val_share: float | None = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate."""
        ratios = tuple(float(ratio) for ratio in self.ratios_percent)
        object.__setattr__(self, 'ratios_percent', ratios)
        if not ratios or list(ratios) != sorted(set(ratios)) or not 0 < ratios[0] <= 100:
            raise ConfigError(
                f'splits: label ratios are {list(ratios)} %; expected ascending numbers above 0, '
                'at most 100'
            )
        if ratios[-1] > 100 or (self.val_share is None and ratios[-1] == 100):
            raise ConfigError(
                f'splits: a label ratio of {ratios[-1]:g} % leaves no drive to validate; expected '
                'at most 100, and less where the rest validates (set val_share)'
            )
        if self.val_share is not None and not 0 < self.val_share < 1:
            raise ConfigError(f'splits: val_share = {self.val_share:g}; expected above 0, below 1')


@dataclass(frozen=True)
class LabelSplit:
    """The drives of one label ratio, all of them single-traversal.

    Args:
        ratio_percent: label ratio [%].
        labelled: names of the drives trained with their labels, sorted.
        validation: names of the drives that validate, sorted.
    """

    ratio_percent: float
    labelled: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class LabelSplits:
    """The splits of all label ratios; a smaller ratio's labelled drives are in every larger one.

    Args:
        seed: of the draw.
        val_share: see `SplitConfig`.
        unlabelled: names of all multi-traversal drives, sorted; their labels are not used, at any
            ratio.
        splits: one per ratio, ascending.
    """

    seed: int
    val_share: float | None
    unlabelled: tuple[str, ...]
    splits: tuple[LabelSplit, ...]

    def split(self, ratio_percent: float) -> LabelSplit:
        """Return the split of a label ratio [%].

        Raises:
            DataError: there is none; the message lists the ratios.
        """
        for item in self.splits:
            if math.isclose(item.ratio_percent, ratio_percent, rel_tol=1e-9):
                return item
        known = ', '.join(f'{item.ratio_percent:g}' for item in self.splits)
        raise DataError(f'no split with {ratio_percent:g} % of the labels; there are {known} %')


def make_label_splits(
    drives: Sequence[TraversedDrive], config: SplitConfig | None = None
) -> LabelSplits:
    """Divide drives by what an analysis says about them.

    The draw depends on the seed and each drive's own name alone: the same on every machine, in
    whatever order the drives come, and further drives do not reshuffle those that were there.
    Every ratio has at least one labelled drive.

    Args:
        drives: of `analyse_traversals`.
        config: ratios, validation and seed; None: the defaults.

    Raises:
        DataError: fewer than two single-traversal drives: none to validate beside the labelled.

    Source: MapGCLR, dataset split strategy. A fixed validation set, unlike there, makes the
    numbers of different ratios comparable and allows 100 %.
    """
    config = config or SplitConfig()
    single = [drive.name for drive in drives if not drive.is_multi_traversal]
    if len(single) < 2:
        raise DataError(
            f'{len(single)} of {len(drives)} drives are single-traversal; label splits need at '
            'least 2, one to train on and one to validate: add drives elsewhere'
        )
    drawn = sorted(single, key=lambda name: (_rank(config.seed, name), name))
    num_val = 0
    if config.val_share is not None:
        num_val = min(max(_rounded(config.val_share * len(drawn)), 1), len(drawn) - 1)
    validation, pool = drawn[:num_val], drawn[num_val:]
    splits = []
    for ratio in config.ratios_percent:
        most = len(pool) if validation else len(pool) - 1
        count = min(max(_rounded(ratio / 100 * len(pool)), 1), most)
        splits.append(
            LabelSplit(
                ratio_percent=ratio,
                labelled=tuple(sorted(pool[:count])),
                validation=tuple(sorted(validation or pool[count:])),
            )
        )
    return LabelSplits(
        seed=config.seed,
        val_share=config.val_share,
        unlabelled=tuple(sorted(drive.name for drive in drives if drive.is_multi_traversal)),
        splits=tuple(splits),
    )


def draw_labelled(names: Sequence[str], ratio_percent: float, seed: int = 0) -> list[str]:
    """Return a share of drives, sorted; at least one, and those of a smaller ratio are among them.

    Args:
        names: of all drives.
        ratio_percent: share [%].
        seed: of the draw.
    """
    drawn = sorted(names, key=lambda name: (_rank(seed, name), name))
    return sorted(drawn[: max(_rounded(ratio_percent / 100 * len(drawn)), 1)])


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f'{seed}:{name}'.encode()).digest()


def _rounded(value: float) -> int:
    """Return the nearest whole number; halves go up."""
    return math.floor(value + 0.5)
