"""What stands on the ground, as plain numbers: boxes cut into upright solids, and trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

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
    if not boxes:
        return np.zeros((0, len(Column)))
    centres = np.array([box.centre_xy for box in boxes], dtype=np.float64)
    centres = centres + np.array([box.velocity_xy for box in boxes]) * time_s
    yaws = np.array([box.yaw_rad for box in boxes])
    along = np.stack([np.cos(yaws), np.sin(yaws)], axis=1)
    half = np.array([box.size_m[:2] for box in boxes])[:, None] / 2
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    offset = half * signs
    corners = (
        centres[:, None] + offset[..., :1] * along[:, None] + offset[..., 1:] * across[:, None]
    )
    feet = ground.height(centres)
    sunk = np.maximum(feet - ground.height(corners).min(axis=1), 0)
    rows: list[list[float]] = []
    for number, box in enumerate(boxes):
        for part in _parts(box):
            x, y = centres[number] + part.shift * along[number]
            rows.append(
                [
                    x,
                    y,
                    feet[number] + box.base_z_m + part.base,
                    part.height,
                    *along[number],
                    part.length / 2,
                    part.width / 2,
                    part.taper,
                    part.look,
                    *box.colour_rgb,
                    box.seed & 0xFFFF,
                    sunk[number] if box.base_z_m + part.base == 0 else 0.0,
                ]
            )
    return np.asarray(rows, dtype=np.float64)


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
