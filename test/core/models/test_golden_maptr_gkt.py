"""The whole small GKT model against numbers of the published network (golden/maptr/README.md)."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gsmap_core.config import (
    BackboneConfig,
    BevConfig,
    DecoderConfig,
    ImageConfig,
    ModelConfig,
)
from gsmap_core.images import FrameBatch, normalise
from gsmap_core.losses.criterion import Criterion
from gsmap_core.models.import_official import convert_official, own_name
from gsmap_core.models.mapper import OnlineMapper, count_parameters
from gsmap_core.models.outputs import MapperOutput
from gsmap_core.models.postprocess import to_vector_maps, top_predictions
from gsmap_core.structures import PerceptionRange
from gsmap_core.targets import MapTargets

pytestmark = pytest.mark.golden

TOLERANCE = 1e-4


def config_of(values: dict) -> ModelConfig:
    """Translate a golden configuration file into ours."""
    x_min, y_min, z_min, x_max, y_max, z_max = values['pc_range']
    rows, columns = values['gkt']['kernel_hw']
    cross = values['decoder_cross_attn']
    return ModelConfig(
        name='golden_gkt',
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
        bev=BevConfig(
            num_rows=values['bev_h'],
            num_columns=values['bev_w'],
            order='official',
            z_min_m=z_min,
            z_max_m=z_max,
            num_layers=values['encoder_layers'],
            num_heights=values['num_points_in_pillar'],
            kernel_rows=rows,
            kernel_columns=columns,
            can_bus=True,
        ),
        decoder=DecoderConfig(
            num_layers=values['decoder_layers'],
            num_instances=values['num_vec'],
            num_points=values['num_pts_per_vec'],
            num_heads=cross['num_heads'],
            num_sampling_points=cross['num_points'],
            ffn_dims=values['ffn_dims'],
        ),
    )


class Golden:
    """Model, inputs, recorded activations and expected numbers."""

    def __init__(self, folder: Path) -> None:
        self.values = json.loads((folder / 'gkt_config.json').read_text())
        self.config = config_of(self.values)
        self.model = OnlineMapper(self.config)
        state = load_file(folder / 'gkt_state_dict.safetensors')
        self.model.load_state_dict(convert_official(state, self.config))
        self.model.eval()
        self.expected = load_file(folder / 'gkt_outputs.safetensors')
        self.intermediates = load_file(folder / 'gkt_intermediates.safetensors')
        inputs = load_file(folder / 'gkt_inputs.safetensors')
        pictures = inputs['img_rgb_uint8'].movedim(2, -1).numpy()
        matrices = inputs['lidar2img'].float()
        batch, cameras = matrices.shape[:2]
        self.batch = FrameBatch(
            images=normalise(pictures, self.config.image),
            # The golden matrices start in the lidar frame, so that frame plays the ego frame.
            pixels_from_ego=matrices,
            base_from_cameras=torch.eye(4).expand(batch, cameras, 4, 4),
            intrinsics=torch.eye(3).expand(batch, cameras, 3, 3),
            camera_mask=torch.ones(batch, cameras, dtype=torch.bool),
            can_bus=inputs['can_bus'].float(),
            ego_from_reference=torch.eye(4).expand(batch, 4, 4),
        )
        self.activations: dict[str, torch.Tensor] = {}
        self._hook()
        with torch.inference_mode():
            self.output: MapperOutput = self.model(self.batch)

    def _hook(self) -> None:
        encoder, view, decoder = (
            self.model.image_encoder,
            self.model.view_transform,
            self.model.decoder,
        )
        modules = {'neck.0': encoder.neck}
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
        for name, module in modules.items():

            def keep(_module, _args, result, name=name):  # type: ignore[no-untyped-def]
                self.activations[name] = result

            module.register_forward_hook(keep)


@pytest.fixture(scope='module')
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.getfixturevalue('golden_dir') / 'maptr')


def assert_close(actual: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    assert actual.shape == expected.shape, name
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=TOLERANCE, msg=lambda text: f'{name}: {text}'
    )


def test_parameter_count_equals_the_published_model(golden: Golden) -> None:
    golden.model.image_encoder.backbone.freeze()
    assert count_parameters(golden.model) == {
        'total': golden.values['parameters'],
        'trainable': golden.values['trainable_parameters'],
    }


def test_image_features(golden: Golden) -> None:
    """Backbone stages and pyramid; the recording keeps all cameras or only the first."""
    for name in (
        'backbone.layer1',
        'backbone.layer2',
        'backbone.layer3',
        'backbone.layer4',
        'neck.0',
    ):
        expected = golden.intermediates[f's0.{name}']
        assert_close(golden.activations[name][: len(expected)], expected, name)
    cameras = len(golden.values['cameras'])
    assert_close(
        golden.activations['neck.0'][cameras:], golden.intermediates['s1.neck.0'], 's1.neck.0'
    )


def test_every_recorded_layer(golden: Golden) -> None:
    """Each step of encoder and decoder layers, for every sample it was recorded of."""
    compared = 0
    for key, expected in golden.intermediates.items():
        sample, name = int(key[1]), key[3:]
        parts = name.split('.')
        if parts[0] not in ('encoder', 'decoder') or len(parts) != 3 or not parts[1].isdigit():
            continue
        actual = golden.activations[name]
        if parts[0] == 'encoder':
            actual = actual[sample : sample + 1]
        else:
            actual = actual.reshape(len(golden.batch), -1, actual.shape[-1])[sample][:, None]
        assert_close(actual, expected, key)
        compared += 1
    assert compared == 29


def test_projection_and_visibility(golden: Golden) -> None:
    from gsmap_core.models.bev.gkt import project_pillars

    image = tuple(golden.values['image_hw'])
    uv, visible = project_pillars(
        golden.model.view_transform.points, golden.batch.pixels_from_ego, image
    )
    for sample in range(2):
        expected = golden.intermediates[f's{sample}.encoder.bev_mask'][:, 0]
        assert torch.equal(visible[sample], expected)
        reference = golden.intermediates[f's{sample}.encoder.reference_points_cam'][:, 0]
        assert_close(uv[sample][expected], reference[expected], f's{sample} pixels')


def test_outputs(golden: Golden) -> None:
    output, expected = golden.output, golden.expected
    assert_close(output.bev.flatten(2).permute(2, 0, 1), expected['bev_embed'], 'bev_embed')
    assert_close(output.class_logits, expected['all_cls_scores'], 'all_cls_scores')
    assert_close(output.points, expected['all_pts_preds'], 'all_pts_preds')


def test_decoded_elements(golden: Golden) -> None:
    """Scores, labels and metric points of the best pairs, in the published order."""
    count = golden.values['coder']['max_num']
    scores, _, labels = top_predictions(golden.output.class_logits[-1], count)
    maps = to_vector_maps(golden.output, golden.config, max_elements=count, closing_distance_m=0.0)
    for sample, vector_map in enumerate(maps):
        expected = {
            key: golden.expected[f'decoded.{sample}.{key}']
            for key in ('scores', 'labels', 'pts', 'boxes_xyxy')
        }
        assert vector_map.reference == 'lidar'
        assert torch.equal(labels[sample], expected['labels'])
        assert [item.category for item in vector_map.elements] == expected['labels'].tolist()
        assert_close(scores[sample], expected['scores'], 'scores')
        points = np.stack([item.vertices for item in vector_map.elements])
        # Metres: 60 m times the tolerance on unit coordinates.
        np.testing.assert_allclose(points, expected['pts'].numpy(), rtol=0, atol=60 * TOLERANCE)
        boxes = np.concatenate([points.min(1), points.max(1)], axis=1)
        np.testing.assert_allclose(
            boxes, expected['boxes_xyxy'].numpy(), rtol=0, atol=60 * TOLERANCE
        )


def test_a_batch_equals_its_samples_alone(golden: Golden) -> None:
    """The published code's mixing of samples (README: batch of two) is not reproduced."""
    fields = vars(golden.batch)
    alone = FrameBatch(**{key: value[1:] for key, value in fields.items()})
    with torch.inference_mode():
        output = golden.model(alone)
    assert_close(output.points, golden.output.points[:, 1:], 'points')
    assert_close(output.class_logits, golden.output.class_logits[:, 1:], 'class_logits')


