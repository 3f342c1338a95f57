"""MapTR's proximity gate: do two lines, widened to bands, touch?

The bands are polygons of GEOS, which takes most of the time that the whole metric takes. Where a
point of one line evidently lies inside the other's band, the polygons are not needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from gsmap_core.structures import FloatArray

BoolArray = npt.NDArray[np.bool_]
#: A point within that share of the half width from the middle of a line is surely in its band: the
#: polygon deviates from the ideal band by 1 % of the half width.
SURE_SHARE = 0.95
#: Shorter lines are left to the polygons [m].
_MIN_LENGTH_M = 1.0
#: Cosine of the sharpest turn taken as sure; mitres are cut from 157 degrees on.
_MIN_COSINE = -0.8


def courses(lines: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Return for each line whether its band surely holds what lies beside its middle.

    It does where no corner turns so sharply that its mitre is cut, and the line is not tiny. A
    point whose nearest sample is not one of the two ends then lies beside a segment or outside a
    corner, both inside the band.

    Args:
        lines: (2, M, S) x and y of evenly sampled lines [m].

    Returns:
        (M,) whether the course is that even, and (M,) whether the line is long enough to have a
        band at all.
    """
    x, y = lines[:, :, 1:] - lines[:, :, :-1]
    lengths = np.sqrt(x * x + y * y)
    turns = x[:, :-1] * x[:, 1:] + y[:, :-1] * y[:, 1:]
    is_long = lengths.sum(axis=1) >= _MIN_LENGTH_M
    is_even = (turns >= _MIN_COSINE * lengths[:, :-1] * lengths[:, 1:]).all(axis=1)
    return is_even & is_long, is_long


def bands_touch(
    first: FloatArray,
    second: FloatArray,
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    half_width_m: float,
) -> BoolArray:
    """Return for pairs of lines whether their bands (flat ends, mitred corners) intersect.

    Args:
        first: (M, S, 2) lines [m].
        second: (G, S, 2) lines [m].
        rows: (K,) which of the first.
        columns: (K,) which of the second.
        half_width_m: of the bands [m].

    Returns:
        (K,) bool; a line without length has no band and touches nothing.
    """
    if not len(rows):
        return np.zeros(0, dtype=bool)
    bands: list[Any] = []
    for lines, used in ((first, rows), (second, columns)):
        made = np.full(len(lines), None, dtype=object)
        wanted = np.unique(used)
        made[wanted] = shapely.buffer(
            shapely.linestrings(lines[wanted]),
            half_width_m,
            cap_style='flat',
            join_style='mitre',
            mitre_limit=5.0,
        )
        bands.append(made)
    return np.asarray(shapely.intersects(bands[0][rows], bands[1][columns]))
