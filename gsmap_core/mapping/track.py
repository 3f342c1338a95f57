"""One element of the fused map while it grows: vertices with what is known about each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gsmap_core.geometry.polylines import cumulative_length
from gsmap_core.mapping.lines import normals_of, signed_area, tangents, without_repeats
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.structures import FloatArray, MapElement

IntArray = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
#: Fields of a track that have one entry per vertex.
VERTEX_FIELDS = ('xy', 'z', 'information', 'information_along', 'hits', 'evidence')


@dataclass(frozen=True, eq=False)
class Track:
    """An element of the fused map, in the map frame.

    Across its line a vertex is a Gaussian in information form. Along it a vertex has no true place
    (any sampling of a line is the same line), so that sightings move it across only.

    Args:
        id: identity, from 1.
        category: category id.
        closed: a ring; it runs counter-clockwise and does not repeat its first vertex.
        xy: (P, 2) vertices [m].
        z: (P,) heights [m], NaN where no frame had one.
        information: (P,) inverse variance across the line [1/m^2].
        information_along: (P,) along it.
        hits: (P,) frames that saw the vertex.
        evidence: (P,) log-odds that it is there.
        clipped: a ring of which only a part has been in view.
    """

    id: int
    category: int
    closed: bool
    xy: FloatArray
    z: FloatArray
    information: FloatArray
    information_along: FloatArray
    hits: IntArray
    evidence: FloatArray
    clipped: bool = False

    def __len__(self) -> int:
        """Return the number of vertices."""
        return len(self.xy)

    @property
    def loop(self) -> FloatArray:
        """(P or P + 1, 2) vertices; a ring repeats its first one."""
        return np.concatenate([self.xy, self.xy[:1]]) if self.closed else self.xy

    @property
    def length_m(self) -> float:
        """Length of the line [m]."""
        return float(cumulative_length(self.loop)[-1])

    @property
    def low(self) -> FloatArray:
        """(2,) least x and y [m]."""
        return np.asarray(self.xy.min(axis=0))

    @property
    def high(self) -> FloatArray:
        """(2,) greatest x and y [m]."""
        return np.asarray(self.xy.max(axis=0))

    def take(self, index: object) -> Track:
        """Return the track with some of its vertices, in the order of the index."""
        return replace(self, **{name: getattr(self, name)[index] for name in VERTEX_FIELDS})

    def reversed(self) -> Track:
        """Return the track in the other direction."""
        return self.take(slice(None, None, -1))

    def confirmed_span(self, settings: FusionSettings) -> tuple[int, int] | None:
        """Return the range of vertices from the first to the last confirmed one.

        Returns:
            Start and end (exclusive), at least two vertices (a ring: all of them); None where the
            element is not confirmed.
        """
        good = (self.hits >= settings.confirm_observations) & (
            self.evidence >= settings.confirm_evidence
        )
        if self.closed:
            return (0, len(self)) if 2 * int(good.sum()) > len(self) else None
        places = np.flatnonzero(good)
        if len(places) < 2:
            return None
        return int(places[0]), int(places[-1]) + 1

    def to_element(self, settings: FusionSettings) -> MapElement | None:
        """Return the confirmed part as a map element with covariances; None where nothing is.

        Its score is the probability that it is there, by the evidence of its vertices.
        """
        span = self.confirmed_span(settings)
        if span is None:
            return None
        part = self.take(slice(*span))
        has_z = not np.isnan(part.z).any()
        return MapElement(
            category=part.category,
            vertices=np.column_stack([part.xy, part.z]) if has_z else part.xy,
            closed=part.closed,
            score=float(1.0 / (1.0 + np.exp(-part.evidence.mean()))),
            covariance=part.covariance(settings.sigma_floor_m),
            id=part.id,
            num_observations=int(part.hits.max()),
        )

    def covariance(self, sigma_floor_m: float) -> FloatArray:
        """Return the (P, 3) covariances xx, xy, yy of the vertices [m^2]."""
        along = tangents(self.xy, self.closed)
        across = normals_of(along)
        floor = sigma_floor_m**2
        result = np.zeros((len(self), 3))
        pairs = ((across, self.information), (along, self.information_along))
        for axis, information in pairs:
            variance = np.maximum(1.0 / information, floor)
            result[:, 0] += variance * axis[:, 0] ** 2
            result[:, 1] += variance * axis[:, 0] * axis[:, 1]
            result[:, 2] += variance * axis[:, 1] ** 2
        return result


def joined(tracks: Sequence[Track]) -> Track:
    """Return open tracks strung together under the identity of the first one."""
    return replace(
        tracks[0],
        **{name: np.concatenate([getattr(t, name) for t in tracks]) for name in VERTEX_FIELDS},
    )


def at_arcs(track: Track, arcs: FloatArray) -> Track:
    """Return a track sampled at arc lengths; numbers in between are interpolated.

    Args:
        track: an open one, or a ring.
        arcs: (N,) arc lengths from its first vertex [m], rising.
    """
    values = {name: np.asarray(getattr(track, name), dtype=np.float64) for name in VERTEX_FIELDS}
    if track.closed:
        values = {name: np.concatenate([v, v[:1]]) for name, v in values.items()}
    known = cumulative_length(values['xy'])
    result: dict[str, Any] = {
        name: np.stack([np.interp(arcs, known, column) for column in np.atleast_2d(value.T)], -1)
        for name, value in values.items()
    }
    for name in VERTEX_FIELDS[1:]:
        result[name] = result[name][:, 0]
    # A frame saw a place in between if it saw both sides of it.
    result['hits'] = np.floor(result['hits'] + 1e-9).astype(np.int64)
    return replace(track, **result)


def evenly(track: Track, spacing_m: float) -> Track:
    """Return a track with vertices at equal distances, at most `spacing_m`."""
    length = track.length_m
    count = max(1, int(np.ceil(length / spacing_m - 1e-9)))
    if track.closed:
        count = max(count, 4)
        return at_arcs(track, np.arange(count) * (length / count))
    return at_arcs(track, np.linspace(0.0, length, count + 1))


def tidied(track: Track, spacing_m: float) -> Track | None:
    """Return a track without crowded, folded or missing vertices; None where nothing is left.

    Vertices closer than half the spacing are thinned out, gaps of more than twice the spacing are
    filled, and a vertex at which the line turns back on itself goes.
    """
    keep = without_repeats(track.xy, 0.45 * spacing_m)
    if not track.closed and len(keep) > 1 and not keep[-1]:
        # The end itself stays; the crowded vertex before it goes.
        last = int(np.flatnonzero(keep)[-1])
        keep[last], keep[-1] = last == 0, True
    track = track.take(keep)
    for _ in range(3):
        if len(track) < (3 if track.closed else 2):
            return None
        steps = np.diff(track.loop, axis=0)
        if track.closed:
            turns = (np.roll(steps, 1, axis=0) * steps).sum(axis=1)
            limit = np.linalg.norm(np.roll(steps, 1, axis=0), axis=1)
            folds = turns < -0.7 * limit * np.linalg.norm(steps, axis=1)
        else:
            lengths = np.linalg.norm(steps, axis=1)
            folds = np.zeros(len(track), dtype=bool)
            folds[1:-1] = (steps[:-1] * steps[1:]).sum(axis=1) < -0.7 * lengths[:-1] * lengths[1:]
        if not folds.any():
            break
        track = track.take(~folds)
    if len(track) < (3 if track.closed else 2):
        return None
    arcs = cumulative_length(track.loop)
    gaps = np.flatnonzero(np.diff(arcs) > 2.0 * spacing_m)
    if len(gaps):
        filled = [arcs[: len(track)]]
        for gap in gaps:
            count = int(np.ceil((arcs[gap + 1] - arcs[gap]) / spacing_m))
            filled.append(np.linspace(arcs[gap], arcs[gap + 1], count + 1)[1:-1])
        track = at_arcs(track, np.sort(np.concatenate(filled)))
    return counter_clockwise(track) if track.closed else track


def counter_clockwise(track: Track) -> Track:
    """Return a ring in its normal direction."""
    return track.reversed() if signed_area(track.xy) < 0 else track
