"""Light, and the colours of ground and sky.

PyTorch; colours are planar float32 channels from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsmap_core.data.synthetic import textures
from gsmap_core.data.synthetic.rasters import NUM_LEVELS, GroundMap
from gsmap_core.data.synthetic.raycast import GroundHits, Rays
from gsmap_core.data.synthetic.scene import Conditions, Material
from gsmap_core.structures import FloatArray

Channels = tuple[Tensor, Tensor, Tensor]

#: Between these distances the ground fades into its far colour [m], so that no pixel depends on
#: blocks that are not baked.
FADE_START_M, FADE_END_M = 85.0, 110.0
_MAX_TAPS = 8
_MASK = 0x00FF00FF


@dataclass
class Light:
    """Light of one moment.

    Args:
        sun: (3,) unit vector towards the sun.
        sun_rgb: (3,) its strength per channel.
        sky_rgb: (3,) light of the sky per channel.
        horizon_rgb: (3,) colour of haze.
        zenith_rgb: (3,) colour of the sky above.
        haze_per_m: extinction.
        wetness: 0 to 1.
        night: 0 (day) to 1: how much lamps and lit windows show.
        headlight_pose: (x, y, cos yaw, sin yaw) of the lamps, relative; None: off.
        exposure: gain that a camera's automatic exposure settles at.
        lamp_strength: brightness of lamps before that gain.
    """

    sun: FloatArray
    sun_rgb: FloatArray
    sky_rgb: FloatArray
    horizon_rgb: FloatArray
    zenith_rgb: FloatArray
    haze_per_m: float
    wetness: float
    night: float
    headlight_pose: tuple[float, float, float, float] | None
    exposure: float
    lamp_strength: float


def make_light(conditions: Conditions, headlight_pose: tuple[float, float, float, float]) -> Light:
    """Derive the light from the conditions of a drive."""
    elevation, azimuth = conditions.sun_elevation_rad, conditions.sun_azimuth_rad
    tint = np.asarray(conditions.tint_rgb, dtype=np.float64)
    zenith = np.asarray(conditions.sky_rgb, dtype=np.float64)
    # The sky colours the shade a little.
    sky_tint = 0.85 * tint + 0.15 * zenith / max(float(zenith.max()), 1e-3)
    # Cameras open up in the dark, but not all the way.
    level = conditions.ambient + conditions.sun_strength * max(float(np.sin(elevation)), 0.1)
    exposure = float(np.clip((1.05 / max(level, 0.01)) ** 0.45, 0.9, 2.6))
    return Light(
        sun=np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        ),
        sun_rgb=conditions.sun_strength * tint,
        sky_rgb=conditions.ambient * sky_tint,
        horizon_rgb=textures.horizon_colour(conditions),
        zenith_rgb=zenith,
        haze_per_m=conditions.haze_per_m,
        wetness=conditions.wetness,
        night=float(np.clip(1.6 - 4 * (conditions.ambient + conditions.sun_strength), 0, 1)),
        headlight_pose=headlight_pose if conditions.headlights else None,
        exposure=exposure,
        lamp_strength=0.7 / np.sqrt(exposure),
    )


def headlight(light: Light, x: Tensor, y: Tensor) -> Tensor | None:
    """Return how strongly the headlights of the vehicle light points (relative), or None."""
    if light.headlight_pose is None:
        return None
    px, py, cosine, sine = light.headlight_pose
    rel_x, rel_y = x - px, y - py
    ahead = rel_x * cosine + rel_y * sine
    aside = rel_y * cosine - rel_x * sine
    forward = ahead.clamp(min=0.5)
    spread = torch.exp(-((aside / (0.9 + 0.42 * forward)) ** 2))
    return spread * (ahead * 0.5).clamp_(0, 1) / (1 + (forward / 20) ** 2) * light.lamp_strength


def lerp_sample(
    texels: Tensor, base: Tensor | int, columns: Tensor | int, u: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """Read packed texels bilinearly at 8-bit weights.

    Args:
        texels: (T,) int32.
        base: index of texel (0, 0).
        columns: texels per row.
        u: (P,) column coordinate, integer at texel centres, at most one below the last column.
        v: (P,) row coordinate likewise.

    Returns:
        Two (P,) int32: bytes 0 and 2, and bytes 1 and 3, each in the lanes 0 and 16.
    """
    column, row = u.to(torch.int32), v.to(torch.int32)
    right = ((u - column) * 256).to(torch.int32)
    below = ((v - row) * 256).to(torch.int32)
    both = (right * below) >> 8
    index = row * columns + column + base
    low = high = None
    for offset, weight in (
        (0, 256 - right - below + both),
        (1, right - both),
        (columns, below - both),
        (columns + 1, both),
    ):
        texel = texels.index_select(0, index + offset)
        part_low = (texel & _MASK).mul_(weight)
        part_high = (texel >> 8).bitwise_and_(_MASK).mul_(weight)
        low = part_low if low is None else low.add_(part_low)
        high = part_high if high is None else high.add_(part_high)
    assert low is not None and high is not None
    return (low >> 8).bitwise_and_(_MASK), (high >> 8).bitwise_and_(_MASK)


def sample_ground(
    ground: GroundMap,
    x: Tensor,
    y: Tensor,
    along_u: tuple[Tensor, Tensor],
    along_v: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Average the ground map over footprints of pixels, with several taps along the longer axis.

    Args:
        ground: the map.
        x: (P,) east of the corner of the map [m].
        y: (P,) north of it.
        along_u: metres east and north per pixel to the right.
        along_v: per pixel down.

    Returns:
        Red, green, blue and reflectivity, (P,) each, 0 to 255.
    """
    length_u = along_u[0] * along_u[0] + along_u[1] * along_u[1]
    length_v = along_v[0] * along_v[0] + along_v[1] * along_v[1]
    v_longer = length_v > length_u
    major_x = torch.where(v_longer, along_v[0], along_u[0])
    major_y = torch.where(v_longer, along_v[1], along_u[1])
    major = torch.sqrt(torch.maximum(length_u, length_v))
    minor = torch.sqrt(torch.minimum(length_u, length_v)).clamp_(min=ground.texel_m)
    ratio = major / minor
    taps = 1 + (ratio > 1.5).int() + 2 * (ratio > 2.5).int() + 4 * (ratio > 5).int()
    size = torch.maximum(minor, major / taps)
    # Half a level finer than the footprint: the bilinear taps themselves blur by about a texel.
    level = torch.log2(size / ground.texel_m).add_(0.25).clamp_(0, NUM_LEVELS - 1).to(torch.int32)
    device = x.device
    bases = torch.tensor([item.offset for item in ground.levels], dtype=torch.int32, device=device)
    columns = torch.tensor(
        [item.columns for item in ground.levels], dtype=torch.int32, device=device
    )
    rows = torch.tensor([item.rows for item in ground.levels], dtype=torch.int32, device=device)
    result = [torch.empty_like(x) for _ in range(4)]
    for count in (1, 2, 4, _MAX_TAPS):
        chosen = torch.nonzero(taps == count).view(-1)
        if chosen.numel() == 0:
            continue
        lev = level.index_select(0, chosen)
        base, width = bases.index_select(0, lev), columns.index_select(0, lev)
        scale = torch.exp2(-lev.float()) / ground.texel_m
        u0 = x.index_select(0, chosen) * scale - 0.5
        v0 = y.index_select(0, chosen) * scale - 0.5
        step_u = major_x.index_select(0, chosen) * scale
        step_v = major_y.index_select(0, chosen) * scale
        last_u = width.float() - 1.001
        last_v = rows.index_select(0, lev).float() - 1.001
        red_blue = green_rest = None
        for tap in range(count):
            shift = (tap + 0.5) / count - 0.5
            u = torch.add(u0, step_u, alpha=shift).clamp_(min=0)
            v = torch.add(v0, step_v, alpha=shift).clamp_(min=0)
            low, high = lerp_sample(
                ground.texels, base, width, torch.minimum(u, last_u), torch.minimum(v, last_v)
            )
            red_blue = low if red_blue is None else red_blue.add_(low)
            green_rest = high if green_rest is None else green_rest.add_(high)
        assert red_blue is not None and green_rest is not None
        for channel, lanes in ((0, red_blue), (2, red_blue), (1, green_rest), (3, green_rest)):
            value = (lanes >> 16) if channel > 1 else (lanes & 0xFFFF)
            result[channel].index_copy_(0, chosen, value.float().mul_(1 / count))
    return result[0], result[1], result[2], result[3]


