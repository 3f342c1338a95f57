"""A suite: models that are trained under equal conditions to compare them (config/benchmarks)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gsmap_core.config import build_dataclass, config_path, read_yaml
from gsmap_core.errors import ConfigError


@dataclass(frozen=True)
class Towns:
    """Consecutive towns, one drive through each.

    Args:
        first_seed: seed of the first one.
        towns: how many.
    """

    first_seed: int
    towns: int


@dataclass(frozen=True)
class SuiteDrives:
    """The synthetic drives of a suite.

    Args:
        train: towns that are trained on.
        test: towns that are scored on.
        setting: kind of town.
        duration_s: of every drive [s].
        rate_hz: camera sets per second.
        width_px: of the first camera's images [px].
        lidar: whether sweeps are recorded (depth supervision needs them).
    """

    train: Towns
    test: Towns
    setting: Literal['normal', 'easy', 'easy_occluded'] = 'normal'
    duration_s: float = 10.0
    rate_hz: float = 2.0
    width_px: int = 320
    lidar: bool = False

    def __post_init__(self) -> None:
        """Refuse to test on what was trained on."""
        first, second = sorted((self.train, self.test), key=lambda part: part.first_seed)
        if first.first_seed + first.towns > second.first_seed:
            raise ConfigError(
                f'{first.towns} towns from seed {first.first_seed} and {second.towns} from '
                f'{second.first_seed} overlap; train and test need different towns'
            )


@dataclass(frozen=True)
class SuiteRow:
    """One way to train.

    Args:
        config: model configuration.
        overrides: `KEY=VALUE` as `gsmap train --set` takes them.
    """

    config: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two rows whose difference is judged.

    Args:
        row: the one that claims to be better.
        host: the one that it is compared with.
    """

    row: str
    host: str


@dataclass(frozen=True)
class Suite:
    """Rows that share data, recipe and length.

    Args:
        name: of the file.
        title: headline of the report.
        drives: what is trained and scored on.
        recipe: training recipe.
        steps: optimiser steps of every run.
        seeds: every row is trained once with each.
        rows: by name.
        comparisons: differences that the report judges.

    Raises:
        ConfigError: no row or seed, or a comparison of rows that do not exist.
    """

    name: str
    title: str
    drives: SuiteDrives
    recipe: str
    steps: int
    seeds: tuple[int, ...]
    rows: dict[str, SuiteRow]
    comparisons: tuple[Comparison, ...] = ()

    def __post_init__(self) -> None:
        """Check what would fail after hours of training."""
        if not self.rows or not self.seeds or self.steps <= 0:
            raise ConfigError(
                f'{len(self.rows)} rows, {len(self.seeds)} seeds, {self.steps} steps; expected at '
                'least one of each'
            )
        for pair in self.comparisons:
            for name in (pair.row, pair.host):
                if name not in self.rows:
                    raise ConfigError(
                        f"comparison names the row '{name}'; expected one of "
                        f'{", ".join(self.rows)}'
                    )


def load_suite(name_or_path: str) -> Suite:
    """Read a suite by name (`gsmap_mini`) or path.

    Raises:
        ConfigError: not found, unknown key, wrong type or impossible value.
    """
    path = config_path('benchmarks', name_or_path)
    return build_dataclass(Suite, {'name': path.stem, **read_yaml(path)}, str(path))
