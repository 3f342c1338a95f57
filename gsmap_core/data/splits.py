"""Splits into training and validation drives: as published, or so that they share no ground.

Works on the areas that drives perceive, of any dataset. Drives of different places (cities) never
overlap. How much of the validation area is seen in training is measured for every split.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
import yaml

from gsmap_core.errors import ConfigError, DataError
from gsmap_core.structures import PerceptionRange

PARTS: tuple[str, ...] = ('train', 'val', 'test')
#: Poses nearer to the one before are left out when areas are drawn [m].
_POSE_STEP_M = 1.0


@dataclass(frozen=True)
class DriveArea:
    """What a drive perceives.

    Args:
        name: name of the drive.
        place: city or town; areas of different places do not overlap.
        area: in the frame of the place [m].
        num_frames: size of the drive.
    """

    name: str
    place: str
    area: shapely.Geometry
    num_frames: int


@dataclass(frozen=True)
class Split:
    """Names of drives by part.

    Args:
        name: `original`, `geographic`, or the name of the file it came from.
        train: for training.
        val: for validation.
        test: for testing.
        left_out: in none of the parts on purpose.

    Raises:
        DataError: a drive is in two parts, or twice in one.
    """

    name: str
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts are disjoint."""
        everything = [*self.train, *self.val, *self.test, *self.left_out]
        counts: dict[str, int] = {}
        for drive in everything:
            counts[drive] = counts.get(drive, 0) + 1
        twice = sorted(drive for drive, count in counts.items() if count > 1)
        if twice:
            raise DataError(
                f"split '{self.name}' names {', '.join(twice[:5])} more than once; expected every "
                'drive in one part'
            )

    def of(self, part: str) -> tuple[str, ...]:
        """Return the names of one part.

        Raises:
            ConfigError: there is no such part.
        """
        if part not in PARTS:
            raise ConfigError(f"split part '{part}': expected one of {', '.join(PARTS)}")
        return {'train': self.train, 'val': self.val, 'test': self.test}[part]

    def without(self, names: Collection[str]) -> Split:
        """Return the split with some drives moved to `left_out`."""
        moved = [drive for part in PARTS for drive in self.of(part) if drive in names]
        train, val, test = (
            tuple(drive for drive in self.of(part) if drive not in names) for part in PARTS
        )
        left_out = (*self.left_out, *moved)
        return replace(self, train=train, val=val, test=test, left_out=left_out)

    def restricted(self, names: Iterable[str]) -> tuple[Split, tuple[str, ...], tuple[str, ...]]:
        """Return the split of the drives that exist.

        Args:
            names: the drives there are.

        Returns:
            The split; listed drives that do not exist; drives that no part lists.
        """
        there = list(names)
        known = set(there)
        parts = (self.train, self.val, self.test, self.left_out)
        train, val, test, left_out = (tuple(d for d in part if d in known) for part in parts)
        listed = [drive for part in parts for drive in part]
        everything = set(listed)
        return (
            replace(self, train=train, val=val, test=test, left_out=left_out),
            tuple(drive for drive in listed if drive not in known),
            tuple(drive for drive in there if drive not in everything),
        )


@dataclass(frozen=True)
class SplitOverlap:
    """How much validation repeats what training has seen.

    Args:
        val_area_m2: area of the union of the validation drives.
        seen_area_m2: part of it that training drives perceive too.
        num_val: validation drives.
        num_val_touched: those whose area training drives touch.
        by_place: (`val_area_m2`, `seen_area_m2`) per place.
    """

    val_area_m2: float
    seen_area_m2: float
    num_val: int
    num_val_touched: int
    by_place: Mapping[str, tuple[float, float]]

    @property
    def seen_share(self) -> float:
        """Share of the validation area seen in training, 0 to 1; 0 without validation."""
        return self.seen_area_m2 / self.val_area_m2 if self.val_area_m2 else 0.0


