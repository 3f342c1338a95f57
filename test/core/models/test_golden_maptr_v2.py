"""The small MapTRv2 head against numbers of the published network (golden/maptr/README.md)."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_maptr import assert_close, load_published, targets_of
from safetensors.torch import load_file
from torch import nn

from gsmap_core.config import (
    BackboneConfig,
    BevConfig,
    DecoderConfig,
    ImageConfig,
    LossConfig,
    LssConfig,
    ModelConfig,
)
from gsmap_core.image_targets import depth_bins
from gsmap_core.images import FrameBatch
from gsmap_core.losses.criterion import Criterion
from gsmap_core.losses.matching import match
from gsmap_core.models.import_official import own_name
from gsmap_core.models.mapper import OnlineMapper, count_parameters
from gsmap_core.models.outputs import MapperOutput
from gsmap_core.models.postprocess import to_vector_maps, top_predictions
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap
from gsmap_core.targets import MapTargets, TargetCameras, make_targets

pytestmark = pytest.mark.golden


def config_of(values: dict) -> ModelConfig:
    """Translate a golden configuration file into ours."""
    x_min, y_min, z_min, x_max, y_max, z_max = values['pc_range']
    first, end, step = values['dbound']
    cross, loss = values['decoder_cross_attn'], values['loss']
    stride = values['image_hw'][0] // values['feature_hw'][0]
    return ModelConfig(
        name='golden_v2',
        categories=tuple(values['classes']),
        reference='lidar',
        range=PerceptionRange(x_min, x_max, y_min, y_max),
        num_cameras=len(values['cameras']),
        embed_dims=values['embed_dims'],
        image=ImageConfig(width_px=values['image_hw'][1], height_px=values['image_hw'][0]),
        # Nothing of it is recorded; only its stride counts.
        backbone=BackboneConfig(
            block='basic',
            num_blocks=(1, 1, 1, 1),
            base_width=8,
            out_stages=(stride.bit_length() - 2,),
        ),
        bev=BevConfig(
            view_transform='lss',
            num_rows=values['bev_h'],
            num_columns=values['bev_w'],
            order='official',
            z_min_m=z_min,
            z_max_m=z_max,
            lss=LssConfig(
                depth_min_m=first,
                depth_max_m=end,
                depth_step_m=step,
                voxels_per_cell=values['lss']['downsample'],
                hidden_dims=values['embed_dims'],
                pyramid_dims=values['lss']['aspp_mid_channels'],
            ),
        ),
        decoder=DecoderConfig(
            num_layers=values['decoder_layers'],
            num_instances=values['num_vec_one2one'],
            num_points=values['num_pts_per_vec'],
            num_heads=cross['num_heads'],
            num_sampling_points=cross['num_points'],
            ffn_dims=values['ffn_dims'],
            self_attention='decoupled',
            num_one_to_many=values['num_vec_one2many'],
            one_to_many_copies=values['k_one2many'],
        ),
        losses=LossConfig(
            classification=loss['cls']['weight'],
            points=loss['pts_l1_weight'],
            direction=loss['dir_cos_weight'],
            bev_segmentation=loss['bev_seg']['weight'],
            pv_segmentation=loss['pv_seg']['weight'],
            depth=loss['depth_weight'],
            one_to_many=values['lambda_one2many'],
        ),
        official_only=True,
    )


def record(modules: dict[str, nn.Module]) -> dict[str, Any]:
    """Return a table that every forward pass fills with the modules' results."""
    table: dict[str, Any] = {}
    for name, module in modules.items():

        def keep(_module, _args, result, name=name):  # type: ignore[no-untyped-def]
            table[name] = result

        module.register_forward_hook(keep)
    return table


