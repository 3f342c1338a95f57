"""Stages of a set follow each other and add up."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsmap_ros.camera_sync import CameraSet, Outcome
from gsmap_ros.diagnostics import OK, STALE
from gsmap_ros.stage_times import (
    OVERHEAD,
    STAGES,
    ClosedSet,
    ReceivedImage,
    StageTimer,
    StageTimes,
)

MS = 1_000_000


def closed_set(
    stamps_ms: dict[str, int], arrivals_ms: dict[str, int], closed_ms: int
) -> ClosedSet:
    """A set whose node clock and monotonic clock are 5 s apart."""
    images = {
        name: (
            stamp * MS,
            ReceivedImage(None, arrivals_ms[name] * MS, 5.0 + arrivals_ms[name] / 1e3),
        )
        for name, stamp in stamps_ms.items()
    }
    return ClosedSet(
        CameraSet(stamps_ms['front'] * MS, images, Outcome.COMPLETE), 5.0 + closed_ms / 1e3
    )


def times_of(item: ClosedSet) -> dict[str, float]:
    moments = iter([5.200, 5.230, 5.231, 5.300, 5.302])
    timer = StageTimer(item, clock=lambda: next(moments))
    timer.stage('decode')
    timer.stage('tf')
    timer.stage('postprocess', prepare=0.006, model=0.060)
    timer.stage('publish')
    return timer.times_ms


def test_stages_of_a_set_add_up_to_the_whole_way() -> None:
    # The back camera is exposed 40 ms after the front one and arrives last.
    item = closed_set({'front': 100, 'back': 140}, {'front': 118, 'back': 150}, closed_ms=153)
    times = times_of(item)
    expected = {
        'stagger': 40, 'transport': 10, 'sync_wait': 3, 'queue': 47, 'decode': 30, 'tf': 1,
        'prepare': 6, 'model': 60, 'postprocess': 3, 'publish': 2,
    }  # fmt: skip
    assert times == pytest.approx(expected)
    assert set(expected) == set(STAGES)
    # Stamp 100 ms, published at 302 ms.
    assert sum(times.values()) == pytest.approx(202.0)


def test_a_reference_that_comes_last_waits_for_nobody() -> None:
    item = closed_set({'front': 140, 'back': 100}, {'front': 160, 'back': 110}, closed_ms=160)
    times = times_of(item)
    assert times['stagger'] == 0.0 and times['transport'] == pytest.approx(20.0)
    # A reference exposed last whose image overtakes the others: the stamp lies in the future of
    # the image that closed the set.
    item = closed_set({'front': 140, 'back': 100}, {'front': 150, 'back': 160}, closed_ms=160)
    assert times_of(item)['stagger'] == pytest.approx(-40.0)


def test_percentiles_and_what_diagnostics_say() -> None:
    stages = StageTimes()
    assert stages.status().level == STALE and stages.summary() == {}
    for model in range(1, 102):
        stages.add({'stagger': 40.0, 'transport': 3.0, 'decode': 20.0, 'model': float(model)})
    summary = stages.summary()
    assert (summary['model'].p50, summary['model'].p95) == (51.0, 96.0)
    assert summary['overhead'].p50 == 23.0 and summary['total'].p50 == 114.0
    assert summary['queue'].p95 == 0.0
    status = stages.status()
    assert status.level == OK
    assert status.message == (
        '114 ms from stamp to map at the median: network 51 ms, cameras apart 40 ms, everything '
        'else 23 ms'
    )
    assert status.values['sets'] == 101 and status.values['model_p95_ms'] == '96.0'
    assert {f'{name}_p50_ms' for name in (*STAGES, 'overhead', 'total')} < set(status.values)


def test_the_documentation_explains_every_stage(repo_root: Path) -> None:
    page = (repo_root / 'docs' / 'ros.md').read_text(encoding='utf-8')
    rows = '\n'.join(f'| `{name}` | {text} |' for name, text in STAGES.items())
    assert f'| Stage | What happens |\n|---|---|\n{rows}\n\n' in page


def test_what_counts_as_overhead() -> None:
    assert set(STAGES) - set(OVERHEAD) == {'stagger', 'model'}
