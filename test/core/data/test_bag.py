"""A drive goes into a bag and comes back the same."""

from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from core.data.helpers.fake_recording import START_NS, FakeRecording, make_rig, pose_at

from gsmap_core.data import messages as msg
from gsmap_core.data.bag import (
    GROUND_TRUTH_TOPIC,
    BagReader,
    BagRecorder,
    QosProfile,
    image_topic,
    open_bag,
    read_local_maps,
    write_bag,
)
from gsmap_core.data.drives import Drive
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import invert, make_transform, transform_points
from gsmap_core.structures import CameraRig, MapElement, VectorMap


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('bags') / 'drive'
    write_bag(FakeRecording(), path, lidar=True)
    return path


def decoded(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)


def test_frames_come_back_with_pictures_calibration_and_stamps(bag):
    recording, drive = FakeRecording(), open_bag(bag)
    assert isinstance(drive, Drive)
    assert len(drive) == 5
    assert drive.name == 'fake-drive'
    assert drive.rig.names == ('cam_front', 'cam_back')
    assert drive.rig.name == 'fake'
    for found, expected in zip(drive.rig.cameras, recording.rig.cameras, strict=True):
        np.testing.assert_array_equal(found.intrinsics, expected.intrinsics)
        np.testing.assert_allclose(found.base_from_camera, expected.base_from_camera, atol=1e-12)
        assert replace(found, intrinsics=np.eye(3), base_from_camera=np.eye(4)).frame_id == (
            f'{expected.name}_optical_frame'
        )
    for index in range(5):
        frame = drive.frame(index)
        stamp = START_NS + index * 200_000_000
        assert drive.stamp_ns(index) == frame.stamp_ns == stamp
        assert frame.camera_stamps_ns == (stamp, stamp + 30_000_000)
        assert (frame.sample_id, frame.scene) == (f'sample-{index}', 'fake-drive')
        for image, name in zip(frame.images, frame.rig.names, strict=True):
            np.testing.assert_array_equal(image, decoded(recording.jpeg(index, name)))


def test_ego_motion_inside_a_set_is_in_the_extrinsics(bag):
    frame = open_bag(bag).frame(3)
    late = START_NS + 600_000_000 + 30_000_000
    # Poses are interpolated over 20 ms: that costs less than a millimetre on this curve.
    np.testing.assert_allclose(frame.map_from_base, pose_at(frame.stamp_ns), atol=1e-3)
    base_from_base = invert(pose_at(frame.stamp_ns)) @ pose_at(late)
    expected = base_from_base @ frame.rig.cameras[1].base_from_camera
    np.testing.assert_allclose(frame.base_from_cameras[1], expected, atol=1e-3)
    np.testing.assert_allclose(
        frame.base_from_cameras[0], frame.rig.cameras[0].base_from_camera, atol=1e-12
    )
    assert np.linalg.norm(expected[:3, 3] - frame.rig.cameras[1].base_from_camera[:3, 3]) > 0.25


def test_poses_outside_the_recording_are_refused(bag):
    drive = open_bag(bag)
    with pytest.raises(LookupError, match='before the first recorded sample'):
        drive.map_from_base(START_NS - 10**9)
    with pytest.raises(LookupError, match='after the last recorded sample'):
        drive.map_from_base(START_NS + 60 * 10**9)


def test_ground_truth_and_the_whole_map_come_back(bag):
    recording, drive = FakeRecording(), open_bag(bag)
    for index, frame in enumerate(recording.frames()):
        found, expected = drive.ground_truth(index), frame.ground_truth
        assert (found.stamp_ns, found.sample_id, found.scene) == (
            expected.stamp_ns,
            f'sample-{index}',
            'fake-drive',
        )
        assert found.range == expected.range
        for one, other in zip(found.elements, expected.elements, strict=True):
            assert (one.category, one.closed, one.id, one.score) == (
                other.category,
                other.closed,
                other.id,
                None,
            )
            np.testing.assert_array_equal(one.vertices, other.vertices)
    whole = drive.global_map
    assert whole.reference == 'map'
    for one, other in zip(whole.elements, recording.global_map.elements, strict=True):
        np.testing.assert_array_equal(one.vertices, other.vertices)


