"""Small drives with known faults, written as bags, and a network small enough for any machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch

from gsmap_core.config import model_config_from_dict
from gsmap_core.data.drives import PoseSample, RecordedFrame, RecordedImage
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.models.checkpoint import save_checkpoint
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.rig import load_rig, scaled_rig
from gsmap_core.structures import CameraRig, VectorMap

START_NS = 1_700_000_000_000_000_000
MICRO_MODEL = {
    'name': 'micro',
    'embed_dims': 16,
    'image': {'width_px': 64, 'height_px': 64},
    'backbone': {
        'block': 'basic',
        'num_blocks': [1, 1, 1, 1],
        'base_width': 8,
        'stem': 'conv3',
        'out_stages': [4],
        'num_frozen_stages': 0,
        'frozen_norm': False,
    },
    'bev': {'num_rows': 12, 'num_columns': 6, 'self_attention': 'none', 'num_heights': 2},
    'decoder': {
        'num_layers': 1,
        'num_instances': 6,
        'num_points': 5,
        'num_heads': 2,
        'ffn_dims': 16,
        'dropout': 0.0,
    },
}


def write_micro_checkpoint(path: Path, fusion: str = 'none') -> Path:
    """Write random weights of a tiny model, with one of the kinds of memory."""
    torch.manual_seed(3)
    model = {**MICRO_MODEL, 'fusion': {'kind': fusion}}
    save_checkpoint(path, OnlineMapper(model_config_from_dict(model, 'micro')))
    return path


def pose_at(stamp_ns: int) -> np.ndarray:
    """A gentle curve at 8 m/s."""
    seconds = (stamp_ns - START_NS) / 1e9
    return make_transform(
        rotation_from_rpy(0.0, 0.0, 0.1 * seconds), [8.0 * seconds, 0.3 * seconds**2, 0.0]
    )


@dataclass
class FaultyDrive:
    """A drive of a real rig with small noisy pictures; faults by set number.

    Args:
        rig_name: of `config/rigs`.
        num_sets: length.
        period_ns: between two sets.
        missing: (set, camera) that delivered nothing.
        corrupt: (set, camera) whose JPEG is cut in half.
    """

    rig_name: str = 'nuscenes_like'
    num_sets: int = 10
    period_ns: int = 200_000_000
    missing: frozenset[tuple[int, str]] = frozenset()
    corrupt: frozenset[tuple[int, str]] = frozenset()
    name: str = 'faulty-drive'
    metadata: dict[str, str] = field(default_factory=lambda: {'source': 'test'})

    @cached_property
    def rig(self) -> CameraRig:
        return scaled_rig(load_rig(self.rig_name), 96)

    @property
    def global_map(self) -> VectorMap | None:
        return None

    @property
    def poses(self) -> list[PoseSample]:
        end_ns = self.stamp_ns(self.num_sets) + 100_000_000
        return [
            PoseSample(stamp, pose_at(stamp))
            for stamp in range(START_NS - 7_000_000, end_ns, 20_000_000)
        ]

    def stamp_ns(self, index: int) -> int:
        """Stamp of the reference camera (the first of the rig) in a set."""
        return START_NS + index * self.period_ns

    def offset_ns(self, camera: str) -> int:
        """When a camera fires in relation to the reference."""
        return 5_000_000 * self.rig.names.index(camera)

    def jpeg(self, index: int, camera: str) -> bytes:
        size = self.rig.camera(camera)
        random = np.random.default_rng(1000 * index + self.rig.names.index(camera))
        picture = random.integers(0, 255, (size.height_px // 4 + 1, size.width_px // 4 + 1, 3))
        picture = cv2.resize(picture.astype(np.uint8), (size.width_px, size.height_px))
        data = cv2.imencode('.jpg', picture)[1].tobytes()
        # Without its header, no decoder makes a picture of it.
        return data[len(data) // 2 :] if (index, camera) in self.corrupt else data

    def frames(self) -> Iterator[RecordedFrame]:
        for index in range(self.num_sets):
            stamp = self.stamp_ns(index)
            yield RecordedFrame(
                stamp_ns=stamp,
                images=tuple(
                    RecordedImage(name, stamp + self.offset_ns(name), self.jpeg(index, name))
                    for name in self.rig.names
                    if (index, name) not in self.missing
                ),
            )
