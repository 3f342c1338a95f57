"""How to train: one strict dataclass, read from `config/train/<name>.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from gsmap_core.config import build_dataclass, config_path, read_yaml, to_plain
from gsmap_core.contrastive_config import ContrastiveConfig
from gsmap_core.data.augmentation import AugmentationConfig
from gsmap_core.data.sequences import SequenceConfig
from gsmap_core.errors import ConfigError

#: Dotted keys and YAML texts.
Assignments = list[tuple[str, str]]
_MODEL_PREFIX = 'model.'


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe; defaults are the published MapTR values where those fit any data.

    Args:
        name: of the recipe.
        steps: optimiser steps; None: given by `epochs`.
        epochs: passes over the training frames; None: given by `steps`.
        dataset: that the published numbers were reached on; only told, any data will do.
        batch_size: samples per forward pass and process.
        total_batch_size: samples per step over all processes, as a paper states it; so many
            forward passes are accumulated that it comes out right. None: by `accumulate_steps`.
        accumulate_steps: forward passes per step and process.
        lr: peak learning rate.
        backbone_lr_factor: learning rate of the image backbone relative to `lr` (MapTR: 0.1 with
            pretrained weights).
        weight_decay: AdamW.
        decayed: `weights`: not norms, biases and embeddings; or `all` parameters, as published.
        warmup_steps: linear warm-up.
        warmup_factor: learning rate at the first step, relative to the peak.
        min_lr_factor: learning rate at the end, relative to the peak (cosine).
        lr_schedule: the cosine moves with every `step`, or stays for an `epoch` as in MapTR.
        grad_clip_norm: largest L2 norm of the gradient.
        ema_decay: of the averaged weights that are evaluated and shipped; 0: no averaging.
        precision: `bf16` and `fp16` compute the forward pass in that type where autocast allows.
        loss_scale: constant factor on the loss during a backward pass in `fp16`.
        sync_norm: BatchNorm that trains takes its statistics over all processes (GPUs only).
        channels_last: memory layout of images and convolutions.
        seed: of initialisation, order and augmentation.
        eval_interval_steps: steps between evaluations; 0: only at the end.
        eval_interval_epochs: the same in epochs; replaces `eval_interval_steps`.
        eval_max_frames: validation frames used, spread evenly (with temporal fusion: whole drives,
            the last one cut short); None: all.
        eval_frame_stride: evaluate on every n-th frame.
        eval_metrics: what an evaluation computes; `chamfer` always, because the best checkpoint is
            chosen by it, and `raster` where it is listed.
        eval_batch_size: samples per forward pass of an evaluation; with temporal fusion every
            drive is a stream, one frame at a time.
        log_interval_steps: steps between lines of the log.
        checkpoint_interval_min: time between checkpoints [min].
        workers: loader processes; 0: load in the training process.
        cache_gb: memory for prepared pictures [GiB].
        frame_stride: train on every n-th frame.
        skip_empty: a single frame without any element is replaced by another one drawn at random;
            in a sequence it stays.
        max_skipped_steps: steps without finite gradient in a row that end the training.
        augmentation: random changes to the samples.
        sequences: how models with temporal fusion are trained; looked at with those only.
        contrastive: training with unlabelled drives beside the labelled ones (MapGCLR); None:
            labelled ones alone.

    Raises:
        ConfigError: not exactly one of `steps` and `epochs`, both `total_batch_size` and
            `accumulate_steps`, or a value out of range.
    """

    name: str = 'default'
    steps: int | None = None
    epochs: float | None = None
    dataset: Literal['any', 'nuscenes', 'argoverse2'] = 'any'
    batch_size: int = 4
    total_batch_size: int | None = None
    accumulate_steps: int = 1
    lr: float = 6e-4
    backbone_lr_factor: float = 1.0
    weight_decay: float = 0.01
    decayed: Literal['weights', 'all'] = 'weights'
    warmup_steps: int = 500
    warmup_factor: float = 1 / 3
    min_lr_factor: float = 1e-3
    lr_schedule: Literal['step', 'epoch'] = 'step'
    grad_clip_norm: float = 35.0
    ema_decay: float = 0.999
    precision: Literal['fp32', 'bf16', 'fp16'] = 'fp32'
    loss_scale: float = 512.0
    sync_norm: bool = True
    channels_last: bool = False
    seed: int = 0
    eval_interval_steps: int = 1000
    eval_interval_epochs: float | None = None
    eval_max_frames: int | None = 200
    eval_frame_stride: int = 1
    eval_metrics: tuple[Literal['chamfer', 'raster'], ...] = ('chamfer',)
    eval_batch_size: int = 8
    log_interval_steps: int = 20
    checkpoint_interval_min: float = 3.0
    workers: int = 1
    cache_gb: float = 4.0
    frame_stride: int = 1
    skip_empty: bool = False
    max_skipped_steps: int = 20
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    contrastive: ContrastiveConfig | None = None

    def __post_init__(self) -> None:
        """Check the values that would fail late or silently."""
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError(
                f'steps is {self.steps} and epochs is {self.epochs}; expected exactly one of them'
            )
        if self.total_batch_size is not None and self.accumulate_steps != 1:
            raise ConfigError(
                f'total_batch_size is {self.total_batch_size} and accumulate_steps is '
                f'{self.accumulate_steps}; expected one of them, the other follows'
            )
        for name in (
            'batch_size',
            'lr',
            'backbone_lr_factor',
            'grad_clip_norm',
            'loss_scale',
            'accumulate_steps',
            'frame_stride',
            'eval_frame_stride',
            'eval_batch_size',
            'log_interval_steps',
            'max_skipped_steps',
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected more than 0')
        for name in (
            'steps',
            'epochs',
            'total_batch_size',
            'eval_interval_epochs',
            'eval_max_frames',
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f'{name} is {value}; expected more than 0')
        for name in (
            'weight_decay',
            'warmup_steps',
            'eval_interval_steps',
            'workers',
            'cache_gb',
            'checkpoint_interval_min',
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 0 or more')
        if 'chamfer' not in self.eval_metrics:
            raise ConfigError(
                f"eval_metrics are {list(self.eval_metrics)}; expected 'chamfer' among them, the "
                'best checkpoint is chosen by it'
            )
        for name in ('ema_decay', 'warmup_factor', 'min_lr_factor'):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 0 to 1')

    def accumulation(self, num_processes: int = 1) -> int:
        """Return the forward passes per step and process.

        Raises:
            ConfigError: `total_batch_size` cannot be reached with that many processes.
        """
        if self.total_batch_size is None:
            return self.accumulate_steps
        at_once = self.batch_size * num_processes
        if self.total_batch_size % at_once:
            raise ConfigError(
                f'total_batch_size is {self.total_batch_size}, and {num_processes} process(es) '
                f'with batch_size {self.batch_size} take {at_once} samples at once, which does '
                'not divide it; set batch_size to a value that does, or total_batch_size to null '
                'and choose lr anew'
            )
        return self.total_batch_size // at_once

    def steps_per_epoch(self, num_frames: int, num_processes: int = 1) -> float:
        """Return the optimiser steps of one pass over a training set of that many frames."""
        per_forward = self.batch_size * num_processes
        return num_frames / (per_forward * self.accumulation(num_processes))

    def total_steps(self, num_frames: int, num_processes: int = 1) -> int:
        """Return the number of optimiser steps for a training set of that many frames."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None  # checked at construction
        return max(1, round(self.epochs * self.steps_per_epoch(num_frames, num_processes)))

    def eval_steps(self, num_frames: int, num_processes: int = 1) -> int:
        """Return the steps between evaluations; 0: only at the end."""
        if self.eval_interval_epochs is None:
            return self.eval_interval_steps
        per_epoch = self.steps_per_epoch(num_frames, num_processes)
        return max(1, round(self.eval_interval_epochs * per_epoch))


def load_recipe(name_or_path: str) -> TrainConfig:
    """Read a recipe by name (`synthetic_tiny`) or path.

    Raises:
        ConfigError: not found, unknown key, wrong type or impossible value.
    """
    path = config_path('train', name_or_path)
    return recipe_from_dict({'name': path.stem, **read_yaml(path)}, str(path))


def recipe_from_dict(values: dict[str, Any], where: str) -> TrainConfig:
    """Build a recipe from a plain mapping.

    Raises:
        ConfigError: unknown key, wrong type or impossible value; the message starts with `where`.
    """
    return build_dataclass(TrainConfig, values, where)


def split_assignments(texts: Sequence[str]) -> tuple[Assignments, Assignments]:
    """Split `KEY=VALUE` texts into assignments to the recipe and to the model (`model.KEY`).

    Raises:
        ConfigError: a text is not of this form.
    """
    recipe, model = [], []
    for text in texts:
        key, separator, value = text.partition('=')
        if not separator or not key:
            raise ConfigError(f"--set '{text}': expected KEY=VALUE")
        if key.startswith(_MODEL_PREFIX):
            model.append((key.removeprefix(_MODEL_PREFIX), value))
        else:
            recipe.append((key, value))
    return recipe, model


def load_changed_recipe(path: Path, assignments: Assignments) -> TrainConfig:
    """Read a recipe and change values of it.

    Raises:
        ConfigError: the file, a key or a value is wrong.
    """
    values = {'name': path.stem, **read_yaml(path)}
    # Either length replaces the other, so that one of them can be set alone.
    chosen = {key for key, _ in assignments}
    if 'steps' in chosen and 'epochs' not in chosen:
        values.pop('epochs', None)
    if 'epochs' in chosen and 'steps' not in chosen:
        values.pop('steps', None)
    return recipe_from_dict(apply_overrides(values, assignments), str(path))


def with_steps(recipe: TrainConfig, steps: int) -> TrainConfig:
    """Return the recipe with another length."""
    return replace(recipe, steps=steps, epochs=None)


def apply_overrides(values: dict[str, Any], assignments: Assignments) -> dict[str, Any]:
    """Set values by dotted key, e.g. `augmentation.mirror` to `0`.

    Args:
        values: nested plain mapping; not changed.
        assignments: keys and YAML texts.

    Returns:
        A changed copy. Whether the keys exist is checked when a dataclass is built from it.

    Raises:
        ConfigError: a value is not YAML, or a key leads through something that is no mapping.
    """
    result: dict[str, Any] = to_plain(values)
    for key, text in assignments:
        *parents, last = key.split('.')
        target = result
        for parent in parents:
            inner = target.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {key}: '{parent}' is a value, not a group of values")
            target = inner
        target[last] = parse_value(key, text)
    return result


def parse_value(key: str, text: str) -> Any:
    """Read one value as YAML; `1e-3` counts as a number, which YAML 1.1 denies.

    Raises:
        ConfigError: not YAML.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'--set {key}={text}: not a YAML value: {error}') from None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
