"""Projection of points into cameras, with and without lens distortion: ego in, pixels out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import Camera, FloatArray


@dataclass(frozen=True)
class Projection:
    """Where points land in one image.

    Args:
        pixels: (P, 2) float64 u (right), v (down) [px]; integer coordinates are pixel centres.
            Meaningless where depth <= 0.
        depth_m: (P,) distance along the optical axis [m].
        is_visible: (P,) bool, in front of the camera and inside the image.
    """

    pixels: FloatArray
    depth_m: FloatArray
    is_visible: npt.NDArray[np.bool_]


def project_points(
    camera: Camera,
    points: npt.ArrayLike,
    base_from_camera: npt.ArrayLike | None = None,
    min_depth_m: float = 0.1,
) -> Projection:
    """Project ego-frame points into a rectified camera (the distortion, if any, is ignored).

    Args:
        camera: calibration.
        points: (P, 3) points in the ego frame [m].
        base_from_camera: (4, 4) extrinsics to use instead of the camera's own (e.g. with ego
            motion in them).
        min_depth_m: points nearer than this are not visible [m].
    """
    extrinsics = camera.base_from_camera if base_from_camera is None else base_from_camera
    in_camera = transform_points(invert(extrinsics), points)
    depth = in_camera[:, 2]
    safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    pixels = (
        in_camera[:, :2] / safe[:, None] * np.diag(camera.intrinsics)[:2]
        + camera.intrinsics[:2, 2]
    )
    inside = (
        (depth > min_depth_m)
        & (pixels[:, 0] >= -0.5)
        & (pixels[:, 0] <= camera.width_px - 0.5)
        & (pixels[:, 1] >= -0.5)
        & (pixels[:, 1] <= camera.height_px - 0.5)
    )
    return Projection(pixels, depth, inside)


def pixel_rays(camera: Camera) -> FloatArray:
    """Return (H, W, 3) float64 rays (camera frame, z = 1), one per pixel centre, rectified."""
    u, v = np.meshgrid(np.arange(camera.width_px), np.arange(camera.height_px))
    x = (u - camera.intrinsics[0, 2]) / camera.intrinsics[0, 0]
    y = (v - camera.intrinsics[1, 2]) / camera.intrinsics[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=-1)
