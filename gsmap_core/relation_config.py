"""Configuration of the relations between predictions of a decoder layer (InteractionMap)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gsmap_core.errors import ConfigError


@dataclass(frozen=True)
class RelationConfig:
    """Relations between predictions as biases of the decoupled self-attention (InteractionMap).

    The first five are the switches of the paper's table 6, all off: a term that is off is left out
    of the encoding, and without any the model has no relations. What the paper leaves open follows
    (reference-models.md, 9.2).

    Args:
        coordinates: differences of point coordinates (eq. 9), in the attention within instances.
        directions: differences of how much the line turns at the points (eq. 10), there too.
        score_rank: which of two instances has the higher score (eq. 12), in the attention between
            instances.
        score_rank_chamfer: the same times their Chamfer distance (eq. 13), there too.
        ping_pong: a training step uses both parts, the point part or the instance part alone, at
            random; inference uses both.
        ping_pong_both: probability of both; the rest is halved between the two parts. 0: they
            alternate at random.
        coordinate_kind: of a difference d in eq. 9, `log`: log(d + 1) as published; `signed_log`:
            sgn(d) log(1 + |d|); `absolute_log`: log(1 + |d|).
        log_floor: smallest argument of the logarithm of kind `log`, which -1 would make infinite.
        direction_ends: the ends of an open line, where no edges meet, get the value of the point
            beside them (`replicate`) or 0 (`zero`).
        ring_distance_m: a line whose ends lie within this distance is a ring, whose last and first
            edges meet [m].
        score_kind: of two instances the highest scores are compared (`max`; probabilities have the
            order of their logits), or the scores of every category on their own (`per_category`).
        chamfer_unit: distances in unit coordinates (`unit`), or in metres over the longer side of
            the range (`range`).
        encoding_dims: sine and cosine channels per scalar, an even number.
        encoding_temperature: ratio of the highest frequency to the one that would follow the
            lowest.
        encoding_scale: highest frequency.
        per_head: a bias for every head, or one for all.
        activation: after the linear layer.
        per_layer: every decoder layer has its own linear layer, or all share one.
        first_layer: what the first layer knows: `none`, or the points that the queries start from
            (`reference_points`), for the point part.
        pairs: the point part compares points of the layer before with each other (`same_layer`),
            or points of the layer before that (i) with them (j; `two_layers`), where i = j is not
            0.
        gradient: predictions of the layer before get gradients through the relations.
    """

    coordinates: bool = False
    directions: bool = False
    score_rank: bool = False
    score_rank_chamfer: bool = False
    ping_pong: bool = False
    ping_pong_both: float = 1.0 / 3.0
    coordinate_kind: Literal['log', 'signed_log', 'absolute_log'] = 'log'
    log_floor: float = 1e-4
    direction_ends: Literal['replicate', 'zero'] = 'replicate'
    ring_distance_m: float = 1.0
    score_kind: Literal['max', 'per_category'] = 'max'
    chamfer_unit: Literal['unit', 'range'] = 'unit'
    encoding_dims: int = 16
    encoding_temperature: float = 10000.0
    encoding_scale: float = 100.0
    per_head: bool = True
    activation: Literal['relu', 'softplus', 'none'] = 'relu'
    per_layer: bool = False
    first_layer: Literal['none', 'reference_points'] = 'none'
    pairs: Literal['same_layer', 'two_layers'] = 'same_layer'
    gradient: bool = False

    def __post_init__(self) -> None:
        """Refuse encodings that do not exist and a ping-pong with one player."""
        if self.encoding_dims < 2 or self.encoding_dims % 2:
            raise ConfigError(
                f'encoding_dims {self.encoding_dims}; expected an even number from 2 on'
            )
        for name, value, is_possible, expected in (
            ('encoding_temperature', self.encoding_temperature, self.encoding_temperature > 1,
             'more than 1'),
            ('encoding_scale', self.encoding_scale, self.encoding_scale > 0, 'more than 0'),
            ('log_floor', self.log_floor, 0 < self.log_floor < 1, 'a number between 0 and 1'),
            ('ring_distance_m', self.ring_distance_m, self.ring_distance_m >= 0, '0 or more'),
            ('ping_pong_both', self.ping_pong_both, 0 <= self.ping_pong_both < 1,
             '0 or more and less than 1'),
        ):  # fmt: skip
            if not is_possible:
                raise ConfigError(f'{name} {value}; expected {expected}')
        if self.ping_pong and not (self.has_points and self.has_instances):
            raise ConfigError(
                'ping_pong plays between the point and the instance part; switch on coordinates '
                'or directions, and score_rank or score_rank_chamfer, or leave it out'
            )

    @property
    def has_points(self) -> bool:
        """Whether points of an instance are related."""
        return self.coordinates or self.directions

    @property
    def has_instances(self) -> bool:
        """Whether instances are related."""
        return self.score_rank or self.score_rank_chamfer

    @property
    def is_on(self) -> bool:
        """Whether the decoder has relations."""
        return self.has_points or self.has_instances
