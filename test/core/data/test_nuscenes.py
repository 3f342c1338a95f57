"""A tiny dataset in nuScenes' layout, read by the real devkit; and the real pieces."""

import json
import pickle
import sys

import numpy as np
import pytest
from helpers import tiny_nuscenes as tiny

from gsmap_core.data.bag import open_bag, write_bag
from gsmap_core.data.drives import Drive, Recording
from gsmap_core.data.groundtruth_variants import GroundTruthOptions
from gsmap_core.data.nuscenes import STREAMMAPNET_LEFT_OUT, NuScenesDataset
from gsmap_core.errors import ConfigError, DataError, EnvironmentProblemError

pytest.importorskip('nuscenes', reason='nuscenes-devkit is not installed')
EVERYTHING = ('divider', 'ped_crossing', 'boundary', 'centerline')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return tiny.write_dataset(tmp_path_factory.mktemp('nuscenes'))


@pytest.fixture
def own_root(tmp_path):
    """A copy of its own, to be broken."""
    return tiny.write_dataset(tmp_path / 'nuscenes')


@pytest.fixture(scope='module')
def drive(root):
    options = GroundTruthOptions('maptrv2', categories=EVERYTHING)
    return NuScenesDataset(root, ground_truth=options).drive('scene-0001')


def test_a_scene_is_a_drive_and_a_recording(drive):
    assert isinstance(drive, Drive)
    assert isinstance(drive, Recording)
    assert drive.rig.names == (
        'cam_front',
        'cam_front_right',
        'cam_front_left',
        'cam_back',
        'cam_back_left',
        'cam_back_right',
    )
    assert drive.rig.name == 'nuscenes-n000'
    assert [drive.stamp_ns(i) for i in range(2)] == [tiny.START_US * 1000, 1600000000500000000]
    assert [drive.sample_id(i) for i in range(len(drive))] == list(tiny.SAMPLE_TOKENS)
    assert pickle.loads(pickle.dumps(drive)).name == drive.name


def test_poses_are_those_of_the_city_less_the_offset(drive):
    np.testing.assert_array_equal(drive.map_offset, [400, 300, 0])
    assert drive.metadata['map_offset'] == '400 300 0'
    np.testing.assert_allclose(drive.city_poses[:, :2, 3], [[400, 300], [402, 300]])
    stamps = [pose.stamp_ns for pose in drive.poses]
    assert stamps == sorted(set(stamps))
    assert len(stamps) == 8  # two of the cameras (all at once) and six sweeps
    assert stamps[0] == (tiny.START_US - tiny.CAMERA_LEAD_US) * 1000
    np.testing.assert_allclose(drive.poses[0].map_from_base[0, 3], -0.16, atol=1e-9)


def test_the_motion_inside_a_set_is_in_the_extrinsics(drive):
    """The cameras fired 40 ms before the sweep, 0.16 m farther back."""
    frame = drive.frame(0)
    assert frame.is_complete
    assert frame.camera_stamps_ns[0] == frame.stamp_ns - 40_000_000
    shift = frame.base_from_cameras - np.stack([c.base_from_camera for c in drive.rig.cameras])
    np.testing.assert_allclose(shift[:, 0, 3], -0.16, atol=1e-9)
    np.testing.assert_allclose(shift[:, 1:3, 3], 0.0, atol=1e-9)
    # cam_front_left is the third of the rig and the third written: its own grey, not its place.
    assert [int(image[0, 0, 0]) for image in frame.images] == [0, 60, 40, 20, 80, 100]
    small = drive.frame(0, max_width_px=16)
    assert small.images[0].shape == (9, 16, 3)
    # Pixel centres: (31.5 + 0.5) / 4 - 0.5.
    assert small.rig.cameras[0].intrinsics[0, 2] == pytest.approx(7.5)


def test_lidar_points_are_in_the_ego_frame(drive):
    """2 m right and 10 m ahead of the LiDAR, which is 1 m ahead and 1.8 m up."""
    np.testing.assert_allclose(drive.lidar_points(0), [[11.0, -2.0, 1.8, 7.0]], atol=1e-6)


