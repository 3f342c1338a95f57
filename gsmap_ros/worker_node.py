"""What the mapping node and the map builder share: a lifecycle around a worker thread.

Configure validates and loads, activate begins to work, deactivate ends it, cleanup frees
everything. Callbacks are short; the work is done by a `NewestWinsWorker`.
"""

from __future__ import annotations

import time
import traceback
from abc import abstractmethod
from typing import Any, ClassVar

from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from gsmap_core.errors import GsmapError
from gsmap_ros.diagnostics import DiagnosticsPublisher, SetAccount
from gsmap_ros.node_main import forward_library_logs
from gsmap_ros.parameters import NodeParameters, ParameterRecord
from gsmap_ros.worker import NewestWinsWorker

_DIAGNOSTICS_S = 1.0
_AUTOSTART_S = 0.5
#: Stamps of several topics that go back in one jump do so within this wall time.
_SAME_JUMP_S = 2.0


class WorkerNode(LifecycleNode):
    """A lifecycle node with a worker; what exists between configure and cleanup is in `_parts`.

    Args:
        name: of the node.
        records: its parameters.
        poll_s: between calls of `_poll` [s].
        options: of the ROS node.
    """

    #: The node never ends by itself, and wants nothing more once it was told to.
    exit_code: int | None = None
    drains = False
    lives_on = True
    #: Name of the worker's thread.
    worker_name: ClassVar[str]
    _parts: Any
    _worker: NewestWinsWorker[Any] | None
    #: Has `failure`, why the last configure failed; empty: it did not.
    _status: Any

    def __init__(
        self, name: str, records: tuple[ParameterRecord, ...], poll_s: float, **options: Any
    ) -> None:
        super().__init__(name, automatically_declare_parameters_from_overrides=True, **options)
        forward_library_logs(self.get_logger())
        self._values = NodeParameters(self, records)
        for unknown in self._values.unknown:
            self.get_logger().warning(f"parameter '{unknown}' is unknown and has no effect")
        self._parts = self._worker = None
        self._account = SetAccount()
        self._diagnostics = DiagnosticsPublisher(self)
        self._last_jump_s = -_SAME_JUMP_S
        # Not the node clock: a replay that pauses or ends must not silence the diagnostics.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DIAGNOSTICS_S, self._publish_diagnostics, clock=steady)
        self.create_timer(poll_s, self._poll, clock=steady)
        self._autostart_timer = self.create_timer(_AUTOSTART_S, self._autostart, clock=steady)
        self.create_service(Trigger, '~/reset', self._on_reset)
        backward = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            backward, post_callback=lambda _: self._on_clock_jump()
        )

    @abstractmethod
    def _make_parts(self) -> Any:
        """Return what exists until cleanup; it has `close`."""

    @abstractmethod
    def _process(self, item: Any) -> None:
        """Do one piece of work (worker thread)."""

    @abstractmethod
    def _on_failed(self, item: Any, error: Exception) -> None:
        """Count a piece of work that failed, and say why (worker thread)."""

    @abstractmethod
    def _poll(self) -> None:
        """Look after what no message tells."""

    @abstractmethod
    def _on_clock_jump(self) -> None:
        """Forget what belongs to the time before a backward jump of the clock."""

    @abstractmethod
    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Answer the service `~/reset`."""

    @abstractmethod
    def _publish_diagnostics(self) -> None:
        """Publish every status."""

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self._values['autostart']:
            self._start_up()

    def _start_up(self) -> None:
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Validate the parameters, load and create what they ask for."""
        self._status.failure = ''
        try:
            self._parts = self._make_parts()
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
        """Let the publishers publish and start the worker."""
        assert self._parts is not None
        super().on_activate(state)
        self._worker = NewestWinsWorker(
            self._process,
            lambda _, reason: self._account.drop(reason),
            self._on_failed,
            self.worker_name,
        )
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything that configure made."""
        if self._parts is not None:
            self._close_parts()
        self._parts = None
        self._values.is_configured = False
        return TransitionCallbackReturn.SUCCESS

    def _close_parts(self) -> None:
        self._parts.close()

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release what is left, from any state."""
        if self._worker is not None:
            self.on_deactivate(state)
        return self.on_cleanup(state)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _refuses(self, response: Trigger.Response) -> bool:
        """Say in the answer of a service that the node is not active, if it is not."""
        if self._parts is None or self._worker is None:
            response.message = 'the node is not active; activate it first'
            return True
        return False

    def _is_new_jump(self, is_clock: bool = False) -> bool:
        """Take note of a backward jump; return whether it is another one than the last.

        Args:
            is_clock: the clock itself told; it always counts. Stamps count only where no clock
                does: by the time that they go back, transforms of the new time may be there.
        """
        now_s = time.monotonic()
        has_clock = self.get_parameter('use_sim_time').value
        if not is_clock and (has_clock or now_s - self._last_jump_s < _SAME_JUMP_S):
            return False
        self._last_jump_s = now_s
        return True

    def finish(self) -> None:
        """Go down the lifecycle from wherever the node is, and let the last messages leave."""
        self.trigger_shutdown()
        self._diagnostics.flush()
