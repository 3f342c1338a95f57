"""Published MapTR weights become checkpoints of this package: renamed, checked, never guessed.

The names are in `official_names.py`; what the published models do differently from our own recipes
is the section `official` of a configuration (`gsmap_core.config.load_official_config`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from gsmap_core.config import ModelConfig, load_official_config
from gsmap_core.errors import CheckpointError
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.models.official_names import Rules, rules_of
from gsmap_core.models.tensor_files import read_tensor_file

#: At most that many names of each kind are listed in an error.
_NAMES_SHOWN = 20


@cache
def _compiled(rules: Rules) -> tuple[tuple[re.Pattern[str], str | None], ...]:
    return tuple((re.compile(pattern), ours) for pattern, ours in rules)


def own_name(published: str, config: ModelConfig) -> str | None:
    """Return our name of a published tensor, or None if it is a constant that is not stored here.

    Args:
        published: as in the file; a leading `module.` is ignored.
        config: the model it is meant for.

    Raises:
        CheckpointError: the published model of this configuration has no such tensor.
    """
    name = published.removeprefix('module.')
    for pattern, ours in _compiled(rules_of(config)):
        match = pattern.fullmatch(name)
        if match:
            return None if ours is None else match.expand(ours)
    raise CheckpointError(
        f"tensor '{published}' is not one of the published model of '{config.name}'; give the "
        'file that belongs to the configuration'
    )


def convert_official(
    tensors: Mapping[str, Tensor], config: ModelConfig, where: str = 'published weights'
) -> dict[str, Tensor]:
    """Rename the tensors of a published model and check that they are all of ours.

    Args:
        tensors: published names to tensors.
        config: the model with its published options (`load_official_config`).
        where: names the file in errors.

    Returns:
        A complete state dict of `OnlineMapper(config)`.

    Raises:
        CheckpointError: the grid is not in the published order, or tensors are missing, unknown or
            of another shape; one message lists all of them.
    """
    if config.bev.order != 'official':
        raise CheckpointError(
            f"published weights need the published cell order and '{config.name}' has bev.order "
            f"'{config.bev.order}'; use a configuration with bev.order 'official'"
        )
    with torch.device('meta'):
        needed = {name: value.shape for name, value in OnlineMapper(config).state_dict().items()}
    converted: dict[str, Tensor] = {}
    unexpected: list[str] = []
    shapes: list[str] = []
    for published, tensor in tensors.items():
        try:
            name = own_name(published, config)
        except CheckpointError:
            unexpected.append(published)
            continue
        if name is None:
            continue
        if name not in needed or name in converted:
            unexpected.append(published)
        elif tensor.shape != needed[name]:
            shapes.append(f'{published} {tuple(tensor.shape)} instead of {tuple(needed[name])}')
            converted[name] = tensor
        else:
            converted[name] = tensor
    missing = [name for name in needed if name not in converted]
    problems = [
        f'{len(names)} {kind}: {", ".join(sorted(names)[:_NAMES_SHOWN])}'
        f'{", ..." if len(names) > _NAMES_SHOWN else ""}'
        for kind, names in (
            ('missing (our names)', missing),
            ('unexpected', unexpected),
            ('of another shape', shapes),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{where}: the tensors do not fit configuration '{config.name}' "
            f'({"; ".join(problems)}); give the configuration that belongs to the file '
            '(docs/weights.md lists them)'
        )
    return converted


def import_official(path: Path | str, config_name: str) -> OnlineMapper:
    """Build a model from a published file.

    Args:
        path: `.pth` as the authors publish it, or `.safetensors` with the same names.
        config_name: name or path of the configuration; its section `official` is applied.

    Returns:
        The model in eval mode, frozen as in the published recipe.

    Raises:
        ConfigError: there is no such configuration, or it has no published weights.
        CheckpointError: the file cannot be read or does not fit the configuration.
    """
    config = load_official_config(config_name)
    tensors = read_tensor_file(
        path, 'published weights', 'a MapTR checkpoint (.pth with a state_dict, or .safetensors)'
    )
    state = convert_official(tensors, config, f"published weights '{path}'")
    model = OnlineMapper(config)
    model.load_state_dict(state)
    model.image_encoder.backbone.freeze()
    return model.eval()
