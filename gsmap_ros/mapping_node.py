#!/usr/bin/env python3
"""The mapping node: camera images, calibration and TF in, local vector maps out.

A lifecycle node: configure validates and loads, activate subscribes, deactivate unsubscribes,
cleanup frees. Callbacks are short; decoding, transforms and inference happen in a worker thread
that always takes the newest camera set.
"""

from __future__ import annotations

import sys
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
from visualization_msgs.msg import MarkerArray

from gsmap_core.errors import GsmapError
from gsmap_core.rig import load_rig
from gsmap_core.runtime.predictor import Predictor
from gsmap_core.structures import VectorMap
from gsmap_ros.camera_input import CameraInputs, choose_cameras, discover_cameras
from gsmap_ros.camera_sync import CameraSet, CameraSync, Outcome, SyncSettings
from gsmap_ros.conversions import (
    above_score,
    image_from_compressed,
    image_from_message,
    local_map_to_message,
    probe_cv_bridge,
)
from gsmap_ros.diagnostics import DiagnosticsPublisher, SetAccount
from gsmap_ros.frame_builder import FrameBuilder, ImageDecoder, SetRejectedError
from gsmap_ros.mapping_status import MappingStatus
from gsmap_ros.markers import MarkerKey, MarkerStyle, clear_markers, map_markers
from gsmap_ros.node_main import forward_library_logs, run_node
from gsmap_ros.parameters import MAPPING_PARAMETERS, NodeParameters
from gsmap_ros.pose_source import OdometrySource, PoseSource, make_transform_source
from gsmap_ros.worker import NewestWinsWorker

_POLL_S = 0.02
_DIAGNOSTICS_S = 1.0
_AUTOSTART_S = 0.5
#: Two signs of one clock jump (the clock itself, and the stamps) arrive within this wall time.
_SAME_JUMP_S = 2.0


