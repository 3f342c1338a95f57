"""Perception boxes: the oriented rectangle a vehicle maps around each pose, and their overlaps.

Everything is planar: a box turns with the heading and ignores roll and pitch. Areas are exact and
computed for many pairs of boxes at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

from gsmap_core.structures import FloatArray, PerceptionRange


def planar_boxes(map_from_base: npt.ArrayLike, extent: PerceptionRange) -> FloatArray:
    """Return centre and heading of the perception boxes of poses.

    Args:
        map_from_base: (N, 4, 4) ego poses.
        extent: what is perceived, ego frame [m]; it need not be centred on the vehicle.

    Returns:
        (N, 3): x, y of the centre in the map frame [m] and heading [rad].

    Source: MapGCLR, geospatial multi-traversal analysis.
    """
    poses = np.asarray(map_from_base, dtype=np.float64).reshape(-1, 4, 4)
    yaw = np.arctan2(poses[:, 1, 0], poses[:, 0, 0])
    along = 0.5 * (extent.x_min + extent.x_max)
    across = 0.5 * (extent.y_min + extent.y_max)
    x = poses[:, 0, 3] + along * np.cos(yaw) - across * np.sin(yaw)
    y = poses[:, 1, 3] + along * np.sin(yaw) + across * np.cos(yaw)
    return np.stack([x, y, yaw], axis=-1)


def half_sizes(extent: PerceptionRange) -> tuple[float, float]:
    """Return half the length (along the heading) and half the width of a box [m]."""
    return 0.5 * (extent.x_max - extent.x_min), 0.5 * (extent.y_max - extent.y_min)


def box_corners(boxes: npt.ArrayLike, extent: PerceptionRange) -> FloatArray:
    """Return the (N, 4, 2) corners of boxes (N, 3), counter-clockwise from front left [m]."""
    boxes = np.asarray(boxes, dtype=np.float64)
    length, width = half_sizes(extent)
    return _corners(boxes[:, 0], boxes[:, 1], boxes[:, 2], length, width)


def drive_polygon(boxes: npt.ArrayLike, extent: PerceptionRange) -> shapely.Geometry:
    """Return the union of a drive's boxes (N, 3): a polygon, or several; map frame [m]."""
    return shapely.union_all(shapely.polygons(box_corners(boxes, extent)))


def box_iou(first: npt.ArrayLike, second: npt.ArrayLike, extent: PerceptionRange) -> FloatArray:
    """Return the intersection over union of boxes, pair by pair.

    Args:
        first: (K, 3) centre x, y [m] and heading [rad].
        second: (K, 3), the other box of each pair, in the same frame.
        extent: size of every box.

    Returns:
        (K,) in [0, 1].
    """
    shared = intersection_areas(first, second, extent)
    return _ratio(shared, extent)


def iou_bound(first: npt.ArrayLike, second: npt.ArrayLike, extent: PerceptionRange) -> FloatArray:
    """Return an upper bound of `box_iou` that costs a fraction of it; same arguments.

    It is the exact value where the two headings are parallel.
    """
    length, width = half_sizes(extent)
    x, y, turn = _relative(np.asarray(first, np.float64), np.asarray(second, np.float64))
    cosine, sine = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    reach_x, reach_y = cosine * length + sine * width, sine * length + cosine * width
    bound = _overlap(x, length, reach_x) * _overlap(y, width, reach_y)
    # The first box seen from the second: the same shift, turned back.
    back_x = x * np.cos(turn) + y * np.sin(turn)
    back_y = y * np.cos(turn) - x * np.sin(turn)
    other = _overlap(back_x, length, reach_x) * _overlap(back_y, width, reach_y)
    return _ratio(np.minimum(bound, other), extent)


def intersection_areas(
    first: npt.ArrayLike, second: npt.ArrayLike, extent: PerceptionRange
) -> FloatArray:
    """Return the exact area shared by two boxes of each pair [m^2]; arguments as `box_iou`.

    In the frame of the first box, which is an axis-parallel rectangle there, the area is the
    integral over x of what the other box's section covers of its width: the sum over the four
    edges of the integral of the edge's y, limited to that width. Unlike clipping one polygon by
    the other it needs no cases, and edges that coincide do no harm.
    """
    length, width = half_sizes(extent)
    relative = _relative(np.asarray(first, np.float64), np.asarray(second, np.float64))
    start = _corners(*relative, length, width)
    end = np.roll(start, -1, axis=1)
    from_x, to_x = (np.clip(points[..., 0], -length, length) for points in (start, end))
    step = end - start
    from_y = start[..., 1] + _share(from_x - start[..., 0], step[..., 0]) * step[..., 1]
    to_y = start[..., 1] + _share(to_x - start[..., 0], step[..., 0]) * step[..., 1]
    # Counter-clockwise: the lower edges run to the right and the upper ones back.
    areas = np.sum((from_x - to_x) * _mean_limited(from_y, to_y, width), axis=-1)
    return np.asarray(np.maximum(areas, 0.0))


def _mean_limited(first: FloatArray, last: FloatArray, limit: float) -> FloatArray:
    """Return the mean of a quantity that runs linearly between two values, cut at +-limit."""
    step = last - first
    low, high = _share(-limit - first, step), _share(limit - first, step)
    enter, leave = np.minimum(low, high), np.maximum(low, high)
    values = [np.clip(first + share * step, -limit, limit) for share in (0.0, enter, leave, 1.0)]
    shares = (enter, leave - enter, 1.0 - leave)
    pieces = zip(shares, values[:-1], values[1:], strict=True)
    return np.asarray(sum(0.5 * share * (before + after) for share, before, after in pieces))


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return part / whole limited to [0, 1]; 0 where the whole is 0."""
    ratio = np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0)
    return np.asarray(np.clip(ratio, 0.0, 1.0))


def _overlap(shift: FloatArray, half: float, other_half: FloatArray) -> FloatArray:
    """Return the length shared by [-half, half] and an interval around `shift`."""
    shared = np.minimum(half, shift + other_half) - np.maximum(-half, shift - other_half)
    return np.asarray(np.maximum(shared, 0.0))


def _ratio(shared: FloatArray, extent: PerceptionRange) -> FloatArray:
    length, width = half_sizes(extent)
    return np.asarray(shared / (8.0 * length * width - shared))


def _relative(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return x, y [m] and heading [rad] of the second box in the frame of the first."""
    # Differences first: map coordinates are large, the distances are not.
    x, y, turn = np.moveaxis(second - first, -1, 0)
    cosine, sine = np.cos(first[..., 2]), np.sin(first[..., 2])
    return cosine * x + sine * y, cosine * y - sine * x, turn


def _corners(
    x: FloatArray, y: FloatArray, yaw: FloatArray, length: float, width: float
) -> FloatArray:
    cosine, sine = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    along = length * np.array([1.0, -1.0, -1.0, 1.0])
    across = width * np.array([1.0, 1.0, -1.0, -1.0])
    return np.stack(
        [
            x[:, None] + cosine * along - sine * across,
            y[:, None] + sine * along + cosine * across,
        ],
        axis=-1,
    )
