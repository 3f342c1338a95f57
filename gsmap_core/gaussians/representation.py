"""2D Gaussians as GSMap describes a vertex: centre, two scales, angle; pure functions of tensors.

Centres are metres x, y of the model's reference frame, scales are standard deviations in metres,
and the angle runs counter-clockwise from the +x axis of that frame to the first principal axis.
None of it depends on how a BEV grid is ordered; a network's centres in unit coordinates become
metres by `centers_to_metres`. Drawing on a canvas is the matter of `rasterize`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gsmap_core.geometry.bev_grid import BevGrid

#: Added to both variances, so that no Gaussian is narrower than 1 mm [m^2].
VARIANCE_FLOOR_M2 = 1e-6


def centers_to_metres(centers: Tensor, grid: BevGrid) -> Tensor:
    """Convert centres from unit coordinates to metres, differentiably.

    Args:
        centers: (..., 2) u, v in [0, 1], as the decoder predicts them (`BevGrid.metres_to_unit`).
        grid: any grid of the same range and order; its resolution does not matter.

    Returns:
        (..., 2) x, y in the reference frame [m], in the dtype of `centers`.
    """
    corners = grid.unit_to_metres([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    origin, along_u, along_v = (
        centers.new_tensor(row)
        for row in (corners[0], corners[1] - corners[0], corners[2] - corners[0])
    )
    return origin + centers[..., :1] * along_u + centers[..., 1:] * along_v


def standard_deviations(scales: Tensor) -> Tensor:
    """Return (..., 2) standard deviations along the principal axes, with the floor [m]."""
    return (scales.square() + VARIANCE_FLOOR_M2).sqrt()


def rotation_matrices(thetas: Tensor) -> Tensor:
    """Return (..., 2, 2) rotations whose columns are the principal axes.

    Source: GSMap, eq. 4.
    """
    cos, sin = thetas.cos(), thetas.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def covariances(scales: Tensor, thetas: Tensor) -> Tensor:
    """Build covariance matrices from scales and angles.

    Args:
        scales: (..., 2) along the two principal axes [m].
        thetas: (...) [rad].

    Returns:
        (..., 2, 2) in x, y of the reference frame [m^2]: R S S^T R^T with `VARIANCE_FLOOR_M2`
        on the diagonal.

    Source: GSMap, eq. 3.
    """
    axes = rotation_matrices(thetas) * standard_deviations(scales)[..., None, :]
    return axes @ axes.mT


def precisions(scales: Tensor, thetas: Tensor) -> Tensor:
    """Return (..., 2, 2) inverse covariances [1/m^2].

    They are built from the parameters: inverting a flat covariance would lose half of the digits.
    """
    axes = rotation_matrices(thetas) / standard_deviations(scales)[..., None, :]
    return axes @ axes.mT


def covariances_to_triples(matrices: Tensor) -> Tensor:
    """Return (..., 3) xx, xy, yy of (..., 2, 2) symmetric matrices, the form that travels."""
    return torch.stack([matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 1, 1]], dim=-1)


def triples_to_covariances(triples: Tensor) -> Tensor:
    """Return (..., 2, 2) symmetric matrices of (..., 3) xx, xy, yy."""
    return triples[..., [0, 1, 1, 2]].unflatten(-1, (2, 2))


def triples_to_scales(triples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the principal axes of covariances; the inverse of `covariances`, up to the symmetry.

    Args:
        triples: (..., 3) xx, xy, yy [m^2].

    Returns:
        (..., 2) scales [m], the larger first, and (...) angles of the larger axis in
        (-pi/2, pi/2] [rad]. Not differentiable where both scales are equal.
    """
    xx, xy, yy = triples.unbind(-1)
    mean, half = (xx + yy) / 2, (xx - yy) / 2
    radius = torch.hypot(half, xy)
    variances = torch.stack([mean + radius, mean - radius], dim=-1) - VARIANCE_FLOOR_M2
    return variances.clamp(min=0).sqrt(), torch.atan2(xy, half) / 2


def densities(
    points: Tensor,  # (..., 2)
    centers: Tensor,  # (..., 2)
    scales: Tensor,  # (..., 2)
    thetas: Tensor,  # (...)
) -> Tensor:
    """Evaluate Gaussians at points; the peak is 1 whatever the scales are.

    Args:
        points: (..., 2) x, y [m].
        centers: (..., 2) x, y [m].
        scales: (..., 2) [m].
        thetas: (...) [rad].

    Returns:
        (...) in [0, 1], the shape to which the arguments broadcast.

    Source: GSMap, eq. 2. The quadratic form is the squared length of the offset in units of the
    standard deviations along the principal axes, which stays exact for flat Gaussians.
    """
    dx, dy = (points - centers).unbind(-1)
    cos, sin = thetas.cos(), thetas.sin()
    along, across = standard_deviations(scales).unbind(-1)
    squared = ((cos * dx + sin * dy) / along).square() + ((cos * dy - sin * dx) / across).square()
    return torch.exp(-0.5 * squared)


def wrap_angles(thetas: Tensor) -> Tensor:
    """Return angles in [-pi/2, pi/2): a Gaussian turned by half a turn is the same [rad]."""
    return torch.remainder(thetas + math.pi / 2, math.pi) - math.pi / 2


def angles_from_double(vectors: Tensor) -> Tensor:
    """Return (...) angles [rad] of (..., 2) cosine and sine of twice the angle, of any length.

    A zero vector gives 0.
    """
    cos, sin = vectors.unbind(-1)
    # atan2 has no gradient at the origin: the NaN would spread over the whole network.
    empty = (cos == 0) & (sin == 0)
    return torch.atan2(sin, torch.where(empty, torch.ones_like(cos), cos)) / 2


def chord_angles(centers: Tensor) -> Tensor:
    """Return the direction between the neighbours of every vertex.

    Args:
        centers: (..., P, 2) x, y of ordered vertices [m].

    Returns:
        (..., P) angles in (-pi, pi] [rad]; the first and last vertex use their only neighbour;
        0 where neighbours coincide, and for a single vertex.
    """
    if centers.shape[-2] < 2:
        return torch.zeros_like(centers[..., 0])
    padded = torch.cat([centers[..., :1, :], centers, centers[..., -1:, :]], dim=-2)
    dx, dy = (padded[..., 2:, :] - padded[..., :-2, :]).unbind(-1)
    empty = (dx == 0) & (dy == 0)
    return torch.atan2(dy, torch.where(empty, torch.ones_like(dx), dx))
