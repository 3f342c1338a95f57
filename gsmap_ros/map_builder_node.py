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

from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_srvs.srv import Trigger

from gsmap_core.errors import DataError, GsmapError, TransformError
from gsmap_ros.conversions import local_map_from_message, stamp_to_ns
from gsmap_ros.diagnostics import DiagnosticsPublisher, SetAccount
from gsmap_ros.map_builder_parts import MapBuilderParts, ego_pose_at, make_builder_parts
from gsmap_ros.map_builder_status import MapBuilderStatus
from gsmap_ros.node_main import forward_library_logs, run_node
from gsmap_ros.parameters import MAP_BUILDER_PARAMETERS, NodeParameters
from gsmap_ros.worker import NewestWinsWorker

_DIAGNOSTICS_S = 1.0
_AUTOSTART_S = 0.5
_POLL_S = 0.1
_DEPTH = 10
#: Two signs of one clock jump (the clock itself, and the stamps) arrive within this wall time.
_SAME_JUMP_S = 2.0
#: Stamps that go back by less are messages out of order, not a jump [ns].
_OUT_OF_ORDER_NS = 1_000_000_000

#: A local map as it came, and the wall time at which it did [s].
_Item = tuple[Any, float]


class MapBuilderNode(LifecycleNode):
    """See the module; what exists between configure and cleanup is in `_parts`."""

    #: The node never ends by itself, and wants nothing more once it was told to.
    exit_code: int | None = None
    drains = False
    lives_on = True

    def __init__(self, **options: Any) -> None:
        super().__init__(
            'map_builder', automatically_declare_parameters_from_overrides=True, **options
        )
        forward_library_logs(self.get_logger())
        self._values = NodeParameters(self, MAP_BUILDER_PARAMETERS)
        for name in self._values.unknown:
            self.get_logger().warning(f"parameter '{name}' is unknown and has no effect")
        self._parts: MapBuilderParts | None = None
        self._worker: NewestWinsWorker[_Item] | None = None
        self._subscription: Any = None
        #: Held by whoever reads or changes the map or publishes it.
        self._lock = threading.Lock()
        self._account = SetAccount()
        self._status = MapBuilderStatus(self._account)
        self._diagnostics = DiagnosticsPublisher(self)
        self._revision, self._has_changed = 0, False
        self._published_s = 0.0
        self._last_stamp_ns = 0
        self._begins_submap = False
        self._last_jump_s = -_SAME_JUMP_S
        # Not the node clock: a replay that pauses or ends must not silence the diagnostics.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DIAGNOSTICS_S, self._publish_diagnostics, clock=steady)
        self.create_timer(_POLL_S, self._poll, clock=steady)
        self._autostart_timer = self.create_timer(_AUTOSTART_S, self._autostart, clock=steady)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(Trigger, '~/save_map', self._on_save)
        self.create_service(Trigger, '~/load_map', self._on_load)
        backward = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            backward, post_callback=lambda _: self._forget_past()
        )

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self._values['autostart']:
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Validate, open the map, create the publishers."""
        self._status.failure = ''
        try:
            self._parts = make_builder_parts(self, self._values)
        except GsmapError as error:
            self._status.failure = str(error)
        except Exception:
            self._status.failure = traceback.format_exc()
        if self._parts is None:
            self.get_logger().error(f'configure failed: {self._status.failure}')
            return TransitionCallbackReturn.FAILURE
        self._values.is_configured = True
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish what is known and begin to fuse."""
        assert self._parts is not None
        super().on_activate(state)
        self._worker = NewestWinsWorker(
            self._process, lambda _, reason: self._account.drop(reason), self._on_failed, 'fusion'
        )
        self._parts.output.clear_markers()
        self._publish()
        self._subscribe()
        return TransitionCallbackReturn.SUCCESS

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

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Write what is not on disk yet and give the folder free."""
        if self._parts is not None:
            with self._lock:
                self._parts.close()
        self._parts = None
        self._values.is_configured = False
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release what is left, from any state."""
        if self._worker is not None:
            self.on_deactivate(state)
        return self.on_cleanup(state)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

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

    def _forget_past(self) -> None:
        """Begin a new submap after a backward jump, and say so once; what is confirmed stays."""
        if self._parts is None or self._worker is None:
            return
        self._worker.drop_waiting('clock_jump')
        self._begins_submap, self._last_stamp_ns = True, 0
        if time.monotonic() - self._last_jump_s < _SAME_JUMP_S:
            return
        self._last_jump_s = time.monotonic()
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
        if self._parts is None or self._worker is None:
            response.message = 'the node is not active; activate it first'
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

    def finish(self) -> None:
        """Go down the lifecycle from wherever the node is, and let the last messages leave."""
        self.trigger_shutdown()
        self._diagnostics.flush()


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run_node(MapBuilderNode))


if __name__ == '__main__':
    main()
