"""Geometry that the fusion needs: directions, feet of points on lines, rings laid on rings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsmap_core.geometry.polylines import cumulative_length
from gsmap_core.structures import FloatArray

BoolArray = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True)
class Feet:
    """Where points would step onto a line.

    Args:
        xy: (P, 2) nearest places on the line [m].
        arc: (P,) their arc lengths along the line [m].
        distance: (P,) from point to place [m].
        overrun: (P,) how far a point lies beyond the nearer end, along the line's direction
            there [m]; 0 beside the line.
        direction: (P, 2) unit direction of the line at the place.
    """

    xy: FloatArray
    arc: FloatArray
    distance: FloatArray
    overrun: FloatArray
    direction: FloatArray


def tangents(xy: FloatArray, closed: bool) -> FloatArray:
    """Return the (P, 2) unit directions at the vertices: from the neighbour before to that after.

    Where the two coincide (a spike) the direction of the edge after it is taken.
    """
    if closed:
        before, after = np.roll(xy, 1, axis=0), np.roll(xy, -1, axis=0)
    else:
        before = np.concatenate([xy[:1], xy[:-1]])
        after = np.concatenate([xy[1:], xy[-1:]])
    steps = after - before
    lengths = np.linalg.norm(steps, axis=1)
    spikes = lengths < 1e-9
    if spikes.any():
        steps = np.where(spikes[:, None], after - xy, steps)
        lengths = np.linalg.norm(steps, axis=1)
    result = np.zeros_like(xy)
    result[:, 0] = 1.0
    good = lengths > 1e-9
    result[good] = steps[good] / lengths[good, None]
    return result


def normals_of(directions: FloatArray) -> FloatArray:
    """Return the (P, 2) unit normals to the left of unit directions."""
    return np.stack([-directions[:, 1], directions[:, 0]], axis=1)


def feet_on_line(points: FloatArray, line: FloatArray) -> Feet:
    """Return the nearest places on an open line (a ring repeats its first vertex).

    Args:
        points: (P, 2) [m].
        line: (V, 2) with V >= 2 and no two equal neighbours, in the same frame [m].
    """
    starts, steps = line[:-1], np.diff(line, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    directions = steps / lengths[:, None]
    offsets = points[:, None] - starts  # (P, S, 2)
    along = np.einsum('psk,sk->ps', offsets, directions)
    inside = np.clip(along, 0.0, lengths)
    gaps = offsets - inside[..., None] * directions
    squares = np.einsum('psk,psk->ps', gaps, gaps)
    nearest = squares.argmin(axis=1)
    rows = np.arange(len(points))
    arc = cumulative_length(line)
    place = inside[rows, nearest]
    beyond = np.where(
        nearest == 0,
        np.maximum(-along[rows, nearest], 0.0),
        np.zeros(len(points)),
    )
    beyond = np.maximum(
        beyond,
        np.where(
            nearest == len(lengths) - 1,
            np.maximum(along[rows, nearest] - lengths[-1], 0.0),
            0.0,
        ),
    )
    return Feet(
        xy=starts[nearest] + place[:, None] * directions[nearest],
        arc=arc[nearest] + place,
        distance=np.sqrt(squares[rows, nearest]),
        overrun=beyond,
        direction=directions[nearest],
    )


def without_repeats(xy: FloatArray, least_m: float = 1e-6) -> BoolArray:
    """Return which vertices to keep so that no two neighbours coincide; the first one stays."""
    keep = np.ones(len(xy), dtype=bool)
    if (np.linalg.norm(np.diff(xy, axis=0), axis=1) > least_m).all():
        return keep
    last = 0
    for index in range(1, len(xy)):
        if float(np.linalg.norm(xy[index] - xy[last])) <= least_m:
            keep[index] = False
        else:
            last = index
    return keep


def signed_area(xy: FloatArray) -> float:
    """Return the area of a ring [m^2], positive where it runs counter-clockwise."""
    x, y = xy[:, 0], xy[:, 1]
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def ring_correspondence(ring: FloatArray, other: FloatArray) -> tuple[int, bool]:
    """Find how one ring is to be numbered so that it lies on another one.

    Args:
        ring: (P, 2) vertices, evenly spaced [m].
        other: (P, 2) vertices of the other ring, evenly spaced [m].

    Returns:
        Shift k and whether to run backwards: `np.roll(other[::-1] or other, k)` has the least sum
        of squared distances to `ring`.
    """
    best, answer = np.inf, (0, False)
    for backwards in (False, True):
        turned = other[::-1] if backwards else other
        # |a - b|^2 summed: only the product depends on the shift; one FFT gives all of them.
        spectrum = np.conj(np.fft.fft(turned, axis=0)) * np.fft.fft(ring, axis=0)
        products = np.fft.ifft(spectrum, axis=0).real.sum(axis=1)
        shift = int(products.argmax())
        if -products[shift] < best:
            best, answer = -products[shift], (shift, backwards)
    return answer
