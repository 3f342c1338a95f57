"""A network small enough for tests, and camera sets for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gsmap_core.config import (
    BackboneConfig,
    BevConfig,
    DecoderConfig,
    ImageConfig,
    LossConfig,
    ModelConfig,
)
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.images import FrameBatch, make_frame_batch
from gsmap_core.structures import Camera, CameraRig, SurroundFrame


@pytest.fixture
def config() -> ModelConfig:
    """96 x 64 px images, 30 x 15 cells, every optional part of our own sizes on."""
    return ModelConfig(
        name='test_model',
        embed_dims=16,
        image=ImageConfig(width_px=96, height_px=64),
        backbone=BackboneConfig(
            block='basic',
            num_blocks=(1, 1, 1, 1),
            base_width=8,
            stem='conv3',
            out_stages=(2, 3, 4),
            num_frozen_stages=0,
            frozen_norm=False,
        ),
        bev=BevConfig(num_rows=30, num_columns=15, self_attention='none', num_refine_blocks=1),
        decoder=DecoderConfig(
            num_layers=2,
            num_instances=5,
            num_points=4,
            num_heads=2,
            num_sampling_points=2,
            ffn_dims=32,
            dropout=0.0,
            self_attention='decoupled',
        ),
        losses=LossConfig(bev_segmentation=1.0),
    )


def looking_at(yaw_rad: float, name: str) -> Camera:
    """Return a camera 1.6 m above the ego origin with its optical axis in the given direction."""
    sine, cosine = np.sin(yaw_rad), np.cos(yaw_rad)
    # Columns: the camera's x (right), y (down) and z (forward) axes in the ego frame.
    rotation = np.array([[sine, 0.0, cosine], [-cosine, 0.0, sine], [0.0, -1.0, 0.0]])
    intrinsics = np.array([[60.0, 0.0, 47.5], [0.0, 60.0, 31.5], [0.0, 0.0, 1.0]])
    transform = make_transform(rotation, [0.0, 0.0, 1.6])
    return Camera(name, name, 96, 64, intrinsics, transform)


def _make_frame(num_cameras: int, seed: int = 0, missing: tuple[int, ...] = ()) -> SurroundFrame:
    generator = np.random.default_rng(seed)
    cameras = tuple(
        looking_at(2 * np.pi * index / num_cameras, f'camera_{index}')
        for index in range(num_cameras)
    )
    images = tuple(
        None if index in missing else generator.integers(0, 255, (64, 96, 3), dtype=np.uint8)
        for index in range(num_cameras)
    )
    return SurroundFrame(0, CameraRig('ring', cameras), images)


@pytest.fixture
def make_frame() -> Callable[..., SurroundFrame]:
    """Make a ring of cameras with random pictures: (num_cameras, seed=0, missing=())."""
    return _make_frame


@pytest.fixture
def batch(config: ModelConfig) -> FrameBatch:
    """Two complete sets of six cameras."""
    return make_frame_batch([_make_frame(6, 0), _make_frame(6, 1)], config.image)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test starts with the same random weights."""
    torch.manual_seed(0)
