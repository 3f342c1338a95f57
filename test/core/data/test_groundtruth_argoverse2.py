"""The published constructions on tiny Argoverse 2 maps, read by the real devkit."""

from __future__ import annotations

import numpy as np
import pytest
from core.data.helpers.av2_log import (
    LOG_ID,
    area,
    crossing,
    lane,
    straight_road,
    write_ground,
    write_map,
)

from gsmap_core.data.groundtruth_argoverse2 import (
    VARIANTS,
    Argoverse2TruthOptions,
    make_global_map,
    make_local_map,
)
from gsmap_core.errors import ConfigError
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy

pytest.importorskip('av2')

KERBS = area(1, [(-100, -6), (100, -6), (100, 6), (-100, 6)])


@pytest.fixture
def log(tmp_path):
    return tmp_path / LOG_ID


def city_map(log, **parts):
    from gsmap_core.data.argoverse2_devkit import read_map

    write_map(log, **parts)
    return read_map(log)


def local(found, variant, pose=None, **options):
    pose = np.eye(4) if pose is None else pose
    return make_local_map(found, pose, Argoverse2TruthOptions(variant, **options))


def ends(element):
    return [tuple(np.round(element.vertices[i, :2], 6)) for i in (0, -1)]


def signed_area(element):
    x, y = element.vertices[:, 0], element.vertices[:, 1]
    return float(0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def test_maptrv2_takes_the_line_between_neighbours_once_and_chains_it(log):
    found = local(city_map(log, lanes=straight_road(), areas=[KERBS]), 'maptrv2')
    (divider,) = found.of_category(0)
    assert ends(divider) == [(-30, 0), (30, 0)]
    assert len(divider.vertices) == 2
    assert not divider.closed


def test_maptr_takes_marked_lines_and_keeps_unknown_marks(log):
    found = local(city_map(log, lanes=straight_road()), 'maptr')
    heights = sorted(round(float(item.vertices[0, 1]), 6) for item in found.of_category(0))
    assert heights == [-3.5, 0, 3.5]
    for item in found.of_category(0):
        assert sorted(x for x, _ in ends(item)) == [-30, 30]
    without = local(city_map(log, lanes=straight_road(outer_mark='NONE')), 'maptr')
    assert len(without.of_category(0)) == 2


def test_streammapnet_drops_unknown_marks_doubles_and_kerbs(log):
    found = local(city_map(log, lanes=straight_road(), areas=[KERBS]), 'streammapnet')
    assert [round(float(d.vertices[0, 1]), 6) for d in found.of_category(0)] == [3.5, 0]
    # The two pieces of each line meet at x = 0 and are one.
    assert ends(found.of_category(0)[1]) == [(-30, 0), (30, 0)]
    narrow = area(1, [(-100, -6), (100, -6), (100, 3.6), (-100, 3.6)])
    found = local(city_map(log, lanes=straight_road(), areas=[narrow]), 'streammapnet')
    assert [round(float(d.vertices[0, 1]), 6) for d in found.of_category(0)] == [0]


def test_maptracker_joins_lines_between_neighbours(log):
    found = local(city_map(log, lanes=straight_road(), areas=[KERBS]), 'maptracker')
    (divider,) = found.of_category(0)
    assert ends(divider) == [(-30, 0), (30, 0)]


def test_lanes_in_intersections_have_no_dividers_between_neighbours(log):
    lanes = straight_road()
    for item in lanes[2:]:
        item['is_intersection'] = True
    found = local(city_map(log, lanes=lanes), 'maptrv2')
    (divider,) = found.of_category(0)
    assert ends(divider) == [(-30, 0), (0, 0)]


def opposing_lanes(*, shift: float) -> list[dict]:
    """Two lanes on either side of y = 0 that have each other on their left."""
    return [
        lane(1, [(-50, 0), (50, 0)], [(-50, -3), (50, -3)], neighbors=(2, None)),
        lane(2, [(50 + shift, 0), (-50 + shift, 0)], [(50, 3), (-50, 3)], neighbors=(1, None)),
    ]


def test_opposing_neighbours_share_a_line_that_is_kept_once(log):
    """Both have it on their left, so only the overlap of the buffers tells."""
    found = city_map(log, lanes=opposing_lanes(shift=2.0))
    for variant in ('maptrv2', 'maptracker'):
        assert len(local(found, variant).of_category(0)) == 1


def test_line_drawn_alike_in_both_directions_has_no_root_in_maptrv2(log):
    """What the published construction does: its graph runs in circles there."""
    found = city_map(log, lanes=opposing_lanes(shift=0.0))
    assert len(local(found, 'maptrv2').of_category(0)) == 0
    assert len(local(found, 'maptracker').of_category(0)) == 1


def test_patch_turns_with_the_heading(log):
    pose = make_transform(rotation_from_rpy(0, 0, np.pi / 2), [5.0, -1.0, 0.0])
    found = local(city_map(log, lanes=straight_road()), 'maptrv2', pose)
    # The road runs to the right of a vehicle that heads to +y; 1 m ahead of it.
    (divider,) = found.of_category(0)
    assert ends(divider) == [(1, 15), (1, -15)]


def test_centerlines_run_as_cars_drive(log):
    wanted = ('centerline',)
    found = local(city_map(log, lanes=straight_road()), 'maptrv2', categories=wanted)
    assert len(found) == 2
    assert sorted(ends(item)[0][1] for item in found.elements) == [-1.75, 1.75]
    for item in found.elements:
        assert (item.category, item.closed) == (3, False)
        assert [x for x, _ in ends(item)] == [-30, 30]


TWO_HALVES = [
    crossing(1, [(5, -4), (5, 0), (7, 0), (7, -4)]),
    crossing(2, [(5, 0), (5, 4), (7, 4), (7, 0)]),
]


def test_touching_parallel_crossings_are_one_in_maptrv2_only(log):
    found = city_map(log, crossings=TWO_HALVES)
    (merged,) = local(found, 'maptrv2').of_category(1)
    assert merged.closed
    assert signed_area(merged) == pytest.approx(16.0)
    for variant, area_m2 in (('maptr', -8.0), ('streammapnet', 8.0), ('maptracker', 8.0)):
        crossings = local(found, variant).of_category(1)
        assert [item.closed for item in crossings] == [True, True]
        assert [signed_area(item) for item in crossings] == pytest.approx([area_m2] * 2)


def test_touching_crossings_at_a_right_angle_stay_two(log):
    across = crossing(2, [(7, 0), (7, 2), (15, 2), (15, 0)])
    assert len(local(city_map(log, crossings=[TWO_HALVES[0], across]), 'maptrv2')) == 2


def test_crossing_cut_by_the_border(log):
    found = city_map(log, crossings=[crossing(1, [(5, 10), (5, 20), (7, 20), (7, 10)])])
    (opened,) = local(found, 'maptrv2').of_category(1)
    assert not opened.closed
    assert {tuple(point) for point in opened.vertices[:, :2].round(6).tolist()} == {
        (7, 14.8),
        (7, 10),
        (5, 10),
        (5, 14.8),
    }
    assert ends(opened) == [(5, 14.8), (7, 14.8)]
    for variant in ('maptr', 'streammapnet'):
        (closed,) = local(found, variant).of_category(1)
        assert closed.closed
        assert abs(signed_area(closed)) == pytest.approx(10.0)


def test_maptracker_leaves_out_crossings_below_one_square_metre(log):
    small = crossing(3, [(5, 14.6), (5, 20), (7, 20), (7, 14.6)])  # 0.8 m^2 inside the range
    found = city_map(log, crossings=[small, TWO_HALVES[0]])
    assert len(local(found, 'streammapnet').of_category(1)) == 2
    assert len(local(found, 'maptracker').of_category(1)) == 1


@pytest.mark.parametrize('variant', sorted(VARIANTS))
def test_boundaries_outline_the_united_areas_without_the_border(log, variant):
    side_street = area(2, [(10, 5), (16, 5), (16, 40), (10, 40)])
    found = local(city_map(log, areas=[KERBS, side_street]), variant)
    lines = sorted(found.of_category(2), key=lambda item: item.vertices[:, :2].sum())
    assert len(lines) == 3
    assert all(np.abs(item.vertices[:, 0]).max() <= 29.8 + 1e-9 for item in lines)
    assert all(np.abs(item.vertices[:, 1]).max() <= 14.8 + 1e-9 for item in lines)
    # Clockwise around the road: to the left below, to the right above.
    assert sorted(ends(item) for item in lines) == [
        [(-29.8, 6), (10, 14.8)],
        [(16, 14.8), (29.8, 6)],
        [(29.8, -6), (-29.8, -6)],
    ]


def test_island_between_areas_is_a_closed_ring_counter_clockwise(log):
    ring = [
        area(1, [(-20, -10), (20, -10), (20, -2), (-20, -2)]),
        area(2, [(-20, 2), (20, 2), (20, 10), (-20, 10)]),
        area(3, [(-20, -5), (-10, -5), (-10, 5), (-20, 5)]),
        area(4, [(10, -5), (20, -5), (20, 5), (10, 5)]),
    ]
    outer, island = local(city_map(log, areas=ring), 'maptrv2').of_category(2)
    assert (outer.closed, island.closed) == (True, True)
    assert signed_area(outer) == pytest.approx(-800.0)
    assert signed_area(island) == pytest.approx(80.0)


def test_outlines_that_cross_themselves_are_left_out(log):
    bow = area(2, [(0, 0), (4, 4), (4, 0), (0, 4)])
    assert len(local(city_map(log, areas=[bow]), 'maptrv2')) == 0


def test_heights_of_the_map_and_of_the_ground(log):
    slope = [(-100, -6, -9.0), (100, -6, 11.0), (100, 6, 11.0), (-100, 6, -9.0)]  # 1 + x / 10
    found = city_map(log, areas=[area(1, slope)])
    pose = make_transform(None, [0.0, 0.0, 5.0])
    for item in local(found, 'maptrv2', pose).of_category(2):
        np.testing.assert_allclose(item.vertices[:, 2], -4 + item.vertices[:, 0] / 10, atol=1e-9)
    assert all(not item.has_z for item in local(found, 'maptrv2', pose, heights='none').elements)
    with pytest.raises(ConfigError, match='no ground height raster'):
        local(found, 'maptrv2', pose, heights='ground')

    heights = np.full((40, 40), 7.0, dtype=np.float16)  # 1 m cells from (-20, -20)
    heights[:, 30:] = np.nan  # unknown from x = 10 on
    write_ground(log, heights, 1.0, (-20.0, -20.0))
    found = city_map(log, areas=[area(1, [(-15, -6, 1), (15, -6, 1), (15, 6, 1), (-15, 6, 1)])])
    (item,) = local(found, 'maptrv2', pose, heights='ground').of_category(2)
    for x, _, z in item.vertices:
        assert z == (2.0 if x < 10 else -4.0)


def test_tilted_pose_moves_heights_into_the_ego_frame(log):
    pose = make_transform(rotation_from_rpy(0.0, 0.05, 0.0), [0.0, 0.0, 0.0])
    lanes = [
        lane(1, [(-9, 1), (9, 1)], [(-9, -1), (9, -1)], neighbors=(2, None)),
        lane(2, [(-9, 3), (9, 3)], [(-9, 1), (9, 1)], neighbors=(None, 1)),
    ]
    (divider,) = local(city_map(log, lanes=lanes), 'maptrv2', pose).of_category(0)
    # Nose down by 0.05 rad: the level road ahead is above the vehicle's plane.
    expected = [[-9 * np.cos(0.05), 1, -9 * np.sin(0.05)], [9 * np.cos(0.05), 1, 9 * np.sin(0.05)]]
    np.testing.assert_allclose(divider.vertices, expected, atol=1e-9)


def test_whole_map_in_its_own_frame(log):
    found = city_map(log, lanes=straight_road(), crossings=TWO_HALVES, areas=[KERBS])
    elements = make_global_map(found, [10.0, 0.0, 0.0])
    divider, zebra, kerb = elements
    assert sorted(ends(divider)) == [(-60, 0), (40, 0)]
    assert signed_area(zebra) == pytest.approx(16.0)
    assert signed_area(kerb) == pytest.approx(-2400.0)
    marked = make_global_map(found, [10.0, 0.0, 0.0], 'maptr')
    assert sum(item.category == 0 for item in marked) == 3


def test_empty_map_has_no_elements(log):
    for variant in VARIANTS:
        assert len(local(city_map(log), variant)) == 0
    assert make_global_map(city_map(log), [0.0, 0.0, 0.0]) == ()


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'variant': 'maptrv3'}, "variant 'maptrv3' is unknown; expected one of maptr"),
        ({'heights': 'sea'}, "heights 'sea'"),
        ({'categories': ('kerb',)}, 'categories kerb; expected some of divider'),
        ({'categories': ()}, r'categories \(none\)'),
    ],
)
def test_options_name_what_is_wrong(options, text):
    with pytest.raises(ConfigError, match=text):
        Argoverse2TruthOptions(**options)
