"""A split computed from poses whose training and validation drives share no ground.

Drives whose areas overlap form clusters, and a cluster goes to one part as a whole. Where a city
is one large cluster, a corner of it becomes validation, and the drives that lie across the cut are
left out of both parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse.csgraph import connected_components

from gsmap_core.data.splits import DriveArea, Split
from gsmap_core.errors import ConfigError
from gsmap_core.structures import FloatArray

#: Areas that share less than this do not count as overlapping [m^2].
TOUCH_M2 = 1.0
#: Where at most this share of the wanted validation frames is lacking, no cluster is cut.
_ENOUGH = 0.25
#: Corners of a cluster that are tried as the place to begin a cut.
_MAX_STARTS = 32


def geographic_split(areas: Sequence[DriveArea], val_share: float = 0.18) -> Split:
    """Divide drives so that no ground of a validation drive is seen in training.

    Every place gives about the same share of its frames to validation. The result depends on the
    drives alone, not on their order.

    Args:
        areas: what the drives perceive.
        val_share: share of the frames wanted for validation; nuScenes has 0.18.

    Returns:
        The split; `left_out` are drives across a cut.

    Raises:
        ConfigError: the share is not between 0 and 1.
    """
    if not 0.0 < val_share < 1.0:
        raise ConfigError(f'validation share {val_share}; expected a number between 0 and 1')
    ordered = sorted(areas, key=lambda drive: drive.name)
    frames = np.array([drive.num_frames for drive in ordered])
    role = np.full(len(ordered), 'train', dtype='<U8')
    whole: list[npt.NDArray[np.int64]] = []
    for place in sorted({drive.place for drive in ordered}):
        here = np.array([i for i, drive in enumerate(ordered) if drive.place == place])
        role[here], uncut = _split_place([ordered[index] for index in here], val_share)
        whole += [here[cluster] for cluster in uncut]
    _fill_up(role, frames, whole, val_share)
    names = np.array([drive.name for drive in ordered], dtype=object)
    parts = {part: tuple(names[role == part]) for part in ('train', 'val', 'left_out')}
    return Split('geographic', **parts)


def overlap_graph(areas: Sequence[DriveArea]) -> FloatArray:
    """Return the (D, D) areas that drives share, all of one place; 0 on the diagonal [m^2]."""
    shapes = np.array([drive.area for drive in areas], dtype=object)
    one, other = shapely.STRtree(shapes).query(shapes, predicate='intersects')
    is_pair = one < other
    one, other = one[is_pair], other[is_pair]
    shared = np.zeros((len(areas), len(areas)))
    shared[one, other] = shapely.area(shapely.intersection(shapes[one], shapes[other]))
    shared[shared < TOUCH_M2] = 0.0
    return np.asarray(shared + shared.T)


def _split_place(
    drives: Sequence[DriveArea], val_share: float
) -> tuple[npt.NDArray[np.str_], list[npt.NDArray[np.int64]]]:
    """Return the part of each drive of a place, and the clusters that are for training whole."""
    frames = np.array([drive.num_frames for drive in drives])
    shared = overlap_graph(drives)
    role = np.full(len(drives), 'train', dtype='<U8')
    lacking = wanted = val_share * frames.sum()
    uncut = []
    for cluster in sorted(_clusters(shared), key=lambda c: (-frames[c].sum(), c[0])):
        if frames[cluster].sum() <= lacking:
            role[cluster] = 'val'
            lacking -= frames[cluster].sum()
        else:
            uncut.append(cluster)
    if lacking > _ENOUGH * wanted and uncut and len(uncut[0]) > 2:
        largest = uncut.pop(0)
        chosen, across = _cut(shared[np.ix_(largest, largest)], frames[largest], lacking)
        role[largest[chosen]] = 'val'
        role[largest[across]] = 'left_out'
    return role, uncut


def _fill_up(
    role: npt.NDArray[np.str_],
    frames: npt.NDArray[np.int64],
    whole: list[npt.NDArray[np.int64]],
    val_share: float,
) -> None:
    """Give further whole clusters to validation while that brings it nearer to its share.

    Places with few drives have no cluster small enough for a share of their own.
    """
    while whole:
        lacking = val_share * frames.sum() - frames[role == 'val'].sum()
        sizes = np.array([frames[cluster].sum() for cluster in whole])
        nearest = int(np.argmin(np.abs(lacking - sizes)))
        rest = frames[role == 'train'].sum() - sizes[nearest]
        if abs(lacking - sizes[nearest]) >= lacking or rest <= 0:
            return
        role[whole.pop(nearest)] = 'val'


def _clusters(shared: FloatArray) -> list[npt.NDArray[np.int64]]:
    count, labels = connected_components(shared > 0.0, directed=False)
    return [np.flatnonzero(labels == label) for label in range(count)]


def _cut(
    shared: FloatArray, frames: npt.NDArray[np.int64], wanted: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Grow a validation part inside a cluster and leave out what it shares ground with.

    Of all drives tried as a beginning, the one counts that leaves out the fewest frames for the
    frames it wins.

    Returns:
        Which drives are chosen, and which lie across the cut.
    """
    # Drives at the rim share little with others; a cut is short there.
    starts = np.argsort(shared.sum(axis=1), kind='stable')[:_MAX_STARTS]
    best = None
    for start in starts:
        chosen = _grow(shared, frames, int(start), wanted)
        across = ~chosen & (shared[chosen] > 0.0).any(axis=0)
        kept = frames[~chosen & ~across].sum()
        won = frames[chosen].sum()
        # A split without training frames is none; short of what was wanted is a loss as well.
        loss = frames[across].sum() + abs(wanted - won)
        if kept and (best is None or loss < best[0]):
            best = (loss, chosen, across)
    if best is None:
        nothing = np.zeros(len(frames), dtype=bool)
        return nothing, nothing
    return best[1], best[2]


def _grow(
    shared: FloatArray, frames: npt.NDArray[np.int64], start: int, wanted: float
) -> npt.NDArray[np.bool_]:
    """Add, to a first drive, the neighbour that shares most with the chosen, least with others."""
    chosen = np.zeros(len(frames), dtype=bool)
    chosen[start] = True
    total = shared.sum(axis=1)
    inside = shared[start].copy()
    while True:
        gain = np.where(~chosen & (inside > 0.0), 2.0 * inside - total, -np.inf)
        fits = frames[chosen].sum() + frames <= wanted
        gain[~fits] = -np.inf
        following = int(np.argmax(gain))
        if not np.isfinite(gain[following]):
            return chosen
        chosen[following] = True
        inside += shared[following]
