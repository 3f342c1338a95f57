"""What became of every camera set of a demo, and how good the recorded maps are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.categories import PAPER_CATEGORIES
from gsmap_core.data.bag import BagDrive, BagReader, move_local_map, read_local_maps
from gsmap_core.errors import DataError
from gsmap_core.evaluation.chamfer import chamfer_average_precision
from gsmap_core.evaluation.flicker import FlickerEvaluator
from gsmap_core.evaluation.lateral import plain
from gsmap_core.geometry.transforms import invert
from gsmap_core.structures import VectorMap

DIAGNOSTICS_TOPIC = '/diagnostics'
#: Sets that were played but never came together at the mapping node.
NOT_RECEIVED = 'not_received'
#: Maps that the node published and the recorder did not get.
NOT_RECORDED = 'not_recorded'


@dataclass(frozen=True)
class Account:
    """Where every camera set of the drive went.

    Args:
        frames_published: camera sets in the bag that was played.
        frames_mapped: recorded maps.
        sets_dropped: number of sets per reason.
        latency_ms: `p50` and `p95` from the closing of a set to its published map, by the node.
        rate_hz: maps per second of wall time, by the node.

    Raises:
        DataError: the numbers do not add up.
    """

    frames_published: int
    frames_mapped: int
    sets_dropped: dict[str, int] = field(default_factory=dict)
    latency_ms: dict[str, float | None] = field(default_factory=dict)
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        """Add up."""
        dropped = sum(self.sets_dropped.values())
        if (
            min(self.sets_dropped.values(), default=0) < 0
            or self.frames_published != self.frames_mapped + dropped
        ):
            raise DataError(
                f'{self.frames_published} camera sets were published, but {self.frames_mapped} '
                f'maps were recorded and {self.sets_dropped} sets dropped; expected every set once'
            )


def node_counters(reader: BagReader) -> dict[str, str]:
    """Return the mapping node's last counters from a recording of its diagnostics.

    Raises:
        DataError: the recording holds none.
    """
    counters: dict[str, str] = {}
    if DIAGNOSTICS_TOPIC in reader.topics:
        for raw in reader.messages([DIAGNOSTICS_TOPIC]):
            for status in reader.deserialise(raw.data, DIAGNOSTICS_TOPIC).status:
                values = {item.key: item.value for item in status.values}
                if 'sets_received' in values:
                    counters = values
    if not counters:
        raise DataError(
            f"'{reader.path}' holds no counters of the mapping node on {DIAGNOSTICS_TOPIC}; "
            'the node may not have become active: see its log'
        )
    return counters


def account(recorded: Path, topic: str, frames_published: int, num_recorded: int) -> Account:
    """Account for every set: played -> received by the node -> mapped or dropped -> recorded.

    Args:
        recorded: recording of the node's diagnostics.
        topic: topic of the maps, for messages.
        frames_published: camera sets in the played bag.
        num_recorded: maps in the recording.

    Raises:
        DataError: the numbers do not add up, or a set is still in flight.
    """
    counters = node_counters(BagReader(recorded))
    in_flight = int(counters.get('sets_in_flight', 0))
    if in_flight:
        raise DataError(
            f"'{recorded}': {in_flight} camera sets were still being mapped when {topic} ended; "
            'replay more slowly (--rate 0.5)'
        )
    prefix = 'sets_dropped.'
    dropped = {key[len(prefix) :]: int(v) for key, v in counters.items() if key.startswith(prefix)}
    dropped[NOT_RECEIVED] = frames_published - int(counters['sets_received'])
    dropped[NOT_RECORDED] = int(counters['sets_mapped']) - num_recorded
    return Account(
        frames_published=frames_published,
        frames_mapped=num_recorded,
        sets_dropped={reason: count for reason, count in dropped.items() if count},
        latency_ms={
            'p50': _number(counters.get('latency_p50_ms')),
            'p95': _number(counters.get('latency_p95_ms')),
        },
        rate_hz=_number(counters.get('rate_hz')),
    )


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


@dataclass(frozen=True)
class Score:
    """Quality of the maps of one drive.

    Args:
        chamfer_map: mean average precision, fraction.
        per_category: average precision per category, fraction.
        flicker_per_frame: births, deaths and id changes per frame among elements whose ground
            truth stays in range; None: no two frames with poses.
        found: share of those elements that were found, fraction; None: there were none.
    """

    chamfer_map: float
    per_category: dict[str, float]
    flicker_per_frame: float | None = None
    found: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as the summary has them."""
        return {
            'chamfer_map': round(self.chamfer_map, 4),
            'per_category': {name: round(value, 4) for name, value in self.per_category.items()},
            'flicker_per_frame': _rounded(self.flicker_per_frame),
            'found': _rounded(self.found),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def pair_with_sets(
    drive: BagDrive, maps: Sequence[VectorMap], tolerance_ns: int = 100_000_000
) -> dict[int, VectorMap]:
    """Assign recorded maps to the camera sets of the played drive.

    A map whose stamp differs from its set's is moved by the ego motion in between.

    Args:
        drive: the played bag.
        maps: the node's output.
        tolerance_ns: greatest distance of the stamps [ns].

    Returns:
        Map per index of the camera set, in the ego frame at the set's stamp.

    Raises:
        DataError: a map belongs to no set, or two to the same.
    """
    stamps = np.array([drive.stamp_ns(index) for index in range(len(drive))], dtype=np.int64)
    result: dict[int, VectorMap] = {}
    for item in maps:
        distances = np.abs(stamps - item.stamp_ns)
        index = int(distances.argmin()) if len(stamps) else -1
        if index < 0 or distances[index] > tolerance_ns or index in result:
            raise DataError(
                f'recorded map at {item.stamp_ns} ns belongs to no camera set of '
                f"'{drive.path}' that has no map yet; expected one map per set"
            )
        stamp_ns = int(stamps[index])
        pose = drive.map_from_base(stamp_ns)
        if item.stamp_ns != stamp_ns:
            pose_then = drive.map_from_base(item.stamp_ns)
            if pose is not None and pose_then is not None:
                item = move_local_map(item, invert(pose) @ pose_then)
        result[index] = replace(
            item,
            stamp_ns=stamp_ns,
            map_from_base=pose,
            sample_id=drive.sample_id(index),
            scene=drive.name,
        )
    return result


def score(drive: BagDrive, maps: dict[int, VectorMap]) -> Score | None:
    """Score recorded maps against the drive's ground truth; None where it has none.

    Every set with ground truth counts: one without a map counts as a map without elements. Flicker
    is that from map to map: a set without one makes no element vanish, its marker stays.

    Args:
        drive: the played bag.
        maps: from `pair_with_sets`.
    """
    truths, predictions, flicker = [], [], FlickerEvaluator()
    for index in range(len(drive)):
        truth = drive.ground_truth(index)
        if truth is None:
            continue
        empty = replace(truth, elements=())
        truths.append(truth)
        predictions.append(maps.get(index, empty))
        if index in maps:
            flicker.add(maps[index], truth)
    if not truths:
        return None
    result = chamfer_average_precision(predictions, truths, PAPER_CATEGORIES)
    steadiness = flicker.result()
    return Score(
        float(result.mean_ap),
        {k: float(v) for k, v in result.per_category.items()},
        plain(steadiness.flicker_per_frame),
        plain(steadiness.found_overall),
    )


def read_recorded_maps(recorded: Path, topic: str) -> list[VectorMap]:
    """Return the node's maps in a recording; empty where it published none.

    Raises:
        DataError: the recording is not readable.
    """
    if topic not in BagReader(recorded).topics:
        return []
    return read_local_maps(recorded, topic)
