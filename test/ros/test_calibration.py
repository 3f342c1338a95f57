"""CameraInfo rules, undistortion and size checks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from gsmap_core.errors import CalibrationError
from gsmap_core.structures import Camera
from gsmap_ros.calibration import CameraCalibration, camera_from_info

TOPIC = 'cam_front/camera_info'


def make_info(**changes: Any) -> Any:
    values: dict[str, Any] = {
        'header': SimpleNamespace(frame_id='cam_front_optical_frame'),
        'width': 160,
        'height': 120,
        'distortion_model': 'plumb_bob',
        'd': [0.0] * 5,
        'k': [100.0, 0.0, 79.5, 0.0, 101.0, 59.5, 0.0, 0.0, 1.0],
        'p': [90.0, 0.0, 80.5, 0.0, 0.0, 91.0, 60.5, 0.0, 0.0, 0.0, 1.0, 0.0],
        'binning_x': 0,
        'binning_y': 0,
        'roi': SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    return SimpleNamespace(**{**values, **changes})


def read(is_rectified: bool = True, **changes: Any) -> Camera:
    return camera_from_info(make_info(**changes), 'cam_front', TOPIC, is_rectified)


def test_rectified_images_use_p_and_raw_images_use_k() -> None:
    assert read(True).intrinsics[0].tolist() == [90.0, 0.0, 80.5]
    assert read(False).intrinsics[0].tolist() == [100.0, 0.0, 79.5]
    assert read(True).frame_id == 'cam_front_optical_frame'


def test_empty_p_of_an_undistorted_camera_means_k() -> None:
    assert read(True, p=[0.0] * 12).intrinsics[0, 0] == 100.0


@pytest.mark.parametrize('is_rectified', [True, False])
def test_uncalibrated_camera_is_refused_with_its_topic(is_rectified: bool) -> None:
    with pytest.raises(CalibrationError, match=rf"'{TOPIC}' has K\[0\] == 0.*rig file"):
        read(is_rectified, k=[0.0] * 9)


def test_no_size_is_refused() -> None:
    with pytest.raises(CalibrationError, match=f"'{TOPIC}' gives an image of 0 x 120"):
        read(width=0)


def test_unknown_distortion_lists_what_is_supported_and_matters_only_for_raw_images() -> None:
    changes: dict[str, Any] = {'distortion_model': 'kannala9', 'd': [0.1]}
    with pytest.raises(CalibrationError, match='kannala9.*plumb_bob, rational_polynomial, equi'):
        read(False, **changes)
    assert read(True, **changes).distortion_model == 'none'
    # Zero coefficients distort nothing, whatever the model is called.
    assert read(False, distortion_model='', d=[0.0] * 5).distortion_model == 'none'


def test_binning_and_roi_move_the_same_ray_to_the_same_place() -> None:
    """A pixel block of the full image is one pixel of the binned crop; rays must agree."""
    roi = SimpleNamespace(x_offset=20, y_offset=10, width=80, height=60)
    camera = read(False, binning_x=2, binning_y=2, roi=roi)
    assert (camera.width_px, camera.height_px) == (40, 30)
    # Binned pixel (5, 7) covers full pixels 30..31 and 24..25: centre (30.5, 24.5).
    ray_full = np.linalg.inv(read(False).intrinsics) @ [30.5, 24.5, 1.0]
    ray_binned = np.linalg.inv(camera.intrinsics) @ [5.0, 7.0, 1.0]
    np.testing.assert_allclose(ray_binned, ray_full, atol=1e-12)


def make_calibration(is_rectified: bool = True, **changes: Any) -> CameraCalibration:
    calibration = CameraCalibration('cam_front', TOPIC, is_rectified)
    calibration.update(make_info(**changes))
    return calibration


def test_equal_info_changes_nothing_and_a_new_one_does() -> None:
    calibration = make_calibration()
    assert not calibration.update(make_info())
    assert calibration.update(make_info(width=320, height=240))
    assert calibration.camera is not None and calibration.camera.width_px == 320


def test_wrong_info_takes_the_calibration_away_and_says_why() -> None:
    calibration = make_calibration()
    assert calibration.update(make_info(k=[0.0] * 9))
    assert calibration.camera is None
    assert TOPIC in calibration.error
    with pytest.raises(CalibrationError, match='uncalibrated'):
        calibration.fit(np.zeros((120, 160, 3), np.uint8))
    calibration.update(make_info())
    assert calibration.error == '' and calibration.camera is not None


def test_missing_info_names_the_topic() -> None:
    calibration = CameraCalibration('cam_front', TOPIC)
    with pytest.raises(CalibrationError, match=f"nothing received on topic '{TOPIC}'"):
        calibration.fit(np.zeros((120, 160, 3), np.uint8))


def test_resized_images_scale_the_intrinsics(caplog: pytest.LogCaptureFixture) -> None:
    calibration = make_calibration()
    image = np.zeros((60, 80, 3), np.uint8)
    for _ in range(3):
        same, camera = calibration.fit(image)
    assert same is image
    assert camera.intrinsics[0, 0] == pytest.approx(45.0)
    assert camera.intrinsics[0, 2] == pytest.approx(80.5 / 2 - 0.25)


def test_images_of_another_aspect_are_refused() -> None:
    with pytest.raises(CalibrationError, match='image is 160 x 100 px.*160 x 120 px'):
        make_calibration().fit(np.zeros((100, 160, 3), np.uint8))


def test_rig_file_wins_over_camera_info() -> None:
    override = Camera('cam_front', 'other', 160, 120, np.diag([70.0, 70.0, 1.0]), np.eye(4))
    calibration = CameraCalibration('cam_front', TOPIC, override=override)
    calibration.update(make_info())
    assert calibration.camera is override


@pytest.mark.parametrize(
    ('model', 'coefficients'),
    [
        ('plumb_bob', [-0.25, 0.08, 0.001, -0.002, 0.0]),
        ('rational_polynomial', [-0.2, 0.05, 0.0, 0.0, 0.0, 0.02, 0.0, 0.0]),
        ('equidistant', [-0.02, 0.003, 0.0, 0.0]),
    ],
)
def test_undistortion_brings_points_to_where_a_pinhole_sees_them(
    model: str, coefficients: list[float]
) -> None:
    """A dot painted where the lens sees a ray appears where a pinhole sees that ray."""
    calibration = make_calibration(False, distortion_model=model, d=coefficients)
    matrix = np.array(make_info().k).reshape(3, 3)
    rays = np.array([[-0.5, -0.3, 1.0], [0.45, 0.2, 1.0], [0.1, -0.35, 1.0], [-0.3, 0.4, 1.0]])
    if model == 'equidistant':
        distorted = cv2.fisheye.distortPoints(
            rays[None, :, :2].copy(), matrix, np.array(coefficients)
        )[0]
    else:
        distorted = cv2.projectPoints(
            rays, np.zeros(3), np.zeros(3), matrix, np.array(coefficients)
        )[0][:, 0]
    for ray, (u, v) in zip(rays, distorted, strict=True):
        rows, columns = np.mgrid[:120, :160]
        blob = 255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / 8.0)
        flat, camera = calibration.fit(np.repeat(blob[..., None], 3, -1).astype(np.uint8))
        assert camera.distortion_model == 'none'
        weights = flat[..., 0].astype(float)
        found = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
        expected = (matrix @ ray)[:2]
        assert np.abs(found - expected).max() < 0.5
        # The test means something only if the lens really moves the dot.
    assert np.abs(distorted - (rays @ matrix.T)[:, :2]).max() > 1.5


@pytest.mark.parametrize(('width', 'height', 'reduction'), [(160, 120, 4), (157, 119, 4)])
def test_pictures_decoded_smaller_have_exactly_smaller_intrinsics(
    width: int, height: int, reduction: int, caplog: pytest.LogCaptureFixture
) -> None:
    calibration = make_calibration(True, width=width, height=height)
    size = -(-height // reduction), -(-width // reduction)
    _, camera = calibration.fit(np.zeros((*size, 3), np.uint8), reduction)
    assert (camera.height_px, camera.width_px) == size
    # Centres of four pixels in a row lie at 0 to 3; that of the one they become at 1.5 of these.
    assert camera.intrinsics[0].tolist() == [22.5, 0.0, (80.5 - 1.5) / 4]
    assert camera.intrinsics[1].tolist() == [0.0, 22.75, (60.5 - 1.5) / 4]
    assert caplog.text == ''


def test_a_picture_of_that_size_without_reduction_is_a_resized_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calibration = make_calibration(True)
    calibration.fit(np.zeros((30, 40, 3), np.uint8), 4)
    assert caplog.text == ''
    _, resized = calibration.fit(np.zeros((30, 40, 3), np.uint8))
    assert resized.width_px == 40 and 'the intrinsics are scaled' in caplog.text


def test_a_change_during_a_fit_is_not_undone_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are fitted in the worker thread, CameraInfo comes in the executor's."""
    calibration = CameraCalibration('cam_front', TOPIC, True)
    calibration.update(make_info())
    image = np.zeros((60, 80, 3), np.uint8)
    scaled = CameraCalibration._scaled

    def interrupted(self: CameraCalibration, camera: Camera, *size: int) -> Camera:
        if camera.intrinsics[0, 0] == 90.0:
            p = [120.0, 0.0, 80.5, 0.0, 0.0, 91.0, 60.5, 0.0, 0.0, 0.0, 1.0, 0.0]
            calibration.update(make_info(p=p))
        return scaled(self, camera, *size)

    monkeypatch.setattr(CameraCalibration, '_scaled', interrupted)
    assert calibration.fit(image)[1].intrinsics[0, 0] == 45.0
    assert calibration.fit(image)[1].intrinsics[0, 0] == 60.0


def test_images_of_ever_new_sizes_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    calibration = CameraCalibration('cam_front', TOPIC, True)
    calibration.update(make_info())
    for scale in range(1, 30):
        image = np.zeros((3 * scale, 4 * scale, 3), np.uint8)
        assert calibration.fit(image)[1].width_px == 4 * scale
    assert caplog.text.count('the intrinsics are scaled') == 1
