"""Training targets in the images (MapTRv2): masks of the drawn elements, depth bins of sweeps.

Both have the size of the image features and follow the calibration after augmentation.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from gsmap_core.config import ModelConfig
from gsmap_core.geometry.polylines import resample_polyline
from gsmap_core.geometry.transforms import transform_points
from gsmap_core.structures import FloatArray, MapElement, VectorMap

#: Height of elements without heights in the reference frame [m]: the ground. The LiDAR frame's is
#: the published constant of nuScenes, whose map lines have no heights.
GROUND_Z_M: dict[str, float] = {'ego': 0.0, 'lidar': -1.6}
#: Samples of an element before it is projected, and width of the line in the mask [px] (MapTRv2).
_NUM_SAMPLES = 200
_THICKNESS_PX = 1
#: Marks what is not supervised: a missing camera, a cell without a LiDAR point.
UNKNOWN = -1


def line_with_heights(element: MapElement, reference: str) -> FloatArray:
    """Return (V, 3) vertices [m], a ring repeats its first; the ground where heights are missing.

    Args:
        element: the element.
        reference: frame that it is given in.
    """
    vertices = element.vertices
    if vertices.shape[1] == 2:
        vertices = np.insert(vertices, 2, GROUND_Z_M[reference], axis=1)
    return np.concatenate([vertices, vertices[:1]]) if element.closed else vertices


def draw_pv_masks(
    vector_map: VectorMap,
    pixels_from_reference: FloatArray,
    camera_mask: npt.NDArray[np.bool_],
    config: ModelConfig,
    category_ids: set[int],
) -> npt.NDArray[np.int8]:
    """Draw the elements into every camera at the size of the image features.

    As published, points behind the camera are left out and the others joined, whatever the gap.

    Args:
        vector_map: elements in the model's reference frame [m].
        pixels_from_reference: (N, 4, 4) to pixels of the network input.
        camera_mask: (N,) False where the camera is missing.
        config: gives the size.
        category_ids: which elements are drawn.

    Returns:
        (N, 1, h, w) 0 or 1; -1 where the camera is missing.
    """
    masks = np.zeros((len(camera_mask), *config.feature_shape), dtype=np.uint8)
    lines = [
        resample_polyline(line_with_heights(element, vector_map.reference), _NUM_SAMPLES, 2)
        for element in vector_map.elements
        if element.category in category_ids
    ]
    for mask, matrix, present in zip(masks, pixels_from_reference, camera_mask, strict=True):
        for line in lines if present else []:
            projected = transform_points(matrix, line)
            ahead = projected[projected[:, 2] > 0]
            if len(ahead):
                pixels = ahead[:, :2] / ahead[:, 2:] / config.feature_stride
                # Lines to points beside the image are cut by the drawing, far ones beforehand.
                pixels = np.trunc(np.clip(pixels, -1e6, 1e6)).astype(np.int32)
                cv2.polylines(mask, [pixels[:, None]], False, (1,), _THICKNESS_PX)
    result = masks[:, None].astype(np.int8)
    result[~camera_mask] = UNKNOWN
    return result


def project_sweep(
    points: npt.NDArray[np.floating],
    pixels_from_ego: FloatArray,
    sizes: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Find the pixels of LiDAR points.

    Args:
        points: (P, 3) in the ego frame [m].
        pixels_from_ego: (N, 4, 4) to pixels of the network input.
        sizes: (N, 2) width and height of the picture inside the padding [px].

    Returns:
        (K, 3) camera, row and column of every point inside a picture, and (K,) its depth along the
        optical axis [m].
    """
    found, depths = [np.zeros((0, 3), dtype=np.int64)], [np.zeros(0)]
    for camera, (matrix, (width, height)) in enumerate(zip(pixels_from_ego, sizes, strict=True)):
        projected = transform_points(matrix, points)
        projected = projected[projected[:, 2] > 1e-3]
        pixels = np.round(projected[:, :2] / projected[:, 2:])
        inside = ((pixels >= 0) & (pixels < [width, height])).all(1)
        column, row = pixels[inside].astype(np.int64).T
        found.append(np.stack([np.full(len(row), camera), row, column], axis=1))
        depths.append(projected[inside, 2])
    return np.concatenate(found), np.concatenate(depths)


def depth_bins(
    pixels: npt.NDArray[np.int64],
    depths_m: FloatArray,
    num_cameras: int,
    config: ModelConfig,
) -> npt.NDArray[np.int64]:
    """Return the depth bin of every cell of the image features: that of its nearest LiDAR point.

    Args:
        pixels: (K, 3) camera, row and column of LiDAR points in the network input.
        depths_m: (K,) their depths [m]; outside the range of the bins they do not count.
        num_cameras: N.
        config: gives size and bins.

    Returns:
        (N, h, w); -1 where a cell has no point.
    """
    lss = config.bev.lss
    usable = (depths_m >= lss.depth_min_m) & (depths_m < lss.depth_max_m)
    pixels, depths_m = pixels[usable], depths_m[usable]
    nearest = np.full((num_cameras, *config.feature_shape), np.inf)
    stride = config.feature_stride
    np.minimum.at(
        nearest, (pixels[:, 0], pixels[:, 1] // stride, pixels[:, 2] // stride), depths_m
    )
    seen = np.isfinite(nearest)
    bins = np.full(nearest.shape, UNKNOWN, dtype=np.int64)
    bins[seen] = np.floor((nearest[seen] - lss.depth_min_m) / lss.depth_step_m)
    return bins
