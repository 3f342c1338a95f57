"""Whether fusing has helped: a fused map and its single frames, both against the true map.

All are compared in the map frame, in pieces of at most 0.5 m. The distance is that of predicted
pieces to the nearest true line of their category, completeness the share of the true length in
view that has a predicted line of its category within the tolerance, correctness the share of the
predicted length that has a true one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import shapely

from gsmap_core.categories import PAPER_CATEGORIES, category_by_name
from gsmap_core.errors import DataError
from gsmap_core.evaluation.lateral import distances_to_lines, mean_of_known, plain, points_along
from gsmap_core.geometry.transforms import transform_points
from gsmap_core.structures import FloatArray, MapElement, VectorMap

#: Farther than this a piece has no line of its category; such pieces count with this distance [m].
MAX_DISTANCE_M = 5.0
#: A true line is found, and a predicted one right, within this distance [m].
TOLERANCE_M = 1.0


@dataclass(frozen=True)
class MapQuality:
    """Closeness of predicted lines to the true map; NaN where there is nothing to measure.

    Args:
        distance_m: mean distance of predicted pieces to the true line, at most `MAX_DISTANCE_M`
            each [m].
        completeness: share of the true length in view that was found.
        correctness: share of the predicted length that is right.
    """

    distance_m: float
    completeness: float
    correctness: float


@dataclass(frozen=True)
class FusionGain:
    """Quality of a fused map beside that of the frames it was made of.

    Args:
        fused: of the fused map.
        single: mean over the frames.
        per_category: both by category, fused first.
        num_frames: frames with something predicted.
        sigma_factor: what the sigmas of the fused vertices across their lines would have to be
            multiplied with so that 68.3 % of the errors lie within one of them; NaN without
            covariances. Vertices of wrong elements (beyond the tolerance) are left out.
    """

    fused: MapQuality
    single: MapQuality
    per_category: dict[str, tuple[MapQuality, MapQuality]]
    num_frames: int
    sigma_factor: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; null instead of NaN."""

        def values(quality: MapQuality) -> dict[str, float | None]:
            return {key: plain(value) for key, value in asdict(quality).items()}

        return {
            'tolerance_m': TOLERANCE_M,
            'max_distance_m': MAX_DISTANCE_M,
            'num_frames': self.num_frames,
            'fused': values(self.fused),
            'single': values(self.single),
            'sigma_factor': plain(self.sigma_factor),
            'per_category': {
                name: {'fused': values(fused), 'single': values(single)}
                for name, (fused, single) in self.per_category.items()
            },
        }


def fusion_gain(
    fused: VectorMap,
    frames: Sequence[VectorMap],
    truth: VectorMap,
    *,
    min_score: float,
    categories: Sequence[str] = PAPER_CATEGORIES,
) -> FusionGain:
    """Compare a fused map and its frames with the true map.

    Args:
        fused: in the map frame.
        frames: local maps in the ego frame with their poses.
        truth: the whole true map, in the map frame.
        min_score: elements of frames with a lower score are left out, as they were from fusing.
        categories: names of those that are looked at; the means are over them.

    Raises:
        DataError: a map is in another frame, or a frame has no pose.
    """
    for name, item in (('fused map', fused), ('true map', truth)):
        if item.reference != 'map':
            raise DataError(f"{name} is in the '{item.reference}' frame; expected 'map'")
    posed = [_in_map_frame(frame, min_score) for frame in frames]
    views = [_view_of(frame) for frame in frames]
    whole_view = shapely.unary_union(views) if views else shapely.Polygon()
    per_category: dict[str, tuple[MapQuality, MapQuality]] = {}
    for name in categories:
        number = category_by_name(name).id
        lines = [element.loop_xy() for element in truth.of_category(number)]
        together = _quality([e.loop_xy() for e in fused.of_category(number)], lines, whole_view)
        single = [
            _quality(predicted.get(number, []), lines, view)
            for predicted, view in zip(posed, views, strict=True)
        ]
        per_category[name] = together, _mean(single)
    return FusionGain(
        fused=_mean([pair[0] for pair in per_category.values()]),
        single=_mean([pair[1] for pair in per_category.values()]),
        per_category=per_category,
        num_frames=sum(bool(predicted) for predicted in posed),
        sigma_factor=_sigma_factor(fused, truth, categories),
    )


def _in_map_frame(frame: VectorMap, min_score: float) -> dict[int, list[FloatArray]]:
    """Return the lines of a local map by category, in the map frame [m]."""
    if frame.reference != 'ego' or frame.map_from_base is None:
        raise DataError(
            f'local map at {frame.stamp_ns} ns has no pose or is not in the ego frame; expected '
            'ego maps with map_from_base'
        )
    result: dict[int, list[FloatArray]] = {}
    for element in frame.elements:
        if element.score is None or element.score >= min_score:
            line = element.loop_xy()
            spatial = np.column_stack([line, np.zeros(len(line))])
            moved = transform_points(frame.map_from_base, spatial)[:, :2]
            result.setdefault(element.category, []).append(moved)
    return result


