"""Image preparation: the pixels move and the matrices follow."""

import cv2
import numpy as np
import pytest
import torch

from gsmap_core.config import ImageConfig
from gsmap_core.errors import DataError
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.images import decode_jpeg, make_frame_batch, prepare_image
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
