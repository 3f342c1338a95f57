"""Relations between predictions: every equation against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gsmap_core.config import ModelConfig, RelationConfig, model_config_from_dict
from gsmap_core.errors import ConfigError
from gsmap_core.models.attention import biased_attention
from gsmap_core.models.relation import (
    BiasProjection,
    RelationEmbedding,
    chamfer_distances,
    coordinate_relations,
    corner_cosines,
    direction_relations,
    score_chamfer_relations,
    score_signs,
    sine_encoding,
)

#: A line that turns by a right angle, then by 45 degrees.
LINE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
#: A triangle of sides 4, 5 and 3 whose last point repeats the first.
RING = [[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 0.0]]
ALL = {'coordinates': True, 'directions': True, 'score_rank': True, 'score_rank_chamfer': True}


def close(actual: Tensor, expected: object, atol: float = 1e-6) -> None:
    wanted = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, wanted, atol=atol, rtol=0)


def embedding(decoder: dict | None = None, **relation: object) -> RelationEmbedding:
    """Return the relations of a decoder of 3 layers, 5 instances, 4 points and 2 heads."""
    values = {'num_layers': 3, 'num_instances': 5, 'num_points': 4, 'num_heads': 2}
    values |= {'self_attention': 'decoupled', 'relation': relation, **(decoder or {})}
    return RelationEmbedding(model_config_from_dict({'embed_dims': 16, 'decoder': values}, 'test'))


def predictions(seed: int = 0, instances: int = 5) -> tuple[list[Tensor], list[Tensor]]:
    """Return the start and two layers of points (2, M, 4, 2), and logits (2, M, 3) of both."""
    generator = torch.Generator().manual_seed(seed)
    points = [torch.rand(2, instances, 4, 2, generator=generator) for _ in range(3)]
    return points, [torch.randn(2, instances, 3, generator=generator) for _ in range(2)]


def test_coordinates_by_hand() -> None:
    """Equation 9, with a difference of -1 kept finite."""
    points = torch.tensor([[0.0, 0.5], [1.0, 0.25], [0.5, 0.5]])
    x, y = coordinate_relations(points, points)
    low = math.log(1e-4)
    close(x, [[0, low, math.log(0.5)], [math.log(2), 0, math.log(1.5)],
              [math.log(1.5), math.log(0.5), 0]])  # fmt: skip
    close(y, [[0, math.log(1.25), 0], [math.log(0.75), 0, math.log(0.75)],
              [0, math.log(1.25), 0]])  # fmt: skip
    floored = coordinate_relations(points, points, log_floor=1e-2)
    close(floored[0, 0, 1], math.log(1e-2))


@pytest.mark.parametrize(('kind', 'sign'), [('signed_log', -1), ('absolute_log', 1)])
def test_other_logarithms(kind: str, sign: int) -> None:
    points = torch.tensor([[0.25, 1.0], [0.75, 0.0]])
    relations = coordinate_relations(points, points, kind)  # type: ignore[arg-type]
    by_hand = [math.log(1.5), math.log(2)]
    close(relations[0], [[0, sign * by_hand[0]], [by_hand[0], 0]])
    close(relations[1], [[0, by_hand[1]], [sign * by_hand[1], 0]])


def test_directions_by_hand() -> None:
    """Equation 10: 4 points have 3 edges and 2 cosines; the ends repeat them."""
    cosines = corner_cosines(torch.tensor(LINE))
    half = math.sqrt(0.5)
    close(cosines, [0, 0, half, half])
    expected = [[0, 0, -half, -half], [0, 0, -half, -half], [half, half, 0, 0], [half, half, 0, 0]]
    close(direction_relations(cosines, cosines), [expected])
    close(corner_cosines(torch.tensor(LINE), 'zero'), [0, 0, half, 0])


def test_rings_wrap() -> None:
    """The last edge of a ring meets the first one: at a right angle in this triangle."""
    ring = torch.tensor(RING)
    for ends in ('replicate', 'zero'):
        close(corner_cosines(ring, ends), [0, -0.8, -0.6, 0])  # type: ignore[arg-type]
    open_line = ring + torch.tensor([[0.0, 0.0]] * 3 + [[0.0, 0.5]])
    close(corner_cosines(open_line, ring_distance_m=0.4), [-0.8, -0.8, -0.6, -0.6])
    close(corner_cosines(open_line, ring_distance_m=0.6), [0, -0.8, -0.6, 0])
    both = corner_cosines(torch.stack([ring, torch.tensor(LINE)]))
    close(both[1], corner_cosines(torch.tensor(LINE)))


def test_angles_are_those_on_the_ground() -> None:
    """Unit coordinates stand for 30 m and 60 m: the diagonal of the unit square is no 45 degrees.

    The points run straight along v, then along the diagonal of a square on the ground.
    """
    relations = embedding(directions=True)._point_relations(
        *2 * [torch.tensor([[[[0.0, 0.0], [0.0, 0.1], [0.2, 0.2], [0.4, 0.3]]]])]
    )
    close(relations[0, 0, 0, 1, 2], math.sqrt(0.5) - 1.0)


def test_score_rank_by_hand() -> None:
    """Equation 12 compares the best category; with ties, and logits whose sigmoid rounds to 1."""
    logits = torch.tensor([[[-1.0, 0.5], [0.5, -3.0], [0.2, 0.0], [30.0, 0.0], [40.0, 0.0]]])
    close(
        score_signs(logits)[0, 0],
        [[0, 0, 1, -1, -1], [0, 0, 1, -1, -1], [-1, -1, 0, -1, -1], [1, 1, 1, 0, -1],
         [1, 1, 1, 1, 0]],
    )  # fmt: skip
    first, second = score_signs(logits[:, :3], 'per_category')[0]
    close(first, [[0, -1, -1], [1, 0, 1], [1, -1, 0]])
    close(second, [[0, 1, 1], [-1, 0, -1], [-1, 1, 0]])


def test_chamfer_by_hand() -> None:
    """The Chamfer distance of equation 13, and the equation itself.

    From a to b: 1 and sqrt(2); from b to a: 1 and 3.
    """
    points = torch.tensor([[[[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 3.0]]]])
    distance = ((1 + math.sqrt(2)) / 2 + (1 + 3) / 2) / 2
    distances = chamfer_distances(points)
    close(distances, [[[0, distance], [distance, 0]]])
    signs = score_signs(torch.tensor([[[0.1], [0.7]]]))
    close(score_chamfer_relations(signs, distances), [[[[0, -distance], [distance, 0]]]])


def test_chamfer_against_all_distances() -> None:
    points = torch.rand(2, 6, 7, 2, dtype=torch.float64)
    for a in range(6):
        for b in range(6):
            gaps = (points[:, a, :, None] - points[:, b, None]).norm(dim=-1)
            expected = (gaps.amin(2).mean(1) + gaps.amin(1).mean(1)) / 2
            torch.testing.assert_close(chamfer_distances(points)[:, a, b], expected)


def test_distances_in_metres_over_the_range() -> None:
    """0.3 of the 30 m across are 9 m: 0.15 of the 60 m along."""
    relations = embedding(score_rank_chamfer=True, chamfer_unit='range')
    points = torch.tensor([[[[0.2, 0.5]], [[0.5, 0.5]]]])
    terms = relations._instance_relations(points, torch.tensor([[[2.0], [1.0]]]))
    close(terms, [[[[0, 0.15], [-0.15, 0]]]])


@pytest.mark.parametrize('num_scalars', [1, 3])
def test_projection_by_hand(num_scalars: int) -> None:
    """Equations 11 and 14: sines and cosines of 4 frequencies, a linear layer, ReLU."""
    options = RelationConfig(encoding_dims=8, encoding_temperature=16.0, encoding_scale=3.0)
    projection = BiasProjection(num_scalars, 2, options)
    nn.init.zeros_(projection.linear.bias)
    relations = torch.randn(1, num_scalars, 2, 2)
    actual = projection(relations)
    assert 0 < (actual == 0).sum() < actual.numel()
    weight, offset = projection.linear.weight, projection.linear.bias
    for i in range(2):
        for j in range(2):
            channels = []
            for value in relations[0, :, i, j].tolist():
                angles = [3.0 * value / 2**k for k in range(4)]  # 16 ** (2 k / 8) = 2 ** k
                channels += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            for head in range(2):
                total = sum(w * c for w, c in zip(weight[head].tolist(), channels, strict=True))
                assert actual[0, head, i, j].item() == pytest.approx(
                    max(total + offset[head].item(), 0.0), abs=1e-5
                )


def test_published_encoding() -> None:
    """16 channels per scalar, temperature 10000, scale 100."""
    frequencies = BiasProjection(1, 8, RelationConfig()).frequencies
    close(frequencies, [100 / 10000 ** (2 * k / 16) for k in range(8)], atol=1e-4)
    encoded = sine_encoding(torch.full((1, 1, 1), 0.01), frequencies)
    assert encoded.shape == (16, 1, 1)
    close(encoded[[0, 8], 0, 0], [math.sin(1.0), math.cos(1.0)])


@pytest.mark.parametrize('seed', range(5))
def test_no_head_starts_dead(seed: int) -> None:
    """Even with the three values of the score rank as only input."""
    torch.manual_seed(seed)
    bias = BiasProjection(1, 8, RelationConfig())(torch.tensor([[[[-1.0, 0.0, 1.0]] * 3]]))
    assert (bias.amax((0, 2, 3)) > 0).all()


def test_activations_and_shared_heads() -> None:
    relations = torch.randn(3, 1, 4, 4)
    plain = BiasProjection(1, 2, RelationConfig(activation='none'))
    with torch.no_grad():
        plain.linear.bias.zero_()
    expected = plain(relations)
    for activation, function in (('relu', torch.relu), ('softplus', functional.softplus)):
        other = BiasProjection(1, 2, RelationConfig(activation=activation))  # type: ignore
        other.load_state_dict(plain.state_dict())
        torch.testing.assert_close(other(relations), function(expected))
    assert expected.min() < 0
    shared = BiasProjection(1, 2, RelationConfig(per_head=False))
    assert shared.linear.out_features == 1
    bias = shared(relations)
    assert bias.shape == (3, 2, 4, 4) and torch.equal(bias[:, 0], bias[:, 1])


@pytest.mark.parametrize('seed', range(3))
def test_nothing_is_related_to_itself(seed: int) -> None:
    """Equations 9, 10, 12 and 13 are exactly 0 for i = j, also where lines have no length."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, 5, 4, 2, generator=generator)
    points[0, 0] = points[0, 0, :1]  # all points in one place
    points[0, 1, -1] = points[0, 1, 0]  # a ring
    points[1, 0] = points[1, 1]  # the same line twice
    logits = torch.randn(2, 5, 3, generator=generator)
    logits[1, 2] = logits[1, 3]
    relations = embedding(**ALL)
    for terms in (
        relations._point_relations(points, points),
        relations._instance_relations(points, logits),
    ):
        assert not terms.diagonal(dim1=-2, dim2=-1).count_nonzero()
        assert terms.isfinite().all() and terms.count_nonzero()


