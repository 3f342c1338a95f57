"""Typed configuration: one dataclass per part, read strictly from YAML (`config/models`).

Defaults exist once, here; a YAML file overrides them. Unknown keys, wrong types and impossible
values are refused with the file, the key and what was expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from gsmap_core.categories import PAPER_CATEGORIES, category_by_name
from gsmap_core.errors import ConfigError
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.resources import resource_dir
from gsmap_core.structures import PerceptionRange

T = TypeVar('T')

#: Section of a model configuration that only published weights need.
OFFICIAL_SECTION = 'official'
#: Key of a model's file that names the configuration it differs from.
EXTENDS_KEY = 'extends'


def _describe(hint: Any) -> str:
    return getattr(hint, '__name__', str(hint).replace('typing.', ''))


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Return a value as the type that the hint asks for, or raise ConfigError naming `where`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [arg for arg in args if arg is not type(None)]
        if len(options) == 1:
            return _convert(value, options[0], where)
    elif origin is Literal:
        if value in args:
            return value
        raise ConfigError(
            f'{where}: {value!r} is not allowed; expected one of {", ".join(map(repr, args))}'
        )
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            if len(args) == 2 and args[1] is Ellipsis:
                return tuple(
                    _convert(item, args[0], f'{where}[{i}]') for i, item in enumerate(value)
                )
            if len(value) == len(args):
                return tuple(
                    _convert(item, arg, f'{where}[{i}]')
                    for i, (item, arg) in enumerate(zip(value, args, strict=True))
                )
            raise ConfigError(f'{where}: has {len(value)} entries; expected {len(args)}')
    elif origin is dict:
        if isinstance(value, dict):
            return {
                _convert(key, args[0], f'{where} key'): _convert(item, args[1], f'{where}.{key}')
                for key, item in value.items()
            }
    elif dataclasses.is_dataclass(hint):
        if isinstance(value, dict):
            return build_dataclass(typing.cast(type, hint), value, where)
    elif hint is bool:
        if isinstance(value, bool):
            return value
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, hint):
        return value
    raise ConfigError(
        f'{where}: {value!r} is a {type(value).__name__}; expected {_describe(hint)}'
    )


def build_dataclass(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Build a (nested) dataclass from a mapping, strictly.

    Args:
        cls: dataclass type.
        values: mapping from field names to plain values.
        where: prefix for error messages, e.g. the file name.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a value that the dataclass
            refuses.
    """
    hints = typing.get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(typing.cast(Any, cls)) if item.init]
    for key in values:
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ''
            raise ConfigError(
                f"{where}: unknown key '{key}'{hint}; expected one of {', '.join(names)}"
            )
    converted = {
        key: _convert(value, hints[key], f'{where}.{key}') for key, value in values.items()
    }
    try:
        return cls(**converted)
    except TypeError as error:
        raise ConfigError(f'{where}: {error}') from None
    except ConfigError as error:
        raise ConfigError(f'{where}: {error}') from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not hold a mapping.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(
            f"configuration '{path}' cannot be read: {error.strerror}; give an existing YAML file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration '{path}' is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"configuration '{path}' holds a {type(content).__name__}; expected a mapping of keys"
        )
    return content


