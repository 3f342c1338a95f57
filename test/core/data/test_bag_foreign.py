"""Bags that others wrote: raw images, lenses, missing parts, damage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from core.data.helpers.fake_recording import (
    START_NS,
    FakeRecording,
    make_camera,
    make_rig,
    pose_at,
    solid_jpeg,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from gsmap_core.data import messages as msg
from gsmap_core.data.bag import BagReader, BagRecorder, image_topic, open_bag, write_bag
from gsmap_core.data.drive_messages import camera_info_message
from gsmap_core.errors import CalibrationError, DataError, TransformError
from gsmap_core.geometry.transforms import make_transform

CAMERA = make_camera('cam_front', 0.0)


def raw_message(pixels: np.ndarray, encoding: str, stamp_ns: int = START_NS, padding: int = 0):
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rows = np.concatenate([rows, np.full((height, padding), 99, np.uint8)], axis=1)
    return msg.make_message(
        msg.IMAGE,
        header=msg.make_header(stamp_ns, CAMERA.frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def static_transforms(stamp_ns: int = START_NS, mount: str = 'sensor_mount'):
    """The camera sits on a mount, as on real vehicles: two static steps."""
    half = make_transform(None, [1.0, 0.0, 0.5])
    rest = make_transform(None, [-1.0, 0.0, -0.5]) @ CAMERA.base_from_camera
    return msg.make_message(
        msg.TF_MESSAGE,
        transforms=[
            msg.make_transform_stamped(stamp_ns, '/base_link', mount, half),
            msg.make_transform_stamped(stamp_ns, mount, CAMERA.frame_id, rest),
        ],
    )


def record(path: Path, image_name: str, image: object, info: object | None, has_tf: bool = True):
    with BagRecorder(path) as recorder:
        if has_tf:
            recorder.add_topic('/tf_static', msg.TF_MESSAGE)
            recorder.write('/tf_static', START_NS, static_transforms())
        if info is not None:
            recorder.add_topic('/cam_front/camera_info', msg.CAMERA_INFO)
            recorder.write('/cam_front/camera_info', START_NS, info)
        recorder.add_topic(image_name, image.__msgtype__)
        recorder.write(image_name, START_NS + 5, image)
    return path


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize('padding', [0, 7])
@pytest.mark.parametrize(
    ('encoding', 'convert'),
    [
        ('rgb8', lambda p: p),
        ('bgr8', lambda p: p[..., ::-1]),
        ('8UC3', lambda p: p[..., ::-1]),
        ('rgba8', lambda p: np.dstack([p, p[..., 0]])),
        ('bgra8', lambda p: np.dstack([p[..., ::-1], p[..., 0]])),
    ],
)
def test_raw_encodings(tmp_path, encoding, convert, padding):
    rgb = picture()
    image = raw_message(convert(rgb), encoding, padding=padding)
    path = record(
        tmp_path / 'b', '/cam_front/image_rect', image, camera_info_message(CAMERA, START_NS)
    )
    drive = open_bag(path)
    frame = drive.frame(0)
    np.testing.assert_array_equal(frame.images[0], rgb)
    # No poses, but extrinsics over two static steps; and the header stamp, not the log time.
    assert frame.map_from_base is None
    assert drive.pose_frame is None
    assert drive.map_from_base(START_NS) is None
    assert frame.stamp_ns == START_NS
    np.testing.assert_allclose(frame.base_from_cameras[0], CAMERA.base_from_camera, atol=1e-12)
    assert drive.name == 'b'


def test_mono_images_and_reduced_raw_images(tmp_path):
    grey = picture()[..., 0]
    image = raw_message(grey[..., None], 'mono8')
    info = camera_info_message(CAMERA, START_NS)
    drive = open_bag(record(tmp_path / 'b', '/cam_front/image_rect', image, info))
    np.testing.assert_array_equal(drive.frame(0).images[0], np.dstack([grey] * 3))
    assert drive.frame(0, max_width_px=32).images[0].shape == (24, 32, 3)


def test_an_unknown_encoding_and_too_few_bytes_are_refused(tmp_path):
    info = camera_info_message(CAMERA, START_NS)
    image = raw_message(picture(), 'yuv422')
    drive = open_bag(record(tmp_path / 'a', '/cam_front/image_rect', image, info))
    with pytest.raises(DataError, match=f"/cam_front/image_rect' at {START_NS} ns.*yuv422"):
        drive.frame(0)
    image = raw_message(picture(), 'rgb8')
    image.data = image.data[:-1]
    drive = open_bag(record(tmp_path / 'b', '/cam_front/image_rect', image, info))
    with pytest.raises(DataError, match='9215 bytes'):
        drive.frame(0)


@pytest.mark.parametrize(
    ('model', 'coefficients'),
    [
        ('plumb_bob', [-0.3, 0.1, 0.001, -0.002, 0.0]),
        ('rational_polynomial', [-0.3, 0.1, 0.001, -0.002, 0.0, 0.01, 0.0, 0.0]),
        ('equidistant', [0.05, -0.01, 0.0, 0.0]),
    ],
)
def test_lens_distortion_is_taken_out(tmp_path, model, coefficients):
    # A bright dot where a known direction lands in the raw image must land where P says.
    width, height = 320, 240
    k = np.array([[200.0, 0.0, 160.0], [0.0, 210.0, 120.0], [0.0, 0.0, 1.0]])
    p = np.array([[180.0, 0.0, 158.0], [0.0, 190.0, 121.0], [0.0, 0.0, 1.0]])
    ray = np.array([[[0.4, -0.25, 1.0]]])
    if model == 'equidistant':
        spot, _ = cv2.fisheye.projectPoints(
            ray, np.zeros(3), np.zeros(3), k, np.array(coefficients)
        )
    else:
        spot, _ = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), k, np.array(coefficients))
    u, v = spot.reshape(2)
    grid_v, grid_u = np.mgrid[:height, :width]
    dot = 255 * np.exp(-((grid_u - u) ** 2 + (grid_v - v) ** 2) / 18)
    image = raw_message(np.dstack([dot] * 3).astype(np.uint8), 'rgb8')
    info = camera_info_message(make_camera('cam_front', 0.0, width, height), START_NS)
    info.k, info.d, info.distortion_model = k.reshape(-1), np.array(coefficients), model
    info.p = np.column_stack([p, np.zeros(3)]).reshape(-1)
    drive = open_bag(record(tmp_path / 'b', '/cam_front/image_raw', image, info))
    camera = drive.rig.cameras[0]
    assert camera.distortion_model == 'none'
    np.testing.assert_array_equal(camera.intrinsics, p)
    found = drive.frame(0).images[0][..., 0].astype(float)
    centre = [(found * grid).sum() / found.sum() for grid in (grid_u, grid_v)]
    expected = (p @ ray.reshape(3))[:2]
    np.testing.assert_allclose(centre, expected, atol=0.25)
    assert np.hypot(*(np.array([u, v]) - expected)) > 3  # rectifying had something to do
    half = drive.frame(0, max_width_px=160)
    assert half.images[0].shape == (120, 160, 3)
    small = half.images[0][..., 0].astype(float)
    centre = [(small * grid[:120, :160]).sum() / small.sum() for grid in (grid_u, grid_v)]
    expected = (half.rig.cameras[0].intrinsics @ ray.reshape(3))[:2]
    np.testing.assert_allclose(centre, expected, atol=0.25)


def test_unsupported_lenses_list_what_is_supported(tmp_path):
    info = camera_info_message(CAMERA, START_NS)
    info.d, info.distortion_model = np.array([0.1, 0.2]), 'fov'
    image = raw_message(picture(), 'rgb8')
    with pytest.raises(CalibrationError, match="'fov' with 2.*plumb_bob.*equidistant"):
        open_bag(record(tmp_path / 'b', '/cam_front/image_raw', image, info))


def test_region_of_interest_and_binning_move_the_intrinsics(tmp_path):
    info = camera_info_message(make_camera('cam_front', 0.0, 160, 120), START_NS)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 10, 20, 128, 96
    info.binning_x = info.binning_y = 2
    image = raw_message(picture(), 'rgb8')
    camera = open_bag(record(tmp_path / 'b', '/cam_front/image_rect', image, info)).rig.cameras[0]
    assert (camera.width_px, camera.height_px) == (64, 48)
    # Pixel centres: u' = (u - offset + 0.5) / 2 - 0.5.
    assert camera.intrinsics[0, 2] == pytest.approx((31.5 - 10 + 0.5) / 2 - 0.5)
    assert camera.intrinsics[1, 1] == pytest.approx(51.0 / 2)


def test_pictures_of_another_scale_scale_the_intrinsics(tmp_path, caplog):
    info = camera_info_message(CAMERA, START_NS)
    image = raw_message(picture(96, 128), 'rgb8')
    drive = open_bag(record(tmp_path / 'b', '/cam_front/image_rect', image, info))
    camera = drive.frame(0).rig.cameras[0]
    drive.frame(0)
    assert camera.intrinsics[0, 0] == 2 * CAMERA.intrinsics[0, 0]
    assert sum('intrinsics are scaled' in r.getMessage() for r in caplog.records) == 1
    image = raw_message(picture(96, 64), 'rgb8')
    drive = open_bag(record(tmp_path / 'c', '/cam_front/image_rect', image, info))
    with pytest.raises(CalibrationError, match='64 x 96 px'):
        drive.frame(0)


@pytest.mark.parametrize(('field', 'word'), [('k', 'K'), ('p', 'P')])
def test_an_uncalibrated_camera_names_its_topic(tmp_path, field, word):
    info = camera_info_message(CAMERA, START_NS)
    setattr(info, field, np.zeros(9 if field == 'k' else 12))
    image = raw_message(picture(), 'rgb8')
    with pytest.raises(
        CalibrationError, match=rf"/cam_front/camera_info' has {word}\[0\] == 0 \(uncalibrated\)"
    ):
        open_bag(record(tmp_path / 'b', '/cam_front/image_rect', image, info))


def test_missing_calibration_and_missing_extrinsics_can_come_from_a_rig(tmp_path):
    image = raw_message(picture(), 'rgb8')
    path = record(tmp_path / 'a', '/cam_front/image_rect', image, None)
    with pytest.raises(CalibrationError, match="no '/cam_front/camera_info'"):
        open_bag(path)
    info = camera_info_message(CAMERA, START_NS)
    path = record(tmp_path / 'b', '/cam_front/image_rect', image, info, has_tf=False)
    with pytest.raises(CalibrationError, match="'base_link' <- 'cam_front_optical_frame'"):
        open_bag(path)
    rig = make_rig()
    drive = open_bag(path, rig=rig)
    assert drive.rig.names == rig.names
    assert drive.frame(0).images[0] is not None


def test_a_bag_without_images_says_what_it_has(tmp_path):
    with BagRecorder(tmp_path / 'b') as recorder:
        recorder.add_topic('/tf_static', msg.TF_MESSAGE)
        recorder.write('/tf_static', START_NS, static_transforms())
    with pytest.raises(DataError, match='no camera images.*it has /tf_static'):
        open_bag(tmp_path / 'b')


def test_poses_in_odom_are_used_where_there_is_no_map(tmp_path, caplog):
    with BagRecorder(tmp_path / 'b') as recorder:
        for topic, kind in (
            ('/tf_static', msg.TF_MESSAGE),
            ('/tf', msg.TF_MESSAGE),
            ('/cam_front/camera_info', msg.CAMERA_INFO),
            ('/cam_front/image_rect/compressed', msg.COMPRESSED_IMAGE),
        ):
            recorder.add_topic(topic, kind)
        recorder.write('/tf_static', START_NS, static_transforms())
        recorder.write('/cam_front/camera_info', START_NS, camera_info_message(CAMERA, START_NS))
        for step in range(3):
            stamp = START_NS + step * 100_000_000
            pose = msg.make_transform_stamped(stamp, 'odom', 'base_link', pose_at(stamp))
            recorder.write('/tf', stamp, msg.make_message(msg.TF_MESSAGE, transforms=[pose]))
        for step in range(5):  # the last two lie after the last pose
            stamp = START_NS + step * 100_000_000
            image = msg.make_message(
                msg.COMPRESSED_IMAGE,
                header=msg.make_header(stamp, CAMERA.frame_id),
                format='jpeg',
                data=np.frombuffer(solid_jpeg(CAMERA, 100), np.uint8),
            )
            recorder.write('/cam_front/image_rect/compressed', stamp, image)
    drive = open_bag(tmp_path / 'b')
    assert drive.pose_frame == 'odom'
    assert len(drive) == 3
    assert drive.sets_dropped == {'no_pose': 2}
    assert any('2 of 5 camera sets' in r.getMessage() for r in caplog.records)
    with pytest.raises(TransformError):
        drive.map_from_base(START_NS + 300_000_000)


class Damaged(FakeRecording):
    """Its third front image is cut off."""

    def jpeg(self, index: int, camera: str) -> bytes:
        data = super().jpeg(index, camera)
        return data[: len(data) * 2 // 3] if (index, camera) == (2, 'cam_front') else data


def test_a_corrupt_jpeg_names_file_topic_and_stamp_and_costs_one_frame(tmp_path):
    write_bag(Damaged(), tmp_path / 'd')
    drive = open_bag(tmp_path / 'd')
    stamp = START_NS + 2 * 200_000_000
    topic = image_topic('cam_front')
    with pytest.raises(DataError, match=f"{tmp_path / 'd'}.*{topic}' at {stamp} ns"):
        drive.frame(2)
    assert drive.frame(3).is_complete


@pytest.mark.parametrize('share', [0.0, 0.3, 0.9, 0.999])
def test_a_bag_that_is_cut_off_says_how_to_save_it(tmp_path, share):
    write_bag(FakeRecording(), tmp_path / 'd.mcap')
    data = (tmp_path / 'd.mcap').read_bytes()
    cut = tmp_path / 'cut.mcap'
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"bag '{cut}' cannot be read.*mcap recover cut.mcap"):
        open_bag(cut)


def test_what_is_no_bag_is_refused(tmp_path):
    with pytest.raises(DataError, match='does not exist'):
        open_bag(tmp_path / 'nothing')
    (tmp_path / 'x.mcap').write_text('hello, this is not a recording at all, is it?')
    with pytest.raises(DataError, match='cannot be read'):
        open_bag(tmp_path / 'x.mcap')
    (tmp_path / 'x.txt').write_text('hello')
    with pytest.raises(DataError, match='no rosbag2 recording'):
        open_bag(tmp_path / 'x.txt')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='no metadata.yaml and 0 .mcap files'):
        open_bag(tmp_path / 'empty')


def test_a_folder_without_metadata_is_read_if_it_is_clear_what_is_meant(tmp_path):
    write_bag(FakeRecording(), tmp_path / 'd')
    (tmp_path / 'd' / 'metadata.yaml').unlink()
    assert len(open_bag(tmp_path / 'd')) == 5


@pytest.mark.parametrize('kind', ['sqlite3', 'chunks', 'messages'])
def test_other_storages_give_the_same_drive(tmp_path, kind):
    write_bag(FakeRecording(), tmp_path / 'd')
    source = BagReader(tmp_path / 'd')
    plugin = StoragePlugin.SQLITE3 if kind == 'sqlite3' else StoragePlugin.MCAP
    writer = Writer(tmp_path / 'copy', version=8, storage_plugin=plugin)
    if kind != 'sqlite3':
        mode = CompressionMode.STORAGE if kind == 'chunks' else CompressionMode.MESSAGE
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections = {
            topic.name: writer.add_connection(topic.name, topic.type, typestore=msg.typestore())
            for topic in source.topics.values()
        }
        for message in source.messages():
            writer.write(connections[message.topic], message.log_time_ns, message.data)
    one, other = open_bag(tmp_path / 'd'), open_bag(tmp_path / 'copy')
    assert len(one) == len(other) == 5
    for index in (4, 0, 2):
        a, b = one.frame(index), other.frame(index)
        # No metadata says which camera comes first; a front camera does.
        assert a.rig.names == b.rig.names
        assert a.camera_stamps_ns == b.camera_stamps_ns
        np.testing.assert_array_equal(a.images[0], b.images[0])
    copied = [message.data for message in BagReader(tmp_path / 'copy').messages()]
    assert sorted(copied) == sorted(message.data for message in source.messages())
