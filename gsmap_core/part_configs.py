"""Configuration of the parts of a model: images, backbone, BEV, fusion, decoder, Gaussians.

`config.ModelConfig` puts them together; defaults are the published values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gsmap_core.errors import ConfigError
from gsmap_core.relation_config import RelationConfig as RelationConfig


@dataclass(frozen=True)
class ImageConfig:
    """Network input: images are resized, aspect kept, then padded at the bottom and right.

    Args:
        width_px: width of the network input after padding [px]; a multiple of 32.
        height_px: height of the network input after padding [px]; a multiple of 32.
        mean: per RGB channel, subtracted (0 to 255 scale).
        std: per RGB channel, divided by.
        interpolation: `area` on 8 bits per channel, or `bilinear` in floating point as the
            published models do (four times the memory per picture).
        scale: fixed factor of the published models for pictures of `recorded_px`: sizes are
            truncated, intrinsics multiplied by exactly the factor (no half-pixel shift). Pictures
            of another size get the factor that brings them to the same place. None: pictures are
            fitted into the network input.
        recorded_px: width and height of the recorded pictures that `scale` belongs to [px].
        fill: grey value (0 to 255) that pictures are padded with at the bottom and right to
            `recorded_px` before they are resized (Argoverse 2: 128); None: not padded there.
    """

    width_px: int = 800
    height_px: int = 480
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    interpolation: Literal['area', 'bilinear'] = 'area'
    scale: float | None = None
    recorded_px: tuple[int, int] | None = None
    fill: int | None = None

    def __post_init__(self) -> None:
        """Refuse sizes the backbone cannot divide, and factors that do not fit."""
        if self.width_px <= 0 or self.height_px <= 0 or self.width_px % 32 or self.height_px % 32:
            raise ConfigError(
                f'image size {self.width_px} x {self.height_px} px; expected positive '
                'multiples of 32'
            )
        if (self.scale is None) != (self.recorded_px is None):
            raise ConfigError(
                f'scale is {self.scale} and recorded_px is {self.recorded_px}; expected both or '
                'neither'
            )
        if self.fill is not None and (self.scale is None or not 0 <= self.fill <= 255):
            raise ConfigError(
                f'fill is {self.fill}; expected 0 to 255, together with scale and recorded_px'
            )
        if self.scale is not None and self.recorded_px is not None:
            width, height = (self.scale * size for size in self.recorded_px)
            if not (1 <= width < self.width_px + 1 and 1 <= height < self.height_px + 1):
                raise ConfigError(
                    f'scale {self.scale} makes {width:g} x {height:g} px of recorded_px '
                    f'{list(self.recorded_px)}; expected 1 x 1 to {self.width_px} x '
                    f'{self.height_px} px'
                )


@dataclass(frozen=True)
class BackboneConfig:
    """Image backbone (ResNet family, torchvision names) and feature pyramid.

    Args:
        block: `basic` (R18/R34) or `bottleneck` (R50).
        num_blocks: residual blocks per stage.
        base_width: channels of the first stage; 64 in the published sizes.
        stem: `conv7` (7x7 and max-pooling, torchvision) or `conv3` (one 3x3 convolution, stage 1
            halves the size); stages 1 to 4 have strides 4, 8, 16 and 32 with either.
        out_stages: stages (1 to 4) handed to the pyramid, ascending; the pyramid returns the
            finest of them.
        num_frozen_stages: stages without gradient when pretrained weights were given (stem counts
            with stage 1); nothing is frozen without.
        frozen_norm: keep BatchNorm in eval mode without gradient when pretrained weights were
            given.
    """

    block: Literal['basic', 'bottleneck'] = 'bottleneck'
    num_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    base_width: int = 64
    stem: Literal['conv7', 'conv3'] = 'conv7'
    out_stages: tuple[int, ...] = (4,)
    num_frozen_stages: int = 1
    frozen_norm: bool = True

    def __post_init__(self) -> None:
        """Refuse stages that do not exist."""
        stages = self.out_stages
        if not stages or list(stages) != sorted(set(stages)) or not set(stages) <= {1, 2, 3, 4}:
            raise ConfigError(
                f'out_stages {list(stages)}; expected one or more of 1, 2, 3, 4 in ascending order'
            )
        if not 0 <= self.num_frozen_stages <= max(stages):
            raise ConfigError(
                f'num_frozen_stages {self.num_frozen_stages}; expected 0 to {max(stages)}, the '
                'last stage in use'
            )


@dataclass(frozen=True)
class LssConfig:
    """Lift-splat view transform (reference-models.md, 1.8 and 2.1).

    Args:
        depth_net: `plain`, one convolution (MapTR bevpool), or `camera_aware` (MapTRv2).
        depth_min_m: distance of the first depth bin along the optical axis [m].
        depth_max_m: where the bins end; it belongs to none [m].
        depth_step_m: between bins [m].
        voxels_per_cell: voxels along each side of a BEV cell; the down-sampler's stride.
        hidden_dims: width of the camera-aware network.
        num_depth_blocks: its residual blocks.
        pyramid_dims: channels of each branch of its pyramid pooling.
        pyramid_dropout: after the pyramid pooling.
    """

    depth_net: Literal['plain', 'camera_aware'] = 'camera_aware'
    depth_min_m: float = 1.0
    depth_max_m: float = 35.0
    depth_step_m: float = 0.5
    voxels_per_cell: int = 2
    hidden_dims: int = 256
    num_depth_blocks: int = 3
    pyramid_dims: int = 96
    pyramid_dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuse depths and sizes that give no bins or voxels."""
        if not 0.0 < self.depth_min_m < self.depth_max_m or self.depth_step_m <= 0:
            raise ConfigError(
                f'depth bins from {self.depth_min_m} to {self.depth_max_m} m in steps of '
                f'{self.depth_step_m} m; expected 0 < min < max and a positive step'
            )
        for name in ('voxels_per_cell', 'hidden_dims', 'pyramid_dims'):
            if getattr(self, name) <= 0:
                raise ConfigError(f'{name} {getattr(self, name)}; expected more than 0')

    @property
    def num_depth_bins(self) -> int:
        """D."""
        return round((self.depth_max_m - self.depth_min_m) / self.depth_step_m)

    def depth_bins_m(self) -> list[float]:
        """Return the distances of the D bins along the optical axis [m]."""
        return [self.depth_min_m + i * self.depth_step_m for i in range(self.num_depth_bins)]


