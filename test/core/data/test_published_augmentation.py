"""Colours and GridMask of the published models: numbers by hand, and how often."""

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config

from gsmap_core.config import ImageConfig
from gsmap_core.data.augmentation import (
    AugmentationConfig,
    augment,
    distort_colours,
    prepare_frame,
)
from gsmap_core.data.loading import MapDataset
from gsmap_core.data.published_augmentation import distort_in_hsv, draw_grid_mask, kept_stripes
from gsmap_core.errors import ConfigError

HSV = AugmentationConfig(mirror=0.0, colours='hsv', swap_channels=True)


class Scripted:
    """A generator whose draws are given: chosen steps, contrast first, amounts, order, integers.

    A chosen step draws 0.25 and any other 0.75, so that a probability of a half decides.
    """

    def __init__(self, chosen='', contrast_first=True, amounts=(0, 0, 0, 0), order=(0, 1, 2)):
        names = ('brightness', 'contrast', 'saturation', 'hue', 'swap')
        self.steps = np.array([0.25 if name in chosen.split() else 0.75 for name in names])
        self.coin = 0.25 if contrast_first else 0.75
        self.amounts, self.order = np.array(amounts, dtype=float), np.array(order)

    def random(self, size=None):
        return self.coin if size is None else self.steps

    def uniform(self, low, high, size):
        assert (low, high, size) == (-1.0, 1.0, 4)
        return self.amounts

    def permutation(self, count):
        return self.order[:count]


@pytest.mark.parametrize(
    ('script', 'colour', 'expected'),
    [
        ({}, (1, 2, 3), (1, 2, 3)),
        ({'chosen': 'brightness'}, (250, 0, 7), (266, 16, 23)),  # not clipped
        ({'chosen': 'contrast'}, (100, 50, 20), (150, 75, 30)),
        ({'chosen': 'contrast', 'contrast_first': False}, (100, 50, 20), (150, 75, 30)),
        # V 180 stays, S 1/2 becomes 1/4: the least channel 135, the middle one in proportion.
        ({'chosen': 'saturation'}, (180, 120, 90), (180, 150, 135)),
        # Hue 0 plus 18 of 60 degrees towards green: 90 + 0.3 * 90.
        ({'chosen': 'hue'}, (180, 90, 90), (180, 117, 90)),
        ({'chosen': 'swap'}, (1, 2, 3), (3, 1, 2)),
        # 100, 50, 20 plus 16, times 1.5, saturation halved around V 174, then exchanged.
        (
            {'chosen': 'brightness contrast saturation swap'},
            (100, 50, 20),
            (114, 174, 136.5),
        ),
    ],
)
def test_colour_steps_by_hand(script, colour, expected):
    # Brightness 32 * 0.5, contrast 1 + 0.5 * 1, saturation 1 - 0.5 * 1, hue 18 degrees.
    generator = Scripted(amounts=(0.5, 1.0, -1.0, 1.0), order=(2, 0, 1), **script)
    picture = np.full((2, 3, 3), colour, dtype=np.uint8)
    result = distort_in_hsv(picture, HSV, generator)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.broadcast_to(expected, (2, 3, 3)), atol=1e-3)
    assert (picture == colour).all()


def test_negative_turns_wrap_and_off_means_off():
    generator = Scripted('hue', amounts=(0, 0, 0, -1.0))
    red = np.full((1, 1, 3), (180, 90, 90), dtype=np.float32)
    np.testing.assert_allclose(
        distort_in_hsv(red, HSV, generator)[0, 0], (180, 90, 117), atol=1e-3
    )
    still = AugmentationConfig(colours='hsv', photometric=0.0)
    for seed in range(20):
        result = distort_in_hsv(red, still, np.random.default_rng(seed))
        np.testing.assert_array_equal(result, red)


def test_every_step_happens_half_of_the_time_within_its_range():
    generator = np.random.default_rng(0)
    bright = AugmentationConfig(contrast=0.0, saturation=0.0, hue_deg=0.0, colours='hsv')
    grey = np.full((1, 1, 3), 100.0, dtype=np.float32)
    offsets = [distort_in_hsv(grey, bright, generator)[0, 0, 0] - 100.0 for _ in range(2000)]
    offsets = np.array(offsets)
    changed = np.abs(offsets) > 1e-3
    assert 0.45 < changed.mean() < 0.55
    assert abs(offsets[changed].mean()) < 2.0 and 30 < np.abs(offsets).max() <= 32
    # 5 of 6 permutations change (1, 2, 3), in half of the pictures.
    swap = AugmentationConfig(
        brightness=0.0, contrast=0.0, saturation=0.0, hue_deg=0.0, colours='hsv',
        swap_channels=True,
    )  # fmt: skip
    colour = np.array([[[10.0, 20.0, 30.0]]], dtype=np.float32)
    moved = [
        np.abs(distort_in_hsv(colour, swap, generator) - colour).max() > 1 for _ in range(2000)
    ]
    assert 0.37 < np.mean(moved) < 0.46