def test_lidar_comes_back_in_the_frame_of_the_set(bag):
    expected = [frame.lidar_points for frame in FakeRecording().frames()]
    drive = open_bag(bag)
    np.testing.assert_allclose(drive.lidar_points(2), expected[2], atol=1e-5)


def test_the_lidar_frame_of_the_rig_comes_back(bag, tmp_path):
    assert open_bag(bag).rig.base_from_lidar is None
    recording = FakeRecording()
    mount = make_transform([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], [0.9, 0.0, 1.8])
    recording.rig = replace(recording.rig, base_from_lidar=mount)
    write_bag(recording, tmp_path / 'bag')
    drive = open_bag(tmp_path / 'bag')
    np.testing.assert_allclose(drive.rig.base_from_lidar, mount, atol=1e-12)
    np.testing.assert_allclose(drive.frame(0).rig.base_from_lidar, mount, atol=1e-12)


def test_metadata_and_topics(bag):
    drive = open_bag(bag)
    assert drive.metadata['map_offset'] == '1000 2000 0'
    assert drive.metadata['city_frame'] == 'nowhere'
    assert drive.topics['/tf_static'].qos == QosProfile(
        'reliable', 'transient_local', 'keep_last', 1
    )
    assert drive.topics[image_topic('cam_back')].qos.depth == 5
    assert drive.topics['/tf'].count == drive.topics['/odom'].count == 56


def test_messages_are_in_time_order_and_poses_come_before_images(bag):
    times = [message.log_time_ns for message in BagReader(bag).messages()]
    assert times == sorted(times)
    topics = [message.topic for message in BagReader(bag).messages()]
    assert set(topics[:2]) == {'/tf_static', '/ground_truth/map'}
    assert topics.index('/tf') < topics.index(image_topic('cam_front'))


def test_log_time_is_the_header_stamp(bag):
    reader = BagReader(bag)
    for topic in (image_topic('cam_back'), '/cam_back/camera_info', '/odom', GROUND_TRUTH_TOPIC):
        np.testing.assert_array_equal(reader.log_times_ns(topic), reader.header_stamps_ns(topic))


def test_odometry_has_the_velocity_of_the_vehicle(bag):
    reader = BagReader(bag)
    twist = reader.message('/odom', 20).twist.twist
    speed = np.array([twist.linear.x, twist.linear.y, twist.linear.z])
    assert np.linalg.norm(speed) == pytest.approx(np.hypot(10.0, 1.0), rel=1e-3)
    assert twist.angular.z == pytest.approx(0.2 * np.cos(0.01) * np.cos(0.03), rel=1e-3)


def test_reduced_decoding_keeps_rays_in_place(bag):
    drive = open_bag(bag)
    small = drive.frame(1, max_width_px=20)
    # 64 px allow 1/2; 80 px allow 1/4; the width never falls below the limit.
    assert [image.shape[:2] for image in small.images] == [(24, 32), (15, 20)]
    for camera, full, factor in zip(small.rig.cameras, drive.rig.cameras, (2, 4), strict=True):
        corner = np.array([-0.5, -0.5, 1.0])
        ray = np.linalg.inv(camera.intrinsics) @ corner
        np.testing.assert_allclose(ray, np.linalg.inv(full.intrinsics) @ corner, atol=1e-12)
        assert camera.intrinsics[0, 0] == full.intrinsics[0, 0] / factor
    assert drive.frame(1, max_width_px=1000).images[0].shape[:2] == (48, 64)


def test_sizes_that_are_no_multiple_decode_at_exactly_one_nth(tmp_path):
    recording = FakeRecording(num_frames=1)
    camera = replace(recording.rig.cameras[0], width_px=70, height_px=45)
    recording.rig = CameraRig('odd', (camera, recording.rig.cameras[1]))
    write_bag(recording, tmp_path / 'odd')
    frame = open_bag(tmp_path / 'odd').frame(0, max_width_px=8)
    assert frame.images[0].shape[:2] == (6, 9)
    assert frame.rig.cameras[0].intrinsics[1, 1] == pytest.approx(camera.intrinsics[1, 1] / 8)


