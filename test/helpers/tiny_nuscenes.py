"""Writes a nuScenes dataset of one scene, small enough to work out by hand.

The vehicle drives east at 4 m/s from (400, 300). Two annotated samples lie 0.5 s apart, with four
unannotated image sets in between. The road is 8 m wide along y = 300, its lanes run east.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

LOCATION = 'singapore-onenorth'
CHANNELS = (
    'CAM_FRONT',
    'CAM_BACK',
    'CAM_FRONT_LEFT',
    'CAM_FRONT_RIGHT',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
    'LIDAR_TOP',
)
WIDTH_PX, HEIGHT_PX = 64, 36
START_US = 1_600_000_000_000_000
SPEED_M_S = 4.0
#: Cameras fire this much before the LiDAR sweep is complete [us].
CAMERA_LEAD_US = 40_000
#: Every LiDAR point in its own frame [m], and where the LiDAR sits: x right, y ahead.
LIDAR_POINT = (2.0, 10.0, 0.0)
LIDAR_POSITION = (1.0, 0.0, 1.8)
SAMPLE_TOKENS = ('sample-a', 'sample-b')
_TABLES = ('attribute', 'category', 'instance', 'sample_annotation', 'visibility')


def x_at(stamp_us: int) -> float:
    """Return where the vehicle is along x at a time [m]."""
    return 400.0 + SPEED_M_S * (stamp_us - START_US) / 1e6


def write_dataset(root: Path, version: str = 'v1.0-mini', scene: str = 'scene-0001') -> Path:
    """Write tables, map, images and sweeps; return the root."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
    tables['log'] = [
        {
            'token': 'log',
            'logfile': 'n000-2020-01-01',
            'vehicle': 'n000',
            'date_captured': '2020-01-01',
            'location': LOCATION,
        }
    ]
    tables['map'] = [
        {
            'token': 'map',
            'category': 'semantic_prior',
            'filename': 'maps/mask.png',
            'log_tokens': ['log'],
        }
    ]
    tables['scene'] = [
        {
            'token': 'scene',
            'log_token': 'log',
            'nbr_samples': 2,
            'first_sample_token': SAMPLE_TOKENS[0],
            'last_sample_token': SAMPLE_TOKENS[1],
            'name': scene,
            'description': 'straight on',
        }
    ]
    tables['sample'] = [
        {
            'token': token,
            'timestamp': START_US + 500_000 * index,
            'scene_token': 'scene',
            'prev': '' if index == 0 else SAMPLE_TOKENS[0],
            'next': SAMPLE_TOKENS[1] if index == 0 else '',
        }
        for index, token in enumerate(SAMPLE_TOKENS)
    ]
    tables['sensor'] = [
        {'token': c, 'channel': c, 'modality': 'camera' if c.startswith('CAM') else 'lidar'}
        for c in CHANNELS
    ]
    tables['calibrated_sensor'] = [_calibration(channel) for channel in CHANNELS]
    tables['sample_data'], tables['ego_pose'] = [], []
    for channel in CHANNELS:
        for number in range(6):
            _add_file(root, tables, channel, number)
    folder = root / version
    folder.mkdir(parents=True)
    for name, records in tables.items():
        (folder / f'{name}.json').write_text(json.dumps(records), encoding='utf-8')
    (root / 'maps' / 'expansion').mkdir(parents=True)
    cv2.imwrite(str(root / 'maps' / 'mask.png'), np.zeros((4, 4), np.uint8))
    write_map(root, road_map())
    return root


def write_map(root: Path, content: dict[str, Any]) -> None:
    """Write the map expansion of `LOCATION`."""
    path = root / 'maps' / 'expansion' / f'{LOCATION}.json'
    path.write_text(json.dumps(content), encoding='utf-8')


def road_map() -> dict[str, Any]:
    """Return the map: one road, a divider in its middle, a crossing in two halves, two lanes."""
    city = empty_map()
    add_line(city, 'road_divider', [[300, 300], [500, 300]])
    add_line(city, 'lane_divider', [[380, 302], [420, 302]])
    add_area(city, 'road_segment', [[300, 296], [400, 296], [400, 304], [300, 304]])
    add_area(city, 'road_segment', [[400, 296], [500, 296], [500, 304], [400, 304]])
    add_area(city, 'ped_crossing', [[410, 296], [413, 296], [413, 300], [410, 300]])
    add_area(city, 'ped_crossing', [[410, 300], [413, 300], [413, 304], [410, 304]])
    add_lane(city, 'first', 390.0, 410.0, outgoing=['second'])
    add_lane(city, 'second', 410.0, 425.0, incoming=['first'])
    return city


def empty_map() -> dict[str, Any]:
    """Return a map expansion without content."""
    layers = (
        'polygon line node drivable_area road_segment road_block lane ped_crossing walkway '
        'stop_line carpark_area road_divider lane_divider traffic_light lane_connector'
    ).split()
    return {
        'version': '1.3',
        'canvas_edge': [1585.6, 2025.0],
        **{layer: [] for layer in layers},
        'arcline_path_3': {},
        'connectivity': {},
    }


