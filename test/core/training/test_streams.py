"""Training on sequences: phases, memories between steps, resuming in the middle."""

import logging
from dataclasses import replace

import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config
from helpers.painted_drive import PaintedDrive

from gsmap_core.config import FusionConfig
from gsmap_core.data.augmentation import AugmentationConfig
from gsmap_core.data.loading import MapDataset
from gsmap_core.data.sequences import SequenceBatches, SequenceConfig
from gsmap_core.errors import TrainingError
from gsmap_core.training.distributed import Processes
from gsmap_core.training.recipe import TrainConfig
from gsmap_core.training.run_directory import RunDirectory, RunInfo
from gsmap_core.training.trainer import Trainer

ALONE = Processes(0, 1, torch.device('cpu'))


def make_trainer(tmp_path, fusion='keyframe_streaming', run=None, drives=None, **values):
    recipe = TrainConfig(
        **{
            'steps': 8,
            'batch_size': 2,
            'lr': 3e-3,
            'warmup_steps': 2,
            'eval_interval_steps': 0,
            'log_interval_steps': 1,
            'workers': 0,
            'cache_gb': 0.01,
            'sequences': SequenceConfig(single_frame_share=0.25),
            'augmentation': AugmentationConfig(photometric=0.0, mirror=0.5),
            **values,
        }
    )
    small = FusionConfig(kind=fusion, num_previous=2, num_candidates=3)
    config = replace(micro_config(num_layers=1, dropout=0.1), fusion=small)
    info = RunInfo(config, recipe)
    drives = drives or [PaintedDrive(7), PaintedDrive(5, 1)]
    data = MapDataset(
        drives, config, recipe.augmentation, seed=recipe.seed, cache_gb=recipe.cache_gb
    )
    return Trainer(info, data, None, run or RunDirectory.create(tmp_path, 'test', info), ALONE)


#: Whole drives, so that all rows go on where the trainings below are stopped.
WHOLE = SequenceConfig(num_splits=1, single_frame_share=0.25)


def losses_of(trainer):
    lines = [line for line in trainer.run_directory.metrics() if 'loss' in line]
    return [line['step'] for line in lines], [line['loss'] for line in lines]


def watch(trainer):
    """Return a list that gets (step, batch, poses, state) of every forward pass."""
    seen, batches = [], []
    frames = trainer._frames

    def watched(batch, part):
        batches.append(batch)
        return frames(batch, part)

    def hook(_, inputs):
        _, poses, _, state = inputs
        seen.append((trainer.step, batches[-1], poses, state))

    trainer._frames = watched
    trainer.model.fusion.register_forward_pre_hook(hook)
    return seen


@pytest.mark.parametrize('accumulate_steps', [1, 2])
def test_every_row_goes_on_from_its_own_last_frame(tmp_path, accumulate_steps):
    trainer = make_trainer(tmp_path, accumulate_steps=accumulate_steps, steps=12)
    assert trainer.first_sequence_step == 3
    seen = watch(trainer)
    trainer.run()
    assert len(seen) == 12 * accumulate_steps
    keys = iter(
        SequenceBatches(
            trainer.train_data.drive_frames,
            2,
            batches_per_step=accumulate_steps,
            # Three steps of 2 or 4 rows are at most one pass over 12 frames.
            first_epoch=1,
        )
    )
    num_continued = 0
    for number, (step, batch, _, state) in enumerate(seen):
        if step < 3:
            assert batch.starts is None and state is None
            continue
        expected = next(keys)
        assert batch.indices == tuple(index for _, index, _ in expected)
        assert batch.starts.tolist() == [index == first for _, index, first in expected]
        if step == 3:
            assert state is None and batch.starts.all()
            continue
        assert not state.submap.requires_grad
        assert torch.equal(state.has_submap, ~batch.starts)
        before = seen[number - accumulate_steps]
        goes_on = ~batch.starts
        num_continued += int(goes_on.sum())
        assert torch.equal(state.map_from_base[goes_on], before[2][goes_on])
        last = torch.tensor(before[1].indices)[goes_on]
        assert torch.equal(last + 1, torch.tensor(batch.indices)[goes_on])
        # Frames of the sub-sequence so far.
        count = [index - first for _, index, first in expected]
        assert state.num_frames.tolist() == count
    assert num_continued > 5 * accumulate_steps


