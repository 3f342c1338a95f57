"""What the map builder says about itself: its state in the form of diagnostic statuses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gsmap_ros.diagnostics import ERROR, OK, STALE, WARN, SetAccount, Status

if TYPE_CHECKING:
    from gsmap_ros.map_builder_parts import MapBuilderParts

#: Stamps and clock that are further apart belong to different times [s].
_CLOCK_DISTANCE_S = 60.0


class MapBuilderStatus:
    """Collects what happens and turns it into statuses.

    Args:
        account: of the local maps.
    """

    def __init__(self, account: SetAccount) -> None:
        self._account = account
        self._last_dropped = self._last_fused = 0
        self._changed_s: float | None = None
        self.failure = ''
        self.map_error = ''
        self.disk_error = ''
        self.clock_hint = ''
        self.num_submaps = 1
        self.num_refused_elements = 0
        self.revision = 0
        #: Numbers of the map when it was last looked at.
        self.map_values: dict[str, object] = {}

    def note_stamp(self, stamp_ns: int, now_ns: int) -> None:
        """Compare a stamp with the node clock; far apart, errors say what to set."""
        distance_s = (now_ns - stamp_ns) / 1e9
        self.clock_hint = ''
        if abs(distance_s) > _CLOCK_DISTANCE_S:
            self.clock_hint = (
                f' (stamps of local maps are {distance_s:.0f} s behind the node clock; set '
                'use_sim_time to true for a replay, to false without one)'
            )

    def note_map(self, parts: MapBuilderParts, revision: int) -> None:
        """Take the numbers of a map that was just published."""
        fused = parts.fused
        self.revision, self._changed_s = revision, time.monotonic()
        self.map_values = {
            'elements': fused.num_elements,
            'candidates': fused.num_candidates,
            'vertices': fused.num_vertices,
            'tiles_in_memory': fused.num_tiles,
            'tiles_on_disk': fused.num_tiles_on_disk,
        }

    def statuses(self, parts: MapBuilderParts | None) -> list[Status]:
        """Return every status.

        Args:
            parts: of the node; None while it is not configured.
        """
        if self.failure:
            return [Status('local maps', ERROR, self.failure, self._counters())]
        if parts is None:
            return [Status('local maps', STALE, 'not configured', self._counters())]
        return [
            self._local_maps(),
            self._pose(parts),
            self._map(parts),
            Status('calibration', OK, parts.calibration, {}),
        ]

    def _counters(self) -> dict[str, object]:
        """Return the account, of maps instead of sets."""
        values = {
            key.replace('sets_', 'maps_').replace('mapped', 'fused'): value
            for key, value in self._account.values().items()
            if key != 'sets_partial'
        }
        return {
            **values,
            'elements_refused': self.num_refused_elements,
            'last_error': self.map_error,
        }

    def _local_maps(self) -> Status:
        values = self._counters()
        dropped, fused = int(str(values['maps_dropped'])), self._account.num_mapped
        new_dropped, new_fused = dropped - self._last_dropped, fused - self._last_fused
        self._last_dropped, self._last_fused = dropped, fused
        text = f'{fused} of {self._account.num_received} local maps fused, {dropped} dropped'
        if self._account.num_received == 0:
            return Status('local maps', STALE, f'no local map yet{self.clock_hint}', values)
        if new_dropped and not new_fused:
            return Status('local maps', ERROR, f'{text}; {self.map_error}', values)
        return Status('local maps', WARN if new_dropped else OK, text, values)

    def _pose(self, parts: MapBuilderParts) -> Status:
        values = {
            'source': parts.transforms.implementation,
            'fixed_frame': parts.pose.fixed_frame,
            'last_error': parts.pose.last_error,
        }
        if parts.pose.last_error:
            text = f'{parts.pose.last_error}{self.clock_hint}'
            return Status('pose', ERROR, text, values)
        if not parts.pose.fixed_frame:
            return Status('pose', STALE, 'no pose asked for yet', values)
        return Status('pose', OK, f"ego pose in '{parts.pose.fixed_frame}'", values)

    def _map(self, parts: MapBuilderParts) -> Status:
        age = '' if self._changed_s is None else f'{time.monotonic() - self._changed_s:.1f}'
        values = {
            **self.map_values,
            'revision': self.revision,
            'submaps': self.num_submaps,
            'last_change_s': age,
            'directory': str(parts.directory),
        }
        if self.disk_error:
            return Status('map', ERROR, self.disk_error, values)
        text = f'{self.map_values.get("elements", 0)} elements in memory, revision {self.revision}'
        return Status('map', OK if self.map_values else STALE, text, values)