def add_line(city: dict[str, Any], layer: str, points: list[list[float]]) -> str:
    """Add a record with a line; return its token."""
    token = f'{layer}-{len(city[layer])}'
    city['line'].append({'token': f'line-{token}', 'node_tokens': _nodes(city, points)})
    city[layer].append({'token': token, 'line_token': f'line-{token}'})
    return token


def add_area(city: dict[str, Any], layer: str, points: list[list[float]]) -> str:
    """Add a record with a polygon without holes; return its token."""
    token = f'{layer}-{len(city[layer])}'
    nodes = _nodes(city, points)
    city['polygon'].append(
        {'token': f'polygon-{token}', 'exterior_node_tokens': nodes, 'holes': []}
    )
    city[layer].append({'token': token, 'polygon_token': f'polygon-{token}'})
    return token


def add_lane(
    city: dict[str, Any],
    token: str,
    start_x: float,
    end_x: float,
    *,
    incoming: list[str] | None = None,
    outgoing: list[str] | None = None,
) -> None:
    """Add a lane along y = 298, straight on to the east."""
    corners = [[start_x, 296], [end_x, 296], [end_x, 300], [start_x, 300]]
    nodes = _nodes(city, corners)
    city['polygon'].append(
        {'token': f'polygon-{token}', 'exterior_node_tokens': nodes, 'holes': []}
    )
    city['lane'].append(
        {
            'token': token,
            'polygon_token': f'polygon-{token}',
            'lane_type': 'CAR',
            'left_lane_divider_segments': [],
            'right_lane_divider_segments': [],
        }
    )
    city['connectivity'][token] = {'incoming': incoming or [], 'outgoing': outgoing or []}
    city['arcline_path_3'][token] = [
        {
            'start_pose': [start_x, 298.0, 0.0],
            'end_pose': [end_x, 298.0, 0.0],
            'shape': 'LSR',
            'radius': 999.999,
            'segment_length': [0.0, end_x - start_x, 0.0],
        }
    ]


def _nodes(city: dict[str, Any], points: list[list[float]]) -> list[str]:
    tokens = []
    for x, y in points:
        token = f'node-{len(city["node"])}'
        city['node'].append({'token': token, 'x': x, 'y': y})
        tokens.append(token)
    return tokens


def _calibration(channel: str) -> dict[str, Any]:
    if channel == 'LIDAR_TOP':
        # x right, y ahead: turned by -90 degrees.
        half = float(np.sqrt(0.5))
        rotation, intrinsics = [half, 0.0, 0.0, -half], []
        translation = list(LIDAR_POSITION)
    else:
        rotation = [0.5, -0.5, 0.5, -0.5]  # looks ahead, x right, y down
        intrinsics = [[50.0, 0.0, 31.5], [0.0, 50.0, 17.5], [0.0, 0.0, 1.0]]
        translation = [1.5, 0.1 * CHANNELS.index(channel), 1.6]
    return {
        'token': f'calibration-{channel}',
        'sensor_token': channel,
        'translation': translation,
        'rotation': rotation,
        'camera_intrinsic': intrinsics,
    }


def _add_file(
    root: Path, tables: dict[str, list[dict[str, Any]]], channel: str, number: int
) -> None:
    """Add the file of one sensor: number 0 and 5 belong to samples, the others lie between."""
    is_key = number in (0, 5)
    is_camera = channel.startswith('CAM')
    stamp_us = START_US + 100_000 * number - (CAMERA_LEAD_US if is_camera else 0)
    token = f'{channel}-{number}'
    folder = 'samples' if is_key else 'sweeps'
    name = f'{folder}/{channel}/{stamp_us}{".jpg" if is_camera else ".pcd.bin"}'
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_camera:
        shade = 20 * CHANNELS.index(channel) + 10 * number
        cv2.imwrite(str(path), np.full((HEIGHT_PX, WIDTH_PX, 3), shade, np.uint8))
    else:
        np.array([[*LIDAR_POINT, 7.0, 3.0]], dtype='<f4').tofile(path)
    tables['ego_pose'].append(
        {
            'token': f'pose-{token}',
            'timestamp': stamp_us,
            'translation': [x_at(stamp_us), 300.0, 0.0],
            'rotation': [1.0, 0.0, 0.0, 0.0],
        }
    )
    tables['sample_data'].append(
        {
            'token': token,
            'sample_token': SAMPLE_TOKENS[0 if number < 3 else 1],
            'ego_pose_token': f'pose-{token}',
            'calibrated_sensor_token': f'calibration-{channel}',
            'timestamp': stamp_us,
            'fileformat': 'jpg' if is_camera else 'pcd',
            'is_key_frame': is_key,
            'height': HEIGHT_PX if is_camera else 0,
            'width': WIDTH_PX if is_camera else 0,
            'filename': name,
            'prev': '' if number == 0 else f'{channel}-{number - 1}',
            'next': '' if number == 5 else f'{channel}-{number + 1}',
        }
    )
