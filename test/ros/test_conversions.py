"""Images and maps to and from messages."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from gsmap_core.errors import DataError
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap
from gsmap_ros import conversions

TOPIC = '/cam_front/image_rect'


def make_image(encoding: str, channels: int, padding: int = 0) -> tuple[Any, np.ndarray]:
    """A 3 x 4 px picture of distinct values, its rows padded with 99."""
    pixels = np.arange(3 * 4 * channels, dtype=np.uint8).reshape(3, 4, channels)
    rows = np.full((3, 4 * channels + padding), 99, dtype=np.uint8)
    rows[:, : 4 * channels] = pixels.reshape(3, -1)
    message = SimpleNamespace(
        height=3, width=4, encoding=encoding, step=4 * channels + padding, data=rows.tobytes()
    )
    return message, pixels


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(
    ('encoding', 'channels', 'order'),
    [
        ('rgb8', 3, [0, 1, 2]),
        ('bgr8', 3, [2, 1, 0]),
        ('rgba8', 4, [0, 1, 2]),
        ('bgra8', 4, [2, 1, 0]),
        ('mono8', 1, [0, 0, 0]),
        ('8UC3', 3, [2, 1, 0]),
    ],
)
def test_raw_images_become_rgb(
    encoding: str, channels: int, order: list[int], padding: int
) -> None:
    message, pixels = make_image(encoding, channels, padding)
    image = conversions.image_from_message(message, TOPIC)
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, pixels[..., order])


def test_last_row_may_end_without_its_padding() -> None:
    message, pixels = make_image('rgb8', 3, padding=5)
    message.data = message.data[:-5]
    np.testing.assert_array_equal(conversions.image_from_message(message, TOPIC), pixels)


def test_unknown_encoding_and_short_data_name_the_topic() -> None:
    message, _ = make_image('rgb8', 3)
    message.encoding = 'yuv422'
    with pytest.raises(DataError, match=f"'{TOPIC}': encoding 'yuv422'.*rgb8, bgr8"):
        conversions.image_from_message(message, TOPIC)
    message, _ = make_image('rgb8', 3)
    message.data = message.data[:-1]
    with pytest.raises(DataError, match=f"'{TOPIC}'.*35 bytes; expected 36"):
        conversions.image_from_message(message, TOPIC)


def test_compressed_images_and_corrupt_ones() -> None:
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[..., 2] = 200  # red in OpenCV's order
    data = cv2.imencode('.jpg', picture)[1].tobytes()
    header = SimpleNamespace(stamp=SimpleNamespace(sec=3, nanosec=4))
    image = conversions.image_from_compressed(SimpleNamespace(data=data, header=header), TOPIC)
    assert abs(int(image[8, 12, 0]) - 200) < 5 and image[8, 12, 2] < 5
    with pytest.raises(DataError, match=f"topic '{TOPIC}', stamp 3000000004 ns"):
        conversions.image_from_compressed(SimpleNamespace(data=data[30:], header=header), TOPIC)


def test_compressed_images_are_decoded_no_larger_than_needed() -> None:
    picture = np.zeros((90, 160, 3), np.uint8)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=3, nanosec=4))
    for least_px, reduction in ((None, 1), (100, 1), (50, 2), (40, 4), (1, 8)):
        data = cv2.imencode('.jpg', picture)[1].tobytes()
        message = SimpleNamespace(data=data, header=header)
        image, found = conversions.reduced_from_compressed(message, TOPIC, least_px)
        assert found == reduction and image.shape == (-(-90 // found), 160 // found, 3)


def make_map() -> VectorMap:
    return VectorMap(
        (
            MapElement(0, np.array([[1.0, 2.0], [3.0, 4.0]]), score=0.9),
            MapElement(
                1,
                np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]),
                closed=True,
                score=0.2,
                covariance=np.arange(9.0).reshape(3, 3),
                id=7,
            ),
        ),
        stamp_ns=1_500_000_001,
        range=PerceptionRange(-30.0, 30.0, -15.0, 15.0),
    )


def test_local_map_message(ros_messages: None) -> None:
    message = conversions.local_map_to_message(make_map(), 'base_link')
    assert message.header.frame_id == 'base_link'
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 500_000_001)
    assert (message.x_min, message.x_max, message.y_min, message.y_max) == (-30, 30, -15, 15)
    assert not message.has_z
    line, ring = message.elements
    assert (line.category, line.id, line.closed, line.num_observations) == (0, 0, False, 1)
    assert [(p.x, p.y, p.z) for p in line.vertices] == [(1.0, 2.0, 0.0), (3.0, 4.0, 0.0)]
    assert len(line.covariance) == 0
    assert (ring.id, ring.closed, len(ring.vertices)) == (7, True, 3)
    assert list(ring.covariance) == list(range(9))


def test_local_map_of_another_frame_is_refused(ros_messages: None) -> None:
    with pytest.raises(DataError, match="lidar frame; expected 'ego'"):
        conversions.local_map_to_message(VectorMap(reference='lidar'), 'base_link')


class FakeBridge:
    """Converts as cv_bridge does, for the encodings of the test; may be broken."""

    is_broken = False

    def imgmsg_to_cv2(self, message: Any, desired_encoding: str) -> np.ndarray:
        if self.is_broken:
            raise AttributeError('_ARRAY_API not found')
        channels = 3
        data = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)
        image = data[:, : message.width * channels].reshape(message.height, message.width, 3)
        return image[..., ::-1] if message.encoding == 'bgr8' else image


@pytest.mark.parametrize('is_broken', [False, True])
def test_cv_bridge_is_used_where_it_works(
    is_broken: bool, monkeypatch: pytest.MonkeyPatch, ros_messages: None
) -> None:
    module = types.ModuleType('cv_bridge')
    monkeypatch.setattr(FakeBridge, 'is_broken', is_broken)
    module.CvBridge = FakeBridge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    converter, reason = conversions.probe_cv_bridge()
    if is_broken:
        assert converter is None and '_ARRAY_API' in reason
        return
    assert converter is not None and reason == ''
    for encoding in ('rgb8', 'bgr8', '8UC3'):
        message, _ = make_image(encoding, 3, padding=2)
        expected = conversions.image_from_message(message, TOPIC)
        np.testing.assert_array_equal(converter(message, TOPIC), expected)


def test_absent_cv_bridge_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    converter, reason = conversions.probe_cv_bridge()
    assert converter is None and 'cv_bridge' in reason


def test_real_cv_bridge_agrees_with_our_conversion() -> None:
    """Only where a ROS provides cv_bridge."""
    converter, reason = conversions.probe_cv_bridge()
    if converter is None:
        pytest.skip(f'no working cv_bridge: {reason}')
    from sensor_msgs.msg import Image

    for encoding, channels in (('rgb8', 3), ('bgr8', 3), ('rgba8', 4), ('bgra8', 4), ('mono8', 1)):
        fields, _ = make_image(encoding, channels, padding=3)
        fields.data = list(fields.data)
        message = Image(**vars(fields))
        expected = conversions.image_from_message(message, TOPIC)
        np.testing.assert_array_equal(converter(message, TOPIC), expected)


@pytest.mark.parametrize(
    ('source', 'text'),
    [
        # At import: the compiled module belongs to another Python or NumPy; Python 2; a program.
        ('from cv_bridge.boost.cv_bridge_boost import getCvType', 'cv_bridge.boost'),
        ("raise ImportError('numpy.core.multiarray failed to import')", 'multiarray failed'),
        ("print 'hello'", 'SyntaxError'),
        # At first use: part of it is loaded late.
        (
            'class CvBridge:\n    def imgmsg_to_cv2(self, *args, **kwargs):\n'
            '        from cv_bridge_boost import getCvType\n',
            'cv_bridge_boost',
        ),
        ('class CvBridge:\n    pass\n', 'imgmsg_to_cv2'),
        ('', 'CvBridge'),
    ],
)
def test_modules_of_ros_1_fall_back_with_a_reason(
    source: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ros_messages: None
) -> None:
    """Debian has packages of this name that belong to ROS 1."""
    (tmp_path / 'cv_bridge').mkdir()
    (tmp_path / 'cv_bridge/__init__.py').write_text(source, encoding='utf-8')
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split('.')[0] == 'cv_bridge']:
        monkeypatch.delitem(sys.modules, name)
    converter, reason = conversions.probe_cv_bridge()
    sys.modules.pop('cv_bridge', None)
    assert converter is None and text in reason
