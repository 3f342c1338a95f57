"""Attention encoders of BEV cells: deformable attention on images, history, reference points."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gsmap_core.config import BevConfig, ModelConfig, load_official_config
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.images import FrameBatch
from gsmap_core.models.bev.attention_encoder import reference_points
from gsmap_core.models.bev.history import motion_shift, rotate_bev
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.structures import PerceptionRange


@pytest.fixture
def bevformer(config: ModelConfig) -> ModelConfig:
    bev = BevConfig(
        view_transform='bevformer', num_rows=12, num_columns=6, num_heads=2, num_layers=1
    )
    return replace(config, bev=bev)


def run(model: OnlineMapper, batch: FrameBatch, state=None):
    with torch.inference_mode():
        return model.eval()(batch, state)


def test_a_cell_reads_the_feature_at_its_projection(bevformer: ModelConfig, make_frame) -> None:
    """Offsets 0 and equal weights: the mean over heights of the bilinear feature there."""
    from gsmap_core.images import make_frame_batch

    batch = make_frame_batch([make_frame(3)], bevformer.image)
    encoder = OnlineMapper(bevformer).view_transform
    attention = encoder.layers[0].cross_attention
    with torch.no_grad():
        attention.sampling_offsets.bias.zero_()
        for projection in (attention.value_proj, attention.output_proj):
            projection.weight.copy_(torch.eye(bevformer.embed_dims))
            projection.bias.zero_()
    height, width = 8, 12
    views = encoder.look_up(batch.pixels_from_ego, batch.camera_mask, (height, width))
    # A feature map that rises by 1 per column, plus 100 per camera.
    columns = torch.arange(width, dtype=torch.float32)
    value = (100 * torch.arange(3)[:, None, None] + columns).expand(3, height, width)
    tokens = value.reshape(-1, 1).expand(-1, bevformer.embed_dims).contiguous()
    cells = bevformer.bev.num_rows * bevformer.bev.num_columns
    query = torch.zeros(1, cells, bevformer.embed_dims)
    result = attention.eval()(query, tokens, views)[0, :, 0]
    pairs = views.pairs
    checked = 0
    for cell in range(cells):
        mine = pairs.cells == cell
        x, y = (pairs.uv[mine] * torch.tensor([width, height]) - 0.5).unbind(-1)
        inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
        if not len(x) or not bool(inside.all()):
            continue
        assert pairs.share[mine].tolist() == pytest.approx([1 / len(x)] * len(x))
        expected = (x.mean(1) + 100 * pairs.images[mine]).mean()
        assert result[cell].item() == pytest.approx(expected.item(), abs=1e-3)
        checked += 1
    assert checked > 10
    unseen = torch.ones(cells, dtype=torch.bool)
    unseen[pairs.cells] = False
    assert (result[unseen] == 0).all()


def test_a_sample_does_not_depend_on_its_neighbours(
    bevformer: ModelConfig, batch: FrameBatch
) -> None:
    """Images are padded to the most asked one, and a missing camera is not asked at all."""
    model = OnlineMapper(bevformer)
    mask = batch.camera_mask.clone()
    mask[1, 2:] = False
    together = run(model, replace(batch, camera_mask=mask))
    alone = {
        name: None if value is None else value[1:]
        for name, value in vars(replace(batch, camera_mask=mask)).items()
    }
    single = run(model, FrameBatch(**alone))
    torch.testing.assert_close(single.bev, together.bev[1:], rtol=0, atol=1e-5)


def test_no_camera_at_all_is_finite(bevformer: ModelConfig, batch: FrameBatch) -> None:
    blind = replace(batch, camera_mask=torch.zeros_like(batch.camera_mask))
    model = OnlineMapper(bevformer).train()
    output = model(blind)
    output.points.sum().backward()
    assert output.bev.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_every_parameter_of_the_encoder_gets_a_gradient(
    bevformer: ModelConfig, batch: FrameBatch
) -> None:
    model = OnlineMapper(bevformer)
    with torch.no_grad():
        for parameter in model.view_transform.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model(batch).bev.square().sum().backward()
    for name, parameter in model.view_transform.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_points_must_share_out_over_the_heights() -> None:
    with pytest.raises(ConfigError, match='num_sampling_points 6.*multiple of num_heights 4'):
        BevConfig(view_transform='bevformer', num_sampling_points=6)
    BevConfig(view_transform='gkt', num_heights=3)


def test_half_precision_reference_points() -> None:
    """Cell centres carry the rounding of half precision: unit coordinates, then metres."""
    config = load_official_config('maptr_r50')
    assert config.bev.half_precision_reference
    exact = replace(config, bev=replace(config.bev, half_precision_reference=False))
    points, centres = reference_points(config)
    plain, plain_centres = reference_points(exact)
    # Column 60 of 100: 0.605 lies between the halves 1239 / 2048 and 1240 / 2048.
    assert plain_centres[60, 0] == 0.605 and centres[60, 0] == 1239 / 2048
    assert points[60, 0, 0] == pytest.approx(-15 + 30 * 1239 / 2048, abs=1e-12)
    error = np.abs(points - plain).max(axis=(0, 1))
    # Half of 2^-11 of 30 m and 60 m; heights are exact.
    assert 0.006 < error[0] <= 30 / 4096 and 0.012 < error[1] <= 60 / 4096 and error[2] == 0


def test_a_quarter_turn_about_the_middle() -> None:
    bev = torch.arange(9.0).view(1, 1, 3, 3)
    turned = rotate_bev(bev, torch.tensor([90.0]))[0, 0]
    # The vehicle turned left: what was left of it (column 0) is ahead now (last row), and what was
    # behind (row 0) is left.
    assert turned[2].tolist() == [0.0, 3.0, 6.0] and turned[:, 0].tolist() == [2.0, 1.0, 0.0]
    assert torch.equal(rotate_bev(bev, torch.tensor([0.0])), bev)


def test_a_turn_about_an_edge_leaves_zeros() -> None:
    bev = torch.ones(1, 1, 4, 2)
    turned = rotate_bev(bev, torch.tensor([180.0]), (2.0, 2.0))
    assert torch.equal(turned, torch.zeros_like(bev))


def test_the_shift_of_a_drive_straight_ahead_and_sideways() -> None:
    grid = replace(
        ModelConfig(),
        range=PerceptionRange(-15.0, 15.0, -30.0, 30.0),
        bev=BevConfig(order='official'),
    ).grid
    heading = 0.7
    can_bus = torch.zeros(2, 18)
    can_bus[:, 16] = heading
    ahead, right = heading, heading - np.pi / 2
    can_bus[0, :2] = 3.0 * torch.tensor([np.cos(ahead), np.sin(ahead)])
    can_bus[1, :2] = 1.5 * torch.tensor([np.cos(right), np.sin(right)])
    expected = torch.tensor([[0.0, 3.0 / 60], [1.5 / 30, 0.0]])
    torch.testing.assert_close(motion_shift(can_bus, grid), expected, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="bev.order 'official'"):
        motion_shift(can_bus, ModelConfig().grid)


def test_history_needs_its_configuration_and_the_motion(
    bevformer: ModelConfig, batch: FrameBatch
) -> None:
    with pytest.raises(ConfigError, match="history needs order 'official'"):
        replace(bevformer.bev, history=True)
    config = replace(
        bevformer, bev=replace(bevformer.bev, history=True, order='official', can_bus=True)
    )
    model = OnlineMapper(config)
    first = run(model, batch)
    assert torch.equal(first.state, first.bev) and not first.state.requires_grad
    with pytest.raises(DataError, match='without can_bus'):
        run(model, batch, first.state)
    moved = replace(batch, can_bus=torch.zeros(2, 18))
    torch.testing.assert_close(run(model, moved).bev, first.bev)
    second = run(model, moved, first.state)
    assert (second.bev - first.bev).abs().max() > 1e-3
