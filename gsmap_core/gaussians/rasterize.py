"""Differentiable rasterisation of Gaussian map elements: one function, several ways to compute it.

`reference` is the formula as written, `fast` is plain PyTorch that looks only where a Gaussian is,
`triton` is a GPU kernel. They agree within the tolerances that `rasterize_gaussians` states.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsmap_core.errors import ConfigError
from gsmap_core.gaussians.backends import choose_backend
from gsmap_core.gaussians.reference import rasterize_reference
from gsmap_core.gaussians.tiles import rasterize_tiles
from gsmap_core.gaussians.unions import check_union
from gsmap_core.geometry.bev_grid import BevGrid


def rasterize_gaussians(
    centers: Tensor,  # (..., P, 2)
    scales: Tensor,  # (..., P, 2)
    thetas: Tensor,  # (..., P)
    grid: BevGrid,
    union: str = 'probabilistic',
    backend: str = 'auto',
) -> Tensor:
    """Draw elements, each a set of P Gaussians, on a canvas.

    Args:
        centers: (..., P, 2) floating, x, y in the reference frame of the grid [m]; see
            `representation.centers_to_metres` for unit coordinates.
        scales: (..., P, 2) standard deviations along the principal axes [m].
        thetas: (..., P) angles of the first principal axis, counter-clockwise from +x [rad].
        grid: the canvas, of any resolution.
        union: how the Gaussians of an element combine:
            `probabilistic` 1 - prod(1 - min(G, 1 - 1e-4)), `max` of G, `clamped_sum`
            min(sum G, 1) or `exponential` 1 - exp(-sum G).
        backend: `reference`, `fast`, `triton` (CUDA, single precision), or `auto`: `triton` where
            it runs, `fast` elsewhere.

    Returns:
        (..., H, W) occupancies in [0, 1] at the cell centres, in the dtype of `centers`.
        Half precision is computed in single. No elements give (..., H, W) with a zero in front, no
        Gaussians give zeros. Differentiable once in the first three arguments (`reference`: any
        number of times); of equally large Gaussians the first has the gradient of `max`.
        The fast backends cut off tails: at most 1e-6 of occupancy (1e-14 in double precision);
        single precision adds its rounding (altogether within 5e-6 of `reference`, more only for
        Gaussians a hundred times longer than wide).

    Raises:
        ConfigError: an unknown union or backend, shapes or dtypes that do not belong together, or
            `triton` where it does not run.

    Source: GSMap, eq. 6 (reconstruction: `probabilistic`).
    """
    check_union(union)
    _check_inputs(centers, scales, thetas)
    result_dtype = centers.dtype
    dtype = torch.float64 if result_dtype == torch.float64 else torch.float32
    batch, num_places = thetas.shape[:-1], thetas.shape[-1]
    flat = (
        centers.to(dtype).reshape(batch.numel(), num_places, 2),
        scales.to(dtype).reshape(batch.numel(), num_places, 2),
        thetas.to(dtype).reshape(batch.numel(), num_places),
    )
    chosen = choose_backend(backend, flat[0])
    occupancy: Tensor
    # Mixed precision would turn the sums into half precision.
    with torch.autocast(centers.device.type, enabled=False):
        if chosen == 'reference':
            occupancy = rasterize_reference(*flat, grid, union)
        elif chosen == 'triton':
            from gsmap_core.gaussians.triton_kernel import rasterize_triton

            occupancy = rasterize_triton(*flat, grid, union)
        else:
            occupancy = rasterize_tiles(*flat, grid, union)
    return occupancy.to(result_dtype).reshape(*batch, grid.num_rows, grid.num_columns)


def _check_inputs(centers: Tensor, scales: Tensor, thetas: Tensor) -> None:
    """Raise ConfigError unless shapes, dtypes and devices belong together."""
    shapes = [tuple(tensor.shape) for tensor in (centers, scales, thetas)]
    expected = (*thetas.shape, 2)
    if thetas.dim() < 1 or shapes[0] != expected or shapes[1] != expected:
        raise ConfigError(
            f'Gaussians: centers {shapes[0]}, scales {shapes[1]}, thetas {shapes[2]}; expected '
            '(..., P, 2), (..., P, 2) and (..., P) with the same batch shape'
        )
    if not all(tensor.is_floating_point() for tensor in (centers, scales, thetas)):
        raise ConfigError(
            f'Gaussians: dtypes {centers.dtype}, {scales.dtype}, {thetas.dtype}; expected '
            'floating-point tensors'
        )
    if not centers.device == scales.device == thetas.device:
        raise ConfigError(
            f'Gaussians: centers on {centers.device}, scales on {scales.device}, thetas on '
            f'{thetas.device}; expected one device'
        )
