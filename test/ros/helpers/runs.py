"""Runs the nodes as processes over DDS and reads what they published."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gsmap_core.cli.node_processes import NodeGroup, NodeProcess
from gsmap_core.data.bag import BagReader

MAP_TOPIC = '/mapping/local_map'
MARKER_TOPIC = '/mapping/local_map_markers'
DIAGNOSTICS_TOPIC = '/diagnostics'
_PATIENCE_S = 60.0
_WATCH_S = 5.0


@dataclass
class Run:
    """What came out of one run.

    Args:
        bag: recording of the mapping node's topics.
        exit_codes: of the processes, by node.
        logs: text, by node.
    """

    bag: BagReader
    exit_codes: dict[str, int]
    logs: dict[str, str]

    def messages(self, topic: str) -> list[Any]:
        """Return the recorded messages of a topic."""
        return [
            self.bag.deserialise(raw.data, topic)
            for raw in self.bag.messages([topic] if topic in self.bag.topics else [])
        ]

    @property
    def maps(self) -> list[Any]:
        """The recorded local maps."""
        return self.messages(MAP_TOPIC)

    @property
    def map_stamps_ns(self) -> list[int]:
        """Stamps of the local maps [ns]."""
        return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in self.maps]

    def diagnostics(self) -> list[dict[str, tuple[int, str, dict[str, str]]]]:
        """Return every array of the mapping node: level, text and values by status."""
        return self._statuses

    @cached_property
    def _statuses(self) -> list[dict[str, tuple[int, str, dict[str, str]]]]:
        return [
            {
                status.name.removeprefix('mapping: '): (
                    int(status.level),
                    status.message,
                    {item.key: item.value for item in status.values},
                )
                for status in array.status
            }
            for array in self.messages(DIAGNOSTICS_TOPIC)
        ]

    @property
    def counters(self) -> dict[str, str]:
        """Values of the last status of the camera sets."""
        return self.diagnostics()[-1]['camera sets'][2]

    def dropped(self) -> dict[str, int]:
        """Return the dropped sets by reason."""
        prefix = 'sets_dropped.'
        return {k[len(prefix) :]: int(v) for k, v in self.counters.items() if k.startswith(prefix)}

    def check_account(self) -> None:
        """Every set that arrived was mapped or dropped, and every mapped one was recorded.

        Discovery takes a moment: a map may leave before the recorder is connected. The node counts
        those that nobody could hear.
        """
        counters = self.counters
        assert int(counters['sets_in_flight']) == 0
        mapped = int(counters['sets_mapped'])
        assert int(counters['sets_received']) == mapped + sum(self.dropped().values())
        assert int(counters['sets_dropped']) == sum(self.dropped().values())
        unheard = int(self.diagnostics()[-1]['output'][2]['maps_unheard'])
        assert len(self.map_stamps_ns) == mapped - unheard


def run_nodes(
    folder: Path,
    environment: Mapping[str, str],
    bag: Path,
    mapping: Mapping[str, Any],
    replay: Mapping[str, Any] | None = None,
    replay_s: float | None = None,
    watch: Callable[[dict[str, int]], None] | None = None,
) -> Run:
    """Replay a bag into the mapping node and record its output, each in a process of its own.

    Args:
        folder: for logs and the recording.
        environment: of the processes.
        bag: what is played.
        mapping: parameters of the mapping node.
        replay: parameters of the replay node beside the bag.
        replay_s: end the replay after that time [s]; None: let it play to its end.
        watch: called every few seconds of those with the process ids by node.
    """
    recorded = folder / 'recorded.mcap'
    with NodeGroup() as group:
        recorder = group.start(
            NodeProcess(
                'record',
                {'output': str(recorded), 'topics': [MAP_TOPIC, MARKER_TOPIC, DIAGNOSTICS_TOPIC]},
                environment,
                folder,
            )
        )
        base = {'use_sim_time': True, 'image_reliability': 'reliable', 'score_threshold': 0.0}
        mapper = group.start(NodeProcess('mapping', {**base, **mapping}, environment, folder))
        player = group.start(
            NodeProcess(
                'replay',
                {
                    'bag': str(bag),
                    'wait_for_node': 'mapping',
                    'wait_timeout_s': _PATIENCE_S,
                    **(replay or {}),
                },
                environment,
                folder,
            )
        )
        if replay_s is None:
            group.wait_for_end(player, 2 * _PATIENCE_S)
        else:
            _wait_for_log(player, 'playing', 2 * _PATIENCE_S)
            pids = {node.node: node.pid for node in (player, mapper, recorder)}
            end_s = time.monotonic() + replay_s
            while (left_s := end_s - time.monotonic()) > 0:
                time.sleep(min(left_s, _WATCH_S))
                group.check()
                if watch is not None:
                    watch(pids)
        codes = {node.node: node.stop() for node in (player, mapper, recorder)}
        logs = {node.node: node.log_text() for node in (player, mapper, recorder)}
    return Run(BagReader(recorded), codes, logs)


def _wait_for_log(process: NodeProcess, text: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while text not in process.log_text():
        assert process.exit_code is None, process.log_tail()
        assert time.monotonic() < deadline, process.log_tail()
        time.sleep(0.05)