@pytest.mark.parametrize(
    ('fusion', 'stops', 'values'),
    [
        ('streaming', (1, 2, 5), {}),
        ('keyframe_streaming', (4,), {'workers': 1}),
        ('keyframe_stacking', (5,), {'accumulate_steps': 2, 'batch_size': 1}),
    ],
)
def test_interrupted_sequences_continue_identically(tmp_path, fusion, stops, values):
    """Stopped among single frames, between both phases, and in the middle of sequences."""
    values = {'sequences': WHOLE, **values}
    straight = make_trainer(tmp_path, fusion, **values)
    straight.run()
    trainer = make_trainer(tmp_path, fusion, **values)
    for stop in stops:
        current = trainer
        assert current.run(stop_requested=lambda t=current, s=stop: t.step == s).step == stop
        assert current.run_directory.streams_path(stop, 0).is_file() == (stop > 2)
        torch.manual_seed(12345)  # a new process has another random state
        trainer = make_trainer(tmp_path, fusion, run=current.run_directory, **values)
        trainer.resume()
    assert trainer.run().is_finished
    assert losses_of(trainer) == losses_of(straight)
    for name, value in straight.ema.model.state_dict().items():
        torch.testing.assert_close(trainer.ema.model.state_dict()[name], value, rtol=0, atol=0)


def test_a_memory_that_is_lost_changes_the_training(tmp_path):
    """The test above would see it if the memory did not survive."""
    straight = make_trainer(tmp_path, 'streaming', sequences=WHOLE)
    straight.run()
    first = make_trainer(tmp_path, 'streaming', sequences=WHOLE)
    first.run(stop_requested=lambda: first.step == 5)
    second = make_trainer(tmp_path, 'streaming', run=first.run_directory, sequences=WHOLE)
    second.resume()
    second.streams.forget()
    second.run()
    assert losses_of(second)[1][:5] == losses_of(straight)[1][:5]
    assert losses_of(second)[1][5] != losses_of(straight)[1][5]


def test_memories_are_kept_for_the_last_saved_step_only(tmp_path):
    trainer = make_trainer(tmp_path, checkpoint_interval_min=0.0)
    folder = trainer.run_directory.path / 'streams'
    names = []
    original = trainer._train_step

    def watched(feed):
        names.append(sorted(path.name for path in folder.glob('*')))
        return original(feed)

    trainer._train_step = watched
    trainer.run()
    expected = [[trainer.run_directory.streams_path(step, 0).name] for step in range(3, 8)]
    assert names == [[]] * 3 + expected
    assert not list(folder.glob('*'))  # a finished training needs none


def test_missing_memories_and_other_layouts_are_told(tmp_path, caplog):
    first = make_trainer(tmp_path)
    first.run(stop_requested=lambda: first.step == 4)
    run = first.run_directory
    other = make_trainer(tmp_path, run=run)
    layout = run.load_state()['streams']
    assert layout == [1, 1, 2]
    with caplog.at_level(logging.WARNING):
        other.streams.load(run, 4, [2, 1, 1])
    assert 'belong to 2 process(es) with 1 x 1 rows, now there are 1 with 1 x 2' in caplog.text
    run.streams_path(4, 0).unlink()
    with pytest.raises(TrainingError, match="000000004-0000.pt' cannot be read"):
        make_trainer(tmp_path, run=run).resume()


def test_memories_start_anew_after_a_step_without_finite_gradient(tmp_path):
    trainer = make_trainer(tmp_path)
    criterion = trainer.criterion

    def poisoned(output, targets):
        losses = criterion(output, targets)
        if trainer.step == 4:
            losses['points'] = losses['points'] * float('nan')
        return losses

    trainer.criterion = poisoned
    seen = watch(trainer)
    assert trainer.run().is_finished and trainer.skipped_steps == 1
    without = [step for step, _, _, state in seen if state is None]
    assert without == [0, 1, 2, 5]


def test_gradients_may_flow_through_one_frame(tmp_path):
    """What is kept from step to step has no history, whatever the fusion does inside."""
    trainer = make_trainer(tmp_path, 'streaming')
    trainer.model.fusion.config = replace(trainer.model.fusion.config, detach_memory=False)
    assert trainer.run().is_finished


@pytest.mark.parametrize('share', [0.0, 1.0])
def test_sequences_from_the_first_step_or_never(tmp_path, share):
    trainer = make_trainer(tmp_path, sequences=SequenceConfig(single_frame_share=share), steps=4)
    seen = watch(trainer)
    trainer.run()
    assert [batch.starts is None for _, batch, _, _ in seen] == [share == 1.0] * 4
    assert [state is None for *_, state in seen] == [True] + [share == 1.0] * 3


def test_models_without_fusion_see_single_frames_throughout(tmp_path):
    recipe = TrainConfig(steps=4, workers=0)
    trainer = make_trainer(tmp_path, steps=4)
    info = RunInfo(micro_config(), recipe)
    data = MapDataset([FakeDrive(3)], info.model)
    plain = Trainer(info, data, None, trainer.run_directory, ALONE)
    assert plain.first_sequence_step == 4 and trainer.first_sequence_step == 1
