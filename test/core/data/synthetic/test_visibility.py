"""Lines of sight agree with geometry and with the pictures, and what they add up to."""

import json

import numpy as np
import pytest

from gsmap_core.categories import BOUNDARY, DIVIDER
from gsmap_core.cli.main import main
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
from gsmap_core.data.synthetic.renderer import Renderer
from gsmap_core.data.synthetic.scene import (
    Billboard,
    Box,
    BoxKind,
    Conditions,
    GroundPatch,
    HeightField,
    Material,
    Town,
)
from gsmap_core.data.synthetic.visibility import (
    Sight,
    _summary,
    cut_into_pieces,
    measure_visibility,
)
from gsmap_core.geometry.camera import project_points
from gsmap_core.rig import load_rig, scaled_rig
from gsmap_core.structures import Camera, MapElement

#: Looks along x from 1.5 m above the origin, 90 degrees wide.
CAMERA = Camera(
    name='ahead',
    frame_id='ahead',
    width_px=200,
    height_px=200,
    intrinsics=np.array([[100.0, 0, 99.5], [0, 100.0, 99.5], [0, 0, 1]]),
    base_from_camera=np.array(
        [[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], dtype=np.float64
    ),
)


def town_with(boxes=(), trees=()) -> Town:
    square = np.array([[-60.0, -60.0], [60, -60], [60, 60], [-60, 60]])
    return Town(
        name='test',
        seed=3,
        extent=np.array([-80.0, -80.0, 80.0, 80.0]),
        ground=HeightField(),
        patches=(GroundPatch(square, Material.ASPHALT),),
        boxes=tuple(boxes),
        billboards=tuple(trees),
        elements=(),
        lanes=(),
        lane_successors=(),
    )


def box(x: float, y: float, size, kind=BoxKind.VEHICLE, velocity=(0.0, 0.0)) -> Box:
    return Box(np.array([x, y]), size, 0.0, kind, (0.8, 0.1, 0.1), velocity_xy=velocity)


def look(town: Town, points, moving=(), time_s: float = 0.0):
    pose = CAMERA.base_from_camera[None]
    points = np.column_stack([points, np.zeros(len(points))])
    return Sight(town).look(points, [CAMERA], pose, [time_s], moving)


def test_a_van_hides_what_is_in_its_shadow() -> None:
    """Front at x = 9 m, half width 1.2 m: at x = 18 m the shadow is 2.4 m to either side."""
    van = box(12.0, 0.0, (6.0, 2.4, 3.0))
    y = np.array([-2.5, -2.3, 0.0, 2.3, 2.5])
    points = np.column_stack([np.full(5, 18.0), y])
    seen, would = look(town_with([van]), points)
    assert seen.tolist() == [True, False, False, False, True]
    assert would.all(), 'without vehicles everything would be seen'
    # In front of it nothing is hidden, and beneath it everything.
    seen, _ = look(town_with([van]), np.array([[8.9, 0.0], [9.1, 0.0], [14.9, 0.0]]))
    assert seen.tolist() == [True, False, False]


def test_one_looks_over_what_is_low_and_nothing_is_seen_outside_the_picture() -> None:
    """Over the rear edge, x = 11 m and 1 m high, from 1.5 m the ground is seen from 33 m on."""
    wall = box(10.0, 0.0, (2.0, 4.0, 1.0), BoxKind.PLAIN)
    points = np.array([[32.5, 0.0], [33.5, 0.0], [-5.0, 0.0], [10.0, 10.5]])
    seen, would = look(town_with([wall]), points)
    assert seen.tolist() == [False, True, False, False]
    assert would.tolist() == seen.tolist(), 'a wall is no vehicle'


def test_a_moving_vehicle_hides_where_it_is_at_the_moment_and_a_trunk_hides_too() -> None:
    van = box(0.0, 0.0, (4.0, 2.0, 3.0), velocity=(5.0, 0.0))
    points = np.array([[20.0, 0.0]])
    assert not look(town_with(), points, [van], time_s=2.0)[0][0]
    assert look(town_with(), points, [van], time_s=6.0)[0][0], 'it has driven past the point'
    tree = Billboard(np.array([10.0, 0.0]), 2.5, 0.4, 3.0, 3.0, (0.2, 0.4, 0.1))
    points = np.array([[20.0, 0.0], [20.0, 1.0]])
    seen, would = look(town_with(trees=[tree]), points)
    assert seen.tolist() == would.tolist() == [False, True]


def test_what_is_hidden_is_what_the_pictures_do_not_show() -> None:
    """With a van the pixel of a hidden point has another colour than without, else the same."""
    rig = scaled_rig(load_rig('nuscenes_like'), 320)
    poses = np.stack([camera.base_from_camera for camera in rig.cameras])
    vans = [box(12.0, 2.0, (6.0, 2.4, 3.0)), box(-9.0, -3.0, (4.5, 1.8, 1.5))]
    conditions = Conditions(sun_strength=0.0, noise=0.0, haze_per_m=0.0)
    renderer, times = Renderer(town_with()), [0.0] * len(rig)
    plain = renderer.render(rig.cameras, poses, times, conditions)
    with_vans = renderer.render(rig.cameras, poses, times, conditions, vans)
    x, y = np.meshgrid(np.arange(-25.0, 26.0, 1.1), np.arange(-12.0, 13.0, 1.1))
    points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    agreeing = looked_at = hidden = 0
    for index, camera in enumerate(rig.cameras):
        seen, would = Sight(town_with()).look(
            points, [camera], poses[index : index + 1], [0.0], vans
        )
        projection = project_points(camera, points)
        for point in np.flatnonzero(would):
            u, v = np.round(projection.pixels[point]).astype(int)
            before, after = (picture[index][v, u].astype(int) for picture in (plain, with_vans))
            looked_at += 1
            hidden += not seen[point]
            agreeing += (np.abs(before - after).max() > 12) == (not seen[point])
    assert looked_at > 500 and hidden > 40
    assert agreeing / looked_at > 0.97


def test_pieces_cover_the_lines() -> None:
    line = MapElement(DIVIDER.id, np.array([[0.0, 0, 0], [3.0, 4.0, 0]]))
    ring = np.array([[0.0, 0, 1], [2, 0, 1], [2, 2, 1], [0, 2, 1]])
    pieces = cut_into_pieces([line, MapElement(BOUNDARY.id, ring, closed=True)], 0.5)
    for category, length in ((DIVIDER.id, 5.0), (BOUNDARY.id, 8.0)):
        assert pieces.lengths_m[pieces.categories == category].sum() == pytest.approx(length)
    assert pieces.lengths_m.max() <= 0.5 + 1e-9
    assert pieces.points[0] == pytest.approx([0.15, 0.2, 0.0])
    assert np.all(pieces.points[pieces.categories == BOUNDARY.id, 2] == 1.0)


def test_shares_by_hand() -> None:
    """Three frames of three pieces of 1, 2 and 4 m."""
    lengths = np.array([1.0, 2.0, 4.0])
    inside = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1]], dtype=bool)
    would = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], dtype=bool)
    seen = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
    found = _summary(lengths, inside, seen, would)
    assert (found.frames, found.in_range_m) == (3, pytest.approx(20 / 3))
    assert found.viewed_share == pytest.approx(16 / 20)
    # Hidden: 2; 1 and 4; 2 and 4.
    assert found.hidden_share == pytest.approx(13 / 16)
    assert found.hidden_by_frame == pytest.approx((2 / 3, 5 / 7, 1.0))
    # Before: the first piece in frame 2, the second in frame 3. Ever: the second in frame 1 too.
    assert found.seen_before_share == pytest.approx(3 / 13)
    assert found.seen_ever_share == pytest.approx(5 / 13)


