"""Collections, and the benchmark datasets that their suites use."""

from dataclasses import replace

import pytest
import yaml

from gsmap_core.errors import ConfigError
from gsmap_core.resources import resource_dir
from gsmap_core.training.benchmark_dataset import load_dataset, load_hashes
from gsmap_core.training.collection import load_collection
from gsmap_core.training.suite import load_suite

DATASETS = sorted(path.stem for path in (resource_dir('config') / 'datasets').glob('*.yaml'))
COLLECTIONS = sorted(path.stem for path in (resource_dir('config') / 'collections').glob('*.yaml'))


@pytest.mark.parametrize('name', DATASETS)
def test_every_drive_of_a_shipped_dataset_has_hashes(name: str) -> None:
    dataset, hashes = load_dataset(name), load_hashes(name)
    assert set(hashes) == set(dataset.parts)
    for title, part in dataset.parts.items():
        assert len(hashes[title]['drives']) == part.towns * (part.repeat + 1)
        assert hashes[title]['colours'].keys() < hashes[title]['drives'].keys()
        assert all(len(text.split()) == 3 for text in hashes[title]['drives'].values())


@pytest.mark.parametrize('name', COLLECTIONS)
def test_shipped_collections_hold_what_exists(name: str) -> None:
    collection = load_collection(name)
    assert len(collection.seeds) >= 3
    papers = {item.paper for item, _ in collection.load()}
    assert papers == {'GSMap', 'InteractionMap', 'MapGCLR'}
    for _, suite in collection.load():
        assert suite.seeds == collection.seeds and suite.dataset == collection.dataset
        # Every comparison is one that a paper makes, or a switch of our own without a claim.
        assert any(suite.published(pair) is not None for pair in suite.comparisons)


def test_every_suite_at_both_sizes() -> None:
    """`full` holds every table that exists at mini size."""
    folder = resource_dir('config') / 'benchmarks'
    tables = {path.stem.removesuffix('_mini') for path in folder.glob('*_mini.yaml')}
    full = {item.suite.removesuffix('_tiny') for item, _ in load_collection('full').load()}
    assert tables == full - {'gsmap_long'}
    for table in tables:
        small, large = load_suite(f'{table}_mini'), load_suite(f'{table}_tiny')
        assert list(small.rows) == list(large.rows)
        # What was learned at one size need not hold at the other.
        assert [replace(pair, note='') for pair in small.comparisons] == list(large.comparisons)
        assert all('_mini' not in row.config for row in large.rows.values())
        assert large.drives.train.towns > small.drives.train.towns


def test_a_collection_takes_rows_and_their_comparisons(tmp_path) -> None:
    values = {
        'title': 't',
        'dataset': 'gsmap-synth-v1',
        'seeds': [7],
        'suites': [{'suite': 'gsmap_mini', 'paper': 'p', 'rows': ['maptrv2', 'gsmap_v2']}],
    }
    path = tmp_path / 'c.yaml'
    path.write_text(yaml.safe_dump(values))
    ((_, suite),) = load_collection(str(path)).load()
    assert list(suite.rows) == ['maptrv2', 'gsmap_v2'] and suite.seeds == (7,)
    assert [(pair.row, pair.host) for pair in suite.comparisons] == [('gsmap_v2', 'maptrv2')]
    assert suite.speed_host == 'maptrv2'
    for key, value, message in (
        ('seeds', [], 'at least one'),
        ('dataset', 'other', "has the dataset 'gsmap-synth-v1'"),
        ('suites', [{'suite': 'gsmap_mini', 'paper': 'p', 'rows': ['x']}], "no row 'x'"),
    ):
        path.write_text(yaml.safe_dump({**values, key: value}))
        with pytest.raises(ConfigError, match=message):
            load_collection(str(path)).load()


def test_towns_serve_one_split() -> None:
    dataset = load_dataset('gsmap-synth-v1')
    part = dataset.parts['easy_test']
    # Another kind of town with the same seed has the same streets.
    shared = replace(part, first_seed=79, setting='normal')
    with pytest.raises(ConfigError, match='share the towns 79 to 79'):
        replace(dataset, parts={**dataset.parts, 'more': shared})
    assert dataset.part_like(part) == 'easy_test' and dataset.part_like(shared) is None


def test_a_suite_of_a_dataset_has_drives_of_its_parts() -> None:
    suite = load_suite('interactionmap_mini')
    dataset = load_dataset(suite.dataset)
    names = {what: dataset.part_like(part) for what, part in suite.parts().items()}
    assert names == {
        'train': 'traffic_train',
        'test': 'traffic_test',
        'test-clear': 'clear_test',
        'pretrain': 'easy_train',
        'pretrain-test': 'easy_test',
    }
    with pytest.raises(ConfigError, match='no part like the train drives'):
        replace(suite, drives=replace(suite.drives, duration_s=12.0))
    with pytest.raises(ConfigError, match='names no towns'):
        suite.drives.part('unlabelled')
