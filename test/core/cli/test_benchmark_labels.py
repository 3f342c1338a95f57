"""Suites over the share of labels: which drives a row sees, its table and its curve."""

from dataclasses import replace

import pytest

from gsmap_core.cli.benchmark_labels import draw_label_curves, label_lines
from gsmap_core.cli.benchmark_records import settings_of
from gsmap_core.cli.benchmark_run import _data
from gsmap_core.data.traversal_splits import draw_labelled
from gsmap_core.errors import DataError
from gsmap_core.training.suite import load_suite, resolve_row


def record(seed, score):
    categories = {'divider': score, 'ped_crossing': score / 2, 'boundary': 2 * score}
    return {'seed': seed, 'chamfer_map': score, 'per_category': categories}


@pytest.fixture
def suite():
    return load_suite('mapgclr_mini')


def test_rows_see_their_share_of_the_drives(suite, tmp_path) -> None:
    folders = {'train': tmp_path / 'train', 'unlabelled': tmp_path / 'unlabelled'}
    folders['train'].mkdir()
    for number in range(80):
        (folders['train'] / f'town-{number}.mcap').touch()
    seen = {}
    for row in ('supervised_2_5', 'mapgclr_2_5', 'supervised_20', 'supervised_100'):
        _, recipe = resolve_row(suite, row)
        seen[row] = _data(suite.rows[row], recipe, folders)
    assert seen['supervised_100'] == ['--data', str(folders['train'])]
    few, unlabelled = seen['supervised_2_5'], ['--unlabelled', str(folders['unlabelled'])]
    assert len(few) == 1 + 2 and seen['mapgclr_2_5'] == few + unlabelled
    assert len(seen['supervised_20']) == 1 + 16 and set(few) < set(seen['supervised_20'])


def test_shares_of_drives() -> None:
    names = [f'd{i}' for i in range(40)]
    shares = [draw_labelled(names, percent, 3) for percent in (0.1, 5, 10, 100)]
    assert [len(share) for share in shares] == [1, 2, 4, 40]
    assert all(set(small) < set(large) for small, large in zip(shares, shares[1:], strict=False))
    assert draw_labelled(names[::-1], 5, 3) == shares[1] != draw_labelled(names, 5, 4)


def test_the_table_tells_gain_and_noise(suite) -> None:
    records = {row: [] for row in suite.rows}
    records['supervised_5'] = [record(0, 0.10), record(1, 0.12)]
    records['mapgclr_5'] = [record(0, 0.16), record(1, 0.17)]
    records['supervised_20'] = [record(0, 0.30), record(1, 0.36)]
    records['mapgclr_20'] = [record(0, 0.33), record(1, 0.35)]
    lines = {
        line.split('|')[1].strip(): line for line in label_lines(suite, records) if '|' in line
    }
    assert '| 5 % | 4 | 0.165 ± 0.005 |' in lines['`mapgclr_5`']
    assert '| +0.055 | better | +50% | +0.055 | +0.028 | +0.110 |' in lines['`mapgclr_5`']
    assert '| +0.010 | noise | +3% |' in lines['`mapgclr_20`']
    assert lines['`supervised_5`'].endswith('| 0.220 ± 0.020 |  |  |  |  |  |  |')
    assert '| - | not run | - |' in lines['`mapgclr_10`']
    cells = {line.count('|') for line in lines.values()}
    assert len(cells) == 1, 'every line has as many cells'
    plain = replace(suite, rows={'a': suite.rows['supervised_100']}, comparisons=())
    assert label_lines(plain, {'a': []}) == []


def test_curves_are_drawn(suite, tmp_path) -> None:
    records = {row: [] for row in suite.rows}
    with pytest.raises(DataError, match='no curve has a point'):
        draw_label_curves(suite, records, tmp_path / 'none.png')
    records['supervised_5'] = [record(0, 0.1), record(1, 0.12)]
    records['mapgclr_5'] = [record(0, 0.2)]
    draw_label_curves(suite, records, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 5000


def test_settings_hold_what_makes_a_row(suite) -> None:
    """Older suites have none of the new keys; a share of 5 % is not one of 10 %."""
    settings = settings_of(suite, 'mapgclr_5')
    assert settings['label_percent'] == 5 and settings['drives']['unlabelled']['repeat'] == 2
    older = settings_of(load_suite('gsmap_mini'), 'maptr')
    assert 'label_percent' not in older
    assert not {'unlabelled', 'conditions'} & set(older['drives'])
