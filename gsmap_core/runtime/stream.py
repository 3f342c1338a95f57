"""Guards the memory of a stream of camera sets: says when it has to be dropped, and why.

A memory that is warped by a wrong motion is worse than none. Time, place and vehicle of every set
are held against the set before; the maps themselves are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gsmap_core.errors import ConfigError
from gsmap_core.structures import CameraRig, FloatArray, SurroundFrame

#: Why a memory was dropped: stamps that go back, no set for too long, no pose for too long, a
#: motion that no vehicle makes, another drive, another rig, another number of drives in a batch,
#: or because somebody asked for it.
RESET_REASONS: tuple[str, ...] = (
    'clock_jump',
    'gap',
    'pose_lost',
    'pose_jump',
    'scene_changed',
    'rig_changed',
    'batch_changed',
    'requested',
)

#: What a road vehicle does at most; the first step of a stream knows no speed to go on with.
_MAX_SPEED_M_S = 50.0
_MAX_ACCELERATION_M_S2 = 6.0
_MAX_TURN_RATE_RAD_S = 1.2
#: Steps shorter than that say nothing about the speed.
_MIN_STEP_S = 0.02


@dataclass(frozen=True)
class StreamStatus:
    """State of a stream, for diagnostics and reports.

    Args:
        num_frames: sets in the memory, since it was last dropped.
        num_key_frames: key frames among them.
        travelled_m: way travelled since then [m].
        num_resets: how often a memory was dropped or asked to be.
        last_reset_reason: one of `RESET_REASONS`; empty: never.
        last_reset_stamp_ns: stamp of the first set after it, or for `requested` of the last one
            before [ns]; None: never, or there was none.
    """

    num_frames: int = 0
    num_key_frames: int = 0
    travelled_m: float = 0.0
    num_resets: int = 0
    last_reset_reason: str = ''
    last_reset_stamp_ns: int | None = None


class _Seen(NamedTuple):
    """What is kept of a set; not its images."""

    stamp_ns: int
    scene: str
    rig: CameraRig


class StreamGuard:
    """Looks at the sets of one stream in turn.

    A pose is a jump if it lies farther than `max_pose_jump_m` from where the vehicle could be
    that went on with its last speed, accelerating or braking by up to 6 m/s^2 in any direction
    (before a speed is known: from where it could be at 50 m/s), or if it is turned so much more
    than 1.2 rad/s allow that the far end of the range moves by more than that.

    Args:
        max_gap_s: longest time between sets, and without a pose, that a memory survives [s].
        max_pose_jump_m: see above [m].
        radius_m: from the vehicle to the far end of the range [m].

    Raises:
        ConfigError: a limit is not positive.
    """

    def __init__(
        self, max_gap_s: float = 2.0, max_pose_jump_m: float = 10.0, radius_m: float = 30.0
    ) -> None:
        for name, value in (('max_gap_s', max_gap_s), ('max_pose_jump_m', max_pose_jump_m)):
            if not value > 0:
                raise ConfigError(f'{name} is {value}; expected more than 0')
        self.max_gap_s, self.max_pose_jump_m = max_gap_s, max_pose_jump_m
        self.radius_m = radius_m
        self.last_stamp_ns: int | None = None
        self.forget()

    def forget(self) -> None:
        """Begin anew with the next set."""
        self._before: _Seen | None = None
        self._pose: FloatArray | None = None
        self._pose_stamp_ns = 0
        self._velocity: FloatArray | None = None
        self._speed_step_s = 0.0

    def check(self, frame: SurroundFrame) -> str:
        """Look at the next set of the stream and remember it.

        Returns:
            Why the memory has to be dropped before the set is mapped, one of `RESET_REASONS`;
            empty: it goes on. A set without a pose goes on (it is mapped alone) as long as the
            last pose is not older than `max_gap_s`.
        """
        reason = self._reason(frame)
        if reason:
            self.forget()
        self._follow(frame)
        return reason

    def _reason(self, frame: SurroundFrame) -> str:
        before = self._before
        if before is None:
            return ''
        if frame.scene != before.scene:
            return 'scene_changed'
        if not _is_same_vehicle(frame.rig, before.rig):
            return 'rig_changed'
        if frame.stamp_ns < before.stamp_ns:
            return 'clock_jump'
        if self._seconds_since(before.stamp_ns, frame) > self.max_gap_s:
            return 'gap'
        if self._pose is None:
            return ''
        if self._seconds_since(self._pose_stamp_ns, frame) > self.max_gap_s:
            return 'pose_lost'
        if frame.map_from_base is not None and self._is_jump(frame.map_from_base, frame):
            return 'pose_jump'
        return ''

    @staticmethod
    def _seconds_since(stamp_ns: int, frame: SurroundFrame) -> float:
        return (frame.stamp_ns - stamp_ns) * 1e-9

    def _is_jump(self, pose: FloatArray, frame: SurroundFrame) -> bool:
        assert self._pose is not None
        step_s = self._seconds_since(self._pose_stamp_ns, frame)
        move = pose[:3, 3] - self._pose[:3, 3]
        if self._velocity is None:
            excess_m = float(np.linalg.norm(move)) - _MAX_SPEED_M_S * step_s
        else:
            # From the middle of the step that the speed was measured over to that of this one.
            since_s = 0.5 * (self._speed_step_s + step_s)
            spread_m = _MAX_ACCELERATION_M_S2 * since_s * step_s
            excess_m = float(np.linalg.norm(move - self._velocity * step_s)) - spread_m
        cosine = 0.5 * (np.trace(self._pose[:3, :3].T @ pose[:3, :3]) - 1.0)
        turned_rad = float(np.arccos(np.clip(cosine, -1.0, 1.0)))
        excess_rad = turned_rad - _MAX_TURN_RATE_RAD_S * step_s
        return max(excess_m, excess_rad * self.radius_m) > self.max_pose_jump_m

    def _follow(self, frame: SurroundFrame) -> None:
        pose = frame.map_from_base
        if pose is not None:
            step_s = self._seconds_since(self._pose_stamp_ns, frame)
            if self._pose is not None and step_s >= _MIN_STEP_S:
                self._velocity = (pose[:3, 3] - self._pose[:3, 3]) / step_s
                self._speed_step_s = step_s
            self._pose, self._pose_stamp_ns = pose, frame.stamp_ns
        self._before = _Seen(frame.stamp_ns, frame.scene, frame.rig)
        self.last_stamp_ns = frame.stamp_ns


def _is_same_vehicle(rig: CameraRig, other: CameraRig) -> bool:
    """Whether two sets are of one rig; its calibration may be refined on the way."""
    if rig is other:
        return True
    mine, theirs = rig.base_from_lidar, other.base_from_lidar
    if mine is None or theirs is None:
        has_same_lidar = mine is theirs
    else:
        has_same_lidar = np.array_equal(mine, theirs)
    return (rig.name, rig.names) == (other.name, other.names) and has_same_lidar
