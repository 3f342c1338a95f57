"""Scores where vehicles hide much and where they hide little, of the same predictions.

A memory can only help where something is hidden; over all frames what it costs elsewhere is mixed
into what it brings there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gsmap_core.cli.benchmark_prepare import drives_of
from gsmap_core.errors import DataError
from gsmap_core.evaluation.chamfer import chamfer_average_precision
from gsmap_core.evaluation.comparison import Column
from gsmap_core.structures import VectorMap
from gsmap_core.training.benchmark_dataset import DrivePart

#: Thirds of the frames, by the share of the line length in view that vehicles hide.
THIRDS = ('least', 'middle', 'most')


@lru_cache(maxsize=4)
def hidden_shares(part: DrivePart) -> dict[str, tuple[float, ...]]:
    """Return by drive what vehicles hide in every frame; nothing is rendered.

    Args:
        part: synthetic drives.

    Returns:
        Name of the drive -> share of the line length that the cameras would see without vehicles,
        by frame in the order of time.
    """
    from gsmap_core.data.synthetic.recording import SyntheticRecording
    from gsmap_core.data.synthetic.visibility import measure_visibility

    return {
        spec.name: measure_visibility(SyntheticRecording(spec)).hidden_by_frame
        for spec in drives_of(part)
    }


def score_by_occlusion(
    pairs: Sequence[tuple[VectorMap, VectorMap]], part: DrivePart
) -> dict[str, dict[str, Any]]:
    """Score predictions apart where vehicles hide little, more and most.

    Args:
        pairs: prediction and ground truth of every frame of the drives, each drive in the order
            of time.
        part: the drives.

    Returns:
        For each of `THIRDS`: `hidden`, its least and greatest share, `frames`, `chamfer_map` and
        `per_category`.

    Raises:
        DataError: the frames are not those of the drives.
    """
    shares = hidden_shares(part)
    seen = dict.fromkeys(shares, 0)
    hidden = []
    for _, truth in pairs:
        drive = truth.scene
        if drive not in seen or seen[drive] >= len(shares[drive]):
            raise DataError(
                f"frame '{truth.sample_id}' of drive '{drive}' is none of the test drives' "
                f'({len(shares)} drives, {sum(map(len, shares.values()))} frames); map them again'
            )
        hidden.append(shares[drive][seen[drive]])
        seen[drive] += 1
    order = np.argsort(hidden, kind='stable')
    result = {}
    for name, chosen in zip(THIRDS, np.array_split(order, len(THIRDS)), strict=True):
        predictions, truths = zip(*(pairs[index] for index in chosen), strict=True)
        found = chamfer_average_precision(predictions, truths)
        result[name] = {
            'hidden': [round(hidden[chosen[0]], 3), round(hidden[chosen[-1]], 3)],
            'frames': len(chosen),
            'chamfer_map': found.mean_ap,
            'per_category': found.per_category,
        }
    return result


def occlusion_columns(records: Sequence[dict[str, Any]]) -> list[Column]:
    """Return the columns of a report: one per third, titled by what is hidden there."""
    found = next((record['by_occlusion'] for record in records if 'by_occlusion' in record), None)
    if found is None:
        return []
    return [
        Column(
            f'chamfer mAP {100 * low:.0f}-{100 * high:.0f} % hidden',
            ('by_occlusion', name, 'chamfer_map'),
        )
        for name, (low, high) in ((name, found[name]['hidden']) for name in THIRDS)
    ]
