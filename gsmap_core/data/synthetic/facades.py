"""Colours of solids and trees: walls with windows, vehicles, crowns and trunks.

PyTorch; colours are planar float32 channels from 0 to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gsmap_core.data.synthetic.occluders import leaf_noise
from gsmap_core.data.synthetic.raycast import Rays
from gsmap_core.data.synthetic.shading import Channels, Light, add_haze, headlight
from gsmap_core.data.synthetic.solids import Column, Look, TreeColumn


def _hash(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return a repeatable number in 0..1 per triple of int32."""
    value = a * 73856093 ^ b * 19349663 ^ c * 83492791
    value = (value ^ ((value >> 13) & 0x7FFFF)) * 1274126177
    value = value ^ ((value >> 16) & 0xFFFF)
    return (value & 0xFFFF).float() * (1 / 65535)


def _edge(distance: Tensor, blur: Tensor) -> Tensor:
    """Return 1 inside (distance < 0), 0 outside, soft over the width of a pixel."""
    return (0.5 - distance / blur).clamp_(0, 1)


def shade_solids(
    rays: Rays, index: Tensor, depth: Tensor, row: Tensor, solids: Tensor, light: Light
) -> Channels:
    """Colour pixels that see solids.

    Args:
        rays: rays of the cameras.
        index: (P,) pixels.
        depth: (P,) [m].
        row: (P,) int32 rows of the table.
        solids: (len(Column), S) float32, relative positions.
        light: light of the moment.
    """
    dx, dy, dz = (axis.view(-1).index_select(0, index) for axis in (rays.x, rays.y, rays.z))
    ox, oy, oz = (rays.per_pixel(rays.origins[:, axis], index) for axis in range(3))
    table = solids.index_select(1, row)
    cosine, sine = table[Column.COS], table[Column.SIN]
    world_x, world_y = depth * dx + ox, depth * dy + oy
    rel_x, rel_y = world_x - table[Column.X], world_y - table[Column.Y]
    x = rel_x * cosine + rel_y * sine
    y = rel_y * cosine - rel_x * sine
    z = depth * dz + oz - table[Column.Z_FOOT]
    height = table[Column.HEIGHT]
    half_x = table[Column.HALF_LENGTH] - table[Column.TAPER] * z
    half_y = table[Column.HALF_WIDTH]
    out_x, out_y, out_z = x.abs() - half_x, y.abs() - half_y, z - height
    roof = (out_z > out_x) & (out_z > out_y)
    end = (out_x >= out_y) & ~roof
    side = ~roof & ~end
    sign_x, sign_y = torch.sign(x), torch.sign(y)
    normal_x = torch.where(end, sign_x * cosine, torch.where(side, -sign_y * sine, 0 * x))
    normal_y = torch.where(end, sign_x * sine, torch.where(side, sign_y * cosine, 0 * x))
    normal_z = roof.float()
    sun_x, sun_y, sun_z = (float(value) for value in light.sun)
    direct = (normal_x * sun_x + normal_y * sun_y + normal_z * sun_z).clamp_(min=0)
    # Walls see half the sky and the lit ground, and less of both near their foot.
    open_sky = 0.86 + 0.14 * normal_z - 0.2 * torch.exp(-z.clamp(min=0) * 0.8)
    ray = torch.sqrt(dx * dx + dy * dy + dz * dz)
    facing = ((normal_x * dx + normal_y * dy + normal_z * dz) / ray).abs().clamp_(min=0.15)
    pixel = rays.per_pixel(rays.steps[:, 0], index)
    blur = (depth * pixel / facing).clamp_(min=0.004)
    look, seed = table[Column.LOOK], table[Column.SEED].to(torch.int32)
    face = roof.int() + 2 * end.int() + 4 * (torch.where(end, x, y) > 0).int()
    albedo = [table[Column.RED].clone(), table[Column.GREEN].clone(), table[Column.BLUE].clone()]
    glow = [torch.zeros_like(x) for _ in range(3)]
    along = torch.where(end, y, x)
    half = torch.where(end, half_y, half_x)

    chosen = torch.nonzero(look == Look.BUILDING).view(-1)
    if chosen.numel():
        picked = [value.index_select(0, chosen) for value in (along, z, half, height, blur)]
        _building(picked, seed[chosen], face[chosen], roof[chosen], chosen, albedo, glow, light)
    chosen = torch.nonzero(look >= Look.CAR_BODY).view(-1)
    if chosen.numel():
        picked = [value.index_select(0, chosen) for value in (along, z, half, height, blur, look)]
        is_front = (sign_x > 0).index_select(0, chosen)
        _vehicle(picked, end[chosen], roof[chosen], is_front, chosen, albedo, glow, light)

    lamp = headlight(light, world_x, world_y)
    colour = [
        albedo[k]
        * (
            direct * float(light.sun_rgb[k])
            + open_sky * float(light.sky_rgb[k])
            + (0 if lamp is None else 0.7 * lamp * facing)
        )
        + glow[k]
        for k in range(3)
    ]
    return add_haze((colour[0], colour[1], colour[2]), depth, light)


