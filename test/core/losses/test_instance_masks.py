"""Losses and costs of instance masks: by hand, by slow loops, by finite differences, switched."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gsmap_core.config import (
    AlignmentConfig,
    BevConfig,
    InstanceMaskConfig,
    LossConfig,
    MatchingConfig,
    ModelConfig,
)
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.losses.criterion import Criterion
from gsmap_core.losses.instance_masks import (
    draw_instances,
    mask_cost,
    pixel_cost,
    pixel_loss,
)
from gsmap_core.losses.matched import MatchedMasks
from gsmap_core.losses.matching import match
from gsmap_core.models.instance_masks import InstanceMaskHead
from gsmap_core.targets import MapTargets

PLAIN = AlignmentConfig()
HEIGHT, WIDTH = 6, 5
#: Query instance segmentation with InteractionMap's weights, and nothing else of it.
SEGMENTED = ModelConfig(
    bev=BevConfig(num_rows=HEIGHT, num_columns=WIDTH),
    matching=MatchingConfig(instance_mask=30.0, instance_dice=3.0, instance_mask_kind='focal'),
    losses=LossConfig(
        instance_mask=30.0,
        instance_dice=3.0,
        instance_mask_options=InstanceMaskConfig(kind='focal', line_width_px=1),
    ),
)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(11)


def changed(config=SEGMENTED, matching=None, losses=None, options=None):
    """Return a configuration with single values changed."""
    options = replace(config.losses.instance_mask_options, **(options or {}))
    losses = replace(config.losses, instance_mask_options=options, **(losses or {}))
    return replace(config, matching=replace(config.matching, **(matching or {})), losses=losses)


def targets_of(num_elements):
    points = torch.rand(num_elements, 4, 2)
    return MapTargets(
        labels=torch.randint(0, 3, (num_elements,)),
        points=points,
        orders=torch.stack([points, points.flip(1)], dim=1),
        num_orders=torch.full((num_elements,), 2),
        bev_mask=torch.zeros(1, 4, 4, dtype=torch.uint8),
    )


def drawn(targets, config=SEGMENTED):
    return draw_instances([targets], (HEIGHT, WIDTH), config)[0]


def make_output(num_layers=2, batch=1, queries=6, mask_layers=None, many=0, **values):
    def one(count):
        return torch.randn(num_layers, batch, count, 3), torch.rand(num_layers, batch, count, 4, 2)

    def masks(count):
        return torch.randn(mask_layers or num_layers, batch, count, HEIGHT, WIDTH)

    logits, points = one(queries)
    return SimpleNamespace(
        **{
            'class_logits': logits,
            'points': points,
            'instance_masks': masks(queries),
            'one_to_many': one(many) if many else None,
            'one_to_many_instance_masks': masks(many) if many else None,
            'bev_mask_logits': None,
            'gaussians': None,
            'one_to_many_gaussians': None,
            **values,
        }
    )


def pairs_of(output, targets, config):
    criterion = Criterion(config)
    weights, masks = config.matching, None
    if weights.has_instance_masks:
        masks = (output.instance_masks, [drawn(target, config) for target in targets])
    return match(
        output.class_logits, output.points, targets, weights, 1, None, None, criterion.score, masks
    )


def slow_pixel_loss(logits, truth, score, kind, options):
    """Compute the loss of one mask pixel by pixel, with plain numbers."""
    total = 0.0
    for z, wanted in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        right, wrong = -math.log(p), -math.log(1 - p)
        if kind == 'focal':
            total += 0.25 * (1 - p) ** 2 * right if wanted else 0.75 * p**2 * wrong
        elif wanted:
            total += score * (score * right + (1 - score) * wrong)
        else:
            total += options.alpha * p**options.gamma * wrong
    return total / logits.numel()


def test_every_element_is_drawn_for_itself():
    """Lines 3 px wide around the centres of cells, crossings filled, other rings as outlines."""
    left, right, above, below = 7.5 / 20, 15.5 / 20, 6.5 / 40, 22.5 / 40
    ring = [[left, above], [right, above], [right, below], [left, below], [left, above]]
    line = [[4.5 / 20, 0.33 + 0.02 * height] for height in range(5)]
    points = torch.tensor([ring, line, ring])
    targets = MapTargets(
        labels=torch.tensor([1, 0, 2]),
        points=torch.cat([points, torch.full((3, 5, 1), 0.5)], dim=2),  # with heights
        orders=points[:, None],
        num_orders=torch.ones(3, dtype=torch.int64),
        bev_mask=torch.zeros(1, 4, 4, dtype=torch.uint8),
    )
    config = ModelConfig(losses=LossConfig(instance_mask=30.0))
    empty = replace(targets, labels=targets.labels[:0], points=targets.points[:0])
    none, masks = draw_instances([empty, targets], (40, 20), config)
    assert none.shape == (0, 40, 20) and masks.shape == (3, 40, 20)
    # The ring lies on rows 6 to 22 and columns 7 to 15, the line on column 4.
    assert masks[0, 14].nonzero().flatten().tolist() == list(range(6, 17))
    assert masks[0, :, 10].nonzero().flatten().tolist() == list(range(5, 24))
    assert masks[1, 14].nonzero().flatten().tolist() == [3, 4, 5]
    assert masks[2, 14].nonzero().flatten().tolist() == [6, 7, 8, 14, 15, 16]
    options = InstanceMaskConfig(target='line', line_width_px=5)
    wide = replace(config, losses=replace(config.losses, instance_mask_options=options))
    masks = draw_instances([targets], (40, 20), wide)[0]
    torch.testing.assert_close(masks[0], masks[2])
    assert masks[0, 14].nonzero().flatten().tolist() == [*range(5, 10), *range(13, 18)]


def test_pixel_losses_by_hand():
    # All odds even, one of four pixels on the element; s = 1/2.
    truth = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    masks = MatchedMasks(torch.tensor([0]), torch.zeros(1, 2, 2), truth)
    loss = pixel_loss(masks, torch.tensor([0.5]), 'geometry_aware', PLAIN)
    assert float(loss) == pytest.approx((0.5 + 3 * 0.75 / 4) / 4 * math.log(2))
    loss = pixel_loss(masks, None, 'focal', PLAIN)
    assert float(loss) == pytest.approx((0.25 / 4 + 3 * 0.75 / 4) / 4 * math.log(2))


@pytest.mark.parametrize('kind', ['focal', 'geometry_aware'])
def test_costs_of_all_pairs_equal_the_losses_of_single_pairs(kind):
    options = AlignmentConfig(alpha=0.6, gamma=1.5)
    logits = 3 * torch.randn(4, HEIGHT, WIDTH, dtype=torch.float64)
    truth = (torch.rand(3, HEIGHT, WIDTH) > 0.6).double()
    scores = torch.rand(4, 3, dtype=torch.float64)
    cost = pixel_cost(logits, truth, scores, kind, options)
    for query in range(4):
        masks = MatchedMasks(torch.arange(3), logits[query].expand(3, -1, -1), truth)
        naive = pixel_loss(masks, scores[query], kind, options)
        torch.testing.assert_close(cost[query], naive)
        for element in range(3):
            score = float(scores[query, element])
            slow = slow_pixel_loss(logits[query], truth[element], score, kind, options)
            assert float(cost[query, element]) == pytest.approx(slow)


def test_mask_cost_adds_weighted_pixels_and_dice():
    logits, truth = torch.randn(2, 4, HEIGHT, WIDTH), drawn(targets_of(3))
    scores = torch.rand(2, 4, 3)
    weights = MatchingConfig(instance_mask=30.0, instance_dice=3.0)
    cost = mask_cost(logits, truth, scores, weights, PLAIN)
    for layer, query, element in ((0, 0, 0), (1, 3, 2)):
        p, wanted = logits[layer, query].sigmoid(), truth[element]
        dice = 1 - (2 * (p * wanted).sum() + 1) / (p.sum() + wanted.sum() + 1)
        score = float(scores[layer, query, element])
        pixels = slow_pixel_loss(logits[layer, query], wanted, score, 'geometry_aware', PLAIN)
        assert float(cost[layer, query, element]) == pytest.approx(
            30.0 * pixels + 3.0 * float(dice), rel=1e-4
        )
    only_dice = mask_cost(logits, truth, None, MatchingConfig(instance_dice=3.0), PLAIN)
    assert 0.0 <= float(only_dice.min()) and float(only_dice.max()) <= 3.0


class LargestTensor(TorchDispatchMode):
    """Remember the most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: D105
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize('kind', ['focal', 'geometry_aware'])
def test_pairs_have_no_pixels_of_their_own(kind):
    queries, elements, layers = 30, 20, 4
    logits = torch.randn(layers, queries, 12, 10)
    truth = torch.ones(elements, 12, 10)
    weights = MatchingConfig(instance_mask=30.0, instance_dice=3.0, instance_mask_kind=kind)
    with LargestTensor() as largest:
        mask_cost(logits, truth, torch.rand(layers, queries, elements), weights, PLAIN)
    # One layer of masks at a time, beside all of them that are given.
    assert largest.elements == logits[0].numel() > truth.numel()


