"""The mapping node with other kinds of input: raw and distorted images, odometry, reset.

Publisher and node share one process and one executor here; the rest is the real node.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros.helpers.drives import START_NS, pose_at, write_micro_checkpoint

from gsmap_core.geometry.transforms import matrix_to_quaternion
from gsmap_core.rig import load_rig, scaled_rig

RIG = scaled_rig(load_rig('nuscenes_like'), 96)
CAMERAS = RIG.names[:2]
PERIOD_NS = 100_000_000


class Vehicle:
    """Publishes raw distorted images, CameraInfo, static TF and odometry."""

    def __init__(self) -> None:
        from nav_msgs.msg import Odometry
        from rclpy.node import Node
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import CameraInfo, Image
        from tf2_msgs.msg import TFMessage

        self.node = Node('vehicle')
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.odometry = self.node.create_publisher(Odometry, 'odom', 10)
        self.tf_static = self.node.create_publisher(TFMessage, '/tf_static', latched)
        self.images = {
            name: self.node.create_publisher(Image, f'{name}/image_raw', 5) for name in CAMERAS
        }
        self.infos = {
            name: self.node.create_publisher(CameraInfo, f'{name}/camera_info', 5)
            for name in CAMERAS
        }
        self.publish_extrinsics()

    def is_heard(self) -> bool:
        publishers = [self.odometry, *self.images.values(), *self.infos.values()]
        return all(publisher.get_subscription_count() for publisher in publishers)

    def publish_extrinsics(self) -> None:
        from geometry_msgs.msg import TransformStamped
        from tf2_msgs.msg import TFMessage

        message = TFMessage()
        for name in CAMERAS:
            camera, item = RIG.camera(name), TransformStamped()
            item.header.frame_id, item.child_frame_id = 'base_link', camera.frame_id
            fill(item.transform.translation, item.transform.rotation, camera.base_from_camera)
            message.transforms.append(item)
        self.tf_static.publish(message)

    def publish_set(self, index: int) -> int:
        """Publish one moment; odometry goes a little past it."""
        from nav_msgs.msg import Odometry
        from sensor_msgs.msg import CameraInfo, Image

        stamp_ns = START_NS + index * PERIOD_NS
        for name in CAMERAS:
            camera = RIG.camera(name)
            info = CameraInfo(
                width=camera.width_px,
                height=camera.height_px,
                distortion_model='plumb_bob',
                d=[-0.2, 0.05, 0.0, 0.0, 0.0],
                k=camera.intrinsics.ravel(),
            )
            image = Image(
                width=camera.width_px,
                height=camera.height_px,
                encoding='bgr8',
                step=3 * camera.width_px,
                data=np.full(3 * camera.width_px * camera.height_px, 90, np.uint8).tobytes(),
            )
            for message in (info, image):
                set_header(message.header, stamp_ns, camera.frame_id)
            self.infos[name].publish(info)
            self.images[name].publish(image)
        for shift_ns in (-1_000_000, 1_000_000):
            odometry = Odometry(child_frame_id='base_link')
            set_header(odometry.header, stamp_ns + shift_ns, 'odom')
            pose = odometry.pose.pose
            fill(pose.position, pose.orientation, pose_at(stamp_ns + shift_ns))
            self.odometry.publish(odometry)
        return stamp_ns


def set_header(header: Any, stamp_ns: int, frame_id: str) -> None:
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 10**9)
    header.frame_id = frame_id


def fill(position: Any, orientation: Any, matrix: np.ndarray) -> None:
    position.x, position.y, position.z = matrix[:3, 3].tolist()
    turn = matrix_to_quaternion(matrix[:3, :3]).tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = turn


@pytest.fixture(scope='module')
def running(
    ros_context: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Vehicle, list[Any], Callable[[Callable[[], bool]], None]]]:
    """A mapping node that has started itself, a vehicle, the maps, and a way to spin until."""
    from gsmap_ros.msg import MapElementArray
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.parameter import Parameter

    from gsmap_ros.mapping_node import MappingNode

    weights: Path = write_micro_checkpoint(tmp_path_factory.mktemp('raw') / 'micro.safetensors')
    given = {
        'model.weights': str(weights),
        'cameras': list(CAMERAS),
        'image_transport': 'raw',
        'images_rectified': False,
        'pose_source': 'odometry',
        'score_threshold': 0.0,
        'tf.timeout_s': 2.0,
    }
    node = MappingNode(parameter_overrides=[Parameter(k, value=v) for k, v in given.items()])
    vehicle = Vehicle()
    maps: list[Any] = []
    vehicle.node.create_subscription(MapElementArray, '/mapping/local_map', maps.append, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(vehicle.node)

    def spin_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30.0
        while not condition():
            assert time.monotonic() < deadline, node._status.failure or node._status.set_error
            executor.spin_once(timeout_sec=0.02)

    spin_until(vehicle.is_heard)
    yield node, vehicle, maps, spin_until
    executor.remove_node(node)
    executor.remove_node(vehicle.node)
    node.finish()
    node.destroy_node()
    vehicle.node.destroy_node()


def test_raw_distorted_images_with_odometry_are_mapped(running: Any) -> None:
    node, vehicle, maps, spin_until = running
    # The first images may overtake their CameraInfo; a later set has everything.
    stamps = []
    while not maps:
        stamps.append(vehicle.publish_set(len(stamps)))
        closed = node._account.num_received
        spin_until(lambda closed=closed: node._account.num_received > closed)
        spin_until(lambda: node._worker.is_idle)
        spin_until(lambda: len(maps) == node._account.num_mapped)
        assert len(stamps) < 10, node._status.set_error
    message = maps[0]
    assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec in stamps
    assert message.header.frame_id == 'base_link'
    assert node._parts.pose.fixed_frame == 'odom'
    statuses = {status.name: status for status in node._status.statuses(node._parts)}
    assert statuses['pose'].values['source'].startswith('odometry topic')
    # What the network gets is rectified.
    assert all(
        camera.distortion_model == 'none' for camera in node._parts.builder._placed.values()
    )


def test_reset_service_drops_what_is_open_and_answers(running: Any) -> None:
    from std_srvs.srv import Trigger

    node, vehicle, _, spin_until = running
    client = vehicle.node.create_client(Trigger, '/mapping/reset')
    spin_until(client.service_is_ready)
    node._on_image(CAMERAS[0], START_NS + 500 * PERIOD_NS, None)
    assert node._parts.sync.num_open == 1
    dropped = int(str(node._account.values()['sets_dropped']))
    answer = client.call_async(Trigger.Request())
    spin_until(answer.done)
    assert answer.result().success
    assert node._parts.sync.num_open == 0
    values = node._account.values()
    assert values['sets_dropped'] == dropped + 1
    assert values['sets_in_flight'] == 0
