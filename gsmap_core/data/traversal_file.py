"""Traversal files (`*.traversals.json`): pairs of frames and label splits, of any dataset.

What training with a contrastive loss reads: drives by name, pairs by the numbers of their frames,
who is labelled, who validates. No poses and no paths; those are the drives' own.

`{"version": 1, "range": {"x": [-30, 30], "y": [-15, 15]}, "iou": [0.2, 0.8], "min_overlap_m2":
100, "drives": [{"name": "...", "place": "...", "num_frames": 40, "last_frame": 39, "stamps_ns":
[first, last], "overlaps": ["..."]}], "pairs": [{"reference": "...", "adjacent": "...", "frames":
[[reference frame, adjacent frame, IoU], ...]}], "splits": {"seed": 0, "val_share": 0.3,
"unlabelled": ["..."], "ratios": [{"percent": 2.5, "labelled": ["..."], "validation": ["..."]}]}}`;
`splits` is null where there are too few single-traversal drives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.atomic_files import atomic_text_file
from gsmap_core.data.json_files import read_json_object
from gsmap_core.data.traversal_splits import LabelSplit, LabelSplits
from gsmap_core.data.traversals import (
    IOU_TOLERANCE,
    PosePairs,
    TraversalConfig,
    TraversedDrive,
)
from gsmap_core.errors import DataError, GsmapError
from gsmap_core.structures import PerceptionRange

FORMAT_VERSION = 1
_FORMAT = 'a traversal file (*.traversals.json)'
#: An IoU is written with this many decimals.
_IOU_DECIMALS = 6


@dataclass(frozen=True)
class TraversalPlan:
    """What a traversal file holds.

    Args:
        config: limits of the analysis.
        drives: sorted by name.
        pairs: pairs of frames; their drives are indices into `drives`.
        splits: label splits, or None where they could not be made.
    """

    config: TraversalConfig
    drives: tuple[TraversedDrive, ...]
    pairs: PosePairs
    splits: LabelSplits | None = None


def write_traversal_file(path: str | os.PathLike[str], plan: TraversalPlan) -> None:
    """Write a plan; the file appears under its name, replacing an older one, when complete."""
    extent = plan.config.extent
    header = {
        'version': FORMAT_VERSION,
        'range': {'x': [extent.x_min, extent.x_max], 'y': [extent.y_min, extent.y_max]},
        'iou': [plan.config.min_iou, plan.config.max_iou],
        'min_overlap_m2': plan.config.min_overlap_m2,
        'splits': None if plan.splits is None else _splits_to_json(plan.splits),
    }
    with atomic_text_file(path) as stream:
        stream.write(json.dumps(header)[:-1] + ',\n"drives": [')
        for number, drive in enumerate(plan.drives):
            stream.write((',\n' if number else '\n') + json.dumps(_drive_to_json(drive)))
        stream.write('\n],\n"pairs": [')
        pairs = plan.pairs
        key = pairs.reference_drive * len(plan.drives) + pairs.adjacent_drive
        starts = np.flatnonzero(np.diff(key, prepend=-1))
        for part in map(slice, starts, [*starts[1:], len(pairs)]):
            rows = zip(
                pairs.reference_frame[part].tolist(),
                pairs.adjacent_frame[part].tolist(),
                np.round(pairs.iou[part], _IOU_DECIMALS).tolist(),
                strict=True,
            )
            entry = {
                'reference': plan.drives[pairs.reference_drive[part.start]].name,
                'adjacent': plan.drives[pairs.adjacent_drive[part.start]].name,
                'frames': list(rows),
            }
            stream.write((',\n' if part.start else '\n') + json.dumps(entry))
        stream.write('\n]}\n')


def read_traversal_file(path: str | os.PathLike[str]) -> TraversalPlan:
    """Read a plan.

    Raises:
        DataError: the file is missing, truncated, of another version, or contradicts itself: an
            unknown drive, a frame that a drive does not have, a pair within one drive, an IoU
            outside the limits, a labelled or validating drive that is multi-traversal or both.
    """
    where = str(path)
    document = read_json_object(Path(path), FORMAT_VERSION, _FORMAT)
    try:
        extent, (low, high) = document['range'], document['iou']
        config = TraversalConfig(
            PerceptionRange(*map(float, [*extent['x'], *extent['y']])),
            float(low),
            float(high),
            float(document['min_overlap_m2']),
        )
        drives = tuple(_drive_from_json(entry) for entry in document['drives'])
        index = {drive.name: number for number, drive in enumerate(drives)}
        if len(index) < len(drives):
            raise DataError('two drives have one name; expected each once')
        unknown = sorted({name for drive in drives for name in drive.overlaps} - set(index))
        if unknown:
            raise DataError(f"overlaps: no drive '{unknown[0]}' in the file")
        pairs = _pairs_from_json(document['pairs'], drives, index, config)
        splits = document['splits']
        label_splits = None if splits is None else _splits_from_json(splits, drives, index)
    except KeyError as error:
        raise DataError(f'{where}: key {error} is missing; expected {_FORMAT}') from error
    except GsmapError as error:
        raise DataError(f'{where}: {error}') from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(f'{where}: {error}; expected {_FORMAT}') from error
    return TraversalPlan(config, drives, pairs, label_splits)


def _drive_to_json(drive: TraversedDrive) -> dict[str, Any]:
    return {
        'name': drive.name,
        'place': drive.place,
        'num_frames': drive.num_frames,
        'last_frame': drive.last_frame,
        'stamps_ns': [drive.first_stamp_ns, drive.last_stamp_ns],
        'overlaps': list(drive.overlaps),
    }


def _drive_from_json(entry: Mapping[str, Any]) -> TraversedDrive:
    first, last = entry['stamps_ns']
    return TraversedDrive(
        name=str(entry['name']),
        place=str(entry['place']),
        num_frames=int(entry['num_frames']),
        last_frame=int(entry['last_frame']),
        first_stamp_ns=int(first),
        last_stamp_ns=int(last),
        overlaps=tuple(map(str, entry['overlaps'])),
    )


def _pairs_from_json(
    entries: Any,
    drives: tuple[TraversedDrive, ...],
    index: Mapping[str, int],
    config: TraversalConfig,
) -> PosePairs:
    rows = [np.zeros((0, 3))]
    of_drives: list[tuple[int, int, int]] = []
    overlaps = {drive.name: frozenset(drive.overlaps) for drive in drives}
    slack = IOU_TOLERANCE + 0.5 * 10**-_IOU_DECIMALS
    for entry in entries:
        first, second = str(entry['reference']), str(entry['adjacent'])
        where = f"pairs of '{first}' and '{second}'"
        for name in (first, second):
            if name not in index:
                raise DataError(f"{where}: no drive '{name}' in the file")
        if first == second or second not in overlaps[first]:
            raise DataError(f'{where}: expected two drives that overlap')
        table = np.array(entry['frames'], dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != 3 or not np.isfinite(table).all():
            raise DataError(f'{where}: expected [[reference frame, adjacent frame, IoU], ...]')
        for column, name in enumerate((first, second)):
            frames, last = table[:, column], drives[index[name]].last_frame
            wrong = frames[(frames < 0) | (frames > last) | (frames != np.floor(frames))]
            if len(wrong):
                raise DataError(
                    f"{where}: drive '{name}' has no frame {wrong[0]:g}; expected 0 to {last}"
                )
        iou = table[:, 2]
        outside = iou[(iou < config.min_iou - slack) | (iou > config.max_iou + slack)]
        if len(outside):
            raise DataError(
                f'{where}: an IoU is {outside[0]:g}; expected {config.min_iou:g} to '
                f'{config.max_iou:g}'
            )
        rows.append(table)
        of_drives.append((index[first], index[second], len(table)))
    table = np.concatenate(rows)
    numbers = np.array(of_drives, dtype=np.int64).reshape(-1, 3)
    return PosePairs(
        reference_drive=np.repeat(numbers[:, 0], numbers[:, 2]),
        reference_frame=table[:, 0].astype(np.int64),
        adjacent_drive=np.repeat(numbers[:, 1], numbers[:, 2]),
        adjacent_frame=table[:, 1].astype(np.int64),
        iou=table[:, 2],
    )


def _splits_to_json(splits: LabelSplits) -> dict[str, Any]:
    return {
        'seed': splits.seed,
        'val_share': splits.val_share,
        'unlabelled': list(splits.unlabelled),
        'ratios': [
            {
                'percent': split.ratio_percent,
                'labelled': list(split.labelled),
                'validation': list(split.validation),
            }
            for split in splits.splits
        ],
    }


def _splits_from_json(
    entry: Mapping[str, Any], drives: tuple[TraversedDrive, ...], index: Mapping[str, int]
) -> LabelSplits:
    splits = tuple(
        LabelSplit(
            ratio_percent=float(item['percent']),
            labelled=tuple(map(str, item['labelled'])),
            validation=tuple(map(str, item['validation'])),
        )
        for item in entry['ratios']
    )
    unlabelled = tuple(map(str, entry['unlabelled']))
    parts = [('unlabelled', unlabelled, True)]
    for split in splits:
        label = f'{split.ratio_percent:g} %'
        parts += [(f'labelled at {label}', split.labelled, False)]
        parts += [(f'validation at {label}', split.validation, False)]
        both = sorted(set(split.labelled) & set(split.validation))
        if both:
            raise DataError(f"splits: '{both[0]}' is labelled and validates at {label}")
    for label, names, is_multi in parts:
        for name in names:
            if name not in index:
                raise DataError(f"splits: {label}: no drive '{name}' in the file")
            if drives[index[name]].is_multi_traversal != is_multi:
                kind = 'multi' if is_multi else 'single'
                raise DataError(f"splits: {label}: '{name}' is not {kind}-traversal")
    share = entry['val_share']
    return LabelSplits(
        int(entry['seed']), None if share is None else float(share), unlabelled, splits
    )
