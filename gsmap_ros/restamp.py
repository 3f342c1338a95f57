"""Recorded messages with other stamps, so that a bag looks like a vehicle that drives now."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from gsmap_core.errors import DataError
from gsmap_ros.conversions import ns_to_stamp, stamp_to_ns

_HEADER = 'std_msgs/Header'
_STAMPED = 'geometry_msgs/TransformStamped'
_NANOSECONDS = 1_000_000_000


class Restamper:
    """Moves stamps from the time of a bag to another time.

    The stamp of a message that begins with a header is changed in its bytes; messages that hold
    stamped transforms are read and written anew; others are left as they are.

    Args:
        moved_ns: recorded to published stamp [ns].
    """

    def __init__(self, moved_ns: Callable[[int], int]) -> None:
        self._moved_ns = moved_ns

    def restamp(self, data: bytes, kind: Any) -> bytes:
        """Return a message with moved stamps.

        Args:
            data: as recorded (CDR).
            kind: its class.

        Raises:
            DataError: the bytes are too short for a header.
        """
        fields = list(kind.get_fields_and_field_types().values())
        if fields[:1] == [_HEADER]:
            return self._with_header(data, kind)
        if fields == [f'sequence<{_STAMPED}>']:
            return self._with_transforms(data, kind)
        return data

    def _with_header(self, data: bytes, kind: Any) -> bytes:
        if len(data) < 12:
            raise DataError(
                f'{kind.__name__}: {len(data)} bytes are no message with a header; record it again'
            )
        # Four bytes of encapsulation, the second of which tells the byte order; then the stamp.
        layout = '<iI' if data[1] & 1 else '>iI'
        sec, nanosec = struct.unpack_from(layout, data, 4)
        stamp = divmod(self._moved_ns(sec * _NANOSECONDS + nanosec), _NANOSECONDS)
        return data[:4] + struct.pack(layout, *stamp) + data[12:]

    def _with_transforms(self, data: bytes, kind: Any) -> bytes:
        from rclpy.serialization import deserialize_message, serialize_message

        message = deserialize_message(data, kind)
        for item in message.transforms:
            item.header.stamp = ns_to_stamp(self._moved_ns(stamp_to_ns(item.header.stamp)))
        return bytes(serialize_message(message))
