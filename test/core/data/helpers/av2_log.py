"""Tiny Argoverse 2 logs, written as the dataset is laid out; the real devkit reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

START_NS = 315_966_253_000_000_000
#: 10 Hz sweeps; the front camera is on the raster of 20 Hz, the others up to 20 ms later.
SWEEP_NS = 100_000_000
IMAGE_NS = 50_000_000
RING = (
    'ring_front_center',
    'ring_front_right',
    'ring_front_left',
    'ring_rear_right',
    'ring_rear_left',
    'ring_side_right',
    'ring_side_left',
)
LOG_ID = '0123abcd-0000-3000-8000-000000000001'

Points = Sequence[Sequence[float]]


def lane(
    number: int,
    left: Points,
    right: Points,
    *,
    marks: tuple[str, str] = ('NONE', 'NONE'),
    neighbors: tuple[int | None, int | None] = (None, None),
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    is_intersection: bool = False,
) -> dict[str, Any]:
    return {
        'id': number,
        'is_intersection': is_intersection,
        'lane_type': 'VEHICLE',
        'left_lane_boundary': points(left),
        'right_lane_boundary': points(right),
        'left_lane_mark_type': marks[0],
        'right_lane_mark_type': marks[1],
        'left_neighbor_id': neighbors[0],
        'right_neighbor_id': neighbors[1],
        'predecessors': list(before),
        'successors': list(after),
    }


def crossing(number: int, corners: Points) -> dict[str, Any]:
    """Make a crossing; corners run around it, the first two and the last two are its edges."""
    a, b, c, d = corners
    return {'id': number, 'edge1': points([a, b]), 'edge2': points([d, c])}


def area(number: int, outline: Points) -> dict[str, Any]:
    return {'id': number, 'area_boundary': points(outline)}


def points(values: Points) -> list[dict[str, float]]:
    return [{'x': v[0], 'y': v[1], 'z': v[2] if len(v) > 2 else 0.0} for v in values]


def straight_road(*, outer_mark: str = 'UNKNOWN') -> list[dict[str, Any]]:
    """Make two lanes along +x, y from -3.5 to 3.5, each of two pieces that meet at x = 0."""
    lanes = []
    for number, x in ((1, (-50.0, 0.0)), (2, (0.0, 50.0))):
        links = {'before': [], 'after': [12]} if number == 1 else {'before': [11], 'after': []}
        lanes.append(
            lane(
                10 + number,
                [(x[0], 3.5), (x[1], 3.5)],
                [(x[0], 0.0), (x[1], 0.0)],
                marks=('SOLID_YELLOW', 'DASHED_WHITE'),
                neighbors=(None, 20 + number),
                **links,
            )
        )
        links = {key: [value + 10 for value in values] for key, values in links.items()}
        lanes.append(
            lane(
                20 + number,
                [(x[0], 0.0), (x[1], 0.0)],
                [(x[0], -3.5), (x[1], -3.5)],
                marks=('DASHED_WHITE', outer_mark),
                neighbors=(10 + number, None),
                **links,
            )
        )
    return lanes


def write_map(
    log: Path,
    lanes: Sequence[dict] = (),
    crossings: Sequence[dict] = (),
    areas: Sequence[dict] = (),
) -> Path:
    folder = log / 'map'
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'log_map_archive_{log.name}____PIT_city_1.json'
    values = {
        'lane_segments': {str(item['id']): item for item in lanes},
        'pedestrian_crossings': {str(item['id']): item for item in crossings},
        'drivable_areas': {str(item['id']): item for item in areas},
    }
    path.write_text(json.dumps(values))
    return path


def write_ground(log: Path, heights: np.ndarray, cell_m: float, corner: tuple[float, float]):
    np.save(log / 'map' / f'{log.name}_ground_height_surface____PIT.npy', heights)
    similarity = {'R': [1.0, 0.0, 0.0, 1.0], 't': [-corner[0], -corner[1]], 's': 1.0 / cell_m}
    (log / 'map' / f'{log.name}___img_Sim2_city.json').write_text(json.dumps(similarity))


def write_table(path: Path, columns: dict[str, Any]) -> None:
    import pandas as pd
    from pyarrow import feather

    path.parent.mkdir(parents=True, exist_ok=True)
    feather.write_feather(pd.DataFrame(columns), str(path))


def write_poses(log: Path, duration_s: float = 1.0, speed: float = 10.0, z: float = 0.0) -> None:
    """Write poses every 10 ms from 50 ms before the first sweep on: along +x, level."""
    stamps = START_NS + np.arange(-5, int(duration_s * 100) + 6, dtype=np.int64) * 10_000_000
    x = (stamps - START_NS) * 1e-9 * speed
    zeros = np.zeros(len(stamps))
    write_table(
        log / 'city_SE3_egovehicle.feather',
        {
            'timestamp_ns': stamps,
            'qw': zeros + 1.0,
            'qx': zeros,
            'qy': zeros,
            'qz': zeros,
            'tx_m': 1000.4 + x,
            'ty_m': zeros + 2000.0,
            'tz_m': zeros + z,
        },
    )


def write_calibration(log: Path, width: int = 64, height: int = 48) -> None:
    """Write seven cameras that look along +x, each 0.1 m further left than the one before."""
    names = sorted(RING)
    count = len(names)
    left = [0.1 * RING.index(name) for name in names]
    # Optical axes in the ego frame: x right = -y, y down = -z, z forward = x.
    write_table(
        log / 'calibration' / 'egovehicle_SE3_sensor.feather',
        {
            'sensor_name': names,
            'qw': [0.5] * count,
            'qx': [-0.5] * count,
            'qy': [0.5] * count,
            'qz': [-0.5] * count,
            'tx_m': [1.5] * count,
            'ty_m': left,
            'tz_m': [1.4] * count,
        },
    )
    portrait = [name == RING[0] for name in names]
    write_table(
        log / 'calibration' / 'intrinsics.feather',
        {
            'sensor_name': names,
            'fx_px': [50.0 + RING.index(name) for name in names],
            'fy_px': [50.0] * count,
            'cx_px': [31.5] * count,
            'cy_px': [23.5] * count,
            'k1': [-0.2] * count,
            'k2': [-0.1] * count,
            'k3': [0.1] * count,
            'height_px': [width if tall else height for tall in portrait],
            'width_px': [height if tall else width for tall in portrait],
        },
    )


def image_stamps(camera: str, duration_s: float = 1.0) -> list[int]:
    """Return the stamps of a camera's images: 20 Hz, each camera 3 ms after the one before."""
    shift = 3_000_000 * RING.index(camera)
    return [START_NS + shift + index * IMAGE_NS for index in range(int(duration_s * 20) + 1)]


