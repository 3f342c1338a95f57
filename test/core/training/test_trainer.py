"""The training loop on a drive in memory: learning, resuming, stopping, surviving."""

import json

import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config
from safetensors import safe_open

from gsmap_core.config import model_config_from_dict, to_plain
from gsmap_core.data.augmentation import AugmentationConfig
from gsmap_core.data.loading import MapDataset, collate
from gsmap_core.errors import DataError, TrainingError
from gsmap_core.models.checkpoint import load_checkpoint
from gsmap_core.training.distributed import Processes
from gsmap_core.training.recipe import TrainConfig, apply_overrides
from gsmap_core.training.run_directory import RunDirectory, RunInfo
from gsmap_core.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device('cpu'))
PLAIN = AugmentationConfig(photometric=0.0, mirror=0.0)


def make_recipe(**values):
    return TrainConfig(
        **{
            'steps': 6,
            'batch_size': 2,
            'lr': 3e-3,
            'warmup_steps': 2,
            'ema_decay': 0.95,
            'eval_interval_steps': 0,
            'log_interval_steps': 1,
            'workers': 0,
            'cache_gb': 0.01,
            **values,
        }
    )


def make_trainer(tmp_path, recipe, config=None, drive=None, val=None, run=None):
    info = RunInfo(config or micro_config(), recipe)
    data = MapDataset(
        [drive or FakeDrive(5)], info.model, recipe.augmentation, cache_gb=recipe.cache_gb
    )
    val_data = MapDataset([val], info.model) if val else None
    run = run or RunDirectory.create(tmp_path, 'test', info)
    return Trainer(info, data, val_data, run, ALONE)


def losses_of(trainer):
    lines = [line for line in trainer.run_directory.metrics() if 'loss' in line]
    return [line['step'] for line in lines], [line['loss'] for line in lines]


def test_two_frames_are_learned_by_heart(tmp_path):
    recipe = make_recipe(
        steps=120, augmentation=PLAIN, eval_interval_steps=60, log_interval_steps=10,
        channels_last=True, eval_metrics=('chamfer', 'raster'),
    )  # fmt: skip
    config = micro_config(num_one_to_many=16, one_to_many_copies=2)
    trainer = make_trainer(tmp_path, recipe, config, FakeDrive(2), FakeDrive(2))
    result = trainer.run()
    _, losses = losses_of(trainer)
    assert result.is_finished and result.step == 120
    assert losses[-1]['total'] < 0.1 * losses[0]['total']
    assert result.best_score > 0.8
    run = trainer.run_directory
    checkpoint = load_checkpoint(run.model_path)
    assert checkpoint.config == config
    assert float(checkpoint.metadata['chamfer_map']) == pytest.approx(result.best_score, abs=1e-4)
    assert json.loads(checkpoint.metadata['train_drives']) == ['fake-0']
    assert json.loads(checkpoint.metadata['recipe'])['steps'] == 120
    evaluations = [line for line in run.metrics() if 'chamfer_map' in line]
    assert [line['step'] for line in evaluations] == [60, 120]
    assert set(evaluations[0]['ap']) == {'divider', 'ped_crossing', 'boundary'}
    assert 0.0 < evaluations[1]['raster_map'] <= 1.0
    assert set(evaluations[1]['raster_ap']) == {'divider', 'ped_crossing', 'boundary'}
    assert list((run.path / 'tensorboard').glob('events*'))


def with_values(config, *assignments):
    """Return a configuration with single values changed as `gsmap train --set` changes them."""
    return model_config_from_dict(apply_overrides(to_plain(config), list(assignments)), 'test')


ALIGNED = [
    ('losses.classification_kind', 'geometry_aware'),
    ('losses.points', '4'),
    ('losses.points_kind', 'smooth_l1'),
    ('losses.instance_mask', '30'),
    ('losses.instance_dice', '3'),
    ('losses.bev_segmentation', '0'),
    ('matching.classification_kind', 'geometry_aware'),
    ('matching.instance_mask', '30'),
    ('matching.instance_dice', '3'),
]
EVERYTHING = [
    *ALIGNED,
    ('alignment.terms', '[points, direction, giou]'),
    ('alignment.normaliser', 'scores'),
    ('losses.instance_mask_options', '{one_to_many: true, stride: 2, target: line}'),
    ('losses.pv_segmentation', '2'),
]


