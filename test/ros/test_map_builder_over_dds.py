"""The map builder in a process of its own, fed from this one: latched, saved, killed, resumed."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.noisy_streets import NoisyStreet
from ros.conftest import isolated

from gsmap_core.cli.node_processes import NodeGroup, NodeProcess
from gsmap_core.mapfile import read_map_file
from gsmap_core.mapping.export import fused_map_of
from gsmap_core.structures import FloatArray, VectorMap

PATIENCE_S = 90.0
PARAMETERS = {
    'publish.period_s': 0.1,
    'tf.timeout_s': 3.0,
    'fusion.confirm_observations': 2,
    'fusion.decorrelation_m': 0.0,
}


class Driver:
    """This process's side: publishes local maps and TF, hears the fused map, calls services."""

    def __init__(self, domain_id: int) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from gsmap_ros.msg import MapElementArray
        from rclpy.executors import SingleThreadedExecutor
        from tf2_msgs.msg import TFMessage

        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node('driver', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.local_maps = self.node.create_publisher(MapElementArray, '/mapping/local_map', 10)
        self.transforms = self.node.create_publisher(TFMessage, '/tf', 100)
        self.diagnostics: dict[str, dict[str, str]] = {}
        #: What the node's clock said with the last diagnostics [ns].
        self.clock_ns = 0
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_diagnostics(self, message: Any) -> None:
        from gsmap_ros.conversions import stamp_to_ns

        self.clock_ns = stamp_to_ns(message.header.stamp)
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            name = status.name.removeprefix('map_builder: ')
            self.diagnostics[name] = {**values, 'text': status.message}

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Spin until something is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f'{what}; diagnostics: {self.diagnostics}'
            self.executor.spin_once(timeout_sec=0.05)

    def listen(self, kind: Any, topic: str) -> list[Any]:
        """Subscribe like RViz: reliable, transient local, depth 1; returns what will come."""
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        heard: list[Any] = []
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self.node.create_subscription(kind, topic, heard.append, latched)
        return heard

    def call(self, name: str) -> Any:
        """Call a Trigger service of the map builder."""
        from std_srvs.srv import Trigger

        return self._ask(Trigger, f'/map_builder/{name}', Trigger.Request())

    def set_text(self, name: str, value: str) -> None:
        """Set a text parameter."""
        from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
        from rcl_interfaces.srv import SetParameters

        text = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=text)])
        (result,) = self._ask(SetParameters, '/map_builder/set_parameters', request).results
        assert result.successful, result.reason

    def _ask(self, kind: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, f'{name} is not there')
        future = client.call_async(request)
        self.until(future.done, f'{name} does not answer')
        self.node.destroy_client(client)
        return future.result()

    def drive(self, frames: list[VectorMap], start_ns: int) -> None:
        """Publish local maps with their poses, each when the one before was taken."""
        for index, frame in enumerate(frames):
            self.send(frame, start_ns + index * 100_000_000)

    def send(self, frame: VectorMap, stamp_ns: int, frame_id: str = 'base_link') -> None:
        """Publish one local map, with the ego pose around its stamp, and wait for its end."""
        assert frame.map_from_base is not None
        # Both sides must know of each other: what is sent before is lost.
        for publisher in (self.local_maps, self.transforms):
            self.until(publisher.get_subscription_count, f'nobody hears {publisher.topic_name}')
        for offset_ns in (-50_000_000, 0, 50_000_000):
            self.transforms.publish(tf_message(frame.map_from_base, stamp_ns + offset_ns))
        self.send_map(frame, stamp_ns, frame_id)

    def send_map(self, frame: VectorMap, stamp_ns: int, frame_id: str = 'base_link') -> None:
        """Publish one local map and wait for its end."""
        from dataclasses import replace

        from gsmap_ros.conversions import local_map_to_message

        before = self.finished()
        self.local_maps.publish(local_map_to_message(replace(frame, stamp_ns=stamp_ns), frame_id))
        self.until(lambda: self.finished() > before, 'the local map was not taken')

    def finished(self) -> int:
        values = self.diagnostics.get('local maps', {})
        return int(values.get('maps_fused', 0)) + int(values.get('maps_dropped', 0))

    def close(self) -> None:
        import rclpy

        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def tf_message(pose: FloatArray, stamp_ns: int) -> Any:
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    from gsmap_core.geometry.transforms import matrix_to_quaternion
    from gsmap_ros.conversions import ns_to_stamp

    item = TransformStamped()
    item.header.frame_id, item.child_frame_id = 'map', 'base_link'
    item.header.stamp = ns_to_stamp(stamp_ns)
    shift, turn = item.transform.translation, item.transform.rotation
    shift.x, shift.y, shift.z = pose[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = matrix_to_quaternion(pose[:3, :3]).tolist()
    return TFMessage(transforms=[item])


@pytest.fixture
def environment(ros_messages: None) -> dict[str, str]:
    from gsmap_core.cli.ros_environment import overlay_environment

    return isolated(overlay_environment())


@pytest.fixture
def driver(environment: dict[str, str]) -> Iterator[Driver]:
    before = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE')
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    result = Driver(int(environment['ROS_DOMAIN_ID']))
    yield result
    result.close()
    if before is not None:
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = before


def start(group: NodeGroup, folder: Path, environment: dict[str, str]) -> NodeProcess:
    folder.mkdir(exist_ok=True)
    values = {**PARAMETERS, 'map.directory': str(folder / 'map')}
    return group.start(NodeProcess('map_builder', values, environment, folder))


def test_fused_latched_saved_killed_and_resumed(
    driver: Driver, environment: dict[str, str], tmp_path: Path
) -> None:
    from gsmap_ros.msg import VectorMap as VectorMapMessage
    from visualization_msgs.msg import MarkerArray

    street = NoisyStreet(length_m=12.0, step_m=4.0)
    frames = list(street.frames())
    start_ns = time.time_ns() - 10_000_000_000
    with NodeGroup() as group:
        builder = start(group, tmp_path, environment)
        maps = driver.listen(VectorMapMessage, '/map_builder/map')
        driver.until(lambda: maps, 'an empty map is published first')
        assert maps[0].revision == 0 and not maps[0].elements
        driver.drive(frames, start_ns)
        driver.until(lambda: len(maps[-1].elements) == 3, 'two kerbs and a divider')
        last = maps[-1]
        assert last.header.frame_id == 'map' and last.revision >= 1
        assert sorted(e.category for e in last.elements) == [0, 2, 2]
        for element in last.elements:
            assert element.num_observations >= 2 and 0 < element.score < 1
            assert len(element.covariance) == 3 * len(element.vertices) > 60
        # Who comes late hears the same, markers included, without anything new happening.
        late = driver.listen(VectorMapMessage, '/map_builder/map')
        markers = driver.listen(MarkerArray, '/map_builder/map_markers')
        driver.until(lambda: late and markers, 'the latched map')
        assert late[0].revision >= last.revision
        drawn = [m for m in markers[-1].markers if m.action == 0]
        assert {(m.ns, m.id) for m in drawn} == {
            ({0: 'divider', 2: 'boundary'}[e.category], e.id) for e in last.elements
        }
        assert all(m.lifetime.sec == 0 and not m.frame_locked for m in drawn)

        # Messages that are no maps are counted and named; the next good one is fused.
        driver.send(frames[-1], start_ns + 2_000_000_000, frame_id='laser')
        assert driver.diagnostics['local maps']['maps_dropped.bad_message'] == '1'
        assert "frame 'laser'" in driver.diagnostics['local maps']['last_error']
        driver.send(frames[-1], start_ns + 2_100_000_000)
        assert driver.diagnostics['local maps']['maps_fused'] == '4'

        answer = driver.call('save_map')
        assert answer.success and answer.message.startswith('saved 3 elements')
        saved = fused_map_of(read_map_file(tmp_path / 'map' / 'map.map.json'))
        assert saved is not None and len(saved) == 3
        driver.set_text('map.file', '../stolen.map.json')
        for name in ('save_map', 'load_map'):
            answer = driver.call(name)
            assert not answer.success and 'must lie inside map.directory' in answer.message
        assert not (tmp_path / 'stolen.map.json').exists()

        # Killed without a word; what was published is there again before any input.
        driver.until(lambda: maps[-1].revision > last.revision, 'the map after the last message')
        published = {e.id: len(e.vertices) for e in maps[-1].elements}
        os.kill(builder._process.pid, 9)
        builder._process.wait()
        group._processes.remove(builder)
        resumed = driver.listen(VectorMapMessage, '/map_builder/map')
        builder = start(group, tmp_path, environment)
        driver.until(lambda: resumed and resumed[-1].elements, 'the map of before')
        assert {e.id for e in resumed[-1].elements} == set(published)

        assert driver.call('reset').success
        driver.until(lambda: not resumed[-1].elements, 'an empty map')
        assert resumed[-1].revision == 0
        answer = driver.call('load_map')
        assert answer.success, answer.message
        driver.until(lambda: len(resumed[-1].elements) == 3, 'the saved map')
        assert builder.stop() == 0, builder.log_tail()


def test_without_localisation_it_refuses_and_says_why(
    driver: Driver, environment: dict[str, str], tmp_path: Path
) -> None:
    """Odometry alone is no ground for a map that stays; time that goes back begins a submap."""
    frame = NoisyStreet().frame(0.0, 0)
    with NodeGroup() as group:
        folder = tmp_path
        values = {**PARAMETERS, 'map.directory': str(folder / 'map'), 'tf.timeout_s': 0.05}
        builder = group.start(NodeProcess('map_builder', values, environment, folder))
        driver.until(
            lambda: 'no local map yet' in driver.diagnostics.get('local maps', {}).get('text', ''),
            'the node is active',
        )
        from gsmap_ros.conversions import local_map_to_message

        start_ns = time.time_ns()

        def publish() -> bool:
            driver.local_maps.publish(
                local_map_to_message(
                    VectorMap(frame.elements, time.time_ns(), frame.range), 'base_link'
                )
            )
            return 'maps_dropped.no_transform' in driver.diagnostics['local maps']

        driver.until(publish, 'a local map without pose is dropped')
        assert 'needs localisation' in driver.diagnostics['local maps']['last_error']
        driver.send(frame, start_ns + 60_000_000_000)
        driver.until(
            lambda: driver.diagnostics['local maps'].get('maps_fused') == '1', 'a pose came'
        )
        # The bag loops: 30 s back.
        # The jump clears the transforms, perhaps the first of the new time with the old ones.
        loops = itertools.count(start_ns + 30_000_000_000, 100_000_000)

        def drive_on() -> bool:
            driver.send(frame, next(loops))
            return driver.diagnostics['map']['submaps'] == '2'

        driver.until(drive_on, 'a second submap')
        assert builder.stop() == 0, builder.log_tail()
        assert 'time went back' in builder.log_text()


def test_after_the_clock_went_back_late_maps_of_the_old_time_cost_nothing(
    driver: Driver, environment: dict[str, str], tmp_path: Path
) -> None:
    """Transforms of the new time stay when an old map is followed by the first new one."""
    from rosgraph_msgs.msg import Clock

    from gsmap_ros.conversions import ns_to_stamp

    frame, old_ns, new_ns = NoisyStreet().frame(0.0, 0), 160_000_000_000, 130_000_000_000
    clock = driver.node.create_publisher(Clock, '/clock', 10)
    with NodeGroup() as group:
        values = {**PARAMETERS, 'map.directory': str(tmp_path / 'map'), 'tf.timeout_s': 0.5}
        builder = group.start(
            NodeProcess('map_builder', {**values, 'use_sim_time': True}, environment, tmp_path)
        )

        def is_at(stamp_ns: int) -> bool:
            # The first ones are lost where only one side knows of the other yet.
            clock.publish(Clock(clock=ns_to_stamp(stamp_ns)))
            return driver.clock_ns == stamp_ns

        driver.until(lambda: is_at(old_ns), 'the node hears /clock')
        driver.send(frame, old_ns)
        assert driver.diagnostics['local maps']['maps_fused'] == '1', builder.log_tail()
        driver.until(lambda: is_at(new_ns), 'the clock went back')
        driver.until(lambda: 'time went back' in builder.log_text(), 'the jump')
        # A map of the old time comes late, together with the poses of the new time.
        assert frame.map_from_base is not None
        for offset_ns in (-50_000_000, 0, 50_000_000):
            driver.transforms.publish(tf_message(frame.map_from_base, new_ns + offset_ns))
        driver.send_map(frame, old_ns + 500_000_000)
        assert driver.diagnostics['local maps']['maps_dropped'] == '1'
        # Longer than signs of one jump may lie apart.
        time.sleep(2.5)
        driver.send_map(frame, new_ns)
        assert driver.diagnostics['local maps']['maps_fused'] == '2', builder.log_tail()
        assert builder.stop() == 0, builder.log_tail()


def test_a_folder_in_use_is_refused(
    driver: Driver, environment: dict[str, str], tmp_path: Path
) -> None:
    from gsmap_core.mapping.global_map import GlobalMap

    held = GlobalMap(folder=tmp_path / 'map' / 'tiles')
    with NodeGroup() as group:
        builder = start(group, tmp_path, environment)
        driver.until(lambda: driver.diagnostics.get('local maps'), 'diagnostics')
        driver.until(
            lambda: 'in use by another' in driver.diagnostics['local maps']['text'], 'the reason'
        )
        held.close()
        assert builder.stop() == 0