@dataclass(frozen=True)
class BevConfig:
    """View transform and BEV grid.

    Args:
        view_transform: which file of `models/bev`.
        num_rows: H of the grid.
        num_columns: W of the grid.
        order: cell order, see `BevGrid`.
        z_min_m: lowest height that cells look at, in the reference frame [m]; predicted heights
            (`decoder.num_dims: 3`) lie between the two as well.
        z_max_m: highest height [m].
        num_layers: encoder layers.
        num_heights: heights per cell; equals the heads of the kernel attention.
        kernel_rows: rows of the sampling kernel.
        kernel_columns: columns of the sampling kernel.
        num_heads: heads of the deformable cross-attention (bevformer).
        num_sampling_points: positions per head of it, a multiple of `num_heights`.
        self_attention: `deformable` (MapTR) or `none` before the cross-attention of every layer.
        can_bus: add the CAN-bus features of the published models to the queries.
        can_bus_inputs: how many of the 18 features, from the first on.
        can_bus_source: what they are when mapping: `zeros`, or `pose`: orientation and heading of
            the vehicle (and its motion, with `history`) from the ego pose.
        can_bus_rest: the features that no pose gives (acceleration, rates, velocity), with `pose`.
        half_precision_reference: cell centres are rounded to half precision (by up to 0.73 cm per
            30 m), as in the published models when they run in mixed precision.
        history: cells also look at the BEV map of the frame before (BEVFormer's temporal
            self-attention); needs `order: official`, `self_attention: deformable` and `can_bus`.
        history_centre_px: x and y of the cell corner that the map before is turned about; None:
            the middle.
        num_refine_blocks: residual 3x3 convolution blocks on the finished BEV features; 0 in the
            published models.
        embedding_std: spread of the initial BEV queries; 1 as published, smaller lets small models
            trained from scratch see the images from the start.
        lss: the lift-splat view transform, with `view_transform: lss`.
    """

    view_transform: Literal['gkt', 'bevformer', 'lss'] = 'gkt'
    num_rows: int = 200
    num_columns: int = 100
    order: Literal['ego', 'official'] = 'ego'
    z_min_m: float = -2.0
    z_max_m: float = 2.0
    num_layers: int = 1
    num_heights: int = 4
    kernel_rows: int = 3
    kernel_columns: int = 5
    self_attention: Literal['deformable', 'none'] = 'deformable'
    num_heads: int = 8
    num_sampling_points: int = 8
    can_bus: bool = False
    can_bus_inputs: int = 18
    can_bus_source: Literal['zeros', 'pose'] = 'zeros'
    can_bus_rest: float = 0.0
    half_precision_reference: bool = False
    history: bool = False
    history_centre_px: tuple[float, float] | None = None
    num_refine_blocks: int = 0
    embedding_std: float = 1.0
    lss: LssConfig = field(default_factory=LssConfig)

    def __post_init__(self) -> None:
        """Refuse what no encoder can do."""
        per_height = self.num_sampling_points / self.num_heights
        if self.view_transform == 'bevformer' and (per_height < 1 or per_height % 1):
            raise ConfigError(
                f'num_sampling_points {self.num_sampling_points}; expected a multiple of '
                f'num_heights {self.num_heights}'
            )
        if not 1 <= self.can_bus_inputs <= 18:
            raise ConfigError(f'can_bus_inputs {self.can_bus_inputs}; expected 1 to 18')
        if self.history and not (
            self.order == 'official' and self.self_attention == 'deformable' and self.can_bus
        ):
            raise ConfigError(
                "history needs order 'official', self_attention 'deformable' and can_bus; set "
                'them or leave history out'
            )


