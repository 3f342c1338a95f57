"""Augmentations: what moves with what, and what stays."""

import cv2
import numpy as np
import pytest
from helpers.fake_drives import FakeDrive

from gsmap_core.config import ImageConfig
from gsmap_core.data.augmentation import (
    AugmentationConfig,
    augment,
    distort_colours,
    drop_camera,
    mask_stripes,
    mirror_frame,
    mirror_map,
    prepare_frame,
    random_colour_matrix,
)
from gsmap_core.errors import ConfigError
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import MapElement, VectorMap

IMAGE = ImageConfig(64, 64)  # the 70 x 40 pictures leave padding at the bottom


def project(frame, index, points):
    """Return pixels and depth of ego points in one prepared picture."""
    camera = transform_points(invert(frame.base_from_cameras[index]), points)
    pixels = camera @ frame.intrinsics[index].T
    return pixels[:, :2] / pixels[:, 2:], camera[:, 2]


def test_mirrored_points_land_on_mirrored_pixels():
    frame = prepare_frame(FakeDrive(1, num_cameras=3).frame(0), IMAGE)
    mirrored = mirror_frame(frame)
    points = np.random.default_rng(0).uniform([-20, -10, -1], [20, 10, 3], (200, 3))
    flipped = points * [1, -1, 1]
    for index, (width, _) in enumerate(frame.sizes):
        before, depth = project(frame, index, points)
        after, depth_after = project(mirrored, index, flipped)
        front = depth > 0.5
        assert front.any()
        np.testing.assert_allclose(depth_after, depth, atol=1e-9)
        np.testing.assert_allclose(after[front, 0], width - 1 - before[front, 0], atol=1e-6)
        np.testing.assert_allclose(after[front, 1], before[front, 1], atol=1e-6)
        rotation = mirrored.base_from_cameras[index, :3, :3]
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_mirrored_pictures_show_the_same_thing_at_the_mirrored_place():
    frame = prepare_frame(FakeDrive(1).frame(0), IMAGE)
    mirrored = mirror_frame(frame)
    width, height = frame.sizes[0]
    np.testing.assert_array_equal(
        mirrored.pictures[0, :height, :width], frame.pictures[0, :height, :width][:, ::-1]
    )
    np.testing.assert_array_equal(mirrored.pictures[0, height:], frame.pictures[0, height:])
    twice = mirror_frame(mirrored)
    np.testing.assert_array_equal(twice.pictures, frame.pictures)
    np.testing.assert_allclose(twice.intrinsics, frame.intrinsics)
    np.testing.assert_allclose(twice.base_from_cameras, frame.base_from_cameras)


def test_mirrored_map_keeps_the_direction_of_rings():
    ring = np.array([[0.0, 1], [4, 1], [4, 5], [0, 5]])
    line = np.array([[0.0, 1, 0.5], [9, 2, 0.7]])
    result = mirror_map(
        VectorMap((MapElement(1, ring, closed=True), MapElement(0, line)), map_from_base=np.eye(4))
    )
    x, y = result.elements[0].vertices.T
    signed = 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    assert signed == pytest.approx(16.0)
    np.testing.assert_array_equal(result.elements[1].vertices, [[0, -1, 0.5], [9, -2, 0.7]])
    assert result.map_from_base is None


def test_colours_change_but_not_the_padding_and_not_the_original():
    frame = prepare_frame(FakeDrive(1).frame(0), IMAGE)
    before = frame.pictures.copy()
    config = AugmentationConfig(photometric=1.0)
    result = distort_colours(frame, config, np.random.default_rng(0))
    width, height = frame.sizes[0]
    np.testing.assert_array_equal(frame.pictures, before)
    np.testing.assert_array_equal(result.pictures[:, height:], before[:, height:])
    changes = np.abs(result.pictures.astype(int) - before)[:, :height, :width].mean(axis=(1, 2, 3))
    assert (changes > 2).all()
    assert changes[0] != changes[1]  # every picture by itself


def test_saturation_and_hue_leave_grey_alone():
    config = AugmentationConfig(photometric=1.0, brightness=0.0, contrast=0.0)
    grey = np.full((4, 4, 3), 77, dtype=np.uint8)
    for seed in range(10):
        matrix = random_colour_matrix(config, np.random.default_rng(seed))
        np.testing.assert_array_equal(cv2.transform(grey, matrix), grey)


def test_hue_turns_as_much_as_in_hsv():
    config = AugmentationConfig(
        photometric=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue_deg=18.0
    )
    colour = np.full((1, 1, 3), (180, 90, 90), dtype=np.uint8)
    turns = []
    for seed in range(30):
        matrix = random_colour_matrix(config, np.random.default_rng(seed))
        turned = cv2.cvtColor(cv2.transform(colour, matrix), cv2.COLOR_RGB2HSV)[0, 0, 0]
        turns.append((2.0 * turned + 180) % 360 - 180)
    assert -27 < min(turns) < -9 and 9 < max(turns) < 27


def test_dropping_a_camera_leaves_one():
    frame = prepare_frame(FakeDrive(1, num_cameras=2).frame(0), IMAGE)
    once = drop_camera(frame, np.random.default_rng(0))
    assert once.camera_mask.sum() == 1
    assert drop_camera(once, np.random.default_rng(1)).camera_mask.sum() == 1
    assert frame.camera_mask.all()


def test_stripes_hide_squares_with_the_mean_colour():
    frame = prepare_frame(FakeDrive(1).frame(0), IMAGE)
    result = mask_stripes(frame, IMAGE, np.random.default_rng(3))
    hidden = (result.pictures == np.round(IMAGE.mean)).all(-1)
    changed = (result.pictures != frame.pictures).any(-1)
    assert changed.any()
    assert hidden[changed].all()
    assert 0.05 < hidden[:, : frame.sizes[0][1]].mean() < 0.6


def test_no_augmentation_returns_the_sample_and_seeds_repeat_it():
    drive = FakeDrive(1)
    frame, truth = prepare_frame(drive.frame(0), IMAGE), drive.ground_truth(0)
    off = AugmentationConfig(photometric=0.0, mirror=0.0)
    same, same_truth = augment(frame, truth, off, IMAGE, np.random.default_rng(0))
    assert same is frame and same_truth is truth
    on = AugmentationConfig(camera_drop=0.5, grid_mask=0.5)
    pairs = [augment(frame, truth, on, IMAGE, np.random.default_rng(s))[0] for s in (5, 5, 6)]
    np.testing.assert_array_equal(pairs[0].pictures, pairs[1].pictures)
    assert (pairs[0].pictures != pairs[2].pictures).any()


def test_impossible_probabilities_are_refused():
    with pytest.raises(ConfigError, match='mirror is 1.5'):
        AugmentationConfig(mirror=1.5)
    with pytest.raises(ConfigError, match='hue_deg is -1'):
        AugmentationConfig(hue_deg=-1.0)
