"""The drives of a training: labelled, unlabelled, validation; as paths or by label splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsmap_core.data.drives import Drive
    from gsmap_core.data.pair_loading import PairDataset
    from gsmap_core.training.run_directory import RunInfo


@dataclass(frozen=True)
class TrainingDrives:
    """What a training reads.

    Args:
        labelled: drives whose ground truth is learned.
        unlabelled: drives of which only images and poses are looked at.
        validation: drives that are scored on.
    """

    labelled: list[Drive]
    unlabelled: list[Drive]
    validation: list[Drive]


def open_training_drives(info: RunInfo) -> TrainingDrives:
    """Open the drives of a training.

    With a split file, `train_data` holds the drives of all its groups, and those that the label
    ratio asks for are picked by name; unlabelled and validation drives that are given as paths
    replace those of the file.

    Raises:
        DataError: a path holds no bag, or a drive of the split is not in the data.
    """
    data = open_drives(info.train_data)
    unlabelled = open_drives(info.unlabelled_data)
    validation = open_drives(info.val_data)
    if not info.splits:
        return TrainingDrives(data, unlabelled, validation)
    from gsmap_core.data.traversal_file import read_traversal_file
    from gsmap_core.errors import DataError

    plan = read_traversal_file(info.splits)
    if plan.splits is None:
        raise DataError(
            f"'{info.splits}' holds no label splits: fewer than two of its drives are "
            'single-traversal; give --labelled and --unlabelled instead'
        )
    split = plan.splits.split(info.label_percent)
    if info.recipe.contrastive is not None and not unlabelled:
        unlabelled = _picked(data, plan.splits.unlabelled, info.splits)
    return TrainingDrives(
        _picked(data, split.labelled, info.splits),
        unlabelled,
        validation or _picked(data, split.validation, info.splits),
    )


def _picked(drives: Sequence[Drive], names: Sequence[str], splits: str) -> list[Drive]:
    from gsmap_core.errors import DataError

    by_name = {drive.name: drive for drive in drives}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DataError(
            f"'{splits}' names {len(missing)} drives that are not in --data, the first one "
            f"'{missing[0]}'; give the drives that it was made from"
        )
    return [by_name[name] for name in names]


def open_drives(paths: Sequence[str]) -> list[Drive]:
    """Open the bags at and below paths, and synthetic drives.

    Raises:
        DataError: a path holds no bag.
    """
    from gsmap_core.data.bag import open_bag
    from gsmap_core.data.loading import find_bags
    from gsmap_core.data.synthetic.drive import PREFIX, synthetic_drives

    drives: list[Drive] = []
    for path in paths:
        if path.startswith(PREFIX):
            drives += synthetic_drives(path)
        else:
            drives += [open_bag(bag) for bag in find_bags(path)]
    return drives


def resolved(path: str) -> str:
    """Make a path absolute, so that a resumed training finds it from anywhere."""
    from gsmap_core.data.synthetic.drive import PREFIX

    return path if path.startswith(PREFIX) else str(Path(path).resolve())


def pair_dataset(info: RunInfo, drives: Sequence[Any]) -> PairDataset | None:
    """Return the pairs of unlabelled drives; None for a recipe without.

    Raises:
        ConfigError: the recipe needs unlabelled drives and there are none.
        DataError: drives without poses or without overlap.
    """
    contrastive = info.recipe.contrastive
    if contrastive is None:
        return None
    from gsmap_core.data.pair_loading import PairDataset
    from gsmap_core.errors import ConfigError

    if not drives:
        raise ConfigError(
            f"recipe '{info.recipe.name}' learns from unlabelled drives and none are given; give "
            'some with --unlabelled, or another recipe (synthetic_mini, synthetic_tiny, ...)'
        )
    return PairDataset(
        drives, info.model, contrastive, info.recipe.augmentation, seed=info.recipe.seed
    )
