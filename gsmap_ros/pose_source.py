"""Transforms at a stamp: from `tf2_ros` where it works, else from the package's own buffer.

The two give the same answers. Whoever asks gets a (4, 4) matrix or a `TransformError`; nothing is
ever answered with identity because a lookup failed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gsmap_core.errors import TransformError
from gsmap_core.geometry.transforms import invert, transform_from_quaternion
from gsmap_core.structures import FloatArray
from gsmap_ros.tf_buffer import (
    BufferError,
    ExtrapolationError,
    InvalidFrameError,
    TransformBuffer,
    UnconnectedError,
    UnknownFrameError,
)

if TYPE_CHECKING:
    from rclpy.node import Node

_LOGGER = logging.getLogger(__name__)
#: Pause between two tries of a lookup that may still succeed.
_RETRY_S = 0.004
#: Waiting ends after this wall time, whatever the node clock says: a replay may have ended.
_MAX_WALL_WAIT_S = 5.0
#: Sentences that are said once and remembered.
_MAX_TOLD = 50


def stamp_to_ns(stamp: Any) -> int:
    """Return the nanoseconds of a `builtin_interfaces/Time`."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


class TransformSource(Protocol):
    """What the two implementations have in common."""

    @property
    def implementation(self) -> str:
        """Name of the implementation, for log and diagnostics."""
        ...

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray:
        """Return the (4, 4) `target_from_source` at a stamp.

        Raises:
            TransformError: it is not available.
        """
        ...

    def clear(self) -> None:
        """Forget dynamic transforms."""
        ...

    def close(self) -> None:
        """End the subscriptions."""
        ...


