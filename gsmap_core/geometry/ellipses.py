"""Ellipses of planar covariances, for whoever draws them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gsmap_core.structures import FloatArray


def covariance_ellipses(
    covariance: npt.ArrayLike, num_corners: int, num_sigmas: float = 1.0
) -> FloatArray:
    """Return the outline of the ellipse at a number of standard deviations around the origin.

    Args:
        covariance: (..., 3) xx, xy, yy [m^2].
        num_corners: corners of each outline.
        num_sigmas: standard deviations.

    Returns:
        (..., num_corners, 2) x, y [m], counter-clockwise, the first corner not repeated.
    """
    values = np.asarray(covariance, dtype=np.float64)
    matrices = values[..., [0, 1, 1, 2]].reshape(*values.shape[:-1], 2, 2)
    squared, axes = np.linalg.eigh(matrices)
    # Eigenvectors come with any sign; a left-handed pair would run clockwise.
    axes[..., 0] *= np.sign(np.linalg.det(axes))[..., None]
    half_axes = axes * (num_sigmas * np.sqrt(np.maximum(squared, 0.0)))[..., None, :]
    angles = np.linspace(0.0, 2 * np.pi, num_corners, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    return np.swapaxes(half_axes @ circle, -1, -2)
