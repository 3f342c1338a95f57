"""Synthetic drives in nuScenes' layout, opened by the dataset's own devkit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely

from gsmap_core.categories import BOUNDARY, DIVIDER, PED_CROSSING
from gsmap_core.data.groundtruth_variants import GroundTruthOptions
from gsmap_core.data.nuscenes import NuScenesDataset
from gsmap_core.data.synthetic import nuscenes_layout
from gsmap_core.data.synthetic.nuscenes_map import place_towns
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
from gsmap_core.errors import ConfigError

nuscenes = pytest.importorskip('nuscenes.nuscenes', reason='nuscenes-devkit is not installed')
map_api = pytest.importorskip('nuscenes.map_expansion.map_api')
SPEC = DriveSpec(
    town_seed=2,
    setting='easy',
    duration_s=1.0,
    rate_hz=4.0,
    image_width_px=32,
    conditions='noon',
    lidar=True,
)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp('nuscenes')
    places, _ = nuscenes_layout.plan_places([SPEC])
    rows = nuscenes_layout.write_drive(SyntheticRecording(SPEC), places[2], root)
    nuscenes_layout.write_tables(root, 'v1.0-mini', [rows], [SPEC])
    tables = nuscenes.NuScenes('v1.0-mini', str(root), verbose=False)
    return root, tables, places[2]


@pytest.fixture(scope='module')
def recording():
    return SyntheticRecording(SPEC)


def test_the_devkit_finds_samples_sweeps_and_files(dataset, recording):
    _, tables, place = dataset
    assert place.location == 'boston-seaport'
    scene = tables.scene[0]
    assert (scene['name'], scene['nbr_samples']) == (recording.name, 3)
    sample, channels = tables.get('sample', scene['first_sample_token']), 0
    for channel, token in sample['data'].items():
        chain = []
        while token:
            data = tables.get('sample_data', token)
            chain.append(data['is_key_frame'])
            assert (dataset[0] / data['filename']).is_file()
            assert data['filename'].startswith('samples' if chain[-1] else 'sweeps')
            token = data['next']
        assert chain == [True, False, True, False, True], channel
        channels += 1
    assert channels == 7
    # Of the two ways to a camera's name both lead there.
    front = tables.get('sample_data', sample['data']['CAM_FRONT'])
    assert front['channel'] == 'CAM_FRONT'
    image = cv2.imread(str(dataset[0] / front['filename']))
    assert image.shape == (front['height'], front['width'], 3) == (18, 32, 3)


def test_poses_and_calibration_are_those_of_the_drive(dataset, recording):
    _, tables, place = dataset
    sample = tables.get('sample', tables.scene[0]['last_sample_token'])
    for camera in recording.rig.cameras:
        data = tables.get('sample_data', sample['data'][camera.name.upper()])
        pose = tables.get('ego_pose', data['ego_pose_token'])
        expected = recording.trajectory.pose(data['timestamp'] * 1000)
        found = np.array(pose['translation'])
        np.testing.assert_allclose(found[:2] - place.offset, expected[:2, 3], atol=1e-9)
        rotation = nuscenes.Quaternion(pose['rotation']).rotation_matrix
        np.testing.assert_allclose(rotation, expected[:3, :3], atol=1e-9)
        calibration = tables.get('calibrated_sensor', data['calibrated_sensor_token'])
        np.testing.assert_allclose(calibration['camera_intrinsic'], camera.intrinsics)
        rotation = nuscenes.Quaternion(calibration['rotation']).rotation_matrix
        np.testing.assert_allclose(rotation, camera.base_from_camera[:3, :3], atol=1e-9)
        own = abs(data['timestamp'] - sample['timestamp'])
        assert own <= 45_000, 'a camera is triggered within half a turn of the trigger'


def test_the_sweep_is_in_the_frame_of_the_lidar(dataset, recording):
    root, tables, _ = dataset
    sample = tables.get('sample', tables.scene[0]['first_sample_token'])
    data = tables.get('sample_data', sample['data']['LIDAR_TOP'])
    points = np.fromfile(root / data['filename'], dtype='<f4').reshape(-1, 5)
    expected = recording.sweep(0)
    # x right, y forward: the vehicle's y to the left is -x here, its x ahead is y.
    np.testing.assert_allclose(points[:, 1], expected[:, 0] - 0.95, atol=1e-4)
    np.testing.assert_allclose(points[:, 0], -expected[:, 1], atol=1e-4)
    np.testing.assert_array_equal(points[:, 3], expected[:, 3])
    assert set(points[:, 4]) <= set(range(32))


def test_the_map_holds_the_ground_truth_of_the_town(dataset, recording):
    root, _, place = dataset
    city = map_api.NuScenesMap(str(root), place.location)

    def lines(category):
        moved = [
            e.vertices[:, :2] + place.offset
            for e in recording.town.elements
            if e.category == category.id
        ]
        return moved

    found = [
        city.extract_line(record['line_token'])
        for layer in (city.road_divider, city.lane_divider)
        for record in layer
    ]
    expected = {tuple(np.round(line.ravel(), 6)) for line in lines(DIVIDER)}
    assert {tuple(np.round(np.asarray(line.coords).ravel(), 6)) for line in found} == expected
    assert city.road_divider and city.lane_divider
    crossings = [city.extract_polygon(r['polygon_token']) for r in city.ped_crossing]
    assert len(crossings) == len(lines(PED_CROSSING)) > 0
    for polygon, ring in zip(crossings, lines(PED_CROSSING), strict=True):
        assert polygon.symmetric_difference(shapely.Polygon(ring)).area < 1e-6
    # The construction of boundaries: the outline of all road segments and lanes together.
    roads = [city.extract_polygon(r['polygon_token']) for r in city.road_segment]
    lanes = [city.extract_polygon(r['polygon_token']) for r in city.lane]
    assert all(polygon.is_valid for polygon in (*roads, *lanes))
    united = shapely.union_all([*roads, *lanes])
    outlines = shapely.union_all([shapely.LinearRing(ring) for ring in lines(BOUNDARY)])
    assert shapely.hausdorff_distance(united.boundary, outlines) < 1e-6
    assert {record['is_intersection'] for record in city.road_segment} == {True, False}


def test_the_reader_gives_what_the_drive_was_written_from(dataset, recording):
    options = GroundTruthOptions(categories=('divider', 'ped_crossing', 'boundary', 'centerline'))
    (drive,) = NuScenesDataset(dataset[0], ground_truth=options, rate='sweeps')
    assert (drive.name, len(drive)) == (recording.name, 5)
    assert [bool(drive.sample_id(index)) for index in range(5)] == [True, False] * 2 + [True]
    assert drive.problems == drive.map_problems == drive.missing_images(0) == ()
    assert drive.frame(1).is_complete
    for camera in drive.rig.cameras:
        own = recording.rig.camera(camera.name)
        np.testing.assert_allclose(camera.intrinsics, own.intrinsics, atol=1e-6)
        np.testing.assert_allclose(camera.base_from_camera, own.base_from_camera, atol=1e-6)
    np.testing.assert_allclose(drive.lidar_points(0)[:, :3], recording.sweep(0)[:, :3], atol=1e-3)
    truth, made = drive.ground_truth(0), recording.ground_truth(0)
    for category in (DIVIDER.id, PED_CROSSING.id):
        there, here = (
            sorted(shapely.LineString(e.loop_xy()).length for e in m.of_category(category))
            for m in (made, truth)
        )
        np.testing.assert_allclose(here, there, atol=0.02)
    assert len(truth.of_category(BOUNDARY.id)) == len(made.of_category(BOUNDARY.id)) > 0
    # A car that keeps to its lane follows a centre line.
    ways = [shapely.LineString(element.vertices) for element in truth.of_category(3)]
    assert min(way.distance(shapely.Point(0, 0)) for way in ways) < 1.0


def test_lanes_are_connected_and_have_centre_lines(dataset, recording):
    root, tables, place = dataset
    city = map_api.NuScenesMap(str(root), place.location)
    tokens = [record['token'] for record in (*city.lane, *city.lane_connector)]
    assert set(city.connectivity) == set(tokens)
    centres = city.discretize_lanes(tokens, 1.0)
    for token in tokens:
        outgoing = city.get_outgoing_lane_ids(token)
        assert outgoing
        for following in outgoing:
            assert token in city.get_incoming_lane_ids(following)
            gap = np.subtract(centres[token][-1][:2], centres[following][0][:2])
            assert np.hypot(*gap) < 0.05
    # The vehicle drives in a lane.
    x, y = recording.trajectory.pose(recording.frame_stamp_ns(0))[:2, 3] + place.offset
    assert city.layers_on_point(x, y)['drivable_area']
    assert city.layers_on_point(x, y)['road_segment']
    assert city.layers_on_point(x, y)['lane'] or recording.trajectory.streets[0] == 0
    mask = tables.map[0]['mask']
    assert mask.is_on_mask(x, y)
    assert not mask.is_on_mask(*(recording.town.extent[:2] + place.offset + 1.0))


def test_towns_lie_apart_in_the_cities_in_turn():
    extents = [np.array([-100.0, -50.0, 100.0, 50.0])] * 9
    places, edges = place_towns(extents)
    assert [place.location for place in places[:5:4]] == ['boston-seaport'] * 2
    assert len(edges) == 4
    boston = [place.offset for place in places[::4]]
    np.testing.assert_array_equal(boston, [[150, 100], [450, 100], [150, 300]])
    assert edges['boston-seaport'] == (600.0, 400.0)


def test_what_does_not_fit_the_dataset_is_refused():
    with pytest.raises(ConfigError, match='multiple of 2'):
        nuscenes_layout.plan_places([DriveSpec(0, setting='easy', rate_hz=5.0)])
    with pytest.raises(ConfigError, match='use the rig nuscenes_like'):
        nuscenes_layout.plan_places([DriveSpec(0, rig='av2_like', rate_hz=4.0)])
