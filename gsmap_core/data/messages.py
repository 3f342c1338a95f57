"""ROS messages without ROS: the type store, and our three messages to and from core values.

The definitions of our own messages are the text files of `msg/`, found by `resources.py`; the
standard ones come with `rosbags`. Reading a message uses attribute access only, so the functions
also take messages of `rclpy`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from gsmap_core.errors import DataError, GsmapError
from gsmap_core.geometry.transforms import matrix_to_quaternion, transform_from_quaternion
from gsmap_core.resources import resource_dir
from gsmap_core.structures import FloatArray, MapElement, PerceptionRange, VectorMap

MAP_ELEMENT = 'gsmap_ros/msg/MapElement'
MAP_ELEMENT_ARRAY = 'gsmap_ros/msg/MapElementArray'
VECTOR_MAP = 'gsmap_ros/msg/VectorMap'
TF_MESSAGE = 'tf2_msgs/msg/TFMessage'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
IMAGE = 'sensor_msgs/msg/Image'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
POINT_CLOUD = 'sensor_msgs/msg/PointCloud2'
ODOMETRY = 'nav_msgs/msg/Odometry'

BASE_FRAME = 'base_link'
ODOM_FRAME = 'odom'
MAP_FRAME = 'map'
#: Frame of the nuScenes protocols: x right, y forward, at the roof lidar. Its own name, because
#: lidars of other vehicles have other axes.
NUSCENES_LIDAR_FRAME = 'nuscenes_lidar'

_NANOSECONDS = 1_000_000_000


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """Return the message types: those of ROS 2 Kilted and the package's own.

    Raises:
        EnvironmentProblemError: the folder `msg` is not found.
    """
    store = get_typestore(Stores.ROS2_KILTED)
    for path in sorted(resource_dir('msg').glob('*.msg')):
        store.register(get_types_from_msg(path.read_text(), f'gsmap_ros/msg/{path.stem}'))
    return store


def make_message(type_name: str, **fields: Any) -> Any:
    """Build a message of the type store from all of its fields."""
    return typestore().types[type_name](**fields)


def serialise(message: Any) -> bytes:
    """Return the little-endian CDR bytes of a message made by `make_message`."""
    return bytes(typestore().serialize_cdr(message, message.__msgtype__))


def make_time(stamp_ns: int) -> Any:
    """Build a `builtin_interfaces/Time`."""
    sec, nanosec = divmod(int(stamp_ns), _NANOSECONDS)
    return make_message('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec)


def time_to_ns(time: Any) -> int:
    """Return the nanoseconds of a `builtin_interfaces/Time`."""
    return int(time.sec) * _NANOSECONDS + int(time.nanosec)


def make_header(stamp_ns: int, frame_id: str) -> Any:
    """Build a `std_msgs/Header`."""
    return make_message('std_msgs/msg/Header', stamp=make_time(stamp_ns), frame_id=frame_id)


def make_transform_stamped(
    stamp_ns: int, parent: str, child: str, parent_from_child: FloatArray
) -> Any:
    """Build a `geometry_msgs/TransformStamped` from a (4, 4) transform [m]."""
    x, y, z, w = (float(v) for v in matrix_to_quaternion(parent_from_child[:3, :3]))
    tx, ty, tz = (float(v) for v in parent_from_child[:3, 3])
    return make_message(
        'geometry_msgs/msg/TransformStamped',
        header=make_header(stamp_ns, parent),
        child_frame_id=child,
        transform=make_message(
            'geometry_msgs/msg/Transform',
            translation=make_message('geometry_msgs/msg/Vector3', x=tx, y=ty, z=tz),
            rotation=make_message('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w),
        ),
    )


def transform_from_message(transform: Any) -> FloatArray:
    """Return the (4, 4) matrix of a `geometry_msgs/Transform` [m].

    Raises:
        DataError: the quaternion is zero or a number is not finite.
    """
    shift, turn = transform.translation, transform.rotation
    matrix = transform_from_quaternion(
        [shift.x, shift.y, shift.z], [turn.x, turn.y, turn.z, turn.w]
    )
    if not np.isfinite(matrix).all():
        raise DataError('transform holds NaN or infinity; expected finite numbers')
    return matrix


def element_to_message(element: MapElement) -> Any:
    """Build a `gsmap_ros/MapElement`; no score (ground truth) becomes score 1, 0 observations."""
    vertices = element.vertices
    if not element.has_z:
        vertices = np.column_stack([vertices, np.zeros(len(vertices))])
    covariance = np.zeros(0) if element.covariance is None else element.covariance
    is_truth = element.score is None
    return make_message(
        MAP_ELEMENT,
        category=element.category,
        id=element.id or 0,
        score=1.0 if element.score is None else float(element.score),
        closed=element.closed,
        vertices=[
            make_message('geometry_msgs/msg/Point', x=x, y=y, z=z) for x, y, z in vertices.tolist()
        ],
        covariance=np.asarray(covariance, dtype=np.float32).reshape(-1),
        num_observations=0 if is_truth else max(1, element.num_observations),
    )


def element_from_message(message: Any, has_z: bool) -> MapElement:
    """Return the core element of a `gsmap_ros/MapElement`; 0 observations make it ground truth.

    Raises:
        DataError: the covariance does not fit the vertices, or the vertices are not usable.
        ConfigError: the category is unknown.
    """
    vertices = np.array([[v.x, v.y, v.z] for v in message.vertices], dtype=np.float64)
    vertices = vertices.reshape(-1, 3)[:, : 3 if has_z else 2]
    covariance = None
    if len(message.covariance):
        if len(message.covariance) != 3 * len(vertices):
            raise DataError(
                f'element has {len(message.covariance)} covariance numbers for {len(vertices)} '
                'vertices; expected three per vertex or none'
            )
        covariance = np.asarray(message.covariance, dtype=np.float64).reshape(-1, 3)
    is_truth = int(message.num_observations) == 0
    return MapElement(
        category=int(message.category),
        vertices=vertices,
        closed=bool(message.closed),
        score=None if is_truth else float(message.score),
        covariance=covariance,
        id=int(message.id) or None,
        num_observations=int(message.num_observations),
    )


def local_map_to_message(local_map: VectorMap, frame_id: str = BASE_FRAME) -> Any:
    """Build a `gsmap_ros/MapElementArray`; scene and pose do not travel in it (bag metadata, TF).

    Args:
        local_map: elements in the ego frame, or in the LiDAR frame of the nuScenes protocols,
            whose name the header then has.
        frame_id: name of the ego frame.

    Raises:
        DataError: the map is in another frame.
    """
    if local_map.reference not in ('ego', 'lidar'):
        raise DataError(
            f"local map '{local_map.sample_id}' is in the {local_map.reference} frame; "
            'a MapElementArray holds the ego frame or the LiDAR frame: convert it first'
        )
    if local_map.reference == 'lidar':
        frame_id = NUSCENES_LIDAR_FRAME
    area = local_map.range
    return make_message(
        MAP_ELEMENT_ARRAY,
        header=make_header(local_map.stamp_ns, frame_id),
        sample_id=local_map.sample_id,
        x_min=area.x_min,
        x_max=area.x_max,
        y_min=area.y_min,
        y_max=area.y_max,
        has_z=any(element.has_z for element in local_map.elements),
        elements=[element_to_message(element) for element in local_map.elements],
    )


def local_map_from_message(
    message: Any,
    scene: str = '',
    map_from_base: FloatArray | None = None,
    where: str = 'MapElementArray',
) -> VectorMap:
    """Return the local map of a `gsmap_ros/MapElementArray`.

    Its reference is `lidar` if the header names the LiDAR frame of the nuScenes protocols, else
    `ego`.

    Args:
        message: the message.
        scene: name of the drive.
        map_from_base: (4, 4) ego pose at its stamp, where known.
        where: names topic and file in errors.

    Raises:
        DataError: the message holds no valid map.
    """
    is_lidar = message.header.frame_id == NUSCENES_LIDAR_FRAME
    reference = 'lidar' if is_lidar else 'ego'
    return _map_from_message(message, reference, message.sample_id, scene, map_from_base, where)


def global_map_to_message(
    global_map: VectorMap, revision: int = 1, frame_id: str = MAP_FRAME
) -> Any:
    """Build a `gsmap_ros/VectorMap`.

    Raises:
        DataError: the map is not in the map frame.
    """
    if global_map.reference != 'map':
        raise DataError(
            f'global map is in the {global_map.reference} frame; '
            'a VectorMap message holds the map frame: convert it first'
        )
    area = global_map.range
    return make_message(
        VECTOR_MAP,
        header=make_header(global_map.stamp_ns, frame_id),
        revision=revision,
        x_min=area.x_min,
        x_max=area.x_max,
        y_min=area.y_min,
        y_max=area.y_max,
        has_z=any(element.has_z for element in global_map.elements),
        elements=[element_to_message(element) for element in global_map.elements],
    )


def global_map_from_message(message: Any, scene: str = '', where: str = 'VectorMap') -> VectorMap:
    """Return the map of a `gsmap_ros/VectorMap`, in the map frame.

    Raises:
        DataError: the message holds no valid map.
    """
    return _map_from_message(message, 'map', '', scene, None, where)


def _map_from_message(
    message: Any,
    reference: str,
    sample_id: str,
    scene: str,
    map_from_base: FloatArray | None,
    where: str,
) -> VectorMap:
    stamp_ns = time_to_ns(message.header.stamp)
    try:
        return VectorMap(
            elements=tuple(
                element_from_message(element, bool(message.has_z)) for element in message.elements
            ),
            stamp_ns=stamp_ns,
            range=PerceptionRange(
                float(message.x_min),
                float(message.x_max),
                float(message.y_min),
                float(message.y_max),
            ),
            reference=reference,
            sample_id=sample_id,
            scene=scene,
            map_from_base=map_from_base,
        )
    except GsmapError as error:
        raise DataError(f'{where}: message at {stamp_ns} ns: {error}') from error
