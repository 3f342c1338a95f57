"""Ground truth of nuScenes as the published protocols make it: named variants of one builder.

| variant | patch in the paper | crossings | elements besides |
|---|---|---|---|
| `maptr` | LiDAR, 30 m right-left x 60 m ahead | united, clockwise | dividers, boundaries |
| `maptrv2` | as `maptr` | as `maptr` | also centre lines |
| `streammapnet` | ego, 60 m ahead x 30 m left-right | touching parallel ones merged | as `maptr` |
| `maptracker` | LiDAR, turned to x ahead | merged to compact shapes | as `maptr` |

Any variant can be had in either reference frame. MapTracker's frame is `lidar` turned by -90
degrees: its (x, y) are (y, -x) here. Everything is planar: nuScenes maps have no heights.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely

from gsmap_core.categories import BOUNDARY, CATEGORIES, CENTERLINE, DIVIDER, PED_CROSSING
from gsmap_core.data.groundtruth_centerlines import centerline_paths
from gsmap_core.data.groundtruth_crossings import (
    merge_compact_crossings,
    merge_parallel_crossings,
)
from gsmap_core.data.groundtruth_patch import Patch, clip_lines, clip_polygons
from gsmap_core.data.groundtruth_rings import area_outlines, to_elements
from gsmap_core.data.vector_layers import VectorLayers
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.structures import (
    FloatArray,
    MapElement,
    PerceptionRange,
    VectorMap,
    check_transform,
)

VARIANTS: tuple[str, ...] = ('maptr', 'maptrv2', 'streammapnet', 'maptracker')
#: Frame that a variant's published numbers are given in.
PUBLISHED_REFERENCE: dict[str, str] = {
    'maptr': 'lidar',
    'maptrv2': 'lidar',
    'streammapnet': 'ego',
    'maptracker': 'lidar',
}
#: 60 m ahead and back, 30 m across.
DEFAULT_RANGES: dict[str, PerceptionRange] = {
    'ego': PerceptionRange(-30.0, 30.0, -15.0, 15.0),
    'lidar': PerceptionRange(-15.0, 15.0, -30.0, 30.0),
}
#: Outlines of areas are cut this much inside the patch (boundaries) or outside (crossings) [m].
BORDER_MARGIN_M = 0.2


@dataclass(frozen=True)
class GroundTruthOptions:
    """What ground truth is made.

    Args:
        variant: one of `VARIANTS`.
        reference: `ego`, `lidar`, or `published`: the frame of the variant's paper.
        range: what to keep in that frame [m]; None: 60 m x 30 m.
        categories: names of the categories wanted, any order.

    Raises:
        ConfigError: a name is unknown.
    """

    variant: str = 'maptrv2'
    reference: str = 'ego'
    range: PerceptionRange | None = None
    categories: tuple[str, ...] = field(default=('divider', 'ped_crossing', 'boundary'))

    def __post_init__(self) -> None:
        """Validate the names and fill in what they stand for."""
        if self.variant not in VARIANTS:
            raise ConfigError(
                f"ground-truth variant '{self.variant}': unknown; expected one of "
                f'{", ".join(VARIANTS)}'
            )
        if self.reference == 'published':
            object.__setattr__(self, 'reference', PUBLISHED_REFERENCE[self.variant])
        if self.reference not in DEFAULT_RANGES:
            raise ConfigError(
                f"ground-truth reference '{self.reference}': unknown; expected "
                f'{", ".join(DEFAULT_RANGES)} or published'
            )
        known = [category.name for category in CATEGORIES]
        unknown = [name for name in self.categories if name not in known]
        if unknown or not self.categories:
            raise ConfigError(
                f'ground-truth categories {", ".join(self.categories) or "(none)"}: expected some '
                f'of {", ".join(known)}'
            )
        object.__setattr__(self, 'categories', tuple(self.categories))
        if self.range is None:
            object.__setattr__(self, 'range', DEFAULT_RANGES[self.reference])


def build_local_map(
    layers: VectorLayers,
    map_from_base: FloatArray,
    options: GroundTruthOptions,
    *,
    base_from_lidar: FloatArray | None = None,
    stamp_ns: int = 0,
    sample_id: str = '',
    scene: str = '',
) -> VectorMap:
    """Make the ground truth at a pose.

    Args:
        layers: the map, in the frame of the pose.
        map_from_base: (4, 4) ego pose; position and heading matter.
        options: variant, frame, range and categories.
        base_from_lidar: (4, 4) LiDAR frame to ego frame; needed for `reference='lidar'`.
        stamp_ns: moment of the pose [ns].
        sample_id: id of the frame in its dataset.
        scene: name of the drive.

    Returns:
        Dividers, crossings, boundaries, then centre lines, as far as wanted; vertices as cut,
        neither resampled nor simplified (centre lines are). `map_from_base` is the ego pose.

    Raises:
        DataError: the pose is not rigid, or the LiDAR's place is needed and not known.
    """
    pose = check_transform('map_from_base', map_from_base)
    if options.reference == 'lidar':
        if base_from_lidar is None:
            raise DataError(
                f"drive '{scene}', sample '{sample_id}': ground truth in the lidar frame needs "
                'base_from_lidar, which this drive does not know; ask for the ego frame'
            )
        centre = pose @ check_transform('base_from_lidar', base_from_lidar)
    else:
        centre = pose
    assert options.range is not None
    elements = build_elements(layers, Patch.around(centre, options.range), options)
    return VectorMap(
        elements=tuple(elements),
        stamp_ns=stamp_ns,
        range=options.range,
        reference=options.reference,
        sample_id=sample_id,
        scene=scene,
        map_from_base=pose,
    )


def build_elements(
    layers: VectorLayers, patch: Patch, options: GroundTruthOptions
) -> list[MapElement]:
    """Return the elements inside a patch, in its reference frame, by category."""
    area = patch.map_polygon
    elements: list[MapElement] = []
    if DIVIDER.name in options.categories:
        lines = clip_lines(layers.dividers.near(area), patch)
        elements += to_elements(lines, DIVIDER.id)
    if PED_CROSSING.name in options.categories:
        crossings = clip_polygons(layers.crossings.near(area), patch)
        elements += _crossing_elements(crossings, patch, options.variant)
    if BOUNDARY.name in options.categories:
        roads = clip_polygons(layers.roads.near(area), patch)
        outlines = area_outlines(roads, patch.enlarged(-BORDER_MARGIN_M).local_box)
        elements += to_elements(outlines, BOUNDARY.id)
    if CENTERLINE.name in options.categories:
        paths = centerline_paths(layers.centerlines, layers.successors, patch)
        elements += [
            # A way that ends where it begins is still driven from one end to the other.
            MapElement(CENTERLINE.id, _vertices(path), num_observations=0)
            for path in paths
        ]
    return elements


def _crossing_elements(
    crossings: list[shapely.Polygon], patch: Patch, variant: str
) -> list[MapElement]:
    if variant in ('maptr', 'maptrv2'):
        outlines = area_outlines(crossings, patch.enlarged(BORDER_MARGIN_M).local_box)
        return to_elements(outlines, PED_CROSSING.id)
    merge = merge_compact_crossings if variant == 'maptracker' else merge_parallel_crossings
    # The polygons were cut to the patch: their exteriors are closed as they stand. Holes are not
    # part of these protocols.
    rings = [polygon.exterior for polygon in merge(crossings)]
    directed = [ring if ring.is_ccw else shapely.reverse(ring) for ring in rings]
    return to_elements([shapely.LineString(ring) for ring in directed], PED_CROSSING.id)


def _vertices(line: shapely.LineString) -> FloatArray:
    return np.asarray(shapely.get_coordinates(line), dtype=np.float64)
