"""Centre lines of lanes inside a patch, joined along the ways a car can drive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import shapely

from gsmap_core.data.groundtruth_patch import Patch, line_parts
from gsmap_core.data.groundtruth_rings import concatenate_lines
from gsmap_core.data.vector_layers import Layer

#: Joined centre lines lose vertices that are nearer to the rest than this [m].
SIMPLIFY_M = 0.2


def centerline_paths(
    lanes: Layer, successors: Mapping[str, Sequence[str]], patch: Patch
) -> list[shapely.LineString]:
    """Return every way through the lanes of a patch, from where it begins to where it ends.

    A lane cut by the border into several pieces keeps them together. Lanes that several ways have
    in common are in all of them; a ring of lanes without a way in is in none.

    Args:
        lanes: centre lines in the map, in the direction of driving.
        successors: names of the lanes that follow a lane.
        patch: what to keep.

    Returns:
        Lines in the reference frame, simplified by `SIMPLIFY_M`, in the order of the lanes they
        begin with.

    Source: MapTRv2's construction of nuScenes centre lines.
    """
    pieces: dict[str, list[shapely.LineString]] = {}
    for index in lanes.indices_near(patch.map_polygon):
        inside = line_parts(shapely.intersection(lanes.geometries[index], patch.map_polygon))
        if inside:
            pieces[lanes.names[index]] = [patch.to_local(piece) for piece in inside]
    following = {
        name: [other for other in successors.get(name, ()) if other in pieces] for name in pieces
    }
    entered = {other for others in following.values() for other in others}
    paths = []
    for name in pieces:
        if name not in entered:
            for way in _ways_from(name, following):
                line = concatenate_lines([piece for lane in way for piece in pieces[lane]])
                if line is not None:
                    paths.append(shapely.simplify(line, SIMPLIFY_M, preserve_topology=True))
    return paths


def _ways_from(first: str, following: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Yield the ways from a lane to the lanes that none follows, without driving in circles."""
    stack = [[first]]
    while stack:
        way = stack.pop()
        onward = [name for name in following[way[-1]] if name not in way]
        if not following[way[-1]]:
            yield way
        stack += [[*way, name] for name in reversed(onward)]
