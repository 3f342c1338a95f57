"""Grouping of images into camera sets, with invented stamps; nothing may get lost uncounted."""

from __future__ import annotations

import itertools
import random

import pytest

from gsmap_core.errors import ConfigError
from gsmap_ros.camera_sync import CameraSet, CameraSync, Outcome, SyncSettings

MS = 1_000_000
START = 1_700_000_000_000 * MS
CAMERAS = ('front', 'left', 'right')
#: When each camera fires, relative to the reference [ns].
OFFSETS = {'front': 0, 'left': -20 * MS, 'right': 30 * MS}
PERIOD = 200 * MS


def make_sync(**changes: object) -> CameraSync[str]:
    values: dict = {'cameras': CAMERAS, 'max_spread_ns': 50 * MS, 'timeout_ns': 150 * MS}
    return CameraSync(SyncSettings(**{**values, **changes}))


class Feed:
    """Feeds images with a clock that follows the stamps, polls every 10 ms, collects the sets."""

    def __init__(self, sync: CameraSync[str]) -> None:
        self.sync = sync
        self.now = START
        self.sets: list[CameraSet[str]] = []

    def until(self, now: int) -> None:
        while self.now < now:
            self.now = min(now, self.now + 10 * MS)
            self.sets += self.sync.poll(self.now)

    def image(self, camera: str, index: int, delay: int = 0, offset: int | None = None) -> None:
        stamp = START + index * PERIOD + (OFFSETS[camera] if offset is None else offset)
        self.until(stamp + delay)
        self.sets += self.sync.add(camera, stamp, f'{camera}{index}', self.now)

    def drive(self, num_sets: int, missing: set[tuple[int, str]] = frozenset()) -> None:  # type: ignore[assignment]
        for index in range(num_sets):
            for camera in sorted(CAMERAS, key=OFFSETS.__getitem__):
                if (index, camera) not in missing:
                    self.image(camera, index)
        self.until(self.now + 500 * MS)