def _view_of(frame: VectorMap) -> shapely.Polygon:
    assert frame.map_from_base is not None
    area = frame.range
    corners = np.array(
        [
            [area.x_min, area.y_min, 0.0],
            [area.x_max, area.y_min, 0.0],
            [area.x_max, area.y_max, 0.0],
            [area.x_min, area.y_max, 0.0],
        ]
    )
    return shapely.Polygon(transform_points(frame.map_from_base, corners)[:, :2])


def _quality(
    predicted: Sequence[FloatArray], true: Sequence[FloatArray], view: shapely.Geometry
) -> MapQuality:
    """Measure the lines of one category; true ones count where they are in view."""
    places, weights = _pieces(predicted)
    # The true map may be a whole town: what is out of reach is left out first.
    corners = [np.array(view.bounds).reshape(2, 2)] if not view.is_empty else []
    true = _within_reach(true, np.concatenate([places, *corners]))
    wanted, lengths = _pieces(true)
    if len(wanted):
        inside = shapely.contains_xy(view, wanted)
        wanted, lengths = wanted[inside], lengths[inside]
    if len(places):
        # No true line of the category: as far off as anything can be.
        distances = np.minimum(distances_to_lines(places, true), MAX_DISTANCE_M)
        distance = float(np.average(distances, weights=weights))
        correctness = float(np.average(distances <= TOLERANCE_M, weights=weights))
    else:
        distance = correctness = float('nan')
    completeness = float('nan')
    if len(wanted):
        found = distances_to_lines(wanted, predicted) <= TOLERANCE_M
        completeness = float(np.average(found, weights=lengths))
    return MapQuality(distance, completeness, correctness)


def _within_reach(lines: Sequence[FloatArray], points: FloatArray) -> list[FloatArray]:
    """Return the stretches of lines that come near the bounding box of some points."""
    if not len(points):
        return list(lines)
    low, high = points.min(axis=0) - MAX_DISTANCE_M, points.max(axis=0) + MAX_DISTANCE_M
    result = []
    for line in lines:
        starts, ends = line[:-1], line[1:]
        near = (np.minimum(starts, ends) <= high) & (np.maximum(starts, ends) >= low)
        edges = np.flatnonzero(near.all(axis=1))
        for run in np.split(edges, np.flatnonzero(np.diff(edges) > 1) + 1):
            if len(run):
                result.append(line[run[0] : run[-1] + 2])
    return result


def _pieces(lines: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return the middles of the pieces of lines, and the lengths of the pieces [m]."""
    parts = [points_along(line) for line in lines]
    if not parts:
        return np.zeros((0, 2)), np.zeros(0)
    return (
        np.concatenate([points for points, _ in parts]),
        np.concatenate([np.full(len(points), length) for points, length in parts]),
    )


def _mean(qualities: Sequence[MapQuality]) -> MapQuality:
    return MapQuality(
        *(
            mean_of_known([getattr(quality, name) for quality in qualities])
            for name in ('distance_m', 'completeness', 'correctness')
        )
    )


def _sigma_factor(fused: VectorMap, truth: VectorMap, categories: Sequence[str]) -> float:
    from gsmap_core.evaluation.reliability import lateral_errors, measure

    errors, sigmas = [], []
    for name in categories:
        number = category_by_name(name).id
        true = [e for e in truth.of_category(number)]
        for element in fused.of_category(number):
            if element.covariance is None or not true:
                continue
            line = _nearest(element, true).loop_xy()
            error, sigma = lateral_errors(element.vertices[:, :2], element.covariance, line)
            close = distances_to_lines(element.vertices[:, :2], [line]) <= TOLERANCE_M
            errors.append(error[close])
            sigmas.append(sigma[close])
    if not errors:
        return float('nan')
    return measure(np.concatenate(errors), np.concatenate(sigmas)).sigma_factor


def _nearest(element: MapElement, true: Sequence[MapElement]) -> MapElement:
    places = element.vertices[:, :2]
    return min(true, key=lambda e: float(distances_to_lines(places, [e.loop_xy()]).mean()))


def format_gain(gain: FusionGain) -> str:
    """Return the comparison as a table to print."""
    lines = [
        f'{"":14}{"distance [m]":>22}{"completeness":>22}{"correctness":>22}',
        f'{"":14}' + f'{"frames":>11}{"fused":>11}' * 3,
    ]
    rows = {**gain.per_category, 'mean': (gain.fused, gain.single)}
    for name, (fused, single) in rows.items():
        cells = [
            f'{getattr(side, key):11.3f}'
            for key in ('distance_m', 'completeness', 'correctness')
            for side in (single, fused)
        ]
        lines.append(f'{name:14}' + ''.join(cells))
    return '\n'.join(lines)