def write_images(log: Path, duration_s: float = 1.0, width: int = 64, height: int = 48) -> None:
    for number, camera in enumerate(RING):
        folder = log / 'sensors' / 'cameras' / camera
        folder.mkdir(parents=True)
        shape = (width, height, 3) if number == 0 else (height, width, 3)
        encoded, data = cv2.imencode('.jpg', np.full(shape, 20 * number + 40, dtype=np.uint8))
        assert encoded
        for stamp in image_stamps(camera, duration_s):
            if stamp <= START_NS + int(duration_s * 1e9) + 40_000_000:
                (folder / f'{stamp}.jpg').write_bytes(data.tobytes())


def write_sweeps(log: Path, duration_s: float = 1.0) -> None:
    for index in range(int(duration_s * 10) + 1):
        write_table(
            log / 'sensors' / 'lidar' / f'{START_NS + index * SWEEP_NS}.feather',
            {
                'x': np.array([10.0, 20.0], dtype=np.float16),
                'y': np.array([1.0, -1.0], dtype=np.float16),
                'z': np.array([0.5, 0.25], dtype=np.float16),
                'intensity': np.array([3, 250], dtype=np.uint8),
                'laser_number': np.array([0, 1], dtype=np.uint8),
                'offset_ns': np.array([0, 1], dtype=np.int32),
            },
        )


def write_log(root: Path, split: str = 'val', name: str = LOG_ID, duration_s: float = 1.0) -> Path:
    """Write a whole log: a straight road with kerbs around (1000, 2000)."""
    log = root / split / name
    road = [
        lane(
            1,
            [(900.0, 2003.0, 1.0), (1100.0, 2003.0, 1.0)],
            [(900.0, 2000.0, 1.0), (1100.0, 2000.0, 1.0)],
            marks=('SOLID_WHITE', 'DASHED_WHITE'),
            neighbors=(None, 2),
        ),
        lane(
            2,
            [(900.0, 2000.0, 1.0), (1100.0, 2000.0, 1.0)],
            [(900.0, 1997.0, 1.0), (1100.0, 1997.0, 1.0)],
            marks=('DASHED_WHITE', 'SOLID_WHITE'),
            neighbors=(1, None),
        ),
    ]
    kerbs = area(3, [(900, 1996, 1), (1100, 1996, 1), (1100, 2004, 1), (900, 2004, 1)])
    zebra = crossing(4, [(1010, 1996, 1), (1010, 2004, 1), (1013, 2004, 1), (1013, 1996, 1)])
    write_map(log, road, [zebra], [kerbs])
    write_ground(log, np.full((100, 300), 0.5, dtype=np.float16), 1.0, (850.0, 1950.0))
    write_poses(log, duration_s)
    write_calibration(log)
    write_images(log, duration_s)
    write_sweeps(log, duration_s)
    return log
