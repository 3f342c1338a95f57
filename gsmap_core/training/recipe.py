"""How to train: one strict dataclass, read from `config/train/<name>.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import yaml

from gsmap_core.config import build_dataclass, config_path, read_yaml, to_plain
from gsmap_core.data.augmentation import AugmentationConfig
from gsmap_core.errors import ConfigError


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe; defaults are the published MapTR values where those fit any data.

    Args:
        name: of the recipe.
        steps: optimiser steps; None: given by `epochs`.
        epochs: passes over the training frames; None: given by `steps`.
        batch_size: samples per step and process.
        lr: peak learning rate.
        backbone_lr_factor: learning rate of the image backbone relative to `lr` (MapTR: 0.1 with
            pretrained weights).
        weight_decay: AdamW; not applied to norms, biases and embeddings.
        warmup_steps: linear warm-up.
        warmup_factor: learning rate at the first step, relative to the peak.
        min_lr_factor: learning rate at the last step, relative to the peak (cosine).
        grad_clip_norm: largest L2 norm of the gradient.
        ema_decay: of the averaged weights that are evaluated and shipped; 0: no averaging.
        precision: `bf16` computes the forward pass in bfloat16 where autocast allows.
        channels_last: memory layout of images and convolutions.
        seed: of initialisation, order and augmentation.
        eval_interval_steps: steps between evaluations; 0: only at the end.
        eval_max_frames: validation frames used, spread evenly; None: all.
        eval_batch_size: samples per forward pass of an evaluation.
        log_interval_steps: steps between lines of the log.
        checkpoint_interval_min: time between checkpoints [min].
        workers: loader processes; 0: load in the training process.
        cache_gb: memory for prepared pictures [GiB].
        frame_stride: train on every n-th frame.
        max_skipped_steps: steps without finite gradient in a row that end the training.
        augmentation: random changes to the samples.

    Raises:
        ConfigError: not exactly one of `steps` and `epochs`, or a value out of range.
    """

    name: str = 'default'
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 4
    lr: float = 6e-4
    backbone_lr_factor: float = 1.0
    weight_decay: float = 0.01
    warmup_steps: int = 500
    warmup_factor: float = 1 / 3
    min_lr_factor: float = 1e-3
    grad_clip_norm: float = 35.0
    ema_decay: float = 0.999
    precision: Literal['fp32', 'bf16'] = 'fp32'
    channels_last: bool = False
    seed: int = 0
    eval_interval_steps: int = 1000
    eval_max_frames: int | None = 200
    eval_batch_size: int = 8
    log_interval_steps: int = 20
    checkpoint_interval_min: float = 3.0
    workers: int = 1
    cache_gb: float = 4.0
    frame_stride: int = 1
    max_skipped_steps: int = 20
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self) -> None:
        """Check the values that would fail late or silently."""
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError(
                f'steps is {self.steps} and epochs is {self.epochs}; expected exactly one of them'
            )
        for name in (
            'batch_size',
            'lr',
            'backbone_lr_factor',
            'grad_clip_norm',
            'frame_stride',
            'eval_batch_size',
            'log_interval_steps',
            'max_skipped_steps',
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected more than 0')
        for name in ('steps', 'epochs', 'eval_max_frames'):
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
        for name in ('ema_decay', 'warmup_factor', 'min_lr_factor'):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 0 to 1')

    def total_steps(self, num_frames: int, num_processes: int = 1) -> int:
        """Return the number of optimiser steps for a training set of that many frames."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None  # checked at construction
        return max(1, round(self.epochs * num_frames / (self.batch_size * num_processes)))


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


def with_steps(recipe: TrainConfig, steps: int) -> TrainConfig:
    """Return the recipe with another length."""
    return replace(recipe, steps=steps, epochs=None)


def apply_overrides(values: dict[str, Any], assignments: list[tuple[str, str]]) -> dict[str, Any]:
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
