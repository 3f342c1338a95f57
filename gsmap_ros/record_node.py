#!/usr/bin/env python3
"""The record node: writes topics into a bag until SIGINT or SIGTERM.

The bag appears under its name when it is complete.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from gsmap_core.data.bag import BagRecorder, QosProfile
from gsmap_core.errors import ConfigError
from gsmap_ros.message_types import message_class, qos_profile
from gsmap_ros.node_main import forward_library_logs, run_node
from gsmap_ros.parameters import RECORD_PARAMETERS, NodeParameters

_LOOK_S = 0.1
_DEPTH = 100


class RecordNode(Node):
    """Subscribes each topic as soon as somebody publishes it, with the publisher's QoS."""

    #: Messages on their way when the signal comes belong into the bag.
    drains = True
    exit_code: int | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__('record', automatically_declare_parameters_from_overrides=True, **options)
        forward_library_logs(self.get_logger())
        self._values = NodeParameters(self, RECORD_PARAMETERS)
        for name in self._values.unknown:
            self.get_logger().warning(f"parameter '{name}' is unknown and has no effect")
        self._values.require_valid()
        topics = self._values.texts('topics')
        if not self._values['output'] or not topics:
            raise ConfigError("parameters 'output' and 'topics' are needed; one of them is empty")
        self._values.is_configured = True
        self._missing = [self.resolve_topic_name(name) for name in topics]
        self._counts = dict.fromkeys(self._missing, 0)
        # Before the first /clock there is no time to write down.
        self._without_time: list[tuple[str, bytes]] = []
        self._recorder = BagRecorder(self._values['output'])
        self._started_s, self._has_warned = time.monotonic(), False
        self._look_timer = self.create_timer(
            _LOOK_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def _look(self) -> None:
        """Subscribe the topics that have appeared."""
        types = dict(self.get_topic_names_and_types())
        for topic in [name for name in self._missing if name in types]:
            publishers = self.get_publishers_info_by_topic(topic)
            if not publishers:
                continue
            kind = types[topic][0]
            profiles = [info.qos_profile for info in publishers]
            is_reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles)
            is_latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
            qos = QosProfile(
                'reliable' if is_reliable else 'best_effort',
                'transient_local' if is_latched else 'volatile',
                'keep_last',
                _DEPTH,
            )
            self._recorder.add_topic(topic, kind, qos)
            self.create_subscription(
                message_class(kind),
                topic,
                lambda data, topic=topic: self._write(topic, data),
                qos_profile(qos.reliability, qos.durability, qos.history, qos.depth),
                raw=True,
            )
            self._missing.remove(topic)
            self.get_logger().info(f"recording '{topic}' ({kind})")
        if not self._missing:
            self._look_timer.cancel()
        elif not self._has_warned:
            if time.monotonic() - self._started_s > self._values['wait_timeout_s']:
                self._has_warned = True
                self.get_logger().warning(
                    f'nobody publishes {", ".join(self._missing)} yet; still waiting'
                )

    def _write(self, topic: str, data: bytes) -> None:
        self._counts[topic] += 1
        now_ns = int(self.get_clock().now().nanoseconds)
        if now_ns == 0:
            self._without_time.append((topic, data))
            return
        self._write_waiting(now_ns)
        self._recorder.write(topic, now_ns, data)

    def _write_waiting(self, now_ns: int) -> None:
        for topic, data in self._without_time:
            self._recorder.write(topic, now_ns, data)
        self._without_time.clear()

    def finish(self) -> None:
        """Complete the bag."""
        self._write_waiting(int(self.get_clock().now().nanoseconds))
        summary = self._recorder.close()
        counts = ', '.join(f'{name} {count}' for name, count in self._counts.items())
        self.get_logger().info(f"wrote '{summary.path}': {counts}")


def main() -> None:
    """Record until SIGINT or SIGTERM."""
    sys.exit(run_node(RecordNode))


if __name__ == '__main__':
    main()