def test_distorted_pictures_keep_padding_type_and_missing_cameras():
    drive = FakeDrive(1)
    for image in (
        ImageConfig(64, 64),
        ImageConfig(64, 64, interpolation='bilinear', scale=0.5, recorded_px=(70, 40)),
    ):
        frame = prepare_frame(drive.frame(0), image)
        always = AugmentationConfig(photometric=1.0, colours='hsv')
        result = distort_colours(frame, always, np.random.default_rng(1))
        width, height = frame.sizes[0]
        assert result.pictures.dtype == frame.pictures.dtype
        np.testing.assert_array_equal(result.pictures[:, height:], frame.pictures[:, height:])
        np.testing.assert_array_equal(result.pictures[:, :, width:], frame.pictures[:, :, width:])
        changed = np.abs(result.pictures.astype(float) - frame.pictures)[:, :height, :width]
        assert (changed.mean(axis=(1, 2, 3)) > 1).all()


def test_stripes_by_hand():
    # Canvas 12, its middle starts at 2. Stripes of 2 at 1, 5 and 9: 1 2 5 6 9 10.
    assert np.flatnonzero(kept_stripes(8, 4, 1)).tolist() == [0, 3, 4, 7]
    # Period 5 rounds half up to stripes of 3; two whole periods: 0 1 2 5 6 7, and none at 10.
    assert np.flatnonzero(kept_stripes(8, 5, 0)).tolist() == [0, 3, 4, 5]
    # Period 2: stripes of 1.
    assert np.flatnonzero(kept_stripes(4, 2, 1)).tolist() == [0, 2]
    # Period 7 of canvas 12: a single stripe of 4 at 6.
    assert np.flatnonzero(kept_stripes(8, 7, 6)).tolist() == [4, 5, 6, 7]


def test_kept_pixels_are_the_union_of_both_directions():
    class Fixed:
        draws = [4, 1, 3]
        asked = []

        def integers(self, *bounds):
            self.asked.append(bounds)
            return self.draws[len(self.asked) - 1]

    mask = draw_grid_mask(8, 4, Fixed())
    assert Fixed.asked == [(2, 8), (4,), (4,)]
    rows = np.isin(np.arange(8), [0, 3, 4, 7])
    columns = kept_stripes(4, 4, 3)  # canvas 6: a stripe at 3 and 4, middle from 1
    assert np.flatnonzero(columns).tolist() == [2, 3]
    np.testing.assert_array_equal(mask, rows[:, None] | columns[None])


def test_masks_hide_about_a_quarter():
    generator = np.random.default_rng(0)
    kept = [draw_grid_mask(48, 80, generator).mean() for _ in range(300)]
    # Half of each direction where stripes fill the image; less where the canvas ends early.
    assert 0.6 < np.mean(kept) < 0.8 and min(kept) >= 0.0 and max(kept) <= 1.0


def test_a_mask_for_the_batch_leaves_samples_alone():
    drive, image = FakeDrive(1), ImageConfig(64, 32)
    frame, truth = prepare_frame(drive.frame(0), image), drive.ground_truth(0)
    batch = AugmentationConfig(photometric=0.0, mirror=0.0, grid_mask=1.0, grid_mask_scope='batch')
    same, _ = augment(frame, truth, batch, image, np.random.default_rng(0))
    assert same is frame and batch.batch_grid_mask == 1.0
    assert AugmentationConfig(grid_mask=1.0).batch_grid_mask == 0.0


def test_colours_of_recorded_pictures_change_before_they_are_prepared():
    config = micro_config()
    recorded = AugmentationConfig(
        photometric=1.0, mirror=0.0, colours='hsv', colours_at='recorded'
    )
    drive = FakeDrive(2)
    sample = MapDataset([drive], config, recorded, seed=3)[1, 0]
    generator = np.random.default_rng((3, 1, 0))
    expected = prepare_frame(
        drive.frame(0), config.image, lambda picture: distort_in_hsv(picture, recorded, generator)
    )
    torch.testing.assert_close(sample.pictures, torch.from_numpy(expected.pictures))
    plain = prepare_frame(drive.frame(0), config.image).pictures
    assert np.abs(sample.pictures.numpy().astype(int) - plain).mean() > 1
    again = MapDataset([drive], config, recorded, seed=3)[1, 0]
    torch.testing.assert_close(sample.pictures, again.pictures, rtol=0, atol=0)


def test_combinations_that_do_not_work_are_refused():
    with pytest.raises(ConfigError, match="colours_at is 'recorded' and colours is 'linear'"):
        AugmentationConfig(colours_at='recorded')
    recorded = AugmentationConfig(mirror=0.0, colours='hsv', colours_at='recorded')
    with pytest.raises(ConfigError, match='cache_gb is 0.01'):
        MapDataset([FakeDrive(1)], micro_config(), recorded, cache_gb=0.01)