def test_ground_truth_of_a_straight_road(drive):
    """The car stands in the middle of the road: every coordinate can be read off the map."""
    local_map = drive.ground_truth(0)
    assert (local_map.reference, local_map.sample_id) == ('ego', 'sample-a')
    dividers = local_map.of_category(0)
    np.testing.assert_allclose(dividers[0].vertices, [[-30, 0], [30, 0]], atol=1e-9)
    np.testing.assert_allclose(dividers[1].vertices, [[-20, 2], [20, 2]], atol=1e-9)
    (crossing,) = local_map.of_category(1)
    assert crossing.closed
    assert crossing.vertices.min(axis=0) == pytest.approx([10, -4])
    assert crossing.vertices.max(axis=0) == pytest.approx([13, 4])
    boundaries = local_map.of_category(2)
    assert sorted(b.vertices[0].round(6).tolist() for b in boundaries) == [[-29.8, 4], [29.8, -4]]
    (lane,) = local_map.of_category(3)
    np.testing.assert_allclose(lane.vertices, [[-10, -2], [25, -2]], atol=1e-6)
    np.testing.assert_allclose(local_map.map_from_base[:2, 3], [0, 0])
    # Half a second later the map has come 2 m nearer.
    np.testing.assert_allclose(drive.ground_truth(1).of_category(0)[1].vertices[:, 0], [-22, 18])
    whole = drive.global_map
    assert whole.reference == 'map'
    np.testing.assert_allclose(whole.of_category(0)[1].vertices, [[-20, 2], [20, 2]], atol=1e-9)


def test_every_image_at_twelve_hertz(root):
    drive = NuScenesDataset(root, rate='sweeps').drive('scene-0001')
    assert [drive.sample_id(i) for i in range(len(drive))] == ['sample-a', *4 * [''], 'sample-b']
    steps_ms = np.diff([drive.stamp_ns(i) for i in range(len(drive))]) / 1e6
    # In between, a set has the stamp of its front image, 40 ms before its sweep.
    np.testing.assert_allclose(steps_ms, [60, 100, 100, 100, 140])
    assert drive.ground_truth(0) is None
    frame = drive.frame(2)
    assert frame.is_complete
    assert frame.camera_stamps_ns[0] == frame.stamp_ns
    # The sweep 40 ms later, 0.16 m farther on.
    np.testing.assert_allclose(drive.lidar_points(2)[0, 0], 11.16, atol=1e-5)


def test_through_a_bag_and_back(root, tmp_path):
    drive = NuScenesDataset(root, ground_truth=GroundTruthOptions()).drive('scene-0001')
    write_bag(drive, tmp_path / 'bag')
    back = open_bag(tmp_path / 'bag')
    assert [back.sample_id(i) for i in range(len(back))] == list(tiny.SAMPLE_TOKENS)
    assert back.rig.base_from_lidar == pytest.approx(drive.rig.base_from_lidar)
    for index in range(2):
        # The bag's set is of the moment of the front image: 0.16 m earlier.
        there, here = drive.ground_truth(index), back.ground_truth(index)
        assert len(there) == len(here)
        for one, other in zip(there.elements, here.elements, strict=True):
            expected = one.vertices + [tiny.SPEED_M_S * 0.04, 0.0]
            np.testing.assert_allclose(other.vertices, expected, atol=1e-4)
    lidar_frame = NuScenesDataset(root, ground_truth=GroundTruthOptions(reference='lidar'))
    write_bag(lidar_frame.drive('scene-0001'), tmp_path / 'lidar')
    there, here = (
        item.ground_truth(0)
        for item in (lidar_frame.drive('scene-0001'), open_bag(tmp_path / 'lidar'))
    )
    assert there.reference == here.reference == 'lidar'
    for one, other in zip(there.elements, here.elements, strict=True):
        expected = one.vertices + [0.0, tiny.SPEED_M_S * 0.04]
        np.testing.assert_allclose(other.vertices, expected, atol=1e-4)


