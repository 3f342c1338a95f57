"""Which drives pass the same streets: single- and multi-traversal drives, and the pairs of poses.

Works on pose tables alone. Splits for training with few labels are made in `traversal_splits`,
files in `traversal_file`, reports in `traversal_report`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely

from gsmap_core.data.perception_boxes import (
    box_corners,
    box_iou,
    drive_polygon,
    iou_bound,
    planar_boxes,
)
from gsmap_core.data.pose_tables import PoseTable
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.structures import FloatArray, PerceptionRange

IndexArray = npt.NDArray[np.int64]
#: IoU limits are inclusive; rounding must not decide.
IOU_TOLERANCE = 1e-9
#: Boxes whose neighbours are looked up at once: bounds the memory where all drives meet.
_CHUNK_BOXES = 512
#: Pairs of boxes whose IoU is computed at once.
_CHUNK_PAIRS = 100_000


@dataclass(frozen=True)
class TraversalConfig:
    """What counts as passing the same place.

    Args:
        extent: perception box of a pose, ego frame [m].
        min_iou: least IoU of the boxes of a pair of poses, inclusive, above 0.
        max_iou: greatest IoU, inclusive: more alike than this, a pair teaches little.
        min_overlap_m2: two drives overlap if their polygons share at least this area [m^2].

    Raises:
        ConfigError: a limit is not allowed.

    Source: MapGCLR, geospatial multi-traversal analysis. The numbers are this project's.
    """

    extent: PerceptionRange = field(default_factory=PerceptionRange)
    min_iou: float = 0.2
    max_iou: float = 0.8
    min_overlap_m2: float = 100.0

    def __post_init__(self) -> None:
        """Validate."""
        if not 0 < self.min_iou <= self.max_iou <= 1:
            raise ConfigError(
                f'traversals: IoU limits are {self.min_iou:g} and {self.max_iou:g}; expected '
                '0 < minimum <= maximum <= 1'
            )
        if not 0 <= self.min_overlap_m2 < np.inf:
            raise ConfigError(
                f'traversals: min_overlap_m2 = {self.min_overlap_m2:g}; expected 0 or more'
            )


@dataclass(frozen=True)
class TraversedDrive:
    """What an analysis says about one drive.

    Args:
        name: of the drive.
        place: city or town; empty: none stated.
        num_frames: frames looked at.
        last_frame: greatest number of a frame looked at.
        first_stamp_ns: of the first frame looked at [ns].
        last_stamp_ns: of the last frame looked at [ns].
        overlaps: names of the drives whose polygon overlaps that of this one, sorted.
    """

    name: str
    place: str
    num_frames: int
    last_frame: int
    first_stamp_ns: int
    last_stamp_ns: int
    overlaps: tuple[str, ...] = ()

    @property
    def is_multi_traversal(self) -> bool:
        """Whether another drive passes here too."""
        return bool(self.overlaps)


@dataclass(frozen=True)
class PosePairs:
    """Edges of the graph of poses, each once: E pairs of frames of different drives.

    The reference is the frame of the drive whose name comes first. Pairs are sorted by reference
    drive, adjacent drive, reference frame, adjacent frame.

    Args:
        reference_drive: (E,) int64 index of the drive.
        reference_frame: (E,) int64 number of the frame in its drive.
        adjacent_drive: (E,) int64.
        adjacent_frame: (E,) int64.
        iou: (E,) float64 of the perception boxes.
    """

    reference_drive: IndexArray
    reference_frame: IndexArray
    adjacent_drive: IndexArray
    adjacent_frame: IndexArray
    iou: FloatArray

    def __len__(self) -> int:
        """Return the number of pairs E."""
        return len(self.iou)


@dataclass(frozen=True)
class TraversalAnalysis:
    """Everything found about a set of drives, sorted by name.

    Args:
        config: what was looked for.
        tables: D pose tables.
        drives: D summaries.
        polygons: D unions of perception boxes, in the frame of the drive's place [m].
        overlaps: (O, 2) int64 indices of the drives that overlap, first < second.
        overlap_m2: (O,) area shared by their polygons [m^2].
        pairs: edges of the graph of poses.
    """

    config: TraversalConfig
    tables: tuple[PoseTable, ...]
    drives: tuple[TraversedDrive, ...]
    polygons: tuple[shapely.Geometry, ...]
    overlaps: IndexArray
    overlap_m2: FloatArray
    pairs: PosePairs


def analyse_traversals(
    tables: Sequence[PoseTable], config: TraversalConfig | None = None
) -> TraversalAnalysis:
    """Find which drives pass the same streets, and the pairs of poses that see the same place.

    A drive is multi-traversal if its polygon, the union of its perception boxes, overlaps that of
    another drive at the same place. Poses of different drives are a pair if the IoU of their boxes
    lies within the limits; pairs exist between overlapping drives only. The order of the tables
    does not matter.

    Args:
        tables: one per drive.
        config: limits; None: the defaults.

    Raises:
        DataError: there is no table, or two have the same name.

    Source: MapGCLR, geospatial multi-traversal analysis and spatial graph.
    """
    config = config or TraversalConfig()
    ordered = tuple(sorted(tables, key=lambda table: table.name))
    if not ordered:
        raise DataError('no drive to analyse; expected at least one pose table')
    for before, after in zip(ordered[:-1], ordered[1:], strict=True):
        if before.name == after.name:
            raise DataError(
                f"two drives are called '{after.name}'; pairs and splits are told by name: rename "
                'one, or give it once'
            )
    boxes = [planar_boxes(table.map_from_base, config.extent) for table in ordered]
    polygons = tuple(drive_polygon(item, config.extent) for item in boxes)
    places = [table.place for table in ordered]
    overlaps, areas = overlapping_drives(polygons, places, config.min_overlap_m2)
    neighbours: list[list[str]] = [[] for _ in ordered]
    for first, second in overlaps.tolist():
        neighbours[first].append(ordered[second].name)
        neighbours[second].append(ordered[first].name)
    drives = tuple(
        TraversedDrive(
            name=table.name,
            place=table.place,
            num_frames=len(table),
            last_frame=int(table.frames[-1]),
            first_stamp_ns=int(table.stamps_ns[0]),
            last_stamp_ns=int(table.stamps_ns[-1]),
            overlaps=tuple(sorted(names)),
        )
        for table, names in zip(ordered, neighbours, strict=True)
    )
    pairs = _pose_pairs(ordered, boxes, overlaps, config)
    return TraversalAnalysis(config, ordered, drives, polygons, overlaps, areas, pairs)


def overlapping_drives(
    polygons: Sequence[shapely.Geometry], places: Sequence[str], min_overlap_m2: float
) -> tuple[IndexArray, FloatArray]:
    """Find the drives at one place whose polygons share at least an area.

    Args:
        polygons: D polygons.
        places: D names of places.
        min_overlap_m2: see `TraversalConfig`; with 0 it is enough to touch.

    Returns:
        (O, 2) int64 indices, first < second, sorted; and the (O,) shared areas [m^2].
    """
    geometries = np.array(polygons, dtype=object)
    found: list[IndexArray] = [np.zeros((0, 2), dtype=np.int64)]
    for members in _members(places):
        here = geometries[members]
        shapely.prepare(here)
        first, second = shapely.STRtree(here).query(here, predicate='intersects')
        once = first < second
        found.append(np.stack([members[first[once]], members[second[once]]], axis=-1))
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    shared = shapely.intersection(geometries[pairs[:, 0]], geometries[pairs[:, 1]])
    areas = np.asarray(shapely.area(shared), dtype=np.float64)
    enough = areas >= min_overlap_m2
    return pairs[enough], areas[enough]


def _members(places: Sequence[str]) -> list[IndexArray]:
    """Return the indices of the drives of each place."""
    names = np.array(places, dtype=object)
    return [np.flatnonzero(names == place) for place in sorted(set(places))]


def _pose_pairs(
    tables: Sequence[PoseTable],
    boxes: Sequence[FloatArray],
    overlaps: IndexArray,
    config: TraversalConfig,
) -> PosePairs:
    """Return the pairs of poses of overlapping drives whose IoU lies within the limits."""
    frames = np.concatenate([table.frames for table in tables])
    drive_of = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    every = np.concatenate(boxes)
    keys = overlaps[:, 0] * len(tables) + overlaps[:, 1]
    is_met = np.isin(np.arange(len(tables)), overlaps)
    rows: list[tuple[IndexArray, IndexArray, FloatArray]] = []
    for members in _members([table.place for table in tables]):
        poses = np.flatnonzero(np.isin(drive_of, members[is_met[members]]))
        for first, second in _near_pairs(every, drive_of, poses, keys, len(tables), config):
            iou = box_iou(every[first], every[second], config.extent)
            kept = iou >= config.min_iou - IOU_TOLERANCE
            kept &= iou <= config.max_iou + IOU_TOLERANCE
            rows.append((first[kept], second[kept], iou[kept]))
    none = np.zeros(0, dtype=np.int64)
    columns = zip(*rows, strict=True) if rows else ((none,), (none,), (np.zeros(0),))
    first, second, iou = (np.concatenate(column) for column in columns)
    # Poses are numbered drive by drive, so that this sorts as `PosePairs` says.
    order = np.lexsort((second, first, drive_of[second], drive_of[first]))
    first, second = first[order], second[order]
    return PosePairs(drive_of[first], frames[first], drive_of[second], frames[second], iou[order])


def _near_pairs(
    boxes: FloatArray,
    drive_of: IndexArray,
    poses: IndexArray,
    overlap_keys: IndexArray,
    num_drives: int,
    config: TraversalConfig,
) -> Iterator[tuple[IndexArray, IndexArray]]:
    """Yield indices (K,), (K,) of boxes that may reach the least IoU, first < second.

    The index finds boxes whose bounding rectangles meet; pairs of drives that do not overlap and
    pairs that cannot reach the limit are sorted out before the exact computation.
    """
    polygons = shapely.polygons(box_corners(boxes[poses], config.extent))
    tree = shapely.STRtree(polygons)
    for start in range(0, len(poses), _CHUNK_BOXES):
        rows, columns = tree.query(polygons[start : start + _CHUNK_BOXES])
        first, second = poses[rows + start], poses[columns]
        later = drive_of[first] < drive_of[second]
        first, second = first[later], second[later]
        keys = drive_of[first] * num_drives + drive_of[second]
        places = np.searchsorted(overlap_keys, keys)
        places = np.minimum(places, len(overlap_keys) - 1)
        allowed = overlap_keys[places] == keys
        first, second = first[allowed], second[allowed]
        for begin in range(0, len(first), _CHUNK_PAIRS):
            part = slice(begin, begin + _CHUNK_PAIRS)
            bound = iou_bound(boxes[first[part]], boxes[second[part]], config.extent)
            possible = bound >= config.min_iou - IOU_TOLERANCE
            yield first[part][possible], second[part][possible]
