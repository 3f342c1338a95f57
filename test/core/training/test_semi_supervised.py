"""Unlabelled pairs beside labelled samples: gradients, phases, resuming, what is exported."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config
from helpers.posed_drives import PosedDrive

from gsmap_core.config import FusionConfig, LssConfig
from gsmap_core.contrastive_config import ContrastiveConfig, PairConfig, ProjectionConfig
from gsmap_core.data.augmentation import AugmentationConfig
from gsmap_core.data.loading import MapDataset, collate
from gsmap_core.data.pair_loading import PairDataset, collate_pairs
from gsmap_core.data.sequences import SequenceConfig
from gsmap_core.errors import ConfigError, DataError, TrainingError
from gsmap_core.losses.contrastive import ProjectionHead
from gsmap_core.models.checkpoint import load_checkpoint
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.training.distributed import Processes
from gsmap_core.training.recipe import TrainConfig
from gsmap_core.training.run_directory import RunDirectory, RunInfo
from gsmap_core.training.schedule import lr_factor
from gsmap_core.training.semi_supervised import JointModel, SemiSupervised, joined
from gsmap_core.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device('cpu'))
CONTRASTIVE = ContrastiveConfig(
    num_anchors=16,
    num_negatives=16,
    projection=ProjectionConfig(dims=8),
    pairs=PairConfig(per_batch=2, cache_gb=0.01),
)


def lss_config(**more):
    lss = LssConfig(
        depth_step_m=4.0, hidden_dims=8, num_depth_blocks=1, pyramid_dims=4, pyramid_dropout=0.0,
        voxels_per_cell=1,
    )  # fmt: skip
    config = micro_config()
    bev = replace(config.bev, view_transform='lss', z_min_m=-10.0, z_max_m=10.0, lss=lss)
    return replace(config, bev=bev, **more)


def recipe_of(contrastive=CONTRASTIVE, **values):
    return TrainConfig(
        **{
            'steps': 6, 'batch_size': 2, 'lr': 3e-3, 'warmup_steps': 2, 'ema_decay': 0.95,
            'eval_interval_steps': 0, 'log_interval_steps': 1, 'workers': 0, 'cache_gb': 0.01,
            'contrastive': contrastive, **values,
        }
    )  # fmt: skip


def unlabelled_drives(**more):
    return [
        PosedDrive('there', 4, seed=1, **more),
        PosedDrive('back', 4, seed=2, start=(27.0, 3.0), yaw_rad=np.pi - 0.1, **more),
    ]


def pairs_of(config, recipe, drives=None):
    return PairDataset(
        drives or unlabelled_drives(), config, recipe.contrastive, recipe.augmentation,
        seed=recipe.seed,
    )  # fmt: skip


def trainer_of(tmp_path, recipe, config=None, run=None, drives=None, val=None):
    config = config or lss_config()
    labelled = [FakeDrive(5, speed_m=1.0)]
    data = MapDataset(labelled, config, recipe.augmentation, cache_gb=recipe.cache_gb)
    info = RunInfo(config, recipe)
    pairs = None if recipe.contrastive is None else pairs_of(config, recipe, drives)
    run = run or RunDirectory.create(tmp_path, 'semi', info)
    return Trainer(info, data, val and MapDataset([val], config), run, ALONE, pairs=pairs)


def batches_of(config, recipe):
    data = MapDataset([FakeDrive(5)], config)
    pairs = pairs_of(config, recipe)
    return collate([data[0, 0], data[0, 1]]), collate_pairs([pairs[0, 1], pairs[0, 6]])


@pytest.mark.parametrize('view', ['gkt', 'lss', 'gaussians'])
def test_the_contrastive_loss_reaches_the_encoder_and_never_the_decoder(view):
    config = micro_config() if view == 'gkt' else lss_config()
    if view == 'gaussians':
        config = replace(config, representation='gaussians')
    recipe = recipe_of()
    torch.manual_seed(0)
    mapper = OnlineMapper(config)
    semi = SemiSupervised(mapper, recipe, pairs_of(config, recipe), ALONE)
    labelled, pairs = batches_of(config, recipe)
    frames = labelled.frame_batch(config.image)
    output, unlabelled = semi.forward(semi.model, frames, pairs, 0, 0)
    losses, told = semi.losses(unlabelled, pairs, 0, 0)
    assert set(losses) == {'contrastive'} and float(told['pair_anchors']) == 16.0
    losses['contrastive'].backward()
    assert len(output.points[0]) == 2
    reached = {'image_encoder': 0, 'view_transform': 0}
    for name, parameter in mapper.named_parameters():
        part = name.split('.')[0]
        strength = 0.0 if parameter.grad is None else float(parameter.grad.abs().max())
        if part in reached:
            reached[part] += strength > 0
        elif part in ('decoder', 'mask_head'):
            assert strength == 0.0, name
    assert reached['image_encoder'] > 10 and reached['view_transform'] > 3
    assert all(float(p.grad.abs().max()) > 0 for p in semi.head.parameters())


def test_labelled_frames_are_predicted_as_without_unlabelled_ones():
    """In eval mode no statistics are shared; the unlabelled rig has one camera more."""
    config, recipe = lss_config(), recipe_of()
    mapper = OnlineMapper(config).eval()
    labelled = collate([MapDataset([FakeDrive(2)], config)[0, 0]]).frame_batch(config.image)
    pairs = pairs_of(config, recipe, unlabelled_drives(num_cameras=3))
    unlabelled = collate_pairs([pairs[0, 0]]).frames.frame_batch(config.image)
    model = JointModel(mapper, ProjectionHead(32, ProjectionConfig())).eval()
    with torch.no_grad():
        expected, alone = mapper(labelled), mapper(unlabelled)
        output, rest = model(labelled, unlabelled)
        only, nothing = model(labelled, None)
        none, pretrained = model(None, unlabelled)
    for found in (output, only):
        torch.testing.assert_close(found.points, expected.points)
        torch.testing.assert_close(found.bev_mask_logits, expected.bev_mask_logits)
    assert nothing is None and none is None
    for found in (rest, pretrained):
        torch.testing.assert_close(found.bev, alone.bev)
        torch.testing.assert_close(found.embeddings, model.head(alone.bev))
    both = joined(labelled, unlabelled)
    assert both.images.shape[:2] == (3, 3) and both.camera_mask.tolist()[0] == [True, True, False]


def test_cells_without_pooled_features_are_no_anchors():
    pairs_config = replace(CONTRASTIVE.pairs, observed='pooled')
    recipe = recipe_of(replace(CONTRASTIVE, pairs=pairs_config, num_anchors=500))
    config = lss_config()
    mapper = OnlineMapper(config)
    semi = SemiSupervised(mapper, recipe, pairs_of(config, recipe), ALONE)
    _, pairs = batches_of(config, recipe)
    _, output = semi.forward(semi.model, None, pairs, 0, 0)
    frames = pairs.frames.frame_batch(config.image)
    seen = mapper.view_transform.observed_cells(frames.pixels_from_ego, frames.camera_mask)
    assert torch.equal(output.pooled, seen) and not seen.all()
    for pair, draw in enumerate(semi.draw(output, pairs, np.random.default_rng(0))):
        nearest = pairs.nearest[pair].flatten()
        valid = (nearest >= 0) & seen[pair].flatten() & seen[2 + pair].flatten()[nearest]
        assert sorted(draw.anchors.tolist()) == valid.nonzero().flatten().tolist()


def test_only_models_with_lss_have_pooled_features_and_depth():
    for contrastive, message in (
        (replace(CONTRASTIVE, pairs=replace(CONTRASTIVE.pairs, observed='pooled')), 'observed'),
        (replace(CONTRASTIVE, depth=1.0), r'contrastive\.depth'),
    ):
        recipe = recipe_of(contrastive)
        pairs = pairs_of(micro_config(), recipe_of())
        with pytest.raises(ConfigError, match=f'{message}.* needs the view transform'):
            SemiSupervised(OnlineMapper(micro_config()), recipe, pairs, ALONE)


def losses_of(trainer):
    return {line['step']: line['loss'] for line in trainer.run_directory.metrics()}


def test_pairs_are_learned_and_nothing_of_it_is_exported(tmp_path):
    recipe = recipe_of(
        replace(CONTRASTIVE, weight=1.0), steps=25, log_interval_steps=5,
        augmentation=AugmentationConfig(photometric=0.0, mirror=0.0),
    )  # fmt: skip
    trainer = trainer_of(tmp_path, recipe)
    assert trainer.run().is_finished
    losses = losses_of(trainer)
    assert losses[25]['contrastive'] < 0.8 * losses[5]['contrastive']
    assert losses[25]['pair_top1'] > losses[5]['pair_top1']
    assert losses[25]['points'] < losses[5]['points']
    checkpoint = load_checkpoint(trainer.run_directory.model_path)
    assert checkpoint.config == trainer.config
    assert set(checkpoint.model.state_dict()) == set(OnlineMapper(trainer.config).state_dict())
    assert checkpoint.metadata['unlabelled_drives'] == '["back", "there"]'
    assert int(checkpoint.metadata['unlabelled_pairs']) == len(trainer.semi.pairs.pairs.edges)
    # What is told beside the losses is not minimised.
    last = losses[25]
    parts = {k: v for k, v in last.items() if k != 'total' and not k.startswith('pair_')}
    assert last['total'] == pytest.approx(sum(parts.values()), rel=1e-4)


VARIANTS = {
    'joint': {},
    'streaming': {'sequences': SequenceConfig(num_splits=1, single_frame_share=0.5)},
    'accumulated': {'batch_size': 1, 'accumulate_steps': 2},
    'pretrained': {
        'contrastive': replace(
            CONTRASTIVE, pretrain_steps=2, anchor_draw='feature_norm', symmetric=True
        ),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'stop'), [('joint', 2), ('streaming', 3), ('accumulated', 1), ('pretrained', 2)]
)
def test_interrupted_training_continues_identically(tmp_path, name, stop):
    recipe = recipe_of(steps=2 if name == 'pretrained' else 4, **VARIANTS[name])
    config = lss_config()
    config = replace(config, decoder=replace(config.decoder, dropout=0.1))
    if name == 'streaming':
        # Steps 2 and 3 carry a memory for the labelled frames; pairs are first frames throughout.
        config = replace(config, fusion=FusionConfig(kind='keyframe_streaming'))
    straight = trainer_of(tmp_path, recipe, config)
    straight.run()
    first = trainer_of(tmp_path, recipe, config)
    assert not first.run(stop_requested=lambda: first.step == stop).is_finished
    assert (first.streams.save(first.run_directory, stop) is not None) == (name == 'streaming')
    torch.manual_seed(12345)
    run, info = RunDirectory.open(first.run_directory.path)
    assert info.recipe == recipe
    second = trainer_of(tmp_path, info.recipe, config, run=run)
    second.resume()
    assert second.run().is_finished
    assert losses_of(second) == losses_of(straight)
    expected = straight.semi.model.state_dict()
    for key, value in second.semi.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)


def test_pretraining_comes_before_the_labelled_steps(tmp_path):
    recipe = recipe_of(replace(CONTRASTIVE, pretrain_steps=4), steps=3, eval_interval_steps=2)
    trainer = trainer_of(tmp_path, recipe, val=FakeDrive(2, seed=3))
    decoder = trainer.model.decoder.state_dict()
    before = {key: value.clone() for key, value in decoder.items()}
    assert trainer.total_steps == 7
    trainer.run(stop_requested=lambda: trainer.step == 4)
    assert trainer.samples == 0 and trainer.best_score is None
    assert all(torch.equal(decoder[key], value) for key, value in before.items())
    trainer.run()
    lines = [line for line in trainer.run_directory.metrics() if 'loss' in line]
    assert [
        sorted(k for k in line['loss'] if k in ('contrastive', 'points')) for line in lines
    ] == ([['contrastive']] * 4 + [['points']] * 3)
    expected = [lr_factor(s, 4, recipe) for s in range(4)] + [
        lr_factor(s, 3, recipe) for s in range(3)
    ]
    assert [line['lr'] / recipe.lr for line in lines] == pytest.approx(expected)
    evaluated = [line['step'] for line in trainer.run_directory.metrics() if 'ap' in line]
    assert trainer.samples == 6 and evaluated == [6, 7]
    assert any((decoder[key] != value).any() for key, value in before.items())


def test_a_state_of_other_pairs_is_refused(tmp_path):
    trainer = trainer_of(tmp_path, recipe_of(steps=1))
    trainer.run()
    more = [*unlabelled_drives(), PosedDrive('again', 3, seed=5, start=(3.0, 0.0))]
    other = trainer_of(tmp_path, recipe_of(), run=trainer.run_directory, drives=more)
    with pytest.raises(TrainingError, match=r'unlabelled pairs of frames, now there are \d+'):
        other.resume()
    data = MapDataset([FakeDrive(5)], lss_config())
    info = RunInfo(lss_config(), recipe_of())
    with pytest.raises(ConfigError, match='no unlabelled frames are given'):
        Trainer(info, data, None, trainer.run_directory, ALONE)


def test_many_unreadable_unlabelled_frames_end_the_training(tmp_path):
    drives = [PosedDrive('a', 4, broken=(1,)), PosedDrive('b', 4, start=(20.0, 0.0))]
    with pytest.raises(DataError, match="1 of 8 frames are unreadable.*drive 'a', frame 1"):
        trainer_of(tmp_path, recipe_of(steps=30), drives=drives).run()


def test_depth_of_unlabelled_frames(tmp_path):
    class WithLidar(PosedDrive):
        def lidar_points(self, index):
            points = np.random.default_rng(index).uniform(-20, 20, (300, 4))
            points[:, 2] = 0.0
            return points.astype(np.float32)

    drives = [WithLidar('a', 3), WithLidar('b', 3, start=(20.0, 0.0))]
    recipe = recipe_of(replace(CONTRASTIVE, depth=3.0), steps=2)
    trainer = trainer_of(tmp_path, recipe, drives=drives)
    trainer.run()
    assert losses_of(trainer)[2]['unlabelled_depth'] > 0.0
