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
from gsmap_core.runtime.predictor import Predictor

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
        #: How far all poses are off to the side.
        self.shift_m = 0.0
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
            pose.position.y += self.shift_m
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

    weights: Path = write_micro_checkpoint(
        tmp_path_factory.mktemp('raw') / 'micro.safetensors', 'keyframe_streaming'
    )
    given = {
        'model.weights': str(weights),
        'cameras': list(CAMERAS),
        'image_transport': 'raw',
        'images_rectified': False,
        'pose_source': 'odometry',
        'score_threshold': 0.0,
        'tf.timeout_s': 2.0,
        'max_gap_s': 1.0,
        'max_pose_jump_m': 3.0,
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


def drive_on(running: Any, first: int, count: int) -> list[Any]:
    """Publish sets and return their maps; each is mapped before the next one comes."""
    node, vehicle, maps, spin_until = running
    before = len(maps)
    for index in range(first, first + count):
        expected = len(maps) + 1
        vehicle.publish_set(index)
        spin_until(lambda expected=expected: len(maps) == expected)
    return maps[before:]


def memory_values(node: Any) -> dict[str, Any]:
    statuses = node._status.statuses(node._parts, node._reset_reason)
    return next(status.values for status in statuses if status.name == 'memory')


def test_memory_and_ids_go_on_with_the_drive(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node maps as a predictor does offline that is given the same frames in a row."""
    node, _, _, _ = running
    mapper, frames = node._parts.mapper, []
    predict = mapper.predict
    monkeypatch.setattr(mapper, 'predict', lambda frame: frames.append(frame) or predict(frame))
    node._parts.predictor.reset()
    maps = drive_on(running, 20, 9)
    for index, frame in enumerate(frames):
        np.testing.assert_allclose(
            frame.map_from_base, pose_at(START_NS + (20 + index) * PERIOD_NS), atol=1e-3
        )
    offline = Predictor(node._parts.predictor.path, device='cpu')
    for frame, message in zip(frames, maps, strict=True):
        expected = offline.predict(frame)
        for element, given in zip(expected.elements, message.elements, strict=True):
            vertices = np.array([[p.x, p.y] for p in given.vertices])
            np.testing.assert_allclose(vertices, element.vertices, atol=1e-3)
    values = memory_values(node)
    assert (values['memory'], values['frames']) == ('keyframe_streaming', 9)
    assert float(values['travelled_m']) == pytest.approx(6.4, abs=0.2)
    assert values['key_frames'] == offline.stream_status.num_key_frames == 2
    ids = [[element.id for element in message.elements] for message in maps]
    for numbers in ids:
        assert len(set(numbers)) == len(numbers) and min(numbers) > 0
    for earlier, later in zip(ids[:-1], ids[1:], strict=True):
        assert set(earlier) & set(later)


def test_time_that_goes_back_drops_memory_and_ids(running: Any) -> None:
    node, vehicle, maps, spin_until = running
    given, received = memory_values(node)['ids_given'], node._account.num_received
    # The poses of the first set may come before the images that tell of the jump, and go with it.
    for index in (4, 5):
        vehicle.publish_set(index)
        spin_until(lambda index=index: node._account.num_received == received + index - 3)
        spin_until(lambda: node._worker.is_idle)
    spin_until(lambda: len(maps) == node._account.num_mapped)
    assert maps[-1].header.stamp.nanosec == 500_000_000
    assert min(element.id for element in maps[-1].elements) > given
    assert memory_values(node)['last_reset'] == 'clock_jump'


def test_gaps_and_jumps_beyond_the_parameters_drop_memory_and_ids(running: Any) -> None:
    node, vehicle, _, _ = running
    steps = ((14, ''), (25, 'gap'), (26, ''), (27, 'pose_jump'), (28, ''))
    for index, reason in steps:
        if reason == 'pose_jump':
            vehicle.shift_m = 5.0
        before = memory_values(node)
        (message,) = drive_on(running, index, 1)
        after = memory_values(node)
        assert after['resets'] == before['resets'] + bool(reason), index
        is_new = min(element.id for element in message.elements) > before['ids_given']
        assert is_new == bool(reason), index
        if reason:
            assert after['last_reset'] == reason
            stamp_s = (START_NS + index * PERIOD_NS) / 1e9
            assert after['last_reset_stamp_s'] == f'{stamp_s:.3f}'


def test_another_fixed_frame_is_another_place(running: Any) -> None:
    """Localisation came up: poses of the odom frame say nothing about those of the map frame."""
    node = running[0]
    before = memory_values(node)
    node._fixed_frame = 'map'
    drive_on(running, 29, 1)
    after = memory_values(node)
    assert (after['resets'], after['last_reset']) == (before['resets'] + 1, 'pose_jump')


def test_ids_can_be_switched_off(running: Any) -> None:
    from rclpy.parameter import Parameter

    node = running[0]
    for is_on in (False, True):
        (result,) = node.set_parameters([Parameter('identity.enabled', value=is_on)])
        assert result.successful
        (message,) = drive_on(running, 30 + is_on, 1)
        assert all((element.id > 0) == is_on for element in message.elements)
        assert memory_values(node)['ids'] == ('on' if is_on else 'off')


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
    memory = memory_values(node)
    assert memory['pending_reset'] == 'requested'
    (message,) = drive_on(running, 501, 1)
    assert min(element.id for element in message.elements) > memory['ids_given']
    after = memory_values(node)
    assert (after['pending_reset'], after['last_reset'], after['frames']) == ('', 'requested', 1)
    assert after['resets'] == memory['resets'] + 1
