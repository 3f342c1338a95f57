"""Which element of a local map is which element of the maps before: ids that stay.

Elements are matched in the map frame, along the parts that both frames could see. The tracker
knows nothing of models: anything that gives local maps with poses can be tracked.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from gsmap_core.errors import ConfigError, DataError
from gsmap_core.mapping.placed_lines import IntArray, PlacedLines, mismatch
from gsmap_core.structures import FloatArray, VectorMap

_LOGGER = logging.getLogger(__name__)
BoolArray = npt.NDArray[np.bool_]
#: Ids are those of markers as well, which have 31 bits.
MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class IdentityConfig:
    """When an element is one that was seen before.

    Args:
        max_distance_m: two lines differ as much as they can where they are that far apart [m];
            less than a lane is wide.
        max_mismatch: greatest difference of an element from itself, as a share of what two lines
            can differ by (see `mismatch`); 0.75 lets an element move by 1.5 m as a whole.
        max_missed_frames: frames that an element may be missing and still keep its id.
        confident_score: elements from this score on are matched first, and only what once had it
            may be missing for a while. The many doubtful elements beside them (a model gives as
            many as it has queries) share what is left.
        num_points: points by which lines are compared.

    Raises:
        ConfigError: a value is out of its range.
    """

    max_distance_m: float = 2.0
    max_mismatch: float = 0.75
    max_missed_frames: int = 5
    confident_score: float = 0.4
    num_points: int = 12

    def __post_init__(self) -> None:
        """Validate the ranges."""
        for name, low, high in (
            ('max_distance_m', 0.01, 100.0),
            ('max_mismatch', 0.0, 1.0),
            ('max_missed_frames', 0, 1000),
            ('confident_score', 0.0, 1.0),
            ('num_points', 4, 200),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f'identity {name} {value}; expected {low:g} to {high:g}')


@dataclass(frozen=True)
class _Tracks:
    """Elements that have an id, as they were when they were last seen.

    Args:
        lines: T lines.
        ids: (T,) identity.
        missed: (T,) maps since they were seen.
        is_confident: (T,) whether their score was confident.
        was_confident: (T,) whether it ever was.
    """

    lines: PlacedLines
    ids: IntArray
    missed: IntArray
    is_confident: BoolArray
    was_confident: BoolArray

    @classmethod
    def new(
        cls, lines: PlacedLines, ids: IntArray, is_confident: BoolArray, was_confident: BoolArray
    ) -> Self:
        """Return tracks that were seen in the newest map."""
        return cls(lines, ids, np.zeros_like(ids), is_confident, was_confident)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: IntArray) -> Self:
        """Return the tracks at some places."""
        arrays = [getattr(self, item.name)[places] for item in fields(self)[1:]]
        return type(self)(self.lines.take(places), *arrays)

    def joined(self, other: Self) -> Self:
        """Return these tracks and behind them those of `other`."""
        arrays = [
            np.concatenate([getattr(self, item.name), getattr(other, item.name)])
            for item in fields(self)[1:]
        ]
        return type(self)(self.lines.joined(other.lines), *arrays)


class IdentityTracker:
    """Gives the elements of consecutive local maps ids that stay.

    A map is compared with the elements that were seen in the last `max_missed_frames` + 1 maps, so
    that memory and time depend on the size of the maps and not on the length of the drive. Ids
    count from 1; none is given to two elements, not even after a reset (after 2^31 - 1 of them,
    months of driving, everything is forgotten and they begin again). The same maps always get the
    same ids.

    Args:
        config: limits of what is the same.
    """

    def __init__(self, config: IdentityConfig | None = None) -> None:
        self.config = IdentityConfig() if config is None else config
        self._last_id = 0
        self.reset()

    @property
    def num_ids(self) -> int:
        """Ids given so far."""
        return self._last_id

    @property
    def num_tracks(self) -> int:
        """Elements that can be found again, those of the newest map included."""
        return len(self._tracks)

    def reset(self) -> None:
        """Forget all elements (a new drive, a jump of time or place); ids go on counting."""
        none = np.zeros(0, dtype=np.bool_)
        lines = PlacedLines.empty(self.config.num_points)
        self._tracks = _Tracks.new(lines, np.zeros(0, dtype=np.intp), none, none)

    def update(self, local_map: VectorMap) -> VectorMap:
        """Return the next map with the id of every element set.

        Without a pose nothing can be found again: every element gets a new id, and loses it with
        the next map. The elements of the maps before then count as missing.

        Args:
            local_map: in the ego frame; ids that its elements have are replaced. Elements without
                a score are confident.

        Raises:
            DataError: the map is in another frame than the ego frame.
        """
        if local_map.reference != 'ego':
            raise DataError(
                f"map at {local_map.stamp_ns} ns is in the '{local_map.reference}' frame; "
                'expected the ego frame, which map_from_base moves'
            )
        if self._last_id > MAX_ID - len(local_map):
            _LOGGER.warning('%d ids were given; they begin again at 1', self._last_id)
            self._last_id = 0
            self.reset()
        if local_map.map_from_base is None or not len(local_map):
            self._age(np.zeros(0, dtype=np.intp))
            return _with_ids(local_map, self._new_ids(len(local_map)))
        lines = PlacedLines.of_map(local_map, self.config.num_points)
        scores = np.array([1.0 if e.score is None else e.score for e in local_map.elements])
        is_confident = scores >= self.config.confident_score
        track_of = self._match(lines, is_confident)
        is_known = track_of >= 0
        known = track_of[is_known]
        ids = np.zeros(len(lines), dtype=np.intp)
        ids[is_known] = self._tracks.ids[known]
        ids[~is_known] = self._new_ids(int((~is_known).sum()))
        was_confident = is_confident.copy()
        was_confident[is_known] |= self._tracks.was_confident[known]
        self._age(known)
        self._tracks = _Tracks.new(lines, ids, is_confident, was_confident).joined(self._tracks)
        return _with_ids(local_map, ids)

    def _new_ids(self, count: int) -> IntArray:
        first = self._last_id + 1
        self._last_id += count
        return np.arange(first, first + count, dtype=np.intp)

    def _match(self, lines: PlacedLines, is_confident: BoolArray) -> IntArray:
        """Return the track of each element, -1 for those that are new."""
        tracks = self._tracks
        cost = mismatch(lines, tracks.lines, self.config.max_distance_m)
        track_of = np.full(len(lines), -1, dtype=np.intp)
        is_free = np.ones(len(tracks), dtype=np.bool_)
        everything = np.ones(len(lines), dtype=np.bool_)
        # What is sure comes first: a doubtful double takes no identity from a confident element,
        # and one that has been missing takes none from the map before.
        for is_wanted, is_offered in (
            (is_confident, tracks.is_confident & (tracks.missed == 0)),
            (is_confident, tracks.was_confident),
            (everything, np.ones(len(tracks), dtype=np.bool_)),
        ):
            rows = np.flatnonzero(is_wanted & (track_of < 0))
            columns = np.flatnonzero(is_offered & is_free)
            pairs = assign(cost[np.ix_(rows, columns)], self.config.max_mismatch)
            track_of[rows[pairs[0]]] = columns[pairs[1]]
            is_free[columns[pairs[1]]] = False
        return track_of

    def _age(self, seen: IntArray) -> None:
        """Take out the tracks that were seen, and drop those that are missing for too long."""
        missed = self._tracks.missed + 1
        stays = self._tracks.was_confident & (missed <= self.config.max_missed_frames)
        stays[seen] = False
        self._tracks = replace(self._tracks, missed=missed).take(np.flatnonzero(stays))


def assign(cost: FloatArray, limit: float) -> tuple[IntArray, IntArray]:
    """Assign rows to columns so that the costs add up to the least; one left alone costs `limit`.

    Args:
        cost: (A, B).
        limit: pairs as dear as this, or dearer, are not allowed.

    Returns:
        Rows and columns of the pairs.
    """
    # Alone and not allowed have one price, so that no pair is made to the harm of a better one.
    rows, columns = linear_sum_assignment(np.minimum(cost, limit))
    is_pair = cost[rows, columns] < limit
    return rows[is_pair], columns[is_pair]


def _with_ids(local_map: VectorMap, ids: IntArray) -> VectorMap:
    elements = tuple(
        replace(element, id=number)
        for element, number in zip(local_map.elements, ids.tolist(), strict=True)
    )
    return replace(local_map, elements=elements)
