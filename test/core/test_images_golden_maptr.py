"""Image preparation against numbers of the published pipelines (golden/maptr/README.md)."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from gsmap_core.config import ImageConfig
from gsmap_core.images import make_frame_batch, prepared_intrinsics
from gsmap_core.structures import Camera, CameraRig, SurroundFrame

pytestmark = pytest.mark.golden

TOLERANCE = 1e-4


@pytest.fixture(scope='module')
def golden(golden_dir: Path) -> dict[str, np.ndarray]:
    return load_file(golden_dir / 'maptr' / 'ops.safetensors')


@pytest.mark.parametrize('order', ['v1_normalise_scale_pad', 'v2_scale_normalise_pad'])
def test_prepared_images_equal_the_published_ones(golden, order):
    bgr, expected = golden['prep.bgr_uint8'], golden[f'prep.{order}']
    matrix = golden['prep.lidar2img_after']
    height, width = bgr.shape[:2]
    camera = Camera('front', 'front', width, height, np.eye(3), np.eye(4))
    image = ImageConfig(
        width_px=expected.shape[2],
        height_px=expected.shape[1],
        interpolation='bilinear',
        scale=float(matrix[0, 0]),
        recorded_px=(width, height),
    )
    picture = np.ascontiguousarray(bgr[..., ::-1])
    batch = make_frame_batch([SurroundFrame(0, CameraRig('one', (camera,)), (picture,))], image)
    found = batch.images[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    np.testing.assert_array_equal(found == 0.0, expected == 0.0)  # the padding
    # The golden run started from the identity.
    np.testing.assert_array_equal(prepared_intrinsics(camera, image), matrix[:3, :3])
    np.testing.assert_array_equal(batch.pixels_from_ego[0, 0].numpy(), matrix)
