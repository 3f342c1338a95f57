"""`gsmap benchmark` over a dataset and a collection: prepared, run, reused, reported."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.fake_drives import micro_config

from gsmap_core.cli.benchmark_prepare import drive_hashes, drives_of
from gsmap_core.cli.main import main
from gsmap_core.config import to_plain
from gsmap_core.resources import resource_dir
from gsmap_core.training.benchmark_dataset import load_dataset, load_hashes

PARTS = {
    'train': {'split': 'train', 'first_seed': 0, 'towns': 1},
    'test': {'split': 'test', 'first_seed': 20000, 'towns': 1},
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two short drives with hashes, and two suites with a row in common."""
    folder = tmp_path_factory.mktemp('collection')
    kind = {'setting': 'easy', 'duration_s': 1.0, 'width_px': 64}
    dataset = {'title': 'Two drives', 'generator_version': '1', 'card': 'Not much.'}
    dataset['parts'] = {name: {**part, **kind} for name, part in PARTS.items()}
    (folder / 'two.yaml').write_text(yaml.safe_dump(dataset))
    (folder / 'micro.yaml').write_text(yaml.safe_dump(to_plain(micro_config())))
    quick = ['batch_size=2', 'workers=0', 'cache_gb=0.01', 'warmup_steps=1', 'precision=fp32']
    row = {'config': str(folder / 'micro.yaml'), 'overrides': quick}
    other = {**row, 'overrides': [*quick, 'lr=1e-3']}
    drives = {name: {k: part[k] for k in ('first_seed', 'towns')} for name, part in PARTS.items()}
    for name, rows in (('one', {'a': row, 'b': other}), ('more', {'c': row})):
        pair = {'row': list(rows)[-1], 'host': list(rows)[0], 'source': 'table 9'}
        suite = {
            'title': f'Suite {name}', 'dataset': str(folder / 'two.yaml'),
            'drives': {**kind, **drives}, 'recipe': 'synthetic_mini', 'steps': 1, 'seeds': [0],
            'rows': rows, 'comparisons': [{**pair, 'published': 2.0, 'note': 'We learned it.'}],
        }  # fmt: skip
        suite['pretraining'] = {**row, 'setting': 'easy', 'steps': 1, 'duration_s': 1.0}
        del suite['pretraining']['overrides']
        (folder / f'{name}.yaml').write_text(yaml.safe_dump(suite, sort_keys=False))
    return folder


def prepare(folder: Path, *more: str) -> int:
    dataset = str(folder / 'two.yaml')
    return main(['benchmark', 'prepare', dataset, '--out', str(folder / 'work'), *more])


@pytest.mark.parametrize(
    'part', ['easy_test', 'traffic_test', 'light_unlabelled', 'seven_test', 'normal_test']
)
def test_the_shipped_dataset_is_what_this_machine_makes(part: str) -> None:
    """Whoever changes the generator makes another dataset: a new version, with new hashes."""
    spec = drives_of(load_dataset('gsmap-synth-v1').parts[part])[-1]
    assert drive_hashes(spec) == load_hashes('gsmap-synth-v1')[part]['drives'][spec.name]


def test_a_dataset_is_made_and_verified(folder: Path, capsys) -> None:
    one = ['--workers', '1']
    assert prepare(folder, *one) == 2
    assert '--write-hashes' in capsys.readouterr().err
    assert prepare(folder, '--write-hashes', *one) == 0
    assert prepare(folder, '--hashes-only', *one) == 0
    assert 'train: 1 drives have the hashes' in capsys.readouterr().out
    assert prepare(folder, *one) == 0
    assert 'are what they must be' in capsys.readouterr().err
    bag = next((folder / 'work/two/train').glob('*.mcap'))
    stamp = bag.stat().st_mtime_ns
    assert prepare(folder, *one) == 0 and bag.stat().st_mtime_ns == stamp
    assert 'must be' not in capsys.readouterr().err, 'verified once'
    assert prepare(folder, '--parts', 'val') == 2
    assert "part 'val' is not in dataset" in capsys.readouterr().err


def test_other_drives_are_refused(folder: Path, tmp_path: Path, capsys) -> None:
    for name in ('two.yaml', 'two.hashes.json'):
        (tmp_path / name).write_text((folder / name).read_text())
    path = tmp_path / 'two.hashes.json'
    hashes = json.loads(path.read_text())
    drive = next(iter(hashes['parts']['train']['drives']))
    town, trajectory, truth = hashes['parts']['train']['drives'][drive].split()
    # Pictures of another drive under this one's name.
    bag = tmp_path / 'work/two/train' / f'{drive}.mcap'
    bag.parent.mkdir(parents=True)
    bag.write_bytes(next((folder / 'work/two/test').glob('*.mcap')).read_bytes())
    arguments = ['--workers', '1', '--parts', 'train']
    assert prepare(tmp_path, *arguments) == 2
    error = ' '.join(capsys.readouterr().err.split())
    assert 'of town' in error and f'expected {town}' in error and 'prepare again' in error
    bag.unlink()
    hashes['parts']['train']['colours'][drive][1][2] += 2.5
    path.write_text(json.dumps(hashes))
    assert prepare(tmp_path, *arguments) == 2
    assert 'mean colours differ by 2.5' in ' '.join(capsys.readouterr().err.split())
    hashes['parts']['train']['drives'] = {drive: f'{town} {truth} {truth}', 'x': town}
    path.write_text(json.dumps(hashes))
    assert prepare(tmp_path, *arguments, '--hashes-only') == 2
    error = ' '.join(capsys.readouterr().err.split())
    assert f'trajectory {trajectory}, expected {truth}' in error
    assert 'x: not a drive of this part' in error
    values = yaml.safe_load((tmp_path / 'two.yaml').read_text())
    (tmp_path / 'two.yaml').write_text(yaml.safe_dump({**values, 'generator_version': '0'}))
    assert prepare(tmp_path, *arguments) == 2
    assert 'is made by generator 0' in capsys.readouterr().err