def test_a_missing_image_is_none_and_the_set_stays(tmp_path):
    missing = frozenset({(1, 'cam_back'), (3, 'cam_front')})
    write_bag(FakeRecording(missing=missing), tmp_path / 'gaps')
    drive = open_bag(tmp_path / 'gaps')
    assert len(drive) == 5
    assert drive.num_incomplete == 2
    frames = [drive.frame(index) for index in range(5)]
    present = [[image is not None for image in frame.images] for frame in frames]
    assert present == [[True, True], [True, False], [True, True], [False, True], [True, True]]
    assert frames[3].stamp_ns == START_NS + 3 * 200_000_000 + 30_000_000
    # Its ground truth is moved from its own stamp to that of the set.
    own = list(FakeRecording().frames())[3].ground_truth.elements[0].vertices
    motion = invert(pose_at(frames[3].stamp_ns)) @ pose_at(START_NS + 3 * 200_000_000)
    moved = drive.ground_truth(3).elements[0].vertices
    np.testing.assert_allclose(moved, transform_points(motion, own), atol=2e-3)
    assert np.abs(moved - own).max() > 0.3


def test_a_drive_without_truth_has_none(tmp_path):
    write_bag(FakeRecording(has_truth=False), tmp_path / 'plain')
    drive = open_bag(tmp_path / 'plain')
    assert drive.ground_truth(0) is None
    assert drive.global_map is None
    assert drive.lidar_points(0) is None
    assert drive.num_annotated == 0


def read_stamp(drive: Drive, index: int) -> tuple[int, float]:
    frame = drive.frame(index)
    return frame.stamp_ns, float(frame.images[1].mean())


def test_worker_processes_read_the_same(bag):
    drive = open_bag(bag)
    expected = [read_stamp(drive, index) for index in range(5)]  # files are open before forking
    with multiprocessing.get_context('fork').Pool(2) as pool:
        found = pool.starmap(read_stamp, [(drive, index) for index in range(5)])
    assert found == expected
    copy = pickle.loads(pickle.dumps(drive))
    assert read_stamp(copy, 2) == expected[2]


def test_a_bare_file_is_the_same_drive(tmp_path):
    summary = write_bag(FakeRecording(), tmp_path / 'one.mcap', limit=3)
    assert summary.num_frames == 3
    assert summary.path.is_file()
    drive = open_bag(tmp_path / 'one.mcap')
    assert len(drive) == 3
    assert drive.metadata['source'] == 'test'
    # Cut short: poses go a little past the last image and no further.
    assert drive.map_from_base(START_NS + 2 * 200_000_000 + 30_000_000) is not None
    assert drive.reader.end_ns < START_NS + 700_000_000


def test_progress_and_summary(tmp_path):
    seen = []
    summary = write_bag(
        FakeRecording(), tmp_path / 'd', progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(n, 0) for n in range(1, 6)]
    assert summary.topics[GROUND_TRUTH_TOPIC] == 5
    assert summary.size_bytes == sum(f.stat().st_size for f in (tmp_path / 'd').iterdir())
    assert '/lidar_top/points' not in summary.topics


class Failing(FakeRecording):
    def frames(self):
        yield from list(super().frames())[:2]
        raise OSError('disk on fire')


def test_a_crash_leaves_nothing_and_keeps_what_was_there(tmp_path):
    with pytest.raises(OSError, match='on fire'):
        write_bag(Failing(), tmp_path / 'd')
    assert list(tmp_path.iterdir()) == []
    write_bag(FakeRecording(), tmp_path / 'd')
    with pytest.raises(DataError, match='exists already'):
        write_bag(FakeRecording(), tmp_path / 'd')
    with pytest.raises(OSError, match='on fire'):
        write_bag(Failing(), tmp_path / 'd', overwrite=True)
    assert len(open_bag(tmp_path / 'd')) == 5
    write_bag(FakeRecording(num_frames=2), tmp_path / 'd', overwrite=True)
    assert len(open_bag(tmp_path / 'd')) == 2
    assert [path.name for path in tmp_path.iterdir()] == ['d']