def test_bias_of_a_pair_with_itself_is_one_constant_per_head() -> None:
    """The cosines of 0 are 1: what is left is a sum of weights."""
    relations = embedding(**ALL)
    with torch.no_grad():
        relations.points[0].linear.bias.copy_(torch.tensor([1.5, 2.0]))
        relations.instances[0].linear.bias.copy_(torch.tensor([2.5, 3.0]))
    points, logits = predictions()
    bias = relations(points, logits, [5])
    assert bias.points.shape == (2, 5, 2, 4, 4) and bias.instances.shape == (2, 2, 5, 5)
    for values, projection, terms in (
        (bias.points.flatten(0, 1), relations.points[0], 3),
        (bias.instances, relations.instances[0], 2),
    ):
        cosines = torch.tensor([0.0] * 8 + [1.0] * 8).repeat(terms)
        constants = projection.linear.weight @ cosines + projection.linear.bias
        assert constants[0] != constants[1]
        diagonal = values.diagonal(dim1=-2, dim2=-1)
        expected = constants[None, :, None].expand_as(diagonal)
        torch.testing.assert_close(diagonal, expected, atol=1e-5, rtol=0)
        assert (values - constants[:, None, None]).abs().max() > 0.1


def test_biases_come_from_the_layer_before() -> None:
    relations = embedding(**ALL)
    points, logits = predictions()
    bias = relations(points, logits, [5])
    other, _ = predictions(1)
    same = relations(
        [other[0], other[1], points[2]], [torch.zeros_like(logits[0]), logits[1]], [5]
    )
    assert torch.equal(bias.points, same.points) and torch.equal(bias.instances, same.instances)
    start = relations(points[:1], [], [5])
    assert start.points is None and start.instances is None


