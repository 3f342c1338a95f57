"""Ground truth from Argoverse 2 maps, as the published methods construct it.

A variant is a row of `VARIANTS`: one construction each for dividers, crossings and boundaries. All
of them work in the ego frame around one pose and keep the heights of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy.typing as npt
import shapely

from gsmap_core.categories import (
    BOUNDARY,
    CATEGORIES,
    CENTERLINE,
    DIVIDER,
    PAPER_CATEGORIES,
    PED_CROSSING,
)
from gsmap_core.data.argoverse2_heights import HEIGHTS, with_heights
from gsmap_core.data.argoverse2_layers import (
    Lines,
    Surroundings,
    area_boundaries,
    closed_crossings,
    graph_dividers,
    large_crossings,
    make_centerlines,
    marked_dividers,
    marked_lines,
    merged_crossings,
    neighbour_dividers,
    painted_dividers,
    separate_crossings,
    shared_lines,
)
from gsmap_core.data.argoverse2_map import CityMap
from gsmap_core.data.groundtruth_lanes import without_doubles
from gsmap_core.data.groundtruth_rings import merge_lines, to_elements
from gsmap_core.errors import ConfigError
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap, check_transform


@dataclass(frozen=True)
class Construction:
    """How one method makes its ground truth.

    Args:
        dividers: makes dividers; boundaries are given for those that leave out kerbs.
        crossings: makes crossings.
        boundaries: makes boundaries.
    """

    dividers: Callable[[Surroundings, Lines], Lines]
    crossings: Callable[[Surroundings], Lines]
    boundaries: Callable[[Surroundings], Lines] = area_boundaries


#: The published constructions (reference: reading of each method's own preparation).
VARIANTS: Mapping[str, Construction] = {
    'maptr': Construction(marked_dividers, separate_crossings),
    'maptrv2': Construction(neighbour_dividers, merged_crossings),
    'streammapnet': Construction(painted_dividers, closed_crossings),
    'maptracker': Construction(graph_dividers, large_crossings),
}


@dataclass(frozen=True)
class Argoverse2TruthOptions:
    """How ground truth is made.

    Args:
        variant: a key of `VARIANTS`.
        range: what to keep, in the ego frame [m].
        heights: `map`: those of the vector map; `ground`: those of the ground height raster, the
            map's where the raster has none; `none`: planar elements.
        categories: names of the categories wanted, any order; `centerline` stands for the centre
            lines of lanes, in driving direction.

    Raises:
        ConfigError: the variant, the kind of heights or a category is unknown.
    """

    variant: str = 'maptrv2'
    range: PerceptionRange = field(default_factory=PerceptionRange)
    heights: str = 'map'
    categories: tuple[str, ...] = PAPER_CATEGORIES

    def __post_init__(self) -> None:
        """Validate the names."""
        for name, value, known in (
            ('variant', self.variant, tuple(VARIANTS)),
            ('heights', self.heights, HEIGHTS),
        ):
            if value not in known:
                raise ConfigError(
                    f"ground truth: {name} '{value}' is unknown; expected one of "
                    f'{", ".join(known)}'
                )
        known = tuple(category.name for category in CATEGORIES)
        if not self.categories or not set(self.categories) <= set(known):
            raise ConfigError(
                f'ground truth: categories {", ".join(self.categories) or "(none)"}; expected '
                f'some of {", ".join(known)}'
            )
        object.__setattr__(self, 'categories', tuple(self.categories))


def make_local_map(
    city_map: CityMap,
    city_from_ego: npt.ArrayLike,
    options: Argoverse2TruthOptions | None = None,
    *,
    stamp_ns: int = 0,
    sample_id: str = '',
    scene: str = '',
) -> VectorMap:
    """Make the ground truth around one pose.

    Args:
        city_map: map of the log.
        city_from_ego: (4, 4) pose of the vehicle in the city.
        options: what to make.
        stamp_ns: moment of the pose [ns].
        sample_id: id of the frame.
        scene: name of the log.

    Returns:
        Dividers, crossings, boundaries and centre lines in this order, `reference='ego'`;
        `map_from_base` is the pose in the city.

    Raises:
        DataError: the pose is not rigid, or the lane graph is broken.
        ConfigError: heights of the ground are wanted and the log has none.

    Source: MapTR (sample code for Argoverse 2), MapTRv2, StreamMapNet, MapTracker; a crossing or
    boundary of which nothing remains inside the range is no element.
    """
    options = options or Argoverse2TruthOptions()
    pose = check_transform('city_from_ego', city_from_ego)
    around = Surroundings(city_map, pose, options.range)
    elements = make_elements(around, options.variant, options.categories)
    return VectorMap(
        elements=with_heights(elements, options.heights, city_map.ground, pose),
        stamp_ns=stamp_ns,
        range=options.range,
        reference='ego',
        sample_id=sample_id,
        scene=scene,
        map_from_base=pose,
    )


def make_elements(
    around: Surroundings, variant: str, categories: Sequence[str]
) -> list[MapElement]:
    """Return the wanted elements of a variant around a pose, with the heights of the map."""
    construction = VARIANTS[variant]
    boundaries = construction.boundaries(around)
    elements: list[MapElement] = []
    if DIVIDER.name in categories:
        elements += to_elements(construction.dividers(around, boundaries), DIVIDER.id)
    if PED_CROSSING.name in categories:
        elements += to_elements(construction.crossings(around), PED_CROSSING.id)
    if BOUNDARY.name in categories:
        elements += to_elements(boundaries, BOUNDARY.id)
    if CENTERLINE.name in categories:
        # A lane is driven from one end to the other even where the two ends meet.
        elements += [
            MapElement(
                CENTERLINE.id, shapely.get_coordinates(line, include_z=True), num_observations=0
            )
            for line in make_centerlines(around)
        ]
    return elements


def make_global_map(
    city_map: CityMap, map_offset: npt.ArrayLike, variant: str = 'maptrv2'
) -> tuple[MapElement, ...]:
    """Make the elements of the whole map of a log in its `map` frame.

    As a variant makes them around a pose, but dividers are joined where exactly two meet instead
    of chained along every way through the lanes, which a whole map has too many of.

    Args:
        city_map: map of the log.
        map_offset: (3,) origin of the `map` frame in the city frame [m].
        variant: a key of `VARIANTS`.
    """
    pose = make_transform(translation=map_offset)
    x_min, y_min, x_max, y_max = city_map.extent()
    area = PerceptionRange(
        x_min - pose[0, 3] - 1.0,
        x_max - pose[0, 3] + 1.0,
        y_min - pose[1, 3] - 1.0,
        y_max - pose[1, 3] + 1.0,
    )
    around = Surroundings(city_map, pose, area)
    elements = make_elements(around, variant, (PED_CROSSING.name, BOUNDARY.name))
    if variant in ('maptrv2', 'maptracker'):
        lanes = shared_lines(around.nearby_lanes)
        lines = [shapely.LineString(item.vertices) for side in lanes for item in side.values()]
    else:
        unmarked = ('NONE',) if variant == 'maptr' else ('NONE', 'UNKNOWN')
        lines = marked_lines(city_map, unmarked)
    single = without_doubles([around.to_ego(line) for line in lines])
    return (*to_elements(merge_lines(single), DIVIDER.id), *elements)
