"""The transform buffer against recorded answers of tf2, and rules they do not reach."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from gsmap_ros.tf_buffer import (
    BufferError,
    ExtrapolationError,
    TransformBuffer,
    UnconnectedError,
    UnknownFrameError,
)

_GOLDEN = Path(
    os.environ.get(
        'GSMAP_GOLDEN', Path(__file__).resolve().parents[2].parent / 'shared' / 'golden'
    )
)
_SCENARIOS = sorted((_GOLDEN / 'tf2').glob('*.json'))
IDENTITY = (0.0, 0.0, 0.0, 1.0)


@pytest.mark.golden
@pytest.mark.skipif(not _SCENARIOS, reason=f'no golden data in {_GOLDEN}/tf2 (GSMAP_GOLDEN)')
@pytest.mark.parametrize('path', _SCENARIOS, ids=lambda path: path.stem)
def test_golden_tf2_answers_are_reproduced(path: Path) -> None:
    """Every recorded lookup gives the same transform to 1e-9 and stamp, or the same error."""
    scenario = json.loads(path.read_text())
    buffer = TransformBuffer(scenario['cache_time_ns'])
    fed = 0
    assert scenario['lookups']
    for query in scenario['lookups']:
        for item in scenario['transforms'][fed : query['fed']]:
            buffer.set_transform(
                item['parent'],
                item['child'],
                item['stamp_ns'],
                item['translation'],
                item['rotation'],
                item['static'],
            )
        fed = max(fed, query['fed'])
        _check_query(buffer, query)


def _check_query(buffer: TransformBuffer, query: dict) -> None:
    expect, label = query['expect'], f'{query["id"]}: {query["why"]}'
    try:
        if query['op'] == 'lookup':
            answer = buffer.lookup(query['target'], query['source'], query['time_ns'])
        else:
            answer = buffer.lookup_full(
                query['target'],
                query['target_time_ns'],
                query['source'],
                query['source_time_ns'],
                query['fixed'],
            )
    except BufferError as error:
        assert not expect['ok'], f'{label}: {error}'
        assert error.tf2_name == expect['error'], label
        assert error.reason == expect['reason'], label
    else:
        assert expect['ok'], label
        np.testing.assert_allclose(
            answer.translation, expect['translation'], atol=1e-9, rtol=0, err_msg=label
        )
        rotation = np.array(expect['rotation'])
        sign = np.sign(rotation @ answer.rotation_xyzw)
        np.testing.assert_allclose(
            sign * answer.rotation_xyzw, rotation, atol=1e-9, rtol=0, err_msg=label
        )
        assert answer.stamp_ns == expect['stamp_ns'], label
    if query['op'] == 'lookup':
        able = buffer.can_transform(query['target'], query['source'], query['time_ns'])
        assert able == expect['can_transform'], label


def test_clear_forgets_motion_and_keeps_static_transforms() -> None:
    buffer = TransformBuffer()
    buffer.set_transform('map', 'base_link', 5, (1.0, 0.0, 0.0), IDENTITY)
    buffer.set_transform('base_link', 'camera', 5, (0.0, 2.0, 0.0), IDENTITY, is_static=True)
    buffer.clear()
    assert buffer.lookup('base_link', 'camera', 3).translation.tolist() == [0.0, 2.0, 0.0]
    with pytest.raises(ExtrapolationError) as caught:
        buffer.lookup('map', 'base_link', 5)
    assert caught.value.reason == 'no_data'
    # Earlier stamps than before the jump are taken again.
    buffer.set_transform('map', 'base_link', 2, (7.0, 0.0, 0.0), IDENTITY)
    assert buffer.lookup('map', 'base_link', 2).translation[0] == 7.0


def test_not_finite_transforms_are_ignored() -> None:
    buffer = TransformBuffer()
    assert not buffer.set_transform('map', 'a', 1, (float('nan'), 0.0, 0.0), IDENTITY)
    assert not buffer.set_transform('map', 'a', 1, (0.0, 0.0, 0.0), (float('inf'), 0, 0, 1))
    assert not buffer.set_transform('', 'a', 1, (0.0, 0.0, 0.0), IDENTITY)
    assert buffer.frames() == []


def test_loop_is_an_error_and_not_an_endless_walk() -> None:
    buffer = TransformBuffer()
    buffer.set_transform('a', 'b', 1, (0.0, 0.0, 0.0), IDENTITY)
    buffer.set_transform('b', 'a', 1, (0.0, 0.0, 0.0), IDENTITY)
    buffer.set_transform('c', 'd', 1, (0.0, 0.0, 0.0), IDENTITY)
    for stamp_ns in (0, 1):
        for target, source in (('d', 'a'), ('a', 'd')):
            with pytest.raises(UnknownFrameError) as caught:
                buffer.lookup(target, source, stamp_ns)
            assert caught.value.reason == 'loop'


def test_history_stays_bounded() -> None:
    buffer = TransformBuffer(cache_time_ns=1000)
    for stamp_ns in range(0, 100_000, 10):
        buffer.set_transform('map', 'base_link', stamp_ns + 1, (0.0, 0.0, 0.0), IDENTITY)
    assert len(buffer._histories['base_link'].samples) <= 102


def test_error_text_names_frames_and_times() -> None:
    buffer = TransformBuffer()
    buffer.set_transform('odom', 'base_link', 1_500_000_000, (0.0, 0.0, 0.0), IDENTITY)
    buffer.set_transform('odom', 'base_link', 2_500_000_000, (0.0, 0.0, 0.0), IDENTITY)
    with pytest.raises(
        ExtrapolationError, match=r"'odom' from 'base_link' asked at 3\.000000000 s.*future"
    ):
        buffer.lookup('odom', 'base_link', 3_000_000_000)
    with pytest.raises(UnknownFrameError, match=r"'nowhere'.*known frames: base_link, odom"):
        buffer.lookup('odom', 'nowhere', 0)


def test_two_parents_are_named() -> None:
    buffer = TransformBuffer()
    buffer.set_transform('map', 'odom', 0, (0.0, 0.0, 0.0), IDENTITY, is_static=True)
    buffer.set_transform('odom', 'base_link', 1000, (0.0, 0.0, 0.0), IDENTITY)
    assert buffer.two_parents('base_link') == ''
    buffer.set_transform('rogue', 'base_link', 2000, (0.0, 0.0, 0.0), IDENTITY)
    assert buffer.two_parents('base_link') == (
        "frame 'base_link' has two parents: 'odom' and 'rogue'"
    )
    # As in tf2: up to the sample of the other parent, the older one holds.
    assert buffer.lookup('map', 'base_link', 1500).stamp_ns == 1500
    with pytest.raises(UnconnectedError, match="two parents: 'odom' and 'rogue'"):
        buffer.lookup('map', 'base_link', 2000)
    buffer.clear()
    assert buffer.two_parents('base_link') == ''


@pytest.mark.golden
def test_golden_answers_cover_what_can_go_wrong(golden_dir: Path) -> None:
    """Every reason of an error but those tf2 has no word for, and every kind of lookup."""
    queries = [
        query
        for path in (golden_dir / 'tf2').glob('*.json')
        for query in json.loads(path.read_text())['lookups']
    ]
    assert {query['op'] for query in queries} == {'lookup', 'lookup_full'}
    expected = {q['expect']['reason'] for q in queries if not q['expect']['ok']}
    assert expected >= {'future', 'past', 'single_sample', 'unknown_frame', 'unconnected'}
    assert sum(query['expect']['ok'] for query in queries) >= 60
