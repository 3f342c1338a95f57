"""Pictures of a town from any cameras: real projective geometry, on the CPU or a GPU.

The map frame of a synthetic drive is the town frame. Everything is a function of the arguments:
equal calls give equal bytes in the same environment, and pictures within a PSNR of 40 dB on
another device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gsmap_core.data.synthetic import facades, occluders, raycast, shading, textures
from gsmap_core.data.synthetic.rasters import GroundMap, ShadowMap, pack_texels
from gsmap_core.data.synthetic.scene import Box, Conditions, Town
from gsmap_core.data.synthetic.solids import Column, TreeColumn, solid_table, tree_table
from gsmap_core.errors import CalibrationError, DataError
from gsmap_core.geometry.transforms import invert
from gsmap_core.structures import Camera, FloatArray, ImageArray

#: Solids and trees farther from the vehicle are not drawn [m].
DRAW_DISTANCE_M = 115.0
#: Half width of the surroundings that have shadows [m].
SHADOW_RADIUS_M = 80.0
_NOISE_VALUES = 1 << 20
#: Skies and shadows kept for conditions that come back.
_CACHED_CONDITIONS = 4


class Renderer:
    """Draws a town.

    Args:
        town: what to draw.
        device: `cpu` or a CUDA device.
    """

    def __init__(self, town: Town, device: str = 'cpu') -> None:
        self.town = town
        self.device = torch.device(device)
        self._ground = GroundMap(town, self.device)
        self._solids = solid_table(town.boxes, town.ground, 0.0)
        self._trees = tree_table(town.billboards, town.ground)
        self._shadows: dict[tuple[float, float], ShadowMap] = {}
        self._skies: dict[Conditions, Tensor] = {}
        leaves = textures.leaf_tile().reshape(-1).copy()
        self._leaves = torch.from_numpy(leaves).to(self.device)
        noise = np.random.default_rng(7300).standard_normal(_NOISE_VALUES).astype(np.float32)
        self._noise = torch.from_numpy(noise).to(self.device)

    @torch.no_grad()
    def render(
        self,
        cameras: Sequence[Camera],
        map_from_cameras: npt.ArrayLike,
        times_s: Sequence[float],
        conditions: Conditions,
        moving_boxes: Sequence[Box] = (),
        exposure_gain: Sequence[float] | None = None,
        noise_seed: int = 0,
    ) -> list[ImageArray]:
        """Draw one picture per camera.

        Args:
            cameras: calibration; rectified.
            map_from_cameras: (N, 4, 4) pose of every camera when it is triggered.
            times_s: N drive times at which the cameras are triggered [s].
            conditions: light and weather.
            moving_boxes: boxes in addition to those of the town, moved to the times.
            exposure_gain: N factors on the brightness; None: 1.
            noise_seed: changes the sensor noise and nothing else.

        Returns:
            N (H, W, 3) uint8 RGB pictures.

        Raises:
            DataError: the numbers of poses, times or gains do not fit the cameras.
            CalibrationError: a camera has lens distortion.
        """
        count = len(cameras)
        poses = np.asarray(map_from_cameras, dtype=np.float64)
        gains = [1.0] * count if exposure_gain is None else [float(gain) for gain in exposure_gain]
        if poses.shape != (count, 4, 4) or len(times_s) != count or len(gains) != count:
            raise DataError(
                f'renderer got {count} cameras, poses {poses.shape}, {len(times_s)} times and '
                f'{len(gains)} gains; expected ({count}, 4, 4) poses and one time and gain each'
            )
        for camera in cameras:
            if camera.distortion_model != 'none':
                raise CalibrationError(
                    f"camera '{camera.name}' has {camera.distortion_model} distortion; rendered "
                    'pictures are rectified, so leave distortion out of the rig file'
                )
        if count == 0:
            return []
        map_from_base = poses[0] @ invert(cameras[0].base_from_camera)
        centre = np.append(np.round(map_from_base[:2, 3]), 0.0)
        self._ground.ensure_baked(centre[:2], shading.FADE_END_M + 5.0)
        heading = map_from_base[:2, 0] / max(float(np.hypot(*map_from_base[:2, 0])), 1e-9)
        lamps = map_from_base[:2, 3] + 3.5 * heading - centre[:2]
        light = shading.make_light(
            conditions, (float(lamps[0]), float(lamps[1]), float(heading[0]), float(heading[1]))
        )
        sky = self._sky(conditions)
        moving_boxes = _within_reach(moving_boxes, centre, times_s)
        waves = raycast.Waves(self.town.ground, centre[:2])
        pictures: list[ImageArray | None] = [None] * count
        # Without traffic nothing depends on the time.
        moments = [float(time) if moving_boxes else 0.0 for time in times_s]
        for group in self._groups(cameras, moments):
            drawn = self._render_group(
                [cameras[i] for i in group],
                poses[group],
                moments[group[0]],
                conditions,
                moving_boxes,
                centre,
                waves,
                light,
                sky,
            )
            for position, index in enumerate(group):
                pictures[index] = self._expose(
                    drawn[position],
                    cameras[index],
                    gains[index] * light.exposure,
                    conditions.noise,
                    noise_seed,
                    index,
                )
        return [picture for picture in pictures if picture is not None]

    def _groups(self, cameras: Sequence[Camera], moments: Sequence[float]) -> list[list[int]]:
        """Return which cameras are drawn together.

        On a GPU those of equal size that see the same moment; on a CPU one by one, for its caches.
        """
        if self.device.type == 'cpu':
            return [[index] for index in range(len(cameras))]
        groups: dict[tuple[int, int, float], list[int]] = {}
        for index, (camera, moment) in enumerate(zip(cameras, moments, strict=True)):
            groups.setdefault((camera.width_px, camera.height_px, moment), []).append(index)
        return list(groups.values())

    def _sky(self, conditions: Conditions) -> Tensor:
        if conditions not in self._skies:
            _make_room(self._skies)
            image = textures.sky_image(conditions, self.town.seed)
            image = np.concatenate([image, image[:, :1]], axis=1)
            image = np.concatenate([image, np.zeros_like(image[..., :1])], axis=2)
            self._skies[conditions] = torch.from_numpy(pack_texels(image)).to(self.device)
        return self._skies[conditions]

    def _lightmap(
        self, conditions: Conditions, centre: FloatArray, moving: Sequence[Box], time_s: float
    ) -> tuple[Tensor, FloatArray, float]:
        key = (conditions.sun_azimuth_rad, conditions.sun_elevation_rad)
        if key not in self._shadows:
            _make_room(self._shadows)
            self._shadows[key] = ShadowMap(self.town, conditions)
        packed, corner = self._shadows[key].window(centre[:2], SHADOW_RADIUS_M, moving, time_s)
        texels = torch.from_numpy(packed).to(self.device)
        return texels, corner - centre[:2], ShadowMap.TEXEL_M

    def _near(self, table: FloatArray, reach: FloatArray, centre: FloatArray) -> FloatArray:
        distance = np.hypot(table[:, 0] - centre[0], table[:, 1] - centre[1]) - reach
        near = table[distance < DRAW_DISTANCE_M].copy()
        near[:, :3] -= centre
        return near

    def _render_group(
        self,
        cameras: list[Camera],
        poses: FloatArray,
        time_s: float,
        conditions: Conditions,
        moving_boxes: Sequence[Box],
        centre: FloatArray,
        waves: raycast.Waves,
        light: shading.Light,
        sky: Tensor,
    ) -> Tensor:
        """Draw cameras of equal size; return (N, H * W, 3) float32 colours, 0 to 1."""
        rays = raycast.make_rays(cameras, poses, centre, self.device)
        principal = np.array([camera.intrinsics[:2, 2] for camera in cameras])
        shape = (len(cameras), rays.height_px, rays.width_px)
        hits = raycast.intersect_ground(rays, waves)
        depth = torch.full(shape, float('inf'), device=self.device)
        depth.view(-1).index_copy_(0, hits.index, hits.depth)
        owner = torch.full(shape, -1, dtype=torch.int32, device=self.device)
        moving = solid_table(moving_boxes, self.town.ground, time_s)
        solids = np.concatenate([self._solids, moving])
        solids = self._near(
            solids, np.hypot(solids[:, Column.HALF_LENGTH], solids[:, Column.HALF_WIDTH]), centre
        )
        trees = self._near(self._trees, self._trees[:, TreeColumn.CROWN_WIDTH], centre)
        occluders.draw_solids(rays, principal, solids, depth, owner)
        occluders.draw_trees(rays, principal, trees, len(solids), depth, owner, self._leaves)

        flat_depth, flat_owner = depth.view(-1), owner.view(-1)
        image = [torch.empty_like(flat_depth) for _ in range(3)]

        def put(index: Tensor, colours: shading.Channels) -> None:
            for channel, colour in zip(image, colours, strict=True):
                channel.index_copy_(0, index, colour)

        visible = torch.nonzero(flat_owner.index_select(0, hits.index) < 0).view(-1)
        if visible.numel():
            shown = hits.select(visible)
            shadows = self._lightmap(conditions, centre, moving_boxes, time_s)
            put(
                shown.index,
                shading.shade_ground(rays, shown, self._ground, centre, shadows, light),
            )
        for low, table in ((0, solids), (len(solids), trees)):
            index = torch.nonzero((flat_owner >= low) & (flat_owner < low + len(table))).view(-1)
            if index.numel() == 0:
                continue
            rows = flat_owner.index_select(0, index) - low
            nearest = flat_depth.index_select(0, index)
            columns = torch.as_tensor(
                np.ascontiguousarray(table.T), dtype=torch.float32, device=self.device
            )
            if table is solids:
                put(index, facades.shade_solids(rays, index, nearest, rows, columns, light))
            else:
                put(
                    index,
                    facades.shade_trees(rays, index, nearest, rows, columns, light, self._leaves),
                )
        index = torch.nonzero((flat_owner < 0) & torch.isinf(flat_depth)).view(-1)
        if index.numel():
            put(index, shading.shade_sky(rays, index, sky))
        return torch.stack(image, dim=1).view(len(cameras), -1, 3)

    def _expose(
        self,
        colours: Tensor,
        camera: Camera,
        gain: float,
        noise: float,
        noise_seed: int,
        index: int,
    ) -> ImageArray:
        """Apply gain, soft highlights and sensor noise; return the picture."""
        values = colours.reshape(-1) * gain
        # Linear up to 0.8, then approaching 1.
        bright = (values - 0.8).clamp_(min=0)
        values = torch.minimum(values, 0.8 + 0.2 * bright / (bright + 0.2))
        if noise > 0:
            start = int(
                np.random.SeedSequence([noise_seed & 0xFFFFFFFF, index]).generate_state(1)[0]
            )
            start %= _NOISE_VALUES
            # The table is cut where the picture starts and repeated as often as it takes.
            pieces, missing = [self._noise[start : start + values.numel()]], values.numel()
            while (missing := missing - len(pieces[-1])) > 0:
                pieces.append(self._noise[:missing])
            tiled = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
            values.add_(tiled, alpha=noise)
        picture = values.mul_(255).round_().clamp_(0, 255).to(torch.uint8)
        return picture.view(camera.height_px, camera.width_px, 3).cpu().numpy()


def _within_reach(boxes: Sequence[Box], centre: FloatArray, times_s: Sequence[float]) -> list[Box]:
    """Return the moving boxes that can be in a picture at the first of the times."""
    kept = []
    for box in boxes:
        offset = np.asarray(box.centre_xy) + np.asarray(box.velocity_xy) * times_s[0] - centre[:2]
        # Ten metres for the size of a bus and the way between the first and the last camera.
        if np.hypot(*offset) < DRAW_DISTANCE_M + 10:
            kept.append(box)
    return kept


def _make_room(cache: dict[Any, Any]) -> None:
    """Drop the oldest entries of a cache until a few are left."""
    while len(cache) >= _CACHED_CONDITIONS:
        del cache[next(iter(cache))]
