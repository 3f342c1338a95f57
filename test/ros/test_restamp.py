"""Recorded messages get other stamps and keep everything else."""

from __future__ import annotations

from typing import Any

import pytest

from gsmap_core.errors import DataError
from gsmap_ros.restamp import Restamper

LATER = Restamper(lambda stamp_ns: 2 * stamp_ns + 7)


def round_trip(message: Any) -> Any:
    from rclpy.serialization import deserialize_message, serialize_message

    kind = type(message)
    return deserialize_message(LATER.restamp(bytes(serialize_message(message)), kind), kind)


def test_a_header_is_moved_and_the_rest_stays(ros_messages: None) -> None:
    from sensor_msgs.msg import CompressedImage

    image = CompressedImage(format='jpeg', data=[1, 2, 3])
    image.header.frame_id = 'cam_front_optical_frame'
    image.header.stamp.sec, image.header.stamp.nanosec = 3, 999_999_999
    moved = round_trip(image)
    assert (moved.header.stamp.sec, moved.header.stamp.nanosec) == (8, 5)
    image.header.stamp = moved.header.stamp
    assert moved == image


def test_transforms_are_moved_one_by_one(ros_messages: None) -> None:
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    message = TFMessage(transforms=[TransformStamped(child_frame_id=name) for name in 'ab'])
    message.transforms[1].header.stamp.sec = 5
    message.transforms[1].transform.translation.x = 2.5
    moved = round_trip(message)
    assert [item.header.stamp.sec for item in moved.transforms] == [0, 10]
    assert [item.header.stamp.nanosec for item in moved.transforms] == [7, 7]
    assert moved.transforms[1].transform.translation.x == 2.5
    assert moved.transforms[0].child_frame_id == 'a'


def test_messages_without_a_stamp_stay_as_they_are(ros_messages: None) -> None:
    from std_msgs.msg import String

    assert round_trip(String(data='x' * 40)) == String(data='x' * 40)


def test_bytes_without_room_for_a_header_are_refused(ros_messages: None) -> None:
    from sensor_msgs.msg import CompressedImage

    with pytest.raises(DataError, match='5 bytes are no message'):
        LATER.restamp(b'\0\1\0\0\1', CompressedImage)
