"""Losses, matching and criterion: by hand, by golden numbers, by finite differences."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.outputs import make_output
from safetensors.torch import load_file

from gsmap_core.config import BevConfig, DecoderConfig, LossConfig, MatchingConfig, ModelConfig
from gsmap_core.losses.criterion import Criterion
from gsmap_core.losses.focal import focal_cost, focal_loss
from gsmap_core.losses.matched import MatchedPredictions
from gsmap_core.losses.matching import match, match_cost, point_cost
from gsmap_core.losses.vectors import direction_loss, edge_cosine, points_loss
from gsmap_core.structures import PerceptionRange
from gsmap_core.targets import MapTargets

OFFICIAL = ModelConfig(
    reference='lidar',
    range=PerceptionRange(-15.0, 15.0, -30.0, 30.0),
    bev=BevConfig(num_rows=40, num_columns=20, order='official'),
)


def targets_of(labels, orders, num_orders=None, mask_size=(200, 100)):
    orders = torch.as_tensor(orders, dtype=torch.float32)
    if num_orders is None:
        num_orders = torch.full((len(orders),), orders.shape[1])
    return MapTargets(
        labels=torch.as_tensor(labels, dtype=torch.int64),
        points=orders[:, 0],
        orders=orders,
        num_orders=torch.as_tensor(num_orders),
        bev_mask=torch.zeros(1, *mask_size, dtype=torch.uint8),
    )


def random_targets(num_elements, num_points=20, num_orders=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(num_elements, num_orders, num_points, 2, generator=generator)
    labels = torch.randint(0, 3, (num_elements,), generator=generator)
    counts = torch.randint(1, num_orders + 1, (num_elements,), generator=generator)
    return targets_of(labels, orders, counts)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(1234)


def golden_targets(golden, sample, config=OFFICIAL):
    count = golden[f'gt.{sample}.num_orders_v2']
    orders = golden[f'gt.{sample}.orders_v2'].double()
    unit = torch.from_numpy(config.grid.metres_to_unit(orders.numpy())).float()
    mask = golden.get(f'gt.{sample}.bev_mask', torch.zeros(1, 40, 20, dtype=torch.uint8))
    return MapTargets(golden[f'gt.{sample}.labels'], unit[:, 0], unit, count, mask)


def test_weighted_focal_cost_at_even_odds():
    cost = focal_cost(torch.zeros(1, 3), torch.tensor([1]))
    assert 2.0 * float(cost) == pytest.approx(-0.17329, abs=1e-5)


@pytest.mark.parametrize(('axis', 'expected'), [(0, 1.0), (1, 0.5)])
def test_weighted_point_loss_of_a_shift_by_hand(axis, expected):
    # 8.4: 0.3 m in the 30 m direction costs 1.0, in the 60 m direction 0.5.
    target = torch.rand(1, 20, 2)
    extent = torch.tensor(OFFICIAL.grid.unit_extent_m())
    shift = torch.zeros(2)
    shift[axis] = 0.3 / extent[axis]
    loss = points_loss(matched(target + shift, target))
    assert 5.0 * float(loss) == pytest.approx(expected, abs=1e-4)


def matched(points, target_points, num_layers=1):
    return MatchedPredictions(
        class_logits=torch.zeros(num_layers, 1, 1, 3),
        class_targets=torch.zeros(num_layers, 1, 1, 3),
        layer=torch.zeros(len(points), dtype=torch.int64),
        points=points,
        target_points=target_points,
        metres_per_unit=torch.tensor(OFFICIAL.grid.unit_extent_m()),
        element=torch.arange(len(points)),
        element_labels=torch.zeros(len(points), dtype=torch.int64),
        element_points=target_points,
        all_points=points[None, None],
    )


def test_weighted_direction_loss_of_orthogonal_edges():
    along = torch.stack([torch.linspace(0, 1, 20), torch.full((20,), 0.5)], dim=1)
    loss = direction_loss(matched(along[None], along.flip(1)[None]))
    assert 0.005 * float(loss) == pytest.approx(0.095, abs=1e-6)


def test_directions_are_compared_in_metres():
    # 45 degrees in units is atan2(60, 30) in metres.
    diagonal = torch.linspace(0, 1, 20)[:, None].expand(20, 2)[None]
    across = torch.stack([torch.linspace(0, 1, 20), torch.zeros(20)], dim=1)[None]
    expected = 19 * (1 - 30 / np.hypot(30, 60))
    assert float(direction_loss(matched(diagonal, across))) == pytest.approx(expected, rel=1e-5)


def test_point_cost_takes_the_nearest_real_order():
    targets = random_targets(6, num_orders=5)
    points = torch.rand(2, 7, 20, 2)
    cost, order = point_cost(points, targets)
    for layer in range(2):
        for query in range(7):
            for element in range(6):
                real = targets.orders[element, : int(targets.num_orders[element])]
                sums = (real - points[layer, query]).abs().sum(dim=(1, 2))
                assert float(cost[layer, query, element]) == pytest.approx(
                    float(sums.min()), rel=1e-5
                )
                assert int(order[layer, query, element]) == int(sums.argmin())


def test_assignment_is_optimal_and_finds_shuffled_elements():
    targets = random_targets(5, seed=3)
    shuffle = torch.randperm(5)
    last = targets.orders[torch.arange(5), targets.num_orders - 1]
    points = torch.cat([torch.rand(3, 20, 2), last[shuffle]])[None, None]
    logits = torch.zeros(1, 1, 8, 3)
    result = match(logits, points, [targets], MatchingConfig())
    assert result.query.tolist() == [3, 4, 5, 6, 7]
    assert result.element.tolist() == shuffle.tolist()
    assert result.order.tolist() == (targets.num_orders[shuffle] - 1).tolist()


def test_copies_repeat_every_element_and_are_limited_by_queries():
    targets = random_targets(3)
    points, logits = torch.rand(2, 1, 10, 20, 2), torch.rand(2, 1, 10, 3)
    result = match(logits, points, [targets], MatchingConfig(), copies=3)
    assert len(result) == 18
    for layer in range(2):
        elements = result.element[result.layer == layer]
        assert torch.bincount(elements, minlength=3).tolist() == [3, 3, 3]
    assert len(match(logits, points, [targets], MatchingConfig(), copies=6)) == 20


def test_empty_ground_truth_gives_finite_losses_and_gradients():
    logits = torch.zeros(2, 2, 4, 3, requires_grad=True)
    points = torch.rand(2, 2, 4, 20, 2, requires_grad=True)
    empty = targets_of([], torch.zeros(0, 1, 20, 2))
    criterion = Criterion(ModelConfig(losses=LossConfig(bev_segmentation=1.0)))
    for batch in ([empty, empty], [empty, random_targets(2)], [random_targets(2), empty]):
        losses = criterion(
            make_output(logits, points, torch.zeros(2, 1, 200, 100, requires_grad=True)), batch
        )
        total = torch.stack(list(losses.values())).sum()
        grads = torch.autograd.grad(total, [logits, points])
        assert torch.isfinite(total)
        assert all(torch.isfinite(grad).all() for grad in grads)
        assert grads[0].abs().sum() > 0
    # No element anywhere: only background is left, normalised by 1.
    losses = criterion(make_output(logits, points), [empty, empty])
    expected = 2.0 * 2 * 4 * 3 * 0.75 * 0.25 * np.log(2)
    assert losses['classification'].item() == pytest.approx(expected, rel=1e-5)
    assert losses['points'].item() == 0.0


def test_diverged_predictions_give_nan_losses_not_an_exception():
    points = torch.full((1, 1, 4, 20, 2), float('nan'))
    losses = Criterion(ModelConfig())(
        make_output(torch.zeros(1, 1, 4, 3), points), [random_targets(2)]
    )
    assert torch.isnan(losses['points'])


def test_zero_weight_turns_a_loss_off_and_names_tell_the_layer():
    config = ModelConfig(losses=LossConfig(direction=0.0))
    one_to_many = (torch.zeros(2, 1, 6, 3), torch.rand(2, 1, 6, 20, 2))
    output = make_output(torch.zeros(2, 1, 4, 3), torch.rand(2, 1, 4, 20, 2), None, one_to_many)
    names = set(Criterion(config)(output, [random_targets(2)]))
    plain = {'classification', 'points', 'd0.classification', 'd0.points'}
    assert names == plain | {f'{name}_one_to_many' for name in plain}


def test_normaliser_is_averaged_over_processes(monkeypatch):
    # This process matches 2 elements, another one 6: both divide by 4.
    output = make_output(torch.zeros(1, 1, 8, 3), torch.rand(1, 1, 8, 20, 2))
    alone = Criterion(ModelConfig())(output, [random_targets(2)])
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    monkeypatch.setattr(torch.distributed, 'all_reduce', lambda count: count.add_(6))
    together = Criterion(ModelConfig())(output, [random_targets(2)])
    for name, loss in alone.items():
        torch.testing.assert_close(together[name], loss / 2)


def test_bev_segmentation_by_hand():
    config = ModelConfig(
        losses=LossConfig(0.0, 0.0, 0.0, bev_segmentation=2.0),
        bev=BevConfig(num_rows=2, num_columns=2),
    )
    target = targets_of([], torch.zeros(0, 1, 20, 2), mask_size=(2, 2))
    target.bev_mask[0, 0, 0] = 1
    output = make_output(
        torch.zeros(1, 1, 4, 3), torch.rand(1, 1, 4, 20, 2), torch.zeros(1, 1, 2, 2)
    )
    loss = Criterion(config)(output, [target])['bev_segmentation']
    assert float(loss) == pytest.approx(2.0 * (4 + 1 + 1 + 1) * np.log(2) / 4, rel=1e-6)


def test_gradients_of_single_losses_equal_finite_differences():
    torch.manual_seed(1234)
    double = {'dtype': torch.float64}
    logits, classes = torch.randn(5, 3, **double).requires_grad_(), torch.rand(5, 3, **double)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, classes.round()), (logits,))
    points = torch.rand(4, 6, 2, **double).requires_grad_()
    other = torch.rand(4, 6, 2, **double)
    for function in (points_loss, direction_loss):
        assert torch.autograd.gradcheck(lambda x, f=function: f(matched(x, other)), (points,))


def test_gradient_of_the_criterion_equals_finite_differences(monkeypatch):
    config = ModelConfig(
        decoder=DecoderConfig(num_points=4),
        losses=LossConfig(direction=0.5, bev_segmentation=1.0),
        bev=BevConfig(num_rows=3, num_columns=3),
    )
    criterion = Criterion(config)
    targets = [random_targets(2, num_points=4), random_targets(3, num_points=4, seed=1)]
    targets = [
        # Beside all predictions: |x| has a kink at 0, where no difference quotient fits.
        replace(
            target,
            orders=0.5 + 0.5 * target.orders,
            bev_mask=torch.randint(0, 2, (1, 3, 3), dtype=torch.uint8),
        )
        for target in targets
    ]
    inputs = [torch.randn(2, 2, 4, 3), 0.4 * torch.rand(2, 2, 4, 4, 2), torch.randn(2, 1, 3, 3)]
    for value in inputs:
        value.requires_grad_()

    def total():
        return sum(criterion(make_output(*inputs), targets).values())

    # The assignment is a constant of the gradient, so the quotients must not change it either.
    pairs = match(inputs[0], inputs[1], targets, config.matching)
    monkeypatch.setattr('gsmap_core.losses.criterion.match', lambda *_: pairs)
    grads = torch.autograd.grad(total(), inputs)
    step = 1e-3
    for value, grad in zip(inputs, grads, strict=True):
        direction = torch.randn_like(value)
        with torch.no_grad():
            value += step * direction
            above = float(total())
            value -= 2 * step * direction
            below = float(total())
            value += step * direction
        numeric = (above - below) / (2 * step)
        assert float((grad * direction).sum()) == pytest.approx(numeric, rel=1e-2, abs=1e-2)


@pytest.mark.golden
def test_single_losses_equal_golden_maptr(golden_dir):
    ops = load_file(golden_dir / 'maptr' / 'ops.safetensors')
    logits, target = ops['focal.logits'], ops['focal.target']
    # Class index 3 is background in the published code.
    one_hot = torch.nn.functional.one_hot(target, 4)[:, :3].float()
    loss = 2.0 * (focal_loss(logits, one_hot) * ops['focal.weight'][:, None]).sum() / 6
    torch.testing.assert_close(loss, ops['focal.loss_weight2_avg6'][0], rtol=1e-5, atol=1e-6)
    pred, points = ops['pts.pred'], ops['pts.target']
    keep = ops['pts.weight'].flatten(1).amax(1) > 0
    loss = 5.0 * points_loss(matched(pred[keep], points[keep]))[0] / 4
    torch.testing.assert_close(loss, ops['pts.l1_loss_weight5_avg4'][0], rtol=1e-5, atol=1e-5)
    flat = torch.cdist(pred.flatten(1), ops['pts.orders'].flatten(2).flatten(0, 1), p=1)
    torch.testing.assert_close(
        5.0 * flat.unflatten(1, (3, 19)), ops['pts.cost_weight5'], rtol=1e-5, atol=1e-4
    )
    cost, _ = point_cost(pred, targets_of([0, 0, 0], ops['pts.orders']))
    torch.testing.assert_close(5.0 * cost, ops['pts.cost_weight5'].amin(-1), rtol=1e-5, atol=1e-4)
    weight = ops['dir.weight']
    loss = ((1 - edge_cosine(ops['dir.pred'], ops['dir.target'])) * weight).sum() / 4
    torch.testing.assert_close(loss, ops['dir.loss_weight1_avg4'][0], rtol=1e-5, atol=1e-6)


@pytest.mark.golden
def test_class_cost_equals_golden_maptr(golden_dir):
    ops = load_file(golden_dir / 'maptr' / 'ops.safetensors')
    expected = ops['focal.cost_weight2']
    columns = 2.0 * focal_cost(ops['focal.logits'], torch.arange(3))
    for column in expected.T:
        assert (columns - column[:, None]).abs().amax(0).min() < 1e-5


@pytest.mark.golden
def test_assignment_and_losses_equal_golden_maptr_gkt(golden_dir):
    golden = load_file(golden_dir / 'maptr' / 'gkt_targets.safetensors')
    outputs = load_file(golden_dir / 'maptr' / 'gkt_outputs.safetensors')
    stored = json.loads((golden_dir / 'maptr' / 'gkt_losses.json').read_text())
    targets = [golden_targets(golden, sample) for sample in range(2)]
    logits, points = outputs['all_cls_scores'], outputs['all_pts_preds']
    pairs = match(logits, points, targets, MatchingConfig())
    for layer in range(3):
        for sample in range(2):
            name = f'assign.layer{layer}.sample{sample}'
            mine = (pairs.layer == layer) & (pairs.sample == sample)
            gt_index, order = torch.full((10,), -1), torch.full((10,), -1)
            gt_index[pairs.query[mine]] = pairs.element[mine]
            order[pairs.query[mine]] = pairs.order[mine]
            assert gt_index.tolist() == golden[f'{name}.gt_index'].tolist()
            assert order.tolist() == golden[f'{name}.order_index'].tolist()
            one_layer, truth = slice(layer, layer + 1), targets[sample]
            only_class, _ = match_cost(
                logits[one_layer, sample],
                points[one_layer, sample],
                truth,
                MatchingConfig(2.0, 0.0),
            )
            only_points, _ = match_cost(
                logits[one_layer, sample],
                points[one_layer, sample],
                truth,
                MatchingConfig(0.0, 5.0),
            )
            torch.testing.assert_close(
                only_class[0], golden[f'{name}.cls_cost'], rtol=1e-5, atol=1e-5
            )
            torch.testing.assert_close(
                only_points[0], golden[f'{name}.pts_cost'], rtol=1e-5, atol=1e-4
            )
    names = {'classification': 'loss_cls', 'points': 'loss_pts', 'direction': 'loss_dir'}
    criterion = Criterion(OFFICIAL)
    _compare_losses(criterion(make_output(logits, points), targets), stored['losses'], names)
    for sample in range(2):
        one = slice(sample, sample + 1)
        losses = criterion(make_output(logits[:, one], points[:, one]), targets[one])
        _compare_losses(losses, stored['losses_per_sample'][sample], names)


def _compare_losses(losses, stored, names):
    for prefix in ('', 'd0.', 'd1.'):
        for mine, theirs in names.items():
            assert float(losses[prefix + mine]) == pytest.approx(
                stored[prefix + theirs], rel=1e-5, abs=1e-6
            )


@pytest.mark.golden
def test_assignment_and_losses_equal_golden_maptr_v2(golden_dir):
    golden = load_file(golden_dir / 'maptr' / 'v2_targets.safetensors')
    outputs = load_file(golden_dir / 'maptr' / 'v2_outputs.safetensors')
    stored = json.loads((golden_dir / 'maptr' / 'v2_losses.json').read_text())['losses']
    config = ModelConfig(
        reference='lidar',
        range=OFFICIAL.range,
        bev=OFFICIAL.bev,
        decoder=DecoderConfig(num_instances=10, num_one_to_many=18, one_to_many_copies=3),
        losses=LossConfig(bev_segmentation=1.0),
    )
    targets = [golden_targets(golden, sample) for sample in range(2)]
    many = (
        outputs['train.one2many.all_cls_scores'],
        outputs['train.one2many.all_pts_preds'],
    )
    pairs = match(*many, targets, config.matching, copies=3)
    for layer in range(3):
        for sample in range(2):
            name = f'assign.one2many.layer{layer}.sample{sample}'
            mine = (pairs.layer == layer) & (pairs.sample == sample)
            gt_index, order = torch.full((18,), -1), torch.full((18,), -1)
            gt_index[pairs.query[mine]] = pairs.element[mine]
            order[pairs.query[mine]] = pairs.order[mine]
            assert gt_index.tolist() == golden[f'{name}.gt_index'].tolist()
            assert order.tolist() == golden[f'{name}.order_index'].tolist()
    losses = Criterion(config)(
        make_output(
            outputs['train.all_cls_scores'],
            outputs['train.all_pts_preds'],
            outputs['infer.seg'],
            many,
        ),
        targets,
    )
    names = {'classification': 'loss_cls', 'points': 'loss_pts', 'direction': 'loss_dir'}
    _compare_losses(losses, stored, names)
    names = {f'{mine}_one_to_many': f'{theirs}_one2many' for mine, theirs in names.items()}
    _compare_losses(losses, stored, names)
    assert float(losses['bev_segmentation']) == pytest.approx(stored['loss_seg'], rel=1e-5)