def _paint(albedo: list[Tensor], chosen: Tensor, colours: list[Tensor]) -> None:
    for channel, colour in zip(albedo, colours, strict=True):
        channel.index_copy_(0, chosen, colour)


def _building(
    picked: list[Tensor],
    seed: Tensor,
    face: Tensor,
    roof: Tensor,
    chosen: Tensor,
    albedo: list[Tensor],
    glow: list[Tensor],
    light: Light,
) -> None:
    along, z, half, height, blur = picked
    storeys = torch.round(height / 3.1).clamp_(min=1)
    storey = height / storeys
    bays = torch.round(2 * half / 2.9).clamp_(min=1)
    bay = 2 * half / bays
    level, column = torch.floor(z / storey), torch.floor((along + half) / bay)
    across = ((along + half) / bay - column - 0.5) * bay
    above = (z / storey - level) * storey
    ground_floor = level < 0.5
    wide = _hash(seed, seed, face * 0 + 5)
    half_window = bay * torch.where(ground_floor, 0.38 + 0 * wide, 0.2 + 0.14 * wide)
    low = torch.where(ground_floor, 0.55 + 0 * z, 0.9 + 0 * z)
    beside = across.abs() - half_window
    outside = torch.maximum(torch.maximum(beside, low - above), above - (storey - 0.45))
    wall_only = roof | (along.abs() > half - 0.5)
    # Where a pixel spans a good part of a bay the window pattern turns into its mean.
    detail = (1.6 - blur / bay * 3).clamp_(0, 1)
    window = torch.where(wall_only, 0 * z, _edge(outside, blur) * detail + 0.28 * (1 - detail))
    frame = torch.where(wall_only, 0 * z, _edge(outside - 0.12, blur) * detail - window).clamp_(0)
    value = _hash(column.int(), level.int(), seed + face)
    plaster = 0.94 + 0.12 * _hash(torch.floor(along * 0.7).int(), torch.floor(z * 0.9).int(), seed)
    wall = torch.where(ground_floor, 0.86 * plaster, plaster)
    wall = torch.where((z > height - 0.4) & ~roof, 1.12 * wall, wall)
    lit = ((value > 0.62) & ~roof).float() * window * (light.night * light.lamp_strength)
    colours = []
    for k, channel in enumerate(albedo):
        base = channel.index_select(0, chosen)
        base = torch.where(roof, 0.3 + 0.2 * base, base * wall)
        glass = (0.1, 0.13, 0.16)[k] + 0.2 * value * float(light.horizon_rgb[k])
        colours.append(base * (1 - window) + glass * window + 0.18 * frame)
        glow[k].index_copy_(0, chosen, lit * (0.75, 0.58, 0.32)[k] * (0.4 + 0.6 * value))
    _paint(albedo, chosen, colours)


