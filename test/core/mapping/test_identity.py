"""Ids of elements over time: lines that cross, leave, hide, turn or come in another order."""

from dataclasses import replace

import numpy as np
import pytest

from gsmap_core.data.groundtruth import cut_local_map
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.transforms import invert, make_transform, rotation_from_rpy
from gsmap_core.mapping.identity import MAX_ID, IdentityConfig, IdentityTracker, assign
from gsmap_core.mapping.placed_lines import PlacedLines, mismatch
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap

HERE = np.eye(4)


def line(*vertices, category=0, closed=False, score=0.9):
    return MapElement(category, np.array(vertices, dtype=float), closed=closed, score=score)


def along(y, x_from=-20.0, x_to=20.0, **more):
    return line([x_from, y], [x_to, y], **more)


def local(*elements, pose=HERE, **more):
    return VectorMap(elements, map_from_base=pose, **more)


def pose_at(x, y=0.0, yaw=0.0):
    return make_transform(rotation_from_rpy(0.0, 0.0, yaw), [x, y, 0.0])


def ids(tracker, *elements, pose=HERE):
    return [element.id for element in tracker.update(local(*elements, pose=pose)).elements]


def test_ids_count_from_one_and_stay_in_any_order():
    tracker = IdentityTracker()
    assert ids(tracker, along(0.0), along(3.5), along(0.0, category=2)) == [1, 2, 3]
    assert ids(tracker, along(0.1, category=2), along(3.4), along(-0.2), along(9.0)) == [
        3,
        2,
        1,
        4,
    ]
    assert (tracker.num_ids, tracker.num_tracks) == (4, 4)


def test_nothing_but_the_id_changes():
    element = MapElement(
        1, np.eye(3)[:, :2], closed=True, score=0.5, covariance=np.ones((3, 3)), id=77
    )
    given = local(element, sample_id='f', scene='s', stamp_ns=5)
    answer = IdentityTracker().update(given)
    assert answer.elements[0].id == 1
    assert (answer.sample_id, answer.scene, answer.stamp_ns) == ('f', 's', 5)
    assert (answer.elements[0].category, answer.elements[0].closed) == (1, True)
    np.testing.assert_array_equal(answer.elements[0].covariance, element.covariance)
    assert answer.elements[0].score == 0.5


def test_crossing_lines_are_not_taken_for_each_other():
    tracker = IdentityTracker()
    one, other = line([-10, -10], [10, 10]), line([-10, 10], [10, -10])
    assert ids(tracker, one, other) == [1, 2]
    assert ids(tracker, other, one) == [2, 1]
    flat = line([-20, -1], [20, 1]), line([-20, 1], [20, -1])  # nearly parallel, 2 m apart at most
    assert ids(tracker, *flat) == [3, 4]
    assert ids(tracker, *flat[::-1]) == [4, 3]


def test_a_drive_past_long_lines_keeps_every_piece():
    """Of a whole map, cut to the range at every step: one id for one line, rings and turns too."""
    town = [
        along(0.0, -200.0, 200.0),
        along(4.0, -200.0, 200.0, category=2),
        along(-4.0, -200.0, 30.0, category=2),
        along(-4.0, 38.0, 200.0, category=2),
        line([34, -60], [34, -6], [38, -4]),
        line([40, -4], [44, -4], [44, 4], [40, 4], category=1, closed=True),
    ]
    town = [replace(element, id=100 + number) for number, element in enumerate(town)]
    tracker, area = IdentityTracker(), PerceptionRange()
    owner = {}
    for step in range(45):
        pose = pose_at(2.0 * step, 0.5 * np.sin(step / 8), 0.2 * np.sin(step / 5))
        truth = cut_local_map(town, pose, area, step)
        answer = tracker.update(truth)
        for true, element in zip(truth.elements, answer.elements, strict=True):
            assert owner.setdefault(element.id, true.id) == true.id
    assert len(owner) == len(town)


def test_a_line_that_leaves_gives_its_id_to_none_that_comes():
    """At the border only what both frames could see is compared: no end of one, start of other."""
    tracker = IdentityTracker()
    assert ids(tracker, along(0.0, -30.0, -27.0)) == [1]
    # 4 m on the line has left; what is seen of the next one begins where its end was to be seen.
    assert ids(tracker, along(0.0, -28.0, 10.0), pose=pose_at(4.0)) == [2]


