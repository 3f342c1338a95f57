"""Checkpoints: one safetensors file with all tensors, and the whole configuration in its metadata.

A checkpoint alone rebuilds its model; nothing in it is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gsmap_core.atomic_files import atomic_path
from gsmap_core.config import ModelConfig, model_config_from_dict, to_plain
from gsmap_core.errors import CheckpointError, ConfigError
from gsmap_core.models.backbone import check_tensors
from gsmap_core.models.mapper import OnlineMapper

FORMAT = 'gsmap-checkpoint-1'
_RESERVED = ('format', 'config', 'frozen_backbone')


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model rebuilt from a file.

    Args:
        model: in eval mode, on the requested device.
        config: its configuration.
        metadata: what was stored beside the configuration (steps, seeds, scores, ...), as text.
    """

    model: OnlineMapper
    config: ModelConfig
    metadata: dict[str, str]


def save_checkpoint(
    path: Path | str, model: OnlineMapper, extra: Mapping[str, str] | None = None
) -> None:
    """Write a model, whole or not at all: a failed write keeps the old file.

    Args:
        path: target, by convention `*.safetensors`; its folder is created.
        model: its tensors are written in their own dtypes.
        extra: further metadata, text to text.

    Raises:
        CheckpointError: `extra` uses a reserved key, or the file cannot be written.
    """
    path = Path(path)
    extra = dict(extra or {})
    taken = [key for key in extra if key in _RESERVED]
    if taken:
        raise CheckpointError(
            f"checkpoint metadata uses {', '.join(taken)}; these keys are the checkpoint's own, "
            'choose others'
        )
    metadata = {
        **extra,
        'format': FORMAT,
        'config': json.dumps(to_plain(model.config)),
        'frozen_backbone': json.dumps(model.image_encoder.backbone.is_frozen),
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint '{path}' cannot be written ({error}); choose another place or free some "
            'space'
        ) from None


def read_checkpoint_config(path: Path | str) -> ModelConfig:
    """Read the configuration of a checkpoint without its tensors.

    Raises:
        CheckpointError: the file is missing, truncated or not one of ours.
    """
    return _parse_config(Path(path), _read_metadata(Path(path)))


def load_checkpoint(path: Path | str, device: torch.device | str = 'cpu') -> LoadedCheckpoint:
    """Rebuild a model from its checkpoint.

    Args:
        path: file written by `save_checkpoint`.
        device: where the model goes.

    Raises:
        CheckpointError: the file is missing, truncated, not one of ours, or its tensors do not fit
            its configuration.
    """
    path = Path(path)
    metadata = _read_metadata(path)
    config = _parse_config(path, metadata)
    model = OnlineMapper(config)
    tensors = _read_tensors(path)
    check_tensors(model.state_dict(), tensors, f"checkpoint '{path}'")
    model.load_state_dict(tensors)
    if json.loads(metadata.get('frozen_backbone', 'false')):
        model.image_encoder.backbone.freeze()
    model.eval().to(device)
    extra = {key: value for key, value in metadata.items() if key not in _RESERVED}
    return LoadedCheckpoint(model, config, extra)


def load_weights_into(model: OnlineMapper, path: Path | str) -> None:
    """Load a checkpoint's tensors into a model that exists.

    Raises:
        CheckpointError: the file is missing, truncated or foreign, or belongs to another
            configuration; the message then lists the missing and the unexpected tensors and the
            differing shapes, or what it understands by its numbers (frame, range, order of cells
            and cameras). The model is unchanged in that case.
    """
    path = Path(path)
    stored = _parse_config(path, _read_metadata(path))
    tensors = _read_tensors(path)
    check_tensors(model.state_dict(), tensors, f"checkpoint '{path}'")
    _check_meaning(path, stored, model.config)
    model.load_state_dict(tensors)


def load_shared_weights_into(model: OnlineMapper, path: Path | str) -> list[str]:
    """Load what a checkpoint of another configuration shares with a model: by name and shape.

    Returns:
        Names of the tensors that the model has and the checkpoint has not; they are unchanged.

    Raises:
        CheckpointError: the file is missing, truncated or foreign, shares no learned tensor with
            the model, or understands something else by its numbers, see `load_weights_into`. The
            model is unchanged in that case.
    """
    path = Path(path)
    stored = _parse_config(path, _read_metadata(path))
    own, tensors = model.state_dict(), _read_tensors(path)
    shared = {
        name: tensor
        for name, tensor in tensors.items()
        if name in own and own[name].shape == tensor.shape
    }
    if not shared.keys() & {name for name, _ in model.named_parameters()}:
        raise CheckpointError(
            f"checkpoint '{path}' of '{stored.name}' shares no tensor with '{model.config.name}'; "
            'expected a model with the same backbone or encoder, of the same size'
        )
    _check_meaning(path, stored, model.config)
    model.load_state_dict(shared, strict=False)
    return [name for name in own if name not in shared]


def _check_meaning(path: Path, stored: ModelConfig, wanted: ModelConfig) -> None:
    """Refuse weights that fit in shape and stand for other frames, ranges, cells or cameras."""
    differing = [
        f'{name} {theirs} instead of {ours}'
        for name, theirs, ours in (
            ('reference', stored.reference, wanted.reference),
            ('range', stored.range, wanted.range),
            ('bev.order', stored.bev.order, wanted.bev.order),
            ('cameras', list(stored.cameras), list(wanted.cameras)),
            ('categories', list(stored.categories), list(wanted.categories)),
        )
        if theirs != ours
    ]
    if differing:
        raise CheckpointError(
            f"checkpoint '{path}' fits in shape but means something else "
            f'({"; ".join(differing)}); use a configuration with the same options'
        )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework='pt') as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def _read_metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint '{path}' is not a file; give the path of a checkpoint (*.safetensors)"
        )
    try:
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None
    if metadata.get('format') != FORMAT or 'config' not in metadata:
        raise CheckpointError(
            f"checkpoint '{path}' is a safetensors file of another program (format "
            f'{metadata.get("format")!r}); expected '
            f'{FORMAT!r}: a file written by gsmap train or gsmap import-weights'
        )
    return metadata


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    size = path.stat().st_size if path.exists() else 0
    return CheckpointError(
        f"checkpoint '{path}' ({size} bytes) is truncated or not a safetensors file ({error}); "
        'copy or download it again'
    )


def _parse_config(path: Path, metadata: Mapping[str, str]) -> ModelConfig:
    try:
        values = json.loads(metadata['config'])
        if not isinstance(values, dict):
            raise ConfigError(f'{type(values).__name__} instead of a mapping')
        return model_config_from_dict(values, 'config')
    except (ValueError, ConfigError) as error:
        raise CheckpointError(
            f"checkpoint '{path}' holds a configuration that this version cannot read ({error}); "
            'use the version that wrote it'
        ) from None