@pytest.mark.parametrize('kind', ['focal', 'geometry_aware'])
def test_gradients_equal_finite_differences(kind):
    logits = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)
    truth = (torch.rand(3, 4, 3) > 0.5).double()
    scores = torch.rand(3, dtype=torch.float64)

    def loss(values):
        masks = MatchedMasks(torch.arange(3), values, truth)
        return pixel_loss(masks, scores, kind, PLAIN)

    assert torch.autograd.gradcheck(loss, (logits,))


@pytest.mark.parametrize('kind', ['focal', 'geometry_aware'])
def test_the_cost_is_lowest_on_the_right_pair(kind):
    truth = drawn(targets_of(4))
    shuffle = torch.tensor([3, 1, 0, 2])
    masks = 8.0 * truth[shuffle][None] - 4.0
    weights = MatchingConfig(instance_mask=30.0, instance_dice=3.0, instance_mask_kind=kind)
    cost = mask_cost(masks, truth, torch.full((1, 4, 4), 0.9), weights, PLAIN)
    assert cost[0].argmin(1).tolist() == shuffle.tolist()
    assert cost[0].argmin(0).tolist() == shuffle.argsort().tolist()


@pytest.mark.parametrize('kind', ['focal', 'geometry_aware'])
def test_masks_change_who_wins(kind):
    """One prediction is a little nearer, but its mask is that of nothing."""
    targets = replace(targets_of(1), labels=torch.tensor([0]))
    near = targets.points + 0.01
    output = make_output(
        num_layers=1,
        points=torch.stack([near, targets.points + 0.02], dim=1)[None],
        class_logits=torch.zeros(1, 1, 2, 3),
    )
    right = 8.0 * drawn(targets) - 4.0
    output.instance_masks = torch.stack([-right, right], dim=1)[None]
    config = changed(matching={'instance_mask_kind': kind})
    assert pairs_of(output, [targets], config).query.tolist() == [1]
    off = changed(matching={'instance_mask': 0.0, 'instance_dice': 0.0})
    assert pairs_of(output, [targets], off).query.tolist() == [0]
    # The criterion asks for the cost by itself.
    for chosen, shift in ((config, 0.02), (off, 0.01)):
        loss = Criterion(chosen)(output, [targets])['points']
        assert float(loss) == pytest.approx(5.0 * 8 * shift, rel=1e-4)