class MappingNode(LifecycleNode):
    """See the module. Its state exists from configure to cleanup in `_parts`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            'mapping', automatically_declare_parameters_from_overrides=True, **options
        )
        forward_library_logs(self.get_logger())
        self._values = NodeParameters(self, MAPPING_PARAMETERS)
        for name in self._values.unknown:
            self.get_logger().warning(f"parameter '{name}' is unknown and has no effect")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._account = SetAccount()
        self._status = MappingStatus(self._account)
        self._diagnostics = DiagnosticsPublisher(self)
        self.create_timer(_DIAGNOSTICS_S, self._publish_diagnostics, clock=steady)
        self._poll_timer = self.create_timer(_POLL_S, self._poll, clock=steady)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
            ),
            post_callback=lambda _: self._on_clock_jump(),
        )
        self._last_jump_s = -_SAME_JUMP_S
        self._worker: NewestWinsWorker[tuple[CameraSet[Any], float]] | None = None
        self._needs_reset = False
        self._shown: frozenset[MarkerKey] = frozenset()
        self._is_configured = False
        self._seen_cameras: tuple[str, ...] = ()
        if self._values['autostart']:
            self._autostart_timer = self.create_timer(_AUTOSTART_S, self._autostart, clock=steady)

    #: The node never ends by itself, and wants nothing more once it was told to.
    exit_code: int | None = None
    drains = False

    def _autostart(self) -> None:
        """Configure and activate; wait for cameras that are to be found in the graph."""
        values = self._values
        if not values.texts('cameras') and not values['rig.file'] and not values.problems:
            found = discover_cameras(
                self.get_topic_names_and_types(),
                values['image_transport'],
                values['images_rectified'],
            )
            is_settled, self._seen_cameras = bool(found) and found == self._seen_cameras, found
            if not is_settled:
                self.get_logger().warning(
                    "parameter 'cameras' is empty and no rig.file is given: looking for camera "
                    'topics',
                    throttle_duration_sec=10.0,
                )
                return
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Validate, load the weights, warm up, create the publishers."""
        try:
            self._configure()
        except GsmapError as error:
            self._status.failure = str(error)
            self.get_logger().error(f'configure failed: {error}')
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self._status.failure = traceback.format_exc(limit=1)
            self.get_logger().error(f'configure failed: {traceback.format_exc()}')
            return TransitionCallbackReturn.FAILURE
        self._status.failure = ''
        self._is_configured = self._values.is_configured = True
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        values = self._values
        values.require_valid()
        rig = load_rig(values['rig.file']) if values['rig.file'] else None
        transport, is_rectified = values['image_transport'], values['images_rectified']
        names = choose_cameras(
            values.texts('cameras'), rig, self.get_topic_names_and_types(), transport, is_rectified
        )
        self._sync: CameraSync[Any] = CameraSync(
            SyncSettings(
                names,
                values['sync.reference'],
                round(values['sync.max_spread_s'] * 1e9),
                round(values['sync.timeout_s'] * 1e9),
                values['sync.min_cameras'],
            )
        )
        self._predictor = Predictor(
            values['model.weights'],
            device=values['model.device'],
            precision=values['model.precision'],
        )
        self._inputs = CameraInputs(
            self, names, transport, is_rectified, values['image_reliability'], rig, self._on_image
        )
        self._transforms = make_transform_source(self)
        base, odom = values['base_frame'], values['odom_frame']
        self._odometry = (
            OdometrySource(self, odom, base) if values['pose_source'] == 'odometry' else None
        )
        self._pose = PoseSource(
            self._transforms,
            base,
            values['map_frame'],
            odom,
            None if self._odometry is None else self._odometry.buffer,
        )
        decode: ImageDecoder = image_from_compressed
        if transport == 'raw':
            bridge, reason = probe_cv_bridge()
            decode = bridge or image_from_message
            self.get_logger().info(
                f'raw images: {"cv_bridge" if bridge else f"own conversion ({reason})"}'
            )
        rig_name = rig.name if rig is not None else 'camera_info'
        self._builder = FrameBuilder(
            self._inputs.calibrations,
            self._inputs.topics,
            decode,
            self._pose,
            values['sync.min_cameras'],
            rig_name,
        )
        if rig is not None:
            self._predictor.warm_up(rig)
        reliable = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        overridable = QoSOverridingOptions.with_default_policies()
        from gsmap_ros.msg import MapElementArray

        self._map_publisher = self.create_lifecycle_publisher(
            MapElementArray, '~/local_map', reliable, qos_overriding_options=overridable
        )
        self._marker_publisher = self.create_lifecycle_publisher(
            MarkerArray, '~/local_map_markers', reliable, qos_overriding_options=overridable
        )
        self._status.configured(self._predictor.info, rig_name, self._pose)
        self.get_logger().info(
            f'configured: cameras {", ".join(names)}; reference {self._sync.settings.reference}; '
            f'{self._predictor.info}'
        )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and begin to map."""
        super().on_activate(state)
        self._worker = NewestWinsWorker(
            self._process,
            lambda item, reason: self._account.drop(reason),
            self._on_failed,
            'mapping',
        )
        self._needs_reset = True
        self._clear_markers()
        self._inputs.start()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, finish the set in work, publish the final numbers."""
        self._inputs.stop()
        self._route(self._sync.reset('deactivated'))
        if self._worker is not None and not self._worker.stop():
            self.get_logger().warning('the worker is still busy; its set counts as in flight')
        self._worker = None
        self._publish_diagnostics()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and everything else that configure made."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release what is left, from any state."""
        if self._worker is not None:
            self.on_deactivate(state)
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _release(self) -> None:
        if not self._is_configured:
            return
        self._is_configured = self._values.is_configured = False
        self._status.unconfigured()
        for publisher in (self._map_publisher, self._marker_publisher):
            self.destroy_publisher(publisher)
        self._transforms.close()
        if self._odometry is not None:
            self._odometry.close()
        del self._predictor, self._builder, self._inputs, self._pose, self._transforms

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_image(self, camera: str, stamp_ns: int, message: Any) -> None:
        self._status.note_stamp(stamp_ns, self._now_ns())
        num_resets = self._sync.counters.resets
        self._route(self._sync.add(camera, stamp_ns, message, self._now_ns()))
        if self._sync.counters.resets != num_resets:
            self._restart()

    def _poll(self) -> None:
        if self._worker is not None:
            self._route(self._sync.poll(self._now_ns()))

    def _route(self, camera_sets: list[CameraSet[Any]]) -> None:
        """Count the sets that closed and hand the usable ones to the worker."""
        for camera_set in camera_sets:
            self._account.receive(is_partial=camera_set.outcome is Outcome.PARTIAL)
            self._status.last_spread_ns = camera_set.spread_ns
            if camera_set.outcome is Outcome.DROPPED or self._worker is None:
                self._account.drop(camera_set.reason or 'stopped')
            else:
                self._worker.submit((camera_set, time.monotonic()))

    def _process(self, item: tuple[CameraSet[Any], float]) -> None:
        """Map one set (worker thread)."""
        camera_set, closed_s = item
        worker = self._worker
        frame = self._builder.build(
            camera_set,
            self._values['tf.timeout_s'],
            self._now_ns,
            lambda: worker is None or worker.is_stopping,
        )
        if self._needs_reset:
            self._needs_reset = False
            self._predictor.reset()
        local_map = self._predictor.predict(frame)
        self._publish(above_score(local_map, self._values['score_threshold']))
        self._account.map_done((time.monotonic() - closed_s) * 1e3)
        self._status.set_error = ''
        if self._account.num_mapped == 1:
            self.get_logger().info(
                f'first map: {len(local_map)} elements from {len(camera_set.images)} images, pose '
                f'from {self._pose.description}'
            )

    def _publish(self, local_map: VectorMap) -> None:
        base = self._values['base_frame']
        self._map_publisher.publish(local_map_to_message(local_map, base))
        if not self._values['publish.markers']:
            local_map = replace(local_map, elements=())
            if not self._shown:
                return
        style = MarkerStyle(
            self._values['markers.line_width_m'], self._values['markers.lifetime_s']
        )
        markers, self._shown = map_markers(local_map, base, style, self._shown)
        self._marker_publisher.publish(markers)

    def _on_failed(self, item: tuple[CameraSet[Any], float], error: Exception) -> None:
        """Count a set that could not be mapped, and say why (worker thread)."""
        if isinstance(error, SetRejectedError):
            reason, text = error.reason, f'{error}{self._status.clock_hint}'
        elif isinstance(error, GsmapError):
            reason, text = 'inference_error', str(error)
        else:
            reason = 'inference_error'
            text = ''.join(traceback.format_exception(error))
        self._account.drop(reason)
        self._status.set_error = f'{reason}: {text}'
        self.get_logger().warning(
            f'camera set at {item[0].stamp_ns} ns dropped, {reason}: {text}',
            throttle_duration_sec=5.0,
        )

    def _on_clock_jump(self) -> None:
        if self._worker is None:
            return
        self._route(self._sync.reset('clock_jump'))
        self._restart()

    def _restart(self) -> None:
        """Forget what belongs to the time before a backward jump, and say so once."""
        if self._worker is not None:
            self._worker.drop_waiting('clock_jump')
        self._needs_reset = True
        if time.monotonic() - self._last_jump_s < _SAME_JUMP_S:
            return
        self._last_jump_s = time.monotonic()
        self._pose.clear()
        self._clear_markers()
        self.get_logger().warning('time went back (looping bag?): pending sets and state dropped')

    def _clear_markers(self) -> None:
        self._shown = frozenset()
        self._marker_publisher.publish(clear_markers(self._values['base_frame'], self._now_ns()))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._worker is None:
            response.message = 'the node is not active'
            return response
        self._route(self._sync.reset('reset'))
        self._worker.drop_waiting('reset')
        self._needs_reset = True
        self._clear_markers()
        response.success, response.message = True, 'pending sets and temporal state dropped'
        return response

    def _publish_diagnostics(self) -> None:
        inputs = self._inputs if self._is_configured else None
        builder = self._builder if self._is_configured else None
        counters = self._sync.counters if self._is_configured else None
        self._diagnostics.publish(
            self._status.statuses(inputs, builder, counters), self._status.rig_name
        )

    def finish(self) -> None:
        """Go down the lifecycle from wherever the node is, and let the last messages leave."""
        self.trigger_shutdown()
        self._diagnostics.flush()


def main() -> None:
    """Run the node until SIGINT or SIGTERM."""
    sys.exit(run_node(MappingNode))


if __name__ == '__main__':
    main()
