"""The training loop: steps, averaging, evaluation, checkpoints, resuming."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from gsmap_core.data.loading import BadFrames, Batch, MapDataset
from gsmap_core.data.pair_loading import PairBatch, PairDataset
from gsmap_core.errors import TrainingError
from gsmap_core.images import FrameBatch
from gsmap_core.losses.criterion import Criterion
from gsmap_core.models.checkpoint import (
    load_shared_weights_into,
    load_weights_into,
    save_checkpoint,
)
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.training.batch_frames import batch_frames
from gsmap_core.training.distributed import Processes
from gsmap_core.training.ema import ModelEma
from gsmap_core.training.metadata import mixed_seed, plain_json, training_metadata
from gsmap_core.training.precision import autocast
from gsmap_core.training.progress import Feed, Window, peak_memory_mib
from gsmap_core.training.run_directory import RunDirectory, RunInfo
from gsmap_core.training.schedule import build_optimizer, lr_factor, set_learning_rate
from gsmap_core.training.semi_supervised import SemiSupervised
from gsmap_core.training.streams import Streams, first_sequence_step, training_batches
from gsmap_core.training.validation import validate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """How a call of `Trainer.run` ended.

    Args:
        step: steps done in all.
        total_steps: steps of the recipe.
        best_score: best validation chamfer mAP so far, None without validation.
        last_loss: total loss of the last step.
    """

    step: int
    total_steps: int
    best_score: float | None
    last_loss: float

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.total_steps


class Trainer:
    """Trains one model.

    All randomness of a step follows from the seed, the step and the process, so that a resumed
    training repeats what an uninterrupted one would have done.

    Args:
        info: model and recipe.
        train_data: training samples (with augmentation).
        val_data: validation samples (without), or None.
        run: folder for everything that is written; used by the main process only.
        processes: this process among those that train together.
        pairs: unlabelled frames for a recipe with a section `contrastive`, or None.
        pretrained_backbone: torchvision-named tensors, or None.
        initial_weights: checkpoint to start from, of the same configuration unless
            `info.initial_partly`; or None.
        progress: show bars on stderr (main process).

    Raises:
        ConfigError: the recipe learns from unlabelled frames and there are none, or the reverse.
    """

    def __init__(
        self,
        info: RunInfo,
        train_data: MapDataset,
        val_data: MapDataset | None,
        run: RunDirectory,
        processes: Processes,
        *,
        pairs: PairDataset | None = None,
        pretrained_backbone: Mapping[str, Tensor] | None = None,
        initial_weights: Path | None = None,
        progress: bool = False,
    ) -> None:
        self.info, self.recipe, self.config = info, info.recipe, info.model
        self.train_data, self.val_data = train_data, val_data
        self.run_directory, self.processes = run, processes
        self.progress = progress and processes.is_main
        torch.manual_seed(self.recipe.seed)
        model = OnlineMapper(self.config, pretrained_backbone)
        self.new_tensors: list[str] = []
        if initial_weights is not None and info.initial_partly:
            self.new_tensors = load_shared_weights_into(model, initial_weights)
        elif initial_weights is not None:
            load_weights_into(model, initial_weights)
        model.to(processes.device)
        if self.recipe.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ModelEma(model, self.recipe.ema_decay)
        self.model = model
        self.semi = SemiSupervised.of(model, self.recipe, pairs, processes)
        # Wrapping may exchange normalisation layers, so the optimiser looks inside afterwards.
        self.wrapped = processes.wrap(
            model if self.semi is None else self.semi.model, sync_norm=self.recipe.sync_norm
        )
        self.criterion = Criterion(self.config).to(processes.device)
        beside = () if self.semi is None else (self.semi.head,)
        self.optimizer = build_optimizer(self.model, self.recipe, *beside)
        self.parameters = [p for g in self.optimizer.param_groups for p in g['params']]
        size = (len(train_data), processes.count)
        self.accumulation = self.recipe.accumulation(processes.count)
        self.steps_per_epoch = self.recipe.steps_per_epoch(*size)
        labelled_steps = self.recipe.total_steps(*size)
        self.first_sequence_step = first_sequence_step(self.config, self.recipe, labelled_steps)
        self.pretrain_steps = 0 if self.semi is None else self.semi.config.pretrain_steps
        self.total_steps = self.pretrain_steps + labelled_steps
        self.eval_steps = self.recipe.eval_steps(*size)
        self.streams = Streams(self.recipe, processes)
        self.bad_frames = BadFrames(train_data)
        self.step = 0
        self.samples = 0
        self.best_score: float | None = None
        self.best_step = 0
        self.trained_s = 0.0
        self.skipped_steps = 0
        self._skipped_in_row = 0

    def run(
        self,
        *,
        max_minutes: float | None = None,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> TrainResult:
        """Train to the end of the recipe, the time limit or a request to stop; save in each case.

        Args:
            max_minutes: time limit of this call [min]; None: none.
            stop_requested: asked after every step.

        Raises:
            TrainingError: too many steps in a row without finite gradient.
            DataError: too many unreadable frames.
        """
        recipe, processes = self.recipe, self.processes
        batches = training_batches(
            self.train_data,
            recipe,
            processes,
            step=max(self.step - self.pretrain_steps, 0),
            samples=self.samples,
            first_sequence_step=self.first_sequence_step,
        )
        pairs = None if self.semi is None else self.semi.batches(self.step)
        started = last_saved = time.monotonic()
        limit_s = math.inf if max_minutes is None else 60.0 * max_minutes
        window = Window()
        loss = math.nan
        bar = tqdm(
            total=self.total_steps, initial=self.step, desc='training', disable=not self.progress
        )
        try:
            stopping = False
            while self.step < self.total_steps and not stopping:
                before = time.perf_counter()
                uses_pairs = self.semi is not None and self.semi.uses_pairs(self.step)
                feed = Feed(
                    batches if self._uses_labels else None,
                    self.accumulation,
                    pairs if uses_pairs else None,
                )
                losses, norm = self._train_step(feed)
                step_s = time.perf_counter() - before
                window.add(losses, norm, feed.loading_s, step_s - feed.loading_s, feed.num_samples)
                self.trained_s += step_s
                bar.update()
                if self.step % recipe.log_interval_steps == 0 or self.step == self.total_steps:
                    loss = self._log(window, bar)
                    window = Window()
                if self._is_evaluation_due():
                    self._evaluate()
                stopping = processes.any(time.monotonic() - started > limit_s or stop_requested())
                minutes = (time.monotonic() - last_saved) / 60.0
                if processes.any(minutes > recipe.checkpoint_interval_min):
                    self._save()
                    last_saved = time.monotonic()
        finally:
            bar.close()
            del batches, pairs
        if window:
            loss = self._log(window, None)
        if self.step >= self.total_steps:
            self._finish()
        self._save()
        self.run_directory.close()
        processes.barrier()
        return TrainResult(self.step, self.total_steps, self.best_score, loss)

    def _is_evaluation_due(self) -> bool:
        """Whether it is time to score; while nothing is learned from labels there is no point."""
        step = self.step - self.pretrain_steps
        return bool(self.eval_steps) and step > 0 and step % self.eval_steps == 0

    @property
    def _uses_labels(self) -> bool:
        """Whether the step to come looks at labelled samples."""
        return self.step >= self.pretrain_steps

    def _train_step(
        self, feed: Iterable[tuple[Batch | None, PairBatch | None]]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Do one optimiser step over some batches; return mean losses and the gradient's norm."""
        recipe = self.recipe
        if self.pretrain_steps and self.step == self.pretrain_steps:
            # What the contrastive gradients were like says nothing about those to come.
            self.optimizer.state.clear()
        self.wrapped.train()
        set_learning_rate(self.optimizer, self._lr_factor(self.step))
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for part, (batch, pairs) in enumerate(feed):
            for name, loss in self._add_gradients(batch, part, pairs).items():
                sums[name] = sums[name] + loss if name in sums else loss
        if recipe.precision == 'fp16':
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            torch._foreach_mul_(gradients, 1.0 / recipe.loss_scale)
        # Gradients are the same in all processes by now, so that all of them skip or none.
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.grad_clip_norm)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            self.ema.update(self.model)
            self._skipped_in_row = 0
        else:
            self._skip()
        if self._uses_labels:
            self.samples += recipe.batch_size * self.processes.count * self.accumulation
        self.step += 1
        return {name: loss / self.accumulation for name, loss in sums.items()}, norm

    def _add_gradients(
        self, batch: Batch | None, part: int, pairs: PairBatch | None = None
    ) -> dict[str, Tensor]:
        """Run one batch forward and backward; return its losses without their graph.

        Args:
            batch: labelled samples; None while only pairs are learned from.
            part: number of the batch in the step.
            pairs: unlabelled pairs, or None.
        """
        recipe, processes = self.recipe, self.processes
        key = (recipe.seed, self.step, processes.rank)
        # Dropout of this step; see the class about resuming.
        torch.manual_seed(mixed_seed(*key, part) if part else mixed_seed(*key))
        factor = 1.0 / self.accumulation
        if recipe.precision == 'fp16':
            factor *= recipe.loss_scale
        with self._averaging(part):
            losses, told = self._losses(batch, part, pairs)
            total = torch.stack(list(losses.values())).sum()
            (total * factor).backward()
        return {'total': total.detach(), **{k: v.detach() for k, v in losses.items()}, **told}

    def _losses(
        self, batch: Batch | None, part: int, pairs: PairBatch | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses of one forward pass, and numbers that are only logged."""
        device = self.processes.device
        losses: dict[str, Tensor] = {}
        told: dict[str, Tensor] = {}
        frames = None if batch is None else self._frames(batch, part)
        state = None if batch is None else self.streams.before(part, batch)
        with autocast(device, self.recipe.precision):
            if self.semi is None:
                output, unlabelled = self.wrapped(frames, state), None
            else:
                output, unlabelled = self.semi.forward(
                    self.wrapped, frames, pairs, self.step, part, state
                )
        if batch is not None:
            self.streams.after(part, batch, output.state)
            self.bad_frames.add(batch.bad_frames)
            losses = self.criterion(output, [target.to(device) for target in batch.targets])
        # Last, so that its part of the graph runs backward first, in all processes alike.
        if self.semi is not None and unlabelled is not None and pairs is not None:
            more, told = self.semi.losses(unlabelled, pairs, self.step, part)
            losses |= more
        return losses, told

    def _averaging(self, part: int) -> AbstractContextManager[Any]:
        """Return the context in which gradients are averaged over processes, if it is time."""
        if self.processes.count == 1 or part == self.accumulation - 1:
            return nullcontext()
        return cast(DistributedDataParallel, self.wrapped).no_sync()

    def _frames(self, batch: Batch, part: int) -> FrameBatch:
        """Return what the model takes, with the augmentation that is drawn per batch."""
        recipe = self.recipe
        return batch_frames(
            batch,
            self.config.image,
            recipe,
            self.processes.device,
            recipe.augmentation.batch_grid_mask,
            np.random.default_rng((recipe.seed, self.step, self.processes.rank, part)),
        )

    def _lr_factor(self, step: int) -> float:
        """Return the learning rate of a step relative to its peak, phase by phase."""
        first = self.pretrain_steps
        if step < first:
            return lr_factor(step, first, replace(self.recipe, lr_schedule='step'))
        return lr_factor(step - first, self.total_steps - first, self.recipe, self.steps_per_epoch)

    def _skip(self) -> None:
        """Leave the weights as they are after a gradient that is not finite."""
        self.skipped_steps += 1
        self._skipped_in_row += 1
        logger.warning('step %d: gradient is not finite, step skipped', self.step)
        # The forward pass may have carried the same numbers into the running statistics, and into
        # what is remembered of the sequences.
        healthy = dict(self.ema.model.named_buffers())
        for name, buffer in self.model.named_buffers():
            if buffer.is_floating_point() and not bool(torch.isfinite(buffer).all()):
                buffer.copy_(healthy[name])
        self.streams.forget()
        if self._skipped_in_row >= self.recipe.max_skipped_steps:
            raise TrainingError(
                f'{self._skipped_in_row} steps in a row had no finite gradient (up to step '
                f"{self.step}); the training has diverged; lower 'lr' or raise 'warmup_steps' and "
                f"start again; the last good state is in '{self.run_directory.path}'"
            )

    def _log(self, window: Window, bar: Any) -> float:
        """Write the means of a window; return the mean total loss."""
        means = window.means()
        epoch = self.samples / len(self.train_data)
        factor = self._lr_factor(max(self.step - 1, 0))
        values = {
            'epoch': round(epoch, 4),
            'lr': self.recipe.lr * factor,
            'loss': means.pop('loss'),
            **means,
            'skipped_steps': self.skipped_steps,
            'bad_frames': len(self.bad_frames),
            'trained_s': round(self.trained_s, 1),
            'peak_memory_mib': peak_memory_mib(self.processes.device),
        }
        if self.processes.is_main:
            self.run_directory.log(self.step, values)
        if bar is not None:
            bar.set_postfix(loss=f'{values["loss"]["total"]:.3f}', best=self.best_score)
        return float(values['loss']['total'])

    def _evaluate(self) -> None:
        """Score the averaged weights; keep them if they are the best so far."""
        if self.val_data is not None and self.processes.is_main:
            recipe = self.recipe
            started = time.monotonic()
            result = validate(
                self.ema.model,
                self.val_data,
                self.config,
                device=self.processes.device,
                batch_size=recipe.eval_batch_size,
                precision=recipe.precision,
                progress=self.progress,
                metrics=recipe.eval_metrics,
            )
            values: dict[str, Any] = {
                'chamfer_map': result.score,
                'ap': result.chamfer.per_category,
                'val_loss': {**result.losses, 'total': sum(result.losses.values())},
                'eval_s': round(time.monotonic() - started, 1),
            }
            if result.raster is not None:
                raster = result.raster.to_dict()
                values |= {'raster_map': raster['mean_ap'], 'raster_ap': raster['per_category']}
            self.run_directory.log(self.step, values)
            logger.info('step %d: chamfer mAP %.4f', self.step, result.score)
            # A category without ground truth in the validation data leaves no score.
            if math.isfinite(result.score) and result.score > (self.best_score or -1.0):
                self.best_score, self.best_step = result.score, self.step
                metadata = self._metadata() | {
                    'chamfer_map': f'{result.score:.4f}',
                    'chamfer': plain_json(result.chamfer.to_dict()),
                }
                save_checkpoint(self.run_directory.best_path, self.ema.model, metadata)
        if self.val_data is not None:
            self._save()
        self.processes.barrier()

    def _finish(self) -> None:
        """Evaluate for the last time and write the checkpoint that is shipped."""
        if not self._is_evaluation_due():
            self._evaluate()
        self.streams.forget()
        if self.processes.is_main:
            if self.best_score is not None:
                shutil.copyfile(self.run_directory.best_path, self.run_directory.model_path)
            else:
                save_checkpoint(self.run_directory.model_path, self.ema.model, self._metadata())

    def _metadata(self) -> dict[str, str]:
        """Return what a checkpoint tells about its training."""
        return {
            **training_metadata(self.info, self.train_data, self.val_data),
            **({} if self.semi is None else self.semi.metadata()),
            'step': str(self.step),
            'total_steps': str(self.total_steps),
            'samples': str(self.samples),
            'trained_s': f'{self.trained_s:.0f}',
        }

    def _save(self) -> None:
        """Write the state to resume from; all processes at the same step."""
        streams = self.streams.save(self.run_directory, self.step)
        self.processes.barrier()
        if self.processes.is_main:
            self.run_directory.save_state(
                {
                    'model': self.model.state_dict(),
                    'ema': self.ema.state_dict(),
                    'optimizer': self.optimizer.state_dict(),
                    'step': self.step,
                    'samples': self.samples,
                    'best_score': self.best_score,
                    'best_step': self.best_step,
                    'trained_s': self.trained_s,
                    'skipped_steps': self.skipped_steps,
                    'num_frames': len(self.train_data),
                    'total_steps': self.total_steps,
                    'streams': streams,
                    'semi_supervised': None if self.semi is None else self.semi.state_dict(),
                }
            )

    def resume(self) -> None:
        """Continue from the state in the run folder.

        Raises:
            TrainingError: the state is damaged or belongs to another model or training set.
        """
        state = self.run_directory.load_state()
        if state['num_frames'] != len(self.train_data):
            raise TrainingError(
                f"'{self.run_directory.path}' was trained on {state['num_frames']} frames, now "
                f'there are {len(self.train_data)}; give the same data'
            )
        if self.semi is not None:
            self.semi.load_state_dict(state.get('semi_supervised'), self.run_directory.path)
        try:
            self.model.load_state_dict(state['model'])
            self.ema.load_state_dict(state['ema'])
            self.optimizer.load_state_dict(state['optimizer'])
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"the state in '{self.run_directory.path}' does not fit its model: {error}"
            ) from error
        self.step, self.samples = state['step'], state['samples']
        self.best_score, self.best_step = state['best_score'], state['best_step']
        self.trained_s, self.skipped_steps = state['trained_s'], state['skipped_steps']
        self.streams.load(self.run_directory, self.step, state.get('streams'))
        if self.processes.is_main:
            self.run_directory.forget_after(self.step)
        logger.info('resumed at step %d of %d', self.step, self.total_steps)
