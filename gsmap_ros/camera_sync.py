"""Groups the images of several cameras into camera sets by their stamps.

Knows neither ROS nor images. A set opens around an image of the reference camera and closes when
every camera has an image within `max_spread_ns` of it, when `timeout_ns` has passed, or when a
younger set is complete and the missing cameras have moved on. Images whose reference never comes
close as a set of their own. Sets leave in the order of their stamps, and every one leaves:
complete, partial or dropped with a reason. Memory is bounded.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from gsmap_core.errors import ConfigError

T = TypeVar('T')

#: Images of one camera that wait for their reference image; more than this many are a stuck
#: reference.
_MAX_WAITING = 8
#: Sets that wait for late images.
_MAX_PENDING = 8
#: Closed sets whose late images are recognised.
_MAX_REMEMBERED = 16
#: An image older than the newest by more than this is not late: the clock jumped (a looping bag).
_JUMP_NS = 1_000_000_000


class Outcome(Enum):
    """How a set left the synchroniser."""

    COMPLETE = 'complete'
    PARTIAL = 'partial'
    DROPPED = 'dropped'


@dataclass(frozen=True)
class SyncSettings:
    """How images are grouped.

    Args:
        cameras: names, in the order of the rig.
        reference: camera whose stamp is the stamp of the set; empty: the first.
        max_spread_ns: an image belongs to a set if its stamp is at most this far from the
            reference's [ns]; should be below half the time between two sets.
        timeout_ns: how long an incomplete set waits after its first image arrived [ns of the node
            clock].
        min_cameras: fewer images make a drop, not a partial set; more than there are cameras means
            all of them.

    Raises:
        ConfigError: no camera, a name twice, an unknown reference or a number that is not
            positive.
    """

    cameras: tuple[str, ...]
    reference: str = ''
    max_spread_ns: int = 60_000_000
    timeout_ns: int = 250_000_000
    min_cameras: int = 1

    def __post_init__(self) -> None:
        """Validate and fill the reference."""
        cameras = tuple(self.cameras)
        if not cameras or len(set(cameras)) != len(cameras):
            raise ConfigError(f'cameras {list(cameras)}; expected at least one name, each once')
        reference = self.reference or cameras[0]
        if reference not in cameras:
            raise ConfigError(
                f"sync.reference '{reference}' is not a camera; expected one of "
                f'{", ".join(cameras)}'
            )
        for name in ('max_spread_ns', 'timeout_ns', 'min_cameras'):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f'sync.{name} is {getattr(self, name)}; expected a positive number'
                )
        object.__setattr__(self, 'cameras', cameras)
        object.__setattr__(self, 'reference', reference)


@dataclass(frozen=True)
class CameraSet(Generic[T]):
    """One group of images.

    Args:
        stamp_ns: stamp of the reference camera, or of the first camera present where the reference
            is missing [ns].
        images: by camera, stamp [ns] and whatever `add` was given; missing cameras are absent.
        outcome: complete, partial, or dropped.
        reason: why it was dropped, else empty.
    """

    stamp_ns: int
    images: dict[str, tuple[int, T]]
    outcome: Outcome
    reason: str = ''

    @property
    def spread_ns(self) -> int:
        """Time from the first to the last image [ns]."""
        stamps = [stamp for stamp, _ in self.images.values()]
        return max(stamps) - min(stamps)


@dataclass(frozen=True)
class _Waiting(Generic[T]):
    """An image that is held.

    A doubtful one lies in the window of a set that has left without its camera: it came late, or
    it belongs to the next set and nobody can know before that set opens. Doubtful images alone
    never make a set.
    """

    stamp_ns: int
    arrived_ns: int
    payload: T
    is_doubtful: bool


@dataclass
class _Pending(Generic[T]):
    """A set with its reference image that waits for other cameras."""

    stamp_ns: int
    opened_ns: int
    images: dict[str, _Waiting[T]]


@dataclass(frozen=True)
class _Closed:
    """What a late image is compared with: the window of a set that left, and who was in it."""

    first_ns: int
    last_ns: int
    stamps_ns: dict[str, int]


@dataclass
class SyncCounters:
    """Events since the start; sets_closed = complete + partial + the sum of dropped.

    Args:
        complete: sets with every camera.
        partial: sets with enough, but not all cameras.
        dropped: sets by reason.
        late: images of a set that had already left, by camera.
        out_of_order: images older than the one before from the same camera, by camera (used where
            their set is open).
        duplicate: images with a stamp that the camera had already sent, by camera.
        invalid_stamp: images without a stamp, by camera.
        resets: backward jumps of the stamps.
    """

    complete: int = 0
    partial: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    out_of_order: Counter[str] = field(default_factory=Counter)
    duplicate: Counter[str] = field(default_factory=Counter)
    invalid_stamp: Counter[str] = field(default_factory=Counter)
    resets: int = 0

    @property
    def sets_closed(self) -> int:
        """Sets that left the synchroniser, in whichever way."""
        return self.complete + self.partial + sum(self.dropped.values())


class CameraSync(Generic[T]):
    """Turns single images into camera sets.

    Args:
        settings: cameras, reference and limits.

    `add` and `poll` return the sets that closed, oldest first; dropped ones are among them, so
    that whoever counts the results has counted everything.
    """

    def __init__(self, settings: SyncSettings) -> None:
        self.settings = settings
        self.counters = SyncCounters()
        self._min_cameras = min(settings.min_cameras, len(settings.cameras))
        self._forget()

    def _forget(self) -> None:
        self._waiting: dict[str, list[_Waiting[T]]] = {c: [] for c in self.settings.cameras}
        self._pending: list[_Pending[T]] = []
        self._closed: deque[_Closed] = deque(maxlen=_MAX_REMEMBERED)
        self._newest: dict[str, int] = {}
        self._backward: list[tuple[str, int, int, T]] = []

    @property
    def num_open(self) -> int:
        """Sets, and images still without one, that are held."""
        return len(self._pending) + sum(map(len, self._waiting.values()))

    def add(self, camera: str, stamp_ns: int, payload: T, now_ns: int) -> list[CameraSet[T]]:
        """Take one image.

        Args:
            camera: one of the settings' cameras.
            stamp_ns: acquisition time of the image [ns].
            payload: handed through.
            now_ns: the node clock [ns].

        Returns:
            Sets that closed because of it (or of the time that has passed), oldest first.
        """
        if stamp_ns <= 0:
            self.counters.invalid_stamp[camera] += 1
            return self.poll(now_ns)
        jumped = self._note_jump(camera, stamp_ns, payload, now_ns)
        if jumped is not None:
            return jumped
        self._store(camera, stamp_ns, payload, now_ns)
        return self.poll(now_ns)

    def poll(self, now_ns: int) -> list[CameraSet[T]]:
        """Close what is complete or has waited long enough; call it regularly.

        Args:
            now_ns: the node clock [ns].
        """
        result: list[CameraSet[T]] = []
        while self.num_open and self._may_leave(now_ns):
            closed = self._leave(*self._take_oldest(), reason='')
            if closed is not None:
                result.append(closed)
        return result

    def reset(self, reason: str) -> list[CameraSet[T]]:
        """Drop everything that is held (clock jump, deactivation) and begin anew.

        Args:
            reason: under which the open sets are counted.

        Returns:
            The dropped sets.
        """
        result: list[CameraSet[T]] = []
        while self.num_open:
            closed = self._leave(*self._take_oldest(), reason)
            if closed is not None:
                result.append(closed)
        for camera, *_ in self._backward:
            self.counters.late[camera] += 1
        self._forget()
        return result

    def _note_jump(
        self, camera: str, stamp_ns: int, payload: T, now_ns: int
    ) -> list[CameraSet[T]] | None:
        """Hold back an image that is far too old; two in a row prove that time went back."""
        newest = max(self._newest.values(), default=stamp_ns)
        if stamp_ns >= newest - _JUMP_NS:
            for stray, *_ in self._backward:
                self.counters.late[stray] += 1
            self._backward.clear()
            return None
        self._backward.append((camera, stamp_ns, now_ns, payload))
        if len(self._backward) < 2:
            return self.poll(now_ns)
        held, self._backward = self._backward, []
        result = self.reset('clock_jump')
        self.counters.resets += 1
        for old_camera, old_stamp_ns, old_now_ns, old_payload in held:
            self._store(old_camera, old_stamp_ns, old_payload, min(old_now_ns, now_ns))
        return result + self.poll(now_ns)

    def _store(self, camera: str, stamp_ns: int, payload: T, now_ns: int) -> None:
        if self._is_duplicate(camera, stamp_ns):
            self.counters.duplicate[camera] += 1
            return
        newest = self._newest.get(camera)
        if newest is not None and stamp_ns < newest:
            self.counters.out_of_order[camera] += 1
        self._newest[camera] = max(stamp_ns, newest or 0)
        if self._closed and stamp_ns < self._closed[-1].first_ns:
            self.counters.late[camera] += 1
            return
        is_doubtful = any(
            closed.first_ns <= stamp_ns <= closed.last_ns and camera not in closed.stamps_ns
            for closed in self._closed
        )
        image = _Waiting(stamp_ns, now_ns, payload, is_doubtful)
        if camera == self.settings.reference:
            self._open(image)
        elif not self._join(camera, image):
            self._waiting[camera].append(image)
            self._waiting[camera].sort(key=lambda waiting: waiting.stamp_ns)

    def _is_duplicate(self, camera: str, stamp_ns: int) -> bool:
        held = list(self._waiting[camera])
        held += [pending.images[camera] for pending in self._pending if camera in pending.images]
        return any(image.stamp_ns == stamp_ns for image in held) or any(
            closed.stamps_ns.get(camera) == stamp_ns for closed in self._closed
        )

    def _open(self, reference: _Waiting[T]) -> None:
        """Open a set around a reference image with the nearest waiting image of each camera."""
        images = {self.settings.reference: reference}
        for camera, waiting in self._waiting.items():
            nearest = min(
                waiting, key=lambda image: abs(image.stamp_ns - reference.stamp_ns), default=None
            )
            if (
                nearest is not None
                and abs(nearest.stamp_ns - reference.stamp_ns) <= self.settings.max_spread_ns
            ):
                images[camera] = nearest
                waiting.remove(nearest)
        opened_ns = min(image.arrived_ns for image in images.values())
        self._pending.append(_Pending(reference.stamp_ns, opened_ns, images))
        self._pending.sort(key=lambda pending: pending.stamp_ns)

    def _join(self, camera: str, image: _Waiting[T]) -> bool:
        """Put an image into the nearest open set that still lacks its camera."""
        candidates = [
            pending
            for pending in self._pending
            if camera not in pending.images
            and abs(pending.stamp_ns - image.stamp_ns) <= self.settings.max_spread_ns
        ]
        if not candidates:
            return False
        nearest = min(candidates, key=lambda pending: abs(pending.stamp_ns - image.stamp_ns))
        nearest.images[camera] = image
        return True

    def _may_leave(self, now_ns: int) -> bool:
        """Whether the oldest set may leave; younger ones wait, so that time keeps its order."""
        if len(self._pending) > _MAX_PENDING or any(
            len(waiting) > _MAX_WAITING for waiting in self._waiting.values()
        ):
            return True
        if self._oldest_is_pending():
            members = self._pending[0].images
            has_successor = len(self._pending) > 1
        else:
            members = self._orphans()
            has_successor = bool(self._pending)
        if len(members) == len(self.settings.cameras):
            return True
        if has_successor and all(image.is_doubtful for image in members.values()):
            # The next set has opened without them: they were late.
            return True
        if self._is_overtaken(members):
            return True
        opened_ns = min(image.arrived_ns for image in members.values())
        return now_ns - opened_ns >= self.settings.timeout_ns

    def _is_overtaken(self, members: dict[str, _Waiting[T]]) -> bool:
        """Whether a younger set is complete and every missing camera has moved on.

        One lost image then costs no waiting; images that merely swapped places still meet.
        """
        num_cameras = len(self.settings.cameras)
        if not any(len(pending.images) == num_cameras for pending in self._pending):
            return False
        last_ns = max(image.stamp_ns for image in members.values()) + self.settings.max_spread_ns
        return all(
            camera in members or self._newest.get(camera, 0) > last_ns
            for camera in self.settings.cameras
        )

    def _oldest_is_pending(self) -> bool:
        """Whether a set with its reference is next, not images whose reference is missing."""
        first_waiting = min(
            (image.stamp_ns for waiting in self._waiting.values() for image in waiting),
            default=None,
        )
        if not self._pending or first_waiting is None:
            return bool(self._pending)
        return first_waiting >= self._pending[0].stamp_ns - self.settings.max_spread_ns

    def _orphans(self) -> dict[str, _Waiting[T]]:
        """Return the oldest images that make one set without its reference.

        At most one of each camera, within twice the spread of the first.
        """
        first = min(waiting[0].stamp_ns for waiting in self._waiting.values() if waiting)
        last = first + 2 * self.settings.max_spread_ns
        if self._pending:
            # What lies within the spread of the next reference waits for a set after that one.
            last = min(last, self._pending[0].stamp_ns - self.settings.max_spread_ns - 1)
        return {
            camera: self._waiting[camera][0]
            for camera in self.settings.cameras
            if self._waiting[camera] and self._waiting[camera][0].stamp_ns <= max(first, last)
        }

    def _take_oldest(self) -> tuple[dict[str, _Waiting[T]], tuple[int, int]]:
        """Remove the oldest set; return its images and the window of stamps that belong to it."""
        spread = self.settings.max_spread_ns
        if self._oldest_is_pending():
            oldest = self._pending.pop(0)
            return oldest.images, (oldest.stamp_ns - spread, oldest.stamp_ns + spread)
        members = self._orphans()
        for camera in members:
            self._waiting[camera].pop(0)
        first = min(image.stamp_ns for image in members.values())
        return members, (first, first + 2 * spread)

    def _leave(
        self, members: dict[str, _Waiting[T]], window: tuple[int, int], reason: str
    ) -> CameraSet[T] | None:
        """Count a set that leaves and remember its window; None if it was late images only."""
        if all(image.is_doubtful for image in members.values()):
            for camera in members:
                self.counters.late[camera] += 1
            return None
        cameras = [camera for camera in self.settings.cameras if camera in members]
        self._closed.append(_Closed(*window, {c: members[c].stamp_ns for c in cameras}))
        if not reason and len(cameras) < self._min_cameras:
            reason = 'too_few_cameras'
        if reason:
            outcome = Outcome.DROPPED
            self.counters.dropped[reason] += 1
        elif len(cameras) == len(self.settings.cameras):
            outcome = Outcome.COMPLETE
            self.counters.complete += 1
        else:
            outcome = Outcome.PARTIAL
            self.counters.partial += 1
        reference = self.settings.reference if self.settings.reference in members else cameras[0]
        images = {
            camera: (members[camera].stamp_ns, members[camera].payload) for camera in cameras
        }
        return CameraSet(members[reference].stamp_ns, images, outcome, reason)
