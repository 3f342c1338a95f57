"""Squares of the map frame: which elements lie in which, and elements cut at their borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gsmap_core.geometry.polylines import cumulative_length
from gsmap_core.mapping.track import Track, at_arcs, joined
from gsmap_core.structures import FloatArray

#: Column and row: x and y of the lower corner, in tile sizes.
Tile = tuple[int, int]


def tile_of(point: npt.ArrayLike, size_m: float) -> Tile:
    """Return the tile that a point lies in."""
    x, y = np.floor(np.asarray(point, dtype=np.float64)[:2] / size_m)
    return int(x), int(y)


def tiles_of(track: Track, size_m: float) -> set[Tile]:
    """Return the tiles that the pieces of an element belong to; a ring belongs to one."""
    return {tile for tile, _ in cut_at_borders(track, size_m)}


def distance_to_tile(point: FloatArray, tile: Tile, size_m: float) -> float:
    """Return the distance from a point to the nearest place of a tile [m]."""
    low = np.array(tile, dtype=np.float64) * size_m
    outside = np.maximum(np.maximum(low - point, point - (low + size_m)), 0.0)
    return float(np.hypot(*outside))


def tiles_around(point: FloatArray, radius_m: float, size_m: float) -> set[Tile]:
    """Return the tiles of which some place lies within a radius of a point."""
    low = np.floor((point - radius_m) / size_m).astype(int)
    high = np.floor((point + radius_m) / size_m).astype(int)
    return {
        (x, y)
        for x in range(int(low[0]), int(high[0]) + 1)
        for y in range(int(low[1]), int(high[1]) + 1)
        if distance_to_tile(point, (x, y), size_m) <= radius_m
    }


def cut_at_borders(track: Track, size_m: float) -> list[tuple[Tile, Track]]:
    """Cut an element at the borders of tiles.

    Both pieces keep the vertex on the border and the identity, so that they can be joined again.
    Rings are not cut.

    Returns:
        Tile and piece, in the order of the line.
    """
    if track.closed:
        return [(tile_of(track.xy.mean(axis=0), size_m), track)]
    cells = np.floor(track.xy / size_m)
    if (cells == cells[0]).all():
        return [((int(cells[0, 0]), int(cells[0, 1])), track)]
    arcs = cumulative_length(track.xy)
    added = _border_arcs(track.xy, arcs, size_m)
    every = np.unique(np.concatenate([arcs, added]))
    # A vertex on the border is not doubled by rounding.
    every = every[np.concatenate([[True], np.diff(every) > 1e-9])]
    fine = at_arcs(track, every)
    middles = 0.5 * (fine.xy[:-1] + fine.xy[1:])
    edges = np.floor(middles / size_m).astype(int)
    starts = np.flatnonzero((np.diff(edges, axis=0) != 0).any(axis=1)) + 1
    bounds = [0, *starts.tolist(), len(edges)]
    return [
        ((int(edges[a, 0]), int(edges[a, 1])), fine.take(slice(a, b + 1)))
        for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def _border_arcs(xy: FloatArray, arcs: FloatArray, size_m: float) -> FloatArray:
    """Return where a line crosses borders of tiles, as arc lengths [m]."""
    found = []
    for axis in range(2):
        cells = np.floor(xy[:, axis] / size_m)
        for edge in np.flatnonzero(np.diff(cells)):
            a, b = xy[edge, axis], xy[edge + 1, axis]
            low, high = sorted((cells[edge], cells[edge + 1]))
            for border in np.arange(low + 1, high + 1) * size_m:
                share = (border - a) / (b - a)
                found.append(arcs[edge] + share * (arcs[edge + 1] - arcs[edge]))
    return np.array(found)


def rejoined(pieces: Sequence[Track]) -> list[Track]:
    """Join pieces whose ends coincide to the last bit: they were cut there.

    What is joined has the smallest identity of its pieces. Rings, and pieces whose neighbour is
    missing, are returned as they are. An identity may occur more than once in the result.
    """
    result = [piece for piece in pieces if piece.closed]
    waiting = {index: piece for index, piece in enumerate(pieces) if not piece.closed}
    starts: dict[tuple[int, bytes], list[int]] = {}
    ends: dict[tuple[int, bytes], list[int]] = {}
    for index, piece in waiting.items():
        starts.setdefault(_place(piece, 0), []).append(index)
        ends.setdefault(_place(piece, -1), []).append(index)
    while waiting:
        first, line = next(iter(waiting.items()))
        del waiting[first]
        while (after := _take(starts, _place(line, -1), waiting)) is not None:
            line = _chained(line, after)
        while (before := _take(ends, _place(line, 0), waiting)) is not None:
            line = _chained(before, line)
        result.append(line)
    return result


def _place(track: Track, vertex: int) -> tuple[int, bytes]:
    return track.category, track.xy[vertex].tobytes()


def _take(
    places: dict[tuple[int, bytes], list[int]],
    place: tuple[int, bytes],
    waiting: dict[int, Track],
) -> Track | None:
    """Take a piece that has its end at a place and still waits."""
    for index in places.get(place, ()):
        if index in waiting:
            return waiting.pop(index)
    return None


def _chained(first: Track, second: Track) -> Track:
    whole = joined([first, second.take(slice(1, None))])
    return replace(whole, id=min(first.id, second.id))