class Golden:
    """Model, inputs, recorded activations and expected numbers."""

    def __init__(self, folder: Path) -> None:
        self.values = json.loads((folder / 'v2_config.json').read_text())
        self.config = config = config_of(self.values)
        inputs = load_file(folder / 'v2_inputs.safetensors')
        self.features = inputs['img_feats']
        self.model = OnlineMapper(config).eval()
        self.published = load_file(folder / 'v2_state_dict.safetensors')
        load_published(self.model, self.published)
        self.expected = load_file(folder / 'v2_outputs.safetensors')
        self.intermediates = load_file(folder / 'v2_intermediates.safetensors')
        self.targets = load_file(folder / 'v2_targets.safetensors')
        resize = inputs['img_aug_matrix']
        matrices = resize @ inputs['camera_intrinsics']
        cameras = inputs['camera2ego']
        batch, count = cameras.shape[:2]
        self.inputs = inputs
        self.batch = FrameBatch(
            images=torch.zeros(batch, count, 3, *self.values['image_hw']),
            # As published, the motion of the vehicle between the sensors' stamps is left out.
            pixels_from_ego=(matrices @ torch.linalg.inv(cameras)).float(),
            base_from_cameras=cameras.float(),
            intrinsics=matrices[..., :3, :3].float(),
            camera_mask=torch.ones(batch, count, dtype=torch.bool),
            input_from_image=resize[..., :3, :3].float(),
            ego_from_reference=inputs['lidar2ego'].float(),
        )
        seen = record(self._modules())
        with torch.inference_mode():
            self.output = self.run(self.model)
            self.infer = dict(seen)
            # The training-time query set, with everything else as in inference.
            self.model.decoder.training = True
            self.train_output = self.run(self.model)
            self.train = dict(seen)
            self.model.decoder.training = False

    def run(self, model: OnlineMapper) -> MapperOutput:
        return model.forward_features(self.features, self.batch)

    def _modules(self) -> dict[str, nn.Module]:
        view, layer = self.model.view_transform, self.model.decoder.layers[0]
        return {
            'lss.mlp_input_bn': view.depth_net.camera_norm,
            'lss.aspp': view.depth_net.depth_pyramid,
            'lss.reduce_norm': view.depth_net.reduce_norm,
            'lss.depth_net': view.depth_net,
            'decoder.0.self_attn_inter_instance': layer.self_attention.between_instances,
            'decoder.0.norm0': layer.self_attention.norm1,
            'decoder.0.self_attn_intra_instance': layer.self_attention.within_instance,
            'decoder.0.norm1': layer.self_attention.norm2,
            'decoder.0.cross_attn': layer.cross_attention,
            'decoder.0.norm2': layer.norm1,
            'decoder.0.ffn': layer.ffn,
            'decoder.0.norm3': layer.norm2,
            'decoder': self.model.decoder,
        }


@pytest.fixture(scope='module')
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.getfixturevalue('golden_dir') / 'maptr')


def test_every_published_tensor_has_its_place(golden: Golden) -> None:
    mapped = {own_name(name, golden.config) for name in golden.published}
    own = {name for name in golden.model.state_dict() if not name.startswith('image_encoder.')}
    assert mapped == own and len(mapped) == golden.values['state_dict_keys']
    total = count_parameters(golden.model)['total']
    total -= count_parameters(golden.model.image_encoder)['total']
    assert total == golden.values['head_parameters']


def test_constants_follow_from_the_configuration(golden: Golden) -> None:
    """Voxel sizes, first centres, counts: a model without their file has the same."""
    fresh = OnlineMapper(golden.config).view_transform
    for ours, theirs in (('voxel_size', 'dx'), ('first_voxel', 'bx'), ('num_voxels', 'nx')):
        expected = golden.published[f'pts_bbox_head.transformer.encoder.{theirs}']
        torch.testing.assert_close(getattr(fresh, ours), expected, rtol=1e-6, atol=1e-6)


def test_depth_network(golden: Golden) -> None:
    seen, expected = golden.infer, golden.intermediates
    assert_close(seen['lss.mlp_input_bn'], expected['infer.lss.mlp_input_bn'], 'camera vector')
    assert_close(seen['lss.reduce_norm'].relu(), expected['infer.lss.reduce_conv'], 'reduce')
    assert_close(seen['lss.aspp'], expected['infer.lss.aspp'], 'aspp')
    both = torch.cat(seen['lss.depth_net'], dim=1)
    assert_close(both, expected['infer.lss.depth_net'], 'depth_net')
    probability = golden.output.depth_logits.softmax(2)
    assert_close(probability, golden.expected['infer.depth'], 'depth')


def test_frustum_and_voxels(golden: Golden) -> None:
    """Every fourth depth bin; the pooled grid is recorded with x first."""
    view, batch = golden.model.view_transform, golden.batch
    matrices = (batch.pixels_from_ego @ batch.ego_from_reference[:, None]).flatten(0, 1)
    points = view.frustum_points(matrices)
    expected = golden.intermediates['infer.lss.geometry_xyz']
    samples, cameras = expected.shape[:2]
    every = points.unflatten(0, (samples, cameras))[:, :, ::4]
    torch.testing.assert_close(every, expected.reshape(every.shape), rtol=0, atol=1e-3)


def test_pooled_voxels(golden: Golden) -> None:
    pooled: list[torch.Tensor] = []
    handle = golden.model.view_transform.down_sampler.register_forward_pre_hook(
        lambda _module, args: pooled.append(args[0])
    )
    with torch.inference_mode():
        golden.run(golden.model)
    handle.remove()
    expected = golden.intermediates['infer.lss.bev_pool']
    assert_close(pooled[0][: len(expected)], expected.transpose(2, 3), 'bev_pool')