def test_missing_images_are_listed_and_broken_ones_named(own_root):
    files = sorted((own_root / 'samples').glob('CAM_*/*.jpg'))
    gone = [file for file in files if 'CAM_BACK_LEFT' in str(file)]
    gone[0].unlink()
    drive = next(iter(NuScenesDataset(own_root)))
    assert drive.missing_images(0) == (
        f'cam_back_left: {gone[0].relative_to(own_root).as_posix()}',
    )
    assert drive.missing_images(1) == ()
    frame = drive.frame(0)
    assert [image is None for image in frame.images] == [False, False, False, False, True, False]
    assert len(next(drive.frames()).images) == 5
    gone[1].write_bytes(b'no picture')
    with pytest.raises(DataError, match=r'sample-b.*CAM_BACK_LEFT.*jpg'):
        drive.frame(1)
    sweep = next((own_root / 'samples' / 'LIDAR_TOP').iterdir())
    sweep.write_bytes(b'123')
    with pytest.raises(DataError, match=r'LIDAR_TOP.*3 bytes'):
        drive.lidar_points(0)


def test_a_sample_without_sweep_is_listed(own_root):
    _edit(own_root, 'sample_data', lambda r: r['token'] != 'LIDAR_TOP-5')
    drive = next(iter(NuScenesDataset(own_root)))
    assert len(drive) == 1
    assert len(drive.problems) == 1
    assert "'sample-b'" in drive.problems[0]


def test_a_scene_without_a_camera_is_no_drive(own_root):
    _edit(own_root, 'sample_data', lambda r: not r['filename'].count('CAM_BACK/'))
    with pytest.raises(DataError, match=r'scene-0001.*CAM_BACK'):
        NuScenesDataset(own_root)


def test_a_pose_that_is_none_is_named(own_root):
    path = own_root / 'v1.0-mini' / 'ego_pose.json'
    records = json.loads(path.read_text())
    for record in records:
        if record['token'].endswith('-3'):
            record['translation'][1] = float('nan')
    path.write_text(json.dumps(records), encoding='utf-8')
    with pytest.raises(DataError, match=r"scene-0001.*'pose-CAM_BACK_RIGHT-3'.*NaN"):
        NuScenesDataset(own_root, rate='sweeps')
    for record in records:
        record.pop('rotation')
    path.write_text(json.dumps(records), encoding='utf-8')
    with pytest.raises(DataError, match=r"scene-0001.*'pose-CAM_.*'.*rotation"):
        NuScenesDataset(own_root)


def test_what_is_missing_is_said_with_its_place(own_root):
    with pytest.raises(DataError, match="nowhere' does not exist"):
        NuScenesDataset(own_root / 'nowhere')
    with pytest.raises(DataError, match=r'v1.0-trainval.*it has v1.0-mini'):
        NuScenesDataset(own_root, 'v1.0-trainval')
    with pytest.raises(DataError, match=r'no scene scene-0009.*scene-0001'):
        NuScenesDataset(own_root, scenes=['scene-0009'])
    with pytest.raises(ConfigError, match='keyframes, sweeps'):
        NuScenesDataset(own_root, rate='10')
    expansion = own_root / 'maps' / 'expansion' / f'{tiny.LOCATION}.json'
    options = GroundTruthOptions()
    expansion.write_text(json.dumps({**tiny.road_map(), 'version': '1.2'}), encoding='utf-8')
    with pytest.raises(DataError, match=r'expansion.singapore-onenorth.json.*1.3'):
        next(iter(NuScenesDataset(own_root, ground_truth=options))).ground_truth(0)
    expansion.unlink()
    with pytest.raises(DataError, match=r'looked for .*singapore-onenorth.json'):
        next(iter(NuScenesDataset(own_root, ground_truth=options))).ground_truth(0)
    (own_root / 'maps' / 'mask.png').unlink()
    with pytest.raises(DataError, match=r'masks are missing: .*mask.png'):
        NuScenesDataset(own_root)


def test_broken_tables_are_named(own_root):
    (own_root / 'v1.0-mini' / 'ego_pose.json').write_text('[{', encoding='utf-8')
    tiny_mask = own_root / 'maps' / 'mask.png'
    assert tiny_mask.is_file()
    with pytest.raises(DataError, match=r'ego_pose.json.*cannot be read'):
        NuScenesDataset(own_root)
    (own_root / 'v1.0-mini' / 'ego_pose.json').unlink()
    with pytest.raises(DataError, match=r'lacks the tables ego_pose.json'):
        NuScenesDataset(own_root)