def test_a_longer_view_of_the_same_line_is_the_same_line():
    tracker = IdentityTracker()
    assert ids(tracker, along(1.0, 10.0, 30.0)) == [1]
    # 15 m on, 35 m of it are in the range; the new part could not be seen before.
    assert ids(tracker, along(1.0, -5.0, 30.0), pose=pose_at(15.0)) == [1]
    # A part of it is enough, as a model may give it once.
    assert ids(tracker, along(1.0, 0.0, 10.0), pose=pose_at(15.0)) == [1]


def test_neighbours_do_not_swap_where_the_nearest_is_the_wrong_one():
    tracker = IdentityTracker()
    assert ids(tracker, along(0.0), along(1.2)) == [1, 2]
    # Both moved: the first now lies nearer to where the second was.
    assert ids(tracker, along(0.7), along(1.8)) == [1, 2]
    assert ids(tracker, along(2.4), along(1.3)) == [2, 1]


def test_a_hidden_element_keeps_its_id_for_a_while():
    tracker = IdentityTracker(IdentityConfig(max_missed_frames=3))
    assert ids(tracker, along(0.0), along(5.0)) == [1, 2]
    for _ in range(3):
        assert ids(tracker, along(5.0)) == [2]
    assert ids(tracker, along(0.3), along(5.0)) == [1, 2]
    for _ in range(4):
        assert ids(tracker, along(5.0)) == [2]
    assert ids(tracker, along(0.3), along(5.0)) == [3, 2]
    assert IdentityTracker(IdentityConfig(max_missed_frames=0)).num_tracks == 0


def test_what_was_missing_takes_no_id_from_the_map_before():
    tracker = IdentityTracker()
    assert ids(tracker, along(0.0)) == [1]
    assert ids(tracker, along(1.6)) == [2]
    # Nearer to the one that is gone, but the one of the last map is the one that is there.
    assert ids(tracker, along(0.7)) == [2]


def test_a_doubtful_double_takes_no_id():
    tracker = IdentityTracker()
    assert ids(tracker, along(0.0)) == [1]
    assert ids(tracker, along(0.0, score=0.1), along(0.6)) == [2, 1]
    # Alone it is better than nothing, and the id survives it.
    assert ids(tracker, along(0.5, score=0.1)) == [1]
    assert ids(tracker) == []
    assert ids(tracker, along(0.2)) == [1]
    # What was never sure is forgotten at once.
    assert ids(tracker, along(9.0, score=0.1)) == [3]
    assert ids(tracker) == []
    assert ids(tracker, along(9.0, score=0.1)) == [4]


@pytest.mark.parametrize('shift', [0, 1, 3])
@pytest.mark.parametrize('step', [1, -1])
def test_rings_may_begin_anywhere_and_run_either_way(shift, step):
    tracker = IdentityTracker()
    ring = [[10, -4], [14, -4], [14, 4], [10, 4]]
    other = [[20, -4], [24, -4], [24, 4], [20, 4]]
    first = [line(*corners, category=1, closed=True) for corners in (ring, other)]
    assert ids(tracker, *first) == [1, 2]
    turned = [np.roll(corners, shift, axis=0)[::step] for corners in (other, ring)]
    assert ids(tracker, *(line(*c, category=1, closed=True) for c in turned)) == [2, 1]


def test_lines_may_run_either_way():
    tracker = IdentityTracker()
    bend = [[-10, 0], [0, 1], [8, 6], [9, 14]]
    assert ids(tracker, line(*bend), along(-3.0)) == [1, 2]
    assert ids(tracker, line(*bend[::-1]), line([20, -3], [-20, -3])) == [1, 2]


def test_a_bridge_is_not_the_road_below():
    tracker = IdentityTracker()
    road, bridge = ([[-20, 0, z], [20, 0, z]] for z in (0.0, 6.0))
    assert ids(tracker, line(*road), line(*bridge)) == [1, 2]
    tilted = make_transform(rotation_from_rpy(0.0, 0.1, 0.3), [3.0, 1.0, 2.0])

    def seen(vertices):
        base_from_map = invert(tilted)
        return np.asarray(vertices) @ base_from_map[:3, :3].T + base_from_map[:3, 3]

    assert ids(tracker, line(*seen(bridge)), line(*seen(road)), pose=tilted) == [2, 1]
    # Where one side has no heights they do not count.
    assert ids(tracker, along(0.0)) == [1]


def test_maps_far_from_the_origin_are_as_good():
    tracker = IdentityTracker()
    for step in range(4):
        pose = pose_at(600_000.0 + 2.0 * step, 5_300_000.0, 0.4)
        assert ids(tracker, along(0.0), along(0.9), pose=pose) == [1, 2]


