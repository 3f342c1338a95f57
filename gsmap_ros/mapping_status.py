"""What the mapping node says about itself: its state in the form of diagnostic statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gsmap_ros.camera_sync import SyncCounters
from gsmap_ros.diagnostics import ERROR, OK, STALE, SetAccount, Status
from gsmap_ros.stage_times import StageTimes
from gsmap_ros.worker_status import WorkerStatus

if TYPE_CHECKING:
    from gsmap_core.mapping.tracked import TrackedPredictor
    from gsmap_core.runtime.predictor import Predictor
    from gsmap_ros.mapping_parts import MappingParts


class MappingStatus(WorkerStatus):
    """Collects what happens and turns it into statuses.

    Args:
        account: of the camera sets.
    """

    def __init__(self, account: SetAccount) -> None:
        super().__init__(account, 'image stamps')
        self.stages = StageTimes()
        self.set_error = ''
        self.last_spread_ns = 0

    def statuses(self, parts: MappingParts | None, pending_reset: str = '') -> list[Status]:
        """Return every status.

        Args:
            parts: of the node; None while it is not configured.
            pending_reset: why the memory will be dropped before the next set.
        """
        if self.failure:
            return [Status('camera sets', ERROR, self.failure, self._account.values())]
        if parts is None:
            return [Status('camera sets', STALE, 'not configured', self._account.values())]
        return [
            *parts.inputs.statuses(parts.builder),
            self._sets(parts.sync.counters),
            self._poses(parts.pose, parts.pose.description),
            self._inference(parts.info),
            self.stages.status(),
            memory_status(parts.mapper, parts.predictor, pending_reset),
            parts.output.status(),
            Status('weights', OK, parts.info.get('model', ''), parts.info),
        ]

    def _sets(self, counters: SyncCounters) -> Status:
        values: dict[str, object] = {
            **self._account.values(),
            'sync_complete': counters.complete,
            'sync_partial': counters.partial,
            'images_late': sum(counters.late.values()),
            'images_out_of_order': sum(counters.out_of_order.values()),
            'images_duplicate': sum(counters.duplicate.values()),
            'images_without_stamp': sum(counters.invalid_stamp.values()),
            'clock_jumps': counters.resets,
            'spread_ms': f'{self.last_spread_ns / 1e6:.1f}',
            'last_error': self.set_error,
        }
        return self._work('camera sets', 'camera set', 'sets mapped', self.set_error, values)

    def _inference(self, info: dict[str, str]) -> Status:
        values = self._account.values()
        shown = {
            key: values.get(key, '') for key in ('rate_hz', 'latency_p50_ms', 'latency_p95_ms')
        }
        shown |= {key: info.get(key, '') for key in ('device', 'precision', 'torch')}
        if not self._account.num_mapped:
            return Status('inference', STALE, 'no set mapped yet', shown)
        text = f'{shown["rate_hz"]} maps a second, {shown["latency_p50_ms"]} ms at the median'
        return Status('inference', OK, text, shown)


def memory_status(mapper: TrackedPredictor, predictor: Predictor, pending_reset: str) -> Status:
    """Say what is remembered between sets, and when it was last dropped and why.

    Args:
        mapper: gives the ids.
        predictor: has the memory.
        pending_reset: why it will be dropped before the next set; empty: it will not.
    """
    stream, config = predictor.stream_status, predictor.config
    memory = 'bev_history' if config.bev.history else config.fusion.kind
    stamp_ns = stream.last_reset_stamp_ns
    values: dict[str, object] = {
        'memory': memory,
        'frames': stream.num_frames,
        'key_frames': stream.num_key_frames,
        'travelled_m': f'{stream.travelled_m:.1f}',
        'resets': stream.num_resets,
        'last_reset': stream.last_reset_reason,
        'last_reset_stamp_s': '' if stamp_ns is None else f'{stamp_ns / 1e9:.3f}',
        'pending_reset': pending_reset,
        'ids': 'on' if mapper.is_tracked else 'off',
        'ids_given': mapper.tracker.num_ids,
        'elements_followed': mapper.tracker.num_tracks,
    }
    text = 'every set is mapped alone'
    if predictor.is_temporal:
        text = (
            f'{stream.num_frames} frames, {stream.num_key_frames} key frames, '
            f'{stream.travelled_m:.1f} m'
        )
    if stream.num_resets:
        text += f'; reset {stream.num_resets} times, last: {stream.last_reset_reason}'
    return Status('memory', OK, text, values)
