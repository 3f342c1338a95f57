"""Argoverse 2 logs, tiny ones written by the test and the real pieces, through the real devkit."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import sys

import numpy as np
import pytest
import shapely
from core.data.helpers import av2_log
from core.data.helpers.av2_log import IMAGE_NS, LOG_ID, RING, START_NS, SWEEP_NS, write_log

from gsmap_core.data import argoverse2_drive
from gsmap_core.data.argoverse2 import (
    PROBLEM_LOGS,
    Argoverse2Dataset,
    Argoverse2Drive,
    Argoverse2Log,
    Argoverse2Options,
    Argoverse2TruthOptions,
    published_samples,
)
from gsmap_core.data.bag import open_bag, write_bag
from gsmap_core.data.drives import Drive, Recording
from gsmap_core.data.groundtruth_parallel import ground_truth_of
from gsmap_core.data.synthetic import av2_layout
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
from gsmap_core.errors import ConfigError, DataError, EnvironmentProblemError, TransformError
from gsmap_core.geometry.polylines import resample_polyline

pytest.importorskip('av2')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A dataset of one whole log; not changed by any test."""
    root = tmp_path_factory.mktemp('av2')
    write_log(root)
    return root


@pytest.fixture
def root(whole, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(whole, tmp_path / 'copy')
    return tmp_path / 'copy'


def drive_of(root, **options):
    return Argoverse2Dataset(root, options=Argoverse2Options(**options)).drive(LOG_ID)


def test_a_log_is_a_drive_and_a_recording(whole):
    drive = drive_of(whole)
    assert isinstance(drive, Drive)
    assert isinstance(drive, Recording)
    assert drive.log.missing == ()
    assert drive.problems == []
    assert (drive.log.split, drive.location) == ('val', 'PIT')


def test_calibration_in_the_order_of_the_models(whole):
    rig = drive_of(whole).rig
    assert rig.names == RING
    front, second = rig.cameras[:2]
    assert (front.width_px, front.height_px) == (48, 64)
    assert (second.width_px, second.height_px) == (64, 48)
    np.testing.assert_allclose(second.intrinsics, [[51, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
    # Published images are rectified, whatever coefficients the file has.
    assert second.distortion_model == 'none'
    np.testing.assert_allclose(
        second.base_from_camera,
        [[0, 0, 1, 1.5], [-1, 0, 0, 0.1], [0, -1, 0, 1.4], [0, 0, 0, 1]],
        atol=1e-12,
    )


@pytest.mark.parametrize(
    ('rate_hz', 'count', 'period_ns'),
    [(2, 3, 5 * SWEEP_NS), (10, 11, SWEEP_NS), (20, 21, IMAGE_NS)],
)
def test_rates_and_the_images_of_each_set(whole, rate_hz, count, period_ns):
    drive = drive_of(whole, rate_hz=rate_hz)
    assert [drive.stamp_ns(i) for i in range(len(drive))] == [
        START_NS + i * period_ns for i in range(count)
    ]
    frame = drive.frame(1)
    assert frame.camera_stamps_ns == tuple(
        START_NS + period_ns + 3_000_000 * number for number in range(7)
    )
    assert [int(image.mean().round()) for image in frame.images] == [
        20 * number + 40 for number in range(7)
    ]


def test_poses_of_cameras_are_interpolated_into_their_extrinsics(whole):
    drive = drive_of(whole)
    frame = drive.frame(2)
    np.testing.assert_allclose(frame.map_from_base[:3, 3], [2.4, 0, 0], atol=1e-6)
    for number, extrinsic in enumerate(frame.base_from_cameras):
        # 10 m/s, 3 ms a camera.
        expected = [1.5 + 0.03 * number, 0.1 * number, 1.4]
        np.testing.assert_allclose(extrinsic[:3, 3], expected, atol=1e-6)
    np.testing.assert_allclose(drive.city_poses[2][:3, 3], [1002.4, 2000, 0], atol=1e-6)


def test_poses_are_not_made_up(whole):
    log = Argoverse2Log(whole / 'val' / LOG_ID)
    with pytest.raises(TransformError, match='no pose at'):
        log.city_from_ego(START_NS + 2_000_000_000)
    stamps, poses = log.pose_table
    log.__dict__['pose_table'] = (stamps[::40], poses[::40])  # every 400 ms
    with pytest.raises(TransformError, match='400 ms apart; expected at most 200 ms'):
        log.city_from_ego(int(stamps[0]) + 1)


def test_reduced_pictures_keep_the_geometry(whole):
    frame = drive_of(whole).frame(0, max_width_px=20)
    front, second = frame.rig.cameras[:2]
    assert frame.images[0].shape == (32, 24, 3)
    assert frame.images[1].shape == (24, 32, 3)
    assert front.intrinsics[0, 0] == 25.0
    # The centre of a 2 x 2 block of pixels is between them: (31.5 - 0.5) / 2.
    assert second.intrinsics[0, 2] == 15.5


def test_sweeps_come_in_the_ego_frame_of_the_set(whole):
    drive = drive_of(whole, rate_hz=20)
    np.testing.assert_allclose(
        drive.lidar_points(2), [[10, 1, 0.5, 3], [20, -1, 0.25, 250]], atol=1e-6
    )
    # 50 ms and 0.5 m after the sweep, half way to the next one.
    np.testing.assert_allclose(drive.lidar_points(1)[:, 0], [9.5, 19.5], atol=1e-6)


def test_ground_truth_of_a_frame(whole):
    drive = drive_of(whole, truth=Argoverse2TruthOptions(heights='ground'))
    found = drive.ground_truth(0)
    assert [len(found.of_category(category)) for category in range(3)] == [1, 1, 2]
    np.testing.assert_allclose(found.elements[0].vertices[:, 2], 0.5, atol=1e-6)
    assert found.sample_id == f'{LOG_ID}_{START_NS}'
    np.testing.assert_allclose(found.map_from_base, drive.map_from_base(START_NS))
    assert drive_of(whole, truth=None).ground_truth(0) is None


def test_through_a_bag_and_back(whole, tmp_path):
    drive = drive_of(whole, rate_hz=2, lidar=True)
    write_bag(drive, tmp_path / 'bag', lidar=True)
    back = open_bag(tmp_path / 'bag')
    assert len(back) == len(drive)
    assert back.rig.names == drive.rig.names
    assert back.metadata['city_frame'] == 'PIT'
    assert back.metadata['map_offset'] == '1000 2000 0'
    for index in range(len(drive)):
        expected, frame = drive.frame(index), back.frame(index)
        assert frame.stamp_ns == expected.stamp_ns
        assert frame.sample_id == expected.sample_id
        np.testing.assert_allclose(frame.map_from_base, expected.map_from_base, atol=1e-6)
        np.testing.assert_allclose(frame.base_from_cameras, expected.base_from_cameras, atol=1e-5)
        np.testing.assert_allclose(back.lidar_points(index), drive.lidar_points(index), atol=1e-4)
        truth, returned = drive.ground_truth(index), back.ground_truth(index)
        assert [e.category for e in returned.elements] == [e.category for e in truth.elements]
        for one, other in zip(truth.elements, returned.elements, strict=True):
            assert one.closed == other.closed
            np.testing.assert_allclose(other.vertices, one.vertices, atol=1e-4)
    assert len(back.global_map) == len(drive.global_map) == 3
    stored = next(iter(drive.frames())).images[0]
    path = drive.log.image_path(stored.camera, stored.stamp_ns)
    assert stored.data == path.read_bytes()


def test_ground_truth_that_cannot_be_made_names_log_and_reason(root, monkeypatch):
    for path in (root / 'val' / LOG_ID / 'map').glob('*.npy'):
        path.unlink()
    drive = drive_of(root, truth=Argoverse2TruthOptions(heights='ground'))
    assert drive.log.missing == ('map/*_ground_height_surface____*.npy',)
    with pytest.raises(DataError, match=f"log '{LOG_ID}': no ground height raster"):
        drive.ground_truth(0)

    def fail(*_, **__):
        raise shapely.GEOSException('side location conflict')

    monkeypatch.setattr(argoverse2_drive, 'make_local_map', fail)
    drive = drive_of(root, rate_hz=2)
    with pytest.raises(DataError, match=f"log '{LOG_ID}'.*{START_NS} ns: side location conflict"):
        drive.ground_truth(0)
    # In a recording the rest of each set is there.
    frames = list(drive.frames())
    assert [len(frame.images) for frame in frames] == [7, 7, 7]
    assert [problem.stamp_ns for problem in drive.problems] == [f.stamp_ns for f in frames]


def test_problem_logs_are_known(root):
    shutil.copytree(root / 'val' / LOG_ID, root / 'train' / PROBLEM_LOGS[0])
    dataset = Argoverse2Dataset(root)
    assert dataset.names == (LOG_ID,)
    assert [problem.log for problem in dataset.problems] == [PROBLEM_LOGS[0]]
    both = Argoverse2Dataset(root, with_problem_logs=True)
    assert both.names == (PROBLEM_LOGS[0], LOG_ID)
    assert both.split_lists() == {'train': (PROBLEM_LOGS[0],), 'val': (LOG_ID,)}
    assert Argoverse2Dataset(root, ['val'], with_problem_logs=True).names == (LOG_ID,)


def test_a_broken_log_is_listed_and_the_others_are_read(root):
    broken = root / 'train' / 'broken'
    shutil.copytree(root / 'val' / LOG_ID, broken)
    (broken / 'city_SE3_egovehicle.feather').write_bytes(b'no feather')
    dataset = Argoverse2Dataset(root)
    assert [drive.name for drive in dataset] == [LOG_ID]
    (problem,) = dataset.problems
    assert problem.log == 'broken'
    assert "log 'broken': " in problem.reason
    assert 'city_SE3_egovehicle.feather' in problem.reason


@pytest.mark.parametrize(
    ('file', 'ask', 'text'),
    [
        ('map/log_map_archive', lambda d: d.ground_truth(0), 'log_map_archive'),
        ('map/log_map_archive', lambda d: d.global_map, 'log_map_archive'),
        ('calibration/intrinsics', lambda d: d.rig, 'intrinsics.feather'),
        ('calibration/egovehicle', lambda d: d.frame(0), 'intrinsics.feather|egovehicle_SE3'),
        ('sensors/lidar/', lambda d: d.lidar_points(0), 'sensors/lidar/'),
        ('sensors/cameras/ring_front_center/', lambda d: d.frame(0), 'ring_front_center/'),
    ],
)
def test_broken_files_are_named(root, file, ask, text):
    drive = drive_of(root)
    path = sorted((root / 'val' / LOG_ID).glob(f'{file}*'))[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=text) as caught:
        ask(drive)
    assert LOG_ID in str(caught.value)


def test_missing_files_are_listed_and_the_rest_is_there(root):
    log = root / 'val' / LOG_ID
    shutil.rmtree(log / 'sensors')
    shutil.rmtree(log / 'calibration')
    drive = drive_of(root)
    assert drive.log.missing == (
        'images (sensors/cameras)',
        'calibration/egovehicle_SE3_sensor.feather',
        'calibration/intrinsics.feather',
        'LiDAR sweeps (sensors/lidar)',
    )
    assert not drive.has_calibration
    with pytest.raises(DataError, match='calibration/egovehicle_SE3_sensor.feather'):
        _ = drive.rig
    # 10 Hz over the poses, from 50 ms before START to 50 ms after its end.
    assert len(drive) == 12
    assert drive.metadata['stamps_from'] == 'poses'
    assert len(drive.ground_truth(0)) == 4
    assert drive.lidar_points(0) is None


def test_another_rig_stands_in_for_a_missing_calibration(root, whole):
    log = root / 'val' / LOG_ID
    shutil.rmtree(log / 'calibration')
    drive = Argoverse2Drive(log, rig=drive_of(whole).rig)
    np.testing.assert_array_equal(
        drive.frame(1).base_from_cameras, drive_of(whole).frame(1).base_from_cameras
    )


def test_incomplete_sets_are_left_out_or_kept(root):
    folder = root / 'val' / LOG_ID / 'sensors' / 'cameras' / 'ring_side_left'
    stamp = START_NS + 3 * SWEEP_NS
    for path in folder.glob('*.jpg'):
        # The image of the third sweep, and its neighbours: 50 ms away is too far.
        if abs(int(path.stem) - stamp) < 20_000_000:
            path.unlink()
    drive = drive_of(root)
    assert len(drive) == 10
    (problem,) = drive.problems
    assert (problem.stamp_ns, problem.reason) == (stamp, 'no image near it of ring_side_left')
    kept = drive_of(root, complete_only=False)
    assert len(kept) == 11
    assert kept.missing_images(3) == ('ring_side_left',)
    assert kept.frame(3).images[6] is None
    assert kept.frame(3).camera_stamps_ns[6] is None
    # A camera that this copy lacks altogether does not leave every set out.
    shutil.rmtree(folder)
    assert len(drive_of(root)) == 11
    assert drive_of(root).log.missing == ('images of ring_side_left',)


def test_broken_image_is_left_out_of_a_recording(root):
    drive = drive_of(root, rate_hz=2)
    path = drive.log.image_path('ring_rear_left', drive.frame(1).camera_stamps_ns[4])
    path.write_bytes(path.read_bytes()[:-10])
    frames = list(drive.frames())
    assert [len(frame.images) for frame in frames] == [7, 6, 7]
    assert all(frame.ground_truth is not None for frame in frames)
    (problem,) = drive.problems
    assert str(path) in problem.reason


def test_sets_that_the_poses_do_not_cover_are_left_out(root):
    log = root / 'val' / LOG_ID
    av2_log.write_poses(log, duration_s=0.5)
    drive = drive_of(root)
    assert len(drive) == 6
    assert 'no pose at' in drive.problems[0].reason
    (log / 'city_SE3_egovehicle.feather').unlink()
    with pytest.raises(
        DataError, match=f"log '{LOG_ID}'.*city_SE3_egovehicle.feather' is missing"
    ):
        drive_of(root)


def test_map_with_an_unknown_mark_names_log_and_file(root):
    for path in (root / 'val' / LOG_ID / 'map').glob('log_map_archive*.json'):
        values = json.loads(path.read_text())
        values['lane_segments']['1']['left_lane_mark_type'] = 'PINK'
        path.write_text(json.dumps(values))
    with pytest.raises(DataError, match='log_map_archive.*PINK'):
        drive_of(root).ground_truth(0)


def test_where_it_was_looked_for(whole, tmp_path):
    with pytest.raises(DataError, match='looked for LOG, SPLIT/LOG and sensor/SPLIT/LOG'):
        Argoverse2Dataset(tmp_path)
    with pytest.raises(DataError, match='the folder does not exist'):
        Argoverse2Dataset(tmp_path / 'nowhere')
    with pytest.raises(DataError, match=f"no log nobody in '.*'; it has {LOG_ID}"):
        Argoverse2Dataset(whole, logs=['nobody'])
    with pytest.raises(DataError, match='no split test'):
        Argoverse2Dataset(whole, ['test'])
    # The root of everything, a split, a log.
    (tmp_path / 'all').mkdir()
    (tmp_path / 'all' / 'sensor').symlink_to(whole)
    for place in (tmp_path / 'all', whole, whole / 'val', whole / 'val' / LOG_ID):
        assert Argoverse2Dataset(place).names == (LOG_ID,)


def test_the_devkit_is_asked_for_by_name(whole, monkeypatch):
    for name in [name for name in sys.modules if name.split('.')[0] == 'av2']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'av2', None)
    with pytest.raises(EnvironmentProblemError, match=r'gsmap_ros\[argoverse2\]'):
        Argoverse2Dataset(whole)


def test_heavy_parts_of_the_devkit_stay_out(whole):
    drive_of(whole).ground_truth(0)
    assert not {'kornia', 'polars', 'numba', 'pyproj', 'av'} & set(sys.modules)


def test_published_samples_are_taken_over_all_drives_by_stamp(root):
    shutil.copytree(root / 'val' / LOG_ID, root / 'train' / 'other')
    drives = list(Argoverse2Dataset(root))
    assert [drive.name for drive in drives] == ['other', LOG_ID]
    # 22 samples at 11 moments, both drives at each: every third alternates between them.
    chosen = published_samples(drives, 3)
    assert [(drives.index(drive), index) for drive, index in chosen] == [
        (0, 0), (1, 1), (0, 3), (1, 4), (0, 6), (1, 7), (0, 9), (1, 10),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match='stride 0'):
        published_samples(drives, 0)


def test_unknown_rate():
    with pytest.raises(ConfigError, match='rate 12 Hz; Argoverse 2 is read at one of 2, 10, 20'):
        Argoverse2Options(rate_hz=12)


def test_ground_truth_of_drives_lists_what_cannot_be_built(root):
    other = root / 'train' / 'other'
    shutil.copytree(root / 'val' / LOG_ID, other)
    for path in (other / 'map').glob('log_map_archive*.json'):
        path.unlink()
    options = Argoverse2Options(rate_hz=2)
    drives = list(Argoverse2Dataset(root, options=options))
    other_result, result = ground_truth_of(drives)
    assert (other_result.name, result.name) == ('other', LOG_ID)
    assert other_result.frames == (None, None, None)
    assert [index for index, _ in other_result.problems] == [0, 1, 2]
    assert 'log_map_archive' in other_result.problems[0][1]
    assert None not in result.frames


def test_drives_travel_to_worker_processes_without_their_maps(whole):
    drive = drive_of(whole, rate_hz=2)
    expected = drive.ground_truth(1)
    data = pickle.dumps(drive)
    assert len(data) < 20_000
    back = pickle.loads(data)
    found = back.ground_truth(1)
    for one, other in zip(expected.elements, found.elements, strict=True):
        np.testing.assert_array_equal(one.vertices, other.vertices)
    assert back.frame(1).camera_stamps_ns == drive.frame(1).camera_stamps_ns


class BlankRecording(SyntheticRecording):
    """Poses, calibration and map of a synthetic drive; drawing it would take a minute."""

    def images(self, index, renderer=None):
        sizes = [(camera.height_px, camera.width_px, 3) for camera in self.rig.cameras]
        return [np.zeros(size, dtype=np.uint8) for size in sizes]

    def sweep(self, index):
        return np.ones((3, 4), dtype=np.float32)


def test_synthetic_towns_in_the_layout_of_the_dataset(tmp_path):
    spec = av2_layout.fitted(
        DriveSpec(10_002, rig='av2_like', duration_s=0.5, rate_hz=2, image_width_px=24)
    )
    recording = BlankRecording(spec)
    av2_layout.write_log(recording, tmp_path / 'val' / spec.name)
    options = Argoverse2Options(truth=Argoverse2TruthOptions('maptr'))
    (drive,) = Argoverse2Dataset(tmp_path, options=options)
    assert (len(drive), drive.log.missing, drive.problems) == (2, (), [])
    assert drive.rig.names == recording.rig.names
    assert drive.frame(1).is_complete
    for category, tolerance_m in ((0, 0.05), (2, 0.05)):
        # The town's own elements, in steps, lie on what is made of the map; its lines are
        # cut at the range, those of boundaries 0.2 m earlier.
        lines = drive.ground_truth(1).of_category(category)
        found = shapely.MultiLineString([closed(element) for element in lines])
        for element in recording.ground_truth(1).of_category(category):
            points = resample_polyline(closed(element), 100)
            inside = (np.abs(points) < [29.7, 14.7]).all(axis=1)
            distances = shapely.distance(shapely.points(points[inside]), found)
            assert distances.max(initial=0.0) < tolerance_m


def closed(element):
    vertices = element.vertices[:, :2]
    return np.concatenate([vertices, vertices[:1]]) if element.closed else vertices


@pytest.mark.data
def test_real_pieces_are_read_and_what_they_lack_is_listed(data_dir):
    drives = list(Argoverse2Dataset(data_dir / 'av2', options=Argoverse2Options(rate_hz=2)))
    assert [(drive.name[:8], drive.location) for drive in drives] == [
        ('3b3570b4', 'MIA'),
        ('7fab2350', 'PIT'),
    ]
    miami, pittsburgh = drives
    assert not miami.has_calibration
    assert pittsburgh.rig.names == RING
    assert [(camera.width_px, camera.height_px) for camera in pittsburgh.rig.cameras] == [
        (1550, 2048),
        *[(2048, 1550)] * 6,
    ]
    for drive in drives:
        assert 'images (sensors/cameras)' in drive.log.missing
        assert len(drive) == 32
        assert len(drive.poses) > 2600
        assert all(image is None for image in pittsburgh.frame(0).images)
        assert len(drive.global_map) > 10
    every = Argoverse2Drive(pittsburgh.log)
    sweeps = [i for i in range(len(every)) if every.stamp_ns(i) in every.log.sweep_stamps_ns]
    assert len(sweeps) == 2
    assert len(every.lidar_points(sweeps[0])) > 50_000


@pytest.mark.data
def test_real_ground_lies_below_the_wheels(data_dir):
    """The rear axle is about a third of a metre above the ground, and the raster says so."""
    truth = Argoverse2TruthOptions(heights='ground')
    for drive in Argoverse2Dataset(data_dir / 'av2', options=Argoverse2Options(truth=truth)):
        ground = drive.log.city_map.ground
        heights = drive.city_poses[:, 2, 3] - ground.at(drive.city_poses[:, :2, 3])
        assert 0.2 < np.median(heights) < 0.5
        flat = dataclasses.replace(truth, heights='map')
        found, expected = (
            drive.ground_truth(5),
            Argoverse2Drive(drive.log, Argoverse2Options(truth=flat)).ground_truth(5),
        )
        for one, other in zip(found.elements, expected.elements, strict=True):
            assert np.abs(one.vertices[:, 2] - other.vertices[:, 2]).max() < 0.5
