"""Towns as cities of nuScenes: the map expansion (version 1.3) and the raster mask.

A town takes the place of a part of one of the four cities, because the devkit's map knows no
others. The layers keep the vertices of the town; only their place is another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from gsmap_core.data.synthetic.layers import LaneSegment, TownLayers
from gsmap_core.data.synthetic.planar import left_normal
from gsmap_core.structures import FloatArray

#: The cities that the devkit's map accepts.
LOCATIONS = (
    'boston-seaport',
    'singapore-onenorth',
    'singapore-hollandvillage',
    'singapore-queenstown',
)
#: Grass between two towns of a city, so that no patch around a vehicle sees both [m].
_BETWEEN_TOWNS_M = 100.0
#: Pixels per metre of the raster mask; the devkit asks for this.
_MASK_PX_PER_M = 10
#: Lanes keep this far from islands: their edge and the island's are different polygons [m].
_ISLAND_MARGIN_M = 0.05


@dataclass(frozen=True)
class Place:
    """Where a town lies.

    Args:
        location: city.
        offset: (2,) town frame to city frame [m].
    """

    location: str
    offset: FloatArray


def place_towns(
    extents: Sequence[FloatArray],
) -> tuple[list[Place], dict[str, tuple[float, float]]]:
    """Give every town a place in a city, in turn.

    Args:
        extents: (4,) x_min, y_min, x_max, y_max of every town [m].

    Returns:
        Places, and width and height of each city that is used [m].
    """
    sizes = np.array([[e[2] - e[0], e[3] - e[1]] for e in extents])
    pitch = np.ceil(sizes.max(axis=0) + _BETWEEN_TOWNS_M)
    per_city = -(-len(extents) // len(LOCATIONS))
    columns = int(np.ceil(np.sqrt(per_city)))
    places: list[Place] = []
    edges: dict[str, tuple[float, float]] = {}
    for index, extent in enumerate(extents):
        location, slot = LOCATIONS[index % len(LOCATIONS)], index // len(LOCATIONS)
        corner = pitch * np.array([slot % columns, slot // columns])
        # Whole metres: coordinates keep the digits that they have in the town.
        offset = np.ceil(corner - extent[:2] + _BETWEEN_TOWNS_M / 2)
        places.append(Place(location, offset))
        edge = edges.get(location, (0.0, 0.0))
        edges[location] = (
            max(edge[0], float(corner[0] + pitch[0])),
            max(edge[1], float(corner[1] + pitch[1])),
        )
    return places, edges


def token_of(*parts: object) -> str:
    """Return the token of a record: 32 hexadecimal digits that depend on its parts alone."""
    return hashlib.sha256('/'.join(map(str, parts)).encode()).hexdigest()[:32]


def map_expansion(
    towns: Sequence[tuple[TownLayers, FloatArray]], canvas_edge: tuple[float, float]
) -> dict[str, Any]:
    """Return the vector map of a city.

    Args:
        towns: layers with the offset of their town [m].
        canvas_edge: width and height of the city [m].
    """
    records = _Records()
    for number, (layers, offset) in enumerate(towns):
        _add_town(records, layers, offset, f'town{number}')
    return {'version': '1.3', **records.layers, 'canvas_edge': list(canvas_edge)}


def raster_mask(
    towns: Sequence[tuple[TownLayers, FloatArray]], canvas_edge: tuple[float, float]
) -> np.ndarray:
    """Return the mask of what belongs to the road, sidewalks included.

    Args:
        towns: layers with the offset of their town [m].
        canvas_edge: width and height of the city [m].

    Returns:
        (H, W) uint8, 255 on road and sidewalk, 0 elsewhere; 10 pixels per metre, north up.
    """
    width, height = (round(edge * _MASK_PX_PER_M) for edge in canvas_edge)
    mask = np.zeros((height, width), dtype=np.uint8)
    for layers, offset in towns:
        walkways = [[part.exterior, *part.interiors] for part in layers.walkways]
        rings = [[np.asarray(ring.coords) for ring in part] for part in walkways]
        for part in [*rings, *([area.outline] for area in layers.road_areas)]:
            pixels = [(ring + offset) * _MASK_PX_PER_M * [1, -1] + [0, height] for ring in part]
            # Rings of one part together: even-odd filling leaves its holes out.
            cv2.fillPoly(mask, [np.round(ring).astype(np.int32) for ring in pixels], (255,))
    return mask


class _Records:
    """The layers of a map expansion while they are filled."""

    def __init__(self) -> None:
        self.layers: dict[str, Any] = {
            name: []
            for name in (
                *('polygon', 'line', 'node', 'drivable_area', 'road_segment', 'road_block'),
                *('lane', 'ped_crossing', 'walkway', 'stop_line', 'carpark_area'),
                *('road_divider', 'lane_divider', 'traffic_light', 'lane_connector'),
            )
        }
        self.layers['arcline_path_3'] = {}
        self.layers['connectivity'] = {}

    def add(self, layer: str, record: dict[str, Any]) -> str:
        """Add a record and return its token."""
        self.layers[layer].append(record)
        return str(record['token'])

    def nodes(self, name: str, points: FloatArray) -> list[str]:
        """Add a node per point and return their tokens."""
        return [
            self.add('node', {'token': token_of(name, i), 'x': float(x), 'y': float(y)})
            for i, (x, y) in enumerate(points)
        ]

    def polygon(self, name: str, outline: FloatArray, holes: Sequence[FloatArray] = ()) -> str:
        """Add a polygon and return its token."""
        return self.add(
            'polygon',
            {
                'token': token_of(name, 'polygon'),
                'exterior_node_tokens': self.nodes(f'{name}/outline', outline),
                'holes': [
                    {'node_tokens': self.nodes(f'{name}/hole{i}', hole)}
                    for i, hole in enumerate(holes)
                ],
            },
        )

    def line(self, name: str, points: FloatArray) -> tuple[str, list[str]]:
        """Add a line and return its token and those of its nodes."""
        nodes = self.nodes(name, points)
        return self.add('line', {'token': token_of(name, 'line'), 'node_tokens': nodes}), nodes


def _add_town(records: _Records, layers: TownLayers, offset: FloatArray, town: str) -> None:
    """Add all layers of one town."""
    polygons = []
    for index, area in enumerate(layers.road_areas):
        name = f'{town}/road{index}'
        polygon = records.polygon(name, area.outline + offset)
        polygons.append(polygon)
        records.add(
            'road_segment',
            {
                'token': token_of(name),
                'polygon_token': polygon,
                'is_intersection': area.is_junction,
                'drivable_area_token': token_of(town, 'drivable'),
            },
        )
    records.add('drivable_area', {'token': token_of(town, 'drivable'), 'polygon_tokens': polygons})
    for index, ring in enumerate(layers.crossings):
        name = f'{town}/crossing{index}'
        polygon = records.polygon(name, ring + offset)
        records.add(
            'ped_crossing',
            {'token': token_of(name), 'polygon_token': polygon, 'road_segment_token': None},
        )
    for index, part in enumerate(layers.walkways):
        name = f'{town}/walkway{index}'
        rings = [np.asarray(r.coords)[:-1] + offset for r in (part.exterior, *part.interiors)]
        polygon = records.polygon(name, rings[0], rings[1:])
        records.add('walkway', {'token': token_of(name), 'polygon_token': polygon})
    for index, points in enumerate(layers.road_dividers):
        name = f'{town}/road_divider{index}'
        line, _ = records.line(name, points + offset)
        records.add(
            'road_divider',
            {'token': token_of(name), 'line_token': line, 'road_segment_token': None},
        )
    for index, points in enumerate(layers.lane_dividers):
        name = f'{town}/lane_divider{index}'
        line, nodes = records.line(name, points + offset)
        segments = [{'node_token': n, 'segment_type': 'SINGLE_DASHED_WHITE'} for n in nodes]
        records.add(
            'lane_divider',
            {'token': token_of(name), 'line_token': line, 'lane_divider_segments': segments},
        )
    for index, segment in enumerate(layers.segments):
        _add_lane(records, segment, index, offset, town)


def _add_lane(
    records: _Records, segment: LaneSegment, index: int, offset: FloatArray, town: str
) -> None:
    """Add a lane, or a lane connector inside a junction, with its centre line and its links."""

    def token(number: int) -> str:
        return token_of(town, 'lane', number)

    left = segment.left
    if segment.is_beside_island:
        left = left + _ISLAND_MARGIN_M * _to_the_right(left)
    ring = np.concatenate([segment.right, left[::-1]]) + offset
    record = {'token': token(index), 'polygon_token': records.polygon(f'{town}/lane{index}', ring)}
    if segment.street:
        records.add(
            'lane',
            {
                **record,
                'lane_type': 'CAR',
                'from_edge_line_token': None,
                'to_edge_line_token': None,
                'left_lane_divider_segments': [],
                'right_lane_divider_segments': [],
            },
        )
    else:
        records.add('lane_connector', record)
    records.layers['connectivity'][token(index)] = {
        'incoming': [token(number) for number in segment.predecessors],
        'outgoing': [token(number) for number in segment.successors],
    }
    records.layers['arcline_path_3'][token(index)] = _straight_pieces(segment.centre + offset)


def _to_the_right(line: FloatArray) -> FloatArray:
    """Return (P, 2) unit vectors to the right of a line."""
    direction = np.gradient(line, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return -left_normal(direction)


def _straight_pieces(points: FloatArray) -> list[dict[str, Any]]:
    """Return a centre line as arc-line paths without arcs, one per edge."""
    pieces = []
    for start, end in zip(points[:-1], points[1:], strict=True):
        x, y = end - start
        heading = float(np.arctan2(y, x))
        pieces.append(
            {
                'start_pose': [float(start[0]), float(start[1]), heading],
                'end_pose': [float(end[0]), float(end[1]), heading],
                'shape': 'LSR',
                'radius': 1.0,
                'segment_length': [0.0, float(np.hypot(x, y)), 0.0],
            }
        )
    return pieces
