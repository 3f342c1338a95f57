"""`gsmap bench node`: the drive that it makes, and with real nodes what it reports."""

from __future__ import annotations

import json

import pytest

from gsmap_core.cli.bench_node import ShownInTurn, as_text, plain_decoding_s
from gsmap_core.cli.main import main
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording


def test_rendered_sets_are_shown_in_turn_with_stamps_of_their_own() -> None:
    spec = DriveSpec(
        town_seed=0, drive_seed=0, rig='nuscenes_like', duration_s=2.0, rate_hz=2.0,
        image_width_px=64, trigger_turn_s=0.05,
    )  # fmt: skip
    drive = ShownInTurn(SyntheticRecording(spec))
    frames = list(drive.frames())
    assert len(frames) == len(drive) == 5
    jpegs = [[image.data for image in frame.images] for frame in frames]
    assert jpegs[0] == jpegs[2] == jpegs[4] != jpegs[1] == jpegs[3]
    stamps = [[image.stamp_ns - frame.stamp_ns for image in frame.images] for frame in frames]
    assert all(max(row) > 10_000_000 and min(row) < -10_000_000 for row in stamps)
    assert [frame.stamp_ns - frames[0].stamp_ns for frame in frames] == [
        index * 500_000_000 for index in range(5)
    ]
    assert len(plain_decoding_s(jpegs)) == 15


def test_the_table_names_the_conditions() -> None:
    result = {
        'device': 'cpu', 'cores': 2, 'load_average': 0.5, 'torch': '2', 'weights': 'w',
        'images': [6, 1600, 900], 'image_kb': 209.0, 'sets_mapped': 59, 'sets_dropped': 1,
        'sets_published': 60,
        'stages_ms': {'decode': {'p50': 12.34, 'p95': 20.0}},
        'plain_decoding_ms': 40.0, 'overhead_to_decoding': 1.234,
    }  # fmt: skip
    text = as_text(result)
    assert '2 cores (load 0.5)' in text and '59 of 60 sets mapped' in text
    assert '1 sets were dropped: the node does not keep up' in text
    assert '12.3      20.0' in text and '1.23 times the plain decoding' in text


def test_too_few_sets_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['bench', 'node', '--sets', '2']) == 2
    assert '--sets 2; expected at least 3' in capsys.readouterr().err
    assert main(['bench', 'node', '--rate-hz', '20']) == 2
    assert '--rate-hz 20.0; expected 0.1 to 12' in capsys.readouterr().err


@pytest.mark.slow
def test_nodes_report_every_stage(
    ros_environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['bench', 'node', '--sets', '6', '--width', '320', '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    stages = {name: item['p50'] for name, item in result['stages_ms'].items()}
    assert result['sets_published'] == 7 and 0 < result['sets_mapped'] <= 7
    # 50 ms for one turn of the trigger: the last camera is exposed up to 25 ms after the first.
    assert 10.0 < stages['stagger'] < 30.0
    assert all(stages[name] > 0.0 for name in ('transport', 'decode', 'model', 'publish'))
    assert stages['total'] > stages['model'] + stages['decode']
    overhead = stages['overhead'] / result['plain_decoding_ms']
    assert result['overhead_to_decoding'] == pytest.approx(overhead)