def test_decoder_layer(golden: Golden) -> None:
    """The first layer step by step; layouts differ in the order of points, instances, samples."""
    samples, points = len(golden.batch), golden.values['num_pts_per_vec']
    seen, expected = golden.infer, golden.intermediates
    for prefix, table in (('infer', seen), ('train', golden.train)):
        inter = table['decoder.0.self_attn_inter_instance']  # (B * P, M, C)
        inter = inter.unflatten(0, (samples, points)).permute(2, 1, 0, 3).flatten(1, 2)
        name = f'{prefix}.decoder.0.self_attn_inter_instance'
        assert_close(inter, expected[name], name)
        intra = table['decoder.0.self_attn_intra_instance']  # (B * M, P, C)
        intra = intra.unflatten(0, (samples, -1)).permute(2, 1, 0, 3).flatten(1, 2)
        name = f'{prefix}.decoder.0.self_attn_intra_instance'
        assert_close(intra, expected[name], name)
    for step in ('norm1', 'cross_attn', 'norm2', 'ffn', 'norm3'):
        recorded = expected[f'infer.decoder.0.{step}']  # (Q, B, C)
        actual = seen[f'decoder.0.{step}'].reshape(samples, -1, recorded.shape[-1])
        assert_close(actual.transpose(0, 1), recorded, step)
    recorded = expected['infer.decoder.out.states']
    states = seen['decoder'].states.flatten(2, 3).transpose(1, 2)
    assert_close(states, recorded, 'states')
    reference = seen['decoder'].points.flatten(2, 3)
    assert_close(reference, expected['infer.decoder.out.reference_points'], 'reference points')


def test_outputs(golden: Golden) -> None:
    """Inference: the first queries. Training: all of them, and neither group sees the other."""
    output, expected = golden.output, golden.expected
    assert_close(output.bev.flatten(2).permute(2, 0, 1), expected['infer.bev_embed'], 'bev_embed')
    assert_close(output.bev_mask_logits, expected['infer.seg'], 'seg')
    assert_close(output.pv_mask_logits, expected['infer.pv_seg'], 'pv_seg')
    assert output.one_to_many is None
    for prefix, logits, points in (
        ('infer', output.class_logits, output.points),
        ('train', golden.train_output.class_logits, golden.train_output.points),
        ('train.one2many', *golden.train_output.one_to_many),
    ):
        assert_close(logits, expected[f'{prefix}.all_cls_scores'], f'{prefix} logits')
        assert_close(points, expected[f'{prefix}.all_pts_preds'], f'{prefix} points')
        low, high = points.min(3).values, points.max(3).values
        boxes = torch.cat([(low + high) / 2, high - low], dim=-1)
        assert_close(boxes, expected[f'{prefix}.all_bbox_preds'], f'{prefix} boxes')


def test_decoded_elements(golden: Golden) -> None:
    count = golden.values['coder']['max_num']
    scores, _, labels = top_predictions(golden.output.class_logits[-1], count)
    maps = to_vector_maps(golden.output, golden.config, max_elements=count, closing_distance_m=0.0)
    for sample, vector_map in enumerate(maps):
        expected = {
            key: golden.expected[f'infer.decoded.{sample}.{key}']
            for key in ('scores', 'labels', 'pts')
        }
        assert torch.equal(labels[sample], expected['labels'])
        assert_close(scores[sample], expected['scores'], 'scores')
        points = np.stack([item.vertices for item in vector_map.elements])
        # Metres: 60 m times the tolerance on unit coordinates.
        np.testing.assert_allclose(points, expected['pts'].numpy(), rtol=0, atol=6e-3)


def published_targets(golden: Golden) -> list[MapTargets]:
    values = golden.targets
    return [
        replace(
            targets_of(values, sample, golden.config.grid),
            bev_mask=values[f'gt.{sample}.bev_mask'],
            pv_mask=values[f'gt.{sample}.pv_mask'].to(torch.int8),
            depth_bins=values['gt.depth_bin'][sample],
        )
        for sample in range(len(golden.batch))
    ]


