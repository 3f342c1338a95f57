"""The map of a drive as one HTML file: opens in any browser, asks for nothing else.

Everything is inside the file: the elements of every frame, the vehicle's way, small pictures of
the cameras, and the program that draws them. Lengths are whole centimetres, vertices differences
to the one before, so that a long drive stays small; what would be too much is thinned out and the
page says so.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np

from gsmap_core.atomic_files import atomic_text_file
from gsmap_core.categories import CATEGORIES
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import transform_points
from gsmap_core.structures import FloatArray, ImageArray, MapElement, SurroundFrame, VectorMap
from gsmap_core.viz.colours import PALETTE
from gsmap_core.viz.figure import FigureStyle, draw_camera_strip
from gsmap_core.viz.overlay import OverlayStyle

_TEMPLATES = Path(__file__).resolve().parent / 'page'
_MEBIBYTE = 1 << 20
#: Ground truth farther from the whole way than this is left out [m].
_SEEN_M = 60.0


@dataclass(frozen=True)
class PageLimits:
    """How large a page may become.

    Args:
        max_frames: a longer drive is shown every second, third, ... frame.
        max_map_bytes: elements of all frames; above it frames are left out likewise.
        max_picture_bytes: all camera pictures; above it only every second, third, ... frame has
            one of its own, the others show the one before.
        strip_width_px: width of the cameras side by side.
        jpeg_quality: of their picture, 0 to 100.
    """

    max_frames: int = 400
    max_map_bytes: int = 12 * _MEBIBYTE
    max_picture_bytes: int = 8 * _MEBIBYTE
    strip_width_px: int = 640
    jpeg_quality: int = 72

    def __post_init__(self) -> None:
        """Validate."""
        for name in ('max_frames', 'max_map_bytes', 'max_picture_bytes', 'strip_width_px'):
            if getattr(self, name) < 1:
                raise DataError(f'{name} is {getattr(self, name)}; expected a positive number')


@dataclass(frozen=True)
class PageFrame:
    """One frame of the page.

    Args:
        number: of the frame in its drive.
        local_map: elements in the ego frame, with the pose.
        strip: JPEG of its cameras, see `camera_strip_jpeg`; None: no picture.
    """

    number: int
    local_map: VectorMap
    strip: bytes | None = None


@dataclass(frozen=True)
class PageResult:
    """What was written.

    Args:
        path: the file.
        num_frames: frames on it.
        num_pictures: of them with a picture of their own.
        num_bytes: size of the file.
    """

    path: Path
    num_frames: int
    num_pictures: int
    num_bytes: int


def camera_strip_jpeg(
    frame: SurroundFrame, local_map: VectorMap, min_score: float, limits: PageLimits
) -> bytes:
    """Return the cameras of a frame side by side, with projected elements, as a small JPEG.

    Args:
        frame: images and calibration.
        local_map: elements in the ego frame.
        min_score: elements with a lower score are not drawn.
        limits: size and quality.
    """
    style = FigureStyle(
        min_score=min_score,
        max_row_share=0.3,
        overlay=OverlayStyle(line_px=7.0, outline=False),
        # Between the pictures; it must look right on a light and on a dark page.
        palette=replace(PALETTE, page=(44, 50, 58)),
    )
    strip: ImageArray = draw_camera_strip(frame, local_map, style, limits.strip_width_px, 2)
    quality = [cv2.IMWRITE_JPEG_QUALITY, limits.jpeg_quality]
    return cv2.imencode('.jpg', cv2.cvtColor(strip, cv2.COLOR_RGB2BGR), quality)[1].tobytes()


def write_map_page(
    path: str | os.PathLike[str],
    frames: Sequence[PageFrame],
    ground_truth: VectorMap | None = None,
    *,
    title: str = 'Map of the drive',
    min_score: float = 0.4,
    limits: PageLimits | None = None,
) -> PageResult:
    """Write the page of a drive.

    Args:
        path: `*.html`.
        frames: by time; each local map in the ego frame with its pose.
        ground_truth: the whole map in the map frame, or None; only what the drive came near is
            taken.
        title: headline.
        min_score: where the page's slider for the least score begins, 0 to 1.
        limits: how large it may become; None: the default.

    Raises:
        DataError: no frame, a local map without a pose or in another frame, or ground truth that
            is not in the map frame.
    """
    limits = limits or PageLimits()
    target = Path(path)
    if not frames:
        raise DataError(f'{target}: no frame to show; expected at least one local map')
    poses = [_pose_of(item.local_map) for item in frames]
    origin = np.floor(poses[0][:3, 3])
    stride = -(-len(frames) // limits.max_frames)
    entries = [_frame_entry(item, pose, origin) for item, pose in zip(frames, poses, strict=True)]
    sizes = [len(_compact(entry)) for entry in entries]
    while sum(sizes[::stride]) > limits.max_map_bytes and stride < len(frames):
        stride += 1
    shown, entries = list(frames[::stride]), entries[::stride]
    strips, every = _add_strips(shown, entries, limits.max_picture_bytes)
    start_ns, end_ns = shown[0].local_map.stamp_ns, shown[-1].local_map.stamp_ns
    for item, entry in zip(shown, entries, strict=True):
        entry['t'] = round((item.local_map.stamp_ns - start_ns) / 1e9, 2)
    duration_s = (end_ns - start_ns) / 1e9
    area = shown[0].local_map.range
    truth = _truth_entries(ground_truth, poses, origin)
    summary = f'{len(frames)} frames, {duration_s:.0f} s'
    if stride > 1:
        summary += f'; one in {stride} shown'
    if every > 1:
        summary += f'; pictures of one in {every}'
    used = {e['c'] for entry in entries for e in entry['e']} | {e['c'] for e in truth} | {0, 1, 2}
    data = {
        'summary': summary,
        'min_score': min_score,
        'origin': origin.tolist(),
        'range': [area.x_min, area.x_max, area.y_min, area.y_max],
        'stride': stride,
        'period_ms': int(np.clip(1e3 * duration_s / max(1, len(shown) - 1), 60, 1000)),
        'categories': [
            {'id': c.id, 'name': c.name, 'colour': _css(c.colour_rgb), 'area': c.is_area}
            for c in CATEGORIES
            if c.id in used
        ],
        'frames': entries,
        'truth': truth,
        'strips': strips,
    }
    text = _template('map_page.html').substitute(
        title=html.escape(title),
        style=_template('map_page.css').template.strip(),
        script=_template('map_page.js').template.strip(),
        # A `<` inside a string could end the element that holds the data.
        data=_compact(data).replace('<', '\\u003c'),
    )
    with atomic_text_file(target) as file:
        file.write(text)
    return PageResult(target, len(shown), len(strips), target.stat().st_size)


def _template(name: str) -> Template:
    return Template((_TEMPLATES / name).read_text(encoding='utf-8'))


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(',', ':'), allow_nan=False)


def _css(colour: tuple[int, int, int]) -> str:
    return '#' + ''.join(f'{channel:02x}' for channel in colour)


def _pose_of(local_map: VectorMap) -> FloatArray:
    if local_map.reference != 'ego' or local_map.map_from_base is None:
        name = local_map.sample_id or local_map.stamp_ns
        raise DataError(
            f"local map '{name}' ('{local_map.reference}') has no pose in the map; expected ego "
            'maps with map_from_base'
        )
    return local_map.map_from_base


def _frame_entry(frame: PageFrame, pose: FloatArray, origin: FloatArray) -> dict[str, Any]:
    yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
    x, y = (np.rint(100 * (pose[:2, 3] - origin[:2]))).astype(int).tolist()
    return {
        'n': frame.number,
        'p': [x, y, round(1000 * yaw)],
        's': -1,
        'e': [_element_entry(element, pose, origin) for element in frame.local_map.elements],
    }


def _element_entry(element: MapElement, pose: FloatArray, origin: FloatArray) -> dict[str, Any]:
    """Return an element in the map frame: see the module for the units."""
    vertices = element.vertices
    if not element.has_z:
        vertices = np.column_stack([vertices, np.zeros(len(vertices))])
    moved = transform_points(pose, vertices)[:, :2] - origin[:2]
    whole = np.rint(100 * moved).astype(np.int64)
    entry: dict[str, Any] = {
        'c': element.category,
        'v': np.diff(whole, axis=0, prepend=np.zeros((1, 2), np.int64)).ravel().tolist(),
    }
    if element.closed:
        entry['k'] = 1
    if element.score is not None:
        entry['s'] = round(float(element.score), 3)
    if element.id:
        entry['i'] = int(element.id)
    if element.covariance is not None:
        matrices = element.covariance[:, [0, 1, 1, 2]].reshape(-1, 2, 2)
        turned = pose[:2, :2] @ matrices @ pose[:2, :2].T
        flat = turned.reshape(-1, 4)[:, [0, 1, 3]]
        entry['g'] = np.rint(1e4 * flat).astype(np.int64).ravel().tolist()
    return entry


def _add_strips(
    frames: Sequence[PageFrame], entries: list[dict[str, Any]], max_bytes: int
) -> tuple[list[str], int]:
    """Give each frame the number of its picture; return the pictures and one in how many."""
    numbers = [index for index, item in enumerate(frames) if item.strip is not None]
    texts = {i: base64.b64encode(frames[i].strip or b'').decode('ascii') for i in numbers}
    every = 1
    while sum(len(texts[i]) for i in numbers[::every]) > max_bytes and every < len(numbers):
        every += 1
    kept = numbers[::every]
    if sum(len(texts[i]) for i in kept) > max_bytes:
        kept = []
    for place, index in enumerate(kept):
        end = kept[place + 1] if place + 1 < len(kept) else len(entries)
        for entry in entries[index:end]:
            entry['s'] = place
    return [texts[i] for i in kept], every


def _truth_entries(
    ground_truth: VectorMap | None, poses: Sequence[FloatArray], origin: FloatArray
) -> list[dict[str, Any]]:
    """Return the elements of the whole map that some frame could see."""
    if ground_truth is None:
        return []
    if ground_truth.reference != 'map':
        raise DataError(
            f"ground truth of a drive is given in '{ground_truth.reference}'; expected 'map'"
        )
    centres = np.stack([pose[:2, 3] for pose in poses])
    result = []
    for element in ground_truth.elements:
        box = np.stack([element.vertices[:, :2].min(axis=0), element.vertices[:, :2].max(axis=0)])
        outside = np.maximum(np.maximum(box[0] - centres, centres - box[1]), 0.0)
        if float(np.linalg.norm(outside, axis=1).min()) <= _SEEN_M:
            result.append(_element_entry(element, np.eye(4), origin))
    return result
