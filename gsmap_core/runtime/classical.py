"""The baseline without learning: colour thresholds, inverse perspective mapping, line fitting.

It shows what the score of a trained network is worth. Every camera is projected onto the plane
z = 0 of the ego frame; bright or yellow stripes thinner than a metre are paint; long paint becomes
dividers, rows of parallel bars become crossings, and the outline of the area that has the colour
of the road around the vehicle becomes the boundary. It takes and gives what the Predictor does.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gsmap_core.categories import BOUNDARY, DIVIDER, PED_CROSSING
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.polylines import polyline_length, resample_polyline
from gsmap_core.runtime.stream import StreamStatus
from gsmap_core.structures import (
    FloatArray,
    ImageArray,
    MapElement,
    PerceptionRange,
    SurroundFrame,
    VectorMap,
)

MaskArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClassicalSettings:
    """Thresholds of the baseline, chosen once on a few streets and not tuned further.

    Args:
        cell_m: cell of the ground picture.
        stripe_m: paint is narrower than this.
        contrast: paint is brighter (or yellower) than its surroundings by this, 0 to 255.
        road_deviations: a cell is road within this many deviations of the colour near the vehicle.
        min_line_m: shorter lines are dropped.
        max_gap_m: gaps in a dashed line up to this are bridged.
        max_offset_m: pieces of one line lie this close to the line's course.
        max_turn_deg: directions of pieces of one line differ at most so much.
        bar_length_m: least and greatest length of a bar of a zebra crossing.
        bar_width_m: least and greatest width of such a bar.
        min_bars: bars that make a crossing.
        spacing_m: distance between vertices of the result.
    """

    cell_m: float = 0.1
    stripe_m: float = 0.9
    contrast: float = 16.0
    road_deviations: float = 3.5
    min_line_m: float = 5.0
    max_gap_m: float = 10.0
    max_offset_m: float = 0.45
    max_turn_deg: float = 8.0
    bar_length_m: tuple[float, float] = (1.6, 6.5)
    bar_width_m: tuple[float, float] = (0.25, 0.95)
    min_bars: int = 4
    spacing_m: float = 2.0


@dataclass(frozen=True)
class _Stripe:
    """A connected piece of paint: centre, unit direction, length, width [m], its points."""

    centre: FloatArray
    direction: FloatArray
    length_m: float
    width_m: float
    points: FloatArray


class ClassicalMapper:
    """Maps frames without learning; the same calls as the Predictor.

    Args:
        perception_range: what to map, in the ego frame [m]; None: the default range.
        settings: thresholds; None: the default.
    """

    def __init__(
        self,
        perception_range: PerceptionRange | None = None,
        settings: ClassicalSettings | None = None,
    ) -> None:
        self.range = perception_range or PerceptionRange()
        self.settings = settings or ClassicalSettings()
        cell = self.settings.cell_m
        self._grid = BevGrid(
            self.range,
            round(self.range.length_x_m / cell),
            round(self.range.length_y_m / cell),
        )
        centres = self._grid.cell_centres().reshape(-1, 2)
        self._ground = np.concatenate([centres, np.zeros((len(centres), 1))], axis=1)
        #: What it is, for reports.
        self.info: dict[str, str] = {'model': 'classical', 'reference': 'ego'}
        self._resets = StreamStatus()

    @property
    def is_temporal(self) -> bool:
        """Whether anything is carried from frame to frame: no."""
        return False

    @property
    def stream_status(self) -> StreamStatus:
        """The resets that were asked for, as a `Predictor` has it."""
        return self._resets

    def reset(self, reason: str = 'requested') -> None:
        """Begin a drive anew; nothing is remembered between frames, so that it is only counted."""
        self._resets = StreamStatus(
            num_resets=self._resets.num_resets + 1, last_reset_reason=reason
        )

    def predict(self, frame: SurroundFrame) -> VectorMap:
        """Map one camera set.

        Args:
            frame: images (rectified) and calibration.

        Returns:
            Elements in the ego frame with scores; empty where no camera sees the ground.
        """
        picture, seen = self.ground_picture(frame)
        road = self._road_mask(picture, seen)
        paint = self._paint_mask(picture, seen, road)
        bars, stripes = self._split_paint(paint)
        crossings, used = self._crossings(bars)
        stripes += [bar for index, bar in enumerate(bars) if index not in used]
        elements = [
            *self._dividers(stripes, crossings),
            *crossings,
            *self._boundaries(road, seen),
        ]
        return VectorMap(
            elements=tuple(elements),
            stamp_ns=frame.stamp_ns,
            range=self.range,
            reference='ego',
            sample_id=frame.sample_id,
            scene=frame.scene,
            map_from_base=frame.map_from_base,
        )

    def ground_picture(self, frame: SurroundFrame) -> tuple[ImageArray, MaskArray]:
        """Return the ground seen from above, each cell from the camera nearest to it.

        Returns:
            (H, W, 3) uint8 RGB on the ego grid and (H, W) uint8, 1 where any camera sees the cell.
        """
        shape = (self._grid.num_rows, self._grid.num_columns)
        picture = np.zeros((*shape, 3), dtype=np.uint8)
        nearest = np.full(shape, np.inf)
        for camera, image, extrinsics in zip(
            frame.rig.cameras, frame.images, frame.base_from_cameras, strict=True
        ):
            if image is None:
                continue
            projection = project_points(camera, self._ground, extrinsics, min_depth_m=0.5)
            depth = np.where(projection.is_visible, projection.depth_m, np.inf).reshape(shape)
            better = depth < nearest
            pixels = projection.pixels.astype(np.float32).reshape(*shape, 2)
            sampled = cv2.remap(image, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR)
            picture[better] = sampled[better]
            nearest[better] = depth[better]
        return picture, np.isfinite(nearest).astype(np.uint8)

    def _cells(self, length_m: float) -> int:
        return max(1, round(length_m / self.settings.cell_m))

    def _disc(self, diameter_m: float) -> MaskArray:
        size = self._cells(diameter_m) | 1
        return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)

    def _road_mask(self, picture: ImageArray, seen: MaskArray) -> MaskArray:
        """Return (H, W) uint8, 1 where the ground has the colour of the road at the vehicle."""
        lab = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 2.0), cv2.COLOR_RGB2LAB)
        values = lab.astype(np.float32)
        x, y = np.moveaxis(self._grid.cell_centres(), -1, 0)
        seed = (np.abs(x) < 12.0) & (np.abs(x) > 3.0) & (np.abs(y) < 1.2) & (seen > 0)
        if seed.sum() < 50:
            return np.zeros_like(seen)
        centre = np.median(values[seed], axis=0)
        spread = np.median(np.abs(values[seed] - centre), axis=0) * 1.4826
        spread = np.maximum(spread, (9.0, 2.5, 2.5))
        distance = np.sqrt((((values - centre) / spread) ** 2).sum(axis=-1))
        road = ((distance < self.settings.road_deviations) & (seen > 0)).astype(np.uint8)
        # Paint and shadows leave holes in the road; thin bridges to other grey areas go.
        road = cv2.morphologyEx(road, cv2.MORPH_CLOSE, self._disc(1.2)).astype(np.uint8)
        road = cv2.morphologyEx(road, cv2.MORPH_OPEN, self._disc(1.5)).astype(np.uint8)
        count, labels = cv2.connectedComponents(road)
        if count <= 1:
            return np.zeros_like(seen)
        votes = np.bincount(labels[seed], minlength=count)
        votes[0] = 0
        # The cameras do not see the ground under the vehicle, so that the road ahead and the road
        # behind are two components.
        chosen = np.isin(labels, np.flatnonzero(votes > 0.2 * seed.sum())).astype(np.uint8)
        contours, _ = cv2.findContours(chosen, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for contour in contours:
            # Vehicles and worn paint inside the road are no boundary.
            if cv2.contourArea(contour) * self.settings.cell_m**2 < 12.0:
                cv2.drawContours(chosen, [contour], -1, (1,), -1)
        return np.asarray(chosen, dtype=np.uint8)

    def _paint_mask(self, picture: ImageArray, seen: MaskArray, road: MaskArray) -> MaskArray:
        """Return (H, W) uint8, 1 on thin bright or yellow stripes on or near the road."""
        lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
        kernel = self._disc(self.settings.stripe_m)
        mask = np.zeros_like(seen)
        for channel, contrast in ((0, self.settings.contrast), (2, self.settings.contrast * 0.7)):
            raised = cv2.morphologyEx(lab[..., channel], cv2.MORPH_TOPHAT, kernel)
            mask |= (raised > contrast).astype(np.uint8)
        for limit, margin_m in ((road, 0.5), (seen, 0.4)):
            mask &= np.asarray(cv2.erode(limit, self._disc(margin_m)), dtype=np.uint8)
        return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, self._disc(0.3)), np.uint8)

    def _split_paint(self, paint: MaskArray) -> tuple[list[_Stripe], list[_Stripe]]:
        """Return the pieces of paint that may be bars of a crossing, and the other thin ones."""
        s = self.settings
        bars: list[_Stripe] = []
        others: list[_Stripe] = []
        count, labels, stats, _ = cv2.connectedComponentsWithStats(paint)
        for label in range(1, count):
            left, top, width, height, area = stats[label]
            if area < 12:
                continue
            window = labels[top : top + height, left : left + width] == label
            cells = np.argwhere(window) + (top + 0.5, left + 0.5)
            stripe = _fit_stripe(self._grid.cells_to_metres(cells), s.cell_m)
            is_bar = (
                s.bar_length_m[0] <= stripe.length_m <= s.bar_length_m[1]
                and s.bar_width_m[0] <= stripe.width_m <= s.bar_width_m[1]
                and stripe.length_m > 2.0 * stripe.width_m
            )
            if is_bar:
                bars.append(stripe)
            elif stripe.length_m > 0.8 and stripe.length_m > 2.5 * stripe.width_m:
                others.append(stripe)
        return bars, others

    def _crossings(self, bars: list[_Stripe]) -> tuple[list[MapElement], set[int]]:
        """Group parallel bars that stand side by side; return crossings and the bars in them."""
        parent = list(range(len(bars)))
        cosine = np.cos(np.radians(2 * self.settings.max_turn_deg))
        for i, first in enumerate(bars):
            normal = np.array([-first.direction[1], first.direction[0]])
            for j in range(i):
                step = bars[j].centre - first.centre
                if (
                    abs(first.direction @ bars[j].direction) > cosine
                    and abs(step @ normal) < 1.8
                    and abs(step @ first.direction) < 0.5 * first.length_m
                ):
                    _join(parent, i, j)
        crossings, used = [], set()
        for members in _groups(parent):
            if len(members) < self.settings.min_bars:
                continue
            used.update(members)
            points = np.concatenate([bars[k].points for k in members]).astype(np.float32)
            corners = cv2.boxPoints(cv2.minAreaRect(points))
            score = min(0.95, 0.3 + 0.06 * len(members))
            crossings.append(
                MapElement(PED_CROSSING.id, np.asarray(corners, float), closed=True, score=score)
            )
        return crossings, used

    def _dividers(self, stripes: list[_Stripe], crossings: list[MapElement]) -> list[MapElement]:
        """Chain pieces of paint that continue each other and fit a smooth line to each chain."""
        s = self.settings
        areas = [element.vertices.astype(np.float32) for element in crossings]
        kept = [
            stripe
            for stripe in stripes
            if not any(
                cv2.pointPolygonTest(area, stripe.centre.tolist(), True) > -0.5 for area in areas
            )
        ]
        parent = list(range(len(kept)))
        cosine = np.cos(np.radians(s.max_turn_deg))
        for i, first in enumerate(kept):
            for j in range(i):
                second = kept[j]
                step = second.centre - first.centre
                reach = (first.length_m + second.length_m) / 2 + s.max_gap_m
                if abs(first.direction @ second.direction) < cosine or step @ step > reach**2:
                    continue
                offsets = [
                    abs(step[0] * d[1] - step[1] * d[0])
                    for d in (first.direction, second.direction)
                ]
                if max(offsets) < s.max_offset_m + 0.03 * float(np.hypot(*step)):
                    _join(parent, i, j)
        elements = []
        for members in _groups(parent):
            points = np.concatenate([kept[k].points for k in members])
            line = _fit_course(points, s.spacing_m)
            length = polyline_length(line)
            if length < s.min_line_m:
                continue
            painted = sum(kept[k].length_m for k in members) / length
            score = float(np.clip(0.25 + 0.4 * min(painted, 1.0) + 0.3 * length / 60.0, 0, 0.95))
            elements.append(MapElement(DIVIDER.id, line, score=score))
        return elements

    def _boundaries(self, road: MaskArray, seen: MaskArray) -> list[MapElement]:
        """Return the stretches of the road's outline that lie inside what the cameras see."""
        s = self.settings
        known = cv2.erode(seen, self._disc(0.6), borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
        smooth = cv2.morphologyEx(road, cv2.MORPH_OPEN, self._disc(2.5))
        contours, _ = cv2.findContours(smooth, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        elements = []
        for contour in contours:
            cells = contour[:, 0, ::-1].astype(int)
            inside = known[cells[:, 0], cells[:, 1]] > 0
            if inside.all():
                stretches = [np.concatenate([cells, cells[:1]])]
            else:
                # Begin at a cell that does not count, so that no stretch is cut by the start.
                start = int(np.flatnonzero(~inside)[0])
                cells, inside = np.roll(cells, -start, axis=0), np.roll(inside, -start)
                edges = np.flatnonzero(np.diff(np.concatenate([inside, [False]]).astype(int)))
                pairs = zip(edges[::2], edges[1::2], strict=True)
                stretches = [cells[a + 1 : b + 1] for a, b in pairs]
            for stretch in stretches:
                line = self._grid.cells_to_metres(stretch + 0.5)
                length = polyline_length(line)
                if len(line) < 2 or length < s.min_line_m:
                    continue
                simple = cv2.approxPolyDP(line.astype(np.float32)[:, None], 0.25, False)[:, 0]
                score = float(np.clip(0.3 + 0.6 * length / 60.0, 0.0, 0.95))
                count = max(2, int(np.ceil(length / s.spacing_m)))
                line = resample_polyline(simple.astype(np.float64), count)
                elements.append(MapElement(BOUNDARY.id, line, score=score))
        return elements


def _fit_stripe(points: FloatArray, cell_m: float) -> _Stripe:
    """Describe a piece of paint by its principal axes."""
    centre = points.mean(axis=0)
    local = points - centre
    _, vectors = np.linalg.eigh(local.T @ local)
    along, across = local @ vectors[:, 1], local @ vectors[:, 0]
    length = float(np.ptp(along)) + cell_m
    # Mean width from the area: a few stray cells do not widen a thin line.
    width = len(points) * cell_m**2 / length
    return _Stripe(centre, vectors[:, 1], length, max(width, float(across.std())), points)


def _fit_course(points: FloatArray, spacing_m: float) -> FloatArray:
    """Fit a parabola to points along their principal axis; return it as a line of vertices."""
    centre = points.mean(axis=0)
    local = points - centre
    _, vectors = np.linalg.eigh(local.T @ local)
    along, across = local @ vectors[:, 1], local @ vectors[:, 0]
    low, high = float(along.min()), float(along.max())
    degree = 2 if high - low > 8.0 else 1
    coefficients = np.polyfit(along, across, degree)
    near = np.abs(np.polyval(coefficients, along) - across) < 0.4
    if near.sum() > max(10, 0.5 * len(points)):
        coefficients = np.polyfit(along[near], across[near], degree)
    steps = np.linspace(low, high, max(2, int(np.ceil((high - low) / spacing_m)) + 1))
    fitted = np.polyval(coefficients, steps)
    return centre + steps[:, None] * vectors[:, 1] + fitted[:, None] * vectors[:, 0]


def _find(parent: list[int], item: int) -> int:
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


def _join(parent: list[int], first: int, second: int) -> None:
    parent[_find(parent, first)] = _find(parent, second)


def _groups(parent: list[int]) -> list[list[int]]:
    """Return the members of every set of a union-find forest, in order."""
    groups: dict[int, list[int]] = {}
    for item in range(len(parent)):
        groups.setdefault(_find(parent, item), []).append(item)
    return list(groups.values())