@dataclass(frozen=True)
class DecoderConfig:
    """Queries, decoder layers and heads.

    Args:
        num_layers: L.
        num_instances: M, instance queries.
        num_points: P, points per instance.
        num_dims: coordinates of a point: 2, or 3 with its height (MapTRv2 on Argoverse 2).
        num_heads: attention heads.
        num_self_attention_heads: heads of the self-attention of queries; None: `num_heads`.
        num_sampling_points: sampling points per head of the BEV deformable attention.
        ffn_dims: hidden width of the feed-forward parts.
        dropout: in attention and feed-forward residuals.
        self_attention: `joint` over all points (MapTR) or `decoupled` into instances and points
            (MapTRv2).
        num_one_to_many: extra instance queries used in training only (MapTRv2: 300); 0: off.
        one_to_many_copies: how often the ground truth is repeated for them.
        relation: relations between predictions in the self-attention; needs `decoupled`.
    """

    num_layers: int = 6
    num_instances: int = 50
    num_points: int = 20
    num_dims: Literal[2, 3] = 2
    num_heads: int = 8
    num_self_attention_heads: int | None = None
    num_sampling_points: int = 4
    ffn_dims: int = 512
    dropout: float = 0.1
    self_attention: Literal['joint', 'decoupled'] = 'joint'
    num_one_to_many: int = 0
    one_to_many_copies: int = 6
    relation: RelationConfig = field(default_factory=RelationConfig)

    def __post_init__(self) -> None:
        """Refuse relations that this decoder cannot have."""
        if not self.relation.is_on:
            return
        if self.self_attention != 'decoupled':
            raise ConfigError(
                f"relation with self_attention '{self.self_attention}'; expected 'decoupled', or "
                'every term of relation off'
            )
        if self.num_layers < 2:
            raise ConfigError(
                f'relation with num_layers {self.num_layers}; expected 2 or more: a layer relates '
                'the predictions of the one before'
            )
        if self.relation.directions and self.num_points < 3:
            raise ConfigError(
                f'relation.directions with num_points {self.num_points}; expected 3 or more, so '
                'that edges meet'
            )