@pytest.mark.parametrize('kind', ['focal', 'geometry_aware'])
def test_losses_of_the_criterion_equal_a_slow_loop(kind):
    config = changed(options={'kind': kind}, losses={'classification_kind': kind})
    targets, output = [targets_of(3), targets_of(2)], make_output(batch=2)
    criterion = Criterion(config)
    losses = criterion(output, targets)
    pairs = pairs_of(output, targets, config)
    for layer, prefix in enumerate(('d0.', '')):
        pixels = dice = 0.0
        for index in (pairs.layer == layer).nonzero()[:, 0].tolist():
            sample, query, element, order = (
                int(getattr(pairs, name)[index])
                for name in ('sample', 'query', 'element', 'order')
            )
            logits = output.instance_masks[layer, sample, query]
            wanted = drawn(targets[sample])[element]
            predicted = output.points[layer, sample, query]
            row = targets[sample].orders[element, order]
            score = float(criterion.score.of_pairs(predicted[None], row[None]))
            pixels += slow_pixel_loss(logits, wanted, score, kind, PLAIN)
            p = logits.sigmoid()
            dice += float(1 - (2 * (p * wanted).sum() + 1) / (p.sum() + wanted.sum() + 1))
        assert float(losses[f'{prefix}instance_mask']) == pytest.approx(30 * pixels / 5, rel=1e-4)
        assert float(losses[f'{prefix}instance_dice']) == pytest.approx(3 * dice / 5, rel=1e-4)


