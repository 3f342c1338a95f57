"""`gsmap benchmark` on the smallest suite there is: real drives, trainings, scores and report."""

import json

import pytest
import yaml
from helpers.fake_drives import micro_config

from gsmap_core.cli.benchmark_run import batch_shares
from gsmap_core.cli.main import main
from gsmap_core.config import to_plain
from gsmap_core.training.recipe import load_recipe


@pytest.fixture(scope='module')
def suite(tmp_path_factory):
    """Two rows of two steps each on one town: one with heights, one with Gaussians and memory."""
    folder = tmp_path_factory.mktemp('benchmark')
    values = to_plain(micro_config())
    (folder / 'micro.yaml').write_text(yaml.safe_dump(values))
    quick = ['batch_size=2', 'workers=0', 'cache_gb=0.01', 'warmup_steps=1', 'precision=fp32']
    config = str(folder / 'micro.yaml')
    row = {'config': config, 'overrides': [*quick, 'model.decoder.num_dims=3']}
    gaussians = [
        *quick,
        'model.fusion.kind=keyframe_streaming',
        'model.representation=gaussians',
        'model.losses.raster=10',
    ]
    gaussians += ['model.losses.raster_options={rows: 20, columns: 10}']
    drives = {'setting': 'easy', 'duration_s': 1.0, 'width_px': 64}
    drives |= {'train': {'first_seed': 0, 'towns': 1}, 'test': {'first_seed': 20000, 'towns': 1}}
    (folder / 'tiny.yaml').write_text(
        yaml.safe_dump(
            {
                'title': 'Nothing much', 'drives': drives, 'recipe': 'synthetic_mini', 'steps': 2,
                'seeds': [0], 'metrics': ['stability'], 'extra_tests': {'hidden': 'easy_occluded'},
                'by_occlusion': True,
                'rows': {
                    'plain': row,
                    'gaussian': {
                        'config': config, 'overrides': gaussians,
                        'recipe': 'synthetic_mini_sequences', 'paper_map': 50.0,
                    },
                },
                'comparisons': [{'row': 'gaussian', 'host': 'plain'}],
            },
            sort_keys=False,
        )
    )  # fmt: skip
    return folder


def test_processes_share_batch_and_pairs():
    recipe = load_recipe('mapgclr_tiny')
    pairs = recipe.contrastive.pairs.per_batch
    expected = [
        f'batch_size={recipe.batch_size // 2}',
        f'contrastive.pairs.per_batch={pairs // 2}',
    ]
    assert batch_shares(recipe, 2) == expected and batch_shares(recipe, 1) == []
    # A recipe of a paper states the batch of all together, whoever takes part in it.
    assert batch_shares(load_recipe('maptrv2_nuscenes'), 2) == []


def command(suite, *more: str) -> list[str]:
    results = ['--results', str(suite / 'records')]
    return [more[0], str(suite / 'tiny.yaml'), *results, *more[1:]]


