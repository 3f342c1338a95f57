"""Identities of elements over the frames of a scene, for files that come without.

As MapTracker makes them: elements of earlier frames are moved by the vehicle's motion, every
element is drawn as a mask of its own, and the masks of two frames are assigned to each other by
their IoU. Source: MapTracker's `prepare_gt_tracks.py` and `prepare_pred_tracks.py`
(reference-model facts 5.3 and 6.3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from gsmap_core.categories import category_by_name
from gsmap_core.errors import DataError
from gsmap_core.evaluation.frames import frame_key
from gsmap_core.evaluation.raster_masks import intersection_over_union
from gsmap_core.geometry.polylines import resample_polylines
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import FloatArray, MapElement, PerceptionRange, VectorMap

#: Side of a mask's cell [m]: 200 x 100 cells for 60 x 30 m.
CELL_M = 0.3
#: OpenCV's thickness of the published program; it paints five cells across.
_LINE_CELLS = 3
#: Smaller masks are dilated, so that short elements can meet at all.
_MIN_CELLS = 20
_ELLIPSE_CELLS = 7


def instance_masks(
    lines: Sequence[FloatArray], limits: PerceptionRange, is_area: bool
) -> npt.NDArray[np.bool_]:
    """Draw elements, each on its own.

    Args:
        lines: (V, 2) vertices each [m]; a ring repeats its first one.
        limits: what the masks cover; the rest is lost.
        is_area: filled, else lines of OpenCV's thickness 3.

    Returns:
        (M, cells) bool.
    """
    shape = round(limits.length_y_m / CELL_M), round(limits.length_x_m / CELL_M)
    masks = np.zeros((len(lines), *shape), dtype=np.uint8)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_ELLIPSE_CELLS, _ELLIPSE_CELLS))
    for mask, line in zip(masks, lines, strict=True):
        cells = np.floor((line - (limits.x_min, limits.y_min)) / CELL_M)
        pixels = np.clip(cells, -(2**14), 2**14).astype(np.int32)
        if is_area:
            cv2.fillPoly(mask, [pixels], (1,))
        else:
            cv2.polylines(mask, [pixels], isClosed=False, color=(1,), thickness=_LINE_CELLS)
        if 0 < np.count_nonzero(mask) < _MIN_CELLS:
            cv2.dilate(mask, ellipse, dst=mask)
    return masks.reshape(len(lines), shape[0] * shape[1]).view(np.bool_)


@dataclass(frozen=True)
class _Seen:
    """Elements of one category in an earlier frame: their vertices in its ego frame, their ids."""

    points: list[FloatArray]
    ids: list[int]
    map_from_base: FloatArray


@dataclass
class ElementLinker:
    """Numbers the elements of one category from frame to frame of one scene.

    Args:
        category: its name.
        max_age: frames that are looked back, the nearest first.
        min_iou: masks that overlap by more than this can be the same element.
        num_points: lines are resampled to that many points first; None: they are not.
    """

    category: str
    max_age: int = 1
    min_iou: float = 0.01
    num_points: int | None = None
    _seen: deque[_Seen] = field(init=False, repr=False)
    _count: int = field(init=False, repr=False, default=0)

    @classmethod
    def of_ground_truth(cls, category: str) -> ElementLinker:
        """Return one that links as MapTracker links ground truth."""
        return cls(category)

    @classmethod
    def of_predictions(cls, category: str) -> ElementLinker:
        """Return one that links as MapTracker links predictions that were not tracked."""
        return cls(category, max_age=5, min_iou=0.001, num_points=20)

    def __post_init__(self) -> None:
        """Begin a scene."""
        self._seen = deque(maxlen=self.max_age)

    def link(self, elements: Sequence[MapElement], frame: VectorMap) -> list[int]:
        """Return the identity of each element of the next frame, from 1.

        Args:
            elements: of this linker's category.
            frame: the map that they belong to, for its pose and range.

        Raises:
            DataError: the frame's elements are not in the ego frame, or it has no pose.
        """
        if frame.reference != 'ego' or frame.map_from_base is None:
            raise DataError(
                f"frame '{frame_key(frame)}' ('{frame.reference}'): elements have no ids, and to "
                'link them the motion is needed; expected ids, or maps in the ego frame with '
                'map_from_base'
            )
        pose = frame.map_from_base
        is_area = category_by_name(self.category).is_area
        points = [_spatial(element) for element in elements]
        if self.num_points is not None and points:
            points = list(resample_polylines(points, self.num_points, 2))
        masks = instance_masks([line[:, :2] for line in points], frame.range, is_area)
        ids = [0] * len(points)
        for seen in reversed(self._seen):
            free = [i for i, number in enumerate(ids) if number == 0]
            old = [i for i, number in enumerate(seen.ids) if number not in ids]
            if not free or not old:
                continue
            motion = invert(pose) @ seen.map_from_base
            moved = [transform_points(motion, seen.points[i])[:, :2] for i in old]
            overlap = intersection_over_union(
                masks[free], instance_masks(moved, frame.range, is_area)
            )
            for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
                if overlap[row, column] > self.min_iou:
                    ids[free[row]] = seen.ids[old[column]]
        for index, number in enumerate(ids):
            if number == 0:
                self._count += 1
                ids[index] = self._count
        self._seen.append(_Seen(points, ids, pose))
        return ids


@dataclass
class SideIdentities:
    """Identities of the elements of one side: those of the file, or made here if it has none.

    Args:
        side: what to call it in errors.
        make_linker: returns what links the elements of a category in a scene.
        min_linked_score: elements without identities need a higher score to take part; None: all
            take part.
    """

    side: str
    make_linker: Callable[[str], ElementLinker]
    min_linked_score: float | None = None
    _has_ids: bool | None = field(init=False, repr=False, default=None)
    _linkers: dict[tuple[str, str], ElementLinker] = field(
        init=False, repr=False, default_factory=dict
    )

    @property
    def are_made(self) -> bool:
        """Whether there were elements, without identities."""
        return self._has_ids is False

    def of(
        self, category: str, frame: VectorMap, scene: str
    ) -> tuple[list[MapElement], list[int]]:
        """Return the elements of a category that take part, and their identities.

        Args:
            category: its name.
            frame: the next of its scene.
            scene: name of the drive.

        Raises:
            DataError: some elements have ids and others none, or ids have to be made and the frame
                has no pose.
        """
        elements = list(frame.of_category(category_by_name(category).id))
        for element in elements:
            has_id = bool(element.id)
            self._has_ids = has_id if self._has_ids is None else self._has_ids
            if self._has_ids != has_id:
                raise DataError(
                    f"{self.side}, frame '{frame_key(frame)}': '{category}' "
                    f'{"has an" if has_id else "has no"} id and the first element of the file '
                    f'{"has none" if has_id else "has one"}; expected ids of all elements or of '
                    'none'
                )
        if self._has_ids:
            return elements, [element.id or 0 for element in elements]
        if self.min_linked_score is not None:
            elements = [e for e in elements if (e.score or 0.0) > self.min_linked_score]
        if self._has_ids is None:
            return elements, []
        if (category, scene) not in self._linkers:
            self._linkers[category, scene] = self.make_linker(category)
        return elements, self._linkers[category, scene].link(elements, frame)

    def merge(self, other: SideIdentities, scene: str) -> None:
        """Check that another side, whose first scene is named, agrees on who makes identities.

        Raises:
            DataError: one has ids and the other has none.
        """
        self._has_ids = other._has_ids if self._has_ids is None else self._has_ids
        if other._has_ids not in (None, self._has_ids):
            raise DataError(
                f"{self.side}: scene '{scene}' and those before differ in whether elements have "
                'ids; expected ids of all elements or of none'
            )


def _spatial(element: MapElement) -> FloatArray:
    """Return (V, 3) vertices, height 0 where there is none; a ring repeats its first one."""
    vertices = element.vertices
    if not element.has_z:
        vertices = np.column_stack([vertices, np.zeros(len(vertices))])
    return np.concatenate([vertices, vertices[:1]]) if element.closed else vertices