def test_every_part_is_switched_on_its_own():
    """The rows of the paper's table 8: each changes the losses of the one before."""
    targets, output = [targets_of(3)], make_output()
    rows = [changed()]
    rows.append(changed(rows[-1], losses={'classification_kind': 'geometry_aware'}))
    rows.append(changed(rows[-1], matching={'classification_kind': 'geometry_aware'}))
    rows.append(changed(rows[-1], options={'kind': 'geometry_aware'}))
    rows.append(changed(rows[-1], matching={'instance_mask_kind': 'geometry_aware'}))
    losses = [Criterion(row)(output, targets) for row in rows]
    torch.testing.assert_close(losses[0]['instance_mask'], losses[1]['instance_mask'])
    assert losses[0]['classification'] != losses[1]['classification']
    # A cost changes losses through the pairs only; two sets of pairs may be the same.
    assert [pairs_of(output, targets, row).query.tolist() for row in rows[:2]] == 2 * [
        pairs_of(output, targets, rows[0]).query.tolist()
    ]
    assert losses[2]['instance_mask'] != losses[3]['instance_mask']
    torch.testing.assert_close(losses[2]['classification'], losses[3]['classification'])
    assert losses[3]['instance_mask'] != losses[4]['instance_mask']
    single = changed(losses={'instance_mask': 0.0}, matching={'instance_mask': 0.0})
    names = set(Criterion(single)(output, targets))
    assert {'instance_dice', 'd0.instance_dice'} <= names and 'instance_mask' not in names
    assert not any('instance' in name for name in Criterion(ModelConfig())(output, targets))


def test_options_choose_layers_and_groups():
    targets, output = [targets_of(3)], make_output(many=8)
    every = Criterion(SEGMENTED)(output, targets)
    assert 'd0.instance_mask' in every and 'points_one_to_many' in every
    assert 'instance_mask_one_to_many' not in every
    both = Criterion(changed(options={'one_to_many': True}))(output, targets)
    assert both['instance_mask_one_to_many'] > 0 and both['d0.instance_dice_one_to_many'] > 0
    last = make_output(mask_layers=1, class_logits=output.class_logits, points=output.points)
    last.instance_masks = output.instance_masks[1:]
    only_last = Criterion(changed(options={'layers': 'last'}))(last, targets)
    torch.testing.assert_close(only_last['instance_mask'], every['instance_mask'])
    torch.testing.assert_close(only_last['instance_dice'], every['instance_dice'])
    assert float(only_last['d0.instance_mask']) == 0.0 < float(every['d0.instance_mask'])


def test_no_elements_reach_every_input_with_finite_gradients():
    config = changed(options={'kind': 'geometry_aware', 'one_to_many': True})
    config = changed(config, matching={'instance_mask_kind': 'geometry_aware'})
    output = make_output(batch=2, many=8)
    inputs = [output.instance_masks, output.one_to_many_instance_masks, output.class_logits]
    for value in inputs:
        value.requires_grad_()
    for batch in ([targets_of(0), targets_of(0)], [targets_of(0), targets_of(2)]):
        losses = Criterion(config)(output, batch)
        gradients = torch.autograd.grad(sum(losses.values()), inputs)
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert bool(gradients[0].any()) == (len(batch[1]) > 0)


@pytest.mark.parametrize('kind', ['focal', 'geometry_aware'])
def test_masks_are_learned(kind):
    """The head and a BEV map learn the masks of two elements of well placed queries."""
    targets = targets_of(2)
    config = replace(changed(options={'kind': kind}), embed_dims=16)
    head, criterion = InstanceMaskHead(config), Criterion(config)
    bev = torch.randn(1, 16, HEIGHT, WIDTH, requires_grad=True)
    states = torch.randn(1, 1, 2, 4, 16)
    output = make_output(num_layers=1, queries=2, points=targets.points[None, None] + 0.01)
    optimizer = torch.optim.Adam([bev, *head.parameters()], lr=0.02)
    values = []
    for _ in range(60):
        output.instance_masks = head(states, bev)
        losses = criterion(output, [targets])
        total = losses['instance_mask'] + losses['instance_dice']
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.1 * values[0]
    assert torch.equal(output.instance_masks[0, 0] > 0, drawn(targets) > 0.5)


def test_diverged_masks_give_nan_losses_not_an_exception():
    output = make_output()
    output.instance_masks = torch.full_like(output.instance_masks, torch.nan)
    losses = Criterion(SEGMENTED)(output, [targets_of(2)])
    assert torch.isnan(losses['instance_mask']) and torch.isfinite(losses['points'])


def test_what_is_missing_is_said():
    output = make_output(instance_masks=None)
    with pytest.raises(DataError, match='instance_masks=True'):
        Criterion(SEGMENTED)(output, [targets_of(2)])
    with pytest.raises(ConfigError, match='no loss trains the masks'):
        ModelConfig(matching=MatchingConfig(instance_dice=3.0))
    with pytest.raises(ConfigError, match='stride 4 does not divide the BEV grid of 6 x 5'):
        changed(options={'stride': 4})
    with pytest.raises(ConfigError, match='stride 0'):
        InstanceMaskConfig(stride=0)
