"""Traversal files: everything comes back, and what contradicts itself is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from core.data.helpers.made_up_poses import straight

from gsmap_core.data.traversal_file import (
    TraversalPlan,
    read_traversal_file,
    write_traversal_file,
)
from gsmap_core.data.traversal_splits import SplitConfig, make_label_splits
from gsmap_core.data.traversals import TraversalConfig, analyse_traversals
from gsmap_core.errors import DataError
from gsmap_core.structures import PerceptionRange


def make_plan() -> TraversalPlan:
    config = TraversalConfig(PerceptionRange(-20.0, 40.0, -15.0, 15.0), 0.3, 0.9, 50.0)
    tables = [straight(f'lone-{i}', (1000.0 * (i + 1), 0.0), num=2) for i in range(4)]
    tables += [straight('twin-a', (0.0, 0.0), num=4), straight('twin-b', (7.0, 3.0), num=5)]
    tables += [straight('twin-c', (9.0, -3.0), place='', num=4).thinned(3)]
    tables += [straight('twin-d', (12.0, -3.0), place='', num=1)]
    analysis = analyse_traversals(tables, config)
    splits = make_label_splits(analysis.drives, SplitConfig((25.0, 100.0), seed=5))
    return TraversalPlan(config, analysis.drives, analysis.pairs, splits)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / 'new' / 'x.traversals.json'
    write_traversal_file(path, make_plan())
    return path


def test_comes_back(written: Path) -> None:
    plan, back = make_plan(), read_traversal_file(written)
    assert (back.config, back.drives, back.splits) == (plan.config, plan.drives, plan.splits)
    assert len(plan.pairs) > 10
    for name in ('reference_drive', 'reference_frame', 'adjacent_drive', 'adjacent_frame'):
        np.testing.assert_array_equal(getattr(back.pairs, name), getattr(plan.pairs, name))
        assert getattr(back.pairs, name).dtype == np.int64
    np.testing.assert_allclose(back.pairs.iou, plan.pairs.iou, atol=5e-7)
    # Readable without this package: names, frame numbers, IoU.
    document = json.loads(written.read_text())
    assert [(item['reference'], item['adjacent']) for item in document['pairs']] == [
        ('twin-a', 'twin-b'),
        ('twin-c', 'twin-d'),
    ]
    # 3 m apart: 57/63; frame 3 of the thinned drive is 12 m ahead.
    assert document['pairs'][1]['frames'] == [[3, 0, 0.666667]]
    assert document['drives'][6]['last_frame'] == 3


def test_no_pairs_and_no_splits_come_back(tmp_path: Path) -> None:
    analysis = analyse_traversals([straight('a', (0.0, 0.0))])
    plan = TraversalPlan(analysis.config, analysis.drives, analysis.pairs)
    write_traversal_file(tmp_path / 'x.json', plan)
    back = read_traversal_file(tmp_path / 'x.json')
    assert back.splits is None and len(back.pairs) == 0 and back.drives == plan.drives


def test_an_interrupted_write_leaves_the_old_file(written: Path, monkeypatch) -> None:
    before = written.read_bytes()
    plan = make_plan()
    broken = TraversalPlan(plan.config, plan.drives[:5], plan.pairs, plan.splits)
    with pytest.raises(IndexError):
        write_traversal_file(written, broken)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


CHANGES = [
    (lambda d: d.update(version=2), 'version is 2; expected 1'),
    (lambda d: d.pop('pairs'), "key 'pairs' is missing"),
    (lambda d: d.update(iou=[0.9, 0.3]), 'IoU limits'),
    (lambda d: d['drives'].append(d['drives'][0]), 'two drives have one name'),
    (lambda d: d['drives'][0].pop('stamps_ns'), "key 'stamps_ns' is missing"),
    (lambda d: d['drives'][4].update(overlaps=['gone']), "overlaps: no drive 'gone'"),
    (lambda d: d['pairs'][0].update(adjacent='gone'), "pairs of 'twin-a' and 'gone': no drive"),
    (lambda d: d['pairs'][0].update(adjacent='twin-a'), 'expected two drives that overlap'),
    (lambda d: d['pairs'][0].update(adjacent='lone-0'), 'expected two drives that overlap'),
    (lambda d: d['pairs'][0]['frames'].append([0, 5, 0.5]), "'twin-b' has no frame 5; .* 0 to 4"),
    (lambda d: d['pairs'][0]['frames'].append([-1, 0, 0.5]), "'twin-a' has no frame -1"),
    (lambda d: d['pairs'][0]['frames'].append([0.5, 0, 0.5]), "'twin-a' has no frame 0.5"),
    (lambda d: d['pairs'][0]['frames'].append([0, 0, 0.29]), 'an IoU is 0.29; expected 0.3'),
    (lambda d: d['pairs'][0]['frames'].append([0, 0, None]), r'reference frame, adjacent frame'),
    (lambda d: d['pairs'][0]['frames'].append([0, 0]), 'inhomogeneous|expected'),
    (lambda d: d['splits'].update(unlabelled=['lone-0']), "'lone-0' is not multi-traversal"),
    (lambda d: d['splits']['ratios'][0].update(labelled=['twin-a']), 'is not single-traversal'),
    (lambda d: d['splits']['ratios'][1].update(validation=['gone']), "at 100 %: no drive 'gone'"),
    (
        lambda d: d['splits']['ratios'][0].update(labelled=d['splits']['ratios'][0]['validation']),
        'is labelled and validates at 25 %',
    ),
    (lambda d: d.update(drives=7), 'expected a traversal file'),
]  # fmt: skip


@pytest.mark.parametrize(('change', 'message'), CHANGES)
def test_what_contradicts_itself_is_refused(written: Path, change, message: str) -> None:
    document = json.loads(written.read_text())
    change(document)
    written.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message) as caught:
        read_traversal_file(written)
    assert str(written) in str(caught.value)


def test_what_is_no_traversal_file(written: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no such file; give a traversal file'):
        read_traversal_file(tmp_path / 'none.json')
    written.write_text(written.read_text()[:-30])
    with pytest.raises(DataError, match='not complete JSON at line'):
        read_traversal_file(written)
    written.write_text('[]')
    with pytest.raises(DataError, match='holds a list'):
        read_traversal_file(written)
    written.write_bytes(b'\xff\xfe')
    with pytest.raises(DataError, match='cannot be read'):
        read_traversal_file(written)
