"""Streams: what drops the memory, what does not, and what the Predictor says about it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, fake_rig, micro_config

from gsmap_core.config import FusionConfig
from gsmap_core.errors import ConfigError
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.models.checkpoint import save_checkpoint
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.runtime.predictor import Predictor
from gsmap_core.runtime.stream import StreamGuard, StreamStatus
from gsmap_core.structures import SurroundFrame

RIG = fake_rig()
SECOND = 1_000_000_000


def seen(
    time_s: float, x_m: float | None, y_m: float = 0.0, yaw_rad: float = 0.0, **changes
) -> SurroundFrame:
    """A set without pictures at a time and place; x_m None: its pose is lost."""
    pose = None
    if x_m is not None:
        pose = make_transform(rotation_from_rpy(0, 0, yaw_rad), [x_m, y_m, 0])
    stamp = 10 * SECOND + round(time_s * SECOND)
    values = {'scene': 'street', 'rig': RIG, **changes}
    return SurroundFrame(stamp, images=(None, None), map_from_base=pose, **values)


def reasons(frames: list[SurroundFrame], **limits: float) -> list[str]:
    guard = StreamGuard(**limits)
    return [guard.check(frame) for frame in frames]


def test_ordinary_driving_drops_nothing() -> None:
    """20 m/s at 2 Hz, at irregular rates, standing, reversing, in bends and when braking."""
    assert not any(reasons([seen(0.5 * i, 10.0 * i) for i in range(8)]))
    times = np.cumsum(np.random.default_rng(0).uniform(0.05, 1.2, 40))
    assert not any(reasons([seen(t, 12.0 * t) for t in times]))
    assert not any(reasons([seen(0.1 * i, 5.0) for i in range(30)]))
    assert not any(reasons([seen(0.5 * i, -1.5 * i) for i in range(10)]))
    bend = [
        seen(0.5 * i, 15 * np.sin(0.3 * i), 15 - 15 * np.cos(0.3 * i), 0.3 * i) for i in range(20)
    ]
    assert not any(reasons(bend))
    braking = [seen(t, 20 * t - 3.0 * t * t) for t in np.linspace(0, 3.3, 8)]
    assert not any(reasons(braking))
    # The same set once more is no step back.
    assert not any(reasons([seen(0.0, 0.0), seen(0.0, 0.0), seen(0.1, 0.5)]))


def test_breaks_in_time() -> None:
    frames = [seen(0.0, 0.0), seen(0.1, 1.0), seen(0.05, 0.5), seen(0.15, 1.5)]
    assert reasons(frames) == ['', '', 'clock_jump', '']
    frames = [seen(0.0, 0.0), seen(1.9, 19.0), seen(4.0, 40.0), seen(4.1, 41.0)]
    assert reasons(frames) == ['', '', 'gap', '']
    assert reasons(frames, max_gap_s=2.5) == ['', '', '', '']


@pytest.mark.parametrize(
    'jump', [(21.0, 0.0, 0.0), (-10.5, 0.0, 0.0), (2.0, 11.5, 0.0), (1.5, 0.0, 2.5)]
)
def test_jumps_in_place_and_heading(jump: tuple[float, float, float]) -> None:
    """At 10 m/s and 10 Hz: onwards, back, to the side, and turned round."""
    drive = [seen(0.1 * i, 1.0 * i - 3.0) for i in range(4)]
    x, y, yaw = jump
    after = [seen(0.4 + 0.1 * i, x + i, y, yaw) for i in range(3)]
    assert reasons([*drive, *after]) == ['', '', '', '', 'pose_jump', '', '']


def test_limits_of_jumps() -> None:
    drive = [seen(0.1 * i, 1.0 * i) for i in range(4)]
    assert reasons([*drive, seen(0.4, 9.0)])[-1] == ''
    assert reasons([*drive, seen(0.4, 9.0)], max_pose_jump_m=4.0)[-1] == 'pose_jump'
    # Fast from the start, as in the middle of a motorway, but not 200 m in half a second.
    assert reasons([seen(0.0, 0.0), seen(0.5, 17.0), seen(1.0, 34.0)]) == ['', '', '']
    assert reasons([seen(0.0, 0.0), seen(0.5, 200.0)]) == ['', 'pose_jump']
    # Two sets a moment apart say nothing about the speed.
    assert not any(reasons([*drive, seen(0.301, 3.2), seen(0.4, 4.0), seen(0.5, 5.0)]))


def test_a_lost_pose_is_waited_for_as_long_as_a_gap() -> None:
    drive = [seen(0.5 * i, 5.0 * i) for i in range(3)]
    lost = [seen(1.0 + 0.5 * i, None) for i in range(1, 4)]
    assert not any(reasons([*drive, *lost, seen(3.0, 30.0), seen(3.5, 35.0)]))
    longer = [seen(1.0 + 0.5 * i, None) for i in range(1, 7)]
    # Dropped once, not with every set; the pose that comes back begins a new stream.
    expected = ['', '', '', '', '', '', '', 'pose_lost', '', '']
    assert reasons([*drive, *longer, seen(4.5, 500.0)]) == expected
    assert not any(reasons([seen(0.5 * i, None) for i in range(10)]))


def test_other_drives_and_vehicles() -> None:
    other = fake_rig(3)
    frames = [seen(0.0, 0.0), seen(0.1, 1.0, scene='lane'), seen(0.2, 2.0, scene='lane')]
    assert reasons(frames) == ['', 'scene_changed', '']
    three = SurroundFrame(
        11 * SECOND, other, (None,) * 3, map_from_base=make_transform(), scene='street'
    )
    assert reasons([seen(0.9, 0.0), three, three]) == ['', 'rig_changed', '']
    moved = replace(RIG, base_from_lidar=make_transform(translation=[0, 0, 2]))
    again = replace(RIG, base_from_lidar=make_transform(translation=[0, 0, 2]))
    frames = [seen(0.0, 0.0), seen(0.1, 1.0, rig=moved), seen(0.2, 2.0, rig=again)]
    assert reasons(frames) == ['', 'rig_changed', '']
    # Calibrations may be refined on the way.
    cameras = tuple(replace(camera, intrinsics=camera.intrinsics + 0) for camera in RIG.cameras)
    assert reasons([seen(0.0, 0.0), seen(0.1, 1.0, rig=replace(RIG, cameras=cameras))]) == ['', '']


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(ConfigError, match='max_gap_s is 0'):
        StreamGuard(max_gap_s=0.0)
    with pytest.raises(ConfigError, match='max_pose_jump_m is -1'):
        StreamGuard(max_pose_jump_m=-1.0)


@pytest.fixture(scope='module', params=['keyframe_streaming', 'keyframe_stacking'])
def checkpoint(request, tmp_path_factory):
    torch.manual_seed(0)
    config = replace(micro_config(), fusion=FusionConfig(kind=request.param, num_previous=2))
    path = tmp_path_factory.mktemp('weights') / 'fusing.safetensors'
    save_checkpoint(path, OnlineMapper(config), {})
    return path


def vertices(vector_map):
    elements = sorted(vector_map.elements, key=lambda element: element.score)
    return np.concatenate([element.vertices for element in elements])


def same(first, second):
    a, b = vertices(first), vertices(second)
    return a.shape == b.shape and bool(np.abs(a - b).max() < 1e-3)


def test_predictor_streams_until_it_is_told_otherwise(checkpoint) -> None:
    drive = FakeDrive(num_frames=6, speed_m=4.0)
    predictor = Predictor(checkpoint, device='cpu')
    assert predictor.stream_status == StreamStatus()
    streamed = [predictor.predict(drive.frame(i)) for i in range(6)]
    status = predictor.stream_status
    assert status.num_frames == 6 and status.num_resets == 0
    # Key frames at 0, 8 and 16 m.
    assert status.num_key_frames == 3 and status.travelled_m == pytest.approx(20.0, rel=1e-3)
    predictor.reset()
    alone = predictor.predict(drive.frame(5))
    assert not same(alone, streamed[5])
    status = predictor.stream_status
    assert (status.num_frames, status.num_resets) == (1, 1)
    assert status.last_reset_reason == 'requested'
    assert status.last_reset_stamp_ns == drive.stamp_ns(5)
    # Back in time: as from the start.
    assert same(predictor.predict(drive.frame(0)), streamed[0])
    status = predictor.stream_status
    assert (status.last_reset_reason, status.num_resets) == ('clock_jump', 2)
    assert status.last_reset_stamp_ns == drive.stamp_ns(0)
    assert same(predictor.predict(drive.frame(1)), streamed[1])
    predictor.warm_up(drive.rig)
    assert predictor.stream_status.num_resets == 2 and predictor.stream_status.num_frames == 0
    with pytest.raises(ConfigError, match="'boredom' is unknown"):
        predictor.reset('boredom')


def test_predictor_maps_a_set_without_pose_alone_and_goes_on(checkpoint, caplog) -> None:
    drive = FakeDrive(num_frames=4, speed_m=4.0)
    predictor = Predictor(checkpoint, device='cpu')
    undisturbed = [predictor.predict(drive.frame(i)) for i in (0, 1, 3)][-1]
    predictor.reset()
    for index in (0, 1):
        predictor.predict(drive.frame(index))
    lost = predictor.predict(replace(drive.frame(2), map_from_base=None))
    assert predictor.stream_status.num_frames == 2
    assert caplog.text.count('no ego pose at 1200000000 ns: mapped without memory') == 1
    assert same(predictor.predict(drive.frame(3)), undisturbed)
    assert predictor.stream_status.num_resets == 1
    predictor.reset()
    assert same(predictor.predict(drive.frame(2)), lost)


def test_rows_of_a_batch_are_streams_of_their_own(checkpoint) -> None:
    drives = [FakeDrive(3, seed=seed, speed_m=3.0 * seed) for seed in (1, 2)]
    alone = []
    predictor = Predictor(checkpoint, device='cpu')
    for drive in drives:
        predictor.reset()
        alone.append([predictor.predict(drive.frame(i)) for i in range(3)])
    batched = Predictor(checkpoint, device='cpu')
    for index in range(3):
        together = batched.predict_batch([drive.frame(index) for drive in drives])
        assert all(same(a[index], b) for a, b in zip(alone, together, strict=True))
    # The second row goes back to its beginning, the first one stays.
    mixed = batched.predict_batch([drives[0].frame(2), drives[1].frame(0)])
    assert same(mixed[1], alone[1][0]) and not same(mixed[0], alone[0][0])
    status = batched.stream_status
    assert (status.last_reset_reason, status.num_frames) == ('clock_jump', 4)
    assert same(batched.predict(drives[0].frame(0)), alone[0][0])
    assert batched.stream_status.last_reset_reason == 'batch_changed'


def test_models_without_memory_count_only_requests(tmp_path) -> None:
    path = tmp_path / 'single.safetensors'
    save_checkpoint(path, OnlineMapper(micro_config()), {})
    predictor = Predictor(path, device='cpu', max_gap_s=1.0, max_pose_jump_m=5.0)
    assert not predictor.is_temporal
    for index in (1, 0):
        predictor.predict(FakeDrive().frame(index))
    assert predictor.stream_status == StreamStatus()
    predictor.reset()
    assert predictor.stream_status.num_resets == 1
