import numpy as np

from gsmap_core.geometry.ellipses import covariance_ellipses


def test_ellipse_of_a_turned_covariance() -> None:
    """Half axes of 3 and 1 m, the long one at 30 degrees."""
    angle = np.radians(30)
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = axes @ np.diag([9.0, 1.0]) @ axes.T
    outline = covariance_ellipses([matrix[0, 0], matrix[0, 1], matrix[1, 1]], 360)
    own = outline @ axes
    np.testing.assert_allclose((own[:, 0] / 3) ** 2 + own[:, 1] ** 2, 1.0, atol=1e-12)
    assert np.isclose(np.linalg.norm(outline, axis=1).max(), 3.0)
    x, y = outline.T
    area = 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    assert np.isclose(area, 3 * np.pi, rtol=1e-3)  # Positive: counter-clockwise.


def test_sigmas_and_batches() -> None:
    outlines = covariance_ellipses(np.tile([4.0, 0.0, 4.0], (2, 3, 1)), 8, num_sigmas=2.0)
    assert outlines.shape == (2, 3, 8, 2)
    np.testing.assert_allclose(np.linalg.norm(outlines, axis=-1), 4.0)
