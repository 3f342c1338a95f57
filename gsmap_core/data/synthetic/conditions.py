"""Light and weather of synthetic drives: the named conditions and a seeded mix of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gsmap_core.data.synthetic.dice import Dice
from gsmap_core.data.synthetic.scene import Conditions
from gsmap_core.errors import ConfigError

CONDITIONS: dict[str, Conditions] = {
    item.name: item
    for item in (
        Conditions(name='noon'),
        Conditions(
            name='morning',
            sun_azimuth_rad=0.2,
            sun_elevation_rad=0.35,
            sun_strength=0.65,
            ambient=0.45,
            tint_rgb=(1.0, 0.93, 0.82),
            sky_rgb=(0.58, 0.70, 0.90),
            haze_per_m=0.004,
            exposure_jitter=0.04,
        ),
        Conditions(
            name='overcast',
            sun_strength=0.0,
            ambient=0.95,
            tint_rgb=(0.97, 0.99, 1.0),
            sky_rgb=(0.74, 0.77, 0.80),
            haze_per_m=0.004,
        ),
        Conditions(
            name='dusk',
            sun_azimuth_rad=3.4,
            sun_elevation_rad=0.18,
            sun_strength=0.45,
            ambient=0.38,
            tint_rgb=(1.0, 0.84, 0.70),
            sky_rgb=(0.55, 0.50, 0.62),
            haze_per_m=0.005,
            exposure_jitter=0.06,
            noise=0.018,
        ),
        Conditions(
            name='wet',
            sun_strength=0.1,
            ambient=0.75,
            tint_rgb=(0.94, 0.97, 1.0),
            sky_rgb=(0.62, 0.66, 0.70),
            wetness=0.9,
            haze_per_m=0.008,
            exposure_jitter=0.04,
            noise=0.014,
        ),
        Conditions(
            name='night',
            sun_strength=0.0,
            ambient=0.14,
            tint_rgb=(0.88, 0.92, 1.0),
            sky_rgb=(0.05, 0.06, 0.10),
            haze_per_m=0.004,
            exposure_jitter=0.06,
            noise=0.03,
            headlights=True,
        ),
    )
}
#: How often each condition occurs in the mix of a setting.
MIXES: dict[str, dict[str, float]] = {
    'normal': {
        'noon': 3.0,
        'morning': 2.0,
        'overcast': 3.0,
        'dusk': 1.5,
        'wet': 1.5,
        'night': 1.0,
    },
    'easy': {'noon': 1.0, 'overcast': 1.0},
    'easy_occluded': {'noon': 1.0, 'overcast': 1.0},
}


def conditions_by_name(name: str) -> Conditions:
    """Return the conditions called `name`.

    Raises:
        ConfigError: no conditions have that name.
    """
    if name not in CONDITIONS:
        raise ConfigError(
            f"conditions '{name}': unknown; expected one of {', '.join(CONDITIONS)} (or mix, all)"
        )
    return CONDITIONS[name]


def conditions_for_seed(seed: int, setting: str = 'normal') -> Conditions:
    """Draw conditions from the mix of a setting and vary them (sun, haze, brightness).

    Args:
        seed: not negative.
        setting: a key of `MIXES`.

    Raises:
        ConfigError: unknown setting.
    """
    if setting not in MIXES:
        raise ConfigError(f"town setting '{setting}': unknown; expected one of {', '.join(MIXES)}")
    dice = Dice(seed, 40)
    mix = MIXES[setting]
    return varied(CONDITIONS[dice.choice(list(mix), list(mix.values()))], seed)


def varied(conditions: Conditions, seed: int) -> Conditions:
    """Return the conditions with the sun elsewhere and slightly other light, as on another day."""
    dice = Dice(seed, 41)
    return replace(
        conditions,
        sun_azimuth_rad=dice.uniform(0.0, 2 * np.pi),
        sun_elevation_rad=conditions.sun_elevation_rad * dice.uniform(0.85, 1.2),
        sun_strength=conditions.sun_strength * dice.uniform(0.85, 1.1),
        ambient=conditions.ambient * dice.uniform(0.92, 1.08),
        haze_per_m=conditions.haze_per_m * dice.uniform(0.7, 1.3),
    )
