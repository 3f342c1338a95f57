"""Ego pose, extrinsics and ego motion of sets; tf2_ros or the own buffer."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros.helpers.buffer_source import BufferSource
from ros.helpers.drives import START_NS, pose_at

from gsmap_core.errors import TransformError
from gsmap_core.geometry.transforms import invert, matrix_to_quaternion
from gsmap_ros import pose_source as module
from gsmap_ros.pose_source import EgoMotion, PoseSource
from gsmap_ros.tf_buffer import TransformBuffer, UnknownFrameError

MS = 1_000_000
IDENTITY = (0.0, 0.0, 0.0, 1.0)


class Source(BufferSource):
    """The own buffer without a node, with the motion of a drive."""

    def drive(self, parent: str, first_ms: int, last_ms: int) -> None:
        for ms in range(first_ms, last_ms + 1, 20):
            pose = pose_at(START_NS + ms * MS)
            self.buffer.set_transform(
                parent,
                'base_link',
                START_NS + ms * MS,
                pose[:3, 3],
                matrix_to_quaternion(pose[:3, :3]),
            )

    def mount(self, frame: str, x: float) -> None:
        self.buffer.set_transform(
            'base_link', frame, 0, (x, 0.0, 1.5), (-0.5, 0.5, -0.5, 0.5), is_static=True
        )


def make(source: Source, odometry: TransformBuffer | None = None) -> PoseSource:
    return PoseSource(source, 'base_link', 'map', 'odom', odometry)


def resolve(pose: PoseSource, known: dict[str, np.ndarray] | None = None) -> EgoMotion:
    stamp = START_NS + 100 * MS
    return pose.resolve(
        stamp,
        {'front': stamp, 'back': stamp + 30 * MS},
        {'front': 'front_optical', 'back': 'back_optical'},
        known or {},
    )


def make_ready_source(parent: str = 'map') -> Source:
    source = Source()
    source.drive(parent, 0, 400)
    source.mount('front_optical', 1.6)
    source.mount('back_optical', -1.6)
    return source


def test_ego_motion_within_the_set_is_in_the_extrinsics() -> None:
    motion = resolve(make(make_ready_source()))
    assert motion.fixed_frame == 'map'
    stamp = START_NS + 100 * MS
    np.testing.assert_allclose(motion.fixed_from_base, pose_at(stamp), atol=1e-9)
    np.testing.assert_array_equal(motion.base_from_cameras['front'], motion.extrinsics['front'])
    expected = invert(pose_at(stamp)) @ pose_at(stamp + 30 * MS) @ motion.extrinsics['back']
    # The stamp lies between two samples: straight line against curve.
    np.testing.assert_allclose(motion.base_from_cameras['back'], expected, atol=1e-4)
    # 30 ms at 8 m/s.
    shift = motion.base_from_cameras['back'][0, 3] - motion.extrinsics['back'][0, 3]
    assert shift == pytest.approx(0.24, abs=0.01)


def test_known_extrinsics_need_no_transform() -> None:
    source = Source()
    source.drive('map', 0, 400)
    known = {'front': np.eye(4), 'back': np.eye(4)}
    assert resolve(make(source), known).extrinsics['front'] is known['front']
    with pytest.raises(UnknownFrameError, match='front_optical'):
        resolve(make(source))


def test_without_localisation_the_odom_frame_is_used_and_told() -> None:
    pose = make(make_ready_source('odom'))
    assert resolve(pose).fixed_frame == 'odom'


def test_a_map_frame_that_is_only_late_is_not_replaced_by_odom() -> None:
    source = make_ready_source('odom')
    source.buffer.set_transform('map', 'odom', START_NS, (0.0, 0.0, 0.0), IDENTITY)
    source.buffer.set_transform('map', 'odom', START_NS + 50 * MS, (0.0, 0.0, 0.0), IDENTITY)
    with pytest.raises(TransformError, match='future'):
        resolve(make(source))


def test_no_transform_at_all_is_an_error_and_never_identity() -> None:
    source = Source()
    source.mount('front_optical', 1.0)
    source.mount('back_optical', 1.0)
    with pytest.raises(UnknownFrameError, match="'map' does not exist"):
        resolve(make(source))


def test_odometry_gives_the_pose_and_tf_the_extrinsics() -> None:
    odometry = make_ready_source('odom').buffer
    source = Source()
    source.mount('front_optical', 1.6)
    source.mount('back_optical', -1.6)
    motion = resolve(make(source, odometry))
    assert motion.fixed_frame == 'odom'
    np.testing.assert_allclose(motion.fixed_from_base, pose_at(START_NS + 100 * MS), atol=1e-9)


def wait(pose: PoseSource, timeout_s: float, now_ns: Any = None, stop: Any = None) -> EgoMotion:
    clock = threading.Event()
    now = {'ns': 0}

    def advance() -> int:
        now['ns'] += 5 * MS
        return now['ns']

    assert not clock.is_set()
    return pose.wait(lambda: resolve(pose), timeout_s, now_ns or advance, stop or (lambda: False))


def test_waiting_ends_when_the_transform_arrives() -> None:
    source = make_ready_source()
    late = Source()
    late.mount('front_optical', 1.6)
    late.mount('back_optical', -1.6)
    late.drive('map', 0, 100)
    pose = make(late)
    timer = threading.Timer(0.03, lambda: late.drive('map', 120, 200))
    timer.start()
    motion = wait(pose, 10.0)
    timer.join()
    np.testing.assert_allclose(
        motion.base_from_cameras['back'], resolve(make(source)).base_from_cameras['back']
    )
    assert pose.last_error == '' and pose.fixed_frame == 'map'


def test_waiting_ends_with_the_reason_when_time_is_up() -> None:
    source = Source()
    pose = make(source)
    with pytest.raises(UnknownFrameError):
        wait(pose, 0.05)
    assert "'map' does not exist" in pose.last_error


def test_waiting_ends_when_the_node_stops_or_the_clock_jumps_back() -> None:
    pose = make(Source())
    with pytest.raises(UnknownFrameError):
        wait(pose, 1e9, stop=lambda: True)
    times = iter([10**12, 5])
    with pytest.raises(UnknownFrameError):
        wait(pose, 1e9, now_ns=lambda: next(times))


def test_what_is_past_is_not_waited_for() -> None:
    source = make_ready_source()
    source.clear()
    source.drive('map', 200, 400)
    calls = []

    def now() -> int:
        calls.append(1)
        return 0

    with pytest.raises(TransformError, match='past'):
        wait(make(source), 1e9, now_ns=now)
    assert len(calls) == 2


def fake_tf2(answer: float = 1.5, error: Exception | None = None) -> types.ModuleType:
    fake = types.ModuleType('tf2_ros')

    class TransformException(Exception):
        pass

    class LookupException(TransformException):
        pass

    class ExtrapolationException(TransformException):
        pass

    class Buffer:
        def __init__(self) -> None:
            if error is not None:
                raise error

        def set_transform_static(self, message: Any, authority: str) -> None:
            self.message = message

        def lookup_transform(self, target: str, source: str, time: Any) -> Any:
            if source == 'nowhere':
                raise LookupException('"nowhere" does not exist')
            if source == 'old':
                raise ExtrapolationException('Lookup would require extrapolation into the past')
            self.message.transform.translation.x = answer
            return self.message

        def clear(self) -> None:
            pass

    class TransformListener:
        def __init__(self, buffer: Any, node: Any, *, spin_thread: bool) -> None:
            assert not spin_thread

        def unregister(self) -> None:
            pass

    for name, value in list(locals().items()):
        if isinstance(value, type):
            setattr(fake, name, value)
    return fake


def test_tf2_is_used_where_it_works(monkeypatch: pytest.MonkeyPatch, ros_messages: None) -> None:
    monkeypatch.setitem(sys.modules, 'tf2_ros', fake_tf2())
    tf2, reason = module.probe_tf2()
    assert tf2 is sys.modules['tf2_ros'] and reason == ''
    source = module.Tf2TransformSource(None, tf2)  # type: ignore[arg-type]
    assert source.implementation == 'tf2_ros'
    with pytest.raises(UnknownFrameError):
        source.lookup('map', 'nowhere', 5)
    with pytest.raises(module.ExtrapolationError) as caught:
        source.lookup('map', 'old', 5)
    assert caught.value.reason == 'past'


@pytest.mark.parametrize(
    ('fake', 'text'),
    [
        (None, 'tf2_ros'),
        (fake_tf2(error=ImportError('undefined symbol')), 'undefined symbol'),
        (fake_tf2(answer=2.0), 'answers 2.0 instead of 1.5'),
    ],
)
def test_absent_or_broken_tf2_falls_back_with_a_reason(
    fake: Any, text: str, monkeypatch: pytest.MonkeyPatch, ros_messages: None
) -> None:
    monkeypatch.setitem(sys.modules, 'tf2_ros', fake)
    tf2, reason = module.probe_tf2()
    assert tf2 is None and text in reason


@pytest.mark.parametrize(
    ('source', 'text'),
    [
        # At import: ROS 1's needs its own client library, or a compiled module of another Python.
        ('import rospy_of_ros_1', 'rospy_of_ros_1'),
        ("raise ImportError('undefined symbol: _Py_ZeroStruct')", 'undefined symbol'),
        # At first use: no node of ROS 1 runs.
        (
            'class Buffer:\n    def __init__(self):\n'
            "        raise RuntimeError('Have you called init_node()?')\n",
            'init_node',
        ),
        ('class Buffer:\n    pass\n', 'set_transform_static'),
        (
            'class Buffer:\n    def set_transform_static(self, *args):\n        pass\n'
            '    def lookup_transform(self, *args):\n'
            "        raise TypeError('argument 3 must be genpy.Time')\n",
            'genpy',
        ),
    ],
)
def test_modules_of_ros_1_fall_back_with_a_reason(
    source: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ros_messages: None
) -> None:
    """Debian has packages of this name that belong to ROS 1."""
    (tmp_path / 'tf2_ros').mkdir()
    (tmp_path / 'tf2_ros/__init__.py').write_text(source, encoding='utf-8')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'tf2_ros', raising=False)
    tf2, reason = module.probe_tf2()
    sys.modules.pop('tf2_ros', None)
    assert tf2 is None and text in reason


def test_numbers_beyond_all_bounds_are_no_pose() -> None:
    source = Source()
    source.mount('front_optical', 1.6)
    source.mount('back_optical', -1.6)
    for ms in (0, 400):
        source.buffer.set_transform(
            'map',
            'base_link',
            START_NS + ms * MS,
            (1.7e308, 1.7e308, 1.7e308),
            (0.3, 0.2, 0.1, 0.9),
        )
    with np.errstate(all='ignore'), pytest.raises(TransformError, match='beyond all numbers'):
        resolve(make(source))
