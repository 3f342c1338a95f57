"""Groups the images of a recording into camera sets by their stamps, all stamps known.

For files only: the live node decides with what has arrived so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Stamps = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CameraSet:
    """The images of one moment.

    Args:
        stamp_ns: stamp of the reference camera's image, or of the first camera that has one [ns].
        indices: for each camera the number of its image among the stamps given, None: missing.
    """

    stamp_ns: int
    indices: tuple[int | None, ...]


def build_camera_sets(stamps: list[Stamps], tolerance_ns: int) -> list[CameraSet]:
    """Group images into sets around the images of the reference camera.

    Each image joins the reference image it is nearest to, counted from the camera's usual offset
    (cameras fire one after the other), and of several the nearest is taken: no image is in two
    sets. Where the reference camera misses an image, the others still form a set.

    Args:
        stamps: per camera the (n,) stamps [ns], in any order; the first camera with images is the
            reference.
        tolerance_ns: greatest distance to the set's stamp [ns].

    Returns:
        The sets by time; every one has at least one image.
    """
    reference = next((c for c, values in enumerate(stamps) if len(values)), None)
    if reference is None:
        return []
    orders = [np.argsort(values, kind='stable') for values in stamps]
    ordered = [values[order] for values, order in zip(stamps, orders, strict=True)]
    anchors = np.unique(ordered[reference])
    period = float(np.median(np.diff(anchors))) if len(anchors) > 1 else np.inf
    offsets = [_usual_offset(values, anchors, tolerance_ns) for values in ordered]
    anchors = _with_gaps_filled(anchors, ordered, offsets, reference, period, tolerance_ns)
    members: list[dict[int, int]] = [{} for _ in anchors]
    for camera, values in enumerate(ordered):
        if not len(values):
            continue
        nearest = _nearest(anchors, values - offsets[camera])
        distance = np.abs(values - offsets[camera] - anchors[nearest])
        for index in np.argsort(distance, kind='stable'):
            anchor = int(nearest[index])
            if abs(int(values[index]) - int(anchors[anchor])) <= tolerance_ns:
                members[anchor].setdefault(camera, int(index))
    sets = []
    for found in members:
        if not found:
            continue
        first = min(found)
        sets.append(
            CameraSet(
                stamp_ns=int(ordered[first][found[first]]),
                indices=tuple(
                    int(orders[camera][found[camera]]) if camera in found else None
                    for camera in range(len(stamps))
                ),
            )
        )
    return sorted(sets, key=lambda item: item.stamp_ns)


def _nearest(anchors: Stamps, values: Stamps) -> npt.NDArray[np.int64]:
    after = np.clip(np.searchsorted(anchors, values), 0, len(anchors) - 1)
    before = np.maximum(after - 1, 0)
    is_before = np.abs(values - anchors[before]) <= np.abs(anchors[after] - values)
    return np.where(is_before, before, after)


def _usual_offset(values: Stamps, anchors: Stamps, tolerance_ns: int) -> int:
    """Return the median distance of a camera's images to the nearest reference image [ns]."""
    if not len(values):
        return 0
    distance = values - anchors[_nearest(anchors, values)]
    near = distance[np.abs(distance) <= tolerance_ns]
    return int(np.median(near)) if len(near) else 0


def _with_gaps_filled(
    anchors: Stamps,
    ordered: list[Stamps],
    offsets: list[int],
    reference: int,
    period: float,
    tolerance_ns: int,
) -> Stamps:
    """Add a moment wherever other cameras delivered and the reference camera did not."""
    # More than half a period away from every reference image, an image belongs to none of them.
    apart = 0.6 * period if np.isfinite(period) else float(tolerance_ns)
    lost: list[int] = []
    for camera, values in enumerate(ordered):
        if camera == reference or not len(values):
            continue
        aligned = values - offsets[camera]
        distance = np.abs(aligned - anchors[_nearest(anchors, aligned)])
        lost += aligned[distance > apart].tolist()
    added: list[int] = []
    for stamp in sorted(lost):
        if not added or stamp - added[-1] > apart:
            added.append(stamp)
    return np.unique(np.concatenate([anchors, np.array(added, dtype=np.int64)]))
