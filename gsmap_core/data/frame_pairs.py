"""Pairs of frames that see the same place, for the contrastive loss; drives that have none.

Pairs come from the traversal analysis (`traversals`); here they are arranged for drawing, and
drives that cannot be paired are told apart with numbers that say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from gsmap_core.contrastive_config import PairConfig
from gsmap_core.data.perception_boxes import box_corners, box_iou, planar_boxes
from gsmap_core.data.pose_tables import PosedDrive, PoseTable, pose_table_of
from gsmap_core.data.traversals import (
    IOU_TOLERANCE,
    IndexArray,
    TraversalAnalysis,
    TraversalConfig,
    analyse_traversals,
)
from gsmap_core.errors import DataError, GsmapError
from gsmap_core.structures import PerceptionRange

#: Drives that an error describes one by one.
_MAX_NAMED = 5


@dataclass(frozen=True)
class FramePairs:
    """The frames that have partners: F frames, E pairs.

    Args:
        analysis: of the drives, sorted by name.
        drive: (F,) int64 number of the frame's drive in `analysis.tables`.
        row: (F,) int64 row of the frame in its drive's table.
        edges: (E, 2) int64 pairs, as numbers of frames (0 to F - 1), each once.
        lonely: names of the drives without any pair.
    """

    analysis: TraversalAnalysis
    drive: IndexArray
    row: IndexArray
    edges: IndexArray
    lonely: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of frames F."""
        return len(self.drive)

    def partners(self) -> tuple[IndexArray, IndexArray]:
        """Return (F + 1,) where each frame's partners start, and the (2 E,) partners."""
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        counts = np.bincount(both[:, 0], minlength=len(self))
        return np.concatenate([[0], np.cumsum(counts)]), both[:, 1]

    def summary(self) -> str:
        """Say what there is, for people."""
        return (
            f'{len(self.edges)} pairs of {len(self)} frames, '
            f'{len(self.analysis.tables) - len(self.lonely)} of {len(self.analysis.tables)} '
            f'drives, {len(self.analysis.overlaps)} pairs of drives overlap'
        )


def pose_tables_of(drives: Sequence[PosedDrive]) -> list[PoseTable]:
    """Read the poses of unlabelled drives.

    Raises:
        DataError: some have no poses, or poses in an odometry frame only; all of them are named.
    """
    tables, problems = [], []
    for drive in drives:
        try:
            tables.append(pose_table_of(drive))
        except GsmapError as error:
            problems.append(str(error))
    if problems:
        rest = '' if len(problems) <= _MAX_NAMED else f'; and {len(problems) - _MAX_NAMED} more'
        raise DataError(
            f'{len(problems)} of {len(drives)} unlabelled drives cannot be compared with others: '
            f'{"; ".join(problems[:_MAX_NAMED])}{rest}'
        )
    return tables


def find_frame_pairs(
    tables: Sequence[PoseTable], config: PairConfig, extent: PerceptionRange
) -> FramePairs:
    """Find the pairs of frames of drives.

    Args:
        tables: poses, one table per drive; names are unique.
        config: what counts as a pair.
        extent: of a grid, in the frame of the poses [m].

    Raises:
        DataError: there is no pair, or a drive is in none and `config.lonely` is `error`; the
            message holds what each of them shares with its nearest neighbour.
    """
    limits = TraversalConfig(extent, config.min_iou, config.max_iou)
    analysis = analyse_traversals([table.thinned(config.frame_stride) for table in tables], limits)
    starts = np.cumsum([0, *(len(table) for table in analysis.tables)])
    pairs = analysis.pairs
    edges = [
        np.stack(
            [
                _places(analysis, starts, pairs.reference_drive, pairs.reference_frame),
                _places(analysis, starts, pairs.adjacent_drive, pairs.adjacent_frame),
            ],
            axis=-1,
        )
    ]
    if config.same_drive_gap_s is not None:
        edges += [
            start + _pairs_within(table, limits, config.same_drive_gap_s)
            for start, table in zip(starts[:-1], analysis.tables, strict=True)
        ]
    all_edges = np.concatenate(edges)
    used = np.unique(all_edges)
    drive = np.searchsorted(starts, used, side='right') - 1
    lonely = [number for number in range(len(tables)) if number not in set(drive.tolist())]
    if lonely and (config.lonely == 'error' or not len(used)):
        raise DataError(_why_lonely(analysis, lonely, len(all_edges)))
    return FramePairs(
        analysis=analysis,
        drive=drive,
        row=used - starts[drive],
        edges=np.searchsorted(used, all_edges),
        lonely=tuple(analysis.tables[number].name for number in lonely),
    )


