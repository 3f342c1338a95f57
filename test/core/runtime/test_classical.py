"""The baseline without learning finds plain paint on a plain road."""

import numpy as np
import pytest

from gsmap_core.categories import BOUNDARY, DIVIDER, PED_CROSSING
from gsmap_core.evaluation.matching import chamfer_distances, sample_lines
from gsmap_core.geometry.camera import pixel_rays
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.runtime.classical import ClassicalMapper
from gsmap_core.structures import Camera, CameraRig, SurroundFrame

EGO_FROM_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def ground_colour(xy):
    """A straight road 7 m to either side, a solid line at y = 2, a zebra from x = 12 to 16."""
    x, y = xy[..., 0], xy[..., 1]
    noise = np.random.default_rng(0).normal(0, 3, x.shape)
    colour = np.full((*x.shape, 3), (40.0, 120.0, 40.0))
    colour[np.abs(y) < 7] = (90, 90, 94)
    paint = (np.abs(y - 2) < 0.1) & ~((x > 11) & (x < 17))
    paint |= (x > 12) & (x < 16) & (np.abs(y) < 5) & ((y % 1.0) < 0.5)
    colour[paint] = (225, 225, 225)
    return np.clip(colour + noise[..., None], 0, 255)


def surround_frame(missing=()):
    cameras, images = [], []
    for index, yaw in enumerate((0, -60, -120, 180, 120, 60)):
        pose = make_transform(
            rotation_from_rpy(0, 0, np.radians(yaw)) @ EGO_FROM_OPTICAL, [0.0, 0.0, 1.6]
        )
        intrinsics = np.array([[420.0, 0, 320], [0, 420.0, 160], [0, 0, 1]])
        view = Camera(f'cam_{index}', f'cam_{index}', 640, 400, intrinsics, pose)
        rays = pixel_rays(view) @ pose[:3, :3].T
        with np.errstate(divide='ignore', invalid='ignore'):
            scale = np.where(rays[..., 2] < -1e-3, -1.6 / rays[..., 2], np.nan)
        ground = rays[..., :2] * scale[..., None]
        picture = np.where(np.isnan(scale)[..., None], (150, 190, 240), ground_colour(ground))
        cameras.append(view)
        images.append(None if index in missing else picture.astype(np.uint8))
    return SurroundFrame(
        77, CameraRig('six', tuple(cameras)), tuple(images), sample_id='f', scene='s'
    )


def best_distance(element, line):
    lines = sample_lines([element.loop_xy(), np.asarray(line, float)], 100)
    return float(chamfer_distances(lines[:1], lines[1:])[0, 0])


@pytest.fixture(scope='module')
def result():
    return ClassicalMapper().predict(surround_frame())


def test_result_belongs_to_the_frame(result):
    assert (result.stamp_ns, result.sample_id, result.scene) == (77, 'f', 's')
    assert result.reference == 'ego'
    assert all(0 < element.score < 1 for element in result.elements)


def test_ground_picture_shows_the_ground_where_it_is():
    mapper = ClassicalMapper()
    picture, seen = mapper.ground_picture(surround_frame())
    assert picture.shape == (600, 300, 3)
    assert seen[300, 150] == 0  # under the vehicle
    row, column = (30 - 8.0) * 10, (15 - 2.0) * 10  # x 8, y 2: the line
    assert picture[int(row), int(column)].min() > 170
    assert picture[int(row), int(column) + 15].max() < 120


def test_solid_line_is_found(result):
    dividers = result.of_category(DIVIDER.id)
    # The gap at the crossing is bridged like that of a dashed line.
    assert min(best_distance(d, [[-30, 2], [30, 2]]) for d in dividers) < 0.5
    along = np.concatenate([d.vertices for d in dividers])
    on_line = along[np.abs(along[:, 1] - 2) < 0.15]
    assert np.ptp(on_line[:, 0]) > 30


def test_crossing_is_found(result):
    crossings = result.of_category(PED_CROSSING.id)
    assert len(crossings) == 1
    assert crossings[0].closed
    assert best_distance(crossings[0], [[12, -5], [16, -5], [16, 5], [12, 5], [12, -5]]) < 0.5


def test_road_edges_are_found(result):
    boundaries = result.of_category(BOUNDARY.id)
    for side in (7.0, -7.0):
        on_edge = [b for b in boundaries if np.abs(b.vertices[:, 1] - side).mean() < 0.4]
        assert sum(np.ptp(b.vertices[:, 0]) for b in on_edge) > 35


def test_no_image_gives_no_element_and_no_crash():
    mapper = ClassicalMapper()
    assert len(mapper.predict(surround_frame(missing=range(6)))) == 0
    assert len(mapper.predict(surround_frame(missing=(0, 1)))) > 0
    mapper.reset()
