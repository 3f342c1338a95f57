"""A vehicle whose parts fail on request: publishes sensors, TF and time, and hears the node.

It lives in the process of the test, the node in one of its own. The clock belongs to the vehicle:
it stands still until the test moves it, so that no time limit of the node depends on how busy the
machine is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ros.helpers.drives import START_NS, pose_at

from gsmap_core.geometry.transforms import matrix_to_quaternion
from gsmap_core.rig import load_rig, scaled_rig

RIG = scaled_rig(load_rig('nuscenes_like'), 96)
CAMERAS = RIG.names
PERIOD_NS = 200_000_000
MS = 1_000_000
#: How long anything may take on a machine that is busy with other things.
PATIENCE_S = 120.0

#: Gets camera, image and CameraInfo before they are published; may change them.
Change = Callable[[str, Any, Any], None]
#: Level, message and values of each status.
Diagnostics = dict[str, tuple[int, str, dict[str, str]]]


def node_parameters(weights: Path) -> dict[str, Any]:
    """Return parameters of a mapping node on this vehicle."""
    return {
        'model.weights': str(weights),
        'cameras': list(CAMERAS),
        'use_sim_time': True,
        'image_reliability': 'reliable',
        'score_threshold': 0.0,
    }


def picture(seed: int, height_px: int, width_px: int) -> np.ndarray:
    """Blocks of noise: small as a JPEG, and no two alike."""
    blocks = np.random.default_rng(seed).integers(0, 255, (height_px // 6, width_px // 6, 3))
    return np.asarray(cv2.resize(blocks.astype(np.uint8), (width_px, height_px)))


def set_header(header: Any, stamp_ns: int, frame_id: str) -> None:
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 10**9)
    header.frame_id = frame_id


def transform(parent: str, child: str, stamp_ns: int, matrix: np.ndarray) -> Any:
    """Build a `TransformStamped`."""
    from geometry_msgs.msg import TransformStamped

    item = TransformStamped(child_frame_id=child)
    set_header(item.header, stamp_ns, parent)
    shift, turn = item.transform.translation, item.transform.rotation
    shift.x, shift.y, shift.z = matrix[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = matrix_to_quaternion(matrix[:3, :3]).tolist()
    return item


class Vehicle:
    """See the module.

    Args:
        node_name: of the mapping node.
    """

    def __init__(self, node_name: str = 'mapping') -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from gsmap_ros.msg import MapElementArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from rosgraph_msgs.msg import Clock
        from tf2_msgs.msg import TFMessage
        from visualization_msgs.msg import MarkerArray

        self.node = Node('vehicle')
        self.name = node_name
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.clock = self.node.create_publisher(Clock, '/clock', 10)
        self.tf = self.node.create_publisher(TFMessage, '/tf', 100)
        self.tf_static = self.node.create_publisher(TFMessage, '/tf_static', latched)
        self.images: dict[str, Any] = {}
        self.infos: dict[str, Any] = {}
        self.transport = 'compressed'
        self.maps: list[Any] = []
        self.markers: list[Any] = []
        self._diagnostics: list[Diagnostics] = []
        for kind, topic, take in (
            (MapElementArray, f'{node_name}/local_map', self.maps.append),
            (MarkerArray, f'{node_name}/local_map_markers', self.markers.append),
            (DiagnosticArray, '/diagnostics', self._take_diagnostics),
        ):
            self.node.create_subscription(kind, topic, take, 100)
        self._clients: dict[str, Any] = {}
        self.index, self.now_ns = 0, START_NS
        #: How far the poses are off to the side [m].
        self.shift_m = 0.0
        self.publish_static()
        self.make_cameras()

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()

    def make_cameras(self, transport: str = 'compressed', best_effort: Iterable[str] = ()) -> None:
        """Create the publishers of the cameras, some of them best effort."""
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        for publisher in (*self.images.values(), *self.infos.values()):
            self.node.destroy_publisher(publisher)
        self.transport = transport
        kind, ending = (Image, '') if transport == 'raw' else (CompressedImage, '/compressed')
        for name in CAMERAS:
            profile = QoSProfile(depth=10)
            if name in tuple(best_effort):
                profile.reliability = ReliabilityPolicy.BEST_EFFORT
            topic = f'{name}/image_rect{ending}'
            self.images[name] = self.node.create_publisher(kind, topic, profile)
            self.infos[name] = self.node.create_publisher(
                CameraInfo, f'{name}/camera_info', profile
            )

    # What the vehicle says

    def stamp_ns(self, index: int) -> int:
        return START_NS + index * PERIOD_NS

    def camera_stamp_ns(self, index: int, name: str) -> int:
        return self.stamp_ns(index) + 5 * MS * CAMERAS.index(name)

    def publish_static(self) -> None:
        """`map` to `odom`, and where the cameras are."""
        from tf2_msgs.msg import TFMessage

        items = [transform('map', 'odom', 0, np.eye(4))]
        items += [
            transform('base_link', RIG.camera(n).frame_id, 0, RIG.camera(n).base_from_camera)
            for n in CAMERAS
        ]
        self.tf_static.publish(TFMessage(transforms=items))

    def publish_poses(self, index: int, parent: str = 'odom') -> None:
        """TF from just before the moment until after its last image."""
        from tf2_msgs.msg import TFMessage

        items = []
        for shift_ms in (-20, 0, 20, 40):
            stamp_ns = self.stamp_ns(index) + shift_ms * MS
            pose = pose_at(stamp_ns)
            pose[1, 3] += self.shift_m
            items.append(transform(parent, 'base_link', stamp_ns, pose))
        self.tf.publish(TFMessage(transforms=items))

    def let_time_pass(self, seconds: float = 0.4) -> None:
        """Move the clock on, further than what is incomplete may wait."""
        self.now_ns += round(seconds * 1e9)
        self.publish_clock()

    def publish_clock(self) -> None:
        from builtin_interfaces.msg import Time
        from rosgraph_msgs.msg import Clock

        sec, nanosec = divmod(self.now_ns, 10**9)
        self.clock.publish(Clock(clock=Time(sec=sec, nanosec=nanosec)))

    def go_to(self, index: int) -> None:
        """Set index and clock: a bag that loops, or a leap."""
        self.index, self.now_ns = index, self.stamp_ns(index)

    def image(self, index: int, name: str) -> Any:
        from sensor_msgs.msg import CompressedImage, Image

        camera = RIG.camera(name)
        pixels = picture(index * 10 + CAMERAS.index(name), camera.height_px, camera.width_px)
        if self.transport == 'raw':
            message = Image(
                width=camera.width_px,
                height=camera.height_px,
                encoding='bgr8',
                step=3 * camera.width_px,
                data=pixels.tobytes(),
            )
        else:
            data = cv2.imencode('.jpg', pixels)[1].tobytes()
            message = CompressedImage(format='jpeg', data=data)
        set_header(message.header, self.camera_stamp_ns(index, name), camera.frame_id)
        return message

    def info(self, index: int, name: str) -> Any:
        from sensor_msgs.msg import CameraInfo

        camera = RIG.camera(name)
        matrix = np.hstack([camera.intrinsics, np.zeros((3, 1))])
        message = CameraInfo(
            width=camera.width_px,
            height=camera.height_px,
            distortion_model='plumb_bob',
            d=[0.0] * 5,
            k=camera.intrinsics.ravel(),
            p=matrix.ravel(),
        )
        set_header(message.header, self.camera_stamp_ns(index, name), camera.frame_id)
        return message

    def publish_set(
        self,
        without: Iterable[str] = (),
        change: Change | None = None,
        poses: bool = True,
        infos: bool = True,
        clock: bool = True,
    ) -> int:
        """Publish the next moment of the drive; returns its stamp [ns]."""
        index, self.index = self.index, self.index + 1
        missing = set(without)
        if poses:
            self.publish_poses(index)
        if clock:
            self.now_ns = max(self.now_ns, self.stamp_ns(index) + 30 * MS)
            self.publish_clock()
        for name in CAMERAS:
            if name in missing:
                continue
            image, info = self.image(index, name), self.info(index, name)
            if change is not None:
                change(name, image, info)
            if infos:
                self.infos[name].publish(info)
            self.images[name].publish(image)
        return self.stamp_ns(index)

    # What the node says

    def _take_diagnostics(self, array: Any) -> None:
        prefix = f'{self.name}: '
        statuses = [status for status in array.status if status.name.startswith(prefix)]
        if statuses:
            self._diagnostics.append(
                {
                    status.name.removeprefix(prefix): (
                        int.from_bytes(status.level, 'little'),
                        status.message,
                        {item.key: item.value for item in status.values},
                    )
                    for status in statuses
                }
            )

    def spin_until(
        self, condition: Callable[[], bool], what: str = '', each: Callable[[], Any] | None = None
    ) -> None:
        """Wait for something; `each` is called about twice a second meanwhile."""
        deadline, next_s = time.monotonic() + PATIENCE_S, 0.0
        while not condition():
            assert time.monotonic() < deadline, f'{what}: {self._diagnostics[-1:]}'
            if each is not None and time.monotonic() > next_s:
                each()
                next_s = time.monotonic() + 0.5
            self._executor.spin_once(timeout_sec=0.05)

    def stamps_ns(self) -> list[int]:
        """Stamps of the maps so far [ns]."""
        return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in self.maps]

    def map_at(self, stamp_ns: int) -> Any:
        """Wait for the map with a stamp, published since the last call of this kind."""
        self.spin_until(lambda: stamp_ns in self.stamps_ns(), f'map at {stamp_ns}')
        found = self.maps[self.stamps_ns().index(stamp_ns)]
        self.maps.clear()
        return found

    def good(self) -> Any:
        """Publish a moment without a fault; returns its map."""
        return self.map_at(self.publish_set())

    def until_mapped(self) -> None:
        """Publish good moments until one is mapped: everybody has found everybody."""
        self.maps.clear()
        first = self.index
        wanted: set[int] = set()
        self.spin_until(
            lambda: bool(wanted & set(self.stamps_ns())),
            'a first map',
            lambda: wanted.add(self.publish_set()),
        )
        assert self.index > first
        # What is under way settles: one more, alone.
        self.good()

    def diagnosed(self, condition: Callable[[Diagnostics], bool], what: str = '') -> Diagnostics:
        """Wait until the diagnostics say something, however often they said it before."""

        def is_true() -> bool:
            try:
                return bool(self._diagnostics) and condition(self._diagnostics[-1])
            except KeyError:
                return False

        self.spin_until(is_true, what or 'diagnostics')
        return self._diagnostics[-1]

    def latest(self) -> Diagnostics:
        """The last diagnostics, perhaps older than what has just happened."""
        return self.diagnosed(lambda d: True)

    def counters_now(self) -> dict[str, str]:
        """The last counters, perhaps older than what has just happened."""
        return self.latest()['camera sets'][2]

    def heard(self) -> dict[str, int]:
        """Images that the node has taken so far, by camera; perhaps a moment old."""
        latest = self.latest()
        return {name: int(latest[f'camera {name}'][2]['images']) for name in CAMERAS}

    def counters(self) -> dict[str, str]:
        """Wait for the counters of everything up to now, and for an account that is right."""
        self._diagnostics.clear()
        found = self.diagnosed(
            lambda d: d['camera sets'][2].get('sets_in_flight') == '0', 'account'
        )['camera sets'][2]
        dropped = sum(int(v) for k, v in found.items() if k.startswith('sets_dropped.'))
        assert int(found['sets_received']) == int(found['sets_mapped']) + dropped
        return found

    def counted(self, before: dict[str, str], **expected: int) -> dict[str, str]:
        """Wait until counters have grown by exactly so much."""

        def grown(values: dict[str, str]) -> dict[str, int]:
            return {
                k.replace('__', '.'): int(values.get(k.replace('__', '.'), 0))
                - int(before.get(k.replace('__', '.'), 0))
                for k in expected
            }

        wanted = {k.replace('__', '.'): v for k, v in expected.items()}
        try:
            self.diagnosed(lambda d: grown(d['camera sets'][2]) == wanted, f'{wanted}')
        except AssertionError as error:
            last = self._diagnostics[-1]['camera sets'][2] if self._diagnostics else {}
            raise AssertionError(f'{grown(last)} instead of {wanted}') from error
        return self.counters()

    # What the vehicle asks for

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """Call a service of the node and return its answer."""
        client = self._clients.get(service)
        if client is None:
            client = self.node.create_client(kind, f'{self.name}/{service}')
            self._clients[service] = client
        self.spin_until(client.service_is_ready, service)
        answer = client.call_async(request)
        self.spin_until(answer.done, service)
        return answer.result()

    def set_parameters(self, atomically: bool = False, **values: Any) -> list[Any]:
        """Set parameters (`__` stands for a dot); returns the results."""
        from rcl_interfaces.srv import SetParameters, SetParametersAtomically
        from rclpy.parameter import Parameter

        items = [
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        if atomically:
            request = SetParametersAtomically.Request(parameters=items)
            answer = self.call(SetParametersAtomically, 'set_parameters_atomically', request)
            return [answer.result]
        request = SetParameters.Request(parameters=items)
        return list(self.call(SetParameters, 'set_parameters', request).results)

    def transition(self, name: str) -> bool:
        """Trigger `configure`, `activate`, `deactivate` or `cleanup`; returns its success."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number = getattr(Transition, f'TRANSITION_{name.upper()}')
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call(ChangeState, 'change_state', request).success)

    def state(self) -> str:
        from lifecycle_msgs.srv import GetState

        return str(self.call(GetState, 'get_state', GetState.Request()).current_state.label)

    def reconfigure(self, **parameters: Any) -> None:
        """Go down to unconfigured, change parameters and come back; what was known is gone."""
        if self.state() == 'active':
            assert self.transition('deactivate')
        if self.state() == 'inactive':
            assert self.transition('cleanup')
        results = self.set_parameters(**parameters) if parameters else []
        assert all(result.successful for result in results), results
        assert self.transition('configure')
        assert self.transition('activate')
