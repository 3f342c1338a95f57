"""A folder of pictures with a rig is a drive."""

import cv2
import numpy as np
import pytest

from gsmap_core.data.image_folder import ImageFolderDrive
from gsmap_core.errors import DataError
from gsmap_core.structures import Camera, CameraRig

INTRINSICS = np.array([[100.0, 0, 79.5], [0, 100, 44.5], [0, 0, 1]])


@pytest.fixture
def rig() -> CameraRig:
    cameras = [
        Camera(name, f'{name}_optical_frame', 160, 90, INTRINSICS, np.eye(4))
        for name in ('left', 'right')
    ]
    return CameraRig('pair', tuple(cameras))


def write_picture(path, value: int, size=(160, 90)) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), value, np.uint8))


def test_folders_per_camera_give_sets_in_file_order(tmp_path, rig):
    for name, base in (('left', 10), ('right', 100)):
        for index in range(3):
            write_picture(tmp_path / name / f'{index:03d}.png', base + index)
    drive = ImageFolderDrive(tmp_path, rig)
    assert len(drive) == 3
    frame = drive.frame(2)
    assert [int(image[0, 0, 0]) for image in frame.images] == [12, 102]
    assert drive.stamp_ns(2) == 200_000_000
    assert drive.ground_truth(0) is None


def test_scaled_pictures_bring_scaled_intrinsics(tmp_path, rig):
    for name in rig.names:
        write_picture(tmp_path / f'{name}.png', 50, size=(80, 45))
    camera = ImageFolderDrive(tmp_path, rig).frame(0).rig.cameras[0]
    assert (camera.width_px, camera.height_px) == (80, 45)
    # 79.5 is the middle of 160 columns, 39.5 that of 80.
    assert camera.intrinsics[0, 0] == 50 and camera.intrinsics[0, 2] == 39.5


def test_missing_camera_and_unequal_counts_are_named(tmp_path, rig):
    write_picture(tmp_path / 'left' / '0.png', 1)
    with pytest.raises(DataError, match="camera 'right'"):
        ImageFolderDrive(tmp_path, rig)
    write_picture(tmp_path / 'right' / '0.png', 1)
    write_picture(tmp_path / 'right' / '1.png', 1)
    with pytest.raises(DataError, match="'right': 2"):
        ImageFolderDrive(tmp_path, rig)


def test_wrong_shape_and_corrupt_file_are_named(tmp_path, rig):
    write_picture(tmp_path / 'left.png', 1, size=(90, 160))
    (tmp_path / 'right.png').write_bytes(b'no picture')
    with pytest.raises(DataError, match=r'left.png: 90 x 160'):
        ImageFolderDrive(tmp_path, rig).frame(0)
    write_picture(tmp_path / 'left.png', 1)
    with pytest.raises(DataError, match='right.png'):
        ImageFolderDrive(tmp_path, rig).frame(0)
