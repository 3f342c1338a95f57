"""The map builder's publishers: the fused map and its markers, latched for whoever comes late."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gsmap_core.structures import VectorMap
from gsmap_ros.conversions import fused_map_to_message
from gsmap_ros.markers import (
    MAX_STRIPS,
    MarkerKey,
    MarkerStyle,
    clear_markers,
    list_markers,
    map_markers,
)
from gsmap_ros.parameters import NodeParameters

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode


class MapBuilderOutput:
    """Publishes the fused map while the node is active.

    Args:
        node: creates the publishers.
        values: styles are read anew for every map, so that they may change.
    """

    def __init__(self, node: LifecycleNode, values: NodeParameters) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from rclpy.qos_overriding_options import QoSOverridingOptions
        from visualization_msgs.msg import MarkerArray

        from gsmap_ros.msg import VectorMap as VectorMapMessage

        self._node = node
        self._values = values
        self._shown: frozenset[MarkerKey] = frozenset()
        self._needs_clear = False
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        overridable = QoSOverridingOptions.with_default_policies()
        self._maps = node.create_lifecycle_publisher(
            VectorMapMessage, '~/map', latched, qos_overriding_options=overridable
        )
        self._markers = node.create_lifecycle_publisher(
            MarkerArray, '~/map_markers', latched, qos_overriding_options=overridable
        )

    def publish(self, fused: VectorMap, revision: int) -> None:
        """Publish a map in the map frame, and markers whose ids are those of its elements.

        Every array of markers says all of it: a display that comes late gets the last one only.
        """
        values = self._values
        frame = values['map_frame']
        self._maps.publish(fused_map_to_message(fused, frame, revision))
        is_drawn = values['publish.markers']
        if not (is_drawn or self._shown or self._needs_clear):
            return
        drawn = fused if is_drawn else replace(fused, elements=())
        style = MarkerStyle(
            values['markers.line_width_m'],
            lifetime_s=0.0,
            frame_locked=False,
            ellipses=values['markers.ellipses'],
        )
        draw = map_markers if len(drawn) <= MAX_STRIPS else list_markers
        markers, self._shown = draw(drawn, frame, style, self._shown)
        if self._needs_clear:
            first = clear_markers(frame, fused.stamp_ns).markers
            markers.markers = [*first, *markers.markers]
            self._needs_clear = False
        self._markers.publish(markers)

    def clear_markers(self) -> None:
        """Let the next array begin with the removal of every marker on the displays."""
        self._shown, self._needs_clear = frozenset(), True

    def close(self) -> None:
        """Destroy the publishers."""
        # The node lists its lifecycle publishers; destroy_publisher would leave them there.
        for publisher in (self._maps, self._markers):
            self._node.destroy_lifecycle_publisher(publisher)
