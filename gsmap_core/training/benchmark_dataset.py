"""A benchmark dataset: which synthetic drives it holds, and the hashes that they must have.

The definition is a file of config/datasets; the hashes lie beside it (`NAME.hashes.json`).
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gsmap_core.config import build_dataclass, config_path, read_yaml
from gsmap_core.errors import ConfigError

#: Kinds of town.
Setting = Literal['normal', 'easy', 'easy_occluded']


@dataclass(frozen=True, kw_only=True)
class DriveKind:
    """How drives are recorded, as `gsmap synth` takes it.

    Args:
        setting: kind of town.
        duration_s: of every drive [s].
        rate_hz: camera sets per second.
        width_px: of the first camera's images [px].
        lidar: whether sweeps are recorded (depth supervision needs them).
        rig: name of a rig.
        conditions: light and weather.
    """

    setting: Setting = 'normal'
    duration_s: float = 10.0
    rate_hz: float = 2.0
    width_px: int = 320
    lidar: bool = False
    rig: str = 'nuscenes_like'
    conditions: str = 'mix'


@dataclass(frozen=True)
class DrivePart(DriveKind):
    """Drives of one kind through consecutive towns.

    Args:
        split: what they are for.
        first_seed: seed of the first town.
        towns: how many, one route through each.
        repeat: how often every route is driven again, in other light, on another line, in both
            directions.
    """

    split: Literal['train', 'unlabelled', 'test']
    first_seed: int
    towns: int
    repeat: int = 0

    @property
    def seeds(self) -> range:
        """Seeds of the towns."""
        return range(self.first_seed, self.first_seed + self.towns)


@dataclass(frozen=True)
class BenchmarkDataset:
    """A fixed set of synthetic drives.

    Args:
        name: of the file.
        title: headline of the card.
        generator_version: of the generator that makes these drives and no others.
        card: what it can say about real roads and what not; Markdown.
        parts: by name.

    Raises:
        ConfigError: no part, or towns that serve two splits.
    """

    name: str
    title: str
    generator_version: str
    card: str
    parts: dict[str, DrivePart]

    def __post_init__(self) -> None:
        """Refuse to test on what was trained on, in whatever kind of drive."""
        if not self.parts:
            raise ConfigError(f"dataset '{self.name}' has no part; expected at least one")
        for (first, a), (second, b) in itertools.combinations(self.parts.items(), 2):
            shared = range(max(a.seeds.start, b.seeds.start), min(a.seeds.stop, b.seeds.stop))
            if a.split != b.split and shared:
                raise ConfigError(
                    f"dataset '{self.name}': parts '{first}' ({a.split}) and '{second}' "
                    f'({b.split}) share the towns {shared.start} to {shared.stop - 1}; expected '
                    'different towns for different splits'
                )

    def part_like(self, wanted: DrivePart) -> str | None:
        """Return the name of the part that holds exactly these drives, or None."""
        return next((name for name, part in self.parts.items() if part == wanted), None)


def load_dataset(name_or_path: str) -> BenchmarkDataset:
    """Read a definition by name (`gsmap-synth-v1`) or path.

    Raises:
        ConfigError: not found, unknown key, wrong type or impossible value.
    """
    path = config_path('datasets', name_or_path)
    return build_dataclass(BenchmarkDataset, {'name': path.stem, **read_yaml(path)}, str(path))


def hashes_path(name_or_path: str) -> Path:
    """Return where the hashes of a dataset lie."""
    path = config_path('datasets', name_or_path)
    return path.with_name(f'{path.stem}.hashes.json')


def load_hashes(name_or_path: str) -> dict[str, Any]:
    """Read the hashes of a dataset: part -> drive -> what it must be, see `drive_hashes`.

    Raises:
        ConfigError: there are none.
    """
    path = hashes_path(name_or_path)
    try:
        hashes: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))['parts']
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"hashes '{path}' cannot be read: {error!r}; write them with `gsmap benchmark prepare "
            f'{name_or_path} --write-hashes`'
        ) from None
    return hashes
