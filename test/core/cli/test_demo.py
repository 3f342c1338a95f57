"""Accounting, scoring, pictures and summary of the demo, from recordings made by hand."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from helpers.fake_drives import micro_config
from tiny_drive import TinyDrive

from gsmap_core.cli import demo_score as scoring
from gsmap_core.cli.demo_score import Account
from gsmap_core.cli.demo_single_frame import (
    NO_STATE,
    SAME_RUN,
    SingleFrame,
    map_alone,
    single_frame,
)
from gsmap_core.cli.demo_steps import MAP_TOPIC, demo_environment, summarise, table
from gsmap_core.cli.main import main
from gsmap_core.data import messages as msg
from gsmap_core.data.bag import BagDrive, BagReader, BagRecorder, open_bag
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import invert
from gsmap_core.structures import VectorMap

KEYS = [
    'frames_published', 'frames_mapped', 'sets_dropped', 'chamfer_map', 'per_category',
    'flicker_per_frame', 'found', 'single_frame', 'latency_ms', 'rate_hz', 'outputs',
]  # fmt: skip
SINGLE_KEYS = {'weights', 'how', 'chamfer_map', 'per_category', 'flicker_per_frame', 'found'}


@pytest.fixture(scope='module')
def drive(tmp_path_factory: pytest.TempPathFactory) -> BagDrive:
    return open_bag(TinyDrive(4).write(tmp_path_factory.mktemp('bags') / 'tiny'))


def perfect(drive: BagDrive, index: int) -> VectorMap:
    """The ground truth as a prediction."""
    truth = drive.ground_truth(index)
    assert truth is not None
    return replace(truth, elements=tuple(replace(e, score=0.9) for e in truth.elements))


def record(path: Path, counters: list[dict[str, object]], maps: list[VectorMap]) -> Path:
    """A recording as the demo makes it."""
    with BagRecorder(path) as recorder:
        recorder.add_topic('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray')
        recorder.add_topic(MAP_TOPIC, msg.MAP_ELEMENT_ARRAY)
        for item in maps:
            recorder.write(MAP_TOPIC, item.stamp_ns, msg.local_map_to_message(item))
        for number, values in enumerate(counters):
            pairs = [
                msg.make_message('diagnostic_msgs/msg/KeyValue', key=key, value=str(value))
                for key, value in values.items()
            ]
            status = msg.make_message(
                'diagnostic_msgs/msg/DiagnosticStatus',
                level=0, name='mapping: sets', message='', hardware_id='', values=pairs,
            )  # fmt: skip
            array = msg.make_message(
                'diagnostic_msgs/msg/DiagnosticArray',
                header=msg.make_header(number, ''),
                status=[status],
            )
            recorder.write('/diagnostics', number, array)
    return path


def counters(received: int, mapped: int, **dropped: int) -> dict[str, object]:
    return {
        'sets_received': received,
        'sets_mapped': mapped,
        'sets_dropped': sum(dropped.values()),
        'sets_in_flight': received - mapped - sum(dropped.values()),
        **{f'sets_dropped.{reason}': count for reason, count in dropped.items()},
        'latency_p50_ms': 80.5,
        'latency_p95_ms': 120.0,
        'rate_hz': 4.9,
    }


def test_every_set_is_accounted_for(tmp_path: Path) -> None:
    recorded = record(tmp_path / 'r.mcap', [counters(3, 2), counters(9, 7, newer=1, tf=1)], [])
    account = scoring.account(recorded, MAP_TOPIC, frames_published=10, num_recorded=6)
    assert account.sets_dropped == {'newer': 1, 'tf': 1, 'not_received': 1, 'not_recorded': 1}
    assert account.frames_mapped + sum(account.sets_dropped.values()) == 10
    assert account.latency_ms == {'p50': 80.5, 'p95': 120.0}
    assert account.rate_hz == 4.9


def test_more_sets_than_were_published_is_an_error(tmp_path: Path) -> None:
    recorded = record(tmp_path / 'r.mcap', [counters(11, 11)], [])
    with pytest.raises(DataError, match='expected every set once'):
        scoring.account(recorded, MAP_TOPIC, frames_published=10, num_recorded=11)


def test_sets_in_flight_are_an_error(tmp_path: Path) -> None:
    recorded = record(tmp_path / 'r.mcap', [counters(10, 9)], [])
    with pytest.raises(DataError, match='--rate'):
        scoring.account(recorded, MAP_TOPIC, frames_published=10, num_recorded=9)


def test_a_node_that_said_nothing_is_an_error(tmp_path: Path) -> None:
    recorded = record(tmp_path / 'r.mcap', [], [])
    with pytest.raises(DataError, match='/diagnostics'):
        scoring.node_counters(BagReader(recorded))


def test_an_account_must_add_up() -> None:
    with pytest.raises(DataError, match='every set once'):
        Account(10, 8, {'tf': 1})
    with pytest.raises(DataError, match='every set once'):
        Account(10, 11, {'tf': -1})


def test_perfect_maps_score_one_and_missing_ones_cost(drive: BagDrive) -> None:
    maps = {index: perfect(drive, index) for index in range(len(drive))}
    full = scoring.score(drive, maps)
    assert full is not None
    assert full.chamfer_map == pytest.approx(1.0)
    del maps[0]
    partial = scoring.score(drive, maps)
    assert partial is not None
    # Lines: three of four frames. The crossing is out of range in the frame without a map.
    assert partial.per_category['divider'] == pytest.approx(0.75)
    assert partial.per_category['ped_crossing'] == pytest.approx(1.0)
    assert partial.chamfer_map == pytest.approx((0.75 + 1.0 + 0.75) / 3)


def test_a_drive_without_ground_truth_is_not_scored(tmp_path: Path) -> None:
    bag = open_bag(TinyDrive(2, ground_truth=False).write(tmp_path / 'bare'))
    assert scoring.score(bag, {}) is None


def test_maps_of_another_moment_are_moved(drive: BagDrive) -> None:
    """The node stamps with its reference camera: 30 ms later the road lies 0.3 m further back."""
    later_ns = drive.stamp_ns(1) + 30_000_000
    truth = perfect(drive, 1)
    pose, pose_later = drive.map_from_base(drive.stamp_ns(1)), drive.map_from_base(later_ns)
    assert pose is not None and pose_later is not None
    from gsmap_core.data.bag import move_local_map

    recorded = replace(move_local_map(truth, invert(pose_later) @ pose), stamp_ns=later_ns)
    paired = scoring.pair_with_sets(drive, [recorded])
    assert list(paired) == [1]
    for moved, expected in zip(paired[1].elements, truth.elements, strict=True):
        np.testing.assert_allclose(moved.vertices[:, :2], expected.vertices[:, :2], atol=1e-6)


def test_maps_that_belong_nowhere_are_refused(drive: BagDrive) -> None:
    stray = replace(perfect(drive, 0), stamp_ns=drive.stamp_ns(0) - 5_000_000_000)
    with pytest.raises(DataError, match='belongs to no camera set'):
        scoring.pair_with_sets(drive, [stray])
    with pytest.raises(DataError, match='no map yet'):
        scoring.pair_with_sets(drive, [perfect(drive, 0), perfect(drive, 0)])


def test_recorded_maps_come_back(drive: BagDrive, tmp_path: Path) -> None:
    recorded = record(tmp_path / 'r.mcap', [], [perfect(drive, 0), perfect(drive, 2)])
    maps = scoring.read_recorded_maps(recorded, MAP_TOPIC)
    assert list(scoring.pair_with_sets(drive, maps)) == [0, 2]
    assert scoring.read_recorded_maps(recorded, '/other/local_map') == []


def test_summary_has_exactly_the_documented_keys(drive: BagDrive) -> None:
    account = Account(4, 3, {'newer': 1}, {'p50': 80.0, 'p95': 120.0}, 4.9)
    maps = {index: perfect(drive, index) for index in range(len(drive))}
    quality = scoring.score(drive, maps)
    same = SingleFrame(Path('w.safetensors'), SAME_RUN, quality)
    summary = summarise(account, quality, same, {'map': 'out/demo/map.png'})
    assert list(summary) == KEYS
    assert list(summary['latency_ms']) == ['p50', 'p95']
    assert set(summary['single_frame']) == SINGLE_KEYS
    assert summary['single_frame']['chamfer_map'] == summary['chamfer_map']
    text = table(summary)
    assert '3 (75 %)' in text and '1 newer' in text and '80 ms median' in text
    assert '0.00 events per frame, 100% found' in text and 'single frame' not in text
    worse = replace(quality, chamfer_map=0.25, flicker_per_frame=3.0, found=0.5)
    other = summarise(account, quality, SingleFrame(Path('w.safetensors'), NO_STATE, worse), {})
    assert 'chamfer mAP 0.250, flicker 3.00 events per frame, 50% found (w.saf' in table(other)
    unscored = summarise(account, None, replace(same, quality=None), {})
    assert list(unscored) == KEYS and set(unscored['single_frame']) == SINGLE_KEYS
    assert unscored['chamfer_map'] is None and unscored['single_frame']['chamfer_map'] is None
    assert 'no ground truth' in table(unscored)


def test_flicker_of_recorded_maps_is_from_map_to_map(drive: BagDrive) -> None:
    """Ids as the node gives them: one changes; a set without a map makes nothing vanish."""
    maps = {}
    for index in (0, 2, 3):
        truth = perfect(drive, index)
        first = 11 if index == 3 else 1
        numbered = (replace(e, id=first + i) for i, e in enumerate(truth.elements))
        maps[index] = replace(truth, elements=tuple(numbered))
    quality = scoring.score(drive, maps)
    assert quality is not None
    # From set 2 to set 3 every id is another: both lines and the crossing.
    assert quality.flicker_per_frame == pytest.approx(3 / 2)
    assert quality.found == pytest.approx(1.0)


def test_the_single_frame_knows_nothing_of_the_sets_before(
    drive: BagDrive, tmp_path: Path
) -> None:
    import torch

    from gsmap_core.config import FusionConfig
    from gsmap_core.models.checkpoint import save_checkpoint
    from gsmap_core.models.mapper import OnlineMapper
    from gsmap_core.runtime.predictor import Predictor

    torch.manual_seed(0)
    plain, fusing = tmp_path / 'plain.safetensors', tmp_path / 'fusing.safetensors'
    save_checkpoint(plain, OnlineMapper(micro_config()))
    memory = FusionConfig(kind='streaming')
    save_checkpoint(fusing, OnlineMapper(replace(micro_config(), fusion=memory)))
    quality = scoring.score(drive, {0: perfect(drive, 0), 2: perfect(drive, 2)})
    assert single_frame(drive, [0, 2], quality, plain, None, 'cpu').quality is quality
    alone = single_frame(drive, [2, 0], quality, fusing, None, 'cpu')
    assert (alone.how, alone.weights) == (NO_STATE, fusing)
    assert alone.quality is not None and alone.quality.chamfer_map < 0.1
    named = single_frame(drive, [0, 2], quality, plain, fusing, 'cpu')
    assert (named.weights, named.how) == (fusing, NO_STATE)
    assert single_frame(drive, [0], None, fusing, None, 'cpu').quality is None
    maps = map_alone(drive, [0, 2], fusing, 'cpu')
    fresh = Predictor(fusing, device='cpu').predict(drive.frame(2))
    for element, expected in zip(maps[2].elements, fresh.elements, strict=True):
        np.testing.assert_allclose(element.vertices, expected.vertices, atol=1e-5)
        assert element.id is not None


def test_pictures_are_drawn(drive: BagDrive, tmp_path: Path) -> None:
    import cv2

    from gsmap_core.cli.demo_pictures import draw_pictures, most_telling

    maps = {index: perfect(drive, index) for index in range(len(drive))}
    assert most_telling(drive, maps) in maps
    written = draw_pictures(drive, maps, tmp_path, video=False)
    assert set(written) == {'map', 'accumulated_map', 'page'}
    assert '<canvas' in Path(written['page']).read_text(encoding='utf-8')
    picture = cv2.imread(written['accumulated_map'])
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert len(colours) > 10
    assert cv2.imread(written['map']) is not None
    assert draw_pictures(drive, {}, tmp_path, video=False) == {}


def test_low_scores_are_not_drawn(drive: BagDrive, tmp_path: Path) -> None:
    """Doubtful elements beside a certain one leave no trace in the picture."""
    from gsmap_core.cli.demo_pictures import draw_pictures

    first, *others = perfect(drive, 0).elements
    assert others
    certain = replace(perfect(drive, 0), elements=(first,))
    doubtful = replace(certain, elements=(first, *(replace(e, score=0.1) for e in others)))
    pictures = []
    for name, local_map in (('doubtful', doubtful), ('certain', certain)):
        folder = tmp_path / name
        folder.mkdir()
        written = draw_pictures(drive, {0: local_map}, folder, video=False)
        pictures.append(Path(written['map']).read_bytes())
    assert pictures[0] == pictures[1]


def test_nodes_keep_to_themselves(ros_environment: dict[str, str]) -> None:
    environment = demo_environment()
    assert 1 <= int(environment['ROS_DOMAIN_ID']) <= 101
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--rate', '0'], '--rate 0.0'),
        (['--weights', 'nothing.safetensors'], 'nothing.safetensors'),
        (['--single-frame', 'none.safetensors'], 'none.safetensors'),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['demo', '--out', str(tmp_path / 'out'), *arguments]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_slow_machine_gets_slow_motion(drive: BagDrive, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from gsmap_core.cli import demo_steps

    class Sleeper:
        """Takes as long as it is told."""

        seconds = 0.0

        def __init__(self, weights: Path, device: str) -> None:
            pass

        def predict(self, frame: object) -> None:
            time.sleep(self.seconds)

    monkeypatch.setattr(demo_steps, 'Predictor', Sleeper)
    assert demo_steps.suitable_rate(drive, Path('x'), 'cpu') == 1.0  # sets come every 200 ms
    Sleeper.seconds = 0.3
    slow = demo_steps.suitable_rate(drive, Path('x'), 'cpu')
    assert slow <= 0.25  # with headroom, 0.45 s and more are needed


def test_from_bag_to_score_over_dds(
    ros_environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command with real nodes: every set is accounted for, the files are there."""
    import torch

    from gsmap_core.config import FusionConfig, load_model_config
    from gsmap_core.models.checkpoint import save_checkpoint
    from gsmap_core.models.mapper import OnlineMapper

    torch.manual_seed(0)
    weights = tmp_path / 'untrained.safetensors'
    memory = FusionConfig(kind='keyframe_streaming')
    save_checkpoint(weights, OnlineMapper(replace(load_model_config('maptr_mini'), fusion=memory)))
    bag = TinyDrive(8).write(tmp_path / 'tiny')
    out = tmp_path / 'out'
    arguments = ['demo', '--bag', str(bag), '--weights', str(weights), '--out', str(out)]
    assert main([*arguments, '--rate', '0.5', '--no-video', '--json']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert list(summary) == KEYS
    assert summary['frames_published'] == 8
    assert summary['frames_mapped'] + sum(summary['sets_dropped'].values()) == 8
    assert summary['frames_mapped'] >= 6
    assert 0.0 <= summary['chamfer_map'] < 0.1  # it has learned nothing
    assert set(summary['per_category']) == {'divider', 'ped_crossing', 'boundary'}
    assert 0 < summary['latency_ms']['p50'] <= summary['latency_ms']['p95']
    assert set(summary['outputs']) == {'recorded', 'map', 'accumulated_map', 'page', 'summary'}
    alone = summary['single_frame']
    assert set(alone) == SINGLE_KEYS and alone['how'] == NO_STATE
    assert (alone['weights'], alone['flicker_per_frame']) == ('untrained.safetensors', 0.0)
    for path in summary['outputs'].values():
        assert Path(path).stat().st_size > 0
    assert json.loads(Path(summary['outputs']['summary']).read_text()) == summary


def test_a_node_that_cannot_start_ends_the_demo(
    ros_environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mapping node's own words reach the user, long before any timeout."""
    broken = tmp_path / 'broken.safetensors'
    broken.write_bytes(b'not a checkpoint')
    bag = TinyDrive(2).write(tmp_path / 'tiny')
    arguments = ['demo', '--bag', str(bag), '--weights', str(broken), '--out', str(tmp_path / 'o')]
    assert main([*arguments, '--rate', '1']) == 2
    message = capsys.readouterr().err
    assert 'mapping node could not be configured' in message
    assert 'broken.safetensors' in message
