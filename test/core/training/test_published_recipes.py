"""Recipes of config/train: what they say, and two steps of each through the real trainer."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config
from helpers.posed_drives import PosedDrive

from gsmap_core.config import FusionConfig, config_path, load_model_config
from gsmap_core.data.loading import MapDataset
from gsmap_core.data.pair_loading import PairDataset
from gsmap_core.data.sequences import SequenceConfig
from gsmap_core.models.backbone import ResNet
from gsmap_core.training.distributed import Processes
from gsmap_core.training.recipe import load_recipe, with_steps
from gsmap_core.training.run_directory import RunDirectory, RunInfo
from gsmap_core.training.schedule import lr_factor
from gsmap_core.training.trainer import Trainer

NAMES = sorted(path.stem for path in config_path('train', 'synthetic_tiny').parent.glob('*.yaml'))
ALONE = Processes(0, 1, torch.device('cpu'))
#: dataset, epochs, samples per GPU, in all, peak rate, warm-up, largest gradient
#: (reference-models.md, 1.1, 1.14, 2, 2.6, 4, 9.1 and 9.2).
PUBLISHED = {
    'maptr_nuscenes': ('nuscenes', 24, 4, 32, 6e-4, 500, 35),
    'maptr_nuscenes_110e': ('nuscenes', 110, 4, 32, 6e-4, 500, 35),
    'maptr_nano_nuscenes': ('nuscenes', 110, 24, 192, 4e-3, 500, 50),
    'maptr_av2': ('argoverse2', 24, 6, 48, 6e-4, 500, 35),
    'maptrv2_nuscenes': ('nuscenes', 24, 4, 32, 6e-4, 500, 35),
    'maptrv2_nuscenes_110e': ('nuscenes', 110, 4, 32, 6e-4, 500, 35),
    'maptrv2_av2': ('argoverse2', 6, 4, 32, 6e-4, 200, 35),
    'mapvr_nuscenes': ('nuscenes', 24, 8, 32, 6e-4, 500, 35),
    'mapvr_nuscenes_110e': ('nuscenes', 110, 4, 32, 6e-4, 500, 35),
    'gsmap_nuscenes': ('nuscenes', 24, 2, 16, 6e-4, 500, 35),
    'gsmap_nuscenes_110e': ('nuscenes', 110, 2, 16, 6e-4, 500, 35),
    'gsmap_av2': ('argoverse2', 6, 2, 16, 6e-4, 200, 35),
    'gsmap_v2_nuscenes': ('nuscenes', 24, 2, 16, 6e-4, 500, 35),
    'interactionmap_nuscenes': ('nuscenes', 24, 4, 32, 6e-4, 500, 35),
    'interactionmap_nuscenes_110e': ('nuscenes', 110, 4, 32, 6e-4, 500, 35),
    'interactionmap_av2_2hz': ('argoverse2', 30, 4, 32, 6e-4, 200, 35),
    'interactionmap_av2_10hz': ('argoverse2', 6, 4, 32, 6e-4, 200, 35),
    'interactionmap_av2_3d': ('argoverse2', 6, 4, 32, 6e-4, 200, 35),
    'gsmap_live_nuscenes': ('nuscenes', 24, 4, 32, 6e-4, 500, 35),
    'gsmap_live_nuscenes_110e': ('nuscenes', 110, 4, 32, 6e-4, 500, 35),
    'gsmap_live_av2_2hz': ('argoverse2', 30, 4, 32, 6e-4, 200, 35),
    'gsmap_live_av2_10hz': ('argoverse2', 6, 4, 32, 6e-4, 200, 35),
    'mapgclr_av2': ('argoverse2', 24, 2, 16, 6e-4, 200, 35),
}
#: Temporal models; three parts per drive, half of the epochs without (reference-models.md, 9.2).
SEQUENCES = [name for name in PUBLISHED if name.startswith(('interactionmap', 'gsmap_live'))]


@pytest.mark.parametrize('name', PUBLISHED)
def test_recipes_say_what_was_published(name):
    recipe = load_recipe(name)
    found = (
        recipe.dataset, recipe.epochs, recipe.batch_size, recipe.total_batch_size, recipe.lr,
        recipe.warmup_steps, recipe.grad_clip_norm,
    )  # fmt: skip
    assert found == PUBLISHED[name]
    optimiser = (recipe.weight_decay, recipe.decayed, recipe.backbone_lr_factor)
    assert optimiser == (0.01, 'all', 0.1)
    assert (recipe.lr_schedule, recipe.warmup_factor) == ('epoch', pytest.approx(1 / 3))
    assert (recipe.min_lr_factor, recipe.ema_decay, recipe.skip_empty) == (1e-3, 0.0, True)
    assert (recipe.precision, recipe.loss_scale, recipe.seed) == ('fp16', 512.0, 0)
    # Argoverse 2 is trained at 10 Hz and validated at 2.5 Hz, or both at 2 Hz.
    strides = (recipe.frame_stride, recipe.eval_frame_stride)
    on_av2 = (5, 5) if '2hz' in name else (1, 4)
    assert strides == (on_av2 if recipe.dataset == 'argoverse2' else (1, 1))
    changes = recipe.augmentation
    ranges = (changes.brightness, changes.contrast, changes.saturation, changes.hue_deg)
    assert ranges == (32.0, 0.5, 0.5, 18.0)
    assert (changes.photometric, changes.colours, changes.swap_channels) == (0.5, 'hsv', True)
    assert (changes.batch_grid_mask, changes.mirror, changes.camera_drop) == (0.7, 0.0, 0.0)
    # Only MapTR on nuScenes changes colours before it resizes.
    on_maptr = recipe.dataset == 'nuscenes' and 'v2' not in name and name not in SEQUENCES
    assert changes.colours_at == ('recorded' if on_maptr else 'prepared')


def test_every_published_recipe_is_listed_above():
    kinds = ('synthetic_{}', 'synthetic_{}_sequences', 'mapgclr_{}')
    own = {kind.format(size) for size in ('mini', 'tiny') for kind in kinds}
    own |= {'synthetic_r50', 'synthetic_r50_sequences'}
    assert set(NAMES) - set(PUBLISHED) == own


@pytest.mark.parametrize(
    'name', [*SEQUENCES, 'synthetic_mini_sequences', 'synthetic_r50_sequences']
)
def test_recipes_with_sequences(name):
    recipe = load_recipe(name)
    # As published; at mini size shorter sequences (docs/interactionmap.md).
    num_splits = 6 if name == 'synthetic_mini_sequences' else 3
    assert recipe.sequences == SequenceConfig(num_splits, single_frame_share=0.5)
    total = recipe.total_steps(28130, 8)
    first = recipe.sequences.first_sequence_step(total)
    if recipe.epochs is not None:
        assert first == pytest.approx(recipe.epochs / 2 * recipe.steps_per_epoch(28130, 8), abs=1)
    assert first == round(total / 2)


def test_training_with_unlabelled_pairs_differs_in_nothing_else():
    """What MapGCLR is compared with: the same recipe without the section."""
    for size in ('mini', 'tiny'):
        recipe = load_recipe(f'mapgclr_{size}')
        host = load_recipe(f'synthetic_{size}')
        assert recipe.contrastive.pairs.per_batch * 2 == recipe.batch_size
        assert replace(recipe, name=host.name, contrastive=None) == host
    assert load_recipe('mapgclr_av2').contrastive.weight == 10.0


@pytest.mark.parametrize('name', NAMES)
def test_two_steps_of_each_recipe(tmp_path, name):
    """The recipe's own values; only sizes and what waits for long are those of a test.

    With a temporal model the second of them is a step of sequences.
    """
    recipe = load_recipe(name)
    total = None if recipe.total_batch_size is None else 2
    recipe = replace(
        with_steps(recipe, 2),
        batch_size=1,
        total_batch_size=total,
        log_interval_steps=1,
        workers=0,
        cache_gb=min(recipe.cache_gb, 0.001),
    )
    config, is_temporal = micro_config(), name in SEQUENCES or 'sequences' in name
    if is_temporal:
        config = replace(config, fusion=FusionConfig(kind='keyframe_streaming'))
    data = MapDataset(
        [FakeDrive(4 * recipe.frame_stride, speed_m=1.0)],
        config,
        recipe.augmentation,
        seed=recipe.seed,
        cache_gb=recipe.cache_gb,
        stride=recipe.frame_stride,
        skip_empty=recipe.skip_empty,
    )
    info = RunInfo(config, recipe)
    pairs = None
    if recipe.contrastive is not None:
        drives = [PosedDrive('a', 3), PosedDrive('b', 3, start=(20.0, 0.0))]
        pairs = PairDataset(drives, config, recipe.contrastive, recipe.augmentation)
    run = RunDirectory.create(tmp_path, name, info)
    trainer = Trainer(info, data, None, run, ALONE, pairs=pairs)
    assert trainer.first_sequence_step == (1 if is_temporal else 2)
    before = {k: v.detach().clone() for k, v in trainer.model.named_parameters()}
    assert trainer.run().is_finished
    lines = trainer.run_directory.metrics()
    assert [line['step'] for line in lines] == [1, 2]
    assert all(math.isfinite(line['loss']['total']) for line in lines)
    assert lines[-1]['skipped_steps'] == 0
    assert lines[-1]['epoch'] == (2 * (total or 1)) / 4
    rates = [recipe.lr * lr_factor(s, 2, recipe, 4 / (total or 1)) for s in (0, 1)]
    assert [line['lr'] for line in lines] == pytest.approx(rates)
    assert rates[0] == pytest.approx(recipe.lr * recipe.warmup_factor)
    moved = [k for k, v in trainer.model.named_parameters() if not torch.equal(v, before[k])]
    assert any('backbone' in key for key in moved) and any('decoder' in key for key in moved)


@pytest.mark.slow
def test_two_steps_with_the_published_network(tmp_path):
    """MapTR-tiny R50 at full size, one set per step, with a frozen first stage."""
    recipe = replace(
        with_steps(load_recipe('maptr_nuscenes'), 2),
        batch_size=1,
        total_batch_size=1,
        log_interval_steps=1,
        workers=0,
        precision='fp32',  # half precision convolutions of this size take minutes on a CPU
    )
    config = load_model_config('maptr_r50')
    backbone = ResNet(config.backbone).state_dict()
    data = MapDataset([FakeDrive(2, num_cameras=6)], config, recipe.augmentation, skip_empty=True)
    info = RunInfo(config, recipe)
    run = RunDirectory.create(tmp_path, 'r50', info)
    trainer = Trainer(info, data, None, run, ALONE, pretrained_backbone=backbone)
    before = {k: v.detach().clone() for k, v in trainer.model.named_parameters()}
    assert trainer.run().is_finished and trainer.skipped_steps == 0
    assert all(math.isfinite(line['loss']['total']) for line in run.metrics())
    moved = {k for k, v in trainer.model.named_parameters() if not torch.equal(v, before[k])}
    body = 'image_encoder.backbone.'
    assert not any(key.startswith((body + 'conv1', body + 'layer1')) for key in moved)
    assert body + 'layer4.2.conv3.weight' in moved
