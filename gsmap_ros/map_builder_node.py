#!/usr/bin/env python3
"""The map builder node: local maps and TF in, one persistent map of the drives out.

A lifecycle node like the mapping node. Callbacks are short; a worker thread waits for the ego pose
of a local map and fuses it. What is published is on disk: a node that is killed goes on with it.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from dataclasses import replace
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_srvs.srv import Trigger

from gsmap_core.errors import DataError, GsmapError, TransformError
from gsmap_ros.conversions import local_map_from_message, stamp_to_ns
from gsmap_ros.map_builder_parts import MapBuilderParts, ego_pose_at, make_builder_parts
from gsmap_ros.map_builder_status import MapBuilderStatus
from gsmap_ros.node_main import run_node
from gsmap_ros.parameters import MAP_BUILDER_PARAMETERS
from gsmap_ros.worker import NewestWinsWorker
from gsmap_ros.worker_node import WorkerNode

_POLL_S = 0.1
_DEPTH = 10
#: Stamps that go back by less are messages out of order, not a jump [ns].
_OUT_OF_ORDER_NS = 1_000_000_000

#: A local map as it came, and the wall time at which it did [s].
_Item = tuple[Any, float]


class MapBuilderNode(WorkerNode):
    """See the module; what exists between configure and cleanup is in `_parts`."""

    worker_name = 'fusion'
    _parts: MapBuilderParts | None
    _worker: NewestWinsWorker[_Item] | None

    def __init__(self, **options: Any) -> None:
        super().__init__('map_builder', MAP_BUILDER_PARAMETERS, _POLL_S, **options)
        self._subscription: Any = None
        #: Held by whoever reads or changes the map or publishes it.
        self._lock = threading.Lock()
        self._status = MapBuilderStatus(self._account)
        self._revision, self._has_changed = 0, False
        self._published_s = 0.0
        self._last_stamp_ns = 0
        self._begins_submap = False
        self.create_service(Trigger, '~/save_map', self._on_save)
        self.create_service(Trigger, '~/load_map', self._on_load)

    def _make_parts(self) -> MapBuilderParts:
        return make_builder_parts(self, self._values)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish what is known and begin to fuse."""
        result = super().on_activate(state)
        assert self._parts is not None
        self._parts.output.clear_markers()
        self._publish()
        self._subscribe()
        return result

    def _subscribe(self) -> None:
        from gsmap_ros.msg import MapElementArray

        self._subscription = self.create_subscription(
            MapElementArray,
            'mapping/local_map',
            self._on_local_map,
            QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, finish the map in work, write and publish the rest."""
        self.destroy_subscription(self._subscription)
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop():
            self.get_logger().warning('the worker is still busy; its map counts as in flight')
        if self._has_changed:
            self._publish()
        self._publish_diagnostics()
        return super().on_deactivate(state)

    def _close_parts(self) -> None:
        with self._lock:
            super()._close_parts()

    def _on_local_map(self, message: Any) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._status.note_stamp(stamp_ns, self._now_ns())
        self._account.receive(is_partial=False)
        back_ns = self._last_stamp_ns - stamp_ns
        if 0 <= back_ns < _OUT_OF_ORDER_NS:
            self._account.drop('out_of_order')
            return
        if back_ns > 0:
            self._forget_past()
        self._last_stamp_ns = stamp_ns
        if self._worker is None:
            self._account.drop('deactivated')
        else:
            self._worker.submit((message, time.monotonic()))

    def _process(self, item: _Item) -> None:
        """Fuse one local map (worker thread)."""
        (message, arrived_s), parts, worker = item, self._parts, self._worker
        assert parts is not None
        base, frame = self._values['base_frame'], self._values['map_frame']
        local_map, refused = local_map_from_message(message, base)
        self._status.num_refused_elements += len(refused)
        if refused:
            self.get_logger().warning(
                f'{len(refused)} elements of a local map left out: {refused[0]}',
                throttle_duration_sec=5.0,
            )
        motion = parts.pose.wait(
            lambda: ego_pose_at(parts, (frame, base), local_map.stamp_ns),
            self._values['tf.timeout_s'],
            self._now_ns,
            lambda: worker is None or worker.is_stopping,
        )
        with self._lock:
            if self._begins_submap:
                self._begins_submap = False
                parts.fused.start_submap()
                self._status.num_submaps += 1
            parts.fused.integrate(replace(local_map, map_from_base=motion.fixed_from_base))
            self._has_changed = True
        self._account.map_done((time.monotonic() - arrived_s) * 1e3)
        self._status.map_error = ''
        if self._is_due():
            self._publish()

    def _on_failed(self, item: _Item, error: Exception) -> None:
        """Count a local map that could not be fused, and say why (worker thread)."""
        reason, text = 'fusion_error', str(error)
        if isinstance(error, TransformError):
            reason = 'no_transform'
            text = (
                f'{error}{self._status.clock_hint} (a map needs localisation: TF from '
                f"'{self._values['map_frame']}' to '{self._values['base_frame']}'; odometry alone "
                'drifts)'
            )
        elif isinstance(error, DataError):
            reason = 'bad_message'
        elif not isinstance(error, GsmapError):
            text = ''.join(traceback.format_exception(error))
        self._account.drop(reason)
        self._status.map_error = f'{reason}: {text}'
        self.get_logger().warning(
            f'local map dropped, {reason}: {text}', throttle_duration_sec=5.0
        )

    def _is_due(self) -> bool:
        period_s = self._values['publish.period_s']
        return self._has_changed and time.monotonic() - self._published_s >= period_s

    def _poll(self) -> None:
        """Publish what came last when no further local map does."""
        if self._worker is not None and self._worker.is_idle and self._is_due():
            self._publish()

    def _publish(self) -> None:
        """Write what changed to disk, then publish it."""
        parts = self._parts
        assert parts is not None
        with self._lock:
            try:
                parts.fused.commit()
                self._status.disk_error = ''
            except OSError as error:
                # Without a disk the map still helps whoever drives now.
                self._status.disk_error = f"'{parts.directory}' cannot be written: {error}"
                self.get_logger().error(self._status.disk_error, throttle_duration_sec=10.0)
            self._revision += self._has_changed
            self._has_changed, self._published_s = False, time.monotonic()
            parts.output.publish(parts.fused.to_vector_map(), self._revision)
            self._status.note_map(parts, self._revision)

    def _on_clock_jump(self) -> None:
        self._forget_past(is_clock=True)

    def _forget_past(self, is_clock: bool = False) -> None:
        """Begin a new submap after a backward jump, and say so once; what is confirmed stays.

        Args:
            is_clock: the clock itself told, see `_is_new_jump`.
        """
        if self._parts is None or self._worker is None:
            return
        self._worker.drop_waiting('clock_jump')
        self._begins_submap, self._last_stamp_ns = True, 0
        if not self._is_new_jump(is_clock):
            return
        self._parts.pose.clear()
        self.get_logger().warning(
            'time went back (looping bag?): a new submap begins, unconfirmed elements are dropped'
        )

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, self._reset)

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, self._save)

    def _on_load(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, self._load)

    def _answer(self, response: Trigger.Response, action: Any) -> Trigger.Response:
        """Do what a service asks for; an error becomes its answer."""
        if self._refuses(response):
            return response
        try:
            response.message = action(self._parts)
            response.success = True
        except (GsmapError, OSError) as error:
            response.message = str(error)
            self.get_logger().error(response.message)
        return response

    def _reset(self, parts: MapBuilderParts) -> str:
        assert self._worker is not None
        self._worker.drop_waiting('reset')
        with self._lock:
            parts.fused.reset()
            self._revision, self._has_changed = 0, False
            self._begins_submap = False
        parts.output.clear_markers()
        self._publish()
        return f"the map in '{parts.directory}' is empty; saved files are untouched"

    def _save(self, parts: MapBuilderParts) -> str:
        with self._lock:
            return parts.save(self._values['map.file'])

    def _load(self, parts: MapBuilderParts) -> str:
        with self._lock:
            answer = parts.load(self._values['map.file'])
            self._has_changed = True
        parts.output.clear_markers()
        self._publish()
        return answer

    def _publish_diagnostics(self) -> None:
        self._diagnostics.publish(self._status.statuses(self._parts), 'map_builder')


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run_node(MapBuilderNode))


if __name__ == '__main__':
    main()