@dataclass(frozen=True)
class GaussianConfig:
    """How a decoder describes a vertex as a 2D Gaussian (GSMap; reference-models.md, 9.1).

    Args:
        scale_min_m: smallest standard deviation along an axis [m].
        scale_max_m: largest [m].
        scale_init_m: at the start of a training [m].
        scale_kind: `sigmoid` between the limits, or `exp` clamped to them.
        angle_kind: `free` scalar, `double` (from sine and cosine of twice the angle), or `chord`
            (relative to the direction between the neighbouring vertices).
        refine: scales and angle are predicted anew by every layer (`false`) or added to those of
            the layer before (`true`), like the centres.
        hidden_dims: width of the head for scales and angle, which all layers share.
        guided_sampling: sampling offsets of the BEV attention are turned and scaled by the
            Gaussian of the layer before.
        guided_position: the parameters of the layer before are added to the position code.
    """

    scale_min_m: float = 0.15
    scale_max_m: float = 4.0
    scale_init_m: float = 0.6
    scale_kind: Literal['sigmoid', 'exp'] = 'sigmoid'
    angle_kind: Literal['free', 'double', 'chord'] = 'free'
    refine: bool = False
    hidden_dims: int = 128
    guided_sampling: bool = False
    guided_position: bool = False

    def __post_init__(self) -> None:
        """Refuse scales that cannot be reached."""
        if not 0.0 < self.scale_min_m < self.scale_init_m < self.scale_max_m:
            raise ConfigError(
                f'scale_min_m {self.scale_min_m}, scale_init_m {self.scale_init_m}, scale_max_m '
                f'{self.scale_max_m}; expected positive and ascending'
            )
        if self.hidden_dims <= 0:
            raise ConfigError(f'hidden_dims {self.hidden_dims}; expected more than 0')


@dataclass(frozen=True)
class FusionConfig:
    """Fusion of BEV maps over time (InteractionMap, sec. 3.1; reference-models.md, 9.2).

    Args:
        kind: `none`; `streaming`, the map of the frame before alone (eq. 1 and 2); or this
            followed by the memory of key frames: `keyframe_streaming`, one map that is carried on
            (eq. 3 and 4), or `keyframe_stacking`, the last few side by side (eq. 5 and 6).
        gru_kernel: side of the GRUs' convolutions (StreamMapNet: 1).
        gru_tanh: bound the GRUs' candidates as textbooks do; the layer normalisation behind them
            does without.
        num_residual_blocks: behind the local GRU (eq. 2), and of stacking (eq. 6).
        keyframe_rule: a frame becomes a key frame so far after the one before: by the way
            `travelled`, by the straight line between both (`euclidean`), or `every_k` frames.
        stride_m: distance between key frames [m], with the first two rules.
        every_k: frames from one key frame to the next, with the last rule.
        num_previous: N_pre, key frames that are stacked.
        missing: what stands for key frames that are not there yet: the `current` map or `zeros`.
        num_wide_blocks: residual blocks of stacking at the width of all maps together, the last of
            which narrows; 0: one convolution narrows at once, then `num_residual_blocks` follow.
        num_candidates: maps kept in training, of which stacking draws `num_previous` at random;
            they are spread over the last `num_previous` strides.
        odometer_step_m: shorter moves are not added up, so that the noise of a standing vehicle's
            poses does not count as way travelled [m].
        detach_memory: no gradient flows into earlier frames; false: it does until somebody calls
            `FusionState.detach`.
    """

    kind: Literal['none', 'streaming', 'keyframe_streaming', 'keyframe_stacking'] = 'none'
    gru_kernel: Literal[1, 3] = 3
    gru_tanh: bool = False
    num_residual_blocks: int = 1
    keyframe_rule: Literal['travelled', 'euclidean', 'every_k'] = 'travelled'
    stride_m: float = 5.0
    every_k: int = 5
    num_previous: int = 4
    missing: Literal['current', 'zeros'] = 'current'
    num_wide_blocks: int = 0
    num_candidates: int = 10
    odometer_step_m: float = 0.2
    detach_memory: bool = True

    def __post_init__(self) -> None:
        """Refuse counts and distances that select nothing."""
        for name in ('every_k', 'num_previous'):
            if getattr(self, name) < 1:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 1 or more')
        for name in ('num_residual_blocks', 'num_wide_blocks', 'odometer_step_m'):
            if getattr(self, name) < 0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 0 or more')
        if self.stride_m <= self.odometer_step_m:
            raise ConfigError(
                f'stride_m is {self.stride_m} m; expected more than odometer_step_m '
                f'{self.odometer_step_m} m'
            )
        if self.num_candidates < self.num_previous:
            raise ConfigError(
                f'num_candidates is {self.num_candidates}; expected at least num_previous '
                f'{self.num_previous}'
            )


@dataclass(frozen=True)
class PoseConfig:
    """Pose of a frame in the ego frame.

    Args:
        translation: x, y, z [m].
        quaternion: x, y, z, w.
    """

    translation: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
