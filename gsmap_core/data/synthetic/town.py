"""Puts a town together: roads, paint, ground truth, objects, all from one seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import shapely

from gsmap_core.categories import BOUNDARY, DIVIDER, PED_CROSSING
from gsmap_core.data.synthetic.dice import Dice
from gsmap_core.data.synthetic.lanes import build_lanes
from gsmap_core.data.synthetic.markings import MarkingSettings, carve_islands, paint_streets
from gsmap_core.data.synthetic.objects import ObjectSettings, place_objects
from gsmap_core.data.synthetic.planar import densified, polygon_rings, polygons_of
from gsmap_core.data.synthetic.roads import RoadNetwork, RoadSettings, build_network
from gsmap_core.data.synthetic.scene import GroundPatch, HeightField, Material, Town
from gsmap_core.errors import ConfigError
from gsmap_core.structures import FloatArray, MapElement

#: Raised whenever the same seed gives another town, trajectory or ground truth than before.
GENERATOR_VERSION = '1'
#: Streets never climb more than this.
MAX_SLOPE = 0.08
#: Ground truth on sloping ground has a vertex at least this often, so that its height follows [m].
SLOPE_SPACING_M = 5.0
#: Width of the kerb stones, outside the asphalt [m].
KERB_WIDTH_M = 0.18


@dataclass(frozen=True)
class TownSettings:
    """How varied a town is.

    Args:
        roads: network and cross-sections.
        markings: paint.
        objects: what stands around.
        max_slope: least and greatest bound of the slope over towns.
    """

    roads: RoadSettings = field(default_factory=RoadSettings)
    markings: MarkingSettings = field(default_factory=MarkingSettings)
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    max_slope: tuple[float, float] = (0.02, MAX_SLOPE)


_EASY = TownSettings(
    roads=RoadSettings(
        max_lanes=2,
        bend_m=6.0,
        curved_share=0.35,
        median_share=0.0,
        parking_share=0.0,
        unmarked_share=0.0,
        removed_edges=(2, 4),
        jitter_m=5.0,
    ),
    markings=MarkingSettings(
        crossing_share=0.65,
        midblock_share=0.25,
        stop_line_share=0.3,
        arrow_share=0.0,
        max_wear=0.1,
        patches_per_street=1.0,
    ),
    objects=ObjectSettings(
        parked_share=0.0, building_share=0.6, trees_per_100m=1.5, furniture_per_100m=0.0
    ),
    max_slope=(0.0, 0.0),
)
#: `easy` is flat, freshly painted and uncluttered: networks learn something there within half an
#: hour on two cores. `easy_occluded` has the same streets and paint, and vehicles in the way.
SETTINGS: dict[str, TownSettings] = {
    'normal': TownSettings(),
    'easy': _EASY,
    'easy_occluded': replace(_EASY, objects=replace(_EASY.objects, kerbside_share=0.35)),
}


def generate_town(seed: int, setting: str = 'normal') -> Town:
    """Generate a town.

    Args:
        seed: not negative; the same seed and setting give the same town everywhere.
        setting: a key of `SETTINGS`.

    Raises:
        ConfigError: unknown setting or negative seed.
    """
    if setting not in SETTINGS:
        raise ConfigError(
            f"town setting '{setting}': unknown; expected one of {', '.join(SETTINGS)}"
        )
    if seed < 0:
        raise ConfigError(f'town seed {seed}: expected 0 or more')
    settings = SETTINGS[setting]
    network = build_network(seed, settings.roads)
    ground = _ground(Dice(seed, 4), settings.max_slope)
    # On flat ground a straight line needs no vertices between its ends.
    spacing = SLOPE_SPACING_M if len(ground.amplitude_m) else np.inf
    markings = paint_streets(seed, network, settings.markings, spacing)
    asphalt, outlines = carve_islands(network.surface, markings.islands)
    boxes, trees = place_objects(seed, network, markings.layouts, settings.objects, ground)
    elements = [_lifted(ground, DIVIDER.id, line, False) for line in markings.dividers]
    elements += [_lifted(ground, PED_CROSSING.id, ring, True) for ring in markings.crossings]
    elements += [
        _lifted(ground, BOUNDARY.id, densified(ring, spacing, closed=True), True)
        for ring in outlines
    ]
    patches = (
        *_surroundings(network),
        *asphalt,
        *_island_tops(Dice(seed, 5), markings.islands),
        *markings.paint,
    )
    lanes = build_lanes(network)
    x_min, y_min, x_max, y_max = network.surface.bounds
    prefix = 'town' if setting == 'normal' else f'town-{setting}'
    return Town(
        name=f'{prefix}-{seed:04d}',
        seed=seed,
        extent=np.array([x_min - 40.0, y_min - 40.0, x_max + 40.0, y_max + 40.0]),
        ground=ground,
        patches=patches,
        boxes=boxes,
        billboards=trees,
        elements=tuple(elements),
        lanes=lanes.lanes,
        lane_successors=lanes.successors,
        lane_streets=lanes.streets,
    )


def _ground(dice: Dice, max_slope: tuple[float, float]) -> HeightField:
    """Draw long waves whose slopes cannot add up to more than the bound."""
    bound = dice.uniform(*max_slope)
    if bound <= 0.0:
        return HeightField()
    count = 4
    shares = 0.3 + dice.uniforms(count)
    slopes = bound * shares / shares.sum()
    wave_numbers = 2 * np.pi / dice.uniforms(count, 90.0, 260.0)
    angles = dice.uniforms(count, 0.0, 2 * np.pi)
    return HeightField(
        amplitude_m=slopes / wave_numbers,
        wave_xy=wave_numbers[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1),
        phase_rad=dice.uniforms(count, 0.0, 2 * np.pi),
    )


def _lifted(ground: HeightField, category: int, points: FloatArray, closed: bool) -> MapElement:
    """Put a planar element on the ground."""
    vertices = np.concatenate([points, ground.height(points)[:, None]], axis=1)
    return MapElement(category, vertices, closed=closed, num_observations=0)


def _surroundings(network: RoadNetwork) -> list[GroundPatch]:
    """Return sidewalks and kerb stones, to lie under the asphalt."""
    areas = []
    for street in network.streets:
        width = street.profile.half_width_m + street.profile.sidewalk_m
        areas.append(
            shapely.LineString(street.curve.points).buffer(width, quad_segs=4, cap_style='flat')
        )
    least = min(street.profile.sidewalk_m for street in network.streets)
    sidewalk = shapely.union_all([*areas, network.surface.buffer(least)]).simplify(0.05)
    kerb = network.surface.buffer(KERB_WIDTH_M).simplify(0.015)
    patches = []
    for area, material in ((sidewalk, Material.SIDEWALK), (kerb, Material.KERB)):
        for polygon in polygons_of(area):
            patches.append(_patch(polygon, material))
    return patches


def _island_tops(dice: Dice, islands: list[shapely.Polygon]) -> list[GroundPatch]:
    """Return kerb stones and top of every island, to lie in the holes of the asphalt."""
    top = dice.choice((Material.GRASS, Material.SIDEWALK))
    patches = []
    for island in islands:
        patches.append(_patch(island.simplify(0.015), Material.KERB))
        inner = island.buffer(-KERB_WIDTH_M).simplify(0.015)
        patches += [_patch(part, top) for part in polygons_of(inner)]
    return patches


def _patch(polygon: shapely.Polygon, material: Material) -> GroundPatch:
    """Return a polygon as a patch."""
    outline, holes = polygon_rings(polygon)
    return GroundPatch(outline, material, holes)


def town_hash(town: Town) -> str:
    """Return the SHA-256 of the whole town, lengths rounded to 1 mm."""
    digest = hashlib.sha256()

    def add(values: object, scale: float = 1e3) -> None:
        rounded = np.round(np.asarray(values, dtype=np.float64) * scale).astype('<i8')
        digest.update(np.asarray(rounded.shape, dtype='<i8').tobytes() + rounded.tobytes())

    add(town.extent)
    add(town.ground.amplitude_m)
    add(town.ground.wave_xy, 1e6)
    add(town.ground.phase_rad)
    for patch in town.patches:
        add([int(patch.material), patch.wear])
        for ring in (patch.outline, *patch.holes):
            add(ring)
    for box in town.boxes:
        add([*box.centre_xy, *box.size_m, box.yaw_rad, *box.colour_rgb, box.base_z_m])
        add([int(box.kind), box.seed], 1.0)
    for tree in town.billboards:
        add([*tree.centre_xy, tree.trunk_height_m, tree.trunk_width_m])
        add([tree.crown_width_m, tree.crown_height_m, *tree.colour_rgb])
        add([tree.seed], 1.0)
    for element in town.elements:
        add([element.category, int(element.closed)], 1.0)
        add(element.vertices)
    for lane, successors, street in zip(
        town.lanes, town.lane_successors, town.lane_streets, strict=True
    ):
        add(lane)
        add([street, *successors], 1.0)
    return digest.hexdigest()