@pytest.mark.parametrize('representation', ['points', 'gaussians'])
@pytest.mark.parametrize('values', [ALIGNED, EVERYTHING], ids=['aligned', 'everything'])
def test_steps_with_alignment_make_the_loss_smaller(tmp_path, values, representation):
    config = with_values(
        micro_config(num_one_to_many=16, one_to_many_copies=2),
        *values,
        ('representation', representation),
    )
    recipe = make_recipe(augmentation=PLAIN, eval_interval_steps=6, log_interval_steps=2)
    trainer = make_trainer(tmp_path, recipe, config, FakeDrive(2), FakeDrive(2))
    trainer.run()
    assert trainer.skipped_steps == 0
    assert load_checkpoint(trainer.run_directory.model_path).config == config
    losses = losses_of(trainer)[1]
    assert losses[-1]['total'] < losses[0]['total']
    assert ('d0.instance_dice_one_to_many' in losses[0]) == (values is EVERYTHING)
    evaluation = trainer.run_directory.metrics()[-1]
    assert evaluation['val_loss']['instance_mask'] > 0


PUBLISHED = {
    'accumulate_steps': 2,
    'batch_size': 1,
    'lr_schedule': 'epoch',
    'ema_decay': 0.0,
    'decayed': 'all',
    'augmentation': AugmentationConfig(
        mirror=0.0, colours='hsv', grid_mask=0.7, grid_mask_scope='batch'
    ),
}


@pytest.mark.parametrize('values', [{}, PUBLISHED], ids=['own', 'published'])
def test_interrupted_training_continues_identically(tmp_path, values):
    recipe, config = make_recipe(**values), micro_config(dropout=0.1)
    straight = make_trainer(tmp_path, recipe, config)
    straight.run()
    first = make_trainer(tmp_path, recipe, config)
    result = first.run(stop_requested=lambda: first.step == 3)
    assert result.step == 3 and not result.is_finished
    torch.manual_seed(12345)  # a new process has another random state
    run, info = RunDirectory.open(first.run_directory.path)
    assert info.recipe == recipe and info.model == config
    second = make_trainer(tmp_path, info.recipe, info.model, run=run)
    second.resume()
    assert second.run().is_finished
    assert losses_of(second) == losses_of(straight)
    for name, value in straight.ema.model.state_dict().items():
        torch.testing.assert_close(second.ema.model.state_dict()[name], value, rtol=0, atol=0)
    assert (
        straight.run_directory.model_path.read_bytes()[-4000:]
        == (second.run_directory.model_path.read_bytes()[-4000:])
    )


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tmp_path):
    """One frame only, so that neither statistics nor the number of elements differ."""
    logs = []
    for values in ({'batch_size': 4}, {'batch_size': 1, 'accumulate_steps': 4}):
        recipe = make_recipe(steps=2, augmentation=PLAIN, **values)
        trainer = make_trainer(tmp_path, recipe, drive=FakeDrive(1))
        trainer.run()
        logs.append(trainer.run_directory.metrics())
        assert trainer.samples == 8
    for large, small in zip(*logs, strict=True):
        assert small['epoch'] == large['epoch']
        assert small['grad_norm'] == pytest.approx(large['grad_norm'], rel=2e-3)
        assert small['loss'] == pytest.approx(large['loss'], rel=2e-3)


def test_a_grid_mask_hides_the_same_squares_of_a_whole_batch(tmp_path):
    masked = AugmentationConfig(
        photometric=0.0, mirror=0.0, grid_mask=1.0, grid_mask_scope='batch'
    )
    trainer = make_trainer(tmp_path, make_recipe(augmentation=masked))
    batch = collate([trainer.train_data[0, 0], trainer.train_data[0, 1]])
    plain = batch.frame_batch(trainer.config.image).images
    hidden = []
    for step, part in ((0, 0), (0, 0), (0, 1), (1, 0)):
        trainer.step = step
        images = trainer._frames(batch, part).images
        changed = images != plain
        assert not images[changed].any()
        squares = changed.flatten(0, 2)
        assert squares.any() and torch.equal(squares.any(0), squares.sum(0) > 9)
        hidden.append(squares.any(0))
    assert torch.equal(hidden[0], hidden[1])
    assert not torch.equal(hidden[0], hidden[2]) and not torch.equal(hidden[0], hidden[3])
    off = make_trainer(tmp_path, make_recipe(augmentation=PLAIN))
    torch.testing.assert_close(off._frames(batch, 0).images, plain, rtol=0, atol=0)


def test_half_precision_with_a_scaled_loss_has_the_same_gradient(tmp_path):
    norms = []
    for precision in ('fp32', 'fp16'):
        recipe = make_recipe(steps=1, precision=precision, augmentation=PLAIN)
        trainer = make_trainer(tmp_path, recipe)
        trainer.run()
        norms.append(trainer.run_directory.metrics()[0]['grad_norm'])
        assert trainer.skipped_steps == 0
    assert norms[0] != norms[1] == pytest.approx(norms[0], rel=0.05)


