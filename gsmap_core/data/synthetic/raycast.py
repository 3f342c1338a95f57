"""Rays of cameras, and where they meet the ground.

PyTorch, the same on every device up to rounding. Positions are relative to a point near the
vehicle, so that float32 keeps micrometres. A ray is `origin + t * direction` with directions of
depth 1, so t is the depth along the optical axis of its camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsmap_core.data.synthetic.scene import HeightField
from gsmap_core.structures import Camera, FloatArray

#: Nothing nearer than this along the optical axis is drawn [m].
NEAR_M = 0.1
#: Ground farther away than this is sky [m].
FAR_GROUND_M = 600.0
_MAX_STEPS = 14
#: Steps before it is worth looking which rays have arrived.
_EASY_STEPS = 2
#: Height above the ground at which a ray has arrived, as a share of the distance: 0.04 px at a
#: focal length of 1000 px.
_TOLERANCE = 4e-5


class Waves:
    """A height field about a point: plain numbers for the inner loops.

    Args:
        ground: height field in the town frame.
        centre_xy: (2,) the point that becomes the origin [m].
    """

    def __init__(self, ground: HeightField, centre_xy: FloatArray) -> None:
        phase = np.mod(ground.phase_rad + ground.wave_xy @ centre_xy, 2 * np.pi)
        self.terms = [
            (float(amplitude), float(wave[0]), float(wave[1]), float(angle))
            for amplitude, wave, angle in zip(
                ground.amplitude_m, ground.wave_xy, phase, strict=True
            )
            if amplitude != 0
        ]
        steepness = np.hypot(ground.wave_xy[:, 0], ground.wave_xy[:, 1])
        amplitude = np.abs(ground.amplitude_m)
        #: No slope and no curvature of the field exceeds these.
        self.max_slope = float(amplitude @ steepness)
        self.max_curvature = float(amplitude @ steepness**2)

    def height_and_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return heights [m] and slopes along x and y at points."""
        height, slope_x, slope_y = (torch.zeros_like(x) for _ in range(3))
        for amplitude, wave_x, wave_y, phase in self.terms:
            angle = torch.add(x * wave_x, y, alpha=wave_y).add_(phase)
            height.add_(torch.sin(angle), alpha=amplitude)
            cosine = torch.cos_(angle)
            slope_x.add_(cosine, alpha=amplitude * wave_x)
            slope_y.add_(cosine, alpha=amplitude * wave_y)
        return height, slope_x, slope_y


