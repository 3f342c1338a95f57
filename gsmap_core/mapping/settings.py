"""Every number of the fusion, with its unit and its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from gsmap_core.errors import ConfigError


@dataclass(frozen=True)
class FusionSettings:
    """How local maps become one map.

    Args:
        min_score: elements with a lower score are not fused [0 to 1].
        point_sigma_m: standard deviation of a vertex that has no covariance [m]; a checkpoint's
            calibration goes before it.
        pose_sigma_m: standard deviation of the ego position in the map frame [m].
        pose_yaw_sigma_rad: of its heading [rad]; moves far vertices sideways.
        decorrelation_m: errors of frames that were taken closer together than this are not
            independent [m]: such a frame counts by the share of this distance that was driven.
            0: every frame counts in full.
        min_weight: least share that a frame counts by, e.g. while standing [0 to 1].
        spacing_m: distance of the vertices of a fused element [m].
        gate_sigmas: a vertex may lie that many standard deviations from the element it is of.
        min_gate_m: the gate is never narrower than this [m].
        max_gate_m: nor wider than this [m].
        max_angle_rad: greatest angle between a line and the element it is of [rad].
        min_length_m: what is new and shorter starts no element [m].
        confirm_observations: a vertex is confirmed when so many frames have seen it,
        confirm_probability: and it is there with this probability, by the evidence so far.
        detection_probability: how often an element that is there is reported; decides with the
            next one how fast an element is believed and given up.
        false_probability: how often an element that is not there is reported at its place.
        max_evidence: most that an element is believed in (log-odds), so that it can be given up.
        remove_below: a vertex below this is given up (log-odds, negative).
        border_margin_m: what lies closer to the border of the perception range need not be seen,
            and a ring that touches this strip is taken for cut off [m].
        sigma_floor_m: no vertex is ever surer than this across its line [m]: errors that all
            frames share (calibration, localisation) do not average out.
        tile_size_m: side of a tile [m].
        active_radius_m: tiles farther from the vehicle are kept on disk only [m].

    Raises:
        ConfigError: a number is not in its range; the message names it.
    """

    min_score: float = 0.4
    point_sigma_m: float = 0.4
    pose_sigma_m: float = 0.05
    pose_yaw_sigma_rad: float = 0.003
    decorrelation_m: float = 10.0
    min_weight: float = 0.1
    spacing_m: float = 1.0
    gate_sigmas: float = 3.0
    min_gate_m: float = 0.7
    max_gate_m: float = 1.8
    max_angle_rad: float = 0.5
    min_length_m: float = 3.0
    confirm_observations: int = 3
    confirm_probability: float = 0.7
    detection_probability: float = 0.5
    false_probability: float = 0.15
    max_evidence: float = 4.0
    remove_below: float = -1.0
    border_margin_m: float = 2.0
    sigma_floor_m: float = 0.03
    tile_size_m: float = 50.0
    active_radius_m: float = 150.0

    def __post_init__(self) -> None:
        """Validate every number."""
        for entry in fields(self):
            low, high = LIMITS[entry.name]
            value = getattr(self, entry.name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(
                    f'fusion setting {entry.name} is {value}; expected {low:g} to {high:g}'
                )
        if self.false_probability >= self.detection_probability:
            raise ConfigError(
                f'fusion setting false_probability is {self.false_probability}; expected less '
                f'than detection_probability ({self.detection_probability})'
            )
        if self.min_gate_m > self.max_gate_m:
            raise ConfigError(
                f'fusion setting min_gate_m is {self.min_gate_m}; expected at most max_gate_m '
                f'({self.max_gate_m})'
            )

    @property
    def confirm_evidence(self) -> float:
        """Log-odds from which on a vertex counts as confirmed."""
        return math.log(self.confirm_probability / (1 - self.confirm_probability))

    @property
    def hit_evidence(self) -> float:
        """What a sighting adds to the log-odds of being there (binary Bayes filter)."""
        return math.log(self.detection_probability / self.false_probability)

    @property
    def miss_evidence(self) -> float:
        """What being missed adds; negative."""
        return math.log((1 - self.detection_probability) / (1 - self.false_probability))


#: Allowed values of every setting, both ends included.
LIMITS: dict[str, tuple[float, float]] = {
    'min_score': (0.0, 1.0),
    'point_sigma_m': (0.01, 10.0),
    'pose_sigma_m': (0.0, 10.0),
    'pose_yaw_sigma_rad': (0.0, 0.5),
    'decorrelation_m': (0.0, 1000.0),
    'min_weight': (0.001, 1.0),
    'spacing_m': (0.2, 5.0),
    'gate_sigmas': (0.5, 10.0),
    'min_gate_m': (0.05, 10.0),
    'max_gate_m': (0.05, 10.0),
    'max_angle_rad': (0.05, 1.5),
    'min_length_m': (0.5, 50.0),
    'confirm_observations': (1, 1000),
    'confirm_probability': (0.5, 0.999),
    'detection_probability': (0.01, 0.99),
    'false_probability': (0.001, 0.98),
    'max_evidence': (0.5, 50.0),
    'remove_below': (-50.0, -0.1),
    'border_margin_m': (0.0, 20.0),
    'sigma_floor_m': (0.001, 5.0),
    'tile_size_m': (10.0, 1000.0),
    'active_radius_m': (50.0, 5000.0),
}
