"""How the Gaussians of one element become its occupancy (GSMap, eq. 6), in two halves.

Every union first accumulates one number per cell over the Gaussians and then maps it to the
occupancy; fast rasterisers accumulate in their own way and share the rest.

| union | accumulated | occupancy |
|---|---|---|
| `probabilistic` | sum of log(1 - G) | 1 - exp(a) |
| `exponential` | sum of G | 1 - exp(-a) |
| `clamped_sum` | sum of G | min(a, 1) |
| `max` | largest G | a |
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsmap_core.errors import ConfigError

UNIONS = ('probabilistic', 'max', 'clamped_sum', 'exponential')

#: Densities above count as this in the probabilistic union, whose logarithm is infinite at 1.
MAX_DENSITY = 1.0 - 1e-4


def check_union(union: str) -> None:
    """Raise ConfigError unless the union is known."""
    if union not in UNIONS:
        raise ConfigError(f"union '{union}' is unknown; expected one of {', '.join(UNIONS)}")


def occupancy_of(accumulated: Tensor, union: str) -> Tensor:
    """Map accumulated values to occupancies in [0, 1]; never in place."""
    if union == 'probabilistic':
        return torch.expm1(accumulated).abs()  # never positive; negating would give -0
    if union == 'exponential':
        return torch.expm1(-accumulated).abs()
    return accumulated.clamp(max=1)


def slope_of(accumulated: Tensor, union: str) -> Tensor:
    """Return the derivative of the occupancy by a density, up to the Gaussian's own factor.

    The own factor is 1 / (1 - G), or 0 above `MAX_DENSITY`, for the probabilistic union, 1 for
    the first largest Gaussian and 0 for all others for `max`, and 1 otherwise.
    """
    if union == 'probabilistic':
        return accumulated.exp()
    if union == 'exponential':
        return accumulated.neg().exp()
    return (accumulated <= 1).to(accumulated.dtype)
