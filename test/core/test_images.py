"""Image preparation: the pixels move and the matrices follow."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from gsmap_core.config import ImageConfig
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.images import (
    decode_jpeg,
    decode_width,
    decoding_reduction,
    fitted_size,
    jpeg_size,
    make_frame_batch,
    normalise,
    prepare_image,
    prepared_intrinsics,
)
from gsmap_core.structures import Camera, CameraRig, SurroundFrame

# Camera looking along +x of the ego frame.
LOOK_AHEAD = make_transform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), [0, 0, 1.5])


def make_camera(width: int, height: int) -> Camera:
    intrinsics = np.array([[width * 0.8, 0, width / 2], [0, width * 0.8, height / 2], [0, 0, 1]])
    return Camera('front', 'front_optical_frame', width, height, intrinsics, LOOK_AHEAD)


@pytest.mark.parametrize('size', [(640, 360), (300, 400), (200, 120)])
def test_a_world_point_stays_on_its_painted_pixel(size):
    """Paint the projection of a point; after preparation the new matrix still hits the paint."""
    width, height = size
    camera = make_camera(width, height)
    point = np.array([[10.0, 1.0, 0.5]])
    u, v = project_points(camera, point).pixels[0]
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    blob = 255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 8.0**2))
    picture = np.repeat(blob.astype(np.uint8)[..., None], 3, axis=2)
    config = ImageConfig(width_px=320, height_px=192, mean=(0.0, 0, 0), std=(1.0, 1, 1))
    frame = SurroundFrame(stamp_ns=1, rig=CameraRig('one', (camera,)), images=(picture,))
    batch = make_frame_batch([frame], config)
    assert batch.images.shape == (1, 1, 3, 192, 320)
    weights = batch.images[0, 0, 0].double()
    rows_t, columns_t = torch.meshgrid(torch.arange(192), torch.arange(320), indexing='ij')
    found = torch.stack([(weights * columns_t).sum(), (weights * rows_t).sum()]) / weights.sum()
    homogeneous = (
        batch.pixels_from_ego[0, 0].double() @ torch.tensor([10.0, 1.0, 0.5, 1.0]).double()
    )
    expected = homogeneous[:2] / homogeneous[2]
    assert torch.allclose(found, expected, atol=0.1)


def test_missing_camera_is_masked_and_zero():
    rig = CameraRig(
        'two',
        (
            make_camera(64, 32),
            make_camera(64, 32).__class__(
                'back', 'back_optical_frame', 64, 32, make_camera(64, 32).intrinsics, np.eye(4)
            ),
        ),
    )
    picture = np.full((32, 64, 3), 200, np.uint8)
    frame = SurroundFrame(stamp_ns=1, rig=rig, images=(picture, None))
    batch = make_frame_batch([frame], ImageConfig(width_px=64, height_px=32))
    assert batch.camera_mask.tolist() == [[True, False]]
    assert batch.images[0, 1].abs().max() == 0
    assert batch.images[0, 0].abs().min() > 0


def test_padding_is_the_mean_colour():
    config = ImageConfig(width_px=64, height_px=64)
    prepared = prepare_image(np.zeros((32, 64, 3), np.uint8), make_camera(64, 32), config)
    assert (prepared[32:] == np.round(config.mean)).all() and (prepared[:32] == 0).all()


def test_corrupt_bytes_name_their_origin():
    with pytest.raises(DataError, match='/cam/image at 5'):
        decode_jpeg(b'\xff\xd8junk', '/cam/image at 5')
    with pytest.raises(DataError, match='0 bytes'):
        decode_jpeg(b'', 'x')


def test_decoding_gives_rgb_and_reduces():
    blue = np.zeros((64, 64, 3), np.uint8)
    blue[..., 0] = 255  # OpenCV writes BGR
    data = cv2.imencode('.png', blue)[1].tobytes()
    assert decode_jpeg(data, 'x')[0, 0].tolist() == [0, 0, 255]
    assert decode_jpeg(data, 'x', 4).shape == (16, 16, 3)


def test_the_size_of_a_jpeg_is_read_from_its_header():
    noise = np.random.default_rng(0).integers(0, 255, (45, 83, 3), np.uint8)
    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]):
        data = cv2.imencode('.jpg', noise, options)[1].tobytes()
        assert jpeg_size(data) == (83, 45)
    # A comment before the frame header, and fill bytes before its marker.
    assert jpeg_size(data[:2] + b'\xff\xfe\x00\x06abcd\xff' + data[2:]) == (83, 45)
    assert jpeg_size(cv2.imencode('.png', noise)[1].tobytes()) is None
    assert all(jpeg_size(data[:length]) in (None, (83, 45)) for length in range(200))
    assert jpeg_size(b'\xff\xd8' + b'\xff\xe0\x00\x00' * 9) is None


@pytest.mark.parametrize(
    ('width', 'least', 'reduction'),
    [(1600, 320, 4), (1600, 200, 8), (1600, 401, 2), (1600, 801, 1), (1550, 775, 2),
     (1549, 775, 2), (640, None, 1), (100, 320, 1)],
)  # fmt: skip
def test_pictures_are_decoded_no_smaller_than_needed(width, least, reduction):
    assert decoding_reduction(width, least) == reduction


def test_normalised_pictures_by_hand_and_by_several_threads():
    image = ImageConfig(64, 32, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0))
    pictures = np.random.default_rng(0).integers(0, 255, (2, 32, 64, 3), np.uint8)
    values = normalise(pictures, image)
    assert values.shape == (2, 3, 32, 64) and values.is_contiguous()
    mean, std = np.array(image.mean, np.float32), np.array(image.std, np.float32)
    assert values[1, :, 3, 4].tolist() == ((pictures[1, 3, 4] - mean) / std).tolist()
    cameras = tuple(replace(make_camera(64, 32), name=name) for name in 'abc')
    big = np.random.default_rng(1).integers(0, 255, (2, 32, 64, 3), np.uint8)
    frame = SurroundFrame(0, CameraRig('three', cameras), (big[0], None, big[1]))
    with ThreadPoolExecutor(2) as pool:
        together = make_frame_batch([frame, frame], image, pool)
    alone = make_frame_batch([frame], image)
    assert torch.equal(together.images[1], alone.images[0])
    assert alone.images[0, 1].abs().max() == 0.0 and alone.images[0, 2].abs().max() > 0.0


def test_a_fixed_factor_truncates_sizes_and_scales_the_matrix_exactly():
    image = ImageConfig(800, 480, interpolation='bilinear', scale=0.5, recorded_px=(1600, 900))
    camera = make_camera(1600, 900)
    assert fitted_size(camera, image) == (800, 450)
    expected = np.diag([0.5, 0.5, 1.0]) @ camera.intrinsics
    np.testing.assert_array_equal(prepared_intrinsics(camera, image), expected)
    odd = ImageConfig(64, 64, scale=0.5, recorded_px=(122, 75))
    assert fitted_size(make_camera(122, 75), odd) == (61, 37)
    # Another camera ends up at the same place with the factor that its own size asks for.
    small = make_camera(320, 180)
    assert fitted_size(small, image) == (800, 450)
    np.testing.assert_allclose(prepared_intrinsics(small, image)[:2], 2.5 * small.intrinsics[:2])
    assert decode_width(image) is None and decode_width(ImageConfig(64, 32)) == 64


def test_upright_and_lying_pictures_are_filled_to_one_square_first():
    """Argoverse 2 at a tenth: 2048 x 1550 and 1550 x 2048 to 2048 square, times 0.3, to 640."""
    image = ImageConfig(
        64, 64, interpolation='bilinear', scale=0.3, recorded_px=(204, 204), fill=128
    )
    for width, height in ((155, 204), (204, 155)):
        camera = make_camera(width, height)
        assert fitted_size(camera, image) == (61, 61)
        prepared = prepare_image(np.zeros((height, width, 3), np.uint8), camera, image)
        assert prepared.dtype == np.float32
        np.testing.assert_allclose(prepared[0, 0], 0.0)
        np.testing.assert_allclose(prepared[60, 60], 128.0)  # filled before the resize
        np.testing.assert_array_equal(prepared[61:], np.float32(image.mean) + 0 * prepared[61:])
        expected = np.diag([0.3, 0.3, 1.0]) @ camera.intrinsics
        np.testing.assert_allclose(prepared_intrinsics(camera, image), expected)
    # Twice the size: filled to 408 square, half the factor.
    large = make_camera(310, 408)
    prepared = prepare_image(np.zeros((408, 310, 3), np.uint8), large, image)
    assert prepared[30, 45].max() < 1 < 127 < prepared[30, 48].min()
    np.testing.assert_allclose(prepared_intrinsics(large, image)[0], 0.15 * large.intrinsics[0])


def test_bilinear_means_by_hand_keep_fractions():
    """Half of 4 x 2 pixels: each result is the mean of four."""
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:2, :2, 0] = [[0, 1], [2, 7]]
    image = ImageConfig(32, 32, interpolation='bilinear', scale=0.5, recorded_px=(64, 32))
    prepared = prepare_image(picture, make_camera(64, 32), image)
    assert prepared[0, 0].tolist() == [2.5, 0.0, 0.0]
    frame = SurroundFrame(0, CameraRig('one', (make_camera(64, 32),)), (picture,))
    images = make_frame_batch([frame], image).images
    assert images[0, 0, 0, 0, 0] == pytest.approx((2.5 - 123.675) / 58.395)
    assert not images[0, 0, :, 16:].any()  # padding is exactly the mean


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'scale': 0.5}, 'scale is 0.5 and recorded_px is None'),
        ({'recorded_px': (64, 32)}, 'scale is None'),
        ({'fill': 128}, 'fill is 128; expected 0 to 255, together with scale'),
        ({'fill': 300, 'scale': 0.5, 'recorded_px': (64, 32)}, 'fill is 300'),
        ({'scale': 2.0, 'recorded_px': (64, 32)}, 'scale 2.0 makes 128 x 64 px'),
    ],
)
def test_impossible_preparation_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        ImageConfig(64, 32, **values)
