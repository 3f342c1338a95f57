#!/usr/bin/env python3
"""The replay node: plays a bag on its own topics with the recorded QoS, and `/clock`.

It can wait until a lifecycle node is active. The recorded bytes are published as they are. The
process ends with code 0 when the bag is over.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.duration import Duration
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from gsmap_core.data.bag import BagReader, QosProfile
from gsmap_core.errors import ConfigError, EnvironmentProblemError, GsmapError
from gsmap_ros.conversions import ns_to_stamp
from gsmap_ros.message_types import message_class, qos_profile
from gsmap_ros.node_main import forward_library_logs, run_node
from gsmap_ros.parameters import REPLAY_PARAMETERS, NodeParameters
from gsmap_ros.restamp import Restamper

_IMAGE_TYPES = ('sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image')
#: Subscribers are complete when their number has not changed for so long; discovery takes about a
#: second.
_SETTLE_S = 1.0
_PROGRESS_S = 5.0


class ReplayNode(Node):
    """See the module. Playing happens in a thread: waiting and sleeping block no callback."""

    #: Nothing is under way towards this node.
    drains = False

    def __init__(self, **options: Any) -> None:
        super().__init__('replay', automatically_declare_parameters_from_overrides=True, **options)
        forward_library_logs(self.get_logger())
        self._values = NodeParameters(self, REPLAY_PARAMETERS)
        for name in self._values.unknown:
            self.get_logger().warning(f"parameter '{name}' is unknown and has no effect")
        self._values.require_valid()
        if not self._values['bag']:
            raise ConfigError("parameter 'bag' is empty; expected the path of a bag")
        self._values.is_configured = True
        self.exit_code: int | None = None
        self._stop = threading.Event()
        self._bag = BagReader(self._values['bag'])
        self._clock_publisher = self.create_publisher(Clock, '/clock', 10)
        self._bag_publishers = self._make_publishers()
        self._thread = threading.Thread(target=self._run, name='replay', daemon=True)
        self._thread.start()

    def _make_publishers(self) -> dict[str, Any]:
        """Create a publisher for every topic of the bag whose type is installed."""
        wanted = self._values.texts('topics') or tuple(self._bag.topics)
        result: dict[str, Any] = {}
        for name in wanted:
            if name not in self._bag.topics:
                raise ConfigError(
                    f"parameter 'topics' has '{name}'; the bag has {', '.join(self._bag.topics)}"
                )
            if name == '/clock':
                continue
            info = self._bag.topics[name]
            try:
                kind = message_class(info.type)
            except EnvironmentProblemError as error:
                self.get_logger().warning(f"topic '{name}' is left out: {error}")
                continue
            qos = info.qos or QosProfile()
            depth = (
                max(qos.depth, info.count) if qos.durability == 'transient_local' else qos.depth
            )
            profile = qos_profile(qos.reliability, qos.durability, qos.history, depth)
            result[name] = self.create_publisher(kind, name, profile)
        if not result:
            raise ConfigError(f"bag '{self._bag.path}' has no topic that can be played")
        return result

    def _run(self) -> None:
        """Wait, play, drain (in the thread)."""
        code = 1
        try:
            self._wait_for_node()
            self._wait_for_subscribers()
            while not self._stop.is_set():
                self._play()
                if not self._values['loop'] or self._stop.is_set():
                    break
                self.get_logger().info('bag is over, beginning again')
            for publisher in self._bag_publishers.values():
                publisher.wait_for_all_acked(Duration(nanoseconds=500_000_000))
            code = 0
        except GsmapError as error:
            self.get_logger().error(str(error))
        except Exception as error:
            if not self._stop.is_set():
                self.get_logger().error(f'replay failed: {error!r}')
        finally:
            self.exit_code = code

    def _wait_for_node(self) -> None:
        """Block until the lifecycle node is active.

        Raises:
            EnvironmentProblemError: it is not within the time.
        """
        name = self._values['wait_for_node']
        if not name:
            return
        client: Any = self.create_client(GetState, f'{name}/get_state')
        timeout_s = self._values['wait_timeout_s']
        end_s = time.monotonic() + timeout_s
        found = 'not found'
        self.get_logger().info(f"waiting for node '{name}' to become active")
        while not self._stop.is_set():
            if client.service_is_ready():
                state = self._state_of(client)
                if state is not None and state.id == State.PRIMARY_STATE_ACTIVE:
                    return
                # It answers when it has loaded its weights.
                found = 'not answering' if state is None else state.label
            if time.monotonic() > end_s:
                raise EnvironmentProblemError(
                    f"node '{name}' is {found} after {timeout_s:g} s; expected active: see its "
                    'log, or raise wait_timeout_s'
                )
            self._stop.wait(0.1)

    @staticmethod
    def _state_of(client: Any) -> Any | None:
        """Ask a lifecycle node for its state; None if it does not answer within a second."""
        done = threading.Event()
        answer = client.call_async(GetState.Request())
        answer.add_done_callback(lambda _: done.set())
        if not done.wait(1.0):
            client.remove_pending_request(answer)
            return None
        return answer.result().current_state

    def _wait_for_subscribers(self) -> None:
        """Block until the subscribers are discovered: what is published earlier would be lost.

        Raises:
            EnvironmentProblemError: a topic of `wait_for_topics` has none within the time.
        """
        required = self._values.texts('wait_for_topics')
        unknown = [name for name in required if name not in self._bag_publishers]
        if unknown:
            raise ConfigError(
                f"parameter 'wait_for_topics' has {', '.join(unknown)}, which are not played"
            )
        images = [n for n in self._bag_publishers if self._bag.topics[n].type in _IMAGE_TYPES]
        start_s = time.monotonic()
        counts: list[int] = []
        while not self._stop.is_set():
            now = [p.get_subscription_count() for p in self._bag_publishers.values()]
            if now != counts:
                counts, since_s = now, time.monotonic()
            missing = [n for n in required if not self._bag_publishers[n].get_subscription_count()]
            if self._values['wait_for_node'] and images and not required:
                if not any(self._bag_publishers[n].get_subscription_count() for n in images):
                    missing = images
            if not missing and time.monotonic() - since_s >= _SETTLE_S:
                return
            if time.monotonic() - start_s > self._values['wait_timeout_s'] + _SETTLE_S:
                raise EnvironmentProblemError(
                    f'nobody subscribed {", ".join(missing)} within '
                    f'{self._values["wait_timeout_s"]:g} s; start the subscriber or check its '
                    f'remappings'
                )
            self._stop.wait(0.05)

    def _play(self) -> None:
        """Publish every message at its time, and the clock in between."""
        rate, tick_ns = self._values['rate'], round(1e9 / self._values['clock_hz'])
        origin_ns: int | None = None
        restamper: Restamper | None = None
        start_s = clock_ns = last_ns = 0.0
        count, progress_s = 0, time.monotonic() + _PROGRESS_S

        def wait_until(stamp_ns: float) -> bool:
            assert origin_ns is not None
            due_s = start_s + (stamp_ns - origin_ns) / 1e9 / rate
            remaining = due_s - time.monotonic()
            return not self._stop.wait(remaining) if remaining > 0 else not self._stop.is_set()

        def run_clock(until_ns: float) -> bool:
            nonlocal clock_ns
            while clock_ns <= until_ns:
                if not wait_until(clock_ns):
                    return False
                self._publish_clock(clock_ns)
                clock_ns += tick_ns
            return wait_until(until_ns)

        for message in self._bag.messages(list(self._bag_publishers)):
            if origin_ns is None:
                origin_ns, clock_ns, start_s = (
                    message.log_time_ns,
                    message.log_time_ns,
                    time.monotonic(),
                )
                if self._values['live']:
                    restamper = self._restamper(origin_ns)
                self.get_logger().info(
                    f"playing '{self._bag.path}' at rate {rate:g}: {len(self._bag_publishers)} "
                    f'topics'
                )
            if not run_clock(message.log_time_ns):
                return
            publisher, data = self._bag_publishers[message.topic], message.data
            if restamper is not None:
                data = restamper.restamp(bytes(data), publisher.msg_type)
            publisher.publish(data)
            count, last_ns = count + 1, message.log_time_ns
            if time.monotonic() > progress_s:
                progress_s = time.monotonic() + _PROGRESS_S
                self.get_logger().info(f'{(last_ns - origin_ns) / 1e9:.1f} s played')
        if origin_ns is None:
            raise ConfigError(f"bag '{self._bag.path}' has no message on the topics to play")
        run_clock(last_ns + self._values['drain_s'] * 1e9)
        self.get_logger().info(f'played {count} messages, {(last_ns - origin_ns) / 1e9:.1f} s')

    def _restamper(self, origin_ns: int) -> Restamper:
        """Return what moves the stamp `origin_ns` to this moment, and the others with the rate."""
        start_ns, rate = time.time_ns(), self._values['rate']
        return Restamper(lambda stamp_ns: start_ns + int((stamp_ns - origin_ns) / rate))

    def _publish_clock(self, stamp_ns: float) -> None:
        if self._values['live']:
            return
        self._clock_publisher.publish(Clock(clock=ns_to_stamp(int(stamp_ns))))

    def finish(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(5.0)
        if self.exit_code is None:
            self.exit_code = 1
        self._bag.close()


def main() -> None:
    """Play the bag until its end, SIGINT or SIGTERM."""
    sys.exit(run_node(ReplayNode))


if __name__ == '__main__':
    main()
