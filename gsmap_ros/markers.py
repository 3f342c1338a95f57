"""Markers of local maps for RViz: pure functions from maps to `visualization_msgs/MarkerArray`.

Namespace is the category name, id the element's identity or its place in the array. Ids that
vanish are deleted one by one: clearing everything each time would flicker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gsmap_core.categories import category_by_id
from gsmap_core.geometry.ellipses import covariance_ellipses
from gsmap_core.structures import FloatArray, MapElement, VectorMap
from gsmap_ros.conversions import ns_to_stamp

MarkerKey = tuple[str, int]
#: Ending of the namespaces that hold the ellipses; their ids are those of the elements.
ELLIPSE_NAMESPACE = '_sigma'
_ELLIPSE_CORNERS = 16
#: A map of more elements is drawn as lists of line segments, one per category and square.
MAX_STRIPS = 300
_SQUARE_M = 100.0


@dataclass(frozen=True)
class MarkerStyle:
    """How elements are drawn.

    Args:
        line_width_m: width of the lines [m].
        lifetime_s: RViz removes markers that are not renewed for so long; 0: never [s].
        frame_locked: keep them fixed to the moving frame between two updates.
        ellipses: also draw the one-sigma ellipse of every vertex that has a covariance, in
            namespaces of their own.
    """

    line_width_m: float = 0.15
    lifetime_s: float = 0.5
    frame_locked: bool = True
    ellipses: bool = False


def marker_keys(elements: Iterable[MapElement]) -> list[MarkerKey]:
    """Return namespace and id of each element, unique in the array.

    A tracked element keeps its identity; the others are numbered by their place within their
    category, which keeps their ids small and stable while the number of elements changes little. 0
    is never used: (``""``, 0) is RViz's DELETEALL.
    """
    elements = list(elements)
    used = {(e.category_name, e.id) for e in elements if e.id}
    counters: dict[str, int] = {}
    keys: list[MarkerKey] = []
    for element in elements:
        name = element.category_name
        if element.id:
            keys.append((name, element.id))
            continue
        place = counters.get(name, 0) + 1
        while (name, place) in used:
            place += 1
        counters[name] = place
        keys.append((name, place))
    return keys


def clear_markers(frame_id: str, stamp_ns: int) -> Any:
    """Build the array that removes every marker of the topic (on activate and reset)."""
    from visualization_msgs.msg import Marker, MarkerArray

    return MarkerArray(markers=[_bare_marker(frame_id, stamp_ns, ('', 0), Marker.DELETEALL)])


def map_markers(
    local_map: VectorMap,
    frame_id: str,
    style: MarkerStyle,
    previous: frozenset[MarkerKey] = frozenset(),
) -> tuple[Any, frozenset[MarkerKey]]:
    """Build the markers of a map.

    Args:
        local_map: elements in `frame_id` [m].
        frame_id: frame of the markers.
        style: how they are drawn.
        previous: keys that are on display; those without an element now get a DELETE.

    Returns:
        The `MarkerArray`, and the keys now on display.
    """
    from visualization_msgs.msg import Marker, MarkerArray

    keys = marker_keys(local_map.elements)
    markers = []
    shown = set(keys)
    for element, key in zip(local_map.elements, keys, strict=True):
        markers.append(_element_marker(element, key, frame_id, local_map.stamp_ns, style))
        if style.ellipses and element.covariance is not None:
            ellipse_key = (key[0] + ELLIPSE_NAMESPACE, key[1])
            shown.add(ellipse_key)
            markers.append(
                _ellipse_marker(element, ellipse_key, frame_id, local_map.stamp_ns, style)
            )
    markers += [
        _bare_marker(frame_id, local_map.stamp_ns, key, Marker.DELETE)
        for key in sorted(previous - shown)
    ]
    return MarkerArray(markers=markers), frozenset(shown)


def list_markers(
    fused: VectorMap,
    frame_id: str,
    style: MarkerStyle,
    previous: frozenset[MarkerKey] = frozenset(),
) -> tuple[Any, frozenset[MarkerKey]]:
    """Build the markers of a large map: all lines of a category in a square are one marker.

    A display draws a thousand strips slowly and a few long lists fast. An element belongs to the
    square of its first vertex. Ellipses are not drawn.

    Args:
        fused: elements in `frame_id` [m].
        frame_id: frame of the markers.
        style: how they are drawn.
        previous: keys that are on display; those that are not among the new ones get a DELETE.

    Returns:
        The `MarkerArray`, and the keys now on display.
    """
    from visualization_msgs.msg import Marker, MarkerArray

    groups: dict[MarkerKey, list[MapElement]] = {}
    for element in fused.elements:
        column, row = np.floor(element.vertices[0, :2] / _SQUARE_M).astype(int).tolist()
        # 15 bits each, around the middle of the map; never 0.
        place = 1 + ((column % (1 << 15)) << 15) + row % (1 << 15)
        groups.setdefault((element.category_name, place), []).append(element)
    markers = []
    for key, elements in sorted(groups.items(), key=lambda item: item[0]):
        marker = _styled_marker(elements[0], key, frame_id, fused.stamp_ns, style)
        marker.type = Marker.LINE_LIST
        marker.scale.x = style.line_width_m
        for element in elements:
            vertices = element.vertices
            if element.closed:
                vertices = np.concatenate([vertices, vertices[:1]])
            segments = np.stack([vertices[:-1], vertices[1:]], axis=1)
            marker.points += _points(segments.reshape(-1, vertices.shape[1]))
        markers.append(marker)
    shown = frozenset(groups)
    markers += [
        _bare_marker(frame_id, fused.stamp_ns, key, Marker.DELETE)
        for key in sorted(previous - shown)
    ]
    return MarkerArray(markers=markers), shown


def _bare_marker(frame_id: str, stamp_ns: int, key: MarkerKey, action: int) -> Any:
    from visualization_msgs.msg import Marker

    marker = Marker(ns=key[0], id=key[1], action=action)
    marker.header.frame_id = frame_id
    marker.header.stamp = ns_to_stamp(stamp_ns)
    return marker


def _element_marker(
    element: MapElement, key: MarkerKey, frame_id: str, stamp_ns: int, style: MarkerStyle
) -> Any:
    from visualization_msgs.msg import Marker

    marker = _styled_marker(element, key, frame_id, stamp_ns, style)
    marker.type = Marker.LINE_STRIP
    marker.scale.x = style.line_width_m
    vertices = element.vertices
    marker.points = _points(
        np.concatenate([vertices, vertices[:1]]) if element.closed else vertices
    )
    return marker


def _ellipse_marker(
    element: MapElement, key: MarkerKey, frame_id: str, stamp_ns: int, style: MarkerStyle
) -> Any:
    """Draw the one-sigma ellipses of all vertices as one list of line segments."""
    from visualization_msgs.msg import Marker

    assert element.covariance is not None
    marker = _styled_marker(element, key, frame_id, stamp_ns, style)
    marker.type = Marker.LINE_LIST
    marker.scale.x = style.line_width_m / 3
    marker.color.a = 0.6
    outlines = covariance_ellipses(element.covariance, _ELLIPSE_CORNERS)
    corners = np.repeat(element.vertices[:, None], _ELLIPSE_CORNERS, axis=1)
    corners[..., :2] += outlines
    segments = np.stack([corners, np.roll(corners, -1, axis=1)], axis=2)
    marker.points = _points(segments.reshape(-1, corners.shape[-1]))
    return marker


def _points(vertices: FloatArray) -> list[Any]:
    from geometry_msgs.msg import Point

    return [
        Point(x=vertex[0], y=vertex[1], z=vertex[2] if len(vertex) == 3 else 0.0)
        for vertex in vertices.tolist()
    ]


def _styled_marker(
    element: MapElement, key: MarkerKey, frame_id: str, stamp_ns: int, style: MarkerStyle
) -> Any:
    from builtin_interfaces.msg import Duration
    from std_msgs.msg import ColorRGBA
    from visualization_msgs.msg import Marker

    marker = _bare_marker(frame_id, stamp_ns, key, Marker.ADD)
    marker.pose.orientation.w = 1.0
    red, green, blue = (channel / 255 for channel in category_by_id(element.category).colour_rgb)
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    whole_s = int(style.lifetime_s)
    marker.lifetime = Duration(sec=whole_s, nanosec=int((style.lifetime_s - whole_s) * 1e9))
    marker.frame_locked = style.frame_locked
    return marker
