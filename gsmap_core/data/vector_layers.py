"""The vector map of a place, dataset-neutral: layers of lines and areas with a spatial index.

Readers of datasets fill it, `groundtruth_*` cut it. Coordinates are those of the map [m], x east,
y north.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely


class Layer:
    """Geometries of one kind, found quickly by place.

    Args:
        geometries: lines or polygons, in the order of the dataset.
        names: one unique id per geometry; omitted: their numbers.
    """

    def __init__(
        self, geometries: Iterable[shapely.Geometry] = (), names: Iterable[str] | None = None
    ) -> None:
        self.geometries: npt.NDArray[np.object_] = np.array(list(geometries), dtype=object)
        given = [str(i) for i in range(len(self.geometries))] if names is None else list(names)
        if len(given) != len(self.geometries):
            raise AssertionError(f'{len(given)} names for {len(self.geometries)} geometries')
        self.names = tuple(given)
        self._tree = shapely.STRtree(self.geometries)

    def __len__(self) -> int:
        """Return the number of geometries."""
        return len(self.geometries)

    def indices_near(self, area: shapely.Geometry) -> npt.NDArray[np.int64]:
        """Return the numbers of the geometries whose boxes touch that of an area, ascending."""
        return np.sort(self._tree.query(area))

    def near(self, area: shapely.Geometry) -> list[shapely.Geometry]:
        """Return the geometries whose boxes touch that of an area, in order."""
        return list(self.geometries[self.indices_near(area)])


@dataclass(frozen=True)
class VectorLayers:
    """What ground truth is made of.

    Args:
        place: name of the map (city).
        dividers: lines between lanes and between directions.
        crossings: valid polygons of pedestrian crossings.
        roads: valid polygons whose union is the road; its outline is the boundary.
        centerlines: lines of lanes in the direction of driving, named by lane.
        successors: names of the lanes that follow a lane.
        problems: what the map lacks or what in it cannot be used, in words.
    """

    place: str
    dividers: Layer
    crossings: Layer
    roads: Layer
    centerlines: Layer = field(default_factory=Layer)
    successors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
