"""A long drive costs no more memory and no more work per frame than a short one."""

from __future__ import annotations

import pytest
import torch

from gsmap_core.config import BevConfig, DecoderConfig, FusionConfig, ModelConfig
from gsmap_core.models.fusion import TemporalFusion


@pytest.mark.parametrize(
    ('kind', 'num_frames'), [('keyframe_streaming', 2_000), ('keyframe_stacking', 10_000)]
)
def test_the_state_stays_as_large_as_after_the_first_frame(kind: str, num_frames: int) -> None:
    """Thousands of frames of driving, standing, reversing, and lost poses."""
    config = ModelConfig(
        embed_dims=2,
        bev=BevConfig(num_rows=6, num_columns=3, num_heights=1),
        decoder=DecoderConfig(num_heads=1),
        fusion=FusionConfig(kind=kind),  # type: ignore[arg-type]
    )
    torch.manual_seed(0)
    fusion = TemporalFusion(config).eval()
    maps = torch.randn(16, 1, 2, 6, 3)
    # Metres per frame: 40 frames forward, 10 at rest, 10 back; one pose in 100 is lost.
    phase = torch.arange(num_frames) % 60
    speed = torch.where(phase < 40, 1.0, torch.where(phase < 50, 0.0, -0.5)).double()
    poses = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1, 1)
    poses[:, 0, 0, 3] = speed.cumsum(0)
    poses[::100] = torch.nan
    state, sizes = None, set()
    with torch.inference_mode():
        for index, pose in enumerate(poses):
            fused, state = fusion(maps[index % 16], pose, None, state)
            if index % 500 == 1:
                tensors = state.save()
                sizes.add((state.num_bytes, *(tuple(value.shape) for value in tensors.values())))
                assert fused.isfinite().all()
                # No view of something larger hides behind a tensor.
                assert all(
                    value.untyped_storage().nbytes() == value.numel() * value.element_size()
                    for value in tensors.values()
                )
    assert state is not None and len(sizes) == 1
    assert state.num_frames.tolist() == [num_frames - num_frames // 100]
    travelled = state.travelled_m.item()
    assert travelled == pytest.approx(speed.abs().sum().item(), rel=0.03)
    # No key frame without its 5 m, none that is late by more than a move.
    assert travelled / 6.5 < state.num_key_frames.item() <= travelled / 5.0 + 1