@dataclass
class Rays:
    """The rays of N cameras of equal size.

    Args:
        origins: (N, 3) optical centres, relative [m].
        rotations: (N, 3, 3) camera to town.
        steps: (N, 2) change of the camera-frame direction per pixel along u and v.
        x: (N, H * W) direction towards east, depth 1.
        y: towards north.
        z: up.
        height_px: H.
        width_px: W.
    """

    origins: FloatArray
    rotations: FloatArray
    steps: FloatArray
    x: Tensor
    y: Tensor
    z: Tensor
    height_px: int
    width_px: int

    @property
    def num_cameras(self) -> int:
        """N."""
        return len(self.origins)

    def per_pixel(self, values: FloatArray, index: Tensor) -> Tensor | float:
        """Return one value per camera as one per selected pixel (a number if there is one camera).

        Args:
            values: (N,).
            index: (P,) indices into the N * H * W pixels.
        """
        if self.num_cameras == 1:
            return float(values[0])
        table = torch.as_tensor(values, dtype=torch.float32, device=index.device)
        return table[index // (self.height_px * self.width_px)]


def camera_steps(cameras: list[Camera]) -> FloatArray:
    """Return (N, 2): change of the direction per pixel along u and v."""
    return np.array([[1 / c.intrinsics[0, 0], 1 / c.intrinsics[1, 1]] for c in cameras])


def make_rays(
    cameras: list[Camera], town_from_cameras: FloatArray, centre: FloatArray, device: torch.device
) -> Rays:
    """Build the rays of cameras of equal size.

    Args:
        cameras: calibration.
        town_from_cameras: (N, 4, 4).
        centre: (3,) the point that becomes the origin [m].
        device: where the directions live.
    """
    width, height = cameras[0].width_px, cameras[0].height_px
    steps = camera_steps(cameras)
    count = len(cameras)
    u = torch.arange(width, dtype=torch.float32, device=device).view(1, 1, width)
    v = torch.arange(height, dtype=torch.float32, device=device).view(1, height, 1)

    def column(values: FloatArray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device).view(count, 1, 1)

    principal = np.array([camera.intrinsics[:2, 2] for camera in cameras])
    rotations = np.asarray(town_from_cameras, dtype=np.float64)[:, :3, :3]
    across = (u - column(principal[:, 0])) * column(steps[:, 0])
    down = (v - column(principal[:, 1])) * column(steps[:, 1])
    x, y, z = (
        (
            across * column(rotations[:, axis, 0])
            + (down * column(rotations[:, axis, 1]) + column(rotations[:, axis, 2]))
        ).view(count, -1)
        for axis in range(3)
    )
    origins = np.asarray(town_from_cameras, dtype=np.float64)[:, :3, 3] - centre
    return Rays(origins, rotations, steps, x, y, z, height, width)


@dataclass
class GroundHits:
    """Pixels that see ground.

    Args:
        index: (P,) indices into the N * H * W pixels.
        depth: (P,) [m].
        x: (P,) east of the point, relative [m].
        y: (P,) north.
        slope_x: (P,) dz/dx there.
        slope_y: (P,) dz/dy there.
    """

    index: Tensor
    depth: Tensor
    x: Tensor
    y: Tensor
    slope_x: Tensor
    slope_y: Tensor

    def select(self, keep: Tensor) -> GroundHits:
        """Return the hits at the given (Q,) positions."""
        return GroundHits(*(value.index_select(0, keep) for value in vars(self).values()))


def intersect_ground(rays: Rays, waves: Waves) -> GroundHits:
    """Find the first intersection of every ray with the height field.

    The step is the largest one that cannot pass the surface, from height, slope and the bound on
    the curvature: it becomes Newton's near the surface, and is exact on level ground.
    """
    flat_x, flat_y, flat_z = rays.x.view(-1), rays.y.view(-1), rays.z.view(-1)
    run = torch.sqrt(flat_x * flat_x + flat_y * flat_y)
    # Steeper than the steepest slope: can never come down onto the ground.
    index = torch.nonzero(flat_z < run * waves.max_slope - 1e-6).view(-1)
    dx, dy, dz = (value.index_select(0, index) for value in (flat_x, flat_y, flat_z))
    run = run.index_select(0, index)
    ox, oy, oz = (rays.per_pixel(rays.origins[:, axis], index) for axis in range(3))
    bend = (2 * waves.max_curvature) * run * run

    def at(value: Tensor, selection: Tensor | None) -> Tensor:
        return value if selection is None else value.index_select(0, selection)

    def origin_at(value: Tensor | float, selection: Tensor | None) -> Tensor | float:
        return value if isinstance(value, float) else at(value, selection)

    depth, slope_x, slope_y = (torch.zeros_like(dx) for _ in range(3))
    far = (1.01 * FAR_GROUND_M) / run
    active: Tensor | None = None
    for step in range(_MAX_STEPS if waves.terms else 1):
        now, ahead_x, ahead_y, fall = (at(value, active) for value in (depth, dx, dy, dz))
        height, tilt_x, tilt_y = waves.height_and_gradient(
            now * ahead_x + origin_at(ox, active), now * ahead_y + origin_at(oy, active)
        )
        above = (now * fall + origin_at(oz, active) - height).clamp_(min=0)
        closing = tilt_x * ahead_x + tilt_y * ahead_y - fall
        root = torch.sqrt(closing * closing + at(bend, active) * above)
        advanced = now + 2 * above / (closing + root).clamp_(min=1e-9)
        advanced = torch.minimum(advanced, at(far, active))
        if active is None:
            depth, slope_x, slope_y = advanced, tilt_x, tilt_y
        else:
            depth.index_copy_(0, active, advanced)
            slope_x.index_copy_(0, active, tilt_x)
            slope_y.index_copy_(0, active, tilt_y)
        if step < _EASY_STEPS:
            continue
        reach = advanced * at(run, active)
        unfinished = (above > _TOLERANCE * reach) & (reach < FAR_GROUND_M)
        remaining = torch.nonzero(unfinished).view(-1)
        if remaining.numel() == 0:
            break
        active = remaining if active is None else active.index_select(0, remaining)
    keep = torch.nonzero((depth * run < FAR_GROUND_M) & (depth > NEAR_M)).view(-1)
    index, depth, dx, dy, slope_x, slope_y = (
        value.index_select(0, keep) for value in (index, depth, dx, dy, slope_x, slope_y)
    )
    ox, oy = (rays.per_pixel(rays.origins[:, axis], index) for axis in range(2))
    # The slopes are those of the last step but one, at most its tolerance away.
    return GroundHits(index, depth, depth * dx + ox, depth * dy + oy, slope_x, slope_y)
