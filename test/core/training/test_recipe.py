"""Recipes, learning rate, parameter groups, averaging."""

import pytest
import torch
from helpers.fake_drives import micro_config
from torch import nn

from gsmap_core.config import config_path, to_plain
from gsmap_core.errors import ConfigError
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.training.ema import ModelEma
from gsmap_core.training.recipe import (
    TrainConfig,
    apply_overrides,
    load_recipe,
    recipe_from_dict,
)
from gsmap_core.training.schedule import build_optimizer, lr_factor, set_learning_rate


def test_every_shipped_recipe_loads():
    folder = config_path('train', 'synthetic_tiny').parent
    names = [path.stem for path in folder.glob('*.yaml')]
    assert {'synthetic_tiny', 'synthetic_mini'} <= set(names)
    for name in names:
        assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'steps': 5, 'learning_rate': 1.0}, "unknown key 'learning_rate'"),
        ({'steps': 'many'}, "'many' is a str; expected"),
        ({}, 'expected exactly one'),
        ({'steps': 5, 'epochs': 1.0}, 'expected exactly one'),
        ({'steps': 5, 'lr': 0.0}, 'lr is 0.0; expected more than 0'),
        ({'steps': 5, 'precision': 'fp8'}, "'fp8' is not allowed"),
        ({'steps': 5, 'eval_metrics': ['iou']}, "'iou' is not allowed"),
        ({'steps': 5, 'eval_metrics': ['raster']}, "expected 'chamfer' among them"),
        ({'steps': 5, 'augmentation': {'mirror': 2.0}}, 'mirror is 2.0'),
        ({'steps': 5, 'total_batch_size': 8, 'accumulate_steps': 2}, 'expected one of them'),
        ({'steps': 5, 'eval_interval_epochs': 0.0}, 'eval_interval_epochs is 0.0'),
    ],
)
def test_bad_recipes_are_refused_with_the_place(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        recipe_from_dict(values, 'my.yaml')
    assert 'my.yaml' in str(caught.value)


def test_overrides_reach_nested_values_and_numbers_are_numbers():
    values = {'steps': 5, 'augmentation': {'mirror': 0.5}}
    assignments = [('lr', '1e-3'), ('augmentation.mirror', '0'), ('augmentation.hue_deg', '2')]
    recipe = recipe_from_dict(apply_overrides(values, assignments), 'x')
    assert recipe.lr == 1e-3 and recipe.augmentation.mirror == 0.0
    assert recipe.augmentation.hue_deg == 2.0
    assert values['augmentation'] == {'mirror': 0.5}
    with pytest.raises(ConfigError, match="'steps' is a value"):
        apply_overrides(values, [('steps.x', '1')])


def test_length_from_epochs_counts_all_processes():
    recipe = TrainConfig(epochs=3, batch_size=4)
    assert recipe.total_steps(100) == 75
    assert recipe.total_steps(100, 2) == 38


def test_a_stated_batch_is_reached_by_accumulating():
    recipe = TrainConfig(epochs=24, batch_size=4, total_batch_size=32)
    assert [recipe.accumulation(count) for count in (1, 2, 8)] == [8, 4, 1]
    for count in (1, 2, 8):  # the same training on any number of GPUs
        assert recipe.steps_per_epoch(28130, count) == 28130 / 32
        assert recipe.total_steps(28130, count) == 21098
    with pytest.raises(ConfigError, match='3 process.es. with batch_size 4 take 12 samples'):
        recipe.accumulation(3)
    assert TrainConfig(steps=1, accumulate_steps=3).accumulation(5) == 3


def test_evaluations_come_every_so_many_epochs():
    recipe = TrainConfig(epochs=24, batch_size=4, eval_interval_epochs=6)
    assert recipe.eval_steps(100, 1) == 150 and recipe.eval_steps(100, 5) == 30
    assert TrainConfig(steps=5, eval_interval_steps=7).eval_steps(100) == 7


def test_cosine_stays_for_an_epoch():
    """4 epochs of 2.5 steps, no warm-up: 1, cos(pi / 4), cos(pi / 2), cos(3 pi / 4)."""
    recipe = TrainConfig(epochs=4, lr_schedule='epoch', warmup_steps=0, min_lr_factor=0.1)
    values = [lr_factor(step, 10, recipe, 2.5) for step in range(10)]
    expected = [0.1 + 0.45 * (1 + c) for c in (1.0, 2**-0.5, 0.0, -(2**-0.5))]
    assert values == pytest.approx([expected[i] for i in (0, 0, 0, 1, 1, 2, 2, 2, 3, 3)])
    warm = TrainConfig(epochs=4, lr_schedule='epoch', warmup_steps=4, min_lr_factor=0.1)
    values = [lr_factor(step, 10, warm, 2.5) for step in range(5)]
    ramp = [1 / 3, 0.5, 2 / 3, 5 / 6, 1.0]
    assert values == pytest.approx(
        [r * e for r, e in zip(ramp, [1, 1, 1, *expected[1:2] * 2], strict=True)]
    )
    # Cut short with --steps: less than an epoch stays at the peak.
    short = TrainConfig(steps=2, lr_schedule='epoch', warmup_steps=0)
    assert [lr_factor(step, 2, short, 1000.0) for step in range(2)] == [1.0, 1.0]


def test_learning_rate_warms_up_and_follows_a_cosine():
    recipe = TrainConfig(steps=101, warmup_steps=10, warmup_factor=0.2, min_lr_factor=0.01)
    values = [lr_factor(step, 101, recipe) for step in range(101)]
    assert values[0] == pytest.approx(0.2)
    assert values[:11] == sorted(values[:11]) and values[10:] == sorted(values[10:])[::-1]
    assert values[50] == pytest.approx(0.01 + 0.99 * 0.5)
    assert values[100] == pytest.approx(0.01)
    assert max(values) == values[10]


def test_parameter_groups_spare_norms_biases_and_embeddings():
    model = OnlineMapper(micro_config())
    recipe = TrainConfig(steps=1, lr=0.1, backbone_lr_factor=0.5, weight_decay=0.3)
    optimizer = build_optimizer(model, recipe)
    group_of = {id(p): g for g in optimizer.param_groups for p in g['params']}
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert sorted(map(id, trainable.values())) == sorted(group_of)
    norms = [m for m in model.modules() if isinstance(m, (nn.LayerNorm, nn.BatchNorm2d))]
    norms += [m for m in model.modules() if isinstance(m, nn.Embedding)]
    for module in norms:
        assert all(group_of[id(p)]['weight_decay'] == 0 for p in module.parameters())
    seen = set()
    for name, parameter in trainable.items():
        group = group_of[id(parameter)]
        is_backbone = name.startswith('image_encoder.backbone.')
        assert group['peak_lr'] == (0.05 if is_backbone else 0.1)
        if name.endswith('bias'):
            assert group['weight_decay'] == 0
        seen.add((is_backbone, group['weight_decay']))
    assert seen == {(True, 0.3), (True, 0.0), (False, 0.3), (False, 0.0)}
    set_learning_rate(optimizer, 0.1)
    assert sorted({g['lr'] for g in optimizer.param_groups}) == pytest.approx([0.005, 0.01])


def test_published_weight_decay_spares_nothing():
    recipe = TrainConfig(steps=1, weight_decay=0.3, decayed='all', backbone_lr_factor=0.1)
    optimizer = build_optimizer(OnlineMapper(micro_config()), recipe)
    assert [group['weight_decay'] for group in optimizer.param_groups] == [0.3, 0.3]


def test_missing_backbone_with_its_own_rate_is_refused():
    with pytest.raises(ConfigError, match='backbone_lr_factor is 0.1'):
        build_optimizer(nn.Linear(2, 2), TrainConfig(steps=1, backbone_lr_factor=0.1))


def test_average_follows_weights_and_statistics_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = ModelEma(model, 0.5)
    start = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight += 1.0
        model[1].running_mean += 4.0
        model[1].num_batches_tracked += 3
    ema.update(model)  # decay 1/10 at the first update
    torch.testing.assert_close(ema.model[0].weight, start + 0.9)
    torch.testing.assert_close(ema.model[1].running_mean, torch.full((2,), 3.6))
    assert int(ema.model[1].num_batches_tracked) == 3
    for _ in range(60):
        ema.update(model)
    torch.testing.assert_close(ema.model[0].weight, start + 1.0)
    assert not ema.model[0].weight.requires_grad


@pytest.mark.parametrize(
    ('section', 'message'),
    [
        ({'temperature': 0.0}, r'contrastive: temperature is 0.0; expected more than 0'),
        ({'exclude_radius': -1}, 'exclude_radius is -1; expected 0 or more'),
        ({'positive': 'linear'}, r"contrastive.positive: 'linear' is not allowed"),
        ({'pairs': {'per_batch': 0}}, r'contrastive.pairs: per_batch is 0'),
        ({'pairs': {'cache_gb': -1.0}}, 'pairs.cache_gb is -1.0'),
        ({'projection': {'hidden_dims': 0}}, r'projection: hidden_dims is 0'),
        ({'pose_noise': {'drive': {'x_m': -0.1}}}, 'x_m is -0.1; expected >= 0'),
        ({'negative': 3}, "unknown key 'negative'"),
    ],
)
def test_mistakes_in_the_contrastive_section_are_named(section, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict({'steps': 1, 'contrastive': section}, 'r.yaml')


def test_the_contrastive_section_survives_the_run_folder():
    values = {
        'weight': 0.5,
        'pairs': {'same_drive_gap_s': 10},
        'pose_noise': {'frame': {'x_m': 1}},
    }
    recipe = recipe_from_dict({'steps': 1, 'contrastive': values}, 'r.yaml')
    assert recipe.contrastive.pose_noise.frame.x_m == 1.0
    assert recipe.contrastive.pairs.same_drive_gap_s == 10.0
    assert recipe_from_dict(to_plain(recipe), 'again') == recipe
    assert recipe_from_dict({'steps': 1}, 'r.yaml').contrastive is None