class Backwards(FakeRecording):
    def frames(self):
        yield from reversed(list(super().frames()))


def test_frames_out_of_order_are_refused(tmp_path):
    with pytest.raises(DataError, match='time order'):
        write_bag(Backwards(), tmp_path / 'd')


def test_impossible_drives_are_refused(tmp_path):
    recording = FakeRecording()
    lens = replace(
        recording.rig.cameras[0], distortion_model='plumb_bob', distortion=(0.1, 0, 0, 0, 0)
    )
    recording.rig = CameraRig('lens', (lens,))
    with pytest.raises(DataError, match='cam_front have lens distortion'):
        write_bag(recording, tmp_path / 'd')
    with pytest.raises(DataError, match='no camera sets'):
        write_bag(FakeRecording(num_frames=0), tmp_path / 'd')
    assert list(tmp_path.iterdir()) == []


def test_recorded_outputs_come_back_as_local_maps(tmp_path):
    element = MapElement(0, np.array([[1.0, 2.0], [3.0, 4.0]]), score=0.5, id=9)
    maps = [VectorMap((element,), stamp_ns=START_NS + n, sample_id=f's{n}') for n in range(3)]
    topic = '/mapping/local_map'
    with BagRecorder(tmp_path / 'out', {'scene': 'x'}) as recorder:
        recorder.add_topic(topic, msg.MAP_ELEMENT_ARRAY)
        for local_map in maps:
            data = msg.serialise(msg.local_map_to_message(local_map))
            recorder.write(topic, local_map.stamp_ns + 50, data)
    found = read_local_maps(tmp_path / 'out', topic)
    assert [m.stamp_ns for m in found] == [m.stamp_ns for m in maps]
    assert [m.sample_id for m in found] == ['s0', 's1', 's2']
    assert found[0].elements[0].score == 0.5
    assert found[0].scene == 'x'
    assert found[0].map_from_base is None
    with pytest.raises(DataError, match=f'{topic} has'):
        read_local_maps(tmp_path / 'out', '/other')


def test_local_maps_of_a_drive_have_their_pose(bag):
    found = read_local_maps(bag, GROUND_TRUTH_TOPIC)
    np.testing.assert_allclose(found[4].map_from_base, pose_at(found[4].stamp_ns), atol=1e-3)


def test_the_recorder_refuses_what_it_cannot_write(tmp_path):
    with BagRecorder(tmp_path / 'r') as recorder:
        with pytest.raises(DataError, match='not declared'):
            recorder.write('/x', 0, b'')
        with pytest.raises(DataError, match="'no/msg/Such' is unknown"):
            recorder.add_topic('/x', 'no/msg/Such')
        recorder.add_topic('/x', 'std_msgs/msg/String')
        with pytest.raises(DataError, match='declared as std_msgs/msg/String'):
            recorder.add_topic('/x', 'std_msgs/msg/Header')
        with pytest.raises(DataError, match='negative'):
            recorder.write('/x', -1, b'\0\1\0\0')


def test_a_rig_picks_cameras_and_calibration(bag):
    rig = make_rig()
    back = rig.camera('cam_back')
    other = replace(back, intrinsics=back.intrinsics * np.array([[2.0], [2.0], [1.0]]))
    drive = open_bag(bag, rig=CameraRig('mine', (other, replace(rig.cameras[0], name='cam_x'))))
    frame = drive.frame(0)
    assert frame.rig.names == ('cam_back', 'cam_x')
    assert frame.images[1] is None
    assert frame.rig.cameras[0].intrinsics[0, 0] == 2 * back.intrinsics[0, 0]
    with pytest.raises(DataError, match='none of the cameras of rig'):
        open_bag(bag, rig=CameraRig('none', (replace(back, name='cam_x'),)))


def test_images_of_another_camera_are_refused(tmp_path):
    recording = FakeRecording(num_frames=1)
    frame = next(iter(recording.frames()))
    recording.rig = CameraRig('half', (recording.rig.cameras[0],))
    recording.frames = lambda: iter([frame])  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no camera 'cam_back'"):
        write_bag(recording, tmp_path / 'd')
