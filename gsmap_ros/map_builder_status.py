"""What the map builder says about itself: its state in the form of diagnostic statuses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gsmap_ros.diagnostics import ERROR, OK, STALE, SetAccount, Status
from gsmap_ros.worker_status import WorkerStatus

if TYPE_CHECKING:
    from gsmap_ros.map_builder_parts import MapBuilderParts


class MapBuilderStatus(WorkerStatus):
    """Collects what happens and turns it into statuses.

    Args:
        account: of the local maps.
    """

    def __init__(self, account: SetAccount) -> None:
        super().__init__(account, 'stamps of local maps')
        self._changed_s: float | None = None
        self.map_error = ''
        self.disk_error = ''
        self.num_submaps = 1
        self.num_refused_elements = 0
        self.revision = 0
        #: Numbers of the map when it was last looked at.
        self.map_values: dict[str, object] = {}

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
            self._poses(parts.pose, parts.transforms.implementation),
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
        return self._work('local maps', 'local map', 'local maps fused', self.map_error, values)

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