def test_losses_and_gradients(golden: Golden, golden_dir: Path) -> None:
    """Total loss to 1e-5 and the gradient norm of every trainable parameter to 1e-3, relative."""
    folder = golden_dir / 'maptr'
    grid, values = golden.config.grid, load_file(folder / 'gkt_targets.safetensors')
    targets = []
    for sample in range(len(golden.batch)):
        gt = {
            key: values[f'gt.{sample}.{key}']
            for key in ('labels', 'pts', 'orders_v2', 'num_orders_v2')
        }
        orders = gt['orders_v2'].clone()
        for row, count in zip(orders, gt['num_orders_v2'], strict=True):
            row[int(count) :] = row[0]
        targets.append(
            MapTargets(
                labels=gt['labels'],
                points=torch.from_numpy(grid.metres_to_unit(gt['pts'].numpy())).float(),
                orders=torch.from_numpy(grid.metres_to_unit(orders.numpy())).float(),
                num_orders=gt['num_orders_v2'],
                bev_mask=torch.zeros(1, grid.num_rows, grid.num_columns, dtype=torch.uint8),
            )
        )
    model = copy.deepcopy(golden.model)
    model.image_encoder.backbone.freeze()
    losses = Criterion(golden.config)(model(golden.batch), targets)
    expected = json.loads((folder / 'gkt_losses.json').read_text())
    total = torch.stack(list(losses.values())).sum()
    assert total.item() == pytest.approx(expected['total'], rel=1e-5)
    for ours, theirs in (('classification', 'cls'), ('points', 'pts'), ('direction', 'dir')):
        for prefix in ('', 'd0.', 'd1.'):
            assert losses[prefix + ours].item() == pytest.approx(
                expected['losses'][f'{prefix}loss_{theirs}'], rel=1e-5
            )
    total.backward()
    recorded = json.loads((folder / 'gkt_grads.json').read_text())
    published = recorded['parameters']
    parameters = dict(model.named_parameters())
    frozen = {own_name(name, golden.config) for name in recorded['without_gradient']}
    assert frozen == {name for name, value in parameters.items() if not value.requires_grad}
    assert len(published) + len(frozen) == len(parameters)
    for name, numbers in published.items():
        own = own_name(name, golden.config)
        assert own is not None
        gradient = parameters[own].grad
        assert gradient is not None, own
        assert gradient.norm().item() == pytest.approx(numbers['l2'], rel=1e-3, abs=1e-9), own
        assert gradient.abs().max().item() == pytest.approx(
            numbers['absmax'], rel=1e-2, abs=1e-9
        ), own