def test_a_collection_is_run_once_and_reported(
    folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    config = tmp_path / 'config'
    for kind in ('collections', 'train', 'models', 'rigs'):
        (config / kind).mkdir(parents=True)
    for source in resource_dir('config').glob('[tmr]*/*.yaml'):
        (config / source.parent.name / source.name).write_text(source.read_text())
    suites = [{'suite': str(folder / f'{n}.yaml'), 'paper': f'Paper {n}'} for n in ('one', 'more')]
    suites[1]['learned'] = 'Two suites are enough.'
    values = {'title': 'Everything', 'dataset': str(folder / 'two.yaml'), 'seeds': [0, 1]}
    (config / 'collections/all.yaml').write_text(yaml.safe_dump({**values, 'suites': suites}))
    monkeypatch.setattr('gsmap_core.resources.resource_dir', lambda _: config)
    monkeypatch.setattr('gsmap_core.config.resource_dir', lambda _: config)
    records = ['--results', str(tmp_path / 'records')]
    run = ['benchmark', 'run', 'all', *records, '--work', str(folder / 'work'), '--device', 'cpu']
    assert main([*run, '--rows', 'a']) == 2
    assert 'holds several suites' in ' '.join(capsys.readouterr().err.split())
    assert main([*run, '--seeds', '0']) == 0
    out = capsys.readouterr().out
    assert 'more, c, seed 0: as a of one' in out and 'c, seed 0: chamfer' not in out
    record = json.loads((tmp_path / 'records/more/c-seed0.json').read_text())
    assert record['reused_from'] == {'suite': 'one', 'row': 'a'}
    assert record['settings']['row'] == 'c' and record['peak_memory_mib'] > 100
    before = json.loads((tmp_path / 'records/one/pretraining.json').read_text())
    assert before['settings']['pretraining']['steps'] == 1 and before['frames_mapped'] > 0
    begun = yaml.safe_load((folder / 'work/one/runs/a-seed0-000/config.yaml').read_text())
    assert begun['initial_weights'].endswith('pretrained-000/model.safetensors')
    page, plot = tmp_path / 'docs/page.md', tmp_path / 'docs/plot.png'
    page.parent.mkdir()
    report = ['benchmark', 'report', 'all', *records, '--out', str(page), '--plot', str(plot)]
    assert main(report) == 0
    text = page.read_text()
    assert '# Everything' in text and 'records of 3 of 6 runs' in text
    assert '| `b` against `a`, chamfer mAP | table 9 | +0.020 |' in text
    assert 'Every row starts from what it shares with the weights of' in text
    assert 'needs two seeds |' in text and 'We learned it.' not in text
    assert '| Paper one | 1 | 0 | 0 | 0 | 1 |' in text and 'Two suites are enough.' in text
    assert '![Published differences and ours](plot.png)' in text and plot.stat().st_size > 5000
    assert '| `train` | train | 0 to 0 | 1 | easy |' in text and 'peak GiB' in text


def test_a_pretraining_sees_the_labels_of_its_rows(folder: Path, tmp_path: Path, capsys) -> None:
    suite = yaml.safe_load((folder / 'one.yaml').read_text())
    row = suite['rows']['a']
    del suite['dataset']
    # What all rows share is the suite's, and holds for the pretraining too.
    suite['overrides'], config = row.pop('overrides'), row['config']
    suite['rows'] = {'all': row, 'half': {**row, 'label_percent': 50.0, 'overrides': ['lr=1e-3']}}
    suite |= {'comparisons': [], 'pretraining': {'config': config, 'steps': 2, 'seed': 3}}
    path, records = folder / 'own.yaml', tmp_path / 'records'
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    where = ['--results', str(records), '--work', str(folder / 'work'), '--device', 'cpu']
    assert main(['benchmark', 'run', str(path), *where]) == 0
    runs = folder / 'work/own/runs'
    for name, row, lr in (('pretrained', 'all', 2e-3), ('pretrained_50', 'half', 1e-3)):
        begun = yaml.safe_load((runs / f'{row}-seed0-000/config.yaml').read_text())
        assert begun['initial_weights'].endswith(f'/{name}-000/model.safetensors')
        assert begun['recipe']['lr'] == lr and begun['recipe']['batch_size'] == 2
        before = yaml.safe_load((runs / f'{name}-000/config.yaml').read_text())['recipe']
        assert (before['steps'], before['seed'], before['batch_size']) == (2, 3, 2)
    half = json.loads((records / 'pretraining_50.json').read_text())
    assert half['settings']['label_percent'] == 50 and half['frames_mapped'] > 0
    whole = json.loads((records / 'pretraining.json').read_text())
    assert 'label_percent' not in whole['settings']
    capsys.readouterr()
    assert main(['benchmark', 'report', str(path), '--results', str(records)]) == 0
    text = capsys.readouterr().out
    assert 'recipe `synthetic_mini` with `batch_size=2`, `workers=0`, ' in text
    assert 'after 2 steps on its labelled drives (once for each share of labels, seed 3)' in text
    assert 'at 50 %, ' in text and 'at 100 % chamfer mAP on test towns' in text
