"""Learning rate over the steps, and which parameters get which rate and decay."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gsmap_core.errors import ConfigError
from gsmap_core.training.recipe import TrainConfig

BACKBONE_PREFIX = 'image_encoder.backbone.'
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def lr_factor(
    step: int, total_steps: int, recipe: TrainConfig, steps_per_epoch: float = math.inf
) -> float:
    """Return the learning rate of a step relative to its peak: linear warm-up times cosine.

    Args:
        step: 0 to total_steps - 1.
        total_steps: length of the training.
        recipe: warm-up, final value, and whether the cosine moves per step or per epoch.
        steps_per_epoch: steps of one pass over the training frames; for `lr_schedule: epoch`.
    """
    if recipe.lr_schedule == 'epoch':
        # The last of E epochs is at (E - 1) / E, as published: the lowest rate is not reached.
        num_epochs = max(1, round(total_steps / steps_per_epoch))
        progress = min(int(step / steps_per_epoch + 1e-9) / num_epochs, 1.0)
    else:
        progress = min(step / max(total_steps - 1, 1), 1.0)
    low = recipe.min_lr_factor
    cosine = low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress))
    if step < recipe.warmup_steps:
        start = recipe.warmup_factor
        return cosine * (start + (1.0 - start) * step / recipe.warmup_steps)
    return cosine


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to its own peak rate times `factor`."""
    for group in optimizer.param_groups:
        group['lr'] = group['peak_lr'] * factor


def parameter_groups(model: nn.Module, recipe: TrainConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters by learning rate and weight decay.

    Norms, biases and embeddings (also bare parameters with `embed` or `quer` in their names) do
    not decay, because pulling them to zero regularises nothing; with `decayed: all`, as published,
    they do.

    Raises:
        ConfigError: the backbone has its own rate, but no parameter lies where it is expected.
    """
    undecayed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, *_NORMS))
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        last = name.rsplit('.', 1)[-1]
        decays = parameter.ndim > 1 and id(parameter) not in undecayed
        decays = decays and not any(word in last for word in ('embed', 'quer'))
        decays = decays or recipe.decayed == 'all'
        groups.setdefault((name.startswith(BACKBONE_PREFIX), decays), []).append(parameter)
    if recipe.backbone_lr_factor != 1.0 and not any(is_backbone for is_backbone, _ in groups):
        raise ConfigError(
            f'backbone_lr_factor is {recipe.backbone_lr_factor} but no trainable parameter is '
            f"called '{BACKBONE_PREFIX}*'; set it to 1.0"
        )
    return [
        {
            'params': parameters,
            'peak_lr': recipe.lr * (recipe.backbone_lr_factor if is_backbone else 1.0),
            'lr': recipe.lr,
            'weight_decay': recipe.weight_decay if decays else 0.0,
        }
        for (is_backbone, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizer(
    model: nn.Module, recipe: TrainConfig, *beside: nn.Module
) -> torch.optim.AdamW:
    """Return AdamW over the parameter groups of a model, and of modules that train beside it."""
    groups = parameter_groups(model, recipe)
    for module in beside:
        groups += parameter_groups(module, replace(recipe, backbone_lr_factor=1.0))
    return torch.optim.AdamW(groups, lr=recipe.lr, foreach=True)