def _places(
    analysis: TraversalAnalysis, starts: IndexArray, drives: IndexArray, frames: IndexArray
) -> IndexArray:
    """Return where frames stand when the rows of all tables are counted through."""
    base = 1 + max(drive.last_frame for drive in analysis.drives)
    keys = np.concatenate(
        [number * base + table.frames for number, table in enumerate(analysis.tables)]
    )
    assert len(keys) == starts[-1]
    return np.searchsorted(keys, drives * base + frames)


def _pairs_within(table: PoseTable, limits: TraversalConfig, gap_s: float) -> IndexArray:
    """Return (E, 2) rows of one drive that see the same place at least a time apart."""
    boxes = planar_boxes(table.map_from_base, limits.extent)
    polygons = shapely.polygons(box_corners(boxes, limits.extent))
    first, second = shapely.STRtree(polygons).query(polygons)
    apart = (table.stamps_ns[second] - table.stamps_ns[first]) >= gap_s * 1e9
    first, second = first[apart], second[apart]
    iou = box_iou(boxes[first], boxes[second], limits.extent)
    kept = (iou >= limits.min_iou - IOU_TOLERANCE) & (iou <= limits.max_iou + IOU_TOLERANCE)
    rows = np.stack([first[kept], second[kept]], axis=-1).astype(np.int64)
    return rows[np.lexsort((rows[:, 1], rows[:, 0]))]


def _why_lonely(analysis: TraversalAnalysis, lonely: Sequence[int], num_pairs: int) -> str:
    """Say which drives have no pair, and why, in numbers."""
    reasons = [_reason(analysis, number) for number in lonely[:_MAX_NAMED]]
    if len(lonely) > _MAX_NAMED:
        reasons.append(f'and {len(lonely) - _MAX_NAMED} more')
    extent, config = analysis.config.extent, analysis.config
    size = f'{extent.length_x_m:g} x {extent.length_y_m:g} m'
    leave_out = '' if num_pairs == 0 else ', or leave these out with contrastive.pairs.lonely=skip'
    return (
        f'{len(lonely)} of {len(analysis.tables)} unlabelled drives have no frame that sees the '
        f'same place as one of another drive ({num_pairs} pairs among the rest): '
        f'{"; ".join(reasons)}. Expected drives past the same streets: boxes of {size} around '
        f'their poses that share {config.min_overlap_m2:g} m2, and frames whose boxes have an IoU '
        f'of {config.min_iou:g} to {config.max_iou:g}; give such drives{leave_out}'
    )


def _reason(analysis: TraversalAnalysis, number: int) -> str:
    """Say what keeps one drive from being paired."""
    table, polygons = analysis.tables[number], analysis.polygons
    name = f"'{table.name}'"
    others = [i for i in range(len(analysis.tables)) if i != number]
    if not others:
        return f'{name} is the only drive'
    here = [i for i in others if analysis.tables[i].place == table.place]
    if not here:
        places = sorted({analysis.tables[i].place or '(not stated)' for i in others})
        mine = f"'{table.place}'" if table.place else '(not stated)'
        return f'{name} is alone in its city frame {mine}, the others are in {", ".join(places)}'
    shared = [float(polygons[number].intersection(polygons[i]).area) for i in here]
    best = int(np.argmax(shared))
    if shared[best] == 0:
        gaps = [float(polygons[number].distance(polygons[i])) for i in here]
        nearest = analysis.tables[here[int(np.argmin(gaps))]].name
        return f"{name} is {min(gaps):.0f} m from the area of the nearest, '{nearest}'"
    other = analysis.tables[here[best]]
    reason = f"{name} shares {shared[best]:.0f} m2 with '{other.name}'"
    if shared[best] < analysis.config.min_overlap_m2:
        return reason
    return f'{reason}, where the largest IoU of two frames is {_largest_iou(analysis, table):.2f}'


def _largest_iou(analysis: TraversalAnalysis, table: PoseTable) -> float:
    """Return the largest IoU of a frame of one drive with a frame of any other at its place."""
    extent, largest = analysis.config.extent, 0.0
    boxes = planar_boxes(table.map_from_base, extent)
    for other in analysis.tables:
        if other is table or other.place != table.place:
            continue
        theirs = planar_boxes(other.map_from_base, extent)
        for box in boxes:
            iou = box_iou(np.broadcast_to(box, theirs.shape), theirs, extent)
            largest = max(largest, float(iou.max()))
    return largest
