"""Messages of any content: what reads them answers, or refuses with one of our errors."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ros.helpers.buffer_source import BufferSource

from gsmap_core.errors import CalibrationError, DataError, GsmapError, TransformError
from gsmap_core.images import decode_jpeg
from gsmap_core.structures import Camera
from gsmap_ros.calibration import CameraCalibration
from gsmap_ros.camera_sync import CameraSet, CameraSync, Outcome, SyncSettings
from gsmap_ros.conversions import (
    image_from_compressed,
    image_from_message,
    local_map_from_message,
    reduced_from_compressed,
    stamp_to_ns,
)
from gsmap_ros.frame_builder import FrameBuilder, SetRejectedError
from gsmap_ros.pose_source import PoseSource
from gsmap_ros.stage_times import ReceivedImage
from gsmap_ros.tf_buffer import BufferError, TransformBuffer

#: The same examples in every run: a failure is a failure for everybody.
FUZZ = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

NUMBERS = st.floats(width=64) | st.sampled_from([0.0, 1.0, 100.0, -1.0, 1e308, 5e-324])
UINT32 = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2, 48, 64, 2**31])
TEXTS = st.text(max_size=20) | st.sampled_from(['', '/', '/map', 'map', 'base_link', 'camera'])
STAMPS = st.builds(
    SimpleNamespace, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 2**32 - 1)
)
HEADERS = st.builds(SimpleNamespace, stamp=STAMPS, frame_id=TEXTS)
PICTURE = cv2.imencode('.jpg', np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))[1]


def vector(count: int) -> st.SearchStrategy[list[float]]:
    return st.lists(NUMBERS, min_size=count, max_size=count)


INFOS = st.builds(
    SimpleNamespace,
    header=HEADERS,
    width=UINT32,
    height=UINT32,
    distortion_model=st.sampled_from(['plumb_bob', 'rational_polynomial', 'equidistant']) | TEXTS,
    d=st.lists(NUMBERS, max_size=14),
    k=vector(9) | st.just([50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]),
    p=vector(12) | st.just([50.0, 0.0, 32.0, 0.0, 0.0, 50.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
    binning_x=UINT32,
    binning_y=UINT32,
    roi=st.builds(SimpleNamespace, x_offset=UINT32, y_offset=UINT32, width=UINT32, height=UINT32),
)


@FUZZ
@given(
    info=INFOS,
    is_rectified=st.booleans(),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_camera_info(info: Any, is_rectified: bool, size: tuple[int, int]) -> None:
    calibration = CameraCalibration('front', 'front/camera_info', is_rectified)
    assert calibration.update(info)
    assert (calibration.camera is None) == bool(calibration.error)
    try:
        image, camera = calibration.fit(np.zeros((*size, 3), np.uint8))
    except CalibrationError as error:
        assert 'front' in str(error)
        return
    assert image.shape == (*size, 3)
    assert np.isfinite(camera.intrinsics).all() and camera.intrinsics[0, 0] > 0


@FUZZ
@given(
    height=UINT32 | st.integers(0, 8),
    width=UINT32 | st.integers(0, 8),
    step=UINT32 | st.integers(0, 40),
    encoding=st.sampled_from(['rgb8', 'bgra8', 'mono8', '8UC3']) | TEXTS,
    data=st.binary(max_size=300),
)
def test_raw_images(height: int, width: int, step: int, encoding: str, data: bytes) -> None:
    message = SimpleNamespace(height=height, width=width, step=step, encoding=encoding, data=data)
    try:
        image = image_from_message(message, 'topic')
    except DataError as error:
        assert 'topic' in str(error)
        return
    assert image.shape == (height, width, 3) and image.dtype == np.uint8


@st.composite
def damaged_pictures(draw: Any) -> bytes:
    """A JPEG with some bytes changed, or cut off anywhere."""
    data = bytearray(PICTURE.tobytes())
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@FUZZ
@given(header=HEADERS, data=damaged_pictures() | st.binary(max_size=200))
def test_compressed_images(header: Any, data: bytes) -> None:
    try:
        image = image_from_compressed(SimpleNamespace(header=header, data=data), 'topic')
    except DataError as error:
        assert 'topic' in str(error)
        return
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


@FUZZ
@given(
    width=st.integers(2**14, 2**16 - 1), height=st.integers(2**14, 2**16 - 1), is_png=st.booleans()
)
def test_sizes_that_no_camera_has_are_refused_before_memory_is_taken(
    width: int, height: int, is_png: bool
) -> None:
    if is_png:
        data = bytearray(cv2.imencode('.png', np.zeros((4, 4, 3), np.uint8))[1].tobytes())
        data[16:24] = width.to_bytes(4, 'big') + height.to_bytes(4, 'big')
    else:
        data = bytearray(PICTURE.tobytes())
        start = data.index(b'\xff\xc0')
        data[start + 5 : start + 9] = height.to_bytes(2, 'big') + width.to_bytes(2, 'big')
    with pytest.raises(DataError, match=f'{width} x {height} px'):
        decode_jpeg(bytes(data), 'here')


TRANSFORMS = st.builds(
    SimpleNamespace,
    parent=TEXTS,
    child=TEXTS,
    stamp=STAMPS,
    shift=vector(3),
    turn=vector(4) | st.just([0.0, 0.0, 0.0, 1.0]),
    is_static=st.booleans(),
)


def fill(buffer: TransformBuffer, items: list[Any]) -> None:
    for item in items:
        buffer.set_transform(
            item.parent, item.child, stamp_to_ns(item.stamp), item.shift, item.turn, item.is_static
        )


@FUZZ
@given(
    items=st.lists(TRANSFORMS, max_size=12), target=TEXTS, source=TEXTS, stamp=STAMPS | st.none()
)
def test_transforms(items: list[Any], target: str, source: str, stamp: Any) -> None:
    buffer = TransformBuffer()
    fill(buffer, items)
    try:
        answer = buffer.lookup(target, source, 0 if stamp is None else stamp_to_ns(stamp))
    except BufferError as error:
        assert str(error)
        return
    assert answer.matrix.shape == (4, 4)


@FUZZ
@given(shift=vector(3), turn=vector(4), place=vector(3), after=vector(3))
def test_ego_motion_is_finite_or_refused(
    shift: list[float], turn: list[float], place: list[float], after: list[float]
) -> None:
    source = BufferSource()
    for stamp_ns, where in ((1000, shift), (2000, after)):
        source.buffer.set_transform('map', 'base_link', stamp_ns, where, turn)
    source.buffer.set_transform('base_link', 'camera', 0, place, (0.0, 0.0, 0.0, 1.0), True)
    pose = PoseSource(source, 'base_link', 'map', 'odom')
    try:
        stamps_ns = {'front': 1500, 'back': 1700}
        motion = pose.resolve(1500, stamps_ns, dict.fromkeys(stamps_ns, 'camera'), {})
    except TransformError:
        return
    assert np.isfinite(motion.fixed_from_base).all()
    assert all(np.isfinite(matrix).all() for matrix in motion.base_from_cameras.values())


@FUZZ
@given(
    images=st.lists(
        st.tuples(
            st.sampled_from(['a', 'b', 'c']),
            st.builds(stamp_to_ns, STAMPS) | st.integers(0, 3_000_000_000),
            st.integers(0, 10**9),
        ),
        max_size=60,
    )
)
def test_stamps(images: list[tuple[str, int, int]]) -> None:
    """Whatever the stamps are: every set leaves once, and nothing piles up."""
    sync: CameraSync[int] = CameraSync(SyncSettings(('a', 'b', 'c')))
    sets: list[CameraSet[int]] = []
    now_ns = 0
    for place, (camera, stamp_ns, later_ns) in enumerate(images):
        now_ns += later_ns
        sets += sync.add(camera, stamp_ns, place, now_ns)
        assert sync.num_open <= 40
    sets += sync.reset('end')
    counters = sync.counters
    assert counters.sets_closed == len(sets)
    used = [payload for item in sets for _, payload in item.images.values()]
    assert len(used) == len(set(used))
    unused = (counters.late, counters.duplicate, counters.invalid_stamp)
    assert len(used) + sum(sum(counter.values()) for counter in unused) == len(images)
    assert all(item.spread_ns >= 0 and item.images for item in sets)


@FUZZ
@given(info=INFOS, stamp=st.integers(1, 2**62), data=damaged_pictures())
def test_a_set_of_garbage_is_rejected_or_a_frame(info: Any, stamp: int, data: bytes) -> None:
    good = SimpleNamespace(
        header=SimpleNamespace(frame_id='camera', stamp=SimpleNamespace(sec=1, nanosec=0)),
        width=64,
        height=48,
        distortion_model='',
        d=[],
        k=[50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0],
        p=[0.0] * 12,
        binning_x=0,
        binning_y=0,
        roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    )
    calibrations = {
        name: CameraCalibration(name, f'{name}/camera_info', True) for name in ('good', 'bad')
    }
    calibrations['good'].update(good)
    calibrations['bad'].update(info)
    source = BufferSource()
    source.buffer.set_transform('map', 'base_link', 0, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), True)
    source.buffer.set_transform('base_link', 'camera', 0, (0, 0, 1), (0, 0, 0, 1), True)
    builder = FrameBuilder(
        calibrations,
        {name: name for name in calibrations},
        partial(reduced_from_compressed, least_width_px=16),
        PoseSource(source, 'base_link', 'map', 'odom'),
        1,
        'rig',
    )
    images = {
        'good': (stamp, SimpleNamespace(header=good.header, data=PICTURE.tobytes())),
        'bad': (stamp, SimpleNamespace(header=info.header, data=data)),
    }
    received = {name: (at, ReceivedImage(m, 0, 0.0)) for name, (at, m) in images.items()}
    camera_set = CameraSet(stamp, received, Outcome.COMPLETE)
    try:
        frame = builder.build(camera_set, 0.0, lambda: 0, lambda: True)
    except SetRejectedError as error:
        assert error.reason == 'no_transform'
        return
    finally:
        builder.close()
    assert frame.images[0] is not None
    assert all(isinstance(camera, Camera) for camera in frame.rig.cameras)
    assert all(math.isfinite(value) for value in frame.base_from_cameras.ravel())


ELEMENTS = st.builds(
    SimpleNamespace,
    category=st.integers(0, 255),
    id=UINT32,
    score=st.floats(width=32),
    closed=st.booleans(),
    vertices=st.lists(st.builds(SimpleNamespace, x=NUMBERS, y=NUMBERS, z=NUMBERS), max_size=4),
    covariance=st.lists(st.floats(width=32), max_size=12),
    num_observations=UINT32,
)


@FUZZ
@given(
    header=HEADERS,
    limits=st.just([-30.0, 30.0, -15.0, 15.0]) | vector(4),
    has_z=st.booleans(),
    elements=st.lists(ELEMENTS, max_size=4),
)
def test_local_maps(header: Any, limits: list[float], has_z: bool, elements: list[Any]) -> None:
    names = ('x_min', 'x_max', 'y_min', 'y_max')
    message = SimpleNamespace(
        header=header,
        sample_id='',
        has_z=has_z,
        elements=elements,
        **dict(zip(names, limits, strict=True)),
    )
    try:
        local_map, refused = local_map_from_message(message, header.frame_id)
    except GsmapError as error:
        assert str(error)
        return
    assert len(local_map) + len(refused) == len(elements)
    assert all(np.isfinite(element.vertices).all() for element in local_map.elements)
