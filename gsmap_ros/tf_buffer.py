"""A transform buffer with tf2's semantics, for environments without `tf2_ros`.

It answers as the real buffer does (interpolation, expiry, errors); `test/ros/test_tf_buffer.py`
compares it with recorded answers. Stamps are whole nanoseconds. Safe to fill from one thread and
to ask from another.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from gsmap_core.errors import TransformError
from gsmap_core.geometry.transforms import (
    invert,
    matrix_to_quaternion,
    slerp,
    transform_from_quaternion,
)
from gsmap_core.structures import FloatArray

DEFAULT_CACHE_TIME_NS = 10_000_000_000
#: A chain longer than this can only be a loop.
_MAX_DEPTH = 1000


class BufferError(TransformError):
    """A transform that the buffer could not answer.

    Attributes:
        tf2_name: class of the exception that tf2 raises in this case.
        reason: `future`, `past`, `single_sample`, `no_data`, `unknown_frame`, `unconnected`,
            `invalid_name` or `loop`.
    """

    tf2_name: ClassVar[str] = 'TransformException'

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnknownFrameError(BufferError):
    """No transform has ever named the frame (tf2: LookupException)."""

    tf2_name = 'LookupException'


class UnconnectedError(BufferError):
    """Both frames are known but no chain joins them (tf2: ConnectivityException)."""

    tf2_name = 'ConnectivityException'


class ExtrapolationError(BufferError):
    """The time lies outside the stored samples (tf2: ExtrapolationException)."""

    tf2_name = 'ExtrapolationException'


class InvalidFrameError(BufferError):
    """A frame name is empty or begins with a slash (tf2: InvalidArgumentException)."""

    tf2_name = 'InvalidArgumentException'


@dataclass(frozen=True)
class StampedTransform:
    """An answer of the buffer.

    Args:
        matrix: (4, 4) float64 `target_from_source` [m].
        stamp_ns: time the answer belongs to [ns]; 0 where only static transforms were asked at
            time 0.
    """

    matrix: FloatArray
    stamp_ns: int

    @property
    def translation(self) -> FloatArray:
        """(3,) origin of the source in the target frame [m]."""
        return self.matrix[:3, 3]

    @property
    def rotation_xyzw(self) -> FloatArray:
        """(4,) unit quaternion x, y, z, w."""
        return matrix_to_quaternion(self.matrix[:3, :3])


@dataclass(frozen=True)
class _Sample:
    parent: str
    translation: FloatArray
    rotation_xyzw: FloatArray

    @property
    def parent_from_child(self) -> FloatArray:
        return transform_from_quaternion(self.translation, self.rotation_xyzw)


@dataclass
class _FrameHistory:
    """The samples of one child frame, by stamp; a static frame has exactly one, at stamp 0."""

    is_static: bool
    stamps_ns: list[int] = field(default_factory=list)
    samples: list[_Sample] = field(default_factory=list)

    def insert(self, stamp_ns: int, sample: _Sample, cache_time_ns: int) -> None:
        if self.is_static:
            self.stamps_ns, self.samples = [0], [sample]
            return
        if self.stamps_ns:
            newest = self.stamps_ns[-1]
            if stamp_ns < newest - cache_time_ns:
                return
            # As tf2 does, old samples go before the new one is stored, measured from the newest so
            # far.
            expired = bisect_left(self.stamps_ns, newest - cache_time_ns)
            del self.stamps_ns[:expired], self.samples[:expired]
        index = bisect_left(self.stamps_ns, stamp_ns)
        if index < len(self.stamps_ns) and self.stamps_ns[index] == stamp_ns:
            self.samples[index] = sample
        else:
            self.stamps_ns.insert(index, stamp_ns)
            self.samples.insert(index, sample)

    def at(self, stamp_ns: int, child: str) -> tuple[str, FloatArray]:
        """Return the parent and `parent_from_child` at a time; time 0 is the newest sample.

        Raises:
            ExtrapolationError: the time lies outside the samples.
        """
        if not self.samples:
            raise ExtrapolationError(
                f"frame '{child}' holds no data (buffer was cleared)", 'no_data'
            )
        if self.is_static or stamp_ns == 0:
            return self.samples[-1].parent, self.samples[-1].parent_from_child
        first_ns, last_ns = self.stamps_ns[0], self.stamps_ns[-1]
        index = bisect_right(self.stamps_ns, stamp_ns) - 1
        if index >= 0 and self.stamps_ns[index] == stamp_ns:
            return self.samples[index].parent, self.samples[index].parent_from_child
        if not first_ns <= stamp_ns <= last_ns:
            raise self._outside(stamp_ns, child)
        older, newer = self.samples[index], self.samples[index + 1]
        if older.parent != newer.parent:
            return older.parent, older.parent_from_child
        span = self.stamps_ns[index + 1] - self.stamps_ns[index]
        fraction = (stamp_ns - self.stamps_ns[index]) / span
        translation = older.translation + fraction * (newer.translation - older.translation)
        rotation = slerp(older.rotation_xyzw, newer.rotation_xyzw, fraction)
        return older.parent, transform_from_quaternion(translation, rotation)

    def _outside(self, stamp_ns: int, child: str) -> ExtrapolationError:
        asked = f"'{self.samples[-1].parent}' from '{child}' asked at {_seconds(stamp_ns)}"
        if len(self.samples) == 1:
            return ExtrapolationError(
                f'{asked}, but the only sample is at {_seconds(self.stamps_ns[0])}',
                'single_sample',
            )
        if stamp_ns > self.stamps_ns[-1]:
            return ExtrapolationError(
                f'{asked}, but the newest sample is at {_seconds(self.stamps_ns[-1])} '
                '(extrapolation into the future)',
                'future',
            )
        return ExtrapolationError(
            f'{asked}, but the oldest sample is at {_seconds(self.stamps_ns[0])} '
            '(extrapolation into the past)',
            'past',
        )


def _seconds(stamp_ns: int) -> str:
    sign, whole = ('-' if stamp_ns < 0 else ''), abs(stamp_ns)
    return f'{sign}{whole // 1_000_000_000}.{whole % 1_000_000_000:09d} s'


class TransformBuffer:
    """Stores transforms and answers what maps one frame to another at a time.

    Args:
        cache_time_ns: length of the history of a dynamic frame [ns].
    """

    def __init__(self, cache_time_ns: int = DEFAULT_CACHE_TIME_NS) -> None:
        self._cache_time_ns = cache_time_ns
        self._histories: dict[str, _FrameHistory] = {}
        self._known: set[str] = set()
        self._parents: dict[str, tuple[str, str]] = {}
        self._lock = threading.RLock()

    def set_transform(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        translation: Sequence[float],
        rotation_xyzw: Sequence[float],
        is_static: bool = False,
    ) -> bool:
        """Store one transform.

        Args:
            parent: frame the child is expressed in; a leading slash is stripped, here and in
                `child`.
            child: the frame being placed.
            stamp_ns: time [ns].
            translation: origin of the child in the parent [m].
            rotation_xyzw: any non-zero quaternion; it is normalised.
            is_static: from `/tf_static`: holds at any time.

        Returns:
            False if it was ignored: own parent, empty name, not finite, quaternion of length zero.
        """
        parent, child = parent.removeprefix('/'), child.removeprefix('/')
        norm = math.sqrt(sum(value * value for value in rotation_xyzw))
        if not parent or not child or parent == child or not math.isfinite(norm) or norm == 0.0:
            return False
        if not all(math.isfinite(value) for value in translation):
            return False
        sample = _Sample(
            parent,
            np.array(translation, dtype=np.float64),
            np.array(rotation_xyzw, dtype=np.float64) / norm,
        )
        with self._lock:
            self._known.update((parent, child))
            history = self._histories.get(child)
            if history is not None and history.samples:
                before = history.samples[-1].parent
                if before != parent and not history.is_static and not is_static:
                    self._parents[child] = (min(before, parent), max(before, parent))
            if history is None or history.is_static != is_static:
                history = self._histories[child] = _FrameHistory(is_static)
            history.insert(stamp_ns, sample, self._cache_time_ns)
        return True

    def lookup(self, target: str, source: str, stamp_ns: int) -> StampedTransform:
        """Return `target_from_source` at a time.

        Args:
            target: frame of the result.
            source: frame of the input.
            stamp_ns: time [ns]; 0 asks for the latest time at which the whole chain has data.

        Raises:
            InvalidFrameError: a name is empty or has a leading slash.
            UnknownFrameError: a frame was never named by a transform.
            UnconnectedError: no chain joins the frames.
            ExtrapolationError: the time lies outside the stored samples of the chain.
        """
        for name in (target, source):
            _check_name(name)
        if target == source:
            return StampedTransform(np.eye(4), stamp_ns)
        with self._lock:
            for name in (target, source):
                self._check_known(name)
            if stamp_ns == 0:
                stamp_ns = self._latest_common_time_ns(target, source)
            return StampedTransform(self._chain(target, source, stamp_ns), stamp_ns)

    def lookup_full(
        self, target: str, target_stamp_ns: int, source: str, source_stamp_ns: int, fixed: str
    ) -> StampedTransform:
        """Return what maps `source` at one time to `target` at another.

        Raises:
            BufferError: as `lookup`, for either side.
        """
        for name in (target, source, fixed):
            _check_name(name)
        fixed_from_source = self.lookup(fixed, source, source_stamp_ns)
        target_from_fixed = self.lookup(target, fixed, target_stamp_ns)
        return StampedTransform(
            target_from_fixed.matrix @ fixed_from_source.matrix, target_from_fixed.stamp_ns
        )

    def can_transform(self, target: str, source: str, stamp_ns: int) -> bool:
        """Return whether `lookup` with the same arguments would answer."""
        try:
            self.lookup(target, source, stamp_ns)
        except BufferError:
            return False
        return True

    def frames(self) -> list[str]:
        """Return the known frame names, sorted."""
        with self._lock:
            return sorted(self._known)

    def two_parents(self, frame: str) -> str:
        """Return a sentence if a moving frame was given two parents, else nothing.

        Two publishers contend for it, as a rule; between their samples the tree changes.
        """
        if frame not in self._parents:
            return ''
        first, second = self._parents[frame]
        return f"frame '{frame}' has two parents: '{first}' and '{second}'"

    def clear(self) -> None:
        """Forget the dynamic samples (the clock jumped back); static ones stay, as in tf2."""
        with self._lock:
            self._parents.clear()
            for history in self._histories.values():
                if not history.is_static:
                    history.stamps_ns.clear()
                    history.samples.clear()

    def _check_known(self, name: str) -> None:
        if name not in self._known:
            known = ', '.join(sorted(self._known)) or 'none'
            raise UnknownFrameError(
                f"frame '{name}' does not exist; known frames: {known}", 'unknown_frame'
            )

    def _latest_common_time_ns(self, target: str, source: str) -> int:
        """Return the newest time at which the whole chain has data; 0 if all of it is static."""
        source_side = self._newest_upwards(source)
        target_side = self._newest_upwards(target)
        for frame, target_newest in target_side.items():
            if frame in source_side:
                stamps = [stamp for stamp in (source_side[frame], target_newest) if stamp]
                return min(stamps, default=0)
        raise self._unconnected(target, source)

    def _newest_upwards(self, frame: str) -> dict[str, int]:
        """Return each ancestor with the oldest of the newest stamps below it; 0: static only."""
        newest = 0
        result = {frame: 0}
        while (history := self._histories.get(frame)) is not None and history.samples:
            stamp = history.stamps_ns[-1]
            if stamp:
                newest = min(newest, stamp) if newest else stamp
            frame = history.samples[-1].parent
            if frame in result:
                raise UnknownFrameError(f"the tree has a loop at frame '{frame}'", 'loop')
            result[frame] = newest
        return result

    def _chain(self, target: str, source: str, stamp_ns: int) -> FloatArray:
        """Walk up from both frames until they meet, each transform at its own samples."""
        ancestors_of_source, source_error = self._walk_up(source, stamp_ns)
        if target in ancestors_of_source:
            return ancestors_of_source[target]
        frame, frame_from_target = target, np.eye(4)
        for _ in range(_MAX_DEPTH):
            if frame in ancestors_of_source:
                return invert(frame_from_target) @ ancestors_of_source[frame]
            history = self._histories.get(frame)
            if history is None:
                if source_error is not None:
                    raise source_error
                raise self._unconnected(target, source)
            frame, parent_from_frame = history.at(stamp_ns, frame)
            frame_from_target = parent_from_frame @ frame_from_target
        raise UnknownFrameError(f"the tree has a loop above frame '{target}'", 'loop')

    def _walk_up(
        self, source: str, stamp_ns: int
    ) -> tuple[dict[str, FloatArray], ExtrapolationError | None]:
        """Return `ancestor_from_source` of each ancestor, and what stopped the walk early."""
        frame, frame_from_source = source, np.eye(4)
        result = {source: frame_from_source}
        while (history := self._histories.get(frame)) is not None:
            try:
                frame, parent_from_frame = history.at(stamp_ns, frame)
            except ExtrapolationError as error:
                return result, error
            if frame in result:
                raise UnknownFrameError(f"the tree has a loop at frame '{frame}'", 'loop')
            frame_from_source = parent_from_frame @ frame_from_source
            result[frame] = frame_from_source
        return result, None

    def _unconnected(self, target: str, source: str) -> UnconnectedError:
        contended = ''.join(f'; {self.two_parents(frame)}' for frame in sorted(self._parents))
        return UnconnectedError(
            f"frames '{target}' and '{source}' are not connected; known frames: "
            f'{", ".join(sorted(self._known))}{contended}',
            'unconnected',
        )


def _check_name(name: str) -> None:
    if not name or name.startswith('/'):
        raise InvalidFrameError(
            f"frame name '{name}' is not valid; expected a name without a leading slash",
            'invalid_name',
        )
