"""Typed configuration: one dataclass per part, read strictly from YAML (`config/models`).

Defaults exist once, here; a YAML file overrides them. Unknown keys, wrong types and impossible
values are refused with the file, the key and what was expected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gsmap_core.categories import PAPER_CATEGORIES, category_by_name
from gsmap_core.errors import ConfigError
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.loss_configs import AlignmentConfig as AlignmentConfig
from gsmap_core.loss_configs import FocalKind as FocalKind
from gsmap_core.loss_configs import InstanceMaskConfig as InstanceMaskConfig
from gsmap_core.loss_configs import LossConfig as LossConfig
from gsmap_core.loss_configs import MatchingConfig as MatchingConfig
from gsmap_core.loss_configs import OrderPattern as OrderPattern
from gsmap_core.loss_configs import RasterLossConfig as RasterLossConfig
from gsmap_core.part_configs import BackboneConfig as BackboneConfig
from gsmap_core.part_configs import BevConfig as BevConfig
from gsmap_core.part_configs import DecoderConfig as DecoderConfig
from gsmap_core.part_configs import FusionConfig as FusionConfig
from gsmap_core.part_configs import GaussianConfig as GaussianConfig
from gsmap_core.part_configs import ImageConfig as ImageConfig
from gsmap_core.part_configs import LssConfig as LssConfig
from gsmap_core.part_configs import PoseConfig as PoseConfig
from gsmap_core.part_configs import RelationConfig as RelationConfig
from gsmap_core.plain_config import build_dataclass as build_dataclass
from gsmap_core.plain_config import read_yaml as read_yaml
from gsmap_core.plain_config import to_plain as to_plain
from gsmap_core.resources import resource_dir
from gsmap_core.structures import PerceptionRange

#: Section of a model configuration that only published weights need.
OFFICIAL_SECTION = 'official'
#: Key of a model's file that names the configuration it differs from.
EXTENDS_KEY = 'extends'


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
        fusion: of BEV maps over time.
        decoder: queries, layers, heads.
        representation: a vertex is a point, or the centre of a 2D Gaussian (GSMap).
        gaussians: the Gaussians, with `representation: gaussians`.
        matching: cost weights.
        losses: loss weights.
        alignment: geometry-aware scores, for the losses and costs that ask for them.
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
    fusion: FusionConfig = field(default_factory=FusionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    representation: Literal['points', 'gaussians'] = 'points'
    gaussians: GaussianConfig = field(default_factory=GaussianConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
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
        if self.has_fusion and self.bev.history:
            raise ConfigError(
                f"fusion.kind is '{self.fusion.kind}' and bev.history is true; expected one way "
                'to carry BEV maps over time'
            )
        self._check_instance_masks()
        if self.official_only and (self.bev.view_transform != 'lss' or not self.num_cameras):
            raise ConfigError(
                f"official_only with bev.view_transform '{self.bev.view_transform}' and "
                f"num_cameras {self.num_cameras}; expected 'lss' and the published number"
            )

    def _check_instance_masks(self) -> None:
        """Refuse a cost of masks that nothing trains, and masks that do not fit the grid."""
        weights = self.matching
        if weights.has_instance_masks and not self.losses.has_instance_masks:
            raise ConfigError(
                f'matching.instance_mask is {weights.instance_mask} and matching.instance_dice '
                f'{weights.instance_dice}, but no loss trains the masks; give '
                'losses.instance_mask or losses.instance_dice a weight, or set both to 0'
            )
        stride, bev = self.losses.instance_mask_options.stride, self.bev
        if self.losses.has_instance_masks and (bev.num_rows % stride or bev.num_columns % stride):
            raise ConfigError(
                f'losses.instance_mask_options.stride {stride} does not divide the BEV grid of '
                f'{bev.num_rows} x {bev.num_columns} cells; expected a divisor of both'
            )

    @property
    def has_fusion(self) -> bool:
        """Whether BEV maps are fused over time, which takes the ego pose of every frame."""
        return self.fusion.kind != 'none'

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
    return read_extended('models', name_or_path)


def read_extended(kind: str, name_or_path: str) -> dict[str, Any]:
    """Read a configuration's file, with its name, laid over the one that it `extends`.

    Args:
        kind: folder of config.
        name_or_path: of the file.

    Raises:
        ConfigError: not found, no mapping, or files that extend each other.
    """
    path = config_path(kind, name_or_path)
    return {'name': path.stem, **_extended(kind, path, ())}


def _extended(kind: str, path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
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
    found = beside if beside.suffix in ('.yaml', '.yml') else config_path(kind, base)
    return _merged(_extended(kind, found, (*seen, path)), values)


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
