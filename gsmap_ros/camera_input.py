"""Subscriptions to images and CameraInfo, and what diagnostics say about each camera."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gsmap_core.errors import ConfigError
from gsmap_core.structures import CameraRig
from gsmap_ros.calibration import CameraCalibration
from gsmap_ros.conversions import stamp_to_ns
from gsmap_ros.diagnostics import ERROR, OK, STALE, WARN, Arrivals, Status

if TYPE_CHECKING:
    from rclpy.node import Node

    from gsmap_ros.frame_builder import FrameBuilder

#: A camera that has been silent for so long is reported [s].
_SILENT_S = 2.0
_IMAGE_TYPES = {'compressed': 'sensor_msgs/msg/CompressedImage', 'raw': 'sensor_msgs/msg/Image'}


def image_topic(camera: str, transport: str, is_rectified: bool) -> str:
    """Return the (relative) image topic of a camera, by image_transport's rule."""
    base = f'{camera}/{"image_rect" if is_rectified else "image_raw"}'
    return f'{base}/compressed' if transport == 'compressed' else base


def info_topic(camera: str) -> str:
    """Return the (relative) CameraInfo topic of a camera."""
    return f'{camera}/camera_info'


def discover_cameras(
    topics: Iterable[tuple[str, Sequence[str]]], transport: str, is_rectified: bool
) -> tuple[str, ...]:
    """Return the cameras whose image topic is in the graph, the front one first.

    Args:
        topics: names and types, as `Node.get_topic_names_and_types` gives them.
        transport: `compressed` or `raw`.
        is_rectified: which image topic to look for.
    """
    ending = image_topic('', transport, is_rectified)
    names = [
        name.removesuffix(ending).lstrip('/')
        for name, types in topics
        if name.endswith(ending) and _IMAGE_TYPES[transport] in types
    ]
    names = [name for name in names if name]

    def ahead_first(name: str) -> tuple[bool, bool, int, str]:
        return ('front' not in name, 'left' in name or 'right' in name, len(name), name)

    return tuple(sorted(names, key=ahead_first))


def choose_cameras(
    given: tuple[str, ...],
    rig: CameraRig | None,
    topics: Iterable[tuple[str, Sequence[str]]],
    transport: str,
    is_rectified: bool,
) -> tuple[str, ...]:
    """Decide which cameras to use: given, else of the rig file, else in the graph.

    Raises:
        ConfigError: one that is given is not in the rig file; or the graph has none; or it has
            cameras of several vehicles. The message lists the candidates.
    """
    if given:
        missing = [name for name in given if rig is not None and name not in rig.names]
        if rig is not None and missing:
            raise ConfigError(
                f"cameras {', '.join(missing)} are not in rig '{rig.name}'; it has "
                f'{", ".join(rig.names)}'
            )
        return given
    if rig is not None:
        return rig.names
    found = discover_cameras(topics, transport, is_rectified)
    if not found:
        raise ConfigError(
            "parameter 'cameras' is empty, no rig.file is given, and the graph has no topic like "
            f"'{image_topic('<camera>', transport, is_rectified)}'; start the cameras, or set "
            f'cameras'
        )
    if len({name.rpartition('/')[0] for name in found}) > 1:
        raise ConfigError(
            f"parameter 'cameras' is empty and the graph has cameras in several namespaces: "
            f'[{", ".join(found)}]; set '
            'cameras to those to use'
        )
    return found


