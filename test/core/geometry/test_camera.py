"""Projection: pixel centres at integers, visibility, rays as the inverse."""

import numpy as np

from gsmap_core.geometry.camera import pixel_rays, project_points
from gsmap_core.geometry.transforms import make_transform, transform_points
from gsmap_core.structures import Camera

LOOK_AHEAD = make_transform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), [1.0, 0, 1.5])
CAMERA = Camera(
    'front', 'f', 40, 20, np.array([[20.0, 0, 19.5], [0, 20, 9.5], [0, 0, 1]]), LOOK_AHEAD
)


def test_hand_computed_projection():
    # 10 m ahead of the camera, 1 m left, 0.5 m below it.
    projection = project_points(CAMERA, [[11.0, 1.0, 1.0]])
    assert np.allclose(projection.pixels, [[19.5 - 2.0, 9.5 + 1.0]])
    assert np.allclose(projection.depth_m, 10) and projection.is_visible.all()


def test_behind_and_outside_are_not_visible():
    points = [[-5.0, 0, 1.5], [11.0, 12.0, 1.5], [1.05, 0, 1.5]]
    assert project_points(CAMERA, points).is_visible.tolist() == [False, False, False]


def test_rays_invert_projection():
    rays = pixel_rays(CAMERA).reshape(-1, 3)
    points = transform_points(LOOK_AHEAD, rays * 7.0)
    pixels = project_points(CAMERA, points).pixels.reshape(20, 40, 2)
    u, v = np.meshgrid(np.arange(40), np.arange(20))
    assert np.allclose(pixels, np.stack([u, v], axis=-1))