def _vehicle(
    picked: list[Tensor],
    end: Tensor,
    roof: Tensor,
    is_front: Tensor,
    chosen: Tensor,
    albedo: list[Tensor],
    glow: list[Tensor],
    light: Light,
) -> None:
    along, z, half, height, blur, look = picked
    none = torch.zeros_like(z)
    body, cabin, van = (look == kind for kind in (Look.CAR_BODY, Look.CAR_CABIN, Look.VAN))
    wheel_at = (along.abs() - 0.62 * half) / 1.0
    tyre = torch.sqrt(wheel_at * wheel_at + (z - 0.33) ** 2)
    on_side = ~end & ~roof & ~cabin
    wheel = torch.where(on_side, _edge(tyre - 0.36, blur), none)
    hub = torch.where(on_side, _edge(tyre - 0.2, blur), none)
    # Below the sill one sees shade, not sheet metal.
    under = torch.where(~roof & ~cabin, _edge(z - 0.22, blur), none)
    glass_low = torch.where(van, 0.52 * height, 0.08 * height)
    glass_high = torch.where(van, 0.84 * height, 0.86 * height)
    pillar = torch.where(end, along.abs() - (half - 0.1), along.abs() - (half - 0.08))
    post = torch.where(
        van & ~end, 0.06 - torch.remainder(along + half, 1.5).sub(0.75).abs(), none - 1
    )
    middle = torch.where(cabin & ~end, 0.05 - (along + 0.1).abs(), none - 1)
    outside = torch.maximum(torch.maximum(glass_low - z, z - glass_high), pillar)
    outside = torch.maximum(torch.maximum(outside, post), middle)
    glass = torch.where(roof | body, none, _edge(outside, blur))
    lamp_low = torch.where(van, 0.8 + none, 0.52 * height)
    lamp_box = torch.maximum(
        (half * 0.62 - along.abs()), torch.maximum(lamp_low - z, z - lamp_low - 0.2)
    )
    lamp = torch.where(end & ~cabin, _edge(lamp_box, blur), none)
    plate_box = torch.maximum(along.abs() - 0.26, (z - 0.45).abs() - 0.06)
    plate = torch.where(end & ~cabin, _edge(plate_box, blur), none)
    colours = []
    for k, channel in enumerate(albedo):
        base = channel.index_select(0, chosen)
        base = torch.where(roof & body, 0.92 * base, base)
        sky = float(0.6 * light.horizon_rgb[k] + 0.1)
        base = base + (0.07 + 0.3 * glass) * (0.10 + 0.25 * sky - base) * (1 - wheel)
        base = base * (1 - glass) + glass * (0.07 + 0.16 * sky)
        base = base * (1 - plate) + plate * 0.75
        base = base * (1 - under) + under * 0.04
        base = base * (1 - wheel) + wheel * 0.05
        base = base * (1 - hub) + hub * 0.45
        bulb = torch.where(is_front, none + (0.95, 0.95, 0.85)[k], none + (0.6, 0.06, 0.05)[k])
        colours.append(base * (1 - lamp) + lamp * bulb)
        glow[k].index_copy_(0, chosen, lamp * bulb * (light.night * light.lamp_strength))
    _paint(albedo, chosen, colours)


def shade_trees(
    rays: Rays,
    index: Tensor,
    depth: Tensor,
    row: Tensor,
    trees: Tensor,
    light: Light,
    leaves: Tensor,
) -> Channels:
    """Colour pixels that see trees.

    Args:
        rays: rays of the cameras.
        index: (P,) pixels.
        depth: (P,) [m].
        row: (P,) int32 rows of the table.
        trees: (len(TreeColumn), T) float32, relative positions.
        light: light of the moment.
        leaves: noise image of `occluders.leaf_noise`.
    """
    dx, dy, dz = (axis.view(-1).index_select(0, index) for axis in (rays.x, rays.y, rays.z))
    ox, oy, oz = (rays.per_pixel(rays.origins[:, axis], index) for axis in range(3))
    table = trees.index_select(1, row)
    x, y = depth * dx + ox, depth * dy + oy
    offset_x, offset_y = table[TreeColumn.X] - ox, table[TreeColumn.Y] - oy
    distance = torch.sqrt(offset_x * offset_x + offset_y * offset_y).clamp_(min=1e-3)
    across = (depth * dy * offset_x - depth * dx * offset_y) / distance
    up = depth * dz + oz - table[TreeColumn.Z_FOOT]
    crown_height = table[TreeColumn.CROWN_HEIGHT]
    a = across * 2 / table[TreeColumn.CROWN_WIDTH]
    b = (up - table[TreeColumn.TRUNK_HEIGHT] - 0.5 * crown_height) * 2 / crown_height
    crown = (a * a + b * b < 1.25) & (b > -1)
    seed = torch.remainder(table[TreeColumn.SEED], 97)
    relief = 0.78 + 0.5 * leaf_noise(leaves, across, up, seed)
    # The crown is lit as the half of an ellipsoid that faces the camera.
    depth_n = torch.sqrt((1 - a * a - b * b).clamp_(min=0))
    side_x, side_y = -offset_y / distance, offset_x / distance
    normal_x = a * side_x - depth_n * offset_x / distance
    normal_y = a * side_y - depth_n * offset_y / distance
    sun_x, sun_y, sun_z = (float(value) for value in light.sun)
    direct = (0.25 + 0.6 * (normal_x * sun_x + normal_y * sun_y + b * sun_z)).clamp_(min=0.05)
    open_sky = 0.72 + 0.28 * b.clamp(-1, 1)
    bark = 0.85 + 0.15 * torch.sin(across * 60 + seed)
    lamp = headlight(light, x, y)
    colour = []
    for k, column in enumerate((TreeColumn.RED, TreeColumn.GREEN, TreeColumn.BLUE)):
        albedo = torch.where(crown, table[column] * relief, (0.30, 0.24, 0.18)[k] * bark)
        lit = direct * float(light.sun_rgb[k]) + open_sky * float(light.sky_rgb[k])
        colour.append(albedo * (lit if lamp is None else lit + 0.6 * lamp))
    return add_haze((colour[0], colour[1], colour[2]), depth, light)
