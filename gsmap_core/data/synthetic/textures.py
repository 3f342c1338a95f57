"""Colours of ground materials and of the sky as small images, made from seeded noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from gsmap_core.data.synthetic.scene import Conditions, Material

ByteArray = npt.NDArray[np.uint8]

#: Edge of the repeating material images [px]; at 0.05 m a pixel they repeat after 51 m.
TILE_PX = 1024
#: Edge of the noise image of leaves [px], and its pixels per metre.
LEAF_PX, LEAVES_PER_M = 256, 16.0
#: Size of the sky image: azimuth, elevation.
SKY_WIDTH_PX, SKY_HEIGHT_PX = 2048, 384
#: Elevations of the bottom and top row of the sky image [rad].
SKY_ELEVATION_RAD = (-0.12, np.pi / 2)


@dataclass(frozen=True)
class _Recipe:
    """How a material looks: mean colour (0 to 255), noise per octave [px], wet reflectivity."""

    rgb: tuple[float, float, float]
    octaves: tuple[tuple[int, float], ...]
    tint: float
    reflectivity: float


_RECIPES: dict[Material, _Recipe] = {
    Material.GRASS: _Recipe((86, 112, 54), ((2, 9), (6, 9), (32, 10), (256, 12)), 0.25, 0.1),
    Material.SIDEWALK: _Recipe((158, 152, 143), ((2, 5), (16, 4), (128, 7)), 0.03, 0.6),
    Material.ASPHALT: _Recipe((88, 88, 91), ((1, 7), (3, 4), (24, 3), (160, 7)), 0.02, 1.0),
    Material.PAINT_WHITE: _Recipe((226, 226, 220), ((2, 5), (20, 5)), 0.01, 0.8),
    Material.PAINT_YELLOW: _Recipe((222, 176, 52), ((2, 5), (20, 6)), 0.02, 0.8),
    Material.KERB: _Recipe((186, 182, 174), ((2, 6), (12, 6), (64, 6)), 0.02, 0.6),
    Material.ASPHALT_PATCH: _Recipe((62, 62, 65), ((1, 6), (4, 4), (32, 4)), 0.02, 1.0),
}


def _periodic_noise(size_px: int, octave_px: int, generator: np.random.Generator) -> np.ndarray:
    """Return smooth periodic noise (size, size) with deviation 1 and features of `octave_px`."""
    cells = max(2, size_px // octave_px)
    coarse = generator.standard_normal((cells, cells)).astype(np.float32)
    if cells == size_px:
        return coarse
    # Wrapping the border makes the enlarged image continue across its own edges.
    padded = cv2.copyMakeBorder(coarse, 2, 2, 2, 2, cv2.BORDER_WRAP)
    scale = size_px / cells
    fine = cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    margin = round(2 * scale)
    fine = fine[margin : margin + size_px, margin : margin + size_px]
    return fine / max(float(fine.std()), 1e-6)


@lru_cache(maxsize=len(Material))
def material_tile(material: Material) -> ByteArray:
    """Return the repeating (TILE_PX, TILE_PX, 4) image of a material: RGB and wet reflectivity."""
    recipe = _RECIPES[material]
    generator = np.random.default_rng(7000 + int(material))
    value = np.zeros((TILE_PX, TILE_PX), dtype=np.float32)
    for octave_px, strength in recipe.octaves:
        value += strength * _periodic_noise(TILE_PX, octave_px, generator)
    tint = recipe.tint * 40 * _periodic_noise(TILE_PX, 48, generator)
    image = np.empty((TILE_PX, TILE_PX, 4), dtype=np.float32)
    for channel, mean in enumerate(recipe.rgb):
        image[..., channel] = mean + value * (mean / 128) + tint * (0.6, 0.2, -0.4)[channel]
    puddles = 0.75 + 0.25 * np.tanh(1.5 * _periodic_noise(TILE_PX, 96, generator))
    image[..., 3] = 255 * recipe.reflectivity * puddles
    if material is Material.SIDEWALK:
        # Paving joints every 1.6 m.
        image[::32, :, :3] *= 0.82
        image[:, ::32, :3] *= 0.82
    result = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=1)
def wear_tile() -> np.ndarray:
    """Return repeating (TILE_PX, TILE_PX) noise, uniform in 0..1: where paint goes first."""
    generator = np.random.default_rng(7100)
    noise = 0.8 * _periodic_noise(TILE_PX, 2, generator)
    noise = noise + _periodic_noise(TILE_PX, 10, generator)
    noise += _periodic_noise(TILE_PX, 48, generator)
    return _uniform(noise)


@lru_cache(maxsize=1)
def leaf_tile() -> np.ndarray:
    """Return repeating (LEAF_PX, LEAF_PX) float32 noise of leaves and clumps, uniform in 0..1."""
    generator = np.random.default_rng(7150)
    noise = 0.5 * _periodic_noise(LEAF_PX, 2, generator)
    for octave_px, strength in ((5, 0.8), (12, 0.7), (32, 0.5)):
        noise = noise + strength * _periodic_noise(LEAF_PX, octave_px, generator)
    return _uniform(noise)


def _uniform(noise: np.ndarray) -> np.ndarray:
    """Return noise with its values replaced by their ranks, 0 to 1; not writable."""
    order = np.argsort(noise, axis=None, kind='stable')
    uniform = np.empty(noise.size, dtype=np.float32)
    uniform[order] = np.linspace(0, 1, noise.size, dtype=np.float32)
    result = uniform.reshape(noise.shape)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=len(Material))
def mean_colour(material: Material) -> tuple[float, float, float]:
    """Return the mean RGB colour of a material, 0 to 1."""
    r, g, b = material_tile(material)[..., :3].reshape(-1, 3).mean(axis=0) / 255
    return float(r), float(g), float(b)


def horizon_colour(conditions: Conditions) -> np.ndarray:
    """Return the (3,) colour of sky and haze near the horizon, 0 to 1."""
    sky = np.asarray(conditions.sky_rgb, dtype=np.float64)
    light = np.asarray(conditions.tint_rgb) * min(1.0, conditions.ambient + 0.35)
    return np.clip(0.45 * sky + 0.5 * light * max(float(sky.max()), 0.05), 0, 1)


def sky_image(conditions: Conditions, seed: int) -> ByteArray:
    """Return the (SKY_HEIGHT_PX, SKY_WIDTH_PX, 3) sky, row 0 lowest, column 0 at azimuth 0.

    Clouds, the glow of the sun and a skyline of distant roofs and trees included.

    Args:
        conditions: light and weather.
        seed: of the town, for skyline and clouds.
    """
    generator = np.random.default_rng([seed & 0xFFFFFFFF, 7200])
    bottom, top = SKY_ELEVATION_RAD
    elevation = np.linspace(bottom, top, SKY_HEIGHT_PX)
    zenith = np.asarray(conditions.sky_rgb, dtype=np.float64)
    horizon = horizon_colour(conditions)
    blend = np.clip(elevation / (np.pi / 2), 0, 1)[:, None, None] ** 0.55
    image = np.repeat((1 - blend) * horizon + blend * zenith, SKY_WIDTH_PX, axis=1)

    azimuth = np.arange(SKY_WIDTH_PX) / SKY_WIDTH_PX * 2 * np.pi
    cosine = np.clip(
        np.cos(elevation[:, None])
        * np.cos(conditions.sun_elevation_rad)
        * np.cos(azimuth[None] - conditions.sun_azimuth_rad)
        + np.sin(elevation[:, None]) * np.sin(conditions.sun_elevation_rad),
        -1,
        1,
    )
    cover = _cloud_noise(generator, elevation)
    # Overcast skies are all cloud; clear ones have a few.
    threshold = 0.9 * conditions.sun_strength
    clouds = np.clip((cover - threshold) / 1.2, 0, 1)[..., None] * 0.75
    light = np.asarray(conditions.tint_rgb) * min(1.0, conditions.ambient + 0.4)
    cloud_colour = np.clip(0.35 * zenith + 0.6 * light * max(float(zenith.max()), 0.05), 0, 1)
    image = image * (1 - clouds) + clouds * (cloud_colour * (0.95 + 0.05 * cover[..., None]))
    glow = conditions.sun_strength * (0.35 * np.exp((cosine - 1) * 18) + (cosine > 0.9994))
    image = image + glow[..., None] * np.asarray(conditions.tint_rgb)

    skyline = _skyline(generator)
    shade = np.clip(0.7 * horizon + 0.3 * np.array([0.18, 0.22, 0.2]) * light, 0, 1)
    below = elevation[:, None] < skyline[None]
    image = np.where(below[..., None], shade, image)
    return np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)


def _cloud_noise(generator: np.random.Generator, elevation: np.ndarray) -> np.ndarray:
    total = np.zeros((SKY_HEIGHT_PX, SKY_WIDTH_PX))
    for cells, strength in ((10, 1.0), (24, 0.6), (56, 0.35), (128, 0.2)):
        coarse = generator.standard_normal((max(2, cells // 3), cells)).astype(np.float32)
        padded = cv2.copyMakeBorder(coarse, 0, 0, 2, 2, cv2.BORDER_WRAP)
        scale = SKY_WIDTH_PX / cells
        wide = cv2.resize(
            padded,
            (round(padded.shape[1] * scale), SKY_HEIGHT_PX),
            interpolation=cv2.INTER_CUBIC,
        )
        margin = round(2 * scale)
        total += strength * wide[:, margin : margin + SKY_WIDTH_PX]
    # Clouds thin out towards the horizon, where the image stretches them.
    return total * np.clip(0.3 + elevation, 0, 1)[:, None]


def _skyline(generator: np.random.Generator) -> np.ndarray:
    """Return (SKY_WIDTH_PX,) elevations [rad] of the tops of distant roofs and trees."""
    azimuth = np.arange(SKY_WIDTH_PX) / SKY_WIDTH_PX * 2 * np.pi
    trees = 0.028 + sum(
        0.005 / k**0.5 * np.sin(9 * k * azimuth + generator.uniform(0, 2 * np.pi))
        for k in range(1, 9)
    )
    widths = generator.integers(12, 40, size=160)
    heights = generator.uniform(0.0, 0.055, size=160) * (generator.uniform(size=160) < 0.55)
    roofs = np.repeat(heights, widths)[:SKY_WIDTH_PX]
    return np.maximum(trees, np.pad(roofs, (0, SKY_WIDTH_PX - len(roofs))))