def test_occluded_towns_hide_much_of_the_map_and_show_most_of_it_at_another_time() -> None:
    def measured(seed: int, setting: str):
        spec = DriveSpec(seed, setting=setting, duration_s=8.0, rate_hz=2.0, image_width_px=64)
        return measure_visibility(SyntheticRecording(spec))

    occluded = [measured(seed, 'easy_occluded') for seed in range(3)]
    assert 0.3 < np.mean([drive.hidden_share for drive in occluded]) < 0.6
    assert np.mean([drive.seen_ever_share for drive in occluded]) > 0.75
    assert min(drive.seen_before_share for drive in occluded) > 0.2
    assert len({round(drive.hidden_share, 2) for drive in occluded}) == 3
    assert measured(0, 'easy').hidden_share < 0.1


def test_commands_report_it(tmp_path, capsys) -> None:
    text = 'synthetic:0,setting=easy_occluded,duration_s=2,rate_hz=2,image_width_px=64'
    assert main(['info', text, '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['drives'] == 1 and report['source'] == text
    drive = report['by_drive']['town-easy_occluded-0000-d000']
    assert drive['frames'] == 5 and 0 < drive['hidden_least'] <= drive['hidden_most'] < 1
    assert report['hidden_share'] == drive['hidden_share']
    arguments = ['synth', '--out', str(tmp_path), '--setting', 'easy_occluded', '--duration', '2']
    arguments += ['--rate', '2', '--width', '32', '--workers', '1', '--visibility']
    assert main(arguments) == 0
    assert 'vehicles hide' in capsys.readouterr().out