class CameraInputs:
    """The subscriptions of one node to its cameras.

    Args:
        node: creates the subscriptions.
        names: cameras in order.
        transport: `compressed` or `raw`.
        is_rectified: whether the images are.
        reliability: `reliable` or `best_effort`.
        rig: calibration that overrides CameraInfo, or None.
        on_image: called with camera, stamp [ns] and message.
    """

    def __init__(
        self,
        node: Node,
        names: tuple[str, ...],
        transport: str,
        is_rectified: bool,
        reliability: str,
        rig: CameraRig | None,
        on_image: Callable[[str, int, Any], None],
    ) -> None:
        self._node = node
        self._transport = transport
        self._reliability = reliability
        self._on_image = on_image
        self.topics = {name: image_topic(name, transport, is_rectified) for name in names}
        self.calibrations = {
            name: CameraCalibration(
                name, info_topic(name), is_rectified, None if rig is None else rig.camera(name)
            )
            for name in names
        }
        self._arrivals = {name: Arrivals() for name in names}
        self._subscriptions: list[Any] = []

    def start(self) -> None:
        """Subscribe."""
        from rclpy.event_handler import SubscriptionEventCallbacks
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        profile = QoSProfile(
            depth=5,
            reliability=ReliabilityPolicy.RELIABLE
            if self._reliability == 'reliable'
            else ReliabilityPolicy.BEST_EFFORT,
        )
        image_type = CompressedImage if self._transport == 'compressed' else Image
        for name, topic in self.topics.items():
            events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible(topic))
            self._subscriptions += [
                self._node.create_subscription(
                    image_type,
                    topic,
                    self._image_callback(name),
                    profile,
                    event_callbacks=events,
                    qos_overriding_options=self._overrides(topic),
                ),
                self._node.create_subscription(
                    CameraInfo, info_topic(name), self._info_callback(name), profile
                ),
            ]

    def _overrides(self, topic: str) -> Any:
        """Return the options for a topic whose QoS the user overrides, else None.

        rclpy declares the overrides of an entity once and for all, with the values it had then:
        `image_reliability` could not change any more.
        """
        from rclpy.qos_overriding_options import QoSOverridingOptions

        start = f'{self._node.resolve_topic_name(topic)}.subscription'
        given = self._node.get_parameters_by_prefix('qos_overrides')
        if any(name.startswith(start) for name in given):
            return QoSOverridingOptions.with_default_policies()
        return None

    def stop(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _image_callback(self, camera: str) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            self._arrivals[camera].note()
            self._on_image(camera, stamp_to_ns(message.header.stamp), message)

        return receive

    def _info_callback(self, camera: str) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            calibration = self.calibrations[camera]
            if calibration.update(message) and calibration.error:
                self._node.get_logger().error(calibration.error)

        return receive

    def _on_incompatible(self, topic: str) -> Callable[[Any], None]:
        def report(event: Any) -> None:
            from rclpy.qos import qos_policy_name_from_kind

            policy = qos_policy_name_from_kind(event.last_policy_kind)
            self._node.get_logger().warning(
                f"topic '{topic}': a publisher offers an incompatible QoS ({policy}); nothing "
                f'will be received from it; '
                'set image_reliability to best_effort or change the publisher'
            )

        return report

    def statuses(self, builder: FrameBuilder) -> list[Status]:
        """Return one status per camera."""
        return [self._status(name, builder) for name in self.topics]

    def _status(self, name: str, builder: FrameBuilder) -> Status:
        arrivals, calibration = self._arrivals[name], self.calibrations[name]
        age_s, camera = arrivals.age_s, calibration.camera
        values: dict[str, object] = {
            'topic': self.topics[name],
            'images': arrivals.count,
            'rate_hz': f'{arrivals.rate_hz:.2f}',
            'age_s': '' if age_s is None else f'{age_s:.2f}',
            'calibrated': camera is not None,
            'calibration': '' if camera is None else f'{camera.width_px} x {camera.height_px} px',
            'unusable_images': builder.unusable_images[name],
            'last_error': builder.last_image_errors.get(name, calibration.error),
        }
        title = f'camera {name}'
        if age_s is None:
            return Status(title, STALE, f"no image seen on '{self.topics[name]}' yet", values)
        if camera is None:
            text = calibration.error or f"nothing received on '{info_topic(name)}' yet"
            return Status(title, ERROR, text, values)
        if age_s > _SILENT_S:
            return Status(title, WARN, f'silent for {age_s:.1f} s', values)
        if name in builder.last_image_errors:
            return Status(title, WARN, builder.last_image_errors[name], values)
        return Status(title, OK, f'{arrivals.rate_hz:.1f} images a second', values)
