"""What `gsmap export` does with maps: read one from wherever it lies, write it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from gsmap_core.calibration import Calibration, read_calibration
from gsmap_core.data.bag import BagReader
from gsmap_core.data.messages import VECTOR_MAP, global_map_from_message
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.geodesy import MapOrigin
from gsmap_core.mapfile import read_map_file
from gsmap_core.mapping.export import FORMATS, fused_map_of
from gsmap_core.mapping.global_map import GlobalMap, read_stored_map
from gsmap_core.mapping.store import JOURNAL
from gsmap_core.resources import resolve_weights
from gsmap_core.structures import VectorMap

_BUILDER_TOPIC = '/map_builder/map'
_ENDINGS = ('.map.json', '.mcap', '.db3', '.json')


def export_map(args: argparse.Namespace) -> int:
    """Write a map; returns the exit code.

    Raises:
        ConfigError: the origin has another number of values.
        DataError: nothing readable is there, or the file cannot be written.
    """
    origin = origin_of(args.origin)
    source = Path(args.source)
    fused = read_map(source, args.topic, args.weights)
    write, ending = FORMATS[args.to]
    target = Path(args.out) if args.out else _beside(source, ending)
    if target.resolve() == source.resolve():
        raise ConfigError(f'--out {target}: would overwrite the source; give another name')
    write(target, fused, origin)
    summary = {
        'source': str(source),
        'format': args.to,
        'elements': len(fused),
        'vertices': sum(len(element.vertices) for element in fused.elements),
        'origin': None if origin is None else vars(origin),
        'out': str(target),
    }
    if args.json:
        print(json.dumps(summary))
    else:
        is_geographic = origin is not None and args.to != 'map.json'
        where = 'latitude and longitude' if is_geographic else 'metres of the map frame'
        print(
            f'{summary["elements"]} elements, {summary["vertices"]} vertices ({where}): '
            f'wrote {target}'
        )
    return 0


def origin_of(values: Sequence[float] | None) -> MapOrigin | None:
    """Return the origin that `--origin` gives.

    Raises:
        ConfigError: not two or three values, or one is out of range.
    """
    if values is None:
        return None
    if len(values) not in (2, 3):
        raise ConfigError(
            f'--origin has {len(values)} values; expected LATITUDE LONGITUDE [ALTITUDE]'
        )
    return MapOrigin(*values)


def read_map(source: Path, topic: str | None = None, weights: str | None = None) -> VectorMap:
    """Return the map at a path, in the map frame.

    Args:
        source: map file, folder of a map builder, or bag.
        topic: of the bag; None: the only one of its type, or that of the map builder.
        weights: checkpoint whose calibration is applied where local maps are fused.

    Raises:
        DataError: nothing readable is there.
    """
    if source.is_file() and source.suffix == '.json':
        maps = read_map_file(source)
        fused = fused_map_of(maps)
        return fused if fused is not None else fuse(maps, weights, source)
    for folder in (source, source / 'tiles'):
        if (folder / JOURNAL).is_file():
            return read_stored_map(folder)
    if source.exists():
        return _map_in_bag(source, topic)
    raise DataError(
        f"'{source}' is not there; give a map file (*.map.json), the folder of a map builder, or "
        'a bag'
    )


def fuse(maps: Sequence[VectorMap], weights: str | None, source: Path) -> VectorMap:
    """Fuse local maps in the order of their stamps, drive by drive.

    Raises:
        DataError: there are none, or one has no pose.
    """
    if not maps:
        raise DataError(f"'{source}' holds no frame; expected a map")
    calibration = Calibration()
    if weights:
        calibration = read_calibration(resolve_weights(weights)) or calibration
    result = GlobalMap(calibration=calibration)
    scene = maps[0].scene
    for local_map in sorted(maps, key=lambda m: (m.scene, m.stamp_ns)):
        if local_map.scene != scene:
            scene = local_map.scene
            result.start_submap()
        result.integrate(local_map)
    return result.to_vector_map()


def _map_in_bag(path: Path, topic: str | None) -> VectorMap:
    """Return the last map on a topic of a bag."""
    reader = BagReader(path)
    names = [name for name, info in reader.topics.items() if info.type == VECTOR_MAP]
    if topic is None:
        topic = _BUILDER_TOPIC if _BUILDER_TOPIC in names else None
        if topic is None and len(names) == 1:
            topic = names[0]
    if topic not in names:
        raise DataError(
            f"'{path}': topic {topic!r} is no map; its topics of type {VECTOR_MAP} are "
            f'{", ".join(names) or "none"}: choose with --topic'
        )
    last = None
    for raw in reader.messages([topic]):
        last = raw
    if last is None:
        raise DataError(f"'{path}': topic '{topic}' holds no message")
    return global_map_from_message(reader.deserialise(last.data, topic), where=f'{path}, {topic}')


def _beside(source: Path, ending: str) -> Path:
    name = source.name
    for known in _ENDINGS:
        if name.endswith(known):
            name = name.removesuffix(known)
            break
    return source.with_name(name + ending)