class OwnTransformSource:
    """Listens to `/tf` and `/tf_static` with the package's own buffer.

    Args:
        node: creates the subscriptions.
    """

    implementation = 'gsmap_ros.tf_buffer'

    def __init__(self, node: Node) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from tf2_msgs.msg import TFMessage

        self.buffer = TransformBuffer()
        self._node = node
        self._told: set[str] = set()
        dynamic = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(
            depth=100,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._subscriptions = [
            node.create_subscription(TFMessage, '/tf', self._on_dynamic, dynamic),
            node.create_subscription(TFMessage, '/tf_static', self._on_static, latched),
        ]

    def _on_dynamic(self, message: Any) -> None:
        self._store(message, is_static=False)

    def _on_static(self, message: Any) -> None:
        self._store(message, is_static=True)

    def _store(self, message: Any, is_static: bool) -> None:
        for item in message.transforms:
            shift, turn = item.transform.translation, item.transform.rotation
            is_stored = self.buffer.set_transform(
                item.header.frame_id,
                item.child_frame_id,
                stamp_to_ns(item.header.stamp),
                (shift.x, shift.y, shift.z),
                (turn.x, turn.y, turn.z, turn.w),
                is_static,
            )
            if not is_stored:
                self._node.get_logger().warning(
                    f"ignored the transform '{item.header.frame_id}' -> '{item.child_frame_id}': "
                    f'own parent, empty name, '
                    'not finite or a quaternion of length 0',
                    throttle_duration_sec=10.0,
                )
            self._tell_contention(item.child_frame_id.removeprefix('/'))

    def _tell_contention(self, frame: str) -> None:
        text = self.buffer.two_parents(frame)
        if text and text not in self._told:
            # Names come from outside: what is remembered has to be bounded.
            self._told = {*list(self._told)[-_MAX_TOLD:], text}
            self._node.get_logger().warning(f'{text}; two nodes publish its transform?')

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray:
        """Return the (4, 4) `target_from_source` at a stamp; raises `TransformError`."""
        return self.buffer.lookup(target, source, stamp_ns).matrix

    def clear(self) -> None:
        """Forget dynamic transforms."""
        self.buffer.clear()

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()


class Tf2TransformSource:
    """Listens with `tf2_ros`.

    Args:
        node: creates the subscriptions.
        tf2_ros: the module, found to work by `probe_tf2`.
    """

    implementation = 'tf2_ros'

    def __init__(self, node: Node, tf2_ros: Any) -> None:
        self._tf2_ros = tf2_ros
        self._buffer = tf2_ros.Buffer()
        # The node's executor feeds it: its callbacks are short, and lookups happen in the worker
        # thread.
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray:
        """Return the (4, 4) `target_from_source` at a stamp; raises `TransformError`."""
        from rclpy.time import Time

        try:
            answer = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
        except self._tf2_ros.TransformException as error:
            raise _own_error(error) from None
        shift, turn = answer.transform.translation, answer.transform.rotation
        return transform_from_quaternion(
            (shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w)
        )

    def clear(self) -> None:
        """Forget dynamic transforms."""
        self._buffer.clear()

    def close(self) -> None:
        """End the subscriptions."""
        self._listener.unregister()


def _own_error(error: Exception) -> BufferError:
    """Turn an exception of tf2 into ours; tf2 tells past from future only in its text."""
    text, name = str(error), type(error).__name__
    if name == 'LookupException':
        return UnknownFrameError(text, 'unknown_frame')
    if name == 'ConnectivityException':
        return UnconnectedError(text, 'unconnected')
    if name == 'InvalidArgumentException':
        return InvalidFrameError(text, 'invalid_name')
    return ExtrapolationError(text, 'past' if 'past' in text else 'future')


def probe_tf2() -> tuple[Any | None, str]:
    """Try `tf2_ros`: import it, store a transform and look it up.

    Returns:
        The module, or None with the reason why it is not used.
    """
    try:
        import tf2_ros
        from geometry_msgs.msg import TransformStamped
        from rclpy.time import Time

        message = TransformStamped()
        message.header.frame_id, message.child_frame_id = 'probe_parent', 'probe_child'
        message.transform.translation.x = 1.5
        message.transform.rotation.w = 1.0
        buffer = tf2_ros.Buffer()
        buffer.set_transform_static(message, 'gsmap')
        answer = buffer.lookup_transform('probe_parent', 'probe_child', Time())
        if answer.transform.translation.x != 1.5:
            return None, f'tf2_ros answers {answer.transform.translation.x} instead of 1.5'
    except ModuleNotFoundError as error:
        return None, str(error)
    except Exception as error:
        # A broken installation fails in many ways (ABI, missing symbols); all of them count as
        # absent.
        return None, f'tf2_ros does not work: {error!r}'
    return tf2_ros, ''


def make_transform_source(node: Node) -> TransformSource:
    """Return the source for a node and log which one it is."""
    module, reason = probe_tf2()
    if module is not None:
        node.get_logger().info('transforms: tf2_ros')
        return Tf2TransformSource(node, module)
    node.get_logger().info(f'transforms: own buffer ({reason})')
    return OwnTransformSource(node)


@dataclass(frozen=True)
class EgoMotion:
    """The transforms of one camera set.

    Args:
        fixed_frame: frame that stands still: the map frame, or the odom frame without
            localisation.
        fixed_from_base: (4, 4) ego pose at the reference stamp [m].
        extrinsics: by camera, (4, 4) camera frame to ego frame, both at the camera's stamp [m].
        base_from_cameras: by camera, (4, 4) camera at its own stamp to the ego frame at the
            reference stamp [m].
    """

    fixed_frame: str
    fixed_from_base: FloatArray
    extrinsics: dict[str, FloatArray]
    base_from_cameras: dict[str, FloatArray]


class PoseSource:
    """Ego pose and extrinsics of camera sets.

    Args:
        transforms: extrinsics, and the ego pose if `odometry` is None.
        base_frame: ego frame.
        map_frame: preferred fixed frame.
        odom_frame: fixed frame where the map frame is not known.
        odometry: buffer that `OdometrySource` fills; the ego pose comes from it, relative to the
            odom frame.
    """

    def __init__(
        self,
        transforms: TransformSource,
        base_frame: str,
        map_frame: str,
        odom_frame: str,
        odometry: TransformBuffer | None = None,
    ) -> None:
        self._transforms = transforms
        self._base_frame = base_frame
        self._map_frame = map_frame
        self._odom_frame = odom_frame
        self._odometry = odometry
        self.last_error = ''
        self.fixed_frame = ''

    @property
    def description(self) -> str:
        """What is in use, for diagnostics."""
        ego = 'odometry topic' if self._odometry is not None else self._transforms.implementation
        return f'{ego}, extrinsics {self._transforms.implementation}'

    def clear(self) -> None:
        """Forget what is dynamic (the clock jumped back)."""
        self._transforms.clear()
        if self._odometry is not None:
            self._odometry.clear()

    def ego_pose(self, stamp_ns: int) -> tuple[str, FloatArray]:
        """Return the fixed frame and (4, 4) `fixed_from_base` at a stamp.

        Raises:
            TransformError: neither the map nor the odom frame gives it.
        """
        if self._odometry is not None:
            answer = self._odometry.lookup(self._odom_frame, self._base_frame, stamp_ns)
            return self._odom_frame, answer.matrix
        try:
            return self._map_frame, self._transforms.lookup(
                self._map_frame, self._base_frame, stamp_ns
            )
        except (UnknownFrameError, UnconnectedError) as error:
            # No localisation at all: odometry is honest enough for a local map.
            try:
                matrix = self._transforms.lookup(self._odom_frame, self._base_frame, stamp_ns)
            except (UnknownFrameError, UnconnectedError):
                raise error from None
            return self._odom_frame, matrix

    def resolve(
        self,
        stamp_ns: int,
        camera_stamps_ns: dict[str, int],
        camera_frames: dict[str, str],
        known_extrinsics: dict[str, FloatArray],
    ) -> EgoMotion:
        """Return every transform of a camera set, or fail as a whole.

        Args:
            stamp_ns: reference stamp [ns].
            camera_stamps_ns: of each camera [ns].
            camera_frames: optical frame of each camera.
            known_extrinsics: (4, 4) `base_from_camera` that need no lookup (a rig file), by camera
                [m].

        Raises:
            TransformError: one of them is not available (yet).
        """
        fixed_frame, fixed_from_base = self.ego_pose(stamp_ns)
        base_from_fixed = invert(fixed_from_base)
        extrinsics: dict[str, FloatArray] = {}
        moved: dict[str, FloatArray] = {}
        for camera, camera_stamp_ns in camera_stamps_ns.items():
            base_from_camera = known_extrinsics.get(camera)
            if base_from_camera is None:
                base_from_camera = self._transforms.lookup(
                    self._base_frame, camera_frames[camera], camera_stamp_ns
                )
            extrinsics[camera] = moved[camera] = base_from_camera
            if camera_stamp_ns != stamp_ns:
                frame, fixed_from_base_then = self.ego_pose(camera_stamp_ns)
                if frame != fixed_frame:
                    raise TransformError(
                        f"the ego pose changed from frame '{fixed_frame}' to '{frame}' within one "
                        f'camera set'
                    )
                moved[camera] = base_from_fixed @ fixed_from_base_then @ base_from_camera
        for name, matrix in (('the ego pose', fixed_from_base), *moved.items()):
            if not np.isfinite(matrix).all():
                raise TransformError(f'{name}: the transform is beyond all numbers (overflow)')
        return EgoMotion(fixed_frame, fixed_from_base, extrinsics, moved)

    def wait(
        self,
        attempt: Callable[[], EgoMotion],
        timeout_s: float,
        now_ns: Callable[[], int],
        is_stopping: Callable[[], bool],
    ) -> EgoMotion:
        """Try until it works or time is up; call it outside the thread that fills the buffer.

        Args:
            attempt: usually `resolve` of one set.
            timeout_s: on the node clock [s].
            now_ns: the node clock [ns].
            is_stopping: ends the wait.

        Raises:
            TransformError: of the last try.
        """
        start_ns, pause, waited_s = now_ns(), threading.Event(), 0.0
        while True:
            try:
                motion = attempt()
            except TransformError as error:
                self.last_error = str(error)
                is_final = isinstance(error, InvalidFrameError) or (
                    isinstance(error, ExtrapolationError) and error.reason == 'past'
                )
                elapsed_s = (now_ns() - start_ns) / 1e9
                if is_final or is_stopping() or elapsed_s >= timeout_s or elapsed_s < 0:
                    raise
                if waited_s >= max(timeout_s, _MAX_WALL_WAIT_S):
                    raise
            else:
                self.last_error, self.fixed_frame = '', motion.fixed_frame
                return motion
            pause.wait(_RETRY_S)
            waited_s += _RETRY_S


class OdometrySource:
    """Fills a buffer with the ego pose from a `nav_msgs/Odometry` topic.

    Args:
        node: creates the subscription to `odom`.
        odom_frame: name under which the pose is stored.
        base_frame: name under which the pose is stored.
    """

    def __init__(self, node: Node, odom_frame: str, base_frame: str) -> None:
        from nav_msgs.msg import Odometry

        self.buffer = TransformBuffer()
        self._node = node
        self._frames = odom_frame, base_frame
        self._subscription = node.create_subscription(Odometry, 'odom', self._on_odometry, 100)

    def _on_odometry(self, message: Any) -> None:
        given = message.header.frame_id.removeprefix('/'), message.child_frame_id.removeprefix('/')
        if given != self._frames:
            self._node.get_logger().error(
                f"topic 'odom' carries '{given[0]}' -> '{given[1]}'; expected '{self._frames[0]}' "
                f'-> '
                f"'{self._frames[1]}': set odom_frame and base_frame",
                throttle_duration_sec=10.0,
            )
            return
        position, turn = message.pose.pose.position, message.pose.pose.orientation
        is_stored = self.buffer.set_transform(
            *self._frames,
            stamp_to_ns(message.header.stamp),
            (position.x, position.y, position.z),
            (turn.x, turn.y, turn.z, turn.w),
        )
        if not is_stored:
            self._node.get_logger().warning(
                "topic 'odom': ignored a pose that is not finite or has a quaternion of length 0",
                throttle_duration_sec=10.0,
            )

    def close(self) -> None:
        """End the subscription."""
        self._node.destroy_subscription(self._subscription)
