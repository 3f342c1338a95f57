"""What a checkpoint tells about its training; and seeds of single steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsmap_core.config import to_plain
from gsmap_core.data.loading import MapDataset
from gsmap_core.training.run_directory import RunInfo


def training_metadata(
    info: RunInfo, train_data: MapDataset, val_data: MapDataset | None
) -> dict[str, str]:
    """Return recipe, drives and origin of the weights, as text."""
    drives = [drive.name for drive in train_data.drives]
    val_drives = [drive.name for drive in val_data.drives] if val_data else []
    return {
        'recipe': plain_json(info.recipe),
        'seed': str(info.recipe.seed),
        'train_drives': plain_json(drives),
        'train_frames': str(len(train_data)),
        'val_drives': plain_json(val_drives),
        'val_frames': str(len(val_data) if val_data else 0),
        'pretrained_backbone': info.backbone or 'none',
        'initial_weights': Path(info.initial_weights).name or 'none',
    }


def plain_json(value: Any) -> str:
    """Return a configuration or plain values as JSON."""
    return json.dumps(to_plain(value))


def mixed_seed(*numbers: int) -> int:
    """Return one well-mixed 63-bit seed for a few numbers."""
    value = 0x9E3779B97F4A7C15
    for number in numbers:
        value = ((value ^ number) * 0xBF58476D1CE4E5B9 + 1) % 2**64
        value ^= value >> 31
    return value % 2**63
