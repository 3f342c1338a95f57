"""A town as the map of an Argoverse 2 log: vector map archive and ground height raster.

The city frame is the town frame. Where nothing is painted between two lanes, they are no
neighbours: one does not change lanes there, and no divider is derived from them. Of two lanes that
meet at a centre line only the one that follows its street names the other: the published
construction loses a line that two opposing lanes share from end to end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gsmap_core.data.synthetic.layers import LaneSegment, TownLayers
from gsmap_core.data.synthetic.scene import HeightField, Town
from gsmap_core.structures import FloatArray

#: Width of a cell of the ground height raster [m].
_CELL_M = 0.3
#: Numbers of the first lane segment, crossing and drivable area.
_FIRST_LANE, _FIRST_CROSSING, _FIRST_AREA = 38_000_000, 2_000_000, 1_000_000
_CENTRE_MARKS = {'double': 'DOUBLE_SOLID', 'solid': 'SOLID', 'dashed': 'DASHED'}


def map_archive(town: Town, layers: TownLayers) -> dict[str, Any]:
    """Return the content of `log_map_archive_*.json`."""
    lanes = [
        _lane(number, segment, layers.has_yellow_centre, town.ground)
        for number, segment in enumerate(layers.segments)
    ]
    crossings = [
        {
            'id': _FIRST_CROSSING + number,
            # The two edges along which people walk, both in the same direction.
            'edge1': _points(town.ground, ring[[0, 3]]),
            'edge2': _points(town.ground, ring[[1, 2]]),
        }
        for number, ring in enumerate(layers.crossings)
    ]
    areas = [
        {
            'id': _FIRST_AREA + number,
            'area_boundary': _points(town.ground, area.outline),
        }
        for number, area in enumerate(layers.road_areas)
    ]
    return {
        'pedestrian_crossings': {str(item['id']): item for item in crossings},
        'lane_segments': {str(item['id']): item for item in lanes},
        'drivable_areas': {str(item['id']): item for item in areas},
    }


def ground_raster(town: Town) -> tuple[np.ndarray, dict[str, Any]]:
    """Return heights of the ground and where the raster lies.

    Returns:
        (H, W) float16 heights at the centres of the cells [m]; rotation, translation and scale
        that lead from the city to column and row.
    """
    x_min, y_min, x_max, y_max = (float(value) for value in town.extent)
    x = np.arange(x_min, x_max, _CELL_M) + _CELL_M / 2
    y = np.arange(y_min, y_max, _CELL_M) + _CELL_M / 2
    # Row by row: the waves of all cells at once would take a hundred times the raster's memory.
    rows = [town.ground.height(np.column_stack([x, np.full(len(x), at)])) for at in y]
    similarity = {'R': [1.0, 0.0, 0.0, 1.0], 't': [-x_min, -y_min], 's': 1.0 / _CELL_M}
    return np.array(rows).astype(np.float16), similarity


def _lane(
    number: int, segment: LaneSegment, is_yellow: bool, ground: HeightField
) -> dict[str, Any]:
    is_second_at_centre = segment.is_innermost and segment.street < 0
    return {
        'id': _FIRST_LANE + number,
        'is_intersection': segment.street == 0,
        'lane_type': 'VEHICLE',
        'left_lane_boundary': _points(ground, segment.left),
        'left_lane_mark_type': _mark(segment.left_mark, is_yellow and segment.is_innermost),
        'right_lane_boundary': _points(ground, segment.right),
        'right_lane_mark_type': _mark(segment.right_mark, False),
        'successors': [_FIRST_LANE + other for other in segment.successors],
        'predecessors': [_FIRST_LANE + other for other in segment.predecessors],
        'right_neighbor_id': _number(segment.right_neighbour),
        'left_neighbor_id': None if is_second_at_centre else _number(segment.left_neighbour),
    }


def _mark(kind: str, is_yellow: bool) -> str:
    if kind == 'none':
        return 'NONE'
    return f'{_CENTRE_MARKS[kind]}_{"YELLOW" if is_yellow else "WHITE"}'


def _number(segment: int | None) -> int | None:
    return None if segment is None else _FIRST_LANE + segment


def _points(ground: HeightField, points: FloatArray) -> list[dict[str, float]]:
    heights = ground.height(points)
    return [
        {'x': float(x), 'y': float(y), 'z': float(z)}
        for (x, y), z in zip(points, heights, strict=True)
    ]
