"""Queues of traffic: the streets of `easy`, vehicles that touch nothing, the same every time."""

import numpy as np
import pytest
import shapely

from gsmap_core.data.synthetic.objects import footprint
from gsmap_core.data.synthetic.queues import MAX_QUEUE_DRIVE_S
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
from gsmap_core.data.synthetic.scene import Box, BoxKind
from gsmap_core.data.synthetic.town import generate_town
from gsmap_core.errors import ConfigError


def recording(**options) -> SyntheticRecording:
    values = {'town_seed': 1, 'duration_s': 10.0, 'rate_hz': 2.0, 'image_width_px': 64}
    return SyntheticRecording(DriveSpec(setting='easy_occluded', **{**values, **options}))


def at(box: Box, time_s: float, margin: float = 0.0) -> shapely.Polygon:
    moved = np.asarray(box.centre_xy) + np.asarray(box.velocity_xy) * time_s
    return footprint(Box(moved, box.size_m, box.yaw_rad, box.kind, box.colour_rgb), margin)


def test_streets_and_paint_are_those_of_easy_towns() -> None:
    for seed in (0, 3):
        easy, occluded = generate_town(seed, 'easy'), generate_town(seed, 'easy_occluded')
        assert len(easy.elements) == len(occluded.elements)
        for one, other in zip(easy.elements, occluded.elements, strict=True):
            assert np.array_equal(one.vertices, other.vertices)
        for one, other in zip(easy.patches, occluded.patches, strict=True):
            assert np.array_equal(one.outline, other.outline) and one.wear == other.wear
        buildings = [box.seed for box in easy.boxes if box.kind is BoxKind.BUILDING]
        assert buildings == [box.seed for box in occluded.boxes if box.kind is BoxKind.BUILDING]
        assert len(easy.boxes) == len(buildings)
        assert len(occluded.boxes) > len(buildings) + 50


def test_vehicles_beside_the_kerb_leave_the_lanes_free() -> None:
    town = generate_town(0, 'easy_occluded')
    lanes = shapely.union_all([shapely.LineString(lane) for lane in town.lanes]).buffer(1.2)
    rows = [footprint(box) for box in town.boxes if box.kind is BoxKind.VEHICLE]
    assert not shapely.intersects(lanes, rows).any()


@pytest.mark.parametrize('options', [{}, {'town_seed': 6, 'drive_seed': 1, 'reverse': True}])
def test_nothing_that_moves_touches_anything(options) -> None:
    drive = recording(**options)
    for index in range(len(drive)):
        time_s = index / 2.0
        boxes = drive.moving_boxes(index)
        assert len(boxes) > 5
        outlines = [at(box, time_s) for box in boxes]
        position, heading = drive.trajectory.positions([time_s])
        own = Box(position[0], (4.4, 1.8, 1.5), float(heading[0]), BoxKind.VEHICLE, (0, 0, 0))
        outlines.append(footprint(own))
        pairs = shapely.STRtree(outlines).query(outlines, predicate='intersects')
        assert np.all(pairs[0] == pairs[1]), f'frame {index}'


def test_the_recording_vehicle_drives_slowly_and_the_same_again() -> None:
    drive = recording()
    speeds = drive.trajectory.speeds(np.arange(0.0, 10.0, 0.5))
    assert speeds.max() < 7.1 and speeds.mean() > 3.0
    first, again = drive.moving_boxes(3), recording().moving_boxes(3)
    assert [box.seed for box in first] == [box.seed for box in again]
    assert drive.trajectory_hash() == recording().trajectory_hash()
    other = recording(variant=1).moving_boxes(3)
    assert [box.seed for box in first] != [box.seed for box in other]


def test_longer_drives_are_refused() -> None:
    assert len(recording(duration_s=float(MAX_QUEUE_DRIVE_S)).traffic.vehicles) > 30
    with pytest.raises(ConfigError, match='at most 120'):
        recording(duration_s=121.0)
