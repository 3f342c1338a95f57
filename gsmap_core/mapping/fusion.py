"""The recursive update: a measured line moves, confirms and prolongs the element it is of.

Vertices are fused in information form. Across the line the foot on the measured line is the
measurement: with prior information I and measured information J the vertex moves by J / (I + J)
of the distance, and I becomes I + J (a Kalman filter of a thing that stands still). Errors of
neighbouring vertices are not modelled as dependent, but for what is prolonged (see `prolonged`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gsmap_core.geometry.polylines import cumulative_length
from gsmap_core.mapping.association import Overlap
from gsmap_core.mapping.lines import BoolArray, normals_of, ring_correspondence, tangents
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.mapping.track import Track, at_arcs, counter_clockwise, evenly, joined
from gsmap_core.structures import FloatArray

#: A predicted line that lies beside the fused one does so for about this length [m].
_ERROR_LENGTH_M = 10.0
#: Vertices at an end that may be missed before nothing more is put behind them.
_LOOSE_END = 2
#: A cut-off ring gives way to another one that shows this much more of it.
_LARGER = 1.1


def updated(track: Track, measured: Track, overlap: Overlap, settings: FusionSettings) -> Track:
    """Return an element after a measured line: the covered vertices moved, surer, seen once more.

    Args:
        track: the element.
        measured: the line; its hits are added to those of the element.
        overlap: what they share.
        settings: of the fusion.
    """
    arcs = cumulative_length(measured.loop)
    sampled = {
        name: np.interp(
            overlap.arcs,
            arcs,
            np.concatenate([values, values[:1]]) if measured.closed else values,
        )
        for name, values in (
            ('information', measured.information),
            ('along', measured.information_along),
            ('z', measured.z),
            ('evidence', measured.evidence),
            ('hits', measured.hits),
        )
    }
    places = overlap.vertices
    gain = sampled['information'] / (track.information[places] + sampled['information'])
    across = normals_of(tangents(track.xy, track.closed))[places]
    xy, z = track.xy.copy(), track.z.copy()
    xy[places] += (gain * overlap.offsets)[:, None] * across
    z[places] = _fused_height(z[places], sampled['z'], gain)
    information, along = track.information.copy(), track.information_along.copy()
    information[places] += sampled['information']
    along[places] += sampled['along']
    hits, evidence = track.hits.copy(), track.evidence.copy()
    hits[places] += np.maximum(1, np.rint(sampled['hits'])).astype(np.int64)
    evidence[places] = np.minimum(evidence[places] + sampled['evidence'], settings.max_evidence)
    return replace(
        track,
        xy=xy,
        z=z,
        information=information,
        information_along=along,
        hits=hits,
        evidence=evidence,
    )


def _fused_height(known: FloatArray, measured: FloatArray, gain: FloatArray) -> FloatArray:
    """Return heights moved towards measured ones; a height of one side only is taken as it is."""
    fused = np.where(np.isnan(known), measured, known + gain * (measured - known))
    return np.where(np.isnan(measured), known, fused)


def prolonged(
    track: Track,
    measured: Track,
    overlap: Overlap,
    claimed: BoolArray,
    settings: FusionSettings,
) -> tuple[Track, BoolArray, int]:
    """Put what a measured line shows beyond the ends of an open element behind them.

    The new vertices are shifted by what the line was off at the end, less and less with the
    distance: a line that lies beside the true one does so for some metres.

    Args:
        track: the element, already updated.
        measured: the open line.
        overlap: what they share.
        claimed: (P,) vertices of the line that belong to some element; they end the prolongation.
        settings: of the fusion.

    Returns:
        The element, the vertices of the line that are claimed now, and by how much the indices of
        the element's vertices have moved.
    """
    if track.closed or measured.closed or not len(overlap.vertices):
        return track, claimed, 0
    if overlap.vertices[0] < 0 or overlap.vertices[-1] >= len(track):
        # Its end was loose, and another line has put something else there.
        return track, claimed, 0
    claimed, moved = claimed.copy(), 0
    arcs = cumulative_length(measured.xy)
    for is_front in (False, True):
        # The front of an element is the end of its reversed self.
        shape = track.reversed() if is_front else track
        rank = len(track) - 1 - overlap.vertices if is_front else overlap.vertices
        last = int(rank.argmax())
        runs_backwards = overlap.is_reversed != is_front
        beyond = _free_beyond(arcs, float(overlap.arcs[last]), runs_backwards, claimed, settings)
        loose = shape.take(slice(int(rank[last]) + 1, None))
        is_settled = bool((loose.hits >= settings.confirm_observations).any())
        if not len(beyond) or len(loose) > _LOOSE_END or is_settled:
            continue
        tail = measured.take(beyond)
        end = shape.xy[int(rank[last])]
        foot = np.array([np.interp(overlap.arcs[last], arcs, c) for c in measured.xy.T])
        steps = np.linalg.norm(tail.xy - foot, axis=1)
        fade = np.exp(-steps / _ERROR_LENGTH_M)
        tail = replace(tail, xy=tail.xy + fade[:, None] * (end - foot))
        shape = joined([shape.take(slice(0, int(rank[last]) + 1)), tail])
        track = shape.reversed() if is_front else shape
        moved = len(tail) - len(loose) if is_front else 0
        claimed[beyond] = True
    return track, claimed, moved


def _free_beyond(
    arcs: FloatArray,
    arc: float,
    runs_backwards: bool,
    claimed: BoolArray,
    settings: FusionSettings,
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the vertices of a line beyond an arc, in running order, up to the first claimed."""
    half = 0.5 * settings.spacing_m
    if runs_backwards:
        places = np.flatnonzero(arcs < arc - half)[::-1]
    else:
        places = np.flatnonzero(arcs > arc + half)
    taken = np.flatnonzero(claimed[places])
    return places[: taken[0]] if len(taken) else places