def test_work_lost_in_a_kill_is_not_logged_twice(tmp_path):
    trainer = make_trainer(tmp_path, make_recipe())
    trainer.run(stop_requested=lambda: trainer.step == 2)
    run = trainer.run_directory
    with open(run.metrics_path, 'a') as file:
        file.write('{"step": 3, "loss": {"total": 1.0}}\n{"step": 4, "lo')
    again = make_trainer(tmp_path, make_recipe(), run=run)
    again.resume()
    again.run()
    assert losses_of(again)[0] == [1, 2, 3, 4, 5, 6]


def test_time_limit_saves_and_stops(tmp_path):
    trainer = make_trainer(tmp_path, make_recipe(steps=1000))
    result = trainer.run(max_minutes=1e-6)
    assert result.step == 1 and not result.is_finished
    assert trainer.run_directory.state_path.is_file()
    assert not trainer.run_directory.model_path.exists()


def test_run_folders_are_never_overwritten(tmp_path):
    info = RunInfo(micro_config(), make_recipe())
    paths = [RunDirectory.create(tmp_path, 'a', info).path.name for _ in range(3)]
    assert paths == ['a-000', 'a-001', 'a-002']
    environment = json.loads((tmp_path / 'a-000' / 'environment.json').read_text())
    assert environment['torch'] == torch.__version__
    with pytest.raises(TrainingError, match="'last.pt' is missing"):
        RunDirectory.open(tmp_path / 'a-000')


def test_damaged_or_foreign_states_are_refused(tmp_path):
    trainer = make_trainer(tmp_path, make_recipe(steps=1))
    trainer.run()
    other_data = make_trainer(
        tmp_path, make_recipe(), drive=FakeDrive(4), run=trainer.run_directory
    )
    with pytest.raises(TrainingError, match='trained on 5 frames, now there are 4'):
        other_data.resume()
    other_model = make_trainer(
        tmp_path, make_recipe(), micro_config(num_layers=3), run=trainer.run_directory
    )
    with pytest.raises(TrainingError, match='does not fit'):
        other_model.resume()
    data = trainer.run_directory.state_path.read_bytes()
    trainer.run_directory.state_path.write_bytes(data[: len(data) // 2])
    with pytest.raises(TrainingError, match='cannot be read'):
        trainer.resume()


def poison(trainer, steps):
    """Make the gradient of some steps infinite."""
    criterion = trainer.criterion

    def poisoned(output, targets):
        losses = criterion(output, targets)
        if trainer.step in steps:
            losses['points'] = losses['points'] * float('nan')
        return losses

    trainer.criterion = poisoned


def test_steps_without_finite_gradient_are_skipped(tmp_path):
    trainer = make_trainer(tmp_path, make_recipe())
    poison(trainer, {2, 3})
    before = {}
    original = trainer._train_step

    def watched(batch):
        before[trainer.step] = trainer.parameters[0].detach().clone()
        return original(batch)

    trainer._train_step = watched
    result = trainer.run()
    assert result.is_finished and trainer.skipped_steps == 2
    torch.testing.assert_close(before[2], before[4], rtol=0, atol=0)
    assert not torch.equal(before[4], before[5])
    assert trainer.run_directory.metrics()[-1]['skipped_steps'] == 2


def test_poisoned_statistics_are_healed(tmp_path):
    trainer = make_trainer(tmp_path, make_recipe())
    name, buffer = next(
        (n, b) for n, b in trainer.model.named_buffers() if n.endswith('running_mean')
    )
    buffer.fill_(float('nan'))
    trainer._skip()
    healthy = dict(trainer.ema.model.named_buffers())[name]
    torch.testing.assert_close(buffer, healthy)


def test_diverged_training_ends_with_advice(tmp_path):
    trainer = make_trainer(tmp_path, make_recipe(steps=50, max_skipped_steps=4))
    poison(trainer, set(range(1, 50)))
    with pytest.raises(TrainingError, match='4 steps in a row.*lower'):
        trainer.run()
    assert trainer.step < 10


def test_unreadable_frames_end_the_training_when_many(tmp_path):
    trainer = make_trainer(tmp_path, make_recipe(steps=50), drive=FakeDrive(10, broken=(4,)))
    with pytest.raises(DataError, match='1 of 10 frames are unreadable'):
        trainer.run()


def test_bfloat16_learns_too(tmp_path):
    recipe = make_recipe(steps=30, precision='bf16', augmentation=PLAIN, log_interval_steps=10)
    trainer = make_trainer(tmp_path, recipe, drive=FakeDrive(2))
    trainer.run()
    _, losses = losses_of(trainer)
    assert losses[-1]['total'] < 0.6 * losses[0]['total']
    with safe_open(trainer.run_directory.model_path, 'pt') as file:
        assert file.get_tensor(next(iter(file.keys()))).dtype == torch.float32
