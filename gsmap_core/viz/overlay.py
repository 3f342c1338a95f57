"""Map elements and points drawn into camera images."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gsmap_core.errors import DataError
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.polylines import polyline_length, resample_polyline
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import (
    Camera,
    FloatArray,
    ImageArray,
    MapElement,
    SurroundFrame,
    VectorMap,
)
from gsmap_core.viz.bev import draw_polyline
from gsmap_core.viz.colours import category_colour, draw_text, mix, score_opacity

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class OverlayStyle:
    """How elements look in an image.

    Args:
        line_px: line width in an image 800 px wide; it scales with the image.
        near_m: nothing nearer to the camera than this plane is drawn [m].
        far_m: nothing farther than this is drawn [m].
        spacing_m: lines are cut into pieces of this length before projection [m].
        outline: whether lines have a dark rim that keeps them readable on bright ground.
    """

    line_px: float = 3.0
    near_m: float = 0.3
    far_m: float = 80.0
    spacing_m: float = 0.25
    outline: bool = True


def element_points(element: MapElement, spacing_m: float) -> FloatArray:
    """Return an element as (P, 3) points in its own frame, no two farther apart than `spacing_m`.

    An element without heights lies on the plane z = 0. A closed one repeats its first vertex.
    """
    vertices = element.vertices
    if not element.has_z:
        vertices = np.concatenate([vertices, np.zeros((len(vertices), 1))], axis=1)
    if element.closed:
        vertices = np.concatenate([vertices, vertices[:1]])
    pieces = [
        resample_polyline([a, b], max(2, int(np.ceil(polyline_length([a, b]) / spacing_m)) + 1))[
            1:
        ]
        for a, b in zip(vertices[:-1], vertices[1:], strict=True)
    ]
    return np.concatenate([vertices[:1], *pieces])


def project_polyline(
    camera: Camera,
    points: npt.ArrayLike,
    base_from_camera: npt.ArrayLike | None = None,
    *,
    near_m: float = 0.3,
    far_m: float = np.inf,
) -> list[FloatArray]:
    """Project a line into a rectified image, cut at the near and far plane.

    Args:
        camera: calibration.
        points: (P, 3) in the ego frame, dense enough to be straight in between [m].
        base_from_camera: (4, 4) extrinsics to use instead of the camera's own.
        near_m: parts nearer to the camera plane are cut off exactly there [m].
        far_m: parts farther away likewise [m].

    Returns:
        The visible stretches, (K, 2) u, v each [px]; they may leave the image sideways.
    """
    extrinsics = camera.base_from_camera if base_from_camera is None else base_from_camera
    line = transform_points(invert(extrinsics), points)
    for limit in (near_m, far_m):
        if np.isfinite(limit):
            line = _insert_crossings(line, limit)
    depth = line[:, 2]
    slack = 1e-9 * max(1.0, near_m)
    inside = (depth >= near_m - slack) & (depth <= far_m + slack)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(int)))
    focal, centre = np.diag(camera.intrinsics)[:2], camera.intrinsics[:2, 2]
    return [
        line[a:b, :2] / line[a:b, 2:] * focal + centre
        for a, b in zip(edges[::2], edges[1::2], strict=True)
        if b - a >= 2
    ]


def _insert_crossings(line: FloatArray, depth_m: float) -> FloatArray:
    """Add a point wherever a (P, 3) camera-frame line passes through the plane z = depth_m."""
    offset = line[:, 2] - depth_m
    crossing = np.flatnonzero(offset[:-1] * offset[1:] < 0)
    share = offset[crossing] / (offset[crossing] - offset[crossing + 1])
    added = line[crossing] + share[:, None] * (line[crossing + 1] - line[crossing])
    added[:, 2] = depth_m
    return np.insert(line, crossing + 1, added, axis=0)


def draw_overlay(
    frame: SurroundFrame,
    vector_map: VectorMap,
    style: OverlayStyle | None = None,
    *,
    min_score: float = 0.0,
) -> list[ImageArray]:
    """Draw a local map into every camera image of a set.

    Heights are used where elements have them; others lie on the ground plane z = 0 of the ego
    frame. Nothing is hidden by objects. Images are taken as rectified.

    Args:
        frame: images and calibration; its extrinsics already hold the motion inside the set.
        vector_map: elements in the ego frame at the frame's stamp.
        style: appearance; None: the default.
        min_score: elements with a lower score are left out.

    Returns:
        One (H, W, 3) uint8 RGB per camera; a missing image becomes a grey one that says so.

    Raises:
        DataError: the map is not in the ego frame.
    """
    if vector_map.reference != 'ego':
        raise DataError(
            f"cannot project a map in '{vector_map.reference}' into the cameras; expected 'ego'"
        )
    style = style or OverlayStyle()
    lines = [
        (element, element_points(element, style.spacing_m))
        for element in vector_map.elements
        if element.score is None or element.score >= min_score
    ]
    pictures = []
    for index, camera in enumerate(frame.rig.cameras):
        image = frame.images[index]
        if image is None:
            pictures.append(missing_image(camera))
            continue
        if camera.distortion_model != 'none':
            _LOG.warning(
                "camera '%s' has %s distortion; elements are drawn as if the image were rectified",
                camera.name,
                camera.distortion_model,
            )
        picture = image.copy()
        for element, points in lines:
            stretches = project_polyline(
                camera,
                points,
                frame.base_from_cameras[index],
                near_m=style.near_m,
                far_m=style.far_m,
            )
            _draw_stretches(picture, stretches, element, style)
        pictures.append(picture)
    return pictures


def _draw_stretches(
    picture: ImageArray, stretches: list[FloatArray], element: MapElement, style: OverlayStyle
) -> None:
    width = max(1, round(style.line_px * max(picture.shape[:2]) / 800))
    colour = category_colour(element.category)
    share = score_opacity(element.score)
    for pixels in stretches:
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        margin = 4 * width
        left, top = np.maximum(np.floor(low) - margin, 0).astype(int)
        right, bottom = (
            np.minimum(np.ceil(high) + margin, picture.shape[1::-1]).astype(int).tolist()
        )
        if left >= right or top >= bottom:
            continue
        region = picture[top:bottom, left:right]
        layer = region.copy()
        shifted = pixels - (left, top)
        if style.outline:
            draw_polyline(layer, shifted, mix(colour, (0, 0, 0), 0.35), width + max(2, width // 2))
        draw_polyline(layer, shifted, colour, width)
        picture[top:bottom, left:right] = cv2.addWeighted(layer, share, region, 1.0 - share, 0.0)


def missing_image(camera: Camera) -> ImageArray:
    """Return the grey picture that stands for a camera without image."""
    picture = np.full((camera.height_px, camera.width_px, 3), (70, 74, 80), dtype=np.uint8)
    size = max(10, camera.width_px // 24)
    draw_text(
        picture,
        'no image',
        (camera.width_px / 2, camera.height_px / 2),
        size,
        (190, 194, 200),
        anchor='centre',
    )
    return picture


def draw_points(
    image: ImageArray,
    camera: Camera,
    points: npt.ArrayLike,
    base_from_camera: npt.ArrayLike | None = None,
    *,
    max_depth_m: float = 50.0,
    radius_px: int = 2,
) -> ImageArray:
    """Draw points (a LiDAR sweep) into an image, coloured by distance: red near, blue far.

    Args:
        image: (H, W, 3) uint8 RGB.
        camera: its calibration.
        points: (P, 3 or more) x, y, z in the ego frame [m].
        base_from_camera: (4, 4) extrinsics to use instead of the camera's own.
        max_depth_m: depth from which the colour stays blue [m].
        radius_px: size of a point.

    Returns:
        A new (H, W, 3) uint8 RGB.
    """
    cloud = np.asarray(points, dtype=np.float64)[:, :3]
    projection = project_points(camera, cloud, base_from_camera)
    order = np.flatnonzero(projection.is_visible)
    # Far points first: the nearest one wins where several fall on a pixel.
    order = order[np.argsort(-projection.depth_m[order], kind='stable')]
    levels = np.clip(1.0 - projection.depth_m[order] / max_depth_m, 0.0, 1.0)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0]
    colours = table[np.round(20 + levels * 215).astype(int), ::-1]
    picture = image.copy()
    centres = np.round(projection.pixels[order]).astype(int)
    for (u, v), colour in zip(centres.tolist(), colours.tolist(), strict=True):
        cv2.circle(picture, (u, v), radius_px, colour, -1, cv2.LINE_AA)
    return picture
