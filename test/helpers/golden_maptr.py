"""The small MapTR models of golden/maptr: configuration, model, inputs, recorded activations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gsmap_core.config import (
    BackboneConfig,
    BevConfig,
    DecoderConfig,
    ImageConfig,
    ModelConfig,
)
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.images import FrameBatch, normalise
from gsmap_core.models.import_official import own_name
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.models.outputs import MapperOutput
from gsmap_core.structures import PerceptionRange
from gsmap_core.targets import MapTargets

#: Absolute, on features, predictions and logits (README: tolerance).
TOLERANCE = 1e-4


def assert_close(actual: Tensor, expected: Tensor, name: str) -> None:
    """Compare shapes, and values with the absolute tolerance."""
    assert actual.shape == expected.shape, name
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=TOLERANCE, msg=lambda text: f'{name}: {text}'
    )


def config_of(values: dict[str, Any]) -> ModelConfig:
    """Translate a golden configuration file of an attention encoder into ours."""
    x_min, y_min, z_min, x_max, y_max, z_max = values['pc_range']
    kernel, deformable = values['gkt'], values['msda3d']
    rows, columns = (3, 5) if kernel is None else kernel['kernel_hw']
    cross = values['decoder_cross_attn']
    bev = BevConfig(
        view_transform='bevformer' if kernel is None else 'gkt',
        num_rows=values['bev_h'],
        num_columns=values['bev_w'],
        order='official',
        z_min_m=z_min,
        z_max_m=z_max,
        num_layers=values['encoder_layers'],
        num_heights=values['num_points_in_pillar'],
        kernel_rows=rows,
        kernel_columns=columns,
        num_heads=8 if deformable is None else deformable['num_heads'],
        num_sampling_points=8 if deformable is None else deformable['num_points'],
        can_bus=True,
        history=True,
        history_centre_px=tuple(values['rotate_center']),
    )
    return ModelConfig(
        name=f'golden_{values["variant"]}',
        categories=tuple(values['classes']),
        reference='lidar',
        range=PerceptionRange(x_min, x_max, y_min, y_max),
        num_cameras=len(values['cameras']),
        embed_dims=values['embed_dims'],
        image=ImageConfig(width_px=values['image_hw'][1], height_px=values['image_hw'][0]),
        backbone=BackboneConfig(
            base_width=values['resnet']['base_channels'],
            out_stages=tuple(index + 1 for index in values['resnet']['out_indices']),
        ),
        bev=bev,
        decoder=DecoderConfig(
            num_layers=values['decoder_layers'],
            num_instances=values['num_vec'],
            num_points=values['num_pts_per_vec'],
            num_heads=cross['num_heads'],
            num_sampling_points=cross['num_points'],
            ffn_dims=values['ffn_dims'],
        ),
    )


def batch_of(inputs: dict[str, Tensor], image: ImageConfig) -> FrameBatch:
    """Return the recorded inputs; black images where the recording starts from features."""
    matrices = inputs['lidar2img'].float()
    batch, cameras = matrices.shape[:2]
    images = torch.zeros(batch, cameras, 3, image.height_px, image.width_px)
    if 'img_rgb_uint8' in inputs:
        images = normalise(inputs['img_rgb_uint8'].movedim(2, -1).numpy(), image)
    return FrameBatch(
        images=images,
        # The golden matrices start in the lidar frame, so that frame plays the ego frame.
        pixels_from_ego=matrices,
        base_from_cameras=torch.eye(4).expand(batch, cameras, 4, 4),
        intrinsics=torch.eye(3).expand(batch, cameras, 3, 3),
        camera_mask=torch.ones(batch, cameras, dtype=torch.bool),
        can_bus=inputs['can_bus'].float(),
        ego_from_reference=torch.eye(4).expand(batch, 4, 4),
    )


def load_published(model: OnlineMapper, tensors: dict[str, Tensor]) -> None:
    """Fill a model with published tensors; a part that was not recorded keeps its numbers."""
    renamed = {own_name(name, model.config): value for name, value in tensors.items()}
    result = model.load_state_dict(renamed, strict=False)
    assert not result.unexpected_keys
    parts = {name.split('.')[0] for name in renamed if name is not None}
    assert all(name.split('.')[0] not in parts for name in result.missing_keys)


def targets_of(values: dict[str, Tensor], sample: int, grid: BevGrid) -> MapTargets:
    """Return the recorded ground truth of one sample, with the orders of pattern v2."""
    gt = {
        key: values[f'gt.{sample}.{key}']
        for key in ('labels', 'pts', 'orders_v2', 'num_orders_v2')
    }
    orders = gt['orders_v2'].clone()
    for row, count in zip(orders, gt['num_orders_v2'], strict=True):
        row[int(count) :] = row[0]
    return MapTargets(
        labels=gt['labels'],
        points=torch.from_numpy(grid.metres_to_unit(gt['pts'].numpy())).float(),
        orders=torch.from_numpy(grid.metres_to_unit(orders.numpy())).float(),
        num_orders=gt['num_orders_v2'],
        bev_mask=torch.zeros(1, grid.num_rows, grid.num_columns, dtype=torch.uint8),
    )


class Golden:
    """One small model with an attention encoder, run on its recorded inputs.

    Args:
        folder: golden/maptr.
        variant: `gkt` (from images) or `bevformer` (from features).
    """

    def __init__(self, folder: Path, variant: str) -> None:
        self.folder, self.variant = folder, variant
        self.values = json.loads((folder / f'{variant}_config.json').read_text())
        self.config = config_of(self.values)
        self.model = OnlineMapper(self.config).eval()
        load_published(self.model, self.tensors('state_dict'))
        self.expected = self.tensors('outputs')
        self.intermediates = self.tensors('intermediates')
        inputs = self.tensors('inputs')
        self.batch = batch_of(inputs, self.config.image)
        self.features = inputs.get('img_feats')
        self.activations: dict[str, Any] = {}
        hooks = self._hook()
        with torch.inference_mode():
            self.output = self.run(self.model)
        for hook in hooks:
            hook.remove()

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Read one of the variant's tensor files."""
        return load_file(self.folder / f'{self.variant}_{part}.safetensors')

    def numbers(self, part: str) -> dict[str, Any]:
        """Read one of the variant's JSON files."""
        return json.loads((self.folder / f'{self.variant}_{part}.json').read_text())

    def run(self, model: OnlineMapper) -> MapperOutput:
        """Run a model on the whole recorded batch."""
        if self.features is None:
            return model(self.batch)
        return model.forward_features(self.features, self.batch)

    def _hook(self) -> list[RemovableHandle]:
        encoder, view, decoder = (
            self.model.image_encoder,
            self.model.view_transform,
            self.model.decoder,
        )
        modules: dict[str, nn.Module] = {'neck.0': encoder.neck, 'decoder.out': decoder}
        for index in range(1, 5):
            modules[f'backbone.layer{index}'] = getattr(encoder.backbone, f'layer{index}')
        for index, layer in enumerate(view.layers):
            modules |= {
                f'encoder.{index}.temporal_self_attn': layer.self_attention,
                f'encoder.{index}.norm0': layer.norm1,
                f'encoder.{index}.spatial_cross_attn': layer.cross_attention,
                f'encoder.{index}.norm1': layer.norm2,
                f'encoder.{index}.ffn': layer.ffn,
                f'encoder.{index}.norm2': layer.norm3,
            }
        for index, layer in enumerate(decoder.layers):
            modules |= {
                f'decoder.{index}.self_attn': layer.self_attention.attention,
                f'decoder.{index}.norm0': layer.self_attention.norm,
                f'decoder.{index}.cross_attn': layer.cross_attention,
                f'decoder.{index}.norm1': layer.norm1,
                f'decoder.{index}.ffn': layer.ffn,
                f'decoder.{index}.norm2': layer.norm2,
            }
        hooks = []
        for name, module in modules.items():

            def keep(_module, _args, result, name=name):  # type: ignore[no-untyped-def]
                self.activations[name] = result

            hooks.append(module.register_forward_hook(keep))
        # Inputs of a module: of the first layers, and what the camera mean is before it is
        # projected.
        inputs = {'encoder.in': view.layers[0], 'decoder.in': decoder.layers[0]}
        for index, layer in enumerate(view.layers):
            name = f'encoder.{index}.spatial_cross_attn.camera_mean'
            inputs[name] = layer.cross_attention.output_proj
        for name, module in inputs.items():

            def keep_inputs(_module, args, name=name):  # type: ignore[no-untyped-def]
                self.activations[name] = args

            hooks.append(module.register_forward_pre_hook(keep_inputs))
        return hooks