def to_plain(config: Any) -> Any:
    """Turn a (nested) dataclass into plain dictionaries and lists, as YAML or JSON hold them."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            item.name: to_plain(getattr(config, item.name))
            for item in dataclasses.fields(config)
            if item.init
        }
    if isinstance(config, (list, tuple)):
        return [to_plain(item) for item in config]
    if isinstance(config, dict):
        return {key: to_plain(item) for key, item in config.items()}
    return config


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


#: Which orders of a ring's points count as the same ring, see `targets.allowed_orders`.
OrderPattern = Literal['v0', 'v1', 'v2', 'v3', 'v4']


@dataclass(frozen=True)
class MatchingConfig:
    """Weights of the matching cost terms (reference-models.md, 3.2, 4.2 and 9.1).

    Args:
        classification: focal cost.
        points: sum of absolute normalised coordinate differences, least over the allowed orders.
        raster: cost of rendered masks: of lines and polygons with points (MapVR), of Gaussians
            with Gaussians (GSMap); 0: not rendered.
        raster_measure: 1 minus `dice` or 1 minus soft `iou`.
        raster_rows: H of the canvas that the cost is rendered on.
        raster_columns: W of it.
        orders: of a ring's points that count as the same ring: the published pattern `v2`, or
            another one (reference-models.md, 3.1).
    """

    classification: float = 2.0
    points: float = 5.0
    raster: float = 0.0
    raster_measure: Literal['dice', 'iou'] = 'dice'
    raster_rows: int = 128
    raster_columns: int = 64
    orders: OrderPattern = 'v2'


@dataclass(frozen=True)
class RasterLossConfig:
    """What the raster loss compares (MapVR: reference-models.md, 4.2; GSMap: 9.1).

    The defaults are GSMap's. Points are rendered as MapVR renders them, Gaussians as GSMap does.

    Args:
        rows: H of the canvas.
        columns: W of the canvas.
        measure: `l1`, `mse` or `bce` per pixel with `foreground_weight` and the structural term
            `ssim_weight`; or `dice` alone (MapVR).
        foreground_weight: weight of pixels of the element; 1 of all others.
        ssim_weight: share of 1 - SSIM; 0: none.
        target: `line` (binary, `line_width_px` wide, crossings as outlines), `filled` (the same
            with crossings filled), or `soft` (the target rendered like a prediction's points,
            MapVR).
        line_width_px: width of lines in binary targets on this canvas [px]; on the canvas of the
            matching cost lines are as wide in metres.
        layers: `all` decoder layers or the `last` one.
        rendered: `matched` predictions, or `all`: the others towards an empty mask.
        one_to_many: loss and matching cost also for the one-to-many queries.
        center_gradient: gradients reach the centres of the Gaussians.
        union: occupancy of an element from its Gaussians (GSMap, eq. 6).
    """

    rows: int = 200
    columns: int = 100
    measure: Literal['l1', 'mse', 'bce', 'dice'] = 'l1'
    foreground_weight: float = 5.0
    ssim_weight: float = 0.2
    target: Literal['line', 'filled', 'soft'] = 'line'
    line_width_px: int = 3
    layers: Literal['all', 'last'] = 'all'
    rendered: Literal['matched', 'all'] = 'matched'
    one_to_many: bool = False
    center_gradient: bool = True
    union: Literal['probabilistic', 'max', 'clamped_sum', 'exponential'] = 'probabilistic'


@dataclass(frozen=True)
class LossConfig:
    """Weights of the named losses; 0 turns one off (reference-models.md, 3.3, 2.5, 4.2 and 9.1).

    Args:
        classification: focal loss.
        points: L1 on normalised coordinates, least over the allowed orders at matching.
        direction: 1 - cosine of edge directions.
        direction_kind: edges against those of the `target` (MapTR), or against the next edge of
            the same prediction, a `smoothness` prior (MapVR).
        raster: rendered masks, see `raster_options`.
        raster_options: what the raster loss compares.
        bev_segmentation: BCE of a BEV mask head (positive weight 4).
        pv_segmentation: BCE of a mask head on the image features (MapTRv2).
        depth: cross-entropy of the depth bins of the LSS view transform (MapTRv2).
        one_to_many: factor on the losses of the one-to-many queries.
    """

    classification: float = 2.0
    points: float = 5.0
    direction: float = 0.005
    direction_kind: Literal['target', 'smoothness'] = 'target'
    raster: float = 0.0
    raster_options: RasterLossConfig = field(default_factory=RasterLossConfig)
    bev_segmentation: float = 0.0
    pv_segmentation: float = 0.0
    depth: float = 0.0
    one_to_many: float = 1.0


@dataclass(frozen=True)
class PoseConfig:
    """Pose of a frame in the ego frame.

    Args:
        translation: x, y, z [m].
        quaternion: x, y, z, w.
    """

    translation: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that rebuilds a model; stored in every checkpoint.

    Args:
        name: `<method>_<size>`.
        categories: predicted categories in the order of the logits.
        reference: frame the model predicts in.
        lidar_pose: with `reference: lidar`, where that frame is on a vehicle whose rig does not
            say it (`CameraRig.base_from_lidar`); None: such a rig is refused.
        range: perception range in that frame.
        num_cameras: learned camera embeddings; 0: none, so that any number of cameras in any order
            works.
        cameras: names in the order of the embeddings; a rig with these names is put into this
            order, any other is taken in its own. Empty: always the rig's own.
        embed_dims: C of BEV features and queries.
        image: network input.
        backbone: image backbone and pyramid.
        bev: view transform and grid.
        decoder: queries, layers, heads.
        representation: a vertex is a point, or the centre of a 2D Gaussian (GSMap).
        gaussians: the Gaussians, with `representation: gaussians`.
        matching: cost weights.
        losses: loss weights.
        official_only: carry the tensors that published LSS models store and never use, so that
            their files load whole and their parameter counts come out.
        closing_distance_m: post-processing closes an element whose ends lie within this distance
            [m].
    """

    name: str = 'maptr_r50'
    categories: tuple[str, ...] = PAPER_CATEGORIES
    reference: Literal['ego', 'lidar'] = 'ego'
    lidar_pose: PoseConfig | None = None
    range: PerceptionRange = field(default_factory=PerceptionRange)
    num_cameras: int = 0
    cameras: tuple[str, ...] = ()
    embed_dims: int = 256
    image: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    bev: BevConfig = field(default_factory=BevConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    representation: Literal['points', 'gaussians'] = 'points'
    gaussians: GaussianConfig = field(default_factory=GaussianConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    official_only: bool = False
    closing_distance_m: float = 1.0

    def __post_init__(self) -> None:
        """Check what spans several parts."""
        for name in self.categories:
            category_by_name(name)
        if not self.categories or len(set(self.categories)) != len(self.categories):
            raise ConfigError(
                f'categories {list(self.categories)}; expected at least one, each once'
            )
        if self.cameras and len(set(self.cameras)) != self.num_cameras:
            raise ConfigError(
                f'cameras {list(self.cameras)}; expected num_cameras {self.num_cameras} different '
                'names, or none'
            )
        used = {'gkt': 'num_heights', 'bevformer': 'num_heads'}
        name = used.get(self.bev.view_transform, 'num_heights')
        for heads, owner in (
            (self.decoder.num_heads, 'decoder.num_heads'),
            (getattr(self.bev, name), f'bev.{name}'),
        ):
            if self.embed_dims % heads:
                raise ConfigError(
                    f'embed_dims {self.embed_dims} is not a multiple of {owner} {heads}'
                )

        if self.losses.depth and self.bev.view_transform != 'lss':
            raise ConfigError(
                f'losses.depth is {self.losses.depth} and bev.view_transform is '
                f"'{self.bev.view_transform}', which predicts no depth; use 'lss' or set it to 0"
            )
        if self.official_only and (self.bev.view_transform != 'lss' or not self.num_cameras):
            raise ConfigError(
                f"official_only with bev.view_transform '{self.bev.view_transform}' and "
                f"num_cameras {self.num_cameras}; expected 'lss' and the published number"
            )

    @property
    def grid(self) -> BevGrid:
        """The BEV grid of the model."""
        bev = self.bev
        heights = (bev.z_min_m, bev.z_max_m)
        return BevGrid(self.range, bev.num_rows, bev.num_columns, bev.order, heights)

    @property
    def feature_stride(self) -> int:
        """Pixels of the network input per cell of the image features, along each side."""
        return 2 ** (min(self.backbone.out_stages) + 1)

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Height and width of the image features."""
        return (
            self.image.height_px // self.feature_stride,
            self.image.width_px // self.feature_stride,
        )


def config_path(kind: str, name_or_path: str) -> Path:
    """Find a configuration: a YAML path as given, else `config/<kind>/<name>.yaml`.

    Raises:
        ConfigError: neither exists; the message lists the known names.
    """
    given = Path(name_or_path)
    if given.suffix in ('.yaml', '.yml'):
        if given.is_file():
            return given
        raise ConfigError(
            f"configuration '{name_or_path}' does not exist; give an existing YAML file or a "
            'known name'
        )
    folder = resource_dir('config') / kind
    known = sorted(path.stem for path in folder.glob('*.yaml'))
    if name_or_path in known:
        return folder / f'{name_or_path}.yaml'
    raise ConfigError(
        f"configuration '{name_or_path}' is unknown; expected a YAML file or one of "
        f'{", ".join(known)}'
    )


def load_model_config(name_or_path: str) -> ModelConfig:
    """Read a model configuration by name (`maptr_tiny`) or path.

    Raises:
        ConfigError: not found, unknown key, wrong type or impossible value; the message names the
            file and the key.
    """
    return model_config_from_dict(
        read_model_values(name_or_path), str(config_path('models', name_or_path))
    )


def read_model_values(name_or_path: str) -> dict[str, Any]:
    """Read a model configuration's file, with its name and without the section `official`.

    A file with `extends: NAME` holds only what differs from that configuration.

    Raises:
        ConfigError: not found, no mapping, or files that extend each other.
    """
    path = config_path('models', name_or_path)
    return {'name': path.stem, **_extended(path, ())}


def _extended(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Return the values of a file laid over those of the file that it extends."""
    if path in seen:
        raise ConfigError(
            f"configuration '{path}' extends itself through "
            f'{", ".join(item.name for item in seen)}; remove one of the {EXTENDS_KEY!r} keys'
        )
    values = read_yaml(path)
    values.pop(OFFICIAL_SECTION, None)
    base = values.pop(EXTENDS_KEY, None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f'{path}.{EXTENDS_KEY}: {base!r}; expected the name of a configuration')
    beside = path.parent / base
    found = beside if beside.suffix in ('.yaml', '.yml') else config_path('models', base)
    return _merged(_extended(found, (*seen, path)), values)


def load_official_config(name_or_path: str) -> ModelConfig:
    """Read a model configuration as its published weights need it.

    The section `official` of the file overrides the rest of it: the published reference frame and
    cell order, and what the published models do that our own recipes do not (docs/weights.md).

    Raises:
        ConfigError: as `load_model_config`, or the file has no such section.
    """
    path = config_path('models', name_or_path)
    values = read_yaml(path)
    official = values.pop(OFFICIAL_SECTION, None)
    if not isinstance(official, dict):
        raise ConfigError(
            f"{path}: has no section '{OFFICIAL_SECTION}'; published weights are known for "
            f'{", ".join(_official_names())}'
        )
    values = _merged({'name': path.stem, **values}, official)
    return model_config_from_dict(values, f'{path} with {OFFICIAL_SECTION}')


def _official_names() -> list[str]:
    paths = sorted((resource_dir('config') / 'models').glob('*.yaml'))
    return [path.stem for path in paths if OFFICIAL_SECTION in read_yaml(path)]


def _merged(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return `values` with `overrides` laid over them; mappings are merged key by key."""
    merged = dict(values)
    for key, item in overrides.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(item, dict):
            item = _merged(old, item)
        merged[key] = item
    return merged


def model_config_from_dict(values: dict[str, Any], where: str) -> ModelConfig:
    """Build a model configuration from a plain mapping (YAML, or a checkpoint's metadata).

    Raises:
        ConfigError: unknown key, wrong type or impossible value; the message starts with `where`.
    """
    return build_dataclass(ModelConfig, values, where)
