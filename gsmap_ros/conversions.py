"""Pure functions between core values and ROS messages; the one place that asks for `cv_bridge`.

Messages are read by attribute, so that any object with the same fields will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gsmap_core.errors import DataError, GsmapError
from gsmap_core.images import decode_jpeg, decoding_reduction, jpeg_size
from gsmap_core.structures import ImageArray, MapElement, PerceptionRange, VectorMap

_NANOSECONDS = 1_000_000_000

#: Channels of the encodings, and which of them are red, green and blue.
_ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    'rgb8': (3, (0, 1, 2)),
    'bgr8': (3, (2, 1, 0)),
    'rgba8': (4, (0, 1, 2)),
    'bgra8': (4, (2, 1, 0)),
    'mono8': (1, (0, 0, 0)),
    # Without a name for the order, BGR is what OpenCV drivers send.
    '8UC3': (3, (2, 1, 0)),
}

ImageConverter = Callable[[Any, str], ImageArray]


def stamp_to_ns(stamp: Any) -> int:
    """Return the nanoseconds of a `builtin_interfaces/Time`."""
    return int(stamp.sec) * _NANOSECONDS + int(stamp.nanosec)


def ns_to_stamp(stamp_ns: int) -> Any:
    """Build a `builtin_interfaces/Time`."""
    from builtin_interfaces.msg import Time

    sec, nanosec = divmod(int(stamp_ns), _NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def image_from_message(message: Any, topic: str) -> ImageArray:
    """Return the (H, W, 3) uint8 RGB array of a `sensor_msgs/Image`.

    Args:
        message: the image; rows may be padded (`step`).
        topic: named in errors.

    Raises:
        DataError: the encoding is not supported, or the data is shorter than its size says.
    """
    try:
        num_channels, order = _ENCODINGS[message.encoding]
    except KeyError:
        raise DataError(
            f"topic '{topic}': encoding '{message.encoding}' is not supported; expected one of "
            f'{", ".join(_ENCODINGS)}'
        ) from None
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(memoryview(message.data), dtype=np.uint8)
    row_bytes = width * num_channels
    if (
        height <= 0
        or width <= 0
        or step < row_bytes
        or data.size < step * (height - 1) + row_bytes
    ):
        raise DataError(
            f"topic '{topic}': image of {width} x {height} px, {message.encoding}, step {step} "
            f'holds {data.size} bytes; '
            f'expected {max(step, row_bytes) * height}'
        )
    rows = np.lib.stride_tricks.as_strided(
        data, shape=(height, row_bytes), strides=(step, 1), writeable=False
    )
    pixels = rows.reshape(height, width, num_channels)
    return np.ascontiguousarray(pixels[..., list(order)])


def image_from_compressed(message: Any, topic: str) -> ImageArray:
    """Return the (H, W, 3) uint8 RGB array of a `sensor_msgs/CompressedImage`.

    Raises:
        DataError: the bytes are not a readable image; the message names the topic and the stamp.
    """
    return reduced_from_compressed(message, topic, None)[0]


def reduced_from_compressed(
    message: Any, topic: str, least_width_px: int | None
) -> tuple[ImageArray, int]:
    """Decode a `sensor_msgs/CompressedImage` no larger than it is needed.

    Args:
        message: the image.
        topic: named in errors.
        least_width_px: a JPEG is decoded at 1/2, 1/4 or 1/8 while its width stays at least this;
            None: at full size.

    Returns:
        (H, W, 3) uint8 RGB, and the fraction's denominator.

    Raises:
        DataError: the bytes are not a readable image; the message names the topic and the stamp.
    """
    where = f"topic '{topic}', stamp {stamp_to_ns(message.header.stamp)} ns"
    data = bytes(message.data)
    size = jpeg_size(data)
    reduction = 1 if size is None else decoding_reduction(size[0], least_width_px)
    return decode_jpeg(data, where, reduction), reduction


def probe_cv_bridge() -> tuple[ImageConverter | None, str]:
    """Try `cv_bridge` on a tiny image; part of it is only loaded at the first conversion.

    Returns:
        A converter with the arguments and answers of `image_from_message`, or None with the
        reason.
    """
    try:
        from cv_bridge import CvBridge
        from sensor_msgs.msg import Image

        bridge = CvBridge()
        tiny = Image(height=1, width=2, encoding='bgr8', step=6, data=[1, 2, 3, 4, 5, 6])
        answer = np.asarray(bridge.imgmsg_to_cv2(tiny, desired_encoding='rgb8'))
        if answer.tolist() != [[[3, 2, 1], [6, 5, 4]]]:
            return None, f'cv_bridge answers {answer.tolist()} for a tiny image'
    except ModuleNotFoundError as error:
        return None, str(error)
    except Exception as error:
        # It is bound to one NumPy ABI and fails in several ways; whatever goes wrong counts as
        # absent.
        return None, f'cv_bridge does not work: {error!r}'

    def convert(message: Any, topic: str) -> ImageArray:
        source = 'bgr8' if message.encoding == '8UC3' else message.encoding
        if source not in _ENCODINGS:
            return image_from_message(message, topic)
        try:
            message.encoding = source
            return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, desired_encoding='rgb8'))
        except Exception as error:
            raise DataError(f"topic '{topic}': cv_bridge refuses the image: {error}") from None

    return convert, ''


def element_to_message(element: MapElement) -> Any:
    """Build a `gsmap_ros/MapElement`; covariances travel if the element has them."""
    from geometry_msgs.msg import Point

    from gsmap_ros.msg import MapElement as MapElementMessage

    vertices = element.vertices
    if not element.has_z:
        vertices = np.column_stack([vertices, np.zeros(len(vertices))])
    covariance = element.covariance
    return MapElementMessage(
        category=element.category,
        id=element.id or 0,
        score=1.0 if element.score is None else float(element.score),
        closed=element.closed,
        vertices=[Point(x=x, y=y, z=z) for x, y, z in vertices.tolist()],
        covariance=[] if covariance is None else covariance.astype(np.float32).ravel().tolist(),
        num_observations=0 if element.score is None else max(1, element.num_observations),
    )


def local_map_to_message(local_map: VectorMap, frame_id: str) -> Any:
    """Build a `gsmap_ros/MapElementArray` at the stamp of the map.

    Args:
        local_map: a map in the ego frame.
        frame_id: name of the ego frame.

    Raises:
        DataError: the map is in another frame.
    """
    from gsmap_ros.msg import MapElementArray

    if local_map.reference != 'ego':
        raise DataError(
            f"local map is in the {local_map.reference} frame; expected 'ego': convert it first"
        )
    message = MapElementArray(sample_id=local_map.sample_id)
    _fill(message, local_map, frame_id)
    return message


def _fill(message: Any, vector_map: VectorMap, frame_id: str) -> None:
    """Write what both kinds of map message have."""
    area = vector_map.range
    message.x_min, message.x_max = area.x_min, area.x_max
    message.y_min, message.y_max = area.y_min, area.y_max
    message.has_z = any(element.has_z for element in vector_map.elements)
    message.elements = [element_to_message(element) for element in vector_map.elements]
    message.header.stamp = ns_to_stamp(vector_map.stamp_ns)
    message.header.frame_id = frame_id


def element_from_message(message: Any, has_z: bool) -> MapElement:
    """Return the core element of a `gsmap_ros/MapElement`.

    Raises:
        DataError: the covariance does not fit the vertices, or a number is not usable.
        ConfigError: the category is unknown.
    """
    vertices = np.array([(v.x, v.y, v.z) for v in message.vertices], dtype=np.float64)
    vertices = vertices.reshape(-1, 3)[:, : 3 if has_z else 2]
    covariance = np.asarray(message.covariance, dtype=np.float64)
    if covariance.size not in (0, 3 * len(vertices)):
        raise DataError(
            f'element has {covariance.size} covariance numbers for {len(vertices)} vertices; '
            'expected three per vertex or none'
        )
    if not np.isfinite(covariance).all():
        raise DataError('element holds a covariance that is NaN or infinite')
    return MapElement(
        category=int(message.category),
        vertices=vertices,
        closed=bool(message.closed),
        score=float(message.score),
        covariance=covariance.reshape(-1, 3) if covariance.size else None,
        id=int(message.id) or None,
        num_observations=int(message.num_observations),
    )


def local_map_from_message(message: Any, frame_id: str) -> tuple[VectorMap, list[str]]:
    """Return the local map of a `gsmap_ros/MapElementArray`, without a pose.

    Args:
        message: the message.
        frame_id: name of the ego frame.

    Returns:
        The map, and one sentence for every element that was left out because it is none.

    Raises:
        DataError: the message is in another frame, or its range is empty.
    """
    given = message.header.frame_id
    if given != frame_id:
        raise DataError(f"local map is in frame '{given}'; expected '{frame_id}': set base_frame")
    limits = [float(getattr(message, name)) for name in ('x_min', 'x_max', 'y_min', 'y_max')]
    if not np.isfinite(limits).all():
        raise DataError(f'local map has the range {limits}; expected finite numbers')
    elements, refused = [], []
    for index, element in enumerate(message.elements):
        try:
            elements.append(element_from_message(element, bool(message.has_z)))
        except GsmapError as error:
            refused.append(f'element {index}: {error}')
    local_map = VectorMap(
        elements=tuple(elements),
        stamp_ns=stamp_to_ns(message.header.stamp),
        range=PerceptionRange(*limits),
        sample_id=message.sample_id,
    )
    return local_map, refused


def fused_map_to_message(fused: VectorMap, frame_id: str, revision: int) -> Any:
    """Build a `gsmap_ros/VectorMap`.

    Args:
        fused: a map in the map frame.
        frame_id: name of the map frame.
        revision: number of the published change.

    Raises:
        DataError: the map is in another frame.
    """
    from gsmap_ros.msg import VectorMap as VectorMapMessage

    if fused.reference != 'map':
        raise DataError(f"fused map is in the {fused.reference} frame; expected 'map'")
    message = VectorMapMessage(revision=revision)
    _fill(message, fused, frame_id)
    return message
