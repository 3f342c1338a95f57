from dataclasses import replace

import pytest

from gsmap_core.errors import ConfigError
from gsmap_core.evaluation.metric_names import METRICS
from gsmap_core.models.mapper import parameter_report
from gsmap_core.resources import resource_dir
from gsmap_core.rig import load_rig
from gsmap_core.training.suite import check_rows, load_suite, resolve_row

SHIPPED = sorted(path.stem for path in (resource_dir('config') / 'benchmarks').glob('*.yaml'))


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_suites_name_what_exists(name: str) -> None:
    suite = load_suite(name)
    rows = check_rows(suite)
    shares = {row: chosen.label_percent for row, chosen in suite.rows.items()}
    plain = [
        repr((replace(model, name=''), recipe, shares[row]))
        for row, (model, recipe) in rows.items()
    ]
    assert len(set(plain)) == len(plain), 'two rows train the same'
    assert all(recipe.steps == suite.steps for _, recipe in rows.values())
    temporal = {row for row, (model, _) in rows.items() if model.has_fusion}
    assert {row for row in rows if suite.recipe_of(row).endswith('_sequences')} == temporal
    if not suite.drives.lidar:
        assert all(model.losses.depth == 0 for model, _ in rows.values())
    cameras = len(load_rig(suite.drives.rig))
    assert all(model.num_cameras in (0, cameras) for model, _ in rows.values())
    assert set(suite.metrics) <= set(METRICS)
    for model, _ in rows.values():
        assert parameter_report(model)['total_parameters'] > 0, 'it can be built'
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
        ('test:', 'unlabelled: {first_seed: 4, towns: 2}, test:', 'overlap'),
        ('maptr_mini}', 'maptr_mini, label_percent: 0}', 'label_percent is 0'),
        ('first_seed: 5', 'first_seed: 1', 'overlap'),
        ('first_seed: 5', 'first_seeds: 5', "unknown key 'first_seeds'"),
        ('seeds: [0]', 'seeds: []', 'at least one of each'),
        ('steps: 1', 'steps: 1\ncomparisons: [{row: a, host: b}]', "names the row 'b'"),
        ('steps: 1', 'steps: 1\nhost: c', "names the row 'c'"),
        ('steps: 1', 'steps: 1\nextra_tests: {clear: sunny}', 'sunny'),
    ],
)
def test_mistakes_are_named(tmp_path, old: str, new: str, message: str) -> None:
    path = tmp_path / 's.yaml'
    path.write_text(MINIMAL)
    assert load_suite(str(path)).name == 's'
    path.write_text(MINIMAL.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        load_suite(str(path))


def test_rows_have_overrides_recipes_and_equal_budgets(tmp_path) -> None:
    path = tmp_path / 's.yaml'
    row = 'b: {config: maptr_mini, overrides: [model.embed_dims=32, lr=1e-3]}'
    path.write_text(MINIMAL.replace('rows: {', f'rows: {{{row}, '))
    suite = load_suite(str(path))
    model, recipe = resolve_row(suite, 'b')
    assert model.embed_dims == 32 and recipe.lr == 1e-3 and recipe.steps == 1
    assert list(check_rows(suite)) == ['b', 'a'] and suite.speed_host == 'b'
    other = row.replace('maptr_mini,', 'maptr_mini, recipe: synthetic_tiny,')
    path.write_text(MINIMAL.replace('rows: {', f'rows: {{{other}, '))
    suite = load_suite(str(path))
    assert (suite.recipe_of('b'), suite.recipe_of('a')) == ('synthetic_tiny', 'synthetic_mini')
    check_rows(suite)
    smaller = row.replace('lr=1e-3', 'batch_size=4')
    path.write_text(MINIMAL.replace('rows: {', f'rows: {{{smaller}, '))
    with pytest.raises(ConfigError, match='samples per step differ'):
        check_rows(load_suite(str(path)))
    path.write_text(MINIMAL.replace('rows: {', f'rows: {{{row.replace("lr", "learn")}, '))
    with pytest.raises(ConfigError, match='learn'):
        check_rows(load_suite(str(path)))


def test_unlabelled_drives_are_asked_for_before_anything_is_trained(tmp_path) -> None:
    path = tmp_path / 's.yaml'
    path.write_text(MINIMAL.replace('maptr_mini}', 'maptr_mini, recipe: mapgclr_mini}'))
    with pytest.raises(ConfigError, match="row 'a' learns from unlabelled drives"):
        check_rows(load_suite(str(path)))
