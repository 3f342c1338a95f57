"""A collection: rows of several suites that make up a benchmark (config/collections)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gsmap_core.config import build_dataclass, config_path, read_yaml
from gsmap_core.errors import ConfigError
from gsmap_core.training.suite import Suite, load_suite


@dataclass(frozen=True)
class CollectedSuite:
    """A suite of a collection.

    Args:
        suite: name or path.
        paper: whose claims it tries.
        rows: those that are run; empty: all of them.
        learned: what came out of it, in words; Markdown.
    """

    suite: str
    paper: str
    rows: tuple[str, ...] = ()
    learned: str = ''


@dataclass(frozen=True)
class Collection:
    """Rows of several suites, each with the same seeds.

    Args:
        name: of the file.
        title: headline of the report.
        dataset: benchmark dataset that all suites use.
        seeds: every row is trained once with each.
        suites: in the order of the report.

    Raises:
        ConfigError: no suite or seed.
    """

    name: str
    title: str
    dataset: str
    seeds: tuple[int, ...]
    suites: tuple[CollectedSuite, ...]

    def __post_init__(self) -> None:
        """Validate."""
        if not self.suites or not self.seeds:
            raise ConfigError(
                f"collection '{self.name}': {len(self.suites)} suites, {len(self.seeds)} seeds; "
                'expected at least one of each'
            )

    def load(self) -> list[tuple[CollectedSuite, Suite]]:
        """Return every suite with the rows and seeds of this collection only.

        Raises:
            ConfigError: a suite or a row does not exist, or a suite has another dataset.
        """
        found = []
        for item in self.suites:
            suite = load_suite(item.suite)
            if suite.dataset != self.dataset:
                raise ConfigError(
                    f"collection '{self.name}': suite '{item.suite}' has the dataset "
                    f"'{suite.dataset}'; expected '{self.dataset}'"
                )
            unknown = [row for row in item.rows if row not in suite.rows]
            if unknown:
                raise ConfigError(
                    f"collection '{self.name}': suite '{item.suite}' has no row "
                    f"'{unknown[0]}'; expected some of {', '.join(suite.rows)}"
                )
            rows = {row: suite.rows[row] for row in item.rows or suite.rows}
            pairs = tuple(p for p in suite.comparisons if p.row in rows and p.host in rows)
            host = suite.speed_host if suite.speed_host in rows else ''
            found.append(
                (
                    item,
                    replace(suite, rows=rows, seeds=self.seeds, comparisons=pairs, host=host),
                )
            )
        return found


def load_collection(name_or_path: str) -> Collection:
    """Read a collection by name (`small`) or path.

    Raises:
        ConfigError: not found, unknown key, wrong type or impossible value.
    """
    path = config_path('collections', name_or_path)
    return build_dataclass(Collection, {'name': path.stem, **read_yaml(path)}, str(path))
