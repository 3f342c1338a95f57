"""From network outputs to `VectorMap`: scores, metres, closed elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gsmap_core.categories import category_by_name
from gsmap_core.config import ModelConfig
from gsmap_core.errors import DataError
from gsmap_core.gaussians.representation import covariances, covariances_to_triples
from gsmap_core.geometry.transforms import transform_points
from gsmap_core.models.outputs import MapperOutput
from gsmap_core.structures import FloatArray, MapElement, PerceptionRange, VectorMap


def top_predictions(
    class_logits: Tensor,  # (B, M, K)
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pick the best (instance, category) pairs; an instance can have several categories.

    Returns:
        Scores, instance indices and category indices, (B, min(count, M * K)) each, best first.
    """
    scores = class_logits.float().sigmoid().flatten(1)
    best, index = scores.topk(min(count, scores.shape[1]), dim=1)
    categories = class_logits.shape[2]
    return best, index.div(categories, rounding_mode='floor'), index % categories


def to_vector_maps(
    output: MapperOutput,
    config: ModelConfig,
    *,
    score_threshold: float = 0.0,
    max_elements: int = 50,
    closing_distance_m: float | None = None,
    stamps_ns: Sequence[int] | None = None,
    sample_ids: Sequence[str] | None = None,
    scenes: Sequence[str] | None = None,
    map_from_base: Sequence[FloatArray | None] | None = None,
    ego_from_reference: Sequence[FloatArray] | None = None,
) -> list[VectorMap]:
    """Turn the last decoder layer's predictions into maps.

    Args:
        output: of B samples.
        config: the model's configuration.
        score_threshold: lowest score that is kept.
        max_elements: at most that many elements per sample.
        closing_distance_m: ends within this distance make an element closed, its last point is
            then dropped [m];
            0: never (published metrics); None: the configuration's.
        stamps_ns: B stamps [ns]; omitted: 0.
        sample_ids: B ids; omitted: empty.
        scenes: B drive names; omitted: empty.
        map_from_base: B ego poses (4, 4) or None each; omitted: None.
        ego_from_reference: for models in the lidar frame: B transforms (4, 4) that turn the result
            into the ego frame;
            without, such a result stays in the lidar frame and says so.

    Returns:
        B maps, elements by descending score; with a covariance per vertex [m^2] where the model
        predicts Gaussians. Vertices are (P, 2 or 3) float64 [m]: in the ego frame, or in the frame
        that the map's `reference` names.

    Raises:
        DataError: a sequence does not have B entries.
    """
    class_logits, points = output.class_logits[-1], output.points[-1]
    batch = len(class_logits)
    for name, values in (
        ('stamps_ns', stamps_ns),
        ('sample_ids', sample_ids),
        ('scenes', scenes),
        ('map_from_base', map_from_base),
        ('ego_from_reference', ego_from_reference),
    ):
        if values is not None and len(values) != batch:
            raise DataError(f'{name} has {len(values)} entries; expected {batch}, one per sample')
    if closing_distance_m is None:
        closing_distance_m = config.closing_distance_m
    ids = [category_by_name(name).id for name in config.categories]
    scores, instances, categories = top_predictions(class_logits.detach(), max_elements)
    chosen = torch.gather(
        points.detach().float(),
        1,
        instances[:, :, None, None].expand(-1, -1, *points.shape[2:]),
    )
    metres = config.grid.unit_to_metres(chosen.cpu().numpy())
    covariances = _covariances(output, instances)
    score_rows, category_rows = scores.cpu().tolist(), categories.cpu().tolist()
    maps = []
    for sample in range(batch):
        reference, extent = config.reference, config.range
        vertices, covariance = metres[sample], covariances[sample]
        if config.reference != 'ego' and ego_from_reference is not None:
            transform = np.asarray(ego_from_reference[sample], dtype=np.float64)
            vertices = _transform_plane(transform, vertices)
            covariance = None if covariance is None else _turn(transform, covariance)
            reference, extent = 'ego', _transform_range(transform, config.range)
        elements = tuple(
            _make_element(ids[category], line, score, closing_distance_m, spread)
            for category, line, score, spread in zip(
                category_rows[sample],
                vertices,
                score_rows[sample],
                [None] * len(vertices) if covariance is None else covariance,
                strict=True,
            )
            if score >= score_threshold
        )
        maps.append(
            VectorMap(
                elements=elements,
                stamp_ns=0 if stamps_ns is None else stamps_ns[sample],
                range=extent,
                reference=reference,
                sample_id='' if sample_ids is None else sample_ids[sample],
                scene='' if scenes is None else scenes[sample],
                map_from_base=None if map_from_base is None else map_from_base[sample],
            )
        )
    return maps


def _covariances(output: MapperOutput, instances: Tensor) -> list[FloatArray | None]:
    """Return, per sample, the (M', P, 3) covariances of the chosen instances [m^2], or None."""
    if output.gaussians is None:
        return [None] * len(instances)
    last = output.gaussians[-1]
    scales = last.scales.detach().double().cpu()
    packed = covariances_to_triples(covariances(scales, last.thetas.detach().double().cpu()))
    return [row[index].numpy() for row, index in zip(packed, instances.cpu(), strict=True)]


def _turn(dst_from_src: FloatArray, covariance: FloatArray) -> FloatArray:
    """Move (..., 3) planar covariances of the source's z = 0 plane to the other frame's plane."""
    rotation = dst_from_src[:2, :2]
    full = covariance[..., [0, 1, 1, 2]].reshape(*covariance.shape[:-1], 2, 2)
    turned = rotation @ full @ rotation.T
    return np.stack([turned[..., 0, 0], turned[..., 0, 1], turned[..., 1, 1]], axis=-1)


def _make_element(
    category: int,
    vertices: FloatArray,
    score: float,
    closing_distance_m: float,
    covariance: FloatArray | None = None,
) -> MapElement:
    gap = float(np.linalg.norm(vertices[-1, :2] - vertices[0, :2]))
    # Three vertices must remain after the repeated one is dropped.
    closed = len(vertices) > 3 and closing_distance_m > 0 and gap <= closing_distance_m
    if closed:
        vertices = vertices[:-1]
        covariance = None if covariance is None else covariance[:-1]
    return MapElement(category, vertices, closed, score, covariance)


def _transform_plane(dst_from_src: FloatArray, points_xy: FloatArray) -> FloatArray:
    """Move (..., 3) points, or (..., 2) of the source's z = 0 plane, which then drop the new z."""
    num_dims = points_xy.shape[-1]
    flat = points_xy.reshape(-1, num_dims)
    if num_dims == 2:
        flat = np.insert(flat, 2, 0.0, axis=1)
    return transform_points(dst_from_src, flat)[:, :num_dims].reshape(points_xy.shape)


def _transform_range(dst_from_src: FloatArray, extent: PerceptionRange) -> PerceptionRange:
    """Return the smallest axis-aligned range around the moved corners."""
    corners = np.array(
        [[x, y] for x in (extent.x_min, extent.x_max) for y in (extent.y_min, extent.y_max)]
    )
    moved = _transform_plane(dst_from_src, corners)
    (x_min, y_min), (x_max, y_max) = moved.min(0), moved.max(0)
    return PerceptionRange(float(x_min), float(x_max), float(y_min), float(y_max))
