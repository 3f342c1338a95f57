"""OnlineMapper: images and their geometry in, map elements of every decoder layer out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.images import FrameBatch
from gsmap_core.models.backbone import ImageEncoder
from gsmap_core.models.bev import build_view_transform
from gsmap_core.models.bev.lss import LssEncoder
from gsmap_core.models.decoder import MapDecoder
from gsmap_core.models.fusion import FusionState, TemporalFusion
from gsmap_core.models.heads import mask_head
from gsmap_core.models.instance_masks import InstanceMaskHead
from gsmap_core.models.official_only import OfficialOnly
from gsmap_core.models.outputs import Lifted, MapperOutput
from gsmap_core.models.residual import residual_blocks

_logger = logging.getLogger(__name__)

#: Entries of the published models' box code weights: a frozen parameter that nothing reads, kept
#: for their count.
NUM_CODE_WEIGHTS = 4


class OnlineMapper(nn.Module):
    """The network: image encoder, view transform, refinement, fusion over time, decoder.

    Args:
        config: the model.
        pretrained_backbone: torchvision-named tensors of the image backbone. With them the stages
            and normalisations
            named by `config.backbone` are frozen; without, nothing is frozen and normalisation
            trains.

    Raises:
        ConfigError: the configuration asks for parts that do not exist.
        CheckpointError: the pretrained tensors do not fit the backbone.
    """

    def __init__(
        self, config: ModelConfig, pretrained_backbone: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        dims = config.embed_dims
        self.image_encoder = ImageEncoder(config.backbone, dims)
        self.view_transform = build_view_transform(config)
        self.refine = residual_blocks(config.bev.num_refine_blocks, dims)
        self.fusion = TemporalFusion(config) if config.has_fusion else None
        self.decoder = MapDecoder(config)
        self.mask_head = mask_head(dims) if config.losses.bev_segmentation > 0 else None
        self.pv_mask_head = mask_head(dims) if config.losses.pv_segmentation > 0 else None
        self.instance_mask_head = (
            InstanceMaskHead(config) if config.losses.has_instance_masks else None
        )
        self.official_only = OfficialOnly(config) if config.official_only else None
        self.code_weights = nn.Parameter(torch.ones(NUM_CODE_WEIGHTS), requires_grad=False)
        if pretrained_backbone is not None:
            self.image_encoder.backbone.load_pretrained(pretrained_backbone)
            _logger.info(
                'backbone: pretrained weights loaded; %d stage(s) frozen, normalisation %s',
                config.backbone.num_frozen_stages,
                'frozen' if config.backbone.frozen_norm else 'trains',
            )
        else:
            _logger.info(
                'backbone: no pretrained weights given; nothing is frozen and normalisation trains'
            )

    def forward(
        self, batch: FrameBatch, state: Any = None, *, instance_masks: bool = False
    ) -> MapperOutput:
        """Predict the map elements of every sample.

        Args:
            batch: B camera sets, see `FrameBatch`.
            state: what the output of the frame before had as state: a `FusionState` with
                `config.fusion`, a map with `bev.history`; None for first frames, and always
                without either.
            instance_masks: predict them outside training too, where the model can.

        Returns:
            Predictions of all L decoder layers in unit coordinates of `config.grid`, see
            `MapperOutput`.

        Raises:
            DataError: the images have another size than the configuration, or a lidar-frame model
                got no
                `ego_from_reference`, or a model with fusion no `map_from_base`.
            ConfigError: a state was given to a model without temporal fusion.
        """
        features = self.encode(batch)
        return self.forward_features(features, batch, state, instance_masks=instance_masks)

    def encode(self, batch: FrameBatch) -> Tensor:
        """Return the image features (B, N, C, h, w).

        Raises:
            DataError: the images have another size than the configuration.
        """
        self._check(batch)
        features: Tensor = self.image_encoder(batch.images, batch.camera_mask)
        return features

    def forward_features(
        self,
        features: Tensor,
        batch: FrameBatch,
        state: Any = None,
        *,
        instance_masks: bool = False,
    ) -> MapperOutput:
        """Predict from image features; see `forward`.

        Args:
            features: (B, N, C, h, w) of the image encoder.
            batch: its geometry; the images are not looked at.
            state: as in `forward`.
            instance_masks: as in `forward`.
        """
        lifted = self.lift(features, batch, state)
        bev, new_state = self.fuse(lifted, batch, state)
        return self.decode(
            features, bev, lifted.depth_logits, new_state, instance_masks=instance_masks
        )

    def lift(self, features: Tensor, batch: FrameBatch, state: Any = None) -> Lifted:
        """Return what the frames give by themselves; only `bev.history` looks at the state."""
        bev, depth_logits = self._view(features, batch, state)
        history = bev.detach() if self.config.bev.history else None
        # The refined map is the frame's own last word, F_local: what the memory keeps and adds is
        # of the kind that the decoder reads, and no frame is refined twice.
        return Lifted(self.refine(bev), depth_logits, history)

    def fuse(self, lifted: Lifted, batch: FrameBatch, state: Any = None) -> tuple[Tensor, Any]:
        """Return the BEV map (B, C, H, W) that the decoder reads, and the next frames' state."""
        if self.fusion is None:
            return lifted.bev, lifted.history
        return self._fuse(self.fusion, lifted.bev, batch, state)

    def decode(
        self,
        features: Tensor,
        bev: Tensor,
        depth_logits: Tensor | None,
        state: Any = None,
        *,
        instance_masks: bool = False,
    ) -> MapperOutput:
        """Predict from the BEV map.

        Args:
            features: (B, N, C, h, w) of the image encoder; only the image masks look at them.
            bev: (B, C, H, W) of `fuse`.
            depth_logits: of `lift`, to be handed on.
            state: of `fuse`, to be handed on.
            instance_masks: as in `forward`.
        """
        decoded = self.decoder(bev)
        one = self.config.decoder.num_instances
        class_logits, points = decoded.class_logits, decoded.points
        one_to_many = many_gaussians = None
        gaussians = decoded.gaussians
        if class_logits.shape[2] > one:
            one_to_many = (class_logits[:, :, one:], points[:, :, one:])
            many_gaussians = None if gaussians is None else gaussians[:, :, one:]
        masks = many_masks = None
        if self.instance_mask_head is not None and (self.training or instance_masks):
            masks, many_masks = self._instance_masks(decoded.states, bev)
        return MapperOutput(
            class_logits=class_logits[:, :, :one],
            points=points[:, :, :one],
            bev=bev,
            bev_mask_logits=None if self.mask_head is None else self.mask_head(bev),
            pv_mask_logits=self._pv_mask(features),
            depth_logits=depth_logits,
            one_to_many=one_to_many,
            gaussians=None if gaussians is None else gaussians[:, :, :one],
            one_to_many_gaussians=many_gaussians,
            instance_masks=masks,
            one_to_many_instance_masks=many_masks,
            state=state,
        )

    def _view(
        self, features: Tensor, batch: FrameBatch, state: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Return the BEV map, and the depth logits where the view transform predicts depth."""
        if state is not None and self.fusion is None and not self.config.bev.history:
            raise ConfigError(
                f"model '{self.config.name}' has no temporal fusion and cannot take a state; "
                'pass None'
            )
        matrices = self.pixels_from_reference(batch)
        if isinstance(self.view_transform, LssEncoder):
            return self.view_transform(
                features,
                matrices,
                batch.camera_mask,
                batch.intrinsics,
                batch.base_from_cameras,
                batch.input_from_image,
            )
        inputs = (features, matrices, batch.camera_mask, batch.can_bus)
        if state is None or not self.config.bev.history:
            return self.view_transform(*inputs), None
        return self.view_transform(*inputs, history=state), None

    def _fuse(
        self, fusion: TemporalFusion, bev: Tensor, batch: FrameBatch, state: Any
    ) -> tuple[Tensor, FusionState]:
        """Return the BEV map fused with those before it, and what to remember."""
        if batch.map_from_base is None:
            raise DataError(
                f"model '{self.config.name}' fuses BEV maps over time (fusion.kind "
                f"'{self.config.fusion.kind}') and the batch has no map_from_base; give the ego "
                'pose of every frame'
            )
        reference = None if self.config.reference == 'ego' else batch.ego_from_reference
        fused: tuple[Tensor, FusionState] = fusion(bev, batch.map_from_base, reference, state)
        return fused

    def _instance_masks(self, states: Tensor, bev: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the masks of the one-to-one and, where wanted, of the one-to-many queries."""
        assert self.instance_mask_head is not None
        one = self.config.decoder.num_instances
        if not self.config.losses.instance_mask_options.one_to_many:
            return self.instance_mask_head(states[:, :, :one], bev), None
        masks = self.instance_mask_head(states, bev)
        return masks[:, :, :one], masks[:, :, one:] if masks.shape[2] > one else None

    def _pv_mask(self, features: Tensor) -> Tensor | None:
        """Return the mask logits of every image; only training looks at them."""
        if self.pv_mask_head is None:
            return None
        return self.pv_mask_head(features.flatten(0, 1)).unflatten(0, features.shape[:2])

    def _check(self, batch: FrameBatch) -> None:
        image = self.config.image
        if tuple(batch.images.shape[-2:]) != (image.height_px, image.width_px):
            raise DataError(
                f'images are {batch.images.shape[-1]} x {batch.images.shape[-2]} px; model '
                f"'{self.config.name}' takes {image.width_px} x {image.height_px} px "
                '(make_frame_batch with its ImageConfig)'
            )

    def pixels_from_reference(self, batch: FrameBatch) -> Tensor:
        """Return (B, N, 4, 4) float32 from the model's reference frame to pixels.

        This is the one place where a model in the lidar frame meets batches in the ego frame.
        """
        if self.config.reference == 'ego':
            return batch.pixels_from_ego
        if batch.ego_from_reference is None:
            raise DataError(
                f"model '{self.config.name}' predicts in the {self.config.reference} frame and "
                'the batch has no '
                'ego_from_reference; give the extrinsics of that frame'
            )
        with torch.autocast(batch.images.device.type, enabled=False):
            return batch.pixels_from_ego @ batch.ego_from_reference[:, None]


def parameter_report(config: ModelConfig) -> dict[str, int]:
    """Count the parameters of a configuration without allocating them.

    Returns:
        `total_parameters`, and `trainable_parameters` of the published recipe: with a pretrained
        backbone, whose frozen stages and normalisations (`config.backbone`) do not count. Both
        include `official_only_parameters` (`config.official_only`), which nothing uses;
        `used_parameters` is the total without them.
    """
    with torch.device('meta'):
        model = OnlineMapper(config)
    model.image_encoder.backbone.freeze()
    counts = count_parameters(model)
    spare = 0 if model.official_only is None else count_parameters(model.official_only)['total']
    return {
        'total_parameters': counts['total'],
        'trainable_parameters': counts['trainable'],
        'official_only_parameters': spare,
        'used_parameters': counts['total'] - spare,
    }


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Return `total` and `trainable` (with gradient) parameters of a model as it is now."""
    sizes = [(item.numel(), item.requires_grad) for item in model.parameters()]
    return {
        'total': sum(size for size, _ in sizes),
        'trainable': sum(size for size, trains in sizes if trains),
    }
