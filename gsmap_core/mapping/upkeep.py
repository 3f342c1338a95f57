"""What keeps the elements of a map in order: duplicates merge, ends that meet are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gsmap_core.mapping.association import overlap_of, polygon_of, ring_overlap
from gsmap_core.mapping.fusion import prolonged, updated, updated_ring
from gsmap_core.mapping.lines import normals_of, tangents
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.mapping.track import Track, counter_clockwise, joined

#: Rings that share this much of the smaller one are one.
_SAME_RING = 0.5
#: Share of a duplicate that must lie on the other element.
_SAME_LINE = 0.6
#: Ends that coincide were cut at a tile border [m].
_CUT_M = 1e-3


def merged(first: Track, second: Track, settings: FusionSettings) -> Track | None:
    """Return one element where two stand for the same thing; None where they do not.

    Args:
        first: keeps its identity.
        second: the other one, of the same category.
        settings: of the fusion.
    """
    if first.closed and second.closed:
        if ring_overlap(first, second) < _SAME_RING:
            return None
        areas = (polygon_of(first).area, polygon_of(second).area)
        return updated_ring(first, second, settings, areas)
    if second.closed:
        return None
    overlap = overlap_of(second, first, settings)
    if overlap is None or overlap.distance_m > settings.min_gate_m:
        return None
    span = np.ptp(overlap.arcs)
    inside = settings.spacing_m * (len(overlap.vertices) - 1)
    # A short piece on a long element, or two long ones that share their ends.
    is_part = inside >= _SAME_LINE * min(first.length_m, second.length_m)
    ends = {0, len(first) - 1} & {int(overlap.vertices[0]), int(overlap.vertices[-1])}
    touches_end = bool(ends) and (
        overlap.arcs.min() <= settings.spacing_m
        or overlap.arcs.max() >= second.length_m - settings.spacing_m
    )
    if not (is_part or (touches_end and span >= settings.min_length_m)):
        return None
    result = updated(first, second, overlap, settings)
    # One thing is not seen twice in a frame because it was held twice.
    hits = first.hits.copy()
    hits[overlap.vertices] = np.maximum(
        hits[overlap.vertices],
        np.rint(
            np.interp(overlap.arcs, np.linspace(0.0, second.length_m, len(second)), second.hits)
        ).astype(np.int64),
    )
    result = replace(result, hits=hits)
    nothing = np.zeros(len(second), dtype=bool)
    return prolonged(result, second, overlap, nothing, settings)[0]


def strung_together(first: Track, second: Track, settings: FusionSettings) -> Track | None:
    """Return one element where an end of one meets an end of another; None where none do.

    Both ends must be confirmed and point the same way, or coincide: then they were cut there.
    """
    if first.closed or second.closed:
        return None
    for a in (first, first.reversed()):
        for b in (second, second.reversed()):
            if _meets(a, b, settings):
                gap = float(np.linalg.norm(b.xy[0] - a.xy[-1]))
                return joined([a, b.take(slice(1, None)) if gap < _CUT_M else b])
    return None


def _meets(first: Track, second: Track, settings: FusionSettings) -> bool:
    """Tell whether the end of one line goes on at the start of another."""
    step = second.xy[0] - first.xy[-1]
    gap = float(np.linalg.norm(step))
    if gap > 2.0 * settings.spacing_m:
        return False
    out, into = tangents(first.xy, False)[-1], tangents(second.xy, False)[0]
    agrees = float(out @ into) >= np.cos(settings.max_angle_rad)
    if gap < _CUT_M:
        return len(second) > 1 and (agrees or float(out @ into) > 0)
    least = settings.confirm_observations
    sideways = abs(float(step @ normals_of(out[None])[0]))
    is_ahead = float(step @ out) > -0.5 * settings.spacing_m
    return bool(
        agrees
        and is_ahead
        and sideways <= settings.min_gate_m
        and first.hits[-1] >= least
        and second.hits[0] >= least
    )


def all_strung_together(tracks: Sequence[Track], settings: FusionSettings) -> list[Track]:
    """Join every element with those that go on at its ends (`strung_together`).

    Only elements whose ends lie in the same or in neighbouring cells of a grid are compared, so
    that the time grows with their number and not with its square.
    """
    size = 2.0 * settings.spacing_m
    elements = dict(enumerate(tracks))
    cells: dict[tuple[int, int], set[int]] = {}

    def cells_of(track: Track) -> list[tuple[int, int]]:
        if track.closed:
            return []
        return [(int(x), int(y)) for x, y in np.floor(track.xy[[0, -1]] / size)]

    for key, track in elements.items():
        for cell in cells_of(track):
            cells.setdefault(cell, set()).add(key)
    pending = list(elements)
    while pending:
        key = pending.pop()
        if key not in elements:
            continue
        first = elements[key]
        near = {
            other
            for x, y in cells_of(first)
            for dx in (-1, 0, 1)
            for dy in (-1, 0, 1)
            for other in cells.get((x + dx, y + dy), ())
        }
        for other in sorted(near - {key}):
            second = elements[other]
            whole = None
            if first.category == second.category:
                whole = strung_together(first, second, settings)
            if whole is not None:
                for gone in (key, other):
                    for cell in cells_of(elements[gone]):
                        cells[cell].discard(gone)
                del elements[other]
                elements[key] = replace(whole, id=min(first.id, second.id))
                for cell in cells_of(elements[key]):
                    cells.setdefault(cell, set()).add(key)
                pending.append(key)
                break
    return [elements[key] for key in sorted(elements)]


def closed_up(track: Track, settings: FusionSettings) -> Track:
    """Return a ring where the two ends of a long open line meet; else the track itself."""
    if track.closed or track.length_m < 8.0 * settings.spacing_m:
        return track
    if not _meets(track, track, settings):
        return track
    ring = replace(track, closed=True)
    if float(np.linalg.norm(track.xy[0] - track.xy[-1])) < 0.5 * settings.spacing_m:
        ring = ring.take(slice(None, -1))
    return counter_clockwise(ring)


def put_in_order(
    tracks: Sequence[Track], changed: set[int], settings: FusionSettings
) -> tuple[list[Track], set[int]]:
    """Merge duplicates and join what belongs together.

    Args:
        tracks: elements that are near each other.
        changed: identities of those that changed; pairs of two others are left alone.
        settings: of the fusion.

    Returns:
        The elements now, and the identities of those that changed here or went. What merges keeps
        the older (smaller) identity.
    """
    pending = sorted(tracks, key=lambda t: t.id)
    touched: set[int] = set()
    active = set(changed)
    index = 0
    while index < len(pending):
        first = pending[index]
        other = index + 1
        while other < len(pending):
            second = pending[other]
            if (
                first.category == second.category
                and (first.id in active or second.id in active)
                and _are_near(first, second, settings)
            ):
                result = _one_of(first, second, settings)
                if result is not None:
                    touched |= {first.id, second.id}
                    active.add(first.id)
                    first = pending[index] = replace(result, id=first.id)
                    del pending[other]
                    other = index + 1
                    continue
            other += 1
        ring = closed_up(first, settings) if first.id in active else first
        if ring is not first:
            touched.add(first.id)
            pending[index] = ring
        index += 1
    return pending, touched


def _one_of(first: Track, second: Track, settings: FusionSettings) -> Track | None:
    """Return one element for two, by whichever way they belong together."""
    result = strung_together(first, second, settings)
    if result is not None:
        return result
    if len(second) > len(first) and not first.closed:
        return merged(second, first, settings)
    return merged(first, second, settings) or (
        merged(second, first, settings) if first.closed != second.closed else None
    )


def _are_near(first: Track, second: Track, settings: FusionSettings) -> bool:
    reach = 2.0 * settings.spacing_m
    return not ((first.low - reach > second.high).any() or (second.low - reach > first.high).any())
