"""Map files (`*.map.json`): predictions and ground truth on disk, one format for both.

`{"version": 1, "reference": "ego", "range": {"x": [-30, 30], "y": [-15, 15]}, "frames": [{"id":
"...", "stamp_ns": 0, "scene": "...", "map_from_base": 4x4, "elements": [{"category": "divider",
"vertices": [[x, y], ...], "closed": false, "score": 0.93, "covariance": [[xx, xy, yy], ...], "id":
7}]}]}`; `scene`, `map_from_base`, `score`, `covariance` and element `id` may be absent; vertices
may have a z. A closed element does not repeat its first vertex. A fused map may have `origin`
beside the range: where its frame lies on the earth.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.atomic_files import atomic_text_file
from gsmap_core.categories import category_by_name
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.structures import FloatArray, MapElement, PerceptionRange, VectorMap

FORMAT_VERSION = 1
#: References a local map may be stored in.
FILE_REFERENCES: tuple[str, ...] = ('ego', 'lidar')

_TOP_KEYS = ('version', 'reference', 'range', 'frames')
_TOP_OPTIONAL = ('origin',)
_FRAME_KEYS = ('id', 'stamp_ns', 'elements')
_FRAME_OPTIONAL = ('scene', 'map_from_base')
_ELEMENT_KEYS = ('category', 'vertices', 'closed')
_ELEMENT_OPTIONAL = ('score', 'covariance', 'id')


def write_map_file(
    path: str | os.PathLike[str],
    maps: Iterable[VectorMap],
    *,
    reference: str = 'ego',
    perception_range: PerceptionRange | None = None,
    origin: Mapping[str, float] | None = None,
) -> int:
    """Write local maps, frame by frame, into a map file.

    The file appears under its name only when it is complete; an existing one is then replaced.
    Frames are written as they come, so a generator of any length needs the memory of one frame.

    Args:
        path: file to write; its folder is made if needed.
        maps: local maps of one reference and one range; the header takes both from the first.
        reference: reference written when there is no frame at all.
        perception_range: range written when there is no frame at all; None: the default range.
        origin: of the map frame on the earth, written as it is; None: not said.

    Returns:
        Number of frames written.

    Raises:
        DataError: a map has another reference or range than the first, or is in the map frame.
    """
    target = Path(path)
    with atomic_text_file(target) as stream:
        count = 0
        header = (reference, perception_range or PerceptionRange())
        for vector_map in maps:
            if count == 0:
                header = (vector_map.reference, vector_map.range)
                stream.write(_header_text(target, *header, origin))
            if (vector_map.reference, vector_map.range) != header:
                raise DataError(
                    f"{target}: frame '{vector_map.sample_id or vector_map.stamp_ns}' has "
                    f'reference '
                    f"'{vector_map.reference}' and {vector_map.range}; the first frame has "
                    f"'{header[0]}' and "
                    f'{header[1]}; one file holds one of each'
                )
            stream.write('\n' if count == 0 else ',\n')
            stream.write(json.dumps(_frame_to_json(vector_map), separators=(', ', ': ')))
            count += 1
        if count == 0:
            stream.write(_header_text(target, *header, origin))
        stream.write('\n]}\n')
    return count


@dataclass(frozen=True)
class BadFrame:
    """A frame of a map file that is not allowed.

    Args:
        index: its place in the file.
        frame: its id, else its stamp; empty where it has neither.
        scene: its scene, or empty.
        message: what is wrong, with file, frame and element.
    """

    index: int
    frame: str
    scene: str
    message: str


def read_map_file(
    path: str | os.PathLike[str], bad_frames: list[BadFrame] | None = None
) -> list[VectorMap]:
    """Read a map file.

    Args:
        path: a `*.map.json`.
        bad_frames: frames that are not allowed are appended here and left out; None: the first one
            is an error.

    Returns:
        One local map per frame, in file order. A frame's `id` becomes `sample_id`.

    Raises:
        DataError: the file is missing, truncated, not JSON, of another version, or a frame or
            element in it is not allowed; the message names the file, the frame's id and the
            element's index.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise DataError(f'{source}: no such file; give a map file (*.map.json)') from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{source}: cannot be read ({error}); expected a map file') from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f'{source}: not complete JSON at line {error.lineno}, column {error.colno} '
            f'({error.msg}); the file is '
            'truncated or not a map file; write it again'
        ) from error
    where = str(source)
    document = _mapping(content, where)
    version = document.get('version')
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise DataError(f'{where}: version is {version!r}; expected {FORMAT_VERSION}')
    _check_keys(document, _TOP_KEYS, _TOP_OPTIONAL, where)
    reference = document['reference']
    if reference not in FILE_REFERENCES:
        raise DataError(
            f'{where}: reference is {reference!r}; expected one of {", ".join(FILE_REFERENCES)}'
        )
    perception_range = _range_from_json(document['range'], f'{where}: range')
    frames = document['frames']
    if not isinstance(frames, list):
        raise DataError(f'{where}: frames is a {type(frames).__name__}; expected a list')
    result = []
    for index, frame in enumerate(frames):
        try:
            result.append(_frame_from_json(frame, reference, perception_range, where, index))
        except DataError as error:
            if bad_frames is None:
                raise
            entry = frame if isinstance(frame, dict) else {}
            name = str(entry.get('id') or entry.get('stamp_ns', ''))
            bad_frames.append(BadFrame(index, name, str(entry.get('scene', '')), str(error)))
    return result


