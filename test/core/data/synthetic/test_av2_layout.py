"""Synthetic drives in Argoverse 2's layout, opened by the dataset's own package."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely

from gsmap_core.categories import BOUNDARY, DIVIDER, PED_CROSSING
from gsmap_core.data.synthetic import av2_layout
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
from gsmap_core.errors import ConfigError

map_api = pytest.importorskip('av2.map.map_api', reason='the av2 package is not installed')
av2_io = pytest.importorskip('av2.utils.io')
pinhole = pytest.importorskip('av2.geometry.camera.pinhole_camera')
SPEC = av2_layout.fitted(
    DriveSpec(
        town_seed=10_002,
        rig='av2_like',
        duration_s=0.5,
        rate_hz=2.0,
        image_width_px=24,
        conditions='noon',
    )
)


@pytest.fixture(scope='module')
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp('av2') / av2_layout.split_of(SPEC) / SPEC.name
    av2_layout.write_log(SyntheticRecording(SPEC), folder)
    return folder


@pytest.fixture(scope='module')
def recording():
    return SyntheticRecording(SPEC)


def test_images_poses_and_calibration(log, recording):
    assert log.parent.name == 'val'
    poses = av2_io.read_city_SE3_ego(log)
    for camera in recording.rig.cameras:
        files = sorted((log / 'sensors' / 'cameras' / camera.name).glob('*.jpg'))
        stamps = [int(file.stem) for file in files]
        own = recording.rig.names.index(camera.name)
        assert stamps == [stamps[own] for stamps in recording.camera_stamps_ns]
        assert abs(stamps[0] - recording.frame_stamp_ns(0)) < 25_000_000, 'half a period of 20 Hz'
        model = pinhole.PinholeCamera.from_feather(log, camera.name)
        assert cv2.imread(str(files[0])).shape[:2] == (model.height_px, model.width_px)
        np.testing.assert_allclose(model.intrinsics.K, camera.intrinsics)
        np.testing.assert_allclose(
            model.ego_SE3_cam.transform_matrix, camera.base_from_camera, atol=1e-9
        )
        for stamp in stamps:
            np.testing.assert_allclose(
                poses[stamp].transform_matrix, recording.trajectory.pose(stamp), atol=1e-9
            )
    # Before the first and after the last image the vehicle has poses too.
    assert min(poses) < recording.frame_stamp_ns(0) - 400_000_000
    assert max(poses) > recording.frame_stamp_ns(1) + 400_000_000


def test_the_sweep_is_in_the_ego_frame(log, recording):
    sweep = log / 'sensors' / 'lidar' / f'{recording.frame_stamp_ns(1)}.feather'
    points = av2_io.read_lidar_sweep(sweep)
    np.testing.assert_allclose(points, recording.sweep(1)[:, :3], atol=0.04)
    assert len(list(sweep.parent.iterdir())) == 2


def test_the_map_holds_the_ground_truth_of_the_town(log, recording):
    city = map_api.ArgoverseStaticMap.from_map_dir(log / 'map', build_raster=True)

    def elements(category):
        return [e.vertices for e in recording.town.elements if e.category == category.id]

    painted, between = set(), set()
    for lane in city.get_scenario_lane_segments():
        for marking, neighbour in (
            (lane.left_lane_marking, lane.left_neighbor_id),
            (lane.right_lane_marking, lane.right_neighbor_id),
        ):
            line = np.round(marking.polyline, 6)
            key = min(tuple(line.ravel()), tuple(line[::-1].ravel()))
            if marking.mark_type.value != 'NONE':
                painted.add(key)
            if neighbour is not None:
                between.add(key)
    expected = [np.round(line, 6) for line in elements(DIVIDER)]
    expected_keys = {min(tuple(e.ravel()), tuple(e[::-1].ravel())) for e in expected}
    # Whichever way dividers are derived: from the paint, or from lanes that are neighbours.
    assert painted == between == expected_keys
    found = [shapely.Polygon(c.polygon[:, :2]) for c in city.get_scenario_ped_crossings()]
    for polygon, ring in zip(found, elements(PED_CROSSING), strict=True):
        assert polygon.symmetric_difference(shapely.Polygon(ring[:, :2])).area < 1e-6
    areas = [shapely.Polygon(a.xyz[:, :2]) for a in city.get_scenario_vector_drivable_areas()]
    assert all(area.is_valid for area in areas)
    outlines = shapely.union_all([shapely.LinearRing(e[:, :2]) for e in elements(BOUNDARY)])
    assert shapely.hausdorff_distance(shapely.union_all(areas).boundary, outlines) < 1e-6
    heights = city.raster_ground_height_layer.get_ground_height_at_xy(
        recording.town.elements[0].vertices
    )
    np.testing.assert_allclose(heights, recording.town.elements[0].vertices[:, 2], atol=0.03)


def test_lanes_lead_on(log):
    city = map_api.ArgoverseStaticMap.from_map_dir(log / 'map', build_raster=False)
    lanes = {lane.id: lane for lane in city.get_scenario_lane_segments()}
    kinds = set()
    for lane in lanes.values():
        kinds.add(lane.is_intersection)
        assert lane.successors
        for following in lane.successors:
            assert lane.id in lanes[following].predecessors
            centres = [city.get_lane_segment_centerline(i) for i in (lane.id, following)]
            assert np.linalg.norm(centres[0][-1] - centres[1][0]) < 0.5
    assert kinds == {True, False}
    assert 'DASHED_WHITE' in {lane.left_mark_type.value for lane in lanes.values()}


def test_towns_are_split_by_their_seeds():
    seeds = (0, 9_999, 10_000, 20_000)
    splits = [av2_layout.split_of(DriveSpec(seed)) for seed in seeds]
    assert splits == ['train', 'train', 'val', 'test']


def test_other_rigs_are_refused():
    with pytest.raises(ConfigError, match='use the rig av2_like'):
        av2_layout.check_drives([DriveSpec(0)])