def drive_area(
    name: str, place: str, place_from_base: npt.ArrayLike, extent: PerceptionRange | None = None
) -> DriveArea:
    """Return the area a drive perceives: the union of a rectangle around every pose.

    Args:
        name: name of the drive.
        place: city or town whose frame the poses are in.
        place_from_base: (N, 4, 4) poses of its frames.
        extent: what is perceived, ego frame [m]; None: 60 m x 30 m.

    Raises:
        DataError: there is no pose.
    """
    poses = np.asarray(place_from_base, dtype=np.float64)
    if poses.ndim != 3 or not len(poses):
        raise DataError(f"drive '{name}' has no poses; expected one per frame")
    box = extent or PerceptionRange()
    kept = [0]
    for index in range(1, len(poses)):
        if np.linalg.norm(poses[index, :2, 3] - poses[kept[-1], :2, 3]) >= _POSE_STEP_M:
            kept.append(index)
    corners = np.array(
        [
            [box.x_max, box.y_max],
            [box.x_min, box.y_max],
            [box.x_min, box.y_min],
            [box.x_max, box.y_min],
        ]
    )
    used = poses[kept]
    yaw = np.arctan2(used[:, 1, 0], used[:, 0, 0])
    turn = np.stack(
        [np.stack([np.cos(yaw), -np.sin(yaw)], -1), np.stack([np.sin(yaw), np.cos(yaw)], -1)], 1
    )
    rings = np.einsum('nij,kj->nki', turn, corners) + used[:, None, :2, 3]
    return DriveArea(name, place, shapely.union_all(shapely.polygons(rings)), len(poses))


def split_overlap(areas: Sequence[DriveArea], split: Split) -> SplitOverlap:
    """Measure how much of the validation area is seen in training.

    Raises:
        DataError: the split names a drive without area.
    """
    by_name = {drive.name: drive for drive in areas}
    unknown = [name for part in ('train', 'val') for name in split.of(part) if name not in by_name]
    if unknown:
        raise DataError(
            f"split '{split.name}' names {', '.join(unknown[:5])}, which have no poses here; "
            'restrict it to the drives that exist'
        )
    train, val = ([by_name[name] for name in split.of(part)] for part in ('train', 'val'))
    by_place, touched = {}, 0
    for place in sorted({drive.place for drive in val}):
        there = [drive.area for drive in train if drive.place == place]
        here = [drive.area for drive in val if drive.place == place]
        tree = shapely.STRtree(there)
        union = shapely.union_all(here)
        near = shapely.union_all([there[index] for index in np.sort(tree.query(union))])
        by_place[place] = (float(union.area), float(shapely.intersection(union, near).area))
        touched += sum(bool(len(tree.query(area, predicate='intersects'))) for area in here)
    return SplitOverlap(
        val_area_m2=sum(total for total, _ in by_place.values()),
        seen_area_m2=sum(seen for _, seen in by_place.values()),
        num_val=len(val),
        num_val_touched=touched,
        by_place=by_place,
    )


def read_split_file(path: str | Path) -> Split:
    """Read published lists: a JSON or YAML mapping of `train`, `val`, `test` and `left_out`.

    Each value is a list of names, or the name of a text file beside it with one name a line.

    Raises:
        DataError: a file cannot be read or is not such a mapping.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"split file '{path}' cannot be read: {error}") from error
    allowed = {*PARTS, 'left_out'}
    if not isinstance(content, dict) or not set(content) <= allowed or 'train' not in content:
        raise DataError(
            f"split file '{path}': expected a mapping with 'train' and any of val, test, left_out"
        )
    return Split(path.stem, **{part: _names(path, part, content[part]) for part in content})


def _names(path: Path, part: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        beside = path.parent / value
        try:
            lines = beside.read_text(encoding='utf-8').split('\n')
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"split file '{path}': {part}: {error}") from error
        return tuple(line.strip() for line in lines if line.strip())
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DataError(
            f"split file '{path}': {part} is a {type(value).__name__}; expected a list of names "
            'or the name of a text file'
        )
    return tuple(value)
