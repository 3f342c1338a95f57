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

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from gsmap_core.errors import GsmapError
from gsmap_ros.camera_input import discover_cameras
from gsmap_ros.camera_sync import CameraSet, Outcome
from gsmap_ros.frame_builder import SetRejectedError
from gsmap_ros.mapping_parts import MappingParts, make_parts
from gsmap_ros.mapping_status import MappingStatus
from gsmap_ros.node_main import run_node
from gsmap_ros.parameters import MAPPING_PARAMETERS
from gsmap_ros.stage_times import ClosedSet, ReceivedImage, StageTimer
from gsmap_ros.worker import NewestWinsWorker
from gsmap_ros.worker_node import WorkerNode

_POLL_S = 0.02


class MappingNode(WorkerNode):
    """See the module; what exists between configure and cleanup is in `_parts`."""

    worker_name = 'mapping'
    _parts: MappingParts | None
    _worker: NewestWinsWorker[ClosedSet] | None

    def __init__(self, **options: Any) -> None:
        super().__init__('mapping', MAPPING_PARAMETERS, _POLL_S, **options)
        self._status = MappingStatus(self._account)
        #: Why the memory is to be dropped before the next set; empty: it is not. Set by the
        #: executor's thread, taken by the worker.
        self._reset_reason = ''
        self._reset_lock = threading.Lock()
        self._fixed_frame = ''
        self._seen_cameras: tuple[str, ...] = ()

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
        self._start_up()

    def _make_parts(self) -> MappingParts:
        self._reset_reason = self._fixed_frame = ''
        return make_parts(self, self._values, self._on_image)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and begin to map."""
        result = super().on_activate(state)
        assert self._parts is not None
        if self._account.num_mapped:
            self._request_reset('requested')
        self._parts.output.clear_markers()
        self._parts.inputs.start()
        return result

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
            is_clock: the clock itself told, see `_is_new_jump`; after another sign of the same
                jump transforms of the new time stay.
        """
        assert self._parts is not None
        if self._worker is not None:
            self._worker.drop_waiting('clock_jump')
        self._request_reset('clock_jump')
        if not self._is_new_jump(is_clock):
            return
        self._parts.pose.clear()
        self._parts.output.clear_markers()
        self.get_logger().warning('time went back (looping bag?): pending sets and state dropped')

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._refuses(response):
            return response
        assert self._parts is not None and self._worker is not None
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


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run_node(MappingNode))


if __name__ == '__main__':
    main()
