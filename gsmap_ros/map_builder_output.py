"""The map builder's publishers: the fused map and its markers, latched for whoever comes late."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gsmap_core.structures import VectorMap
from gsmap_ros.conversions import fused_map_to_message
from gsmap_ros.map_output import MapPublishers
from gsmap_ros.markers import (
    MAX_STRIPS,
    MarkerStyle,
    clear_markers,
    list_markers,
    map_markers,
)
from gsmap_ros.parameters import NodeParameters

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode


class MapBuilderOutput(MapPublishers):
    """Publishes the fused map while the node is active; arguments as `MapPublishers`."""

    def __init__(self, node: LifecycleNode, values: NodeParameters) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        from gsmap_ros.msg import VectorMap as VectorMapMessage

        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        super().__init__(node, values, VectorMapMessage, '~/map', latched)
        self._needs_clear = False

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
