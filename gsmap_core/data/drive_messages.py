"""Messages of a drive that need more than their fields: calibration, point cloud, odometry."""

from __future__ import annotations

from typing import Any

import numpy as np

from gsmap_core.data import messages as msg
from gsmap_core.data.drives import PoseSample
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import invert, matrix_to_quaternion
from gsmap_core.structures import Camera


def camera_info_message(camera: Camera, stamp_ns: int) -> Any:
    """Build the `sensor_msgs/CameraInfo` of a rectified camera: D zero, P = [K|0]."""
    projection = np.zeros((3, 4))
    projection[:, :3] = camera.intrinsics
    return msg.make_message(
        msg.CAMERA_INFO,
        header=msg.make_header(stamp_ns, camera.frame_id),
        height=camera.height_px,
        width=camera.width_px,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=camera.intrinsics.reshape(-1).copy(),
        r=np.eye(3).reshape(-1),
        p=projection.reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=msg.make_message(
            'sensor_msgs/msg/RegionOfInterest',
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )


def point_cloud_message(points: np.ndarray, stamp_ns: int) -> Any:
    """Build a `sensor_msgs/PointCloud2` from (P, 4) x, y, z, intensity in the ego frame [m].

    Raises:
        DataError: the shape is another.
    """
    if points.ndim != 2 or points.shape[1] != 4:
        raise DataError(f'point cloud has shape {points.shape}; expected (P, 4)')
    float32 = 7
    return msg.make_message(
        msg.POINT_CLOUD,
        header=msg.make_header(stamp_ns, msg.BASE_FRAME),
        height=1,
        width=len(points),
        fields=[
            msg.make_message(
                'sensor_msgs/msg/PointField',
                name=name,
                offset=4 * index,
                datatype=float32,
                count=1,
            )
            for index, name in enumerate(('x', 'y', 'z', 'intensity'))
        ],
        is_bigendian=False,
        point_step=16,
        row_step=16 * len(points),
        data=np.frombuffer(np.ascontiguousarray(points, dtype='<f4').tobytes(), dtype=np.uint8),
        is_dense=True,
    )


def points_from_message(message: Any, where: str) -> np.ndarray:
    """Return (P, 4) float32 x, y, z [m] and intensity of a `sensor_msgs/PointCloud2`.

    Args:
        message: the message; its own frame is kept.
        where: names file and topic in the error.

    Raises:
        DataError: a field is missing or of a type that is not supported.
    """
    kinds = {2: 'u1', 4: 'u2', 6: 'u4', 7: 'f4', 8: 'f8'}
    order = '>' if message.is_bigendian else '<'
    fields = {field.name: field for field in message.fields}
    wanted = ('x', 'y', 'z', 'intensity')
    if any(name not in fields or fields[name].datatype not in kinds for name in wanted):
        raise DataError(f'{where}: has fields {", ".join(fields)}; expected {", ".join(wanted)}')
    layout = np.dtype(
        {
            'names': wanted,
            'formats': [order + kinds[fields[name].datatype] for name in wanted],
            'offsets': [fields[name].offset for name in wanted],
            'itemsize': message.point_step,
        }
    )
    rows = np.asarray(message.data).reshape(message.height, -1)[
        :, : message.width * message.point_step
    ]
    records = np.frombuffer(np.ascontiguousarray(rows).tobytes(), dtype=layout)
    return np.stack([records[name].astype(np.float32) for name in wanted], axis=1)


def odometry_message(poses: list[PoseSample], index: int) -> Any:
    """Build the `nav_msgs/Odometry` of one pose; the velocity is that between its neighbours."""
    pose = poses[index]
    before, after = poses[max(index - 1, 0)], poses[min(index + 1, len(poses) - 1)]
    seconds = (after.stamp_ns - before.stamp_ns) / 1e9
    linear, angular = np.zeros(3), np.zeros(3)
    if seconds > 0:
        base_from_map = invert(pose.map_from_base)[:3, :3]
        shift = after.map_from_base[:3, 3] - before.map_from_base[:3, 3]
        linear = base_from_map @ shift / seconds
        turn = after.map_from_base[:3, :3] @ before.map_from_base[:3, :3].T
        # Small rotations: the vector of the antisymmetric part, in the map frame.
        vector = 0.5 * np.array(
            [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
        )
        angular = base_from_map @ vector / seconds
    qx, qy, qz, qw = (float(v) for v in matrix_to_quaternion(pose.map_from_base[:3, :3]))
    x, y, z = (float(v) for v in pose.map_from_base[:3, 3])

    def vector3(values: np.ndarray) -> Any:
        vx, vy, vz = (float(v) for v in values)
        return msg.make_message('geometry_msgs/msg/Vector3', x=vx, y=vy, z=vz)

    return msg.make_message(
        msg.ODOMETRY,
        header=msg.make_header(pose.stamp_ns, msg.ODOM_FRAME),
        child_frame_id=msg.BASE_FRAME,
        pose=msg.make_message(
            'geometry_msgs/msg/PoseWithCovariance',
            pose=msg.make_message(
                'geometry_msgs/msg/Pose',
                position=msg.make_message('geometry_msgs/msg/Point', x=x, y=y, z=z),
                orientation=msg.make_message(
                    'geometry_msgs/msg/Quaternion', x=qx, y=qy, z=qz, w=qw
                ),
            ),
            covariance=np.zeros(36),
        ),
        twist=msg.make_message(
            'geometry_msgs/msg/TwistWithCovariance',
            twist=msg.make_message(
                'geometry_msgs/msg/Twist', linear=vector3(linear), angular=vector3(angular)
            ),
            covariance=np.zeros(36),
        ),
    )
