"""The mapping node's publishers: local maps and their markers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gsmap_core.structures import VectorMap
from gsmap_ros.conversions import local_map_to_message
from gsmap_ros.diagnostics import OK, Status
from gsmap_ros.markers import MarkerKey, MarkerStyle, clear_markers, map_markers
from gsmap_ros.parameters import NodeParameters

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode
    from rclpy.qos import QoSProfile

_DEPTH = 5
#: So long arrays begin with the removal of older markers after a display was found [s].
_CLEAR_S = 2.0


class MapPublishers:
    """The publishers of a map and of its markers; they publish while the node is active.

    Args:
        node: creates the publishers.
        values: styles are read anew for every map, so that they may change.
        message: type of the map.
        topic: of the map; that of the markers has `_markers` behind it.
        profile: of both.
    """

    def __init__(
        self,
        node: LifecycleNode,
        values: NodeParameters,
        message: Any,
        topic: str,
        profile: QoSProfile,
    ) -> None:
        from rclpy.qos_overriding_options import QoSOverridingOptions
        from visualization_msgs.msg import MarkerArray

        self._node = node
        self._values = values
        self._shown: frozenset[MarkerKey] = frozenset()
        self._maps, self._markers = (
            node.create_lifecycle_publisher(
                kind,
                name,
                profile,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for kind, name in ((message, topic), (MarkerArray, f'{topic}_markers'))
        )

    def close(self) -> None:
        """Destroy the publishers."""
        # The node lists its lifecycle publishers; destroy_publisher would leave them there.
        for publisher in (self._maps, self._markers):
            self._node.destroy_lifecycle_publisher(publisher)


class MapOutput(MapPublishers):
    """Publishes local maps while the node is active; arguments as `MapPublishers`."""

    def __init__(self, node: LifecycleNode, values: NodeParameters) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy

        from gsmap_ros.msg import MapElementArray

        profile = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        super().__init__(node, values, MapElementArray, '~/local_map', profile)
        #: Maps that left while nobody was subscribed: no recording can have them.
        self.num_unheard = 0
        self._num_displays = 0
        self._clear_until_s = 0.0

    def publish(self, local_map: VectorMap) -> int:
        """Publish a map as it is, and markers whose ids are those of its elements.

        Returns:
            Number of published elements.
        """
        values = self._values
        base = values['base_frame']
        if not self._maps.get_subscription_count():
            self.num_unheard += 1
        self._maps.publish(local_map_to_message(local_map, base))
        is_drawn = values['publish.markers']
        if is_drawn or self._shown:
            # Switched off a moment ago: what is still on display is deleted.
            drawn = local_map if is_drawn else replace(local_map, elements=())
            style = MarkerStyle(
                values['markers.line_width_m'],
                values['markers.lifetime_s'],
                ellipses=values['markers.ellipses'],
            )
            markers, self._shown = map_markers(drawn, base, style, self._shown)
            if self._is_display_new():
                first = clear_markers(base, local_map.stamp_ns).markers
                markers.markers = [*first, *markers.markers]
            self._markers.publish(markers)
        return len(local_map)

    def _is_display_new(self) -> bool:
        """Whether a display may still show what an earlier run of this node left there.

        What activation told to clear is lost on displays that are found later, and so is the first
        array after that: this side of a connection stands a little before the other one.
        """
        before, self._num_displays = self._num_displays, self._markers.get_subscription_count()
        now_s = time.monotonic()
        if self._num_displays > before:
            self._clear_until_s = now_s + _CLEAR_S
        return now_s < self._clear_until_s

    def clear_markers(self) -> None:
        """Remove every marker from the displays."""
        self._shown = frozenset()
        now_ns = int(self._node.get_clock().now().nanoseconds)
        self._markers.publish(clear_markers(self._values['base_frame'], now_ns))

    def status(self) -> Status:
        """Say who listens."""
        num_maps, num_markers = (
            publisher.get_subscription_count() for publisher in (self._maps, self._markers)
        )
        values = {
            'map_subscribers': num_maps,
            'marker_subscribers': num_markers,
            'maps_unheard': self.num_unheard,
        }
        return Status('output', OK, f'{num_maps} subscribers of {self._maps.topic_name}', values)
