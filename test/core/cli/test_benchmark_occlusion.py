"""Scores by what vehicles hide, on frames whose shares and scores are known."""

from dataclasses import replace

import numpy as np
import pytest

from gsmap_core.cli import benchmark_occlusion
from gsmap_core.cli.benchmark_occlusion import occlusion_columns, score_by_occlusion
from gsmap_core.errors import DataError
from gsmap_core.structures import MapElement, VectorMap
from gsmap_core.training.benchmark_dataset import DrivePart

PART = DrivePart('test', 20000, 2)


def pairs_of(is_right):
    """Six frames of two drives; predictions are the truth, or 5 m beside it."""
    pairs = []
    for number, right in enumerate(is_right):
        line = np.array([[-10.0, 2.0], [10.0, 2.0]])
        element = MapElement(0, line)
        truth = VectorMap(
            elements=(element,), sample_id=str(number), scene='ab'[number // 3], stamp_ns=number
        )
        shift = line if right else line + [0.0, 5.0]
        predicted = replace(truth, elements=(replace(element, vertices=shift, score=0.9),))
        pairs.append((predicted, truth))
    return pairs


@pytest.fixture(autouse=True)
def shares(monkeypatch):
    found = {'a': (0.1, 0.9, 0.5), 'b': (0.8, 0.2, 0.4)}
    monkeypatch.setattr(benchmark_occlusion, 'hidden_shares', lambda part: found)


def test_frames_are_sorted_by_what_is_hidden() -> None:
    # Right where 0.9, 0.8 and 0.4 are hidden.
    found = score_by_occlusion(pairs_of([False, True, False, True, False, True]), PART)
    assert [third['hidden'] for third in found.values()] == [[0.1, 0.2], [0.4, 0.5], [0.8, 0.9]]
    assert [third['frames'] for third in found.values()] == [2, 2, 2]
    scores = [third['per_category']['divider'] for third in found.values()]
    assert scores[0] == 0.0 and 0.0 < scores[1] < 1.0 and scores[2] == pytest.approx(1.0)
    columns = occlusion_columns([{}, {'by_occlusion': found}])
    assert [column.title for column in columns] == [
        'chamfer mAP 10-20 % hidden', 'chamfer mAP 40-50 % hidden', 'chamfer mAP 80-90 % hidden',
    ]  # fmt: skip
    assert occlusion_columns([{}]) == []


def test_frames_of_other_drives_are_refused() -> None:
    pairs = pairs_of([True] * 6)
    with pytest.raises(DataError, match="frame '0' of drive 'c' is none of the test drives'"):
        score_by_occlusion([(pairs[0][0], replace(pairs[0][1], scene='c'))], PART)
    with pytest.raises(DataError, match='map them again'):
        score_by_occlusion([*pairs, pairs[5]], PART)