def test_without_devkit_the_extra_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, 'nuscenes.nuscenes', None)
    with pytest.raises(EnvironmentProblemError, match=r'\[nuscenes\]'):
        NuScenesDataset(root)


def test_unusable_map_records_are_listed(own_root, caplog):
    from gsmap_core.data.nuscenes_map import load_layers

    city = tiny.road_map()
    bad = [
        tiny.add_area(city, 'road_segment', [[0, 0], [4, 4], [4, 0], [0, 4]]),
        tiny.add_area(city, 'ped_crossing', [[0, 0], [float('nan'), 1], [1, 1]]),
        tiny.add_line(city, 'lane_divider', [[0, 0]]),
    ]
    tiny.write_map(own_root, city)
    layers = load_layers(own_root, tiny.LOCATION)
    assert (len(layers.dividers), len(layers.crossings), len(layers.roads)) == (2, 2, 4)
    assert len(layers.problems) == 3
    for token in bad:
        assert any(f"'{token}'" in problem for problem in layers.problems)
    assert next(iter(NuScenesDataset(own_root))).map_problems == layers.problems
    assert '3 records' in caplog.text


def test_official_lists(root, tmp_path):
    """The tiny scene is called like one of the official training scenes in a full version."""
    other = tiny.write_dataset(tmp_path / 'full', 'v1.0-trainval', 'scene-0499')
    dataset = NuScenesDataset(other)
    split = dataset.original_split()
    assert (split.train, split.val, split.test) == (('scene-0499',), (), ())
    without = split.without(STREAMMAPNET_LEFT_OUT)
    assert (without.train, without.left_out) == ((), ('scene-0499',))
    assert NuScenesDataset(root).original_split().train == ()  # unknown to the lists of mini


@pytest.mark.data
def test_real_key_frames(data_dir):
    dataset = NuScenesDataset(
        data_dir / 'nuscenes', 'v1.0-mini', ground_truth=GroundTruthOptions()
    )
    assert dataset.problems == ()
    assert {drive.name: len(drive) for drive in dataset} == {'scene-0061': 1, 'scene-0103': 2}
    for drive in dataset:
        for index in range(len(drive)):
            assert drive.missing_images(index) == ()
            assert drive.frame(index, 400).is_complete
            assert len(drive.ground_truth(index)) > 0
    points = dataset.drive('scene-0061').lidar_points(0)
    assert len(points) > 30_000
    # The road is at height 0 of the ego frame.
    near = points[np.linalg.norm(points[:, :2], axis=1) < 15.0]
    assert abs(np.median(near[:, 2][near[:, 2] < 0.5])) < 0.2


@pytest.mark.data
def test_official_lists_of_the_real_scenes(data_dir):
    split = NuScenesDataset(data_dir / 'nuscenes', 'v1.0-mini-meta').original_split()
    assert sorted(split.train + split.val) == [
        'scene-0061',
        'scene-0103',
        'scene-0553',
        'scene-0796',
        'scene-1077',
    ]
    assert split.val == ('scene-0103',)


@pytest.mark.data
def test_real_scenes_with_missing_images(data_dir):
    dataset = NuScenesDataset(data_dir / 'nuscenes', 'v1.0-mini-meta')
    assert sum(len(drive) for drive in dataset) == 201
    complete = [
        (drive.name, index)
        for drive in dataset
        for index in range(len(drive))
        if not drive.missing_images(index)
    ]
    assert complete == [('scene-0061', 0), ('scene-0103', 0), ('scene-0103', 1)]
    frame = dataset.drive('scene-0553').frame(3)
    assert frame.images == (None,) * 6


def _edit(root, table, keep):
    path = root / 'v1.0-mini' / f'{table}.json'
    records = [record for record in json.loads(path.read_text()) if keep(record)]
    path.write_text(json.dumps(records), encoding='utf-8')
