import pytest

from gsmap_core.config import load_model_config
from gsmap_core.errors import ConfigError
from gsmap_core.resources import resource_dir
from gsmap_core.training.recipe import load_recipe
from gsmap_core.training.suite import load_suite

SHIPPED = sorted(path.stem for path in (resource_dir('config') / 'benchmarks').glob('*.yaml'))


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_suites_name_what_exists(name: str) -> None:
    suite = load_suite(name)
    load_recipe(suite.recipe)
    for row in suite.rows.values():
        load_model_config(row.config)
    assert suite.comparisons


MINIMAL = """
title: t
drives: {train: {first_seed: 0, towns: 2}, test: {first_seed: 5, towns: 1}}
recipe: synthetic_mini
steps: 1
seeds: [0]
rows: {a: {config: maptr_mini}}
"""


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('first_seed: 5', 'first_seed: 1', 'overlap'),
        ('first_seed: 5', 'first_seeds: 5', "unknown key 'first_seeds'"),
        ('seeds: [0]', 'seeds: []', 'at least one of each'),
        ('steps: 1', 'steps: 1\ncomparisons: [{row: a, host: b}]', "names the row 'b'"),
    ],
)
def test_mistakes_are_named(tmp_path, old: str, new: str, message: str) -> None:
    path = tmp_path / 's.yaml'
    path.write_text(MINIMAL)
    assert load_suite(str(path)).name == 's'
    path.write_text(MINIMAL.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        load_suite(str(path))
