"""How the published chamfer evaluators treat lines, and the thresholds that papers use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely

from gsmap_core.errors import ConfigError, DataError
from gsmap_core.structures import FloatArray, MapElement, PerceptionRange

DEFAULT_THRESHOLDS_M: tuple[float, ...] = (0.5, 1.0, 1.5)
#: Sets of thresholds that papers use, by name [m]. `strict`: MapQR's mAP1; `large`: StreamMapNet
#: on 100 x 50 m.
THRESHOLD_SETS: dict[str, tuple[float, ...]] = {
    'standard': DEFAULT_THRESHOLDS_M,
    'strict': (0.2, 0.5, 1.0),
    'large': (1.0, 1.5, 2.0),
}


@dataclass(frozen=True)
class Protocol:
    """How one published evaluator treats lines.

    Args:
        name: what reports call it.
        num_points: samples per line.
        gate_m: half width of the band around either line that must touch [m]; None: no gate.
        keep_sampled_predictions: a prediction that has `num_points` vertices already is not
            resampled.
        simplify_m: how far ground truth may move when its vertices are thinned out first [m]; 0:
            it is taken as it is. Doing it twice changes nothing for lines that do not cross
            themselves.
        dtype: precision in which the AP is returned.
    """

    name: str
    num_points: int
    gate_m: float | None
    keep_sampled_predictions: bool = False
    simplify_m: float = 0.0
    dtype: Literal['float32', 'float64'] = 'float64'


PROTOCOLS: dict[str, Protocol] = {
    'maptr': Protocol('maptr', 100, 2.0, dtype='float32'),
    'maptr_v2': Protocol('maptr_v2', 100, 2.0, keep_sampled_predictions=True, dtype='float32'),
    'streammapnet': Protocol('streammapnet', 200, None, simplify_m=0.2),
}


def protocol_by_name(name: str) -> Protocol:
    """Return a protocol.

    Raises:
        ConfigError: no protocol has that name.
    """
    if name not in PROTOCOLS:
        raise ConfigError(
            f"protocol '{name}': unknown; expected one of {', '.join(sorted(PROTOCOLS))}"
        )
    return PROTOCOLS[name]


def thresholds_from_text(values: Sequence[str]) -> tuple[float, ...]:
    """Return thresholds given as numbers [m], or as the name of a set.

    Raises:
        ConfigError: neither one name nor numbers.
    """
    if len(values) == 1 and values[0] in THRESHOLD_SETS:
        return THRESHOLD_SETS[values[0]]
    try:
        return tuple(float(value) for value in values)
    except ValueError:
        raise ConfigError(
            f"thresholds '{' '.join(values)}'; expected numbers in metres, or one of "
            f'{", ".join(THRESHOLD_SETS)}'
        ) from None


def default_thresholds(protocol: str, limits: PerceptionRange | None) -> tuple[float, ...]:
    """Return the thresholds that a protocol was published with for a range [m].

    StreamMapNet's and MapTracker's evaluator takes larger ones for 100 x 50 m.
    """
    is_large = limits is not None and max(limits.length_x_m, limits.length_y_m) >= 100.0 - 1e-3
    if protocol != 'maptr' and protocol != 'maptr_v2' and is_large:
        return THRESHOLD_SETS['large']
    return DEFAULT_THRESHOLDS_M


def check_thresholds(thresholds_m: Sequence[float]) -> tuple[float, ...]:
    """Return thresholds as plain numbers [m].

    Raises:
        ConfigError: there is none, or one is not positive.
    """
    checked = tuple(float(value) for value in thresholds_m)
    if not checked or not all(value > 0 for value in checked):
        raise ConfigError(f'thresholds {list(checked)} m; expected one or more positive numbers')
    return checked


def simplified(line: FloatArray, tolerance_m: float) -> FloatArray:
    """Return a line with fewer vertices, nowhere farther than the tolerance from the given one.

    Args:
        line: (V, D) vertices [m]; a ring repeats its first one.
        tolerance_m: measured in the plane [m]; 0: the line itself.
    """
    if tolerance_m <= 0.0 or len(line) < 3:
        return line
    thinner = shapely.simplify(shapely.linestrings(line), tolerance_m, preserve_topology=True)
    return np.asarray(shapely.get_coordinates(thinner, include_z=line.shape[1] == 3))


def line_of(element: MapElement, num_dims: int = 2) -> FloatArray:
    """Return (V, num_dims) vertices [m]; a ring repeats its first one.

    Raises:
        DataError: heights are wanted and there are none.
    """
    if num_dims == 2:
        return element.loop_xy()
    if not element.has_z:
        raise DataError(
            f"an element '{element.category_name}' has no heights; expected x, y, z vertices, "
            'or evaluate in two dimensions'
        )
    vertices = element.vertices
    return np.concatenate([vertices, vertices[:1]]) if element.closed else vertices
