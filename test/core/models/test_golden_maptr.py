"""Whole small models with attention encoders against the published network (golden/maptr)."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_maptr import TOLERANCE, Golden, assert_close, targets_of
from safetensors.torch import load_file

from gsmap_core.config import LossConfig
from gsmap_core.losses.criterion import Criterion
from gsmap_core.losses.matching import match, match_cost
from gsmap_core.models.bev.history import motion_shift, rotate_bev
from gsmap_core.models.bev.pillars import project_pillars
from gsmap_core.models.import_official import own_name
from gsmap_core.models.mapper import count_parameters
from gsmap_core.models.postprocess import to_vector_maps, top_predictions

pytestmark = pytest.mark.golden


@pytest.fixture(scope='module', params=['gkt', 'bevformer'])
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.getfixturevalue('golden_dir') / 'maptr', request.param)


@pytest.fixture(scope='module')
def gkt(golden_dir: Path) -> Golden:
    return Golden(golden_dir / 'maptr', 'gkt')


@pytest.fixture(scope='module')
def extra(golden_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(golden_dir / 'maptr' / 'gkt_extra.safetensors')


def test_parameter_count_equals_the_published_model(golden: Golden) -> None:
    model = copy.deepcopy(golden.model)
    model.image_encoder.backbone.freeze()
    assert count_parameters(model) == {
        'total': golden.values['parameters'],
        'trainable': golden.values['trainable_parameters'],
    }


def test_image_features(golden: Golden) -> None:
    """Backbone stages and pyramid; the recording keeps all cameras or only the first."""
    names = [name for name in golden.intermediates if name.split('.')[1] in ('backbone', 'neck')]
    assert bool(names) == (golden.features is None)
    cameras = len(golden.values['cameras'])
    for name in names:
        expected = golden.intermediates[name]
        first = int(name[1]) * cameras
        actual = golden.activations[name[3:]][first : first + len(expected)]
        assert_close(actual, expected, name)


def test_every_recorded_layer(golden: Golden) -> None:
    """Each step of encoder and decoder layers, for every sample it was recorded of."""
    compared = 0
    for key, expected in golden.intermediates.items():
        sample, name = int(key[1]), key[3:]
        parts = name.split('.')
        if parts[0] not in ('encoder', 'decoder') or not parts[1].isdigit():
            continue
        actual = golden.activations[name]
        actual = actual[0] if isinstance(actual, tuple) else actual
        if parts[0] == 'encoder':
            actual = actual[sample : sample + 1]
        else:
            actual = actual.reshape(len(golden.batch), -1, actual.shape[-1])[sample][:, None]
        assert_close(actual, expected, key)
        compared += 1
    assert compared == {'gkt': 30, 'bevformer': 9}[golden.variant]


def test_inputs_of_encoder_and_decoder(golden: Golden) -> None:
    query, position, _, _, tokens, _, past = golden.activations['encoder.in']
    assert past is None
    x, x_position, _, reference, *_ = golden.activations['decoder.in']
    out = golden.activations['decoder.out']
    cameras, (height, width) = len(golden.values['cameras']), golden.values['feature_hw']
    tokens = tokens.view(-1, cameras, height * width, 1, tokens.shape[-1])
    compared = 0
    for sample in range(len(golden.batch)):
        found = {
            'encoder.in.bev_query': query[sample][:, None],
            'encoder.in.bev_pos': position[:, None],
            'encoder.in.value': tokens[sample],
            'encoder.in.shift': motion_shift(golden.batch.can_bus, golden.config.grid)[[sample]],
            'decoder.in.query': x[sample].flatten(0, 1)[:, None],
            'decoder.in.query_pos': x_position[sample].flatten(0, 1)[:, None],
            'decoder.in.reference_points': reference[sample].flatten(0, 1)[None],
            'decoder.out.states': out.states[:, sample].flatten(1, 2)[:, :, None],
            'decoder.out.reference_points': out.points[:, sample].flatten(1, 2)[:, None],
        }
        for name, actual in found.items():
            expected = golden.intermediates.get(f's{sample}.{name}')
            if expected is not None:
                assert_close(actual, expected, f's{sample}.{name}')
                compared += 1
    assert compared == {'gkt': 13, 'bevformer': 10}[golden.variant]


def test_projection_and_visibility(golden: Golden) -> None:
    image = tuple(golden.values['image_hw'])
    uv, visible = project_pillars(
        golden.model.view_transform.points, golden.batch.pixels_from_ego, image
    )
    for sample in range(len(golden.batch)):
        expected = golden.intermediates[f's{sample}.encoder.bev_mask'][:, 0]
        assert torch.equal(visible[sample], expected)
        reference = golden.intermediates.get(f's{sample}.encoder.reference_points_cam')
        if reference is not None:
            assert_close(uv[sample][expected], reference[:, 0][expected], f's{sample} pixels')


def test_outputs(golden: Golden) -> None:
    output, expected = golden.output, golden.expected
    assert_close(output.bev.flatten(2).permute(2, 0, 1), expected['bev_embed'], 'bev_embed')
    assert_close(output.class_logits, expected['all_cls_scores'], 'all_cls_scores')
    assert_close(output.points, expected['all_pts_preds'], 'all_pts_preds')
    lower, upper = output.points.amin(-2), output.points.amax(-2)
    boxes = torch.cat([(lower + upper) / 2, upper - lower], dim=-1)
    assert_close(boxes, expected['all_bbox_preds'], 'all_bbox_preds')


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
    alone = golden.batch.rows(slice(1, None))
    with torch.inference_mode():
        if golden.features is None:
            output = golden.model(alone)
        else:
            output = golden.model.forward_features(golden.features[1:], alone)
    assert_close(output.points, golden.output.points[:, 1:], 'points')
    assert_close(output.class_logits, golden.output.class_logits[:, 1:], 'class_logits')


def test_the_published_batch_of_two_differs_only_after_its_first_sample(
    gkt: Golden, extra: dict[str, torch.Tensor]
) -> None:
    moved = (extra['batch2.all_pts_preds'] - gkt.output.points).abs().amax(dim=(0, 2, 3, 4))
    assert moved[0] < TOLERANCE < 1e-3 < moved[1:].min()


def test_a_run_with_history(gkt: Golden, extra: dict[str, torch.Tensor]) -> None:
    """Self-attention that looks at a rotated and shifted map of the frame before."""
    grid, centre = gkt.config.grid, gkt.config.bev.history_centre_px
    before = extra['temporal.in.prev_bev'].transpose(1, 2)
    before = before.unflatten(2, (grid.num_rows, grid.num_columns))
    can_bus = extra['temporal.in.can_bus'].float()[None]
    rotated = rotate_bev(before, can_bus[:, 17], centre)
    expected = extra['temporal.rotated_prev_bev']
    assert torch.equal(rotated.flatten(2).transpose(1, 2), expected)
    assert_close(motion_shift(can_bus, grid), extra['temporal.shift_xy'], 'shift')
    # The frame is the sample with the same pose; its own CAN bus knows of no frame before.
    (sample,) = (gkt.batch.can_bus[:, 3:7] == can_bus[:, 3:7]).all(1).nonzero().flatten()
    batch = replace(gkt.batch.rows(slice(sample, sample + 1)), can_bus=can_bus)
    model = copy.deepcopy(gkt.model)
    seen = []
    first = model.view_transform.layers[0].self_attention
    first.register_forward_hook(lambda _module, _args, result: seen.append(result))
    with torch.inference_mode():
        output = model(batch, before)
    assert_close(seen[0], extra['temporal.encoder.0.temporal_self_attn'], 'self-attention')
    bev = output.bev.flatten(2).permute(2, 0, 1)
    assert_close(bev, extra['temporal.bev_embed'], 'bev_embed')
    assert torch.equal(output.state, output.bev)
    assert_close(output.class_logits, extra['temporal.all_cls_scores'], 'all_cls_scores')
    assert_close(output.points, extra['temporal.all_pts_preds'], 'all_pts_preds')


def test_assignment(golden: Golden) -> None:
    """Matched elements and orders of every layer exactly, costs within the tolerance."""
    values = golden.tensors('targets')
    samples = range(len(golden.batch))
    targets = [targets_of(values, sample, golden.config.grid) for sample in samples]
    logits, points = golden.output.class_logits, golden.output.points
    weights = golden.config.matching
    pairs = match(logits, points, targets, weights)
    for layer in range(len(logits)):
        for sample in samples:
            name = f'assign.layer{layer}.sample{sample}'
            mine = (pairs.layer == layer) & (pairs.sample == sample)
            element, order = torch.full((2, logits.shape[2]), -1)
            element[pairs.query[mine]] = pairs.element[mine]
            order[pairs.query[mine]] = pairs.order[mine]
            assert torch.equal(element, values[f'{name}.gt_index'])
            assert torch.equal(order, values[f'{name}.order_index'])
            one = (logits[[layer], sample], points[[layer], sample], targets[sample])
            costs, _ = match_cost(*one, replace(weights, points=0.0))
            assert_close(costs[0], values[f'{name}.cls_cost'], f'{name}.cls_cost')
            costs, _ = match_cost(*one, replace(weights, classification=0.0))
            torch.testing.assert_close(
                costs[0], values[f'{name}.pts_cost'], rtol=1e-5, atol=TOLERANCE
            )


def check_losses(found: dict[str, torch.Tensor], recorded: dict[str, float], layers: int) -> None:
    for ours, theirs in (('classification', 'cls'), ('points', 'pts'), ('direction', 'dir')):
        for prefix in ('', *(f'd{layer}.' for layer in range(layers - 1))):
            assert found[prefix + ours].item() == pytest.approx(
                recorded[f'{prefix}loss_{theirs}'], rel=1e-5
            )


def test_losses_of_each_sample_and_without_weights(golden: Golden) -> None:
    values, recorded = golden.tensors('targets'), golden.numbers('losses')
    output, config = golden.output, golden.config
    layers = golden.values['decoder_layers']
    targets = [targets_of(values, i, config.grid) for i in range(len(golden.batch))]
    for sample, expected in enumerate(recorded['losses_per_sample']):
        one = replace(
            output,
            class_logits=output.class_logits[:, [sample]],
            points=output.points[:, [sample]],
        )
        check_losses(Criterion(config)(one, [targets[sample]]), expected, layers)
    ones = LossConfig(classification=1.0, points=1.0, direction=1.0)
    found = Criterion(replace(config, losses=ones))(output, targets)
    check_losses(found, recorded['losses_with_all_weights_1'], layers)


@pytest.mark.filterwarnings('ignore:TF32 acceleration on top of oneDNN')
def test_losses_and_gradients(golden: Golden) -> None:
    """Losses to 1e-5 and the gradient norm of every trainable parameter to 1e-3, relative."""
    values = golden.tensors('targets')
    targets = [targets_of(values, i, golden.config.grid) for i in range(len(golden.batch))]
    model = copy.deepcopy(golden.model)
    model.image_encoder.backbone.freeze()
    # oneDNN's convolutions round so much more than the plain ones that a few more ReLUs flip.
    with torch.backends.mkldnn.flags(enabled=False):
        losses = Criterion(golden.config)(golden.run(model), targets)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
    expected = golden.numbers('losses')
    assert total.item() == pytest.approx(expected['total'], rel=1e-5)
    check_losses(losses, expected['losses'], golden.values['decoder_layers'])
    recorded = golden.numbers('grads')
    published = recorded['parameters']
    parameters = dict(model.named_parameters())
    if golden.features is not None:
        parameters = {k: v for k, v in parameters.items() if not k.startswith('image_encoder.')}
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
        # Signed sums move with the kinks of ReLU and bilinear cells.
        assert gradient.double().sum().item() == pytest.approx(
            numbers['sum'], rel=0, abs=1e-2 * numbers['l2'] + 1e-9
        ), own