def test_alternatives_of_layers() -> None:
    """The first layer may know the reference points; pairs may span two layers."""
    points, logits = predictions()
    early = embedding(**ALL, first_layer='reference_points')
    bias = early(points[:1], [], [5])
    assert bias.points is not None and bias.instances is None
    spanning = embedding(coordinates=True, pairs='two_layers', activation='none')
    bias = spanning(points[:2], logits[:1], [5])
    pairs = coordinate_relations(points[0], points[1]).flatten(0, 1)
    expected = spanning.points[0](pairs).unflatten(0, (2, 5))
    torch.testing.assert_close(bias.points, expected)
    own = embedding(**ALL, per_layer=True)
    assert (len(own.points), len(own.instances)) == (2, 2)
    own = embedding(**ALL, per_layer=True, first_layer='reference_points')
    assert (len(own.points), len(own.instances)) == (3, 2)
    second, third = (own([points[0]] * n, [logits[0]] * (n - 1), [5]) for n in (2, 3))
    assert not torch.equal(second.points, third.points)
    assert not torch.equal(second.instances, third.instances)
    by_category = embedding(score_rank=True, score_rank_chamfer=True, score_kind='per_category')
    assert by_category.instances[0].linear.in_features == 6 * 16
    assert by_category(points, logits, [5]).instances.shape == (2, 2, 5, 5)


