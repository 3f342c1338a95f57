"""What stands on the ground, as plain numbers: boxes cut into upright solids, and trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from gsmap_core.data.synthetic.rasters import footprint
from gsmap_core.data.synthetic.scene import Billboard, Box, BoxKind, HeightField
from gsmap_core.structures import FloatArray


class Column(IntEnum):
    """Columns of a table of solids; metres in the town frame, colours 0 to 1."""

    X = 0
    Y = 1
    Z_FOOT = 2
    HEIGHT = 3
    COS = 4
    SIN = 5
    HALF_LENGTH = 6
    HALF_WIDTH = 7
    #: How much the half length shrinks per metre of height (windscreens).
    TAPER = 8
    LOOK = 9
    RED = 10
    GREEN = 11
    BLUE = 12
    SEED = 13
    #: How far the solid reaches below its foot, so that no gap opens on a slope.
    SKIRT = 14


class Look(IntEnum):
    """What the surface of a solid shows."""

    PLAIN = 0
    BUILDING = 1
    CAR_BODY = 2
    CAR_CABIN = 3
    VAN = 4


#: Taller vehicles are one box with windows (vans, buses), lower ones a body and a cabin [m].
VAN_HEIGHT_M = 2.0
_LOOKS = {
    BoxKind.BUILDING: Look.BUILDING,
    BoxKind.VEHICLE: Look.VAN,
    BoxKind.PLAIN: Look.PLAIN,
}


@dataclass(frozen=True)
class _Part:
    """One solid of a box; metres, relative to the foot of the box."""

    look: Look
    length: float
    width: float
    height: float
    shift: float = 0.0
    base: float = 0.0
    taper: float = 0.0


def _parts(box: Box) -> list[_Part]:
    length, width, height = box.size_m
    if box.kind is not BoxKind.VEHICLE or height > VAN_HEIGHT_M:
        return [_Part(_LOOKS[box.kind], length, width, height)]
    cabin = 0.42 * height
    return [
        _Part(Look.CAR_BODY, length, width, height - cabin),
        _Part(
            Look.CAR_CABIN,
            length=0.62 * length,
            width=0.9 * width,
            height=cabin,
            shift=-0.07 * length,
            base=height - cabin,
            taper=0.1 * length / cabin,
        ),
    ]


def solid_table(boxes: Sequence[Box], ground: HeightField, time_s: float) -> FloatArray:
    """Return the (S, len(Column)) solids of boxes at a drive time."""
    rows: list[list[float]] = []
    for box in boxes:
        corners = footprint(box, time_s)
        centre = corners.mean(axis=0)
        heights = ground.height(np.concatenate([centre[None], corners]))
        skirt = max(0.0, float(heights[0] - heights.min())) if box.base_z_m == 0 else 0.0
        along = np.array([np.cos(box.yaw_rad), np.sin(box.yaw_rad)])
        for part in _parts(box):
            x, y = centre + part.shift * along
            rows.append(
                [
                    float(x),
                    float(y),
                    float(heights[0]) + box.base_z_m + part.base,
                    part.height,
                    float(along[0]),
                    float(along[1]),
                    part.length / 2,
                    part.width / 2,
                    part.taper,
                    float(part.look),
                    *box.colour_rgb,
                    float(box.seed & 0xFFFF),
                    skirt if part.base == 0 else 0.0,
                ]
            )
    return np.asarray(rows, dtype=np.float64).reshape(-1, len(Column))


class TreeColumn(IntEnum):
    """Columns of a table of trees; metres in the town frame, colours 0 to 1."""

    X = 0
    Y = 1
    Z_FOOT = 2
    TRUNK_HEIGHT = 3
    TRUNK_WIDTH = 4
    CROWN_WIDTH = 5
    CROWN_HEIGHT = 6
    RED = 7
    GREEN = 8
    BLUE = 9
    SEED = 10


def tree_table(trees: Sequence[Billboard], ground: HeightField) -> FloatArray:
    """Return the (T, len(TreeColumn)) trees."""
    rows = [
        [
            *tree.centre_xy,
            float(ground.height(np.asarray(tree.centre_xy))),
            tree.trunk_height_m,
            tree.trunk_width_m,
            tree.crown_width_m,
            tree.crown_height_m,
            *tree.colour_rgb,
            float(tree.seed & 0xFFFF),
        ]
        for tree in trees
    ]
    return np.asarray(rows, dtype=np.float64).reshape(-1, len(TreeColumn))
