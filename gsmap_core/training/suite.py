"""A suite: models that are trained under equal conditions to compare them (config/benchmarks)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from gsmap_core.config import (
    ModelConfig,
    build_dataclass,
    config_path,
    model_config_from_dict,
    read_extended,
    read_model_values,
)
from gsmap_core.errors import ConfigError
from gsmap_core.training.benchmark_dataset import DriveKind, DrivePart, Setting, load_dataset
from gsmap_core.training.recipe import (
    TrainConfig,
    apply_overrides,
    load_changed_recipe,
    split_assignments,
)

#: Stands for the size in the names of configurations and recipes.
_SIZE = '{size}'


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
class RepeatedTowns(Towns):
    """Consecutive towns, the same route through each several times.

    Args:
        repeat: how often it is driven again, in other light, on another line, in both directions.
    """

    repeat: int = 2


@dataclass(frozen=True)
class SuiteDrives(DriveKind):
    """The synthetic drives of a suite, all of one kind.

    Args:
        train: towns that are trained on.
        test: towns that are scored on.
        unlabelled: towns whose images rows with a contrastive loss learn from; None: none.
    """

    train: Towns
    test: Towns
    unlabelled: RepeatedTowns | None = None

    def __post_init__(self) -> None:
        """Refuse to test on what was trained on."""
        given = [part for part in (self.train, self.test, self.unlabelled) if part is not None]
        ordered = sorted(given, key=lambda part: part.first_seed)
        for first, second in itertools.pairwise(ordered):
            if first.first_seed + first.towns > second.first_seed:
                raise ConfigError(
                    f'{first.towns} towns from seed {first.first_seed} and {second.towns} from '
                    f'{second.first_seed} overlap; train, test and unlabelled need different towns'
                )

    def part(
        self, split: Literal['train', 'unlabelled', 'test'], setting: Setting | None = None
    ) -> DrivePart:
        """Return the drives of a split as the part of a dataset.

        Args:
            split: which drives.
            setting: another kind of town than usual, or None.

        Raises:
            ConfigError: there are no unlabelled drives.
        """
        towns: Towns | None = getattr(self, split)
        if towns is None:
            raise ConfigError(f'drives.{split} names no towns')
        kind = {item.name: getattr(self, item.name) for item in fields(DriveKind)}
        if setting is not None:
            kind['setting'] = setting
        repeat = towns.repeat if isinstance(towns, RepeatedTowns) else 0
        return DrivePart(split, towns.first_seed, towns.towns, repeat, **kind)


@dataclass(frozen=True)
class SuiteRow:
    """One way to train.

    Args:
        config: model configuration.
        overrides: `KEY=VALUE` as `gsmap train --set` takes them.
        recipe: of this row, as long and with batches as large as the suite's; empty: the suite's.
        paper_map: chamfer mAP of the row that it stands for in a published table [percent]; only
            told.
        label_percent: share of the training drives that it sees; those of a smaller share are
            among those of a larger one.
        curve: that it is a point of in the picture of scores over shares; empty: of none.

    Raises:
        ConfigError: the share is not above 0 and at most 100.
    """

    config: str
    overrides: tuple[str, ...] = ()
    recipe: str = ''
    paper_map: float | None = None
    label_percent: float = 100.0
    curve: str = ''

    def __post_init__(self) -> None:
        """Validate."""
        if not 0 < self.label_percent <= 100:
            raise ConfigError(f'label_percent is {self.label_percent:g}; expected 0 to 100')


@dataclass(frozen=True)
class Comparison:
    """Two rows whose difference is judged; a paper may claim one.

    Args:
        row: the one that claims to be better.
        host: the one that it is compared with.
        source: table of the paper that claims it; empty: of the suite.
        published: difference of chamfer mAP there [hundredths]; None: that of the rows'
            `paper_map`, if both have one.
        published_raster: the same for raster mAP.
        note: what we learned of it, told where the claim is not reproduced.
    """

    row: str
    host: str
    source: str = ''
    published: float | None = None
    published_raster: float | None = None
    note: str = ''


@dataclass(frozen=True)
class Pretraining:
    """What rows start from: a training with the suite's recipe, before any of theirs.

    A row takes what its model shares with the pretrained one, by name and shape.

    Args:
        config: model configuration.
        steps: optimiser steps.
        setting: kind of town that it is trained and scored in, once for all rows; the seeds are
            the suite's. None: the suite's own drives, once for each share of the labels, so
            that no row has seen a label that is not its own.
        duration_s: of the drives of `setting` [s].
        seed: of the training.
    """

    config: str
    steps: int
    setting: Setting | None = None
    duration_s: float = 10.0
    seed: int = 0


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
        metrics: what is scored beside `chamfer` and `raster`, as `gsmap predict --metric` has it.
        extra_tests: title -> kind of town: the same test towns are scored in these too.
        by_occlusion: score the thirds of the test frames apart in which vehicles hide the
            least, more and the most.
        host: row that the speed of all rows is stated against; empty: the first one.
        dataset: benchmark dataset that all drives are parts of; empty: drives of its own.
        pretraining: what rows start from; None: from random weights.
        overrides: of every row and the pretraining; those of a row come after.

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
    metrics: tuple[str, ...] = ()
    extra_tests: dict[str, Setting] = field(default_factory=dict)
    by_occlusion: bool = False
    host: str = ''
    dataset: str = ''
    pretraining: Pretraining | None = None
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what would fail after hours of training."""
        if not self.rows or not self.seeds or self.steps <= 0:
            raise ConfigError(
                f'{len(self.rows)} rows, {len(self.seeds)} seeds, {self.steps} steps; expected at '
                'least one of each'
            )
        named = [name for pair in self.comparisons for name in (pair.row, pair.host)]
        for name in (*named, self.host or next(iter(self.rows))):
            if name not in self.rows:
                raise ConfigError(
                    f"comparison or host names the row '{name}'; expected one of "
                    f'{", ".join(self.rows)}'
                )
        if self.dataset:
            known = load_dataset(self.dataset)
            for what, part in self.parts().items():
                if known.part_like(part) is None:
                    raise ConfigError(
                        f"dataset '{self.dataset}' has no part like the {what} drives ({part}); "
                        f'expected one of {", ".join(known.parts)}'
                    )

    @property
    def speed_host(self) -> str:
        """The row that speeds are stated against."""
        return self.host or next(iter(self.rows))

    def parts(self) -> dict[str, DrivePart]:
        """Return all drives by what they are for.

        `train`, `test`, `test-TITLE` of the extra tests, `unlabelled`, `pretrain` and
        `pretrain-test`.
        """
        drives = self.drives
        found = {'train': drives.part('train'), 'test': drives.part('test')}
        found |= {
            f'test-{title}': drives.part('test', setting)
            for title, setting in self.extra_tests.items()
        }
        if drives.unlabelled is not None:
            found['unlabelled'] = drives.part('unlabelled')
        before = self.pretraining
        if before is not None and before.setting is not None:
            for what, part in (
                ('pretrain', drives.part('train', before.setting)),
                ('pretrain-test', drives.part('test', before.setting)),
            ):
                found[what] = replace(part, duration_s=before.duration_s)
        return found

    def published(self, pair: Comparison) -> float | None:
        """Return the difference of chamfer mAP that a paper states [hundredths], if it does."""
        mine, theirs = self.rows[pair.row].paper_map, self.rows[pair.host].paper_map
        if pair.published is not None or mine is None or theirs is None:
            return pair.published
        return mine - theirs

    def recipe_of(self, row: str) -> str:
        """Return the name of the recipe that a row is trained with."""
        return self.rows[row].recipe or self.recipe

    def overrides_of(self, row: str) -> tuple[str, ...]:
        """Return the overrides that a row is trained with."""
        return (*self.overrides, *self.rows[row].overrides)

    def pretrained_share(self, row: str) -> float:
        """Return the share of the labels that the pretraining of a row sees [percent]."""
        before = self.pretraining
        own = before is not None and before.setting is None
        return self.rows[row].label_percent if own else 100.0


