"""A local map as measurements: in the map frame, with the covariance that each vertex deserves."""

from __future__ import annotations

import numpy as np

from gsmap_core.calibration import Calibration
from gsmap_core.categories import category_by_id
from gsmap_core.geometry.transforms import transform_points
from gsmap_core.mapping.lines import normals_of, signed_area, tangents, without_repeats
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.mapping.track import Track, counter_clockwise, evenly
from gsmap_core.structures import FloatArray, MapElement, PerceptionRange, VectorMap

#: A covariance that is no positive definite matrix is lifted to this variance [m^2].
_LEAST_VARIANCE = 1e-6
#: Rings of less than this are no area [m^2].
_LEAST_AREA_M2 = 0.25


def measurements_of(
    local_map: VectorMap,
    map_from_base: FloatArray,
    settings: FusionSettings,
    calibration: Calibration,
    weight: float,
) -> list[Track]:
    """Turn the elements of a local map into evenly sampled tracks without identity.

    Args:
        local_map: elements in the ego frame.
        map_from_base: (4, 4) ego pose [m].
        settings: of the fusion.
        calibration: of the model that made the map.
        weight: share that this frame counts by (0 to 1): its information and its evidence are
            multiplied with it.

    Returns:
        Tracks of id 0 in the map frame, best score first; elements below the least score and those
        without length are left out. Areas are closed, whatever their flag says.
    """
    elements = [e for e in local_map.elements if e.score is None or e.score >= settings.min_score]
    elements.sort(key=lambda e: 1.0 if e.score is None else e.score, reverse=True)
    result = []
    for element in elements:
        track = _measurement(
            element, local_map.range, map_from_base, settings, calibration, weight
        )
        if track is not None:
            result.append(track)
    return result


def _measurement(
    element: MapElement,
    extent: PerceptionRange,
    map_from_base: FloatArray,
    settings: FusionSettings,
    calibration: Calibration,
    weight: float,
) -> Track | None:
    vertices = element.vertices
    closed = element.closed or (category_by_id(element.category).is_area and len(vertices) > 2)
    local = vertices if element.has_z else np.column_stack([vertices, np.zeros(len(vertices))])
    spatial = transform_points(map_from_base, local)
    covariance = vertex_covariances(element, map_from_base, settings, calibration)
    keep = without_repeats(spatial[:, :2])
    if closed and np.linalg.norm(spatial[0, :2] - spatial[-1, :2]) <= 1e-6:
        keep[-1] = False
    xy, count = spatial[keep, :2], int(keep.sum())
    if count < (3 if closed else 2) or (closed and abs(signed_area(xy)) < _LEAST_AREA_M2):
        return None
    along = tangents(xy, closed)
    across_variance = _projected(covariance[keep], normals_of(along))
    along_variance = _projected(covariance[keep], along)
    track = Track(
        id=0,
        category=element.category,
        closed=closed,
        xy=xy,
        z=spatial[keep, 2] if element.has_z else np.full(count, np.nan),
        information=weight / across_variance,
        information_along=weight / along_variance,
        hits=np.ones(count, dtype=np.int64),
        evidence=np.full(count, weight * settings.hit_evidence),
        clipped=closed and _touches_border(vertices[:, :2], extent, settings.border_margin_m),
    )
    return evenly(counter_clockwise(track) if closed else track, settings.spacing_m)


def vertex_covariances(
    element: MapElement,
    map_from_base: FloatArray,
    settings: FusionSettings,
    calibration: Calibration,
) -> FloatArray:
    """Return the (P, 2, 2) covariances of an element's vertices in the map frame [m^2].

    The predicted ones are recalibrated; a vertex without one gets the same sigma in all
    directions. The uncertainty of the pose is added: its heading moves far vertices sideways.
    """
    xy = element.vertices[:, :2]
    if element.covariance is not None:
        predicted = element.covariance[:, [0, 1, 1, 2]].reshape(-1, 2, 2)
        local = calibration.sigma_factor**2 * predicted
    else:
        sigma = np.full(len(xy), settings.point_sigma_m)
        if calibration.point_sigma_m is not None:
            distance = np.linalg.norm(xy, axis=1)
            sigma = calibration.point_sigma_m + calibration.point_sigma_per_m * distance
        local = np.square(sigma)[:, None, None] * np.eye(2)
    turn = map_from_base[:2, :2]
    arm = xy @ turn.T
    sideways = np.stack([-arm[:, 1], arm[:, 0]], axis=1)
    yaw = settings.pose_yaw_sigma_rad**2 * sideways[:, :, None] * sideways[:, None]
    return np.asarray(turn @ local @ turn.T + settings.pose_sigma_m**2 * np.eye(2) + yaw)


def in_view(
    xy: FloatArray, base_from_map: FloatArray, extent: PerceptionRange, margin_m: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return which points of the map frame lie in a perception range, off its border.

    Args:
        xy: (P, 2) points in the map frame [m].
        base_from_map: (4, 4); the range is in the ego frame.
        extent: the range.
        margin_m: strip at its border that does not count [m].
    """
    local = xy @ base_from_map[:2, :2].T + base_from_map[:2, 3]
    return np.asarray(
        (local[:, 0] >= extent.x_min + margin_m)
        & (local[:, 0] <= extent.x_max - margin_m)
        & (local[:, 1] >= extent.y_min + margin_m)
        & (local[:, 1] <= extent.y_max - margin_m)
    )


def _projected(covariance: FloatArray, axis: FloatArray) -> FloatArray:
    variance = np.einsum('pi,pij,pj->p', axis, covariance, axis)
    return np.maximum(variance, _LEAST_VARIANCE)


def _touches_border(xy: FloatArray, extent: PerceptionRange, margin_m: float) -> bool:
    inside = in_view(xy, np.eye(4), extent, margin_m)
    return not bool(inside.all())
