"""Configuration of semi-supervised training on drives that pass the same streets (MapGCLR).

A section of the training recipe (`training.recipe.TrainConfig.contrastive`), not of the model: a
model that was trained with it is configured and exported as its host is. Defaults and
alternatives: reference-models.md, 9.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gsmap_core.errors import ConfigError


@dataclass(frozen=True)
class ProjectionConfig:
    """The head between BEV features and the contrastive loss; trained, then thrown away.

    Args:
        num_layers: 1x1 layers, ReLU between them.
        hidden_dims: channels between them; None: as many as the BEV features have.
        dims: channels of an embedding.
        norm: `none`, or `batch`: BatchNorm after every layer but the last.

    Raises:
        ConfigError: a number is not positive.
    """

    num_layers: int = 2
    hidden_dims: int | None = None
    dims: int = 128
    norm: Literal['none', 'batch'] = 'none'

    def __post_init__(self) -> None:
        """Validate."""
        _check_above(self, 0, 'num_layers', 'hidden_dims', 'dims')


@dataclass(frozen=True)
class PairConfig:
    """Which frames of the unlabelled drives are paired, and how they are drawn.

    Args:
        per_batch: m, pairs beside the labelled samples of every forward pass.
        min_iou: least IoU of the perception boxes of a pair, inclusive.
        max_iou: greatest IoU, inclusive.
        same_drive_gap_s: frames of one drive that are at least this far apart in time are paired
            too [s]; None: only frames of different drives.
        draw: an epoch visits every `frame` that has a partner once, with one of its partners, or
            every `pair` once (which favours places where vehicles stand).
        frame_stride: look at every n-th frame.
        lonely: a drive without any pair is an `error`, or left out with a warning (`skip`).
        max_distance_m: a cell is left out if its place lies farther than this from the centre of
            the nearest cell of the other grid [m]; None: never.
        max_height_m: a cell is left out if its ground lies farther than this above or below the
            other vehicle's ground plane [m]: bridges.
        observed: cells take part that are in the `frustum` of a camera in both frames, that an
            LSS view transform has `pooled` features for, or `all`.
        augment: the unlabelled pictures change like the labelled ones (`same`) or not (`none`).
        cache_gb: memory for prepared unlabelled pictures [GiB].

    Raises:
        ConfigError: a number is out of range.
    """

    per_batch: int = 1
    min_iou: float = 0.2
    max_iou: float = 0.8
    same_drive_gap_s: float | None = None
    draw: Literal['frame', 'pair'] = 'frame'
    frame_stride: int = 1
    lonely: Literal['error', 'skip'] = 'error'
    max_distance_m: float | None = None
    max_height_m: float = 4.0
    observed: Literal['frustum', 'pooled', 'all'] = 'frustum'
    augment: Literal['same', 'none'] = 'same'
    cache_gb: float = 4.0

    def __post_init__(self) -> None:
        """Validate; the limits of the IoU are checked where they are used."""
        names = ('per_batch', 'frame_stride', 'max_distance_m', 'max_height_m')
        _check_above(self, 0, *names, 'same_drive_gap_s')
        if self.cache_gb < 0:
            raise ConfigError(f'pairs.cache_gb is {self.cache_gb}; expected 0 or more')


@dataclass(frozen=True)
class PoseError:
    """Standard deviations of an error of the pose; 0: none.

    Args:
        x_m: of the position along the first axis [m].
        y_m: along the second [m].
        heading_deg: of the heading [deg].

    Raises:
        ConfigError: one is negative.
    """

    x_m: float = 0.0
    y_m: float = 0.0
    heading_deg: float = 0.0

    def __post_init__(self) -> None:
        """Validate."""
        for name in ('x_m', 'y_m', 'heading_deg'):
            if getattr(self, name) < 0:
                raise ConfigError(f'pose_noise: {name} is {getattr(self, name)}; expected >= 0')

    @property
    def is_none(self) -> bool:
        """Whether nothing is changed."""
        return not (self.x_m or self.y_m or self.heading_deg)


@dataclass(frozen=True)
class PoseNoiseConfig:
    """Errors put on the poses of unlabelled drives: what imperfect localisation would have given.

    They are drawn once, as a recording has one error at every moment, and affect which frames are
    paired as well as which cells correspond.

    Args:
        drive: constant over a drive, along the axes of the map.
        frame: of every frame anew, along the axes of the vehicle.
    """

    drive: PoseError = field(default_factory=PoseError)
    frame: PoseError = field(default_factory=PoseError)

    @property
    def is_none(self) -> bool:
        """Whether nothing is changed."""
        return self.drive.is_none and self.frame.is_none


@dataclass(frozen=True)
class ContrastiveConfig:
    """The contrastive loss and what surrounds it.

    Args:
        weight: of the loss, which is a mean over the anchors of a pair and a sum over pairs. Its
            gradient is much smaller than that of the labelled losses: with 1 and two pairs it
            was a seventh of theirs at the image encoder of `maptrv2_mini`.
        temperature: tau, that cosine similarities are divided by.
        num_anchors: per pair; fewer where the two frames share fewer cells.
        anchor_draw: cells of the overlap are drawn `uniform`, or in proportion to the norm of
            their BEV feature (`feature_norm`).
        num_negatives: per anchor, half of them from each grid.
        negatives: `sampled` from both grids of the pair, or all other `anchors` and positives of
            the batch.
        exclude_radius: cells around anchor and positive that are no negatives: 1 excludes 3 x 3, 0
            the cell itself.
        positive: embedding of the `nearest` cell, or `bilinear` between four.
        symmetric: mean of both directions; else from the reference to the adjacent frame.
        stop_gradient: in each direction, no gradient into the grid that the anchor is not of.
        gather_negatives: the anchors and positives of all training processes are negatives too.
        depth: weight of the depth loss on unlabelled frames (LSS; needs their LiDAR).
        pretrain_steps: optimiser steps with the contrastive loss alone before the recipe's steps,
            which then are without it; 0: both from the start.
        projection: the head.
        pairs: frames, cells and pictures.
        pose_noise: errors of the poses.

    Raises:
        ConfigError: a number is out of range.

    Source: MapGCLR, geospatial contrastive learning. The numbers are this project's.
    """

    weight: float = 10.0
    temperature: float = 0.1
    num_anchors: int = 256
    anchor_draw: Literal['uniform', 'feature_norm'] = 'uniform'
    num_negatives: int = 256
    negatives: Literal['sampled', 'anchors'] = 'sampled'
    exclude_radius: int = 1
    positive: Literal['nearest', 'bilinear'] = 'nearest'
    symmetric: bool = False
    stop_gradient: bool = False
    gather_negatives: bool = False
    depth: float = 0.0
    pretrain_steps: int = 0
    projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    pose_noise: PoseNoiseConfig = field(default_factory=PoseNoiseConfig)

    def __post_init__(self) -> None:
        """Validate."""
        _check_above(self, 0, 'weight', 'temperature', 'num_anchors', 'num_negatives')
        for name in ('exclude_radius', 'depth', 'pretrain_steps'):
            if getattr(self, name) < 0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 0 or more')


def _check_above(config: Any, limit: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > limit:
            raise ConfigError(f'{name} is {value}; expected more than {limit}')