def load_suite(name_or_path: str) -> Suite:
    """Read a suite by name (`gsmap_mini`) or path.

    A file with `extends: NAME` holds only what differs from that suite, and leaves out a row with
    `ROW: null`; `{size}` in the name of a configuration or a recipe stands for the file's `size`.

    Raises:
        ConfigError: not found, unknown key, wrong type or impossible value.
    """
    path = config_path('benchmarks', name_or_path)
    values = read_extended('benchmarks', name_or_path)
    return build_dataclass(Suite, _sized(values, str(values.pop('size', _SIZE))), str(path))


def _sized(values: dict[str, Any], size: str) -> dict[str, Any]:
    """Return the values of a suite without empty rows, and with the size in the names of files."""
    rows = values.get('rows')
    if isinstance(rows, dict):
        values['rows'] = rows = {name: row for name, row in rows.items() if row is not None}
    named = rows.values() if isinstance(rows, dict) else ()
    for item in (values, values.get('pretraining'), *named):
        for key in ('config', 'recipe'):
            if isinstance(item, dict) and isinstance(item.get(key), str):
                item[key] = item[key].replace(_SIZE, size)
    return values


def resolve_row(suite: Suite, row: str) -> tuple[ModelConfig, TrainConfig]:
    """Return what a row trains and how, its overrides applied.

    Raises:
        ConfigError: a configuration, a recipe, a key or a value of the row is wrong.
    """
    chosen = suite.rows[row]
    recipe_sets, model_sets = split_assignments(suite.overrides_of(row))
    values = apply_overrides(read_model_values(chosen.config), model_sets)
    model = model_config_from_dict(values, str(config_path('models', chosen.config)))
    recipe_path = config_path('train', suite.recipe_of(row))
    sets = [*recipe_sets, ('steps', str(suite.steps)), ('epochs', 'null')]
    return model, load_changed_recipe(recipe_path, sets)


def check_rows(suite: Suite) -> dict[str, tuple[ModelConfig, TrainConfig]]:
    """Resolve all rows and see that they are trained on equally many samples.

    Raises:
        ConfigError: a row is wrong, or its batches are larger or smaller than the others'.
    """
    found = {row: resolve_row(suite, row) for row in suite.rows}
    for row, (_, recipe) in found.items():
        if recipe.contrastive is not None and suite.drives.unlabelled is None:
            raise ConfigError(
                f"suite '{suite.name}': row '{row}' learns from unlabelled drives and "
                'drives.unlabelled names no towns'
            )
    sizes = {
        row: recipe.total_batch_size or recipe.batch_size * recipe.accumulate_steps
        for row, (_, recipe) in found.items()
    }
    if len(set(sizes.values())) > 1:
        texts = ', '.join(f'{row} {size}' for row, size in sizes.items())
        raise ConfigError(
            f"suite '{suite.name}': samples per step differ ({texts}); expected equal budgets"
        )
    return found