def test_heights_are_not_looked_at() -> None:
    relations = embedding({'num_dims': 3}, **ALL)
    points, logits = predictions()
    flat = relations(points, logits, [5])
    high = relations(
        [torch.cat([p, torch.rand_like(p[..., :1])], -1) for p in points], logits, [5]
    )
    assert torch.equal(flat.points, high.points)
    assert torch.equal(flat.instances, high.instances)


def test_groups_are_related_apart() -> None:
    relations = embedding(**ALL)
    points, logits = predictions(instances=8)
    both = relations(points, logits, [5, 3]).instances
    first = relations([p[:, :5] for p in points], [c[:, :5] for c in logits], [5]).instances
    last = relations([p[:, 5:] for p in points], [c[:, 5:] for c in logits], [3]).instances
    torch.testing.assert_close(both[..., :5, :5], first)
    torch.testing.assert_close(both[..., 5:, 5:], last)
    assert not both[..., :5, 5:].any() and not both[..., 5:, :5].any()


def summed(relations: RelationEmbedding, points: list[Tensor], logits: list[Tensor]) -> Tensor:
    """Return a sum of both biases in which every entry has another weight."""
    bias = relations(points, logits, [5])
    flat = torch.cat([bias.points.flatten(), bias.instances.flatten()])
    return (flat * torch.linspace(-1, 1, flat.numel(), dtype=flat.dtype)).sum()


def test_gradient_reaches_the_linear_layers_and_not_the_predictions() -> None:
    """Against finite differences, in float64."""
    relations = embedding(**ALL).double()
    points, logits = predictions()
    points = [p.double().requires_grad_() for p in points]
    logits = [c.double().requires_grad_() for c in logits]
    summed(relations, points, logits).backward()
    assert all(item.grad is None for item in (*points, *logits))
    for projection in (*relations.points, *relations.instances):
        for parameter in (projection.linear.weight, projection.linear.bias):
            flat, step = parameter.data.view(-1), 1e-6
            for index in range(0, flat.numel(), 7):
                ends = []
                for sign in (1, -1):
                    flat[index] += sign * step
                    ends.append(summed(relations, points, logits).item())
                    flat[index] -= sign * step
                slope = (ends[0] - ends[1]) / (2 * step)
                assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, abs=1e-6)


def test_gradient_of_the_predictions_where_it_is_asked_for() -> None:
    relations = embedding(**ALL, gradient=True, activation='softplus', encoding_scale=5.0).double()
    points, logits = predictions()
    points[1][0, 0] = points[1][0, 1]  # no NaN where distances are 0
    moved = points[1].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: summed(relations, [p], [logits[0].double()]), (moved[:1],), atol=1e-5
    )


