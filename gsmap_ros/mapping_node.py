#!/usr/bin/env python3
"""The mapping node: camera images, calibration and TF in, local vector maps out.

A lifecycle node: configure validates and loads, activate subscribes, deactivate unsubscribes,
cleanup frees. Callbacks are short; decoding, transforms and inference happen in a worker thread
that always takes the newest camera set.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from typing import Any

from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from gsmap_core.errors import GsmapError
from gsmap_ros.camera_input import discover_cameras
from gsmap_ros.camera_sync import CameraSet, Outcome
from gsmap_ros.diagnostics import DiagnosticsPublisher, SetAccount
from gsmap_ros.frame_builder import SetRejectedError
from gsmap_ros.mapping_parts import MappingParts, make_parts
from gsmap_ros.mapping_status import MappingStatus
from gsmap_ros.node_main import forward_library_logs, run_node
from gsmap_ros.parameters import MAPPING_PARAMETERS, NodeParameters
from gsmap_ros.stage_times import ClosedSet, ReceivedImage, StageTimer
from gsmap_ros.worker import NewestWinsWorker

_POLL_S = 0.02
_DIAGNOSTICS_S = 1.0
_AUTOSTART_S = 0.5
#: Two signs of one clock jump (the clock itself, and the stamps) arrive within this wall time.
_SAME_JUMP_S = 2.0


class MappingNode(LifecycleNode):
    """See the module; what exists between configure and cleanup is in `_parts`."""

    #: The node never ends by itself, and wants nothing more once it was told to.
    exit_code: int | None = None
    drains = False
    lives_on = True

    def __init__(self, **options: Any) -> None:
        super().__init__(
            'mapping', automatically_declare_parameters_from_overrides=True, **options
        )
        forward_library_logs(self.get_logger())
        self._values = NodeParameters(self, MAPPING_PARAMETERS)
        for name in self._values.unknown:
            self.get_logger().warning(f"parameter '{name}' is unknown and has no effect")
        self._parts: MappingParts | None = None
        self._worker: NewestWinsWorker[ClosedSet] | None = None
        self._account = SetAccount()
        self._status = MappingStatus(self._account)
        self._diagnostics = DiagnosticsPublisher(self)
        #: Why the memory is to be dropped before the next set; empty: it is not. Set by the
        #: executor's thread, taken by the worker.
        self._reset_reason = ''
        self._reset_lock = threading.Lock()
        self._fixed_frame = ''
        self._last_jump_s = -_SAME_JUMP_S
        self._seen_cameras: tuple[str, ...] = ()
        # Not the node clock: a replay that pauses or ends must not silence the diagnostics.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DIAGNOSTICS_S, self._publish_diagnostics, clock=steady)
        self.create_timer(_POLL_S, self._poll, clock=steady)
        self._autostart_timer = self.create_timer(_AUTOSTART_S, self._autostart, clock=steady)
        self.create_service(Trigger, '~/reset', self._on_reset)
        backward = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            backward, post_callback=lambda _: self._on_clock_jump()
        )

    def _autostart(self) -> None:
        """Configure and activate; wait for cameras that are to be found in the graph."""
        values = self._values
        if not values['autostart']:
            self._autostart_timer.cancel()
            return
        if not (values.texts('cameras') or values['rig.file'] or values.problems):
            found = discover_cameras(
                self.get_topic_names_and_types(),
                values['image_transport'],
                values['images_rectified'],
            )
            # Two equal looks: topics of one vehicle do not appear all at once.
            is_settled, self._seen_cameras = bool(found) and found == self._seen_cameras, found
            if not is_settled:
                self.get_logger().warning(
                    "parameter 'cameras' is empty and no rig.file is given: looking for cameras",
                    throttle_duration_sec=10.0,
                )
                return
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Validate, load the weights, warm up, create the publishers."""
        self._status.failure = ''
        self._reset_reason = self._fixed_frame = ''
        try:
            self._parts = make_parts(self, self._values, self._on_image)
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
        """Subscribe and begin to map."""
        assert self._parts is not None
        super().on_activate(state)
        self._worker = NewestWinsWorker(
            self._process, lambda _, reason: self._account.drop(reason), self._on_failed, 'mapping'
        )
        if self._account.num_mapped:
            self._request_reset('requested')
        self._parts.output.clear_markers()
        self._parts.inputs.start()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, finish the set in work, publish the final numbers."""
        assert self._parts is not None
        self._parts.inputs.stop()
        worker, self._worker = self._worker, None
        self._route(self._parts.sync.reset('deactivated'))
        if worker is not None and not worker.stop():
            self.get_logger().warning('the worker is still busy; its set counts as in flight')
        self._publish_diagnostics()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and everything else that configure made."""
        if self._parts is not None:
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

    def _on_image(self, camera: str, stamp_ns: int, message: Any) -> None:
        assert self._parts is not None
        sync, now_ns = self._parts.sync, self._now_ns()
        self._status.note_stamp(stamp_ns, now_ns)
        num_resets = sync.counters.resets
        image = ReceivedImage(message, now_ns, time.monotonic())
        self._route(sync.add(camera, stamp_ns, image, now_ns))
        if sync.counters.resets != num_resets:
            self._forget_past()

    def _poll(self) -> None:
        if self._parts is not None and self._worker is not None:
            self._route(self._parts.sync.poll(self._now_ns()))

    def _route(self, camera_sets: list[CameraSet[Any]]) -> None:
        """Count the sets that closed and hand the usable ones to the worker."""
        for camera_set in camera_sets:
            self._account.receive(is_partial=camera_set.outcome is Outcome.PARTIAL)
            self._status.last_spread_ns = camera_set.spread_ns
            if camera_set.outcome is Outcome.DROPPED or self._worker is None:
                self._account.drop(camera_set.reason or 'deactivated')
            else:
                self._worker.submit(ClosedSet(camera_set, time.monotonic()))

    def _process(self, item: ClosedSet) -> None:
        """Map one set (worker thread)."""
        (camera_set, closed_s), parts, worker = item, self._parts, self._worker
        assert parts is not None
        timer = StageTimer(item)
        frame = parts.builder.build(
            camera_set,
            self._values['tf.timeout_s'],
            self._now_ns,
            lambda: worker is None or worker.is_stopping,
            timer,
        )
        # Memory and ids live in the frame that poses are given in: another one is another place.
        frame_changed = self._fixed_frame not in ('', parts.pose.fixed_frame)
        self._fixed_frame = parts.pose.fixed_frame
        with self._reset_lock:
            reason, self._reset_reason = self._reset_reason, ''
        if reason or frame_changed:
            parts.predictor.reset(reason or 'pose_jump')
        parts.predictor.score_threshold = self._values['score_threshold']
        parts.mapper.is_tracked = self._values['identity.enabled']
        local_map, times = parts.mapper.predict(frame), parts.predictor.last_times
        timer.stage('postprocess', prepare=times.prepare_s, model=times.model_s)
        num_elements = parts.output.publish(local_map)
        timer.stage('publish')
        self._status.stages.add(timer.times_ms)
        self._account.map_done((time.monotonic() - closed_s) * 1e3)
        self._status.set_error = ''
        if self._account.num_mapped == 1:
            self.get_logger().info(
                f'first map: {num_elements} elements from {len(camera_set.images)} images; '
                f'ego pose: {parts.pose.description}'
            )

    def _on_failed(self, item: ClosedSet, error: Exception) -> None:
        """Count a set that could not be mapped, and say why (worker thread)."""
        reason, text = 'inference_error', str(error)
        if isinstance(error, SetRejectedError):
            reason, text = error.reason, f'{error}{self._status.clock_hint}'
        elif not isinstance(error, GsmapError):
            text = ''.join(traceback.format_exception(error))
        self._account.drop(reason)
        self._status.set_error = f'{reason}: {text}'
        self.get_logger().warning(
            f'camera set at {item.camera_set.stamp_ns} ns dropped, {reason}: {text}',
            throttle_duration_sec=5.0,
        )

    def _on_clock_jump(self) -> None:
        if self._parts is not None and self._worker is not None:
            self._route(self._parts.sync.reset('clock_jump'))
            self._forget_past(is_clock=True)

    def _request_reset(self, reason: str) -> None:
        with self._reset_lock:
            self._reset_reason = reason

    def _forget_past(self, is_clock: bool = False) -> None:
        """Forget what belongs to the time before a backward jump, and say so once.

        Args:
            is_clock: the clock itself told; it always counts. Stamps that go back at the same time
                are another sign of the same jump: transforms of the new time stay.
        """
        assert self._parts is not None
        if self._worker is not None:
            self._worker.drop_waiting('clock_jump')
        self._request_reset('clock_jump')
        if not is_clock and time.monotonic() - self._last_jump_s < _SAME_JUMP_S:
            return
        self._last_jump_s = time.monotonic()
        self._parts.pose.clear()
        self._parts.output.clear_markers()
        self.get_logger().warning('time went back (looping bag?): pending sets and state dropped')

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._parts is None or self._worker is None:
            response.message = 'the node is not active; activate it first'
            return response
        self._route(self._parts.sync.reset('reset'))
        self._worker.drop_waiting('reset')
        self._request_reset('requested')
        self._parts.output.clear_markers()
        response.success, response.message = True, 'pending sets, memory and ids dropped'
        return response

    def _publish_diagnostics(self) -> None:
        rig_name = '' if self._parts is None else self._parts.rig_name
        statuses = self._status.statuses(self._parts, self._reset_reason)
        self._diagnostics.publish(statuses, rig_name)

    def finish(self) -> None:
        """Go down the lifecycle from wherever the node is, and let the last messages leave."""
        self.trigger_shutdown()
        self._diagnostics.flush()


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run_node(MappingNode))


if __name__ == '__main__':
    main()
