"""Points with heights: cost, losses, and a training step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config

from gsmap_core.config import LssConfig
from gsmap_core.data.loading import MapDataset, collate
from gsmap_core.losses.criterion import Criterion
from gsmap_core.losses.matching import point_cost
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.models.outputs import MapperOutput
from gsmap_core.structures import MapElement, VectorMap
from gsmap_core.targets import make_targets


@pytest.fixture
def config():
    """MapTRv2 with heights, at its smallest; z runs over 8 m."""
    micro = micro_config(num_dims=3, num_one_to_many=4, one_to_many_copies=2, num_points=5)
    lss = LssConfig(
        depth_step_m=2.0, hidden_dims=8, num_depth_blocks=1, pyramid_dims=4, pyramid_dropout=0.0
    )
    bev = replace(micro.bev, view_transform='lss', z_min_m=-5.0, z_max_m=3.0, lss=lss)
    return replace(micro, bev=bev, losses=replace(micro.losses, pv_segmentation=2.0))


def test_a_raised_line_costs_its_height(config) -> None:
    """0.8 m of 8 m at 5 points: 0.5 in the cost, 2.5 in the weighted loss of one match."""
    line = np.array([[0.0, 0.0, 0.0], [20.0, 0.0, 0.0]])
    targets = make_targets(VectorMap((MapElement(0, line),)), config)
    points = targets.points[None, None] + torch.tensor([0.0, 0.0, 0.1])  # (L, B, M, P, 3)
    cost, _ = point_cost(points[:, 0], targets)
    assert cost.item() == pytest.approx(0.5, abs=1e-5)
    logits = torch.zeros(1, 1, 1, 3)
    bev = torch.zeros(1, 1, 20, 10)
    output = MapperOutput(logits, points, bev, bev_mask_logits=bev)
    losses = Criterion(config)(output, [targets])
    assert losses['points'].item() == pytest.approx(2.5, abs=1e-4)
    assert losses['direction'].item() == pytest.approx(0.0, abs=1e-6)


def test_directions_climb(config) -> None:
    """Edges of 5 m that rise by 5 m each: 1 - cos 45 degrees, four times."""
    line = np.array([[0.0, 0.0, -5.0], [5.0, 0.0, -5.0]])
    targets = make_targets(VectorMap((MapElement(0, line),)), config)
    climbing = targets.points.clone()
    climbing[0, :, 2] += torch.arange(5) * 1.25 / 8
    output = MapperOutput(torch.zeros(1, 1, 1, 3), climbing[None, None], torch.zeros(1, 1, 20, 10))
    losses = Criterion(config)(output, [targets])
    expected = 0.005 * 4 * (1 - np.sqrt(0.5))
    assert losses['direction'].item() == pytest.approx(expected, rel=1e-4)


def test_a_training_step_reaches_every_used_parameter(config) -> None:
    """From drives without heights: the ground. All but the code weights get gradients."""
    dataset = MapDataset([FakeDrive()], config)
    batch = collate([dataset[0, 0], dataset[0, 1]])
    model = OnlineMapper(config).train()
    output = model(batch.frame_batch(config.image))
    assert output.points.shape[-1] == 3 and output.one_to_many[1].shape[-1] == 3
    losses = Criterion(config)(output, batch.targets)
    assert {'points_one_to_many', 'pv_segmentation', 'bev_segmentation'} <= set(losses)
    torch.stack(list(losses.values())).sum().backward()
    silent = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == set()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.decoder.point_heads[0][-1].weight.grad[2].abs().max() > 0
