import math

import pytest

from gsmap_core.evaluation.comparison import (
    Column,
    Spread,
    comparison_table,
    difference_table,
    spread_of,
    verdict,
)


def record(chamfer: float, raster: float | None = None, minutes: float = 4.0) -> dict:
    return {
        'chamfer_map': chamfer,
        'per_category': {'divider': 0.1, 'ped_crossing': None, 'boundary': 0.3},
        'raster_map': raster,
        'turning': {'predicted_deg_per_m': 12.34},
        'train_minutes': minutes,
    }


def test_mean_and_range_over_seeds() -> None:
    rows = [record(0.30, 0.2), record(0.34), record(0.38, 0.4)]
    chamfer, raster = spread_of(rows, ('chamfer_map',)), spread_of(rows, ('raster_map',))
    assert (chamfer.mean, chamfer.spread, chamfer.count) == (
        pytest.approx(0.34), pytest.approx(0.08), 3,
    )  # fmt: skip
    assert (raster.mean, raster.count) == (pytest.approx(0.3), 2)
    assert chamfer.text(3) == '0.340 ± 0.040'
    assert spread_of(rows[:1], ('chamfer_map',)).text(2) == '0.30'
    nothing = spread_of(rows, ('per_category', 'ped_crossing'))
    assert nothing.text(3) == '-' and math.isnan(nothing.mean)


@pytest.mark.parametrize(
    ('row', 'host', 'expected'),
    [
        (Spread(0.40, 0.02, 2), Spread(0.35, 0.04, 2), 'better'),
        (Spread(0.30, 0.02, 2), Spread(0.35, 0.04, 2), 'worse'),
        (Spread(0.38, 0.02, 2), Spread(0.35, 0.04, 2), 'noise'),
        (Spread(0.50, 0.00, 1), Spread(0.35, 0.04, 2), 'needs two seeds'),
    ],
)
def test_a_difference_within_the_range_is_noise(row, host, expected) -> None:
    assert verdict(row, host) == expected


def test_tables() -> None:
    rows = {'host': [record(0.30, 0.2), record(0.31, 0.3)], 'mine': [record(0.40, 0.3)], 'new': []}
    header, _, host, mine, new = comparison_table(rows)
    assert header.count('|') == host.count('|') == mine.count('|') == new.count('|')
    assert host.startswith('| `host` | 0.305 ± 0.005 | 0.100 ± 0.000 | - |')
    assert mine.startswith('| `mine` | 0.400 |') and mine.endswith('| 12.3 | 1 | 4 |')
    assert new.endswith('| 0 | - |')
    lines = difference_table(rows, [('mine', 'host'), ('new', 'host')])
    assert lines[2] == (
        '| `mine` against `host` | +0.095 | needs two seeds | +0.050 | needs two seeds |'
    )
    assert lines[3].count('not run') == 2


def test_columns_that_no_record_fills_are_left_out_and_more_can_be_added() -> None:
    rows = {'host': [record(0.30), record(0.31)], 'mine': [record(0.40), record(0.41)]}
    assert 'frames/s' not in comparison_table(rows)[0]
    for records, frames_per_second in ((rows['host'], 30.0), (rows['mine'], 20.0)):
        for item in records:
            item['parameters'] = 1_234_567
            item['speed'] = {'frames_per_second': frames_per_second, 'of_host': 0.667}
            item['extra'] = {'clear': {'chamfer_map': item['chamfer_map'] + 0.1}}
    clear = Column('chamfer mAP clear', ('extra', 'clear', 'chamfer_map'))
    header, _, host, mine = comparison_table(rows, [clear])
    assert header.endswith(
        '| M parameters | frames/s | of host | chamfer mAP clear | seeds | min |'
    )
    assert host.endswith('| 1.235 ± 0.000 | 30.0 ± 0.0 | 0.67 ± 0.00 | 0.405 ± 0.005 | 2 | 4 |')
    assert mine.endswith('| 0.505 ± 0.005 | 2 | 4 |')
    lines = difference_table(rows, [('mine', 'host')], [clear], {'mine': 57.4, 'host': 50.2})
    assert lines[0] == '| | chamfer mAP | | chamfer mAP clear | | raster mAP | | published |'
    assert lines[2] == (
        '| `mine` against `host` | +0.100 | better | +0.100 | better | - | not run | +0.072 |'
    )
    assert lines[1].count('|') == lines[0].count('|') == lines[2].count('|')