def updated_ring(
    track: Track, measured: Track, settings: FusionSettings, areas: tuple[float, float]
) -> Track:
    """Return a ring after a measured one.

    Vertices are paired by their order around the rings, in the numbering that fits best. A ring
    that was cut off by the border of the view only confirms one that was seen whole; of two that
    were cut off, the larger gives the shape.

    Args:
        track: ring of the map.
        measured: measured ring.
        settings: of the fusion.
        areas: of both [m^2].
    """
    hits = track.hits + measured.hits.max()
    evidence = np.minimum(track.evidence + measured.evidence.max(), settings.max_evidence)
    seen = replace(track, hits=hits, evidence=evidence)
    if measured.clipped and (not track.clipped or areas[1] < areas[0] / _LARGER):
        return seen
    if track.clipped and (not measured.clipped or areas[1] > areas[0] * _LARGER):
        shape = replace(measured, id=track.id)
        count = len(shape)
        return replace(
            shape,
            hits=np.full(count, int(hits.max()), dtype=np.int64),
            evidence=np.full(count, float(evidence.max())),
        )
    other = evenly(measured, measured.length_m / len(track))
    if len(other) != len(track):
        length = measured.length_m
        other = at_arcs(measured, np.arange(len(track)) * (length / len(track)))
    even = evenly(seen, seen.length_m / len(seen) * (1 + 1e-9))
    if len(even) != len(seen):
        even = at_arcs(seen, np.arange(len(seen)) * (seen.length_m / len(seen)))
    shift, backwards = ring_correspondence(even.xy, other.xy)
    order = np.arange(len(other))[::-1] if backwards else np.arange(len(other))
    other = other.take(np.roll(order, shift))
    gain = other.information / (even.information + other.information)
    return counter_clockwise(
        replace(
            even,
            xy=even.xy + gain[:, None] * (other.xy - even.xy),
            z=_fused_height(even.z, other.z, gain),
            information=even.information + other.information,
            information_along=even.information_along + other.information_along,
        )
    )


def runs_of(
    keep: BoolArray, closed: bool
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Return the runs of kept vertices, in order; those of a ring may go over its beginning."""
    places = np.flatnonzero(keep)
    if not len(places):
        return []
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    if closed and len(runs) > 1 and runs[0][0] == 0 and runs[-1][-1] == len(keep) - 1:
        runs = [*runs[1:-1], np.concatenate([runs[-1], runs[0]])]
    return runs


def missed(track: Track, visible: BoolArray, weight: float, settings: FusionSettings) -> Track:
    """Return an element after a frame that should have seen some of its vertices and did not."""
    loss = weight * settings.miss_evidence
    return replace(track, evidence=track.evidence + np.where(visible, loss, 0.0))


def survivors(track: Track, settings: FusionSettings) -> list[Track]:
    """Return what is left of an element when the vertices that are given up are gone.

    A gap in the middle leaves several pieces, the longest first; a ring is given up as a whole.
    """
    keep = track.evidence >= settings.remove_below
    if keep.all():
        return [track]
    if track.closed:
        return [track] if 2 * int(keep.sum()) > len(track) else []
    pieces = [track.take(run) for run in runs_of(keep, closed=False) if len(run) >= 2]
    pieces.sort(key=len, reverse=True)
    return pieces
