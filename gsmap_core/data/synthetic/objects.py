"""What stands beside and on the streets: buildings, trees, parked vehicles, street furniture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import shapely

from gsmap_core.data.synthetic.dice import Dice
from gsmap_core.data.synthetic.markings import StreetLayout
from gsmap_core.data.synthetic.roads import RoadNetwork, Street
from gsmap_core.data.synthetic.scene import Billboard, Box, BoxKind, HeightField
from gsmap_core.structures import FloatArray

Colour = tuple[float, float, float]
Size = tuple[float, float, float]

_WALLS: tuple[Colour, ...] = (
    (0.72, 0.66, 0.55),
    (0.62, 0.34, 0.27),
    (0.78, 0.76, 0.72),
    (0.55, 0.57, 0.60),
    (0.83, 0.73, 0.50),
    (0.45, 0.40, 0.37),
    (0.60, 0.68, 0.72),
    (0.76, 0.56, 0.46),
)
_PAINTS: tuple[Colour, ...] = (
    (0.92, 0.92, 0.92),
    (0.08, 0.08, 0.09),
    (0.55, 0.56, 0.58),
    (0.30, 0.31, 0.33),
    (0.60, 0.09, 0.09),
    (0.12, 0.20, 0.45),
    (0.75, 0.72, 0.62),
    (0.15, 0.35, 0.22),
    (0.85, 0.65, 0.12),
)
_LEAVES: tuple[Colour, ...] = (
    (0.20, 0.38, 0.14),
    (0.28, 0.45, 0.16),
    (0.33, 0.42, 0.20),
    (0.16, 0.30, 0.15),
    (0.50, 0.44, 0.16),
)
#: Length, width, height [m], and how often the kind occurs.
_VEHICLES: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((4.4, 1.8, 1.48), 5.0),
    ((3.9, 1.7, 1.52), 3.0),
    ((4.7, 1.88, 1.72), 3.0),
    ((5.6, 2.0, 2.4), 1.0),
)
#: Taller than any camera sits.
_TRUCKS: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((6.2, 2.25, 2.9), 3.0),
    ((8.4, 2.4, 3.4), 3.0),
    ((11.5, 2.45, 3.2), 1.0),
)


@dataclass(frozen=True)
class ObjectSettings:
    """How much stands around.

    Args:
        parked_share: share of the parking places that are taken.
        building_share: share of the street front that is built up.
        trees_per_100m: trees a side along a street.
        furniture_per_100m: lamp posts, boxes and bins a side along a street.
        kerbside_share: share of the kerb beside which vehicles and trucks stand on the sidewalk.
    """

    parked_share: float = 0.55
    building_share: float = 0.85
    trees_per_100m: float = 5.0
    furniture_per_100m: float = 2.5
    kerbside_share: float = 0.0


def vehicle_shape(dice: Dice, is_truck: bool = False) -> tuple[Size, Colour]:
    """Draw size [m] and colour of a vehicle."""
    kinds = _TRUCKS if is_truck else _VEHICLES
    size = dice.choice([item[0] for item in kinds], [item[1] for item in kinds])
    factor = dice.uniform(0.95, 1.06)
    return (size[0] * factor, size[1] * factor, size[2] * factor), dice.choice(_PAINTS)


def place_objects(
    seed: int,
    network: RoadNetwork,
    layouts: list[StreetLayout],
    settings: ObjectSettings,
    ground: HeightField,
) -> tuple[tuple[Box, ...], tuple[Billboard, ...]]:
    """Furnish the town.

    Args:
        seed: the town's seed.
        network: its streets.
        layouts: what lies where along each street.
        settings: how much of everything.
        ground: what buildings are sunk into, so that no corner hangs in the air on a slope.

    Returns:
        Boxes (buildings, then parked vehicles and furniture) and trees.
    """
    buildings: list[Box] = []
    others: list[Box] = []
    trees: list[Billboard] = []
    footprints: list[shapely.Polygon] = []
    widest = max(street.profile.sidewalk_m for street in network.streets)
    keep_free = network.surface.buffer(widest + 0.8)
    kerb_zone = network.surface.buffer(0.45)
    shapely.prepare(keep_free)
    shapely.prepare(kerb_zone)
    for index, (street, layout) in enumerate(zip(network.streets, layouts, strict=True)):
        for side in (-1.0, 1.0):
            dice = Dice(seed, 20, index, int(side > 0))
            for box, footprint in _buildings(dice, street, side, settings):
                if keep_free.intersects(footprint) or (
                    footprints and bool(shapely.intersects(footprints, footprint).any())
                ):
                    continue
                buildings.append(_sunk(box, footprint, ground))
                footprints.append(footprint)
            others += _parked(Dice(seed, 21, index, int(side > 0)), street, layout, side, settings)
            roadside = Dice(seed, 22, index, int(side > 0))
            for place in _roadside(roadside, street, side, settings.trees_per_100m, 0.75):
                tree = _tree(roadside, place)
                if not kerb_zone.contains(shapely.Point(place)):
                    trees.append(tree)
            for place in _roadside(roadside, street, side, settings.furniture_per_100m, 0.3):
                box = _furniture(roadside, street, place)
                if not kerb_zone.contains(shapely.Point(place)):
                    others.append(box)
            if settings.kerbside_share > 0:
                others += _kerbside(Dice(seed, 23, index, int(side > 0)), street, side, settings)
    return tuple(buildings + others), tuple(trees)


def _buildings(
    dice: Dice, street: Street, side: float, settings: ObjectSettings
) -> list[tuple[Box, shapely.Polygon]]:
    """Return candidate houses along one side of a street."""
    result = []
    station = dice.uniform(-8.0, 4.0)
    front = street.profile.half_width_m + street.profile.sidewalk_m
    while station < street.curve.length_m + 8.0:
        length, depth, height = (
            dice.uniform(9.0, 22.0),
            dice.uniform(8.0, 14.0),
            dice.uniform(4.0, 18.0),
        )
        setback, colour, is_built = (
            dice.uniform(1.5, 6.0),
            dice.choice(_WALLS),
            dice.chance(settings.building_share),
        )
        shade = dice.uniform(0.85, 1.1)
        middle = station + length / 2
        tangent = street.curve.tangent(middle)
        centre = street.curve.at(middle, side * (front + setback + depth / 2))
        if is_built:
            box = Box(
                centre_xy=centre,
                size_m=(length, depth, height),
                yaw_rad=float(np.arctan2(tangent[1], tangent[0])),
                kind=BoxKind.BUILDING,
                colour_rgb=_shaded(colour, shade),
                seed=dice.integer(0, 2**31 - 1),
            )
            result.append((box, footprint(box, 0.3)))
        station += length + dice.uniform(0.8, 7.0)
    return result


def _sunk(box: Box, footprint: shapely.Polygon, ground: HeightField) -> Box:
    """Return the box with its foot just below the lowest ground under it."""
    lowest = float(ground.height(np.asarray(footprint.exterior.coords)).min())
    return replace(box, base_z_m=lowest - float(ground.height(box.centre_xy)) - 0.05)


def footprint(box: Box, margin: float = 0.0) -> shapely.Polygon:
    """Return the outline of a box on the ground, grown by a margin [m]."""
    half = np.array([box.size_m[0], box.size_m[1]]) / 2 + margin
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    cosine, sine = np.cos(box.yaw_rad), np.sin(box.yaw_rad)
    return shapely.Polygon(corners @ np.array([[cosine, sine], [-sine, cosine]]) + box.centre_xy)


def _standing(
    dice: Dice,
    street: Street,
    side: float,
    station: float,
    offset: float,
    size: Size,
    tilt: float,
    colour: Colour,
) -> Box:
    """Return a vehicle that stands along the street, headed as its side drives."""
    tangent = street.curve.tangent(station) * -side
    return Box(
        centre_xy=street.curve.at(station, offset),
        size_m=size,
        yaw_rad=float(np.arctan2(tangent[1], tangent[0])) + tilt,
        kind=BoxKind.VEHICLE,
        colour_rgb=colour,
        seed=dice.integer(0, 2**31 - 1),
    )


def _parked(
    dice: Dice, street: Street, layout: StreetLayout, side: float, settings: ObjectSettings
) -> list[Box]:
    """Return vehicles in the parking lane of one side."""
    profile = street.profile
    if profile.parking_width_m == 0.0:
        return []
    result = []
    for begin, end in layout.lines:
        station = begin + 4.0 + dice.uniform(0.0, 4.0)
        while station < end - 7.0:
            size, colour = vehicle_shape(dice)
            is_taken, slack, tilt = (
                dice.chance(settings.parked_share),
                dice.uniform(0.05, 0.3),
                dice.uniform(-0.03, 0.03),
            )
            middle = station + size[0] / 2
            if is_taken:
                offset = side * (profile.half_width_m - slack - size[1] / 2)
                result.append(_standing(dice, street, side, middle, offset, size, tilt, colour))
            station += size[0] + dice.uniform(0.8, 2.0)
    return result


def _kerbside(dice: Dice, street: Street, side: float, settings: ObjectSettings) -> list[Box]:
    """Return rows of vehicles on the sidewalk along one kerb, with holes of any length."""
    begin, end = street.mouths
    result = []
    station = begin + dice.uniform(0.0, 6.0)
    while station < end - 4.0:
        size, colour = vehicle_shape(dice, is_truck=dice.chance(0.35))
        middle = station + size[0] / 2
        is_there, gap = dice.chance(settings.kerbside_share), dice.uniform(0.8, 3.0)
        slack, tilt = dice.uniform(0.1, 0.35), dice.uniform(-0.02, 0.02)
        if is_there and middle + size[0] / 2 < end:
            offset = side * (street.profile.half_width_m + slack + size[1] / 2)
            result.append(_standing(dice, street, side, middle, offset, size, tilt, colour))
        station += size[0] + gap
    return result


def _roadside(
    dice: Dice, street: Street, side: float, per_100m: float, share: float
) -> list[FloatArray]:
    """Return places along a sidewalk, at a share of its width from the kerb."""
    begin, end = street.mouths
    if per_100m <= 0:
        return []
    pitch = 100.0 / per_100m
    places = []
    station = begin + dice.uniform(0.0, pitch)
    while station < end:
        offset = street.profile.half_width_m + share * street.profile.sidewalk_m
        places.append(street.curve.at(station, side * (offset + dice.uniform(0.0, 0.3))))
        station += pitch * dice.uniform(0.6, 1.4)
    return places


def _tree(dice: Dice, place: FloatArray) -> Billboard:
    """Draw a tree."""
    crown = dice.uniform(2.2, 5.0)
    return Billboard(
        centre_xy=place,
        trunk_height_m=dice.uniform(1.9, 3.0),
        trunk_width_m=dice.uniform(0.18, 0.4),
        crown_width_m=crown,
        crown_height_m=crown * dice.uniform(0.9, 1.5),
        colour_rgb=_shaded(dice.choice(_LEAVES), dice.uniform(0.85, 1.2)),
        seed=dice.integer(0, 2**31 - 1),
    )


def _furniture(dice: Dice, street: Street, place: FloatArray) -> Box:
    """Draw a lamp post, a cabinet or a bin."""
    size, colour = dice.choice(
        (
            ((0.16, 0.16, 5.5), (0.42, 0.43, 0.45)),
            ((0.9, 0.4, 1.2), (0.50, 0.53, 0.50)),
            ((0.5, 0.5, 1.0), (0.20, 0.30, 0.22)),
        )
    )
    offsets = np.linalg.norm(street.curve.points - place, axis=1)
    tangent = street.curve.tangents[int(np.argmin(offsets))]
    return Box(
        centre_xy=place,
        size_m=size,
        yaw_rad=float(np.arctan2(tangent[1], tangent[0])),
        kind=BoxKind.PLAIN,
        colour_rgb=colour,
        seed=dice.integer(0, 2**31 - 1),
    )


def _shaded(colour: Colour, factor: float) -> Colour:
    """Return a lighter or darker colour."""
    red, green, blue = (min(max(value * factor, 0.0), 1.0) for value in colour)
    return red, green, blue
