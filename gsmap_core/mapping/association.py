"""Which measured line is of which element: by overlap, vertex for vertex, each claimed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely

from gsmap_core.categories import category_by_id
from gsmap_core.geometry.polylines import cumulative_length
from gsmap_core.mapping.lines import BoolArray, feet_on_line, normals_of, tangents
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.mapping.track import IntArray, Track
from gsmap_core.structures import FloatArray


@dataclass(frozen=True, eq=False)
class Overlap:
    """The part of an element that a measured line covers.

    Args:
        vertices: (N,) indices of the covered vertices of the element, rising.
        arcs: (N,) where on the measured line each of them has its foot [m].
        offsets: (N,) signed distance from vertex to foot, positive to the left of the element [m].
        is_reversed: the measured line runs against the element.
        distance_m: mean distance [m].
    """

    vertices: IntArray
    arcs: FloatArray
    offsets: FloatArray
    is_reversed: bool
    distance_m: float

    def without(self, dropped: BoolArray) -> Overlap:
        """Return the overlap without some of its vertices."""
        kept = ~dropped
        mean = float(np.abs(self.offsets[kept]).mean()) if kept.any() else np.inf
        return replace(
            self,
            vertices=self.vertices[kept],
            arcs=self.arcs[kept],
            offsets=self.offsets[kept],
            distance_m=mean,
        )


def overlap_of(measured: Track, track: Track, settings: FusionSettings) -> Overlap | None:
    """Find the vertices of an element that a measured line covers.

    A vertex is covered if its foot on the line is within the gate (some standard deviations of
    both), not beyond the line's ends, and the two run in one direction there (either way, but for
    directed categories).

    Returns:
        None where the overlap is too short to say anything: less than half of the shorter one, and
        less than the least length of an element.
    """
    line = measured.loop
    reach = settings.max_gate_m
    near = ((track.xy >= line.min(axis=0) - reach) & (track.xy <= line.max(axis=0) + reach)).all(1)
    places = np.flatnonzero(near)
    if len(places) < 2:
        return None
    directions = tangents(track.xy, track.closed)[places]
    feet = feet_on_line(track.xy[places], line)
    if not (feet.distance <= reach).any():
        return None
    cosine = (directions * feet.direction).sum(axis=1)
    is_directed = category_by_id(track.category).is_directed
    agrees = (cosine if is_directed else np.abs(cosine)) >= np.cos(settings.max_angle_rad)
    known = _loop_arcs(measured)
    information = np.interp(feet.arc, known, _looped(measured, measured.information))
    sigma = np.sqrt(1.0 / track.information[places] + 1.0 / information)
    gate = np.clip(settings.gate_sigmas * sigma, settings.min_gate_m, settings.max_gate_m)
    covered = agrees & (feet.distance <= gate) & (feet.overrun <= 0.5 * settings.spacing_m)
    if not _is_enough(int(covered.sum()), measured, len(places), settings):
        return None
    across = normals_of(directions)
    offsets = ((feet.xy - track.xy[places]) * across).sum(axis=1)
    return Overlap(
        vertices=places[covered],
        arcs=feet.arc[covered],
        offsets=offsets[covered],
        is_reversed=bool(cosine[covered].mean() < 0),
        distance_m=float(feet.distance[covered].mean()),
    )


def _is_enough(num_covered: int, measured: Track, num_near: int, settings: FusionSettings) -> bool:
    shorter_m = settings.spacing_m * min(len(measured), num_near)
    needed = min(settings.min_length_m, 0.5 * shorter_m) / settings.spacing_m
    return num_covered >= max(2.0, needed)


def _loop_arcs(track: Track) -> FloatArray:
    return cumulative_length(track.loop)


def _looped(track: Track, values: FloatArray) -> FloatArray:
    return np.concatenate([values, values[:1]]) if track.closed else values


@dataclass(frozen=True, eq=False)
class Match:
    """A measured line and an element that belong together.

    Args:
        measured: index of the measured line.
        track: index of the element.
        overlap: what they share, without what others have claimed.
    """

    measured: int
    track: int
    overlap: Overlap


def match_lines(
    measured: Sequence[Track], tracks: Sequence[Track], settings: FusionSettings
) -> tuple[list[Match], list[BoolArray]]:
    """Assign measured lines to elements, many to many.

    The closest pairs come first; what they share, vertices here and places there, is theirs. So a
    line that runs over two elements belongs to both, piece by piece, and of two lines beside each
    other each gets its own.

    Args:
        measured: measured lines.
        tracks: elements.
        settings: of the fusion.

    Returns:
        Matches in the order of their distances, and for every measured line which of its vertices
        are claimed.
    """
    candidates = [
        (overlap.distance_m, i, j, overlap)
        for i, line in enumerate(measured)
        for j, track in enumerate(tracks)
        if line.category == track.category
        for overlap in [overlap_of(line, track, settings)]
        if overlap is not None
    ]
    candidates.sort(key=lambda item: item[:3])
    free_vertices = [np.ones(len(track), dtype=bool) for track in tracks]
    claimed = [np.zeros(len(line), dtype=bool) for line in measured]
    arcs = [cumulative_length(line.xy) for line in measured]
    matches = []
    for _, i, j, overlap in candidates:
        nearest = np.abs(arcs[i][None] - overlap.arcs[:, None]).argmin(axis=1)
        dropped = ~free_vertices[j][overlap.vertices] | claimed[i][nearest]
        overlap = overlap.without(dropped)
        if not _is_enough(len(overlap.vertices), measured[i], len(free_vertices[j]), settings):
            continue
        free_vertices[j][overlap.vertices] = False
        low, high = overlap.arcs.min(), overlap.arcs.max()
        half = 0.5 * settings.spacing_m
        claimed[i] |= (arcs[i] >= low - half) & (arcs[i] <= high + half)
        matches.append(Match(i, j, overlap))
    return matches, claimed


def ring_overlap(first: Track, second: Track) -> float:
    """Return the area that two rings share over the area of the smaller one [0 to 1]."""
    a, b = polygon_of(first), polygon_of(second)
    smaller = min(a.area, b.area)
    return float(a.intersection(b).area / smaller) if smaller > 0 else 0.0


def polygon_of(track: Track) -> shapely.Polygon:
    """Return a ring as a valid polygon; of a ring that crosses itself the largest part."""
    polygon = shapely.Polygon(track.xy)
    if not polygon.is_valid:
        parts = shapely.get_parts(shapely.make_valid(polygon))
        areas = [part for part in parts if isinstance(part, shapely.Polygon)]
        polygon = max(areas, key=lambda part: part.area, default=shapely.Polygon())
    return polygon


def match_rings(
    measured: Sequence[Track], tracks: Sequence[Track], least_overlap: float = 0.4
) -> list[tuple[int, int]]:
    """Assign measured rings to rings of the map, one to one, largest overlap first.

    Returns:
        Pairs of indices.
    """
    candidates = []
    for i, ring in enumerate(measured):
        for j, track in enumerate(tracks):
            if ring.category != track.category or not track.closed:
                continue
            if (ring.low > track.high).any() or (track.low > ring.high).any():
                continue
            share = ring_overlap(ring, track)
            if share >= least_overlap:
                candidates.append((-share, i, j))
    candidates.sort()
    used: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for _, i, j in candidates:
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            pairs.append((i, j))
    return pairs
