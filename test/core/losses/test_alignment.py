"""Geometry-aware scores, loss and cost: by hand, by slow loops, by finite differences."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.outputs import make_output

from gsmap_core.config import AlignmentConfig, LossConfig, MatchingConfig, ModelConfig
from gsmap_core.errors import ConfigError
from gsmap_core.losses.alignment import (
    GeometryScore,
    direction_score,
    geometry_aware_focal_cost,
    geometry_aware_focal_loss,
    giou_score,
    points_score,
)
from gsmap_core.losses.criterion import Criterion
from gsmap_core.losses.matching import match, match_cost, point_cost
from gsmap_core.losses.vectors import smooth_points_loss
from gsmap_core.targets import MapTargets

#: Metres per unit of u, v and height.
EXTENT = torch.tensor([30.0, 60.0, 20.0], dtype=torch.float64)
PLAIN = AlignmentConfig()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(7)


def random_targets(num_elements=3, num_orders=4, num_points=5, num_dims=2, dtype=torch.float64):
    orders = torch.rand(num_elements, num_orders, num_points, num_dims, dtype=dtype)
    counts = torch.randint(1, num_orders + 1, (num_elements,))
    for order, count in zip(orders, counts, strict=True):
        order[int(count) :] = order[0]
    return MapTargets(
        labels=torch.randint(0, 3, (num_elements,)),
        points=orders[:, 0],
        orders=orders,
        num_orders=counts,
        bev_mask=torch.zeros(1, 4, 4, dtype=torch.uint8),
    )


def empty_targets(num_points=5):
    return MapTargets(
        labels=torch.zeros(0, dtype=torch.int64),
        points=torch.zeros(0, num_points, 2),
        orders=torch.zeros(0, 1, num_points, 2),
        num_orders=torch.zeros(0, dtype=torch.int64),
        bev_mask=torch.zeros(1, 4, 4, dtype=torch.uint8),
    )


def unit(*points):
    return torch.tensor(points, dtype=torch.float64)[None]


def slow_score(points, target, term):
    """Compute eq. 16 to 18 point by point, with plain numbers."""
    points, target = points[:, :2].tolist(), target[:, :2].tolist()
    if term == 'points':
        distances = [
            abs(a - c) + abs(b - d) for (a, b), (c, d) in zip(points, target, strict=True)
        ]
        return 1 - sum(distances) / (2 * len(points))
    if term == 'direction':
        cosines = []
        for index in range(len(points) - 1):
            edges = [
                [30.0 * (line[index + 1][0] - line[index][0]),
                 60.0 * (line[index + 1][1] - line[index][1])]
                for line in (points, target)
            ]  # fmt: skip
            product = edges[0][0] * edges[1][0] + edges[0][1] * edges[1][1]
            cosines.append(product / (math.hypot(*edges[0]) * math.hypot(*edges[1])))
        return 0.5 + sum(cosines) / (2 * len(cosines))
    boxes = [
        [(min(axis) - 1e-4, max(axis) + 1e-4) for axis in zip(*line, strict=True)]
        for line in (points, target)
    ]
    shared = around = area = target_area = 1.0
    for (low, high), (target_low, target_high) in zip(*boxes, strict=True):
        shared *= max(0.0, min(high, target_high) - max(low, target_low))
        around *= max(high, target_high) - min(low, target_low)
        area *= high - low
        target_area *= target_high - target_low
    union = area + target_area - shared
    return 0.5 + 0.5 * (shared / union - (around - union) / around)


def slow_cross_entropy(score, probability):
    return -score * math.log(probability) - (1 - score) * math.log(1 - probability)


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def test_points_score_by_hand():
    # Manhattan distances 0.3 and 0.4 over 2 points and 2 coordinates.
    score = points_score(unit([0.1, 0.2], [0.5, 0.5]), unit([0.2, 0.4], [0.5, 0.9]))
    assert float(score) == pytest.approx(1 - 0.7 / 4)
    # Opposite corners of the range are as bad as can be.
    assert float(points_score(unit([0.0, 0.0]), unit([1.0, 1.0]))) == 0.0


def test_direction_score_by_hand():
    line = unit([0.0, 0.0], [3.0, 0.0], [6.0, 0.0])
    # The same way, then at a right angle: cosines 1 and 0. Backwards: -1 and -1.
    turning = unit([1.0, 1.0], [2.0, 1.0], [2.0, 3.0])
    assert float(direction_score(line, turning)) == pytest.approx(0.75)
    assert float(direction_score(line, line.flip(1))) == pytest.approx(0.0, abs=1e-9)
    assert float(direction_score(line, line + 5.0)) == pytest.approx(1.0)
    # An edge without length has no direction: neither like nor unlike.
    still = unit([0.0, 0.0], [0.0, 0.0], [1.0, 0.0])
    assert float(direction_score(line, still)) == pytest.approx(0.75)


def test_giou_score_by_hand():
    square = unit([0.0, 0.0], [0.5, 0.5])
    # Half of each square is shared: 1/3, and nothing is empty around them.
    shifted = square + torch.tensor([0.25, 0.0])
    assert float(giou_score(square, shifted)) == pytest.approx(0.5 + 0.5 / 3, abs=1e-3)
    # Side by side with as much between them as one of them: 0 - 1/3.
    apart = square + torch.tensor([1.0, 0.0])
    assert float(giou_score(square, apart)) == pytest.approx(0.5 - 0.5 / 3, abs=1e-3)
    # Lines along an axis have boxes without area.
    flat = unit([0.2, 0.3], [0.8, 0.3])
    assert float(giou_score(flat, flat)) == pytest.approx(1.0)
    assert float(giou_score(flat, flat + torch.tensor([0.0, 0.3]))) < 0.01


@pytest.mark.parametrize('num_dims', [2, 3])
@pytest.mark.parametrize('term', ['points', 'direction', 'giou'])
def test_scores_of_all_pairs_equal_a_slow_loop(term, num_dims):
    """Every pair is scored in the order that matching takes, by x and y alone."""
    targets = random_targets(num_dims=num_dims)
    points = torch.rand(2, 6, 5, num_dims, dtype=torch.float64)
    _, order = point_cost(points, targets)
    assert order.unique().tolist() != [0]
    score = GeometryScore(AlignmentConfig(terms=(term,)), EXTENT[:num_dims])
    scores = score.of_all(points, targets, order)
    assert scores.shape == (2, 6, 3)
    for layer in range(2):
        for query in range(6):
            rows = [targets.orders[g, int(order[layer, query, g])] for g in range(3)]
            expected = [slow_score(points[layer, query], row, term) for row in rows]
            assert scores[layer, query].tolist() == pytest.approx(expected, abs=1e-6)
            pairs = score.of_pairs(points[layer, query].expand(3, -1, -1), torch.stack(rows))
            torch.testing.assert_close(pairs, scores[layer, query])


NEARNESS = 1 - (0.25 + 0.25 + 0.65) / 6


@pytest.mark.parametrize(
    ('combination', 'expected'),
    [
        ('product', NEARNESS * 0.75),
        ('mean', (NEARNESS + 0.75) / 2),
        ('geometric_mean', (NEARNESS * 0.75) ** 0.5),
    ],
)
def test_combinations_by_hand(combination, expected):
    # Manhattan distances 0.25, 0.25 and 0.65; cosines 1 and 0.
    points = unit([0.0, 0.0], [0.2, 0.0], [0.4, 0.0])
    targets = unit([0.05, 0.2], [0.25, 0.2], [0.25, 0.5])
    options = AlignmentConfig(combination=combination)
    score = GeometryScore(options, EXTENT).of_pairs(points, targets)
    assert float(score) == pytest.approx(expected)


@pytest.mark.parametrize('combination', ['product', 'mean', 'geometric_mean'])
@pytest.mark.parametrize(
    'terms', [('points',), ('direction',), ('giou',), ('points', 'direction', 'giou')]
)
def test_a_perfect_prediction_has_the_score_1(terms, combination):
    options = AlignmentConfig(terms=terms, combination=combination)
    targets = random_targets(dtype=torch.float32)
    points = targets.orders[:, 0][None]
    scores = GeometryScore(options, EXTENT.float()).of_all(
        points, targets, point_cost(points, targets)[1]
    )[0]
    assert scores.diagonal().tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert float(scores.max()) <= 1.0 and float(scores.min()) >= 0.0
    others = scores[~torch.eye(3, dtype=torch.bool)]
    assert float(others.max()) < 0.999


def test_geometry_aware_focal_loss_by_hand_and_by_a_slow_loop():
    # s = 1 and p = 1/2: ln 2; a negative at 1/2: 0.75 * 1/4 * ln 2.
    logits, is_positive = torch.zeros(2), torch.tensor([True, False])
    loss = geometry_aware_focal_loss(logits, is_positive, torch.ones(2), PLAIN)
    assert loss.tolist() == pytest.approx([math.log(2), 0.1875 * math.log(2)])
    # The lowest loss of a positive is at p = s.
    steps = torch.linspace(-4, 4, 801)
    values = geometry_aware_focal_loss(steps, torch.tensor(True), torch.tensor(0.7), PLAIN)
    assert float(steps[values.argmin()].sigmoid()) == pytest.approx(0.7, abs=2e-3)
    logits = torch.randn(4, 3, dtype=torch.float64)
    is_positive, scores = torch.rand(4, 3) > 0.5, torch.rand(4, 3, dtype=torch.float64)
    options = AlignmentConfig(alpha=0.25, gamma=1.5)
    loss = geometry_aware_focal_loss(logits, is_positive, scores, options)
    for row in range(4):
        for column in range(3):
            p, s = sigmoid(float(logits[row, column])), float(scores[row, column])
            expected = s * slow_cross_entropy(s, p)
            if not is_positive[row, column]:
                expected = 0.25 * p**1.5 * slow_cross_entropy(0.0, p)
            assert float(loss[row, column]) == pytest.approx(expected)


def test_geometry_aware_focal_cost_by_hand_and_by_a_slow_loop():
    cost = geometry_aware_focal_cost(
        torch.zeros(1, 3), torch.tensor([1]), torch.tensor([[0.5]]), PLAIN
    )
    assert float(cost) == pytest.approx((0.5 - 0.1875) * math.log(2))
    logits, labels = torch.randn(2, 4, 3, dtype=torch.float64), torch.tensor([2, 0])
    scores = torch.rand(2, 4, 2, dtype=torch.float64)
    cost = geometry_aware_focal_cost(logits, labels, scores, PLAIN)
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(2)).tolist():
        layer, query, element = index
        p = sigmoid(float(logits[layer, query, labels[element]]))
        s = float(scores[layer, query, element])
        expected = s * slow_cross_entropy(s, p) - 0.75 * p**2 * slow_cross_entropy(1, 1 - p)
        assert float(cost[layer, query, element]) == pytest.approx(expected)


def test_the_cost_rewards_a_good_place_only_where_the_category_is_sure():
    """Near s = 1 the published cost falls with s where 1 - p < p^2, and rises elsewhere."""
    golden = (5**0.5 - 1) / 2
    logits = torch.tensor([golden - 0.05, golden + 0.05]).logit()[:, None, None]
    scores = torch.tensor([[[0.99, 1.0]]])
    cost = geometry_aware_focal_cost(logits, torch.tensor([0, 0]), scores, PLAIN)
    assert (cost[..., 1] < cost[..., 0]).flatten().tolist() == [False, True]


def test_extreme_logits_stay_finite():
    logits = torch.tensor([-100.0, 100.0], requires_grad=True)
    for is_positive in (True, False):
        loss = geometry_aware_focal_loss(
            logits, torch.tensor(is_positive), torch.tensor(0.6), PLAIN
        )
        gradient = torch.autograd.grad(loss.sum(), logits)[0]
        assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()
    cost = geometry_aware_focal_cost(
        logits[:, None], torch.tensor([0]), torch.full((2, 1), 0.6), PLAIN
    )
    assert torch.isfinite(cost).all()


def test_gradients_equal_finite_differences():
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    is_positive, scores = torch.rand(5, 3) > 0.5, torch.rand(5, 3, dtype=torch.float64)
    for gamma in (2.0, 1.5):
        options = AlignmentConfig(gamma=gamma)
        assert torch.autograd.gradcheck(
            lambda x, o=options: geometry_aware_focal_loss(x, is_positive, scores, o), (logits,)
        )
    targets = torch.rand(4, 5, 2, dtype=torch.float64)
    points = torch.rand(4, 5, 2, dtype=torch.float64, requires_grad=True)

    def smooth(values):
        matched = SimpleNamespace(
            points=values, target_points=targets, per_layer=lambda x: x.sum()[None]
        )
        return smooth_points_loss(matched, 0.3)

    assert torch.autograd.gradcheck(smooth, (points,))


GEOMETRY_AWARE = ModelConfig(
    matching=MatchingConfig(classification_kind='geometry_aware'),
    losses=LossConfig(classification_kind='geometry_aware'),
)


def expected_classification(config, logits, points, targets, pairs):
    """Return eq. 15 of one layer by a slow loop, and the sum of the scores."""
    matched = {
        (int(sample), int(query)): (int(element), int(order))
        for sample, query, element, order in zip(
            pairs.sample, pairs.query, pairs.element, pairs.order, strict=True
        )
    }
    options, total, scores = config.alignment, 0.0, 0.0
    for sample, query in torch.cartesian_prod(*map(torch.arange, logits.shape[:2])).tolist():
        element, order = matched.get((sample, query), (None, None))
        for label in range(3):
            p = sigmoid(float(logits[sample, query, label]))
            if element is not None and label == int(targets[sample].labels[element]):
                row = targets[sample].orders[element, order]
                s = 1.0
                for term in options.terms:
                    s *= slow_score(points[sample, query], row, term)
                scores += s
                total += s * slow_cross_entropy(s, p)
            elif element is None or options.negatives == 'all':
                total += options.alpha * p**options.gamma * slow_cross_entropy(0, p)
    return total, scores


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'terms': ('direction',)},
        {'terms': ('giou', 'points'), 'alpha': 0.25, 'gamma': 1.0},
        {'negatives': 'unmatched'},
        {'normaliser': 'scores'},
    ],
)
def test_classification_loss_of_the_criterion_equals_a_slow_loop(options):
    config = replace(GEOMETRY_AWARE, alignment=AlignmentConfig(**options))
    targets = [random_targets(dtype=torch.float32), random_targets(2, dtype=torch.float32)]
    logits, points = torch.randn(2, 2, 6, 3), torch.rand(2, 2, 6, 5, 2)
    criterion = Criterion(config)
    losses = criterion(make_output(logits, points), targets)
    pairs = match(logits, points, targets, config.matching, 1, None, None, criterion.score)
    for layer, name in enumerate(('d0.classification', 'classification')):
        mine = pairs.layer == layer
        chosen = SimpleNamespace(
            **{key: getattr(pairs, key)[mine] for key in ('sample', 'query', 'element', 'order')}
        )
        total, scores = expected_classification(
            config, logits[layer], points[layer], targets, chosen
        )
        divisor = 5 if config.alignment.normaliser == 'positives' else scores
        assert float(losses[name]) == pytest.approx(2.0 * total / divisor, rel=1e-4)


def test_loss_and_cost_are_switched_apart():
    targets = [random_targets(dtype=torch.float32)]
    logits, points = torch.randn(1, 1, 6, 3), torch.rand(1, 1, 6, 5, 2)
    output = make_output(logits, points)

    def classification(loss, cost):
        config = ModelConfig(
            matching=MatchingConfig(points=0.0, classification_kind=cost),
            losses=LossConfig(classification_kind=loss),
        )
        return float(Criterion(config)(output, targets)['classification'])

    values = {
        (loss, cost): classification(loss, cost)
        for loss in ('focal', 'geometry_aware')
        for cost in ('focal', 'geometry_aware')
    }
    assert len(set(values.values())) == 4


def test_scores_give_no_gradient_to_points():
    targets = [random_targets(dtype=torch.float32)]
    logits = torch.randn(1, 1, 6, 3, requires_grad=True)
    points = torch.rand(1, 1, 6, 5, 2, requires_grad=True)
    loss = Criterion(GEOMETRY_AWARE)(make_output(logits, points), targets)['classification']
    to_logits, to_points = torch.autograd.grad(loss, [logits, points], allow_unused=True)
    assert to_points is None and float(to_logits.abs().sum()) > 0


def test_the_cost_of_sure_predictions_is_lowest_on_the_right_pair():
    """Each element has its prediction, a little off; the categories are all the same."""
    targets = replace(
        random_targets(4, dtype=torch.float32), labels=torch.ones(4, dtype=torch.int64)
    )
    shuffle = torch.tensor([2, 0, 3, 1])
    points = (targets.orders[:, 0] + 0.01 * torch.randn(4, 5, 2))[shuffle][None]
    logits = torch.full((1, 4, 3), -3.0)
    logits[..., 1] = 2.2
    for points_weight in (0.0, 5.0):
        weights = MatchingConfig(points=points_weight, classification_kind='geometry_aware')
        cost, _ = match_cost(logits, points, targets, weights, GeometryScore(PLAIN, EXTENT))
        assert cost[0].argmin(1).tolist() == shuffle.tolist()
        assert cost[0].argmin(0).tolist() == shuffle.argsort().tolist()
    # The focal cost alone cannot tell them apart.
    weights = MatchingConfig(points=0.0)
    cost, _ = match_cost(logits, points, targets, weights)
    assert float(cost.std()) == pytest.approx(0.0, abs=1e-6)


def test_direction_decides_between_predictions_that_are_equally_near():
    target = torch.stack([torch.linspace(0.3, 0.7, 5), torch.full((5,), 0.5)], dim=1)
    zigzag = torch.tensor([0.0, 0.05, -0.05, 0.05, -0.05])
    shift = torch.full((5,), float(zigzag.abs().mean()))
    rough, smooth = target.clone(), target.clone()
    rough[:, 1] += zigzag
    smooth[:, 1] += shift
    points = torch.stack([rough, smooth])[None, None]
    sample = MapTargets(
        labels=torch.tensor([0]),
        points=target[None],
        orders=target[None, None],
        num_orders=torch.tensor([1]),
        bev_mask=torch.zeros(1, 4, 4, dtype=torch.uint8),
    )
    score = GeometryScore(PLAIN, EXTENT.float())
    logits = torch.full((1, 1, 2, 3), 1.5)
    assert float((points[0, 0] - target).abs().sum((1, 2)).diff()) == pytest.approx(0, abs=1e-6)
    weights = MatchingConfig(classification_kind='geometry_aware')
    pairs = match(logits, points, [sample], weights, 1, None, None, score)
    assert pairs.query.tolist() == [1]


def test_no_elements_and_one_to_many():
    logits = torch.zeros(2, 2, 4, 3, requires_grad=True)
    points = torch.rand(2, 2, 4, 5, 2, requires_grad=True)
    many = (torch.zeros(2, 2, 9, 3, requires_grad=True), torch.rand(2, 2, 9, 5, 2))
    full, empty = random_targets(2, dtype=torch.float32), empty_targets()
    for normaliser in ('positives', 'scores'):
        options = AlignmentConfig(normaliser=normaliser)
        criterion = Criterion(replace(GEOMETRY_AWARE, alignment=options))
        for batch in ([empty, empty], [empty, full], [full, empty]):
            losses = criterion(make_output(logits, points, one_to_many=many), batch)
            assert 'd0.classification_one_to_many' in losses
            total = torch.stack(list(losses.values())).sum()
            gradients = torch.autograd.grad(total, [logits, points, many[0]])
            assert torch.isfinite(total)
            assert all(torch.isfinite(gradient).all() for gradient in gradients)
    losses = criterion(make_output(logits, points), [empty, empty])
    expected = 2.0 * 2 * 4 * 3 * 0.75 * 0.25 * math.log(2)
    assert losses['classification'].item() == pytest.approx(expected, rel=1e-5)


def test_diverged_predictions_give_nan_losses_not_an_exception():
    points = torch.full((1, 1, 4, 5, 2), torch.nan)
    losses = Criterion(GEOMETRY_AWARE)(
        make_output(torch.zeros(1, 1, 4, 3), points), [random_targets(dtype=torch.float32)]
    )
    assert torch.isnan(losses['points']) and torch.isnan(losses['classification'])


def test_smooth_points_loss_by_hand():
    config = ModelConfig(losses=LossConfig(points=4.0, points_kind='smooth_l1'))
    target = torch.full((1, 1, 2, 2), 0.5)
    sample = MapTargets(
        labels=torch.tensor([0]),
        points=target[0],
        orders=target,
        num_orders=torch.tensor([1]),
        bev_mask=torch.zeros(1, 4, 4, dtype=torch.uint8),
    )
    # One coordinate is off by 0.004 (quadratic below 0.01), one by 0.3 (straight).
    points = target[None].clone()
    points[..., 0, 0] += 0.004
    points[..., 1, 1] -= 0.3
    loss = Criterion(config)(make_output(torch.zeros(1, 1, 1, 3), points), [sample])['points']
    expected = 4.0 * (0.5 * 0.004**2 / 0.01 + 0.3 - 0.005)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_scores_are_averaged_over_processes(monkeypatch):
    config = replace(GEOMETRY_AWARE, alignment=AlignmentConfig(normaliser='scores'))
    output = make_output(torch.zeros(1, 1, 8, 3), torch.rand(1, 1, 8, 5, 2))
    targets = [random_targets(6, dtype=torch.float32)]
    alone = Criterion(config)(output, targets)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    monkeypatch.setattr(torch.distributed, 'all_reduce', lambda values: values.mul_(4))
    together = Criterion(config)(output, targets)
    torch.testing.assert_close(together['classification'], alone['classification'] / 2)


def test_impossible_alignment_is_refused():
    with pytest.raises(ConfigError, match=r'terms \[\]'):
        AlignmentConfig(terms=())
    with pytest.raises(ConfigError, match='each once'):
        AlignmentConfig(terms=('points', 'points'))
    with pytest.raises(ConfigError, match='gamma -1'):
        AlignmentConfig(gamma=-1.0)
    with pytest.raises(ConfigError, match=r'points_beta 0\.0'):
        LossConfig(points_kind='smooth_l1', points_beta=0.0)
