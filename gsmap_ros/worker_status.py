"""Diagnostic statuses that the mapping node and the map builder share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gsmap_ros.diagnostics import ERROR, OK, STALE, WARN, SetAccount, Status

if TYPE_CHECKING:
    from gsmap_ros.pose_source import PoseSource

#: Stamps and clock that are further apart belong to different times [s].
_CLOCK_DISTANCE_S = 60.0


class WorkerStatus:
    """What a `WorkerNode` says of its input, its work and its poses.

    Args:
        account: of what it works on.
        stamps: what its stamps are called in a message.
    """

    def __init__(self, account: SetAccount, stamps: str) -> None:
        self._account, self._stamps = account, stamps
        self._last_dropped = self._last_done = 0
        self.failure = ''
        self.clock_hint = ''

    def note_stamp(self, stamp_ns: int, now_ns: int) -> None:
        """Compare a stamp with the node clock; far apart, errors say what to set."""
        distance_s = (now_ns - stamp_ns) / 1e9
        self.clock_hint = ''
        if abs(distance_s) > _CLOCK_DISTANCE_S:
            self.clock_hint = (
                f' ({self._stamps} are {distance_s:.0f} s behind the node clock; set use_sim_time '
                'to true for a replay, to false without one)'
            )

    def _work(
        self, name: str, item: str, done: str, error: str, values: Mapping[str, object]
    ) -> Status:
        """Say what became of the input since this was asked last.

        Args:
            name: of the status.
            item: what comes in, as `camera set`.
            done: what becomes of all of it, as `sets mapped`.
            error: why the last dropped one was dropped.
            values: of the status.
        """
        account = self._account
        dropped, finished = account.num_dropped, account.num_mapped
        new_dropped, new_finished = dropped - self._last_dropped, finished - self._last_done
        self._last_dropped, self._last_done = dropped, finished
        if account.num_received == 0:
            return Status(name, STALE, f'no {item} yet{self.clock_hint}', values)
        text = f'{finished} of {account.num_received} {done}, {dropped} dropped'
        if new_dropped and not new_finished:
            return Status(name, ERROR, f'{text}; {error}', values)
        return Status(name, WARN if new_dropped else OK, text, values)

    def _poses(self, pose: PoseSource, source: str) -> Status:
        """Say where poses come from and why the last one did not.

        Args:
            pose: that is asked.
            source: what answers, in words.
        """
        values = {
            'source': source,
            'fixed_frame': pose.fixed_frame,
            'last_error': pose.last_error,
        }
        if pose.last_error:
            return Status('pose', ERROR, f'{pose.last_error}{self.clock_hint}', values)
        if not pose.fixed_frame:
            return Status('pose', STALE, 'no pose asked for yet', values)
        return Status('pose', OK, f"ego pose in '{pose.fixed_frame}'", values)