def test_suite_runs_resumes_and_reports(suite, capsys) -> None:
    run = command(suite, 'run', '--work', str(suite / 'work'), '--device', 'cpu')
    # No time at all: the drives are made, no training begins, and nothing is recorded.
    assert main(['benchmark', *run, '--max-minutes', '0']) == 0
    assert 'stopped in plain, seed 0' in capsys.readouterr().out
    assert main(['benchmark', *run, '--rows', 'plain']) == 0
    record = json.loads((suite / 'records' / 'plain-seed0.json').read_text())
    assert record['settings']['steps'] == 2 and record['frames_mapped'] > 0
    assert record['settings']['extra_tests'] == {'hidden': 'easy_occluded'}
    assert record['chamfer_3d_map'] is not None
    assert record['extra']['hidden']['chamfer_map'] is not None
    assert record['stability']['num_frame_pairs'] > 0 and record['parameters'] > 1000
    assert record['peak_memory_mib'] > 100 and record['train_minutes'] >= 0
    assert record['speed']['of_host'] == 1.0 and record['speed']['frames_per_second'] > 0
    assert str(suite) not in json.dumps(record['environment'])
    assert 'reliability' not in record and record['turning']['category'] == 'boundary'
    # Records of earlier versions do not tell how fast it is.
    path = suite / 'records' / 'plain-seed0.json'
    later = ('speed', 'parameters', 'by_occlusion')
    older = {k: v for k, v in record.items() if k not in later}
    path.write_text(json.dumps({**older, 'frames_per_second': 1.0}))
    assert main(['benchmark', *run, '--rows', 'plain']) == 0
    again = json.loads(path.read_text())
    assert again['parameters'] == record['parameters'] and again['speed']['of_host'] == 1.0
    thirds = again['by_occlusion']
    assert thirds == record['by_occlusion'] and [*thirds] == ['least', 'middle', 'most']
    assert sum(third['frames'] for third in thirds.values()) == record['frames_mapped']
    assert 'frames_per_second' not in again and again['chamfer_map'] == record['chamfer_map']
    stamp = path.stat().st_mtime_ns
    assert main(['benchmark', *run, '--processes', '3']) == 2
    assert 'cannot share batch_size 2' in ' '.join(capsys.readouterr().err.split())
    assert main(['benchmark', *run, '--processes', '2']) == 0
    assert (suite / 'records' / 'plain-seed0.json').stat().st_mtime_ns == stamp
    other = json.loads((suite / 'records' / 'gaussian-seed0.json').read_text())
    assert other['settings']['recipe'] == 'synthetic_mini_sequences'
    # Two processes take together what one takes.
    assert (record['environment']['processes'], other['environment']['processes']) == (1, 2)
    trained = suite / 'work' / 'tiny' / 'runs' / 'gaussian-seed0-000'
    assert yaml.safe_load((trained / 'config.yaml').read_text())['recipe']['batch_size'] == 1
    assert json.loads((trained / 'environment.json').read_text())['processes'] == 2
    # What two have begun cannot be gone on with by one: its batches would be half as large.
    (trained / 'model.safetensors').unlink()
    (suite / 'records' / 'gaussian-seed0.json').rename(suite / 'kept.json')
    assert main(['benchmark', *run]) == 2
    assert 'was started with --processes 2' in ' '.join(capsys.readouterr().err.split())
    (suite / 'kept.json').rename(suite / 'records' / 'gaussian-seed0.json')
    assert 'paper_map' not in other['settings'] and 'chamfer_3d_map' not in other
    assert other['speed']['host'] == 'plain' and other['parameters'] > record['parameters']
    out = suite / 'report.md'
    assert main(['benchmark', *command(suite, 'report', '--out', str(out))]) == 0
    text = out.read_text()
    assert '`gaussian` against `plain`' in text and 'needs two seeds' in text
    assert (
        '2 steps, recipe `synthetic_mini` or `synthetic_mini_sequences` (`gaussian`), seeds 0; '
        'trained on 1 easy towns from seed 0'
    ) in text
    assert 'in turn with `plain`' in text and '| chamfer mAP hidden |' in text
    assert 'Each third of the test frames is also scored apart' in text


def test_a_sleeping_machine_is_not_training_time(tmp_path) -> None:
    from gsmap_core.cli.benchmark_scores import training_cost

    # Windows of 60 s; the machine sleeps for an hour; the step before it is done again.
    trained = [60.0, 120.0, 180.0, 3840.0, 3800.0, 3860.0, 3920.0]
    lines = [{'step': i, 'trained_s': value} for i, value in enumerate(trained)]
    lines[2]['peak_memory_mib'], lines[3]['peak_memory_mib'] = 900, 800
    (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    assert training_cost(tmp_path) == {'train_minutes': 6.0, 'peak_memory_mib': 900}


def test_records_of_other_settings_are_not_mixed_in(suite, capsys) -> None:
    records = suite / 'other'
    records.mkdir()
    settings = {'settings': {'steps': 3}, 'seed': 0}
    (records / 'plain-seed0.json').write_text(json.dumps(settings))
    arguments = ['benchmark', 'report', str(suite / 'tiny.yaml'), '--results', str(records)]
    assert main(arguments) == 2
    assert 'other values of' in capsys.readouterr().err
    (records / 'plain-seed0.json').write_text('{')
    assert main(arguments) == 2
    assert 'cannot be read' in capsys.readouterr().err


def test_unknown_rows_are_refused(suite, capsys) -> None:
    run = command(suite, 'run', '--work', str(suite / 'work'), '--rows', 'plane')
    assert main(['benchmark', *run]) == 2
    assert "row 'plane' is not in the suite" in capsys.readouterr().err
