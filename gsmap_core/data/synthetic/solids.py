"""What stands on the ground, as plain numbers: boxes cut into upright solids, trees, both with their height."""

from __future__ import annotations

from collections.abc import Sequence
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


#: Vehicles taller than this are one box with windows (vans, buses), lower ones a body with a cabin [m].
VAN_HEIGHT_M = 2.0


def solid_table(boxes: Sequence[Box], ground: HeightField, time_s: float) -> FloatArray:
    """Return the (S, len(Column)) solids of boxes at a drive time."""
    rows: list[list[float]] = []
    for box in boxes:
        corners = footprint(box, time_s)
        centre = corners.mean(axis=0)
        heights = ground.height(np.concatenate([centre[None], corners]))
        skirt = max(0.0, float(heights[0] - heights.min())) if box.base_z_m == 0 else 0.0
        length, width, height = box.size_m
        foot = float(heights[0]) + box.base_z_m
        along = np.array([np.cos(box.yaw_rad), np.sin(box.yaw_rad)])

        def row(
            shift: float,
            base: float,
            tall: float,
            long: float,
            wide: float,
            taper: float,
            look: Look,
        ) -> list[float]:
            xy = centre + shift * along  # noqa: B023 - called at once
            return [
                *xy,
                foot + base,  # noqa: B023
                tall,
                *along,  # noqa: B023
                long / 2,
                wide / 2,
                taper,
                float(look),
                *box.colour_rgb,  # noqa: B023
                float(box.seed & 0xFFFF),  # noqa: B023
                skirt if base == 0 else 0.0,  # noqa: B023
            ]

        if box.kind is BoxKind.VEHICLE and height <= VAN_HEIGHT_M:
            rows.append(row(0, 0, 0.58 * height, length, width, 0, Look.CAR_BODY))
            cabin = 0.42 * height
            taper = 0.1 * length / cabin
            rows.append(
                row(
                    -0.07 * length,
                    height - cabin,
                    cabin,
                    0.62 * length,
                    0.9 * width,
                    taper,
                    Look.CAR_CABIN,
                )
            )
        else:
            look = {BoxKind.VEHICLE: Look.VAN, BoxKind.BUILDING: Look.BUILDING}.get(
                box.kind, Look.PLAIN
            )
            rows.append(row(0, 0, height, length, width, 0, look))
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