def outcomes(sets: list[CameraSet[str]]) -> list[tuple[int, str, str]]:
    return [((s.stamp_ns - START) // MS, s.outcome.value, s.reason) for s in sets]


def check_account(feed: Feed) -> None:
    """Counters equal what came out, time runs forward, and nothing is held any more."""
    counters = feed.sync.counters
    assert counters.sets_closed == len(feed.sets)
    for outcome, count in (
        (Outcome.COMPLETE, counters.complete),
        (Outcome.PARTIAL, counters.partial),
        (Outcome.DROPPED, sum(counters.dropped.values())),
    ):
        assert sum(s.outcome is outcome for s in feed.sets) == count
    assert feed.sync.num_open == 0


def test_complete_sets_close_at_once_with_the_stamp_of_the_reference() -> None:
    feed = Feed(make_sync())
    feed.image('left', 0)
    feed.image('front', 0)
    assert feed.sets == []
    feed.image('right', 0)
    assert outcomes(feed.sets) == [(0, 'complete', '')]
    assert feed.sets[0].images == {
        'front': (START, 'front0'),
        'left': (START - 20 * MS, 'left0'),
        'right': (START + 30 * MS, 'right0'),
    }
    assert feed.sets[0].spread_ns == 50 * MS
    check_account(feed)


def test_reference_may_be_any_camera() -> None:
    feed = Feed(make_sync(reference='left'))
    feed.drive(2)
    assert outcomes(feed.sets) == [(-20, 'complete', ''), (180, 'complete', '')]


def test_a_stopped_camera_makes_partial_sets_after_the_timeout() -> None:
    feed = Feed(make_sync())
    feed.drive(5, {(2, 'right'), (3, 'right'), (4, 'right')})
    assert [outcome for _, outcome, _ in outcomes(feed.sets)] == ['complete'] * 2 + ['partial'] * 3
    assert set(feed.sets[3].images) == {'front', 'left'}
    check_account(feed)


def test_partial_set_closes_when_the_timeout_has_passed_and_not_before() -> None:
    feed = Feed(make_sync())
    feed.image('left', 0)
    feed.image('front', 0)
    opened = START - 20 * MS + 20 * MS  # both arrived now: the clock begins at START
    feed.until(opened + 149 * MS)
    assert feed.sets == []
    feed.until(opened + 150 * MS)
    assert outcomes(feed.sets) == [(0, 'partial', '')]


def test_too_few_cameras_are_a_counted_drop() -> None:
    feed = Feed(make_sync(min_cameras=3))
    feed.drive(4, {(1, 'left')})
    assert outcomes(feed.sets)[1] == (200, 'dropped', 'too_few_cameras')
    assert feed.sync.counters.dropped == {'too_few_cameras': 1}
    check_account(feed)


def test_more_required_cameras_than_there_are_means_all() -> None:
    feed = Feed(make_sync(min_cameras=50))
    feed.drive(2, {(1, 'right')})
    assert [o for _, o, _ in outcomes(feed.sets)] == ['complete', 'dropped']


def test_missing_reference_still_gives_one_set_per_moment() -> None:
    feed = Feed(make_sync())
    feed.drive(5, {(1, 'front'), (2, 'front')})
    # The stamp is that of the first camera present.
    assert outcomes(feed.sets) == [
        (0, 'complete', ''),
        (180, 'partial', ''),
        (380, 'partial', ''),
        (600, 'complete', ''),
        (800, 'complete', ''),
    ]
    check_account(feed)


def test_reference_that_never_comes() -> None:
    feed = Feed(make_sync())
    feed.drive(6, {(index, 'front') for index in range(6)})
    assert [o for _, o, _ in outcomes(feed.sets)] == ['partial'] * 6
    check_account(feed)


def test_only_one_image_of_a_moment() -> None:
    feed = Feed(make_sync(min_cameras=2))
    feed.drive(3, {(1, 'front'), (1, 'left')})
    assert [(o, r) for _, o, r in outcomes(feed.sets)] == [
        ('complete', ''),
        ('dropped', 'too_few_cameras'),
        ('complete', ''),
    ]
    check_account(feed)


def test_images_out_of_order_find_their_set() -> None:
    feed = Feed(make_sync())
    feed.drive(1)
    for camera, index in (('right', 2), ('front', 1), ('left', 1), ('right', 1)):
        stamp = START + index * PERIOD + OFFSETS[camera]
        feed.sets += feed.sync.add(camera, stamp, f'{camera}{index}', feed.now)
    for camera in ('left', 'front'):
        feed.sets += feed.sync.add(camera, START + 2 * PERIOD + OFFSETS[camera], 'x', feed.now)
    assert [o for _, o, _ in outcomes(feed.sets)] == ['complete'] * 3
    assert feed.sync.counters.out_of_order == {'right': 1}
    check_account(feed)


def test_a_lost_image_is_not_waited_for_once_the_next_set_is_complete() -> None:
    feed = Feed(make_sync(timeout_ns=4000 * MS))
    feed.image('left', 0)
    feed.image('front', 0)
    for camera in ('left', 'front', 'right'):
        feed.image(camera, 1)
    assert [(t, o) for t, o, _ in outcomes(feed.sets)] == [(0, 'partial'), (200, 'complete')]
    check_account(feed)


def test_a_lost_reference_is_not_waited_for_once_the_next_set_is_complete() -> None:
    feed = Feed(make_sync(timeout_ns=4000 * MS))
    feed.image('left', 0)
    feed.image('right', 0)
    for camera in ('left', 'front', 'right'):
        feed.image(camera, 1)
    assert [o for _, o, _ in outcomes(feed.sets)] == ['partial', 'complete']
    check_account(feed)


def test_younger_sets_wait_for_a_camera_that_has_not_moved_on() -> None:
    feed = Feed(make_sync(timeout_ns=400 * MS))
    for index in (0, 1):
        for camera in ('left', 'front'):
            feed.image(camera, index)
    assert feed.sets == []
    feed.sets += feed.sync.add('right', START + PERIOD + OFFSETS['right'], 'right1', feed.now)
    feed.sets += feed.sync.add('right', START + OFFSETS['right'], 'too late', feed.now)
    assert [(t, o) for t, o, _ in outcomes(feed.sets)] == [(0, 'partial'), (200, 'complete')]
    assert feed.sync.counters.late == {'right': 1}
    check_account(feed)


def test_late_image_is_counted_and_opens_no_set_of_its_own() -> None:
    feed = Feed(make_sync())
    feed.image('left', 0)
    feed.image('front', 0)
    feed.until(START + 170 * MS)
    assert [o for _, o, _ in outcomes(feed.sets)] == ['partial']
    feed.sets += feed.sync.add('right', START + 30 * MS, 'late', feed.now)
    for camera in ('left', 'front', 'right'):
        feed.image(camera, 1)
    feed.until(START + 900 * MS)
    assert [o for _, o, _ in outcomes(feed.sets)] == ['partial', 'complete']
    assert feed.sync.counters.late == {'right': 1}
    check_account(feed)


def test_late_reference_is_counted_and_opens_no_set_of_its_own() -> None:
    feed = Feed(make_sync())
    feed.image('left', 0)
    feed.image('right', 0)
    feed.until(START + 300 * MS)
    assert [o for _, o, _ in outcomes(feed.sets)] == ['partial']
    feed.sets += feed.sync.add('front', START, 'late', feed.now)
    feed.until(START + 900 * MS)
    assert len(feed.sets) == 1
    assert feed.sync.counters.late == {'front': 1}
    check_account(feed)


def test_one_lost_image_does_not_disturb_the_sets_after_it() -> None:
    """With a spread below half the period, a camera keeps to its own sets after a loss."""
    sync = make_sync(timeout_ns=80 * MS, max_spread_ns=28 * MS)
    feed = Feed(sync)
    for index in range(8):
        for camera, offset in (('left', -25), ('front', 0), ('right', 10)):
            if (index, camera) != (3, 'left'):
                stamp = START + (index * 60 + offset) * MS
                feed.until(stamp)
                feed.sets += sync.add(camera, stamp, 'x', feed.now)
    feed.until(feed.now + 500 * MS)
    assert [o for _, o, _ in outcomes(feed.sets)] == ['complete'] * 3 + ['partial'] + [
        'complete'
    ] * 4
    check_account(feed)


def test_duplicates_are_ignored_and_counted() -> None:
    feed = Feed(make_sync())
    for camera in ('left', 'left', 'front', 'front', 'right', 'right'):
        feed.image(camera, 0)
    feed.until(START + 500 * MS)
    assert outcomes(feed.sets) == [(0, 'complete', '')]
    assert feed.sync.counters.duplicate == {'left': 1, 'front': 1, 'right': 1}
    check_account(feed)


def test_image_without_stamp_is_refused() -> None:
    feed = Feed(make_sync())
    feed.sets += feed.sync.add('front', 0, 'x', START)
    assert feed.sync.counters.invalid_stamp == {'front': 1}
    check_account(feed)


def test_backward_jump_drops_what_is_open_and_starts_again() -> None:
    feed = Feed(make_sync())
    feed.drive(20)
    feed.image('front', 20)
    # The bag begins again; the clock of the node may not have followed yet.
    for index, camera in itertools.product(range(2), ('left', 'front', 'right')):
        stamp = START + index * PERIOD + OFFSETS[camera]
        feed.sets += feed.sync.add(camera, stamp, 'again', feed.now)
    assert outcomes(feed.sets)[20:] == [
        (4000, 'dropped', 'clock_jump'),
        (0, 'complete', ''),
        (200, 'complete', ''),
    ]
    assert feed.sync.counters.resets == 1
    check_account(feed)


def test_a_single_stray_image_from_the_past_is_no_jump() -> None:
    feed = Feed(make_sync())
    feed.drive(20)
    feed.sets += feed.sync.add('left', START, 'stray', feed.now)
    for index in (30, 31):
        for camera in ('left', 'front', 'right'):
            feed.image(camera, index)
    assert [o for _, o, _ in outcomes(feed.sets)] == ['complete'] * 22
    assert feed.sync.counters.resets == 0
    assert feed.sync.counters.late == {'left': 1}


def test_recovers_from_a_stamp_in_the_far_future() -> None:
    feed = Feed(make_sync())
    feed.drive(3)
    feed.sets += feed.sync.add('left', START + 10**6 * PERIOD, 'stray', feed.now)
    for index in range(4, 9):
        for camera in ('left', 'front', 'right'):
            feed.image(camera, index)
    assert [o for _, o, _ in outcomes(feed.sets)].count('complete') >= 3 + 4
    assert feed.sync.counters.resets == 1


def test_reset_drops_open_sets_under_the_given_reason() -> None:
    feed = Feed(make_sync(timeout_ns=400 * MS))
    feed.image('left', 0)
    feed.image('front', 0)
    feed.image('left', 1)
    feed.sets += feed.sync.reset('deactivated')
    assert [(o, r) for _, o, r in outcomes(feed.sets)] == [('dropped', 'deactivated')] * 2
    check_account(feed)


def test_memory_is_bounded_when_time_stands_still() -> None:
    """Without a clock no timeout ever passes: sets must leave all the same."""
    for only in ('front', 'left'):
        sync = make_sync()
        feed = Feed(sync)
        for index in range(200):
            feed.sets += sync.add(only, START + index * PERIOD, 'x', START)
            assert sync.num_open <= 10
        assert len(feed.sets) >= 185
        feed.sets += sync.reset('end')
        assert len(feed.sets) == 200
        check_account(feed)


@pytest.mark.parametrize('seed', range(30))
def test_random_loss_and_delay_never_loses_count(seed: int) -> None:
    """Any loss: one set per moment with at least one image; every image is in a set or counted."""
    dice = random.Random(seed)
    sync = make_sync(min_cameras=dice.choice([1, 2, 3]))
    arrivals = []
    moments = set()
    for index, camera in itertools.product(range(40), CAMERAS):
        if dice.random() < 0.8:
            stamp = START + index * PERIOD + OFFSETS[camera] + dice.randint(-5, 5) * MS
            arrivals.append((stamp + dice.randint(0, 60) * MS, stamp, camera, index))
            moments.add(index)
    feed = Feed(sync)
    for arrival, stamp, camera, index in sorted(arrivals):
        feed.until(arrival)
        feed.sets += sync.add(camera, stamp, str(index), feed.now)
    feed.until(feed.now + 1000 * MS)
    assert len(feed.sets) == len(moments)
    for camera_set in feed.sets:
        assert len({index for _, index in camera_set.images.values()}) == 1
    assert sum(len(s.images) for s in feed.sets) == len(arrivals)
    assert [s.stamp_ns for s in feed.sets] == sorted(s.stamp_ns for s in feed.sets)
    check_account(feed)


def test_single_camera_rig() -> None:
    sync = make_sync(cameras=('only',))
    sets = [s for i in range(5) for s in sync.add('only', START + i * PERIOD, 'x', START)]
    assert [o for _, o, _ in outcomes(sets)] == ['complete'] * 5


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'cameras': ()}, 'at least one'),
        ({'cameras': ('a', 'a')}, 'each once'),
        ({'reference': 'roof'}, "'roof' is not a camera; expected one of front, left, right"),
        ({'max_spread_ns': 0}, 'positive'),
        ({'min_cameras': 0}, 'positive'),
    ],
)
def test_wrong_settings_are_refused(changes: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make_sync(**changes)