def _header_text(
    target: Path,
    reference: str,
    perception_range: PerceptionRange,
    origin: Mapping[str, float] | None,
) -> str:
    if reference not in FILE_REFERENCES:
        raise DataError(
            f'{target}: a map file holds local maps in {" or ".join(FILE_REFERENCES)}; got '
            f"reference '{reference}'"
        )
    limits = {
        'x': [perception_range.x_min, perception_range.x_max],
        'y': [perception_range.y_min, perception_range.y_max],
    }
    return (
        f'{{"version": {FORMAT_VERSION}, "reference": {json.dumps(reference)}, '
        f'"range": {json.dumps(limits)}, '
        + ('' if origin is None else f'"origin": {json.dumps(dict(origin))}, ')
        + '"frames": ['
    )


def _frame_to_json(vector_map: VectorMap) -> dict[str, Any]:
    frame: dict[str, Any] = {'id': vector_map.sample_id, 'stamp_ns': int(vector_map.stamp_ns)}
    if vector_map.scene:
        frame['scene'] = vector_map.scene
    if vector_map.map_from_base is not None:
        frame['map_from_base'] = vector_map.map_from_base.tolist()
    frame['elements'] = [_element_to_json(element) for element in vector_map.elements]
    return frame


def _element_to_json(element: MapElement) -> dict[str, Any]:
    entry: dict[str, Any] = {
        'category': element.category_name,
        'vertices': element.vertices.tolist(),
        'closed': bool(element.closed),
    }
    if element.score is not None:
        entry['score'] = float(element.score)
    if element.covariance is not None:
        entry['covariance'] = element.covariance.tolist()
    if element.id is not None:
        entry['id'] = int(element.id)
    return entry


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f'{where}: holds a {type(value).__name__}; expected an object {{...}}')
    return value


def _check_keys(
    value: dict[str, Any], required: tuple[str, ...], optional: tuple[str, ...], where: str
) -> None:
    missing = [key for key in required if key not in value]
    if missing:
        raise DataError(f"{where}: key '{missing[0]}' is missing; expected {', '.join(required)}")
    unknown = [key for key in value if key not in required and key not in optional]
    if unknown:
        raise DataError(
            f"{where}: key '{unknown[0]}' is unknown; expected {', '.join(required + optional)}"
        )


def _array(value: Any, where: str) -> FloatArray:
    try:
        result = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f'{where}: not a table of numbers with rows of one length; expected [[x, y], ...]'
        ) from None
    return result


def _range_from_json(value: Any, where: str) -> PerceptionRange:
    limits = _mapping(value, where)
    _check_keys(limits, ('x', 'y'), (), where)
    numbers: list[float] = []
    for axis in ('x', 'y'):
        pair = _array(limits[axis], f'{where}.{axis}')
        if pair.shape != (2,) or not np.isfinite(pair).all():
            raise DataError(
                f'{where}.{axis} is {limits[axis]!r}; expected [minimum, maximum] in metres'
            )
        numbers += pair.tolist()
    try:
        return PerceptionRange(*numbers)
    except DataError as error:
        raise DataError(f'{where}: {error}') from error


def _frame_from_json(
    value: Any, reference: str, perception_range: PerceptionRange, path: str, index: int
) -> VectorMap:
    where = f'{path}: frame {index}'
    frame = _mapping(value, where)
    where += f' (id {frame["id"]!r})' if 'id' in frame else ''
    _check_keys(frame, _FRAME_KEYS, _FRAME_OPTIONAL, where)
    for key in ('id', 'scene'):
        if not isinstance(frame.get(key, ''), str):
            raise DataError(f'{where}: {key} is {frame[key]!r}; expected a text')
    stamp = frame['stamp_ns']
    if not isinstance(stamp, int) or isinstance(stamp, bool):
        raise DataError(f'{where}: stamp_ns is {stamp!r}; expected whole nanoseconds')
    elements = frame['elements']
    if not isinstance(elements, list):
        raise DataError(f'{where}: elements is a {type(elements).__name__}; expected a list')
    pose = frame.get('map_from_base')
    try:
        return VectorMap(
            elements=tuple(
                _element_from_json(element, f'{where}: element {number}')
                for number, element in enumerate(elements)
            ),
            stamp_ns=stamp,
            range=perception_range,
            reference=reference,
            sample_id=frame['id'],
            scene=frame.get('scene', ''),
            map_from_base=None if pose is None else _array(pose, f'{where}: map_from_base'),
        )
    except DataError as error:
        raise DataError(_prefixed(error, where)) from error


def _element_from_json(value: Any, where: str) -> MapElement:
    element = _mapping(value, where)
    _check_keys(element, _ELEMENT_KEYS, _ELEMENT_OPTIONAL, where)
    closed, score, identity = element['closed'], element.get('score'), element.get('id')
    if not isinstance(closed, bool):
        raise DataError(f'{where}: closed is {closed!r}; expected true or false')
    if score is not None:
        if isinstance(score, bool) or not isinstance(score, int | float) or math.isnan(score):
            raise DataError(f'{where}: score is {score!r}; expected a number in [0, 1]')
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, int)):
        raise DataError(f'{where}: id is {identity!r}; expected a whole number')
    covariance = element.get('covariance')
    try:
        return MapElement(
            category=category_by_name(element['category']).id,
            vertices=_array(element['vertices'], f'{where}: vertices'),
            closed=closed,
            score=None if score is None else float(score),
            covariance=None if covariance is None else _array(covariance, f'{where}: covariance'),
            id=identity,
        )
    except (DataError, ConfigError, TypeError) as error:
        raise DataError(_prefixed(error, where)) from error


def _prefixed(error: Exception, where: str) -> str:
    text = str(error)
    return text if text.startswith(where) else f'{where}: {text}'
