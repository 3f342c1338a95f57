"""Relations in the decoder: which attention they reach, what they leave alone."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from gsmap_core.config import GaussianConfig, ModelConfig, RelationConfig
from gsmap_core.images import FrameBatch
from gsmap_core.models.decoder import DecoderOutput, MapDecoder
from gsmap_core.models.mapper import OnlineMapper

TERMS = ('coordinates', 'directions', 'score_rank', 'score_rank_chamfer')
ALL = dict.fromkeys(TERMS, True)


def related(config: ModelConfig, options: dict | None = None, **decoder: object) -> ModelConfig:
    """Return the configuration with relations; all terms unless `options` says otherwise."""
    relation = RelationConfig(**(ALL if options is None else options))
    return replace(config, decoder=replace(config.decoder, relation=relation, **decoder))


def decoders(host: ModelConfig, *others: ModelConfig) -> list[MapDecoder]:
    """Return decoders of the same weights; relations are large enough to be seen."""
    first = MapDecoder(host).eval()
    found = [first]
    for config in others:
        torch.manual_seed(1)
        decoder = MapDecoder(config).eval()
        missing, unexpected = decoder.load_state_dict(first.state_dict(), strict=False)
        assert not unexpected and all(name.startswith('relation.') for name in missing)
        with torch.no_grad():
            for name in missing:
                decoder.get_parameter(name).mul_(3.0)
        found.append(decoder)
    return found


def bev(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 16, 30, 15, generator=torch.Generator().manual_seed(seed))


def change(expected: DecoderOutput, actual: DecoderOutput, layer: int) -> float:
    return (expected.states[layer] - actual.states[layer]).abs().max().item()


def test_without_relations_nothing_is_different(config: ModelConfig) -> None:
    """Other options of relations that are off make no parameters and no random numbers."""
    off = related(config, {'activation': 'softplus', 'per_layer': True, 'gradient': True})
    torch.manual_seed(3)
    plain = MapDecoder(config)
    torch.manual_seed(3)
    decoder = MapDecoder(off)
    assert decoder.relation is None
    assert list(plain.state_dict()) == list(decoder.state_dict())
    expected, actual = plain(bev()), decoder(bev())
    assert torch.equal(expected.points, actual.points)
    assert torch.equal(expected.states, actual.states)
    # With relations the same seed gives the same weights of everything else.
    torch.manual_seed(3)
    tensors = MapDecoder(related(config)).state_dict()
    assert all(torch.equal(tensors[name], item) for name, item in plain.state_dict().items())


def test_a_bias_of_nothing_changes_nothing(config: ModelConfig) -> None:
    host, decoder = decoders(config, related(config))
    with torch.no_grad():
        for parameter in decoder.relation.parameters():
            parameter.zero_()
    expected, actual = host(bev()), decoder(bev())
    torch.testing.assert_close(actual.points, expected.points)
    torch.testing.assert_close(actual.class_logits, expected.class_logits)


def test_first_layer_knows_nothing(config: ModelConfig) -> None:
    host, decoder, early = decoders(
        config, related(config), related(config, {**ALL, 'first_layer': 'reference_points'})
    )
    expected, actual = host(bev()), decoder(bev())
    assert torch.equal(actual.points[0], expected.points[0])
    assert change(expected, actual, 1) > 1e-3
    assert change(expected, early(bev()), 0) > 1e-3


def test_every_switch_counts_on_its_own(config: ModelConfig) -> None:
    """All 15 sets of terms give different predictions, from as many scalars as are on."""
    sets = [dict(zip(TERMS, on, strict=True)) for on in product((False, True), repeat=4)][1:]
    host, *others = decoders(config, *(related(config, terms) for terms in sets))
    outputs = [host(bev()), *(decoder(bev()) for decoder in others)]
    for index, first in enumerate(outputs):
        for second in outputs[:index]:
            assert change(first, second, 1) > 1e-5
    for terms, decoder in zip(sets, others, strict=True):
        points = 2 * terms['coordinates'] + terms['directions']
        instances = terms['score_rank'] + terms['score_rank_chamfer']
        for projections, count in (
            (decoder.relation.points, points), (decoder.relation.instances, instances)
        ):  # fmt: skip
            assert [item.linear.in_features for item in projections] == [16 * count] * (count > 0)


def test_parts_reach_their_own_attention(config: ModelConfig) -> None:
    """Points of an instance are related within it, instances between each other."""
    seen: dict[str, list] = {}
    for name, options in (('points', {'directions': True}), ('instances', {'score_rank': True})):
        _, decoder = decoders(config, related(config, options))
        seen[name] = []
        attention = decoder.layers[1].self_attention
        for module in (attention.between_instances, attention.within_instance):
            module.register_forward_pre_hook(
                lambda _, args, kwargs, to=seen[name]: to.append(kwargs.get('bias', args[-1])),
                with_kwargs=True,
            )
        decoder(bev())
    between, within = seen['points']
    assert between is None and within.shape == (2 * 5, 2, 4, 4)
    between, within = seen['instances']
    assert between.shape == (2, 2, 5, 5) and within is None


def test_groups_of_queries_stay_apart(config: ModelConfig) -> None:
    """What the one-to-one queries predict is the same with and without the others."""
    many = related(config, num_one_to_many=7)
    decoder = MapDecoder(many).train()
    with torch.no_grad():
        for parameter in decoder.relation.parameters():
            parameter.mul_(3.0)
    expected = decoder.eval()(bev())
    actual = decoder.train()(bev())
    assert actual.points.shape[2] == 12
    torch.testing.assert_close(actual.points[:, :, :5], expected.points)
    torch.testing.assert_close(actual.class_logits[:, :, :5], expected.class_logits)
    with torch.no_grad():
        decoder.instance_embedding.weight[:5].normal_()
    changed = decoder(bev())
    torch.testing.assert_close(changed.points[:, :, 5:], actual.points[:, :, 5:])
    assert change(actual, changed, 1) > 1e-3


def test_samples_do_not_see_each_other(config: ModelConfig) -> None:
    _, decoder = decoders(config, related(config))
    both = decoder(bev())
    for index in range(2):
        alone = decoder(bev()[index : index + 1])
        torch.testing.assert_close(alone.points[:, 0], both.points[:, index])


def test_gradients_stop_at_the_relations(config: ModelConfig) -> None:
    """Only the linear layers learn from the relations, unless the option asks for more."""
    found = {}
    for name, options in (('stopped', ALL), ('full', {**ALL, 'gradient': True})):
        _, decoder = decoders(config, related(config, options))
        output = decoder(bev())
        # The points of the first layer reach the second only as relations: its reference is
        # detached, and the states have a path of their own that is the same in both.
        output.states[1].square().sum().backward()
        for parameter in decoder.relation.parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0
        found[name] = decoder.point_heads[0][-1].weight.grad
    assert found['stopped'] is None
    assert found['full'].abs().sum() > 0


def test_ping_pong_in_training(config: ModelConfig) -> None:
    """One part, the other or both; the part that is left out has no gradient, and seeds repeat."""
    (_, decoder) = decoders(config, related(config, {**ALL, 'ping_pong': True}))
    whole = decoder.eval()(bev())
    decoder.train()
    seen = set()
    for seed in range(12):
        results = []
        for _ in range(2):
            decoder.zero_grad()
            torch.manual_seed(seed)
            output = decoder(bev())
            output.states[1].square().sum().backward()
            results.append(output.points)
        used = tuple(
            part[0].linear.weight.grad is not None
            for part in (decoder.relation.points, decoder.relation.instances)
        )
        seen.add(used)
        assert torch.equal(*results)
        if used == (True, True):
            assert torch.equal(results[0], whole.points)
        else:
            assert change(whole, output, 1) > 1e-4
    assert seen == {(True, True), (True, False), (False, True)}
    assert torch.equal(decoder.eval()(bev()).points, whole.points)


@pytest.mark.parametrize(
    'gaussians', [{}, {'guided_sampling': True, 'guided_position': True}], ids=['plain', 'guided']
)
def test_gaussians_have_relations_too(
    config: ModelConfig, batch: FrameBatch, gaussians: dict
) -> None:
    host = replace(config, representation='gaussians', gaussians=GaussianConfig(**gaussians))
    torch.manual_seed(3)
    plain = OnlineMapper(host).eval()
    model = OnlineMapper(related(host)).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    with torch.inference_mode():
        expected, actual = plain(batch), model(batch)
    assert actual.gaussians.thetas.shape == (2, 2, 5, 4)
    torch.testing.assert_close(actual.points[0], expected.points[0])
    assert (actual.points[1] - expected.points[1]).abs().max() > 1e-5


def test_points_with_heights_have_relations(config: ModelConfig, batch: FrameBatch) -> None:
    """Every parameter of a whole model in training gets its gradient."""
    model = OnlineMapper(related(config, num_dims=3, num_one_to_many=6)).train()
    output = model(batch)
    assert output.points.shape == (2, 2, 5, 4, 3)
    total = output.points.sum() + output.class_logits.sum() + output.bev_mask_logits.sum()
    (total + sum(item.sum() for item in output.one_to_many)).backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