def test_attention_with_bias_by_hand() -> None:
    """Equations 7 and 8: softmax(F_rel + Q K^T / sqrt(d)) V; two rows share each bias."""
    attention = nn.MultiheadAttention(6, 2, batch_first=True)
    nn.init.normal_(attention.in_proj_bias)
    query, value = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
    bias = torch.randn(2, 2, 5, 5)
    bias[:, :, :3, 4] = -torch.inf
    actual = biased_attention(attention, query, value, bias)
    w_q, w_k, w_v = attention.in_proj_weight.chunk(3)
    b_q, b_k, b_v = attention.in_proj_bias.chunk(3)
    for row in range(4):
        q, k, v = query[row] @ w_q.T + b_q, query[row] @ w_k.T + b_k, value[row] @ w_v.T + b_v
        heads = []
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            logits = bias[row // 2, head] + q[:, part] @ k[:, part].T / math.sqrt(3)
            heads.append(logits.softmax(-1) @ v[:, part])
        expected = attention.out_proj(torch.cat(heads, -1))
        torch.testing.assert_close(actual[row], expected, atol=1e-5, rtol=1e-4)


def test_attention_without_bias_is_the_usual_one() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    query, value = torch.randn(6, 5, 8), torch.randn(6, 5, 8)
    expected, _ = attention(query, query, value, need_weights=False)
    actual = biased_attention(attention, query, value, torch.zeros(3, 2, 5, 5))
    torch.testing.assert_close(actual, expected)


def test_dropout_of_the_attention_is_kept() -> None:
    attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    x, bias = torch.randn(6, 5, 8), torch.zeros(3, 2, 5, 5)
    assert not torch.equal(*(biased_attention(attention, x, x, bias) for _ in range(2)))
    attention.eval()
    assert torch.equal(*(biased_attention(attention, x, x, bias) for _ in range(2)))


def draws(relations: RelationEmbedding, count: int) -> list[tuple[bool, bool]]:
    torch.manual_seed(7)
    return [relations.draw_parts() for _ in range(count)]


@pytest.mark.parametrize(
    ('options', 'shares'),
    [({}, (1 / 3, 1 / 3, 1 / 3)), ({'ping_pong_both': 0.0}, (0.0, 0.5, 0.5))],
)
def test_ping_pong_plays_by_chance_in_training(options: dict, shares: tuple) -> None:
    relations = embedding(**ALL, ping_pong=True, **options).train()
    drawn = draws(relations, 3000)
    for parts, share in zip(((True, True), (True, False), (False, True)), shares, strict=True):
        # Four standard deviations of 3000 draws.
        assert drawn.count(parts) / 3000 == pytest.approx(share, abs=0.035 if share else 0)
    assert draws(relations, 50) == drawn[:50]
    assert set(draws(relations.eval(), 50)) == {(True, True)}


def test_without_ping_pong_no_random_number_is_used() -> None:
    relations = embedding(**ALL).train()
    before = torch.get_rng_state()
    assert relations.draw_parts() == (True, True)
    assert torch.equal(before, torch.get_rng_state())


def test_parts_that_are_left_out() -> None:
    relations = embedding(**ALL)
    points, logits = predictions()
    whole = relations(points, logits, [5])
    only_points = relations(points, logits, [5], (True, False))
    assert only_points.instances is None and torch.equal(only_points.points, whole.points)
    only_instances = relations(points, logits, [5], (False, True))
    assert only_instances.points is None
    assert torch.equal(only_instances.instances, whole.instances)


@pytest.mark.parametrize(
    ('decoder', 'message'),
    [
        ({'relation': {'score_rank': True}}, "relation with self_attention 'joint'; expected"),
        ({'self_attention': 'decoupled', 'num_layers': 1, 'relation': {'coordinates': True}},
         'relation with num_layers 1; expected 2 or more'),
        ({'self_attention': 'decoupled', 'num_points': 2, 'relation': {'directions': True}},
         'relation.directions with num_points 2; expected 3 or more'),
        ({'relation': {'ping_pong': True, 'coordinates': True}}, 'switch on coordinates or dir'),
        ({'relation': {'ping_pong': True, 'score_rank': True}}, 'switch on coordinates or dir'),
        ({'relation': {'encoding_dims': 15}}, 'encoding_dims 15; expected an even number'),
        ({'relation': {'encoding_temperature': 1.0}}, 'encoding_temperature 1.0; expected more'),
        ({'relation': {'encoding_scale': 0}}, 'encoding_scale 0.0; expected more than 0'),
        ({'relation': {'log_floor': 0}}, 'log_floor 0.0; expected a number between 0 and 1'),
        ({'relation': {'ring_distance_m': -1}}, 'ring_distance_m -1.0; expected 0 or more'),
        ({'relation': {'ping_pong_both': 1}}, 'ping_pong_both 1.0; expected 0 or more and less'),
        ({'relation': {'coordinate': True}}, "unknown key 'coordinate'"),
    ],
)  # fmt: skip
def test_impossible_relations_are_refused(decoder: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config_from_dict({'decoder': decoder}, 'a.yaml')


def test_relations_are_off_by_default() -> None:
    relation = ModelConfig().decoder.relation
    assert not relation.is_on and not relation.ping_pong
