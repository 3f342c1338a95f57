"""InteractionMap and the flagship as configured: published sizes, and all parts train together."""

from __future__ import annotations

import pytest
import torch
from helpers.fake_drives import FakeDrive

from gsmap_core.config import load_model_config
from gsmap_core.data.loading import MapDataset, collate
from gsmap_core.losses.criterion import Criterion
from gsmap_core.models.mapper import OnlineMapper


def count(module: torch.nn.Module | None) -> int:
    """Return the number of parameters."""
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_counts() -> None:
    """Table 4 of the paper, and every line of the table in docs/interactionmap.md."""
    with torch.device('meta'):
        r, c, host = (
            OnlineMapper(load_model_config(name))
            for name in ('interactionmap_r_r50', 'interactionmap_c_r50', 'maptrv2_r50')
        )
    assert count(r) == 49_794_542 == pytest.approx(49.9e6, rel=0.02)
    assert count(c) == 117_390_830 == pytest.approx(116.7e6, rel=0.02)
    assert r.fusion is not None and c.fusion is not None
    assert count(host) - count(host.official_only) == 40_501_471
    assert count(host.mask_head) == 590_081 and r.mask_head is None
    assert count(r.decoder) - count(host.decoder) == 179_200 + count(r.decoder.relation)
    assert count(r.decoder.relation) == 528
    assert count(r.instance_mask_head) == 263_168
    assert count(r.fusion.local_gru) == count(r.fusion.global_gru) == 3_539_456
    assert count(r.fusion.local_blocks) == count(c.fusion.local_blocks) == 2_361_344
    assert count(c.fusion.stacking) == 71_135_744
    both = (40_501_471, -590_081, 179_200, 528, 263_168, 3_539_456, 2_361_344)
    assert count(r) == sum(both) + 3_539_456
    assert count(c) == sum(both) + 71_135_744


@pytest.mark.parametrize('name', ['interactionmap_c_mini', 'gsmap_live_mini'])
def test_all_parts_train_together_over_frames(name: str) -> None:
    torch.manual_seed(0)
    config = load_model_config(name)
    data = MapDataset([FakeDrive(2, seed=seed, speed_m=4.0) for seed in (1, 2)], config)
    model, criterion, state = OnlineMapper(config).train(), Criterion(config), None
    for index in range(2):
        batch = collate([data[0, index], data[0, index + 2]])
        output = model(batch.frame_batch(config.image), state)
        losses = criterion(output, batch.targets)
        sum(losses.values()).backward()
        state = output.state
    assert state.num_frames.tolist() == [2, 2] and not state.submap.requires_grad
    assert {'classification', 'points', 'direction', 'instance_mask', 'instance_dice'} <= {
        key.split('.')[-1] for key in losses
    }
    assert ('raster' in losses) == (name == 'gsmap_live_mini')
    for key, parameter in model.named_parameters():
        # Ping-pong rests one half of the relations at random.
        if parameter.requires_grad and not key.startswith('decoder.relation.'):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