def test_without_a_pose_ids_are_new_and_the_old_ones_wait():
    tracker = IdentityTracker()
    assert ids(tracker, along(0.0)) == [1]
    assert ids(tracker, along(0.0), pose=None) == [2]
    assert ids(tracker, along(0.0), pose=None) == [3]
    assert ids(tracker, along(0.0)) == [1]


def test_no_id_is_given_twice_even_after_a_reset():
    tracker = IdentityTracker()
    assert ids(tracker, along(0.0), along(5.0)) == [1, 2]
    tracker.reset()
    assert tracker.num_tracks == 0
    assert ids(tracker, along(0.0), along(5.0)) == [3, 4]


def test_ids_begin_again_where_markers_have_no_more():
    tracker = IdentityTracker()
    tracker._last_id = MAX_ID - 1
    assert ids(tracker, along(0.0)) == [MAX_ID]
    assert ids(tracker, along(0.0)) == [1]
    assert ids(tracker, along(0.0)) == [1]


def random_maps(count, seed=0):
    random = np.random.default_rng(seed)
    for step in range(count):
        starts = random.uniform((-30, -15), (30, 15), (12, 2))
        ends = starts + random.normal(0.0, 8.0, (12, 2))
        yield local(
            *(
                line(a, b, category=int(random.integers(3)), score=float(random.random()))
                for a, b in zip(starts, ends, strict=True)
            ),
            pose=pose_at(float(step), 0.0, 0.01 * step),
        )


def test_the_same_maps_get_the_same_ids_and_memory_stays_bounded():
    trackers = IdentityTracker(), IdentityTracker()
    for given in random_maps(150):
        first, second = (tracker.update(given) for tracker in trackers)
        numbers = [element.id for element in first.elements]
        assert numbers == [element.id for element in second.elements]
        assert len(set(numbers)) == len(numbers)
        assert trackers[0].num_tracks <= 12 * (1 + trackers[0].config.max_missed_frames)


def test_other_frames_are_refused():
    with pytest.raises(DataError, match="in the 'lidar' frame"):
        IdentityTracker().update(VectorMap((), reference='lidar'))
    with pytest.raises(DataError, match='without a pose; expected an ego map'):
        PlacedLines.of_map(local(along(0.0), pose=None), 8)


@pytest.mark.parametrize(
    'given',
    [
        {'max_distance_m': 0.0},
        {'max_mismatch': 1.1},
        {'max_missed_frames': -1},
        {'confident_score': float('nan')},
        {'num_points': 2},
    ],
)
def test_limits_are_checked(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        IdentityConfig(**given)


def differs(first, second, *, first_pose=HERE, second_pose=HERE):
    sides = [
        PlacedLines.of_map(local(element, pose=pose), 41)
        for element, pose in ((first, first_pose), (second, second_pose))
    ]
    return mismatch(*sides, max_distance_m=2.0)[0, 0]


def test_mismatch_is_a_share_of_the_greatest_distance():
    assert differs(along(0.0), along(0.5)) == pytest.approx(0.25, abs=1e-6)
    assert differs(along(0.0), along(3.0)) == 1.0
    assert differs(along(0.0), along(0.0, category=1)) == 1.0
    # A quarter of the other: nothing one way; the other way 10 of 41 points lie on it, one 1 m
    # beyond each of its ends, and 29 farther than 2 m or just there.
    assert differs(along(0.0, -4.5, 4.5), along(0.0)) == pytest.approx((0 + 30 / 41) / 2, abs=1e-3)


def test_mismatch_only_looks_where_both_could():
    """10 m ahead: the last 10 m of the later view were out of the earlier one."""
    later = dict(second_pose=pose_at(10.0))
    assert differs(along(0.0, 20, 30), along(0.0, 10, 30), **later) == pytest.approx(0.0, abs=0.02)
    assert differs(along(0.0, 20, 30), along(0.0, 21, 30), **later) == 1.0
    # Had it been seen from the same place, half of it would be missing.
    assert differs(along(0.0, 20, 30), along(0.0, 10, 30)) > 0.2


def test_assignment_leaves_alone_what_does_not_fit():
    cost = np.array([[0.1, 0.7], [0.7, 0.9]])
    rows, columns = assign(cost, 0.75)
    assert list(zip(rows, columns, strict=True)) == [(0, 0)]
    rows, columns = assign(np.zeros((0, 3)), 0.75)
    assert len(rows) == len(columns) == 0
