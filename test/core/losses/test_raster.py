"""Raster cost and raster loss: measures by hand, targets, the assignment, the options."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.outputs import make_output

from gsmap_core.config import (
    DecoderConfig,
    LossConfig,
    MatchingConfig,
    ModelConfig,
    RasterLossConfig,
)
from gsmap_core.errors import ConfigError
from gsmap_core.losses.criterion import Criterion
from gsmap_core.losses.matched import MatchedPredictions
from gsmap_core.losses.matching import match
from gsmap_core.losses.raster import RasterCosts, raster_loss, render_predictions, render_targets
from gsmap_core.losses.raster_measures import (
    dice_loss,
    mask_loss,
    pairwise_loss,
    structural_similarity,
)
from gsmap_core.targets import MapTargets

DIVIDER, CROSSING = 0, 1
#: MapVR on small canvases.
MAPVR = ModelConfig(
    decoder=DecoderConfig(num_points=4),
    matching=MatchingConfig(2.0, 1.0, raster=10.0, raster_rows=16, raster_columns=8),
    losses=LossConfig(
        points=1.0,
        direction=0.002,
        direction_kind='smoothness',
        raster=15.0,
        raster_options=RasterLossConfig(rows=24, columns=12, measure='dice', target='soft'),
    ),
)


def with_options(config=MAPVR, **values):
    options = replace(config.losses.raster_options, **values)
    return replace(config, losses=replace(config.losses, raster_options=options))


def with_losses(**values):
    return replace(MAPVR, losses=replace(MAPVR.losses, **values))


def targets_of(labels, points):
    points = torch.as_tensor(points, dtype=torch.float32)
    return MapTargets(
        labels=torch.tensor(labels, dtype=torch.int64),
        points=points,
        orders=torch.stack([points, points.flip(1)], dim=1),
        num_orders=torch.full((len(points),), 2),
        bev_mask=torch.zeros(1, 4, 4, dtype=torch.uint8),
    )


def pairs_of(output, targets, config=MAPVR):
    costs = RasterCosts(targets, config)
    return match(output.class_logits, output.points, targets, config.matching, 1, None, costs)


def straight(start, end, num_points=4):
    share = torch.linspace(0, 1, num_points)[:, None]
    return torch.tensor(start) + share * (torch.tensor(end) - torch.tensor(start))


RING = torch.tensor([[0.2, 0.2], [0.8, 0.2], [0.5, 0.8], [0.2, 0.2]])


def test_dice_and_iou_by_hand():
    mask = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    truth = torch.tensor([[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    # Shared 1.5 and 0; areas 1.5, 3 and 1.
    expected = torch.tensor([[1 - 4 / 5.5, 1 - 1 / 3.5]])
    torch.testing.assert_close(pairwise_loss(mask, truth, 'dice'), expected)
    torch.testing.assert_close(dice_loss(mask.expand(2, -1, -1), truth), expected[0])
    expected = torch.tensor([[1 - 2.5 / 4, 1 - 1 / 3.5]])
    torch.testing.assert_close(pairwise_loss(mask, truth, 'iou'), expected)
    assert float(dice_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))) == 0.0


@pytest.mark.parametrize(
    ('measure', 'expected'),
    [
        # Pixels: 0.25 off on the element (weight 5), 0.5 off beside it, two right ones.
        ('l1', (5 * 0.25 + 0.5) / 4),
        ('mse', (5 * 0.0625 + 0.25) / 4),
        ('bce', (5 * -math.log(0.75) - math.log(0.5)) / 4),
    ],
)
def test_weighted_pixels_by_hand(measure, expected):
    options = RasterLossConfig(measure=measure, foreground_weight=5.0, ssim_weight=0.0)
    masks, truth = torch.tensor([[[0.75, 0.5], [0.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0, 0]]])
    assert float(mask_loss(masks, truth, options)) == pytest.approx(expected, abs=1e-5)


def test_structure_by_hand_and_its_share():
    # One bright pixel against nothing: means g, 0; second moments g, 0, so the variance is
    # g - g^2 where g is the window around the pixel.
    size, sigma = 11, 1.5
    masks, truth = torch.zeros(1, 11, 11), torch.zeros(1, 11, 11)
    masks[0, 5, 5] = 1.0
    offsets = torch.arange(size) - 5.0
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    g = torch.outer(window, window) / window.sum() ** 2
    expected = (1e-4 / (g**2 + 1e-4)) * (9e-4 / (g - g**2 + 9e-4))
    ssim = structural_similarity(masks, truth)
    assert float(ssim) == pytest.approx(float(expected.mean()), rel=1e-4)
    assert float(structural_similarity(masks, masks)) == pytest.approx(1.0)
    options = RasterLossConfig(measure='l1', foreground_weight=1.0, ssim_weight=0.2)
    loss = float(mask_loss(masks, truth, options))
    assert loss == pytest.approx(0.8 / 121 + 0.2 * (1 - float(ssim)), rel=1e-5)


@pytest.mark.parametrize('measure', ['l1', 'mse', 'bce', 'dice'])
def test_gradients_of_measures_equal_finite_differences(measure):
    torch.manual_seed(0)
    options = RasterLossConfig(measure=measure)
    masks = (0.1 + 0.8 * torch.rand(2, 6, 5, dtype=torch.float64)).requires_grad_()
    truth = torch.rand(2, 6, 5, dtype=torch.float64).round()
    assert torch.autograd.gradcheck(lambda x: mask_loss(x, truth, options), (masks,))


def test_a_crossing_is_an_area_and_a_divider_a_line():
    points = RING.expand(2, -1, -1)
    masks = render_predictions(points, None, torch.tensor([DIVIDER, CROSSING]), (40, 20), MAPVR)
    assert masks[0, 16, 10] < 0.01 < 0.9 < masks[1, 16, 10]
    # Unit coordinates times columns and rows, pixel centres at whole numbers.
    assert float(masks[0, 8, 4]) == pytest.approx(1.0, abs=1e-5)


def test_targets_soft_outlined_and_filled():
    points, labels = RING[None], torch.tensor([CROSSING])
    soft = render_targets(points, labels, (40, 20), MAPVR)
    torch.testing.assert_close(soft, render_predictions(points, None, labels, (40, 20), MAPVR))
    thin = with_options(rows=40, columns=20, target='line', line_width_px=1)
    outline = render_targets(points, labels, (40, 20), thin)[0]
    assert outline[8, 4:17].tolist() == [1.0] * 13  # the upper edge, from (4, 8) to (16, 8)
    assert float(outline[32, 10]) == 1.0 and float(outline[16, 10]) == 0.0
    filled = render_targets(points, labels, (40, 20), with_options(thin, target='filled'))[0]
    assert float(filled[16, 10]) == 1.0 and float(filled[36, 10]) == 0.0
    line = render_targets(points, torch.tensor([DIVIDER]), (40, 20), thin)[0]
    torch.testing.assert_close(line, outline)
    assert set(filled.unique().tolist()) == {0.0, 1.0}


def test_binary_lines_keep_their_width_in_metres_on_another_canvas():
    line = straight([0.1, 0.503], [0.9, 0.503])[None]
    config = with_options(rows=60, columns=30, target='line', line_width_px=6)
    label = torch.tensor([DIVIDER])
    for rows in (60, 30):
        mask = render_targets(line, label, (rows, 30), config)[0]
        assert float(mask[:, 15].sum()) == 6 * rows / 60


def test_cost_of_a_column_follows_the_element_not_the_prediction():
    targets = targets_of([DIVIDER, CROSSING], torch.stack([RING, RING]))
    cost = RasterCosts([targets], MAPVR)(RING.expand(2, 3, -1, -1), None, 0)
    assert cost.shape == (2, 3, 2)
    # The same ring, drawn as a line and as an area: each is soft, so only alike, not equal.
    canvas = (16, 8)
    for column, label in enumerate((DIVIDER, CROSSING)):
        mask = render_predictions(RING[None], None, torch.tensor([label]), canvas, MAPVR)
        torch.testing.assert_close(cost[1, 2, column], dice_loss(mask, mask)[0])


def test_raster_cost_changes_who_wins():
    """One prediction is nearer in coordinates but beside the line, the other lies on it."""
    target = straight([0.5, 0.2], [0.5, 0.8])
    beside = target + torch.tensor([0.1, 0.0])  # 4 * 0.1 in coordinates, 3.2 px of 32
    along = target + torch.tensor([0.0, 0.15])  # 4 * 0.15, but three quarters are shared
    points = torch.stack([beside, along])[None, None]
    logits = torch.zeros(1, 1, 2, 3)
    targets = targets_of([DIVIDER], target[None])
    weights = MatchingConfig(2.0, 1.0, raster=10.0, raster_rows=64, raster_columns=32)
    config = replace(MAPVR, matching=weights)
    output = make_output(logits, points)
    assert match(logits, points, [targets], weights).query.tolist() == [0]
    assert pairs_of(output, [targets], config).query.tolist() == [1]
    # The criterion asks for the cost by itself, and leaves it out where its weight is 0.
    for raster, difference in ((10.0, 0.6), (0.0, 0.4)):
        changed = replace(config, matching=replace(weights, raster=raster))
        loss = Criterion(changed)(output, [targets])
        assert float(loss['points']) == pytest.approx(difference, rel=1e-5)


def test_loss_is_the_mean_dice_of_the_pairs_at_every_layer():
    targets = targets_of([DIVIDER, CROSSING], torch.stack([RING + 0.05, RING]))
    points = torch.rand(2, 1, 2, 4, 2, generator=torch.Generator().manual_seed(1))
    output = make_output(torch.zeros(2, 1, 2, 3), points)
    losses = Criterion(MAPVR)(output, [targets])
    pairs = pairs_of(output, [targets])
    for layer, name in enumerate(('d0.raster', 'raster')):
        mine = pairs.layer == layer
        labels = targets.labels[pairs.element[mine]]
        masks = render_predictions(
            points[layer, 0, pairs.query[mine]], None, labels, (24, 12), MAPVR
        )
        # The targets are drawn in the order of the ground truth, whatever order is nearest.
        truth = render_predictions(
            targets.points[pairs.element[mine]], None, labels, (24, 12), MAPVR
        )
        expected = 15.0 * dice_loss(masks, truth).mean()
        torch.testing.assert_close(losses[name], expected)


def test_options_choose_layers_queries_and_groups():
    targets = [targets_of([CROSSING], RING[None])]
    generator = torch.Generator().manual_seed(2)
    points = torch.rand(2, 1, 3, 4, 2, generator=generator)
    many = (torch.zeros(2, 1, 6, 3), torch.rand(2, 1, 6, 4, 2, generator=generator))
    output = make_output(torch.zeros(2, 1, 3, 3), points, one_to_many=many)
    matched = Criterion(MAPVR)(output, targets)
    assert 'raster' in matched and 'raster_one_to_many' not in matched
    both = Criterion(with_options(one_to_many=True))(output, targets)
    assert both['raster_one_to_many'] > 0
    last = Criterion(with_options(layers='last'))(output, targets)
    torch.testing.assert_close(last['raster'], matched['raster'])
    assert float(last['d0.raster']) == 0.0 < float(matched['d0.raster'])
    everything = Criterion(with_options(rendered='all'))(output, targets)
    query = int(pairs_of(output, targets).query[-1])
    # Equal logits: the unmatched two count as dividers, whose dice with nothing is that below.
    free = [index for index in range(3) if index != query]
    masks = render_predictions(points[1, 0, free], None, torch.zeros(2).long(), (24, 12), MAPVR)
    expected = (matched['raster'] / 15 + dice_loss(masks, torch.zeros_like(masks)).sum()) / 3
    torch.testing.assert_close(everything['raster'], 15 * expected)


def test_smoothness_compares_each_edge_with_the_next():
    # In metres: right, right, then at a right angle.
    extent = torch.tensor(MAPVR.grid.unit_extent_m())
    metres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [6.0, 0.0], [6.0, 3.0]])
    points = (metres / extent)[None, None, None]
    # The element is the same line: the direction towards the target would be 0.
    targets = targets_of([DIVIDER], (metres / extent)[None])
    output = make_output(torch.zeros(1, 1, 1, 3), points)
    loss = Criterion(MAPVR)(output, [targets])
    assert float(loss['direction']) == pytest.approx(0.002 * 1.0, abs=1e-7)
    plain = Criterion(with_losses(direction_kind='target'))(output, [targets])
    assert float(plain['direction']) == pytest.approx(0.0, abs=1e-7)


def test_no_elements_and_diverged_points():
    empty = targets_of([], torch.zeros(0, 4, 2))
    points = torch.rand(1, 1, 3, 4, 2, requires_grad=True)
    for rendered in ('matched', 'all'):
        config = with_options(rendered=rendered)
        losses = Criterion(config)(make_output(torch.zeros(1, 1, 3, 3), points), [empty])
        assert torch.isfinite(torch.stack(list(losses.values()))).all()
        assert torch.isfinite(torch.autograd.grad(sum(losses.values()), points)[0]).all()
    diverged = torch.full((1, 1, 3, 4, 2), torch.nan)
    full = targets_of([CROSSING], RING[None])
    losses = Criterion(MAPVR)(make_output(torch.zeros(1, 1, 3, 3), diverged), [full])
    assert torch.isnan(losses['raster'])


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'measure': 'l1', 'target': 'line', 'rendered': 'all'},
        {'measure': 'bce', 'target': 'filled', 'layers': 'last'},
    ],
)
def test_gradient_of_the_raster_loss_equals_finite_differences(options):
    config = with_options(rows=8, columns=6, **options)
    torch.manual_seed(5)
    points = torch.rand(2, 1, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    class_targets = torch.zeros(2, 1, 3, 3)
    class_targets[0, 0, 1, CROSSING] = class_targets[1, 0, 2, DIVIDER] = 1.0
    elements = torch.stack([RING + 0.05, RING]).double()

    def loss(values):
        matched = MatchedPredictions(
            class_logits=torch.eye(3, dtype=torch.float64).expand(2, 1, 3, 3),
            class_targets=class_targets,
            layer=torch.tensor([0, 1]),
            points=values[[0, 1], 0, [1, 2]],
            target_points=elements,
            metres_per_unit=torch.ones(2),
            element=torch.tensor([1, 0]),
            element_labels=torch.tensor([DIVIDER, CROSSING]),
            element_points=elements,
            all_points=values,
        )
        return raster_loss(matched, config)

    assert torch.autograd.gradcheck(loss, (points,))
    gradient = torch.autograd.grad(loss(points).sum(), points)[0]
    reached = gradient.abs().sum((-1, -2)).nonzero()[:, [0, 2]].tolist()
    last = [[1, query] for query in range(3)]
    assert (
        reached
        == {
            'dice': [[0, 1], [1, 2]],
            'l1': [[0, query] for query in range(3)] + last,
            'bce': [[1, 2]],
        }[config.losses.raster_options.measure]
    )


def test_a_representation_that_cannot_be_rendered_is_refused(monkeypatch):
    monkeypatch.setattr('gsmap_core.losses.raster._RENDERERS', {})
    with pytest.raises(ConfigError, match="'points' cannot be rendered"):
        Criterion(MAPVR)
    Criterion(ModelConfig())  # neither cost nor loss: nothing to render