def test_targets(golden: Golden) -> None:
    """Orders, points and masks from the vertices, depth bins from the sparse depth maps."""
    index, depths = golden.inputs['gt_depth.index'].numpy(), golden.inputs['gt_depth.value']
    for sample, expected in enumerate(published_targets(golden)):
        values = {
            key: golden.targets[f'gt.{sample}.{key}']
            for key in ('labels', 'vertices', 'num_vertices')
        }
        elements = []
        for label, vertices, count in zip(*values.values(), strict=True):
            line = vertices[: int(count)].numpy()
            closed = bool((line[0] == line[-1]).all())
            elements.append(MapElement(int(label), line[:-1] if closed else line, closed))
        own = index[:, 0] == sample
        num_cameras = len(golden.values['cameras'])
        bins = depth_bins(
            index[own, 1:].astype(np.int64),
            depths[own].double().numpy(),
            num_cameras,
            golden.config,
        )
        cameras = TargetCameras(
            golden.inputs['lidar2img'][sample].numpy(), np.ones(num_cameras, dtype=bool), bins
        )
        vector_map = VectorMap(tuple(elements), reference='lidar')
        targets = make_targets(vector_map, golden.config, cameras=cameras)
        for name in ('labels', 'num_orders', 'bev_mask', 'pv_mask', 'depth_bins'):
            assert torch.equal(getattr(targets, name), getattr(expected, name)), name
        assert_close(targets.points, expected.points, 'points')
        for mine, theirs, count in zip(
            targets.orders, expected.orders, targets.num_orders, strict=True
        ):
            assert_close(mine[: int(count)], theirs[: int(count)], 'orders')
        assert expected.pv_mask.any() and (expected.depth_bins >= 0).any()


def test_assignments(golden: Golden) -> None:
    """Elements and orders of every query, layer and sample, of both groups."""
    targets, output = published_targets(golden), golden.train_output
    groups = (
        ('one2one', output.class_logits, output.points, 1),
        ('one2many', *output.one_to_many, golden.values['k_one2many']),
    )
    for group, logits, points, copies in groups:
        pairs = match(logits, points, targets, golden.config.matching, copies)
        elements = torch.full(logits.shape[:3], -1)
        orders = elements.clone()
        place = (pairs.layer, pairs.sample, pairs.query)
        elements[place], orders[place] = pairs.element, pairs.order
        for layer in range(len(logits)):
            for sample in range(len(targets)):
                name = f'assign.{group}.layer{layer}.sample{sample}.'
                assert torch.equal(elements[layer, sample], golden.targets[name + 'gt_index'])
                assert torch.equal(orders[layer, sample], golden.targets[name + 'order_index'])


def test_losses_and_gradients(golden: Golden, golden_dir: Path) -> None:
    """Losses to 1e-5 and gradient norms to 1e-3, relative; also of the image features."""
    folder = golden_dir / 'maptr'
    model = copy.deepcopy(golden.model)
    model.decoder.training = True
    features = golden.features.clone().requires_grad_()
    output = model.forward_features(features, golden.batch)
    losses = Criterion(golden.config)(output, published_targets(golden))
    expected = json.loads((folder / 'v2_losses.json').read_text())
    total = torch.stack(list(losses.values())).sum()
    assert total.item() == pytest.approx(expected['total'], rel=1e-5)
    names = {
        'bev_segmentation': 'loss_seg',
        'pv_segmentation': 'loss_pv_seg',
        'depth': 'loss_depth',
    }
    earlier = [f'd{layer}.' for layer in range(golden.values['decoder_layers'] - 1)]
    for ours, theirs in (('classification', 'cls'), ('points', 'pts'), ('direction', 'dir')):
        for prefix in ('', *earlier):
            names[f'{prefix}{ours}'] = f'{prefix}loss_{theirs}'
            names[f'{prefix}{ours}_one_to_many'] = f'{prefix}loss_{theirs}_one2many'
    assert set(names) == set(losses)
    for ours, theirs in names.items():
        assert losses[ours].item() == pytest.approx(expected['losses'][theirs], rel=1e-5), ours
    total.backward()
    recorded = json.loads((folder / 'v2_grads.json').read_text())
    assert features.grad is not None
    assert features.grad.norm().item() == pytest.approx(recorded['img_feats']['l2'], rel=1e-3)
    parameters = {
        name: value
        for name, value in model.named_parameters()
        if not name.startswith('image_encoder.')
    }
    silent = {own_name(name, golden.config) for name in recorded['without_gradient']}
    assert silent == {name for name, value in parameters.items() if value.grad is None}
    for name, numbers in recorded['parameters'].items():
        own = own_name(name, golden.config)
        assert own is not None
        gradient = parameters[own].grad
        assert gradient.norm().item() == pytest.approx(numbers['l2'], rel=1e-3, abs=1e-9), own
        assert gradient.abs().max().item() == pytest.approx(
            numbers['absmax'], rel=1e-2, abs=1e-9
        ), own
