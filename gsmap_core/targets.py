"""Training targets of one local map: points in unit coordinates, their orders, masks.

An element is the same line from either end, and a ring is the same ring from any vertex. A target
therefore carries every order that counts as equal; matching picks the nearest one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gsmap_core.categories import category_by_id, category_by_name
from gsmap_core.config import ModelConfig, OrderPattern
from gsmap_core.errors import DataError
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.geometry.polylines import cumulative_length, resample_polyline
from gsmap_core.image_targets import draw_pv_masks, line_with_heights
from gsmap_core.structures import FloatArray, MapElement, VectorMap

#: Most starting vertices of a ring that are kept (MapTR, pattern v2); a random subset beyond.
MAX_ORDERS = 19
#: Width of a line in the BEV mask [px] (MapTRv2).
MASK_THICKNESS_PX = 3


@dataclass(frozen=True)
class MapTargets:
    """What one sample is trained towards; G elements, P points, at most R orders.

    Args:
        labels: (G,) int64, index into `config.categories`.
        points: (G, P, D) float32 unit coordinates (u, v) or with height, the order of the ground
            truth.
        orders: (G, R, P, D) float32 unit coordinates, the allowed orders; rows beyond
            `num_orders` repeat the first order, so that a minimum over R needs no mask.
        num_orders: (G,) int64, 1 to R.
        bev_mask: (1, H, W) uint8, 1 where an element of any category is drawn on the BEV grid.
        pv_mask: (N, 1, h, w) int8, the same in the cameras at the size of their features; -1
            where a camera is missing. None without `losses.pv_segmentation`.
        depth_bins: (N, h, w) int64 bin of the nearest LiDAR point, -1 for none. None without
            `losses.depth`.
    """

    labels: Tensor
    points: Tensor
    orders: Tensor
    num_orders: Tensor
    bev_mask: Tensor
    pv_mask: Tensor | None = None
    depth_bins: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of elements G."""
        return len(self.labels)

    def real_orders(self) -> tuple[Tensor, Tensor]:
        """Return the V allowed orders without repetitions, element after element.

        Returns:
            (V, P, D) unit coordinates and (G,) int64 row of each element's first order.
        """
        places = torch.arange(self.orders.shape[1], device=self.orders.device)
        first = torch.zeros_like(self.num_orders)
        first[1:] = self.num_orders.cumsum(0)[:-1]
        return self.orders[places < self.num_orders[:, None]], first

    def to(self, device: torch.device | str) -> MapTargets:
        """Return the targets on another device."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        moved: dict[str, Any] = {k: v if v is None else v.to(device) for k, v in values.items()}
        return MapTargets(**moved)


@dataclass(frozen=True)
class TargetCameras:
    """What targets in the images need of the cameras, after augmentation.

    Args:
        pixels_from_reference: (N, 4, 4) from the model's reference frame [m] to pixels of the
            network input.
        camera_mask: (N,) bool, False where the camera is missing.
        depth_bins: (N, h, w) int64, see `MapTargets`, or None.
    """

    pixels_from_reference: FloatArray
    camera_mask: npt.NDArray[np.bool_]
    depth_bins: npt.NDArray[np.int64] | None = None


def _ring_orders(
    vertices: FloatArray, num_points: int, generator: np.random.Generator | None
) -> FloatArray:
    """Return (R, P, D): the ring re-started at each of its vertices, same direction."""
    count = len(vertices)
    # Order k starts at vertex (n - k) mod n, as the published code counts them.
    starts = (count - np.arange(count)) % count
    if count > MAX_ORDERS:
        if generator is None:
            generator = np.random.default_rng(0)
        starts = starts[np.sort(generator.choice(count, MAX_ORDERS, replace=False))]
    twice_round = np.concatenate([vertices, vertices, vertices[:1]])
    arc = cumulative_length(twice_round, 2)
    targets = arc[starts][:, None] + np.linspace(0.0, arc[count], num_points)
    coordinates = [np.interp(targets, arc, values) for values in twice_round.T]
    return np.stack(coordinates, axis=-1)


def _rolls(points: FloatArray, count: int) -> FloatArray:
    """Return (count, ...): the points moved round by 0, 1, 2, ... places."""
    return np.stack([np.roll(points, shift, axis=0) for shift in range(count)])


def _closed_rolls(points: FloatArray) -> FloatArray:
    """Return (P, P + 1, D): distinct points of a ring moved round and closed."""
    rolls = _rolls(points, len(points))
    return np.concatenate([rolls, rolls[:, :1]], axis=1)


def allowed_orders(
    vertices: FloatArray,
    closed: bool,
    num_points: int,
    generator: np.random.Generator | None = None,
    directed: bool = False,
    pattern: OrderPattern = 'v2',
) -> FloatArray:
    """Resample an element in every order that counts as the same element (MapTR).

    Args:
        vertices: (V, D) distinct vertices [m]; a ring does not repeat its first one. The arc is
            measured in the plane, whatever the heights, as published.
        closed: whether it is a ring.
        num_points: P.
        generator: draws the subset for rings with more than 19 vertices; None: a fixed one.
        directed: an open line counts in its own direction only.
        pattern: which orders of a ring count. `v2`: one per starting vertex, same direction, last
            point = first. `v3`: these and the same of the reversed ring. `v0`: the P samples moved
            round with the repeated end among them. `v1`: the P - 1 distinct samples moved round
            and closed. `v4`: these and the same of the reversed ring.

    Returns:
        (R, P, D) float64 [m]. Open: forward and, unless directed, reversed. Row 0 starts at the
        first vertex (unless a subset was drawn).

    Source: reference-models.md, 3.1; every published configuration uses v2.
    """
    if not closed:
        points = resample_polyline(vertices, num_points, 2)
        return points[None] if directed else np.stack([points, points[::-1]])
    if pattern in ('v2', 'v3'):
        orders = _ring_orders(vertices, num_points, generator)
        if pattern == 'v2':
            return orders
        return np.concatenate([orders, _ring_orders(vertices[::-1], num_points, generator)])
    points = resample_polyline(np.concatenate([vertices, vertices[:1]]), num_points, 2)
    if pattern == 'v0':
        return _rolls(points, num_points)
    orders = _closed_rolls(points[:-1])
    if pattern == 'v1':
        return orders
    return np.concatenate([orders, _closed_rolls(points[:-1][::-1])])


def draw_bev_mask(vector_map: VectorMap, grid: BevGrid, category_ids: set[int]) -> np.ndarray:
    """Draw all elements of the given categories, rings as outlines.

    Returns:
        (H, W) uint8, 0 or 1.
    """
    mask = np.zeros((grid.num_rows, grid.num_columns), dtype=np.uint8)
    lines = []
    for element in vector_map.elements:
        if element.category in category_ids:
            # Truncation: a cell's index is the integer part of its continuous coordinate.
            cells = np.trunc(grid.metres_to_cells(element.loop_xy())).astype(np.int32)
            lines.append(cells[:, ::-1].reshape(-1, 1, 2).copy())
    if lines:
        cv2.polylines(mask, lines, isClosed=False, color=(1,), thickness=MASK_THICKNESS_PX)
    return mask


def make_targets(
    vector_map: VectorMap,
    config: ModelConfig,
    generator: np.random.Generator | None = None,
    cameras: TargetCameras | None = None,
) -> MapTargets:
    """Turn the ground truth of one frame into targets.

    Args:
        vector_map: elements in the model's reference frame [m]; categories that the model does not
            predict are left out. Points have heights where the model predicts them (the ground
            where the map has none).
        config: gives categories, points per element, range and grid.
        generator: random subset of orders for rings with more than 19 vertices; None: a fixed one.
        cameras: for targets in the images; None: there are none.

    Raises:
        DataError: the map is in another frame than the model predicts in.
    """
    if vector_map.reference != config.reference:
        raise DataError(
            f"ground truth '{vector_map.sample_id or vector_map.stamp_ns}' is in the frame "
            f"'{vector_map.reference}'; model '{config.name}' predicts in '{config.reference}'; "
            "convert it or set 'reference' in the configuration"
        )
    label_of = {category_by_name(name).id: i for i, name in enumerate(config.categories)}
    grid, area = config.grid, config.range
    num_points, num_dims = config.decoder.num_points, config.decoder.num_dims
    elements = [element for element in vector_map.elements if element.category in label_of]
    dense = _dense_targets(vector_map, config, set(label_of), cameras)
    if not elements:
        return MapTargets(
            labels=torch.zeros(0, dtype=torch.int64),
            points=torch.zeros(0, num_points, num_dims),
            orders=torch.zeros(0, 1, num_points, num_dims),
            num_orders=torch.zeros(0, dtype=torch.int64),
            **dense,
        )
    per_element = [
        allowed_orders(
            _vertices(element, num_dims, config.reference),
            element.closed,
            num_points,
            generator,
            category_by_id(element.category).is_directed,
            config.matching.orders,
        )
        for element in elements
    ]
    counts = [len(item) for item in per_element]
    orders = np.empty((len(elements), max(counts), num_points, num_dims))
    for row, item in zip(orders, per_element, strict=True):
        row[: len(item)] = item
        row[len(item) :] = item[0]
    # Clamped after sampling, as published: the spacing is that of the unclamped line.
    np.clip(orders[..., 0], area.x_min, area.x_max, out=orders[..., 0])
    np.clip(orders[..., 1], area.y_min, area.y_max, out=orders[..., 1])
    if num_dims == 3:
        np.clip(orders[..., 2], *grid.z_range_m, out=orders[..., 2])
    unit = torch.from_numpy(grid.metres_to_unit(orders).astype(np.float32))
    return MapTargets(
        labels=torch.tensor([label_of[element.category] for element in elements]),
        points=unit[:, 0].contiguous(),
        orders=unit,
        num_orders=torch.tensor(counts),
        **dense,
    )


def _vertices(element: MapElement, num_dims: int, reference: str) -> FloatArray:
    """Return (V, D) distinct vertices, on the ground where heights are asked for and missing."""
    if num_dims == 2:
        return element.vertices[:, :2]
    return line_with_heights(element, reference)[: len(element.vertices)]


def _dense_targets(
    vector_map: VectorMap,
    config: ModelConfig,
    category_ids: set[int],
    cameras: TargetCameras | None,
) -> dict[str, Any]:
    """Return the targets on maps of cells that the losses of the model ask for."""
    mask = draw_bev_mask(vector_map, config.grid, category_ids)
    dense: dict[str, Any] = {'bev_mask': torch.from_numpy(mask)[None]}
    if cameras is None:
        return dense
    if config.losses.pv_segmentation:
        dense['pv_mask'] = torch.from_numpy(
            draw_pv_masks(
                vector_map,
                cameras.pixels_from_reference,
                cameras.camera_mask,
                config,
                category_ids,
            )
        )
    if cameras.depth_bins is not None:
        dense['depth_bins'] = torch.from_numpy(cameras.depth_bins)
    return dense