def footprints(
    rays: Rays, hits: GroundHits
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return what one pixel to the right and one down span on the ground, east and north [m]."""
    dx, dy, dz = (axis.view(-1).index_select(0, hits.index) for axis in (rays.x, rays.y, rays.z))
    facing = (dz - hits.slope_x * dx - hits.slope_y * dy).clamp_(max=-1e-4)
    scaled = hits.depth / facing
    result = []
    for axis in range(2):
        turn = rays.rotations[:, :, axis] * rays.steps[:, axis, None]
        tx, ty, tz = (rays.per_pixel(turn[:, k], hits.index) for k in range(3))
        # Along the surface: depth * (turn - direction * (n . turn) / (n . direction)).
        lift = (hits.slope_x * tx + hits.slope_y * ty - tz) * scaled
        result.append((hits.depth * tx + dx * lift, hits.depth * ty + dy * lift))
    return result[0], result[1]


def shade_ground(
    rays: Rays,
    hits: GroundHits,
    ground: GroundMap,
    centre: FloatArray,
    shadows: tuple[Tensor, FloatArray, float],
    light: Light,
) -> Channels:
    """Colour pixels that see ground.

    Args:
        rays: rays of the cameras.
        hits: where they meet the ground.
        ground: colours.
        centre: (3,) the origin of relative positions in the town [m].
        shadows: packed light map (H, W), the relative position of its corner [m], its texel [m].
        light: light of the moment.
    """
    along_u, along_v = footprints(rays, hits)
    offset = centre[:2] - ground.origin
    red, green, blue, wet = sample_ground(
        ground, hits.x + float(offset[0]), hits.y + float(offset[1]), along_u, along_v
    )
    far = torch.sqrt(hits.x * hits.x + hits.y * hits.y)
    far = ((far - FADE_START_M) / (FADE_END_M - FADE_START_M)).clamp_(0, 1)
    far_colour = textures.mean_colour(Material.GRASS)
    albedo = [
        torch.lerp(channel * (1 / 255), torch.full_like(far, value), far)
        for channel, value in zip((red, green, blue), far_colour, strict=True)
    ]
    lightmap, corner, texel = shadows
    u = ((hits.x - float(corner[0])) / texel - 0.5).clamp_(0, lightmap.shape[1] - 1.001)
    v = ((hits.y - float(corner[1])) / texel - 0.5).clamp_(0, lightmap.shape[0] - 1.001)
    low, high = lerp_sample(lightmap.view(-1), 0, lightmap.shape[1], u, v)
    sunlit, open_sky = (low & 0xFFFF).float() / 255, (high & 0xFFFF).float() / 255
    normal = torch.rsqrt(1 + hits.slope_x**2 + hits.slope_y**2)
    sun_x, sun_y, sun_z = (float(value) for value in light.sun)
    cosine = ((sun_z - hits.slope_x * sun_x - hits.slope_y * sun_y) * normal).clamp_(min=0)
    direct = cosine * sunlit
    lamp = headlight(light, hits.x, hits.y)
    colour = [
        albedo[k]
        * (
            direct * float(light.sun_rgb[k])
            + open_sky * float(light.sky_rgb[k])
            + (0 if lamp is None else lamp)
        )
        for k in range(3)
    ]
    if light.wetness > 0:
        soaked = wet * (light.wetness / 255)
        dx, dy, dz = (
            axis.view(-1).index_select(0, hits.index) for axis in (rays.x, rays.y, rays.z)
        )
        grazing = (-dz * torch.rsqrt(dx * dx + dy * dy + dz * dz)).clamp_(0, 1)
        mirror = soaked * (0.03 + 0.55 * (1 - grazing) ** 5) * open_sky
        for k in range(3):
            sky = float(0.75 * light.horizon_rgb[k] + 0.25 * light.zenith_rgb[k])
            colour[k] = colour[k] * (1 - 0.5 * soaked) + mirror * sky
    return add_haze((colour[0], colour[1], colour[2]), hits.depth, light)


def add_haze(colour: Channels, depth: Tensor, light: Light) -> Channels:
    """Mix in the colour of the air."""
    if light.haze_per_m <= 0:
        return colour
    share = 1 - torch.exp(depth * -light.haze_per_m)
    red, green, blue = (
        torch.lerp(channel, torch.full_like(channel, float(value)), share)
        for channel, value in zip(colour, light.horizon_rgb, strict=True)
    )
    return red, green, blue


def shade_sky(rays: Rays, index: Tensor, sky: Tensor) -> Channels:
    """Colour pixels that see nothing else.

    Args:
        rays: rays of the cameras.
        index: (P,) pixels.
        sky: packed (SKY_HEIGHT_PX, SKY_WIDTH_PX + 1) image; the last column repeats the first.
    """
    dx, dy, dz = (axis.view(-1).index_select(0, index) for axis in (rays.x, rays.y, rays.z))
    azimuth = torch.remainder(torch.atan2(dy, dx), 2 * np.pi)
    elevation = torch.atan2(dz, torch.sqrt(dx * dx + dy * dy))
    bottom, top = textures.SKY_ELEVATION_RAD
    u = (azimuth * (textures.SKY_WIDTH_PX / (2 * np.pi))).clamp_(0, textures.SKY_WIDTH_PX - 0.001)
    v = ((elevation - bottom) * ((textures.SKY_HEIGHT_PX - 1) / (top - bottom))).clamp_(
        0, textures.SKY_HEIGHT_PX - 1.001
    )
    low, high = lerp_sample(sky.view(-1), 0, sky.shape[1], u, v)
    return (
        (low & 0xFFFF).float() / 255,
        (high & 0xFFFF).float() / 255,
        (low >> 16).float() / 255,
    )
