"""Lift, splat by hand: frustum, voxels, cell orders, cameras that are missing or alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gsmap_core.config import LssConfig, ModelConfig
from gsmap_core.errors import ConfigError
from gsmap_core.images import FrameBatch, make_frame_batch
from gsmap_core.models.bev.lss_depth import CameraAwareDepthNet, camera_vectors
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.structures import PerceptionRange


@pytest.fixture
def lss_config(config: ModelConfig) -> ModelConfig:
    """The small model with a small camera-aware LSS."""
    lss = LssConfig(
        depth_step_m=2.0, hidden_dims=8, num_depth_blocks=1, pyramid_dims=4, pyramid_dropout=0.0
    )
    bev = replace(config.bev, view_transform='lss', z_min_m=-10.0, z_max_m=10.0, lss=lss)
    return replace(config, bev=bev)


def official(config: ModelConfig) -> ModelConfig:
    """Return the same model with the published axes: x to the right, rows along +y."""
    bev = replace(config.bev, order='official')
    return replace(config, bev=bev, range=PerceptionRange(-15.0, 15.0, -30.0, 30.0))


def test_bins_of_the_published_model() -> None:
    bins = LssConfig().depth_bins_m()
    assert len(bins) == LssConfig().num_depth_bins == 68
    assert bins[0] == 1.0 and bins[1] == 1.5 and bins[-1] == 34.5


def test_frustum_goes_through_the_border_pixels(make_frame, lss_config: ModelConfig) -> None:
    """Camera 0 looks ahead from 1.6 m; bin d of the top left cell: pixel (0, 0), depth d."""
    view = OnlineMapper(lss_config).view_transform
    batch = make_frame_batch([make_frame(1)], lss_config.image)
    points = view.frustum_points(batch.pixels_from_ego[0])
    assert points.shape == (1, 17, 8 * 12, 3)
    depth = 3.0  # second bin
    expected = [depth, (47.5 - 0) / 60 * depth, 1.6 + (31.5 - 0) / 60 * depth]
    assert points[0, 1, 0].tolist() == pytest.approx(expected, abs=1e-4)
    expected = [depth, (47.5 - 95) / 60 * depth, 1.6 + (31.5 - 63) / 60 * depth]
    assert points[0, 1, -1].tolist() == pytest.approx(expected, abs=1e-4)


def test_voxels_are_half_cells_and_truncated_toward_zero(lss_config: ModelConfig) -> None:
    """60 rows of 1 m and 30 columns of 1 m; the lower limits admit one voxel more."""
    points = torch.tensor(
        [[29.5, 14.5, 0], [-29.5, -14.5, 0], [-30.5, -15.5, 0], [-31.5, 0, 0], [30.5, 0, 0]]
        + [[0.5, 0.5, -29], [0.5, 0.5, 11]]
    ).view(1, 1, -1, 3)
    view = OnlineMapper(lss_config).view_transform
    sample = torch.tensor([1], dtype=torch.int32)
    found = view.find_voxels(points, sample).flatten() - 60 * 30
    last = 60 * 30 - 1
    assert found[:3].tolist() == [0, last, last]
    assert (found[[3, 4, 6]] == -1 - 60 * 30).all()
    # z down to one voxel (20 m) below the limit counts as inside, as published.
    assert found[5] == 29 * 30 + 14
    turned = points[..., [1, 0, 2]] * torch.tensor([-1.0, 1.0, 1.0])
    view = OnlineMapper(official(lss_config)).view_transform
    found = view.find_voxels(turned, sample * 0).flatten()
    assert found[:3].tolist() == [59 * 30, 29, -1]


def test_a_feature_lands_where_its_depth_says(make_frame, lss_config: ModelConfig) -> None:
    """With all probability in one bin, pooled features lie at that depth ahead of the camera."""
    view = OnlineMapper(lss_config).view_transform
    batch = make_frame_batch([make_frame(1)], lss_config.image)
    points = view.frustum_points(batch.pixels_from_ego[0])
    voxels = view.find_voxels(points, torch.zeros(1, dtype=torch.int32))[0, 4]  # 9 m
    row = torch.div(voxels[voxels >= 0], 30, rounding_mode='floor')
    assert set(row.tolist()) == {20}  # 30 m - 9 m, in voxels of 1 m, ends of cells excluded


@pytest.mark.parametrize('depth_net', ['plain', 'camera_aware'])
@pytest.mark.parametrize('voxels_per_cell', [1, 2])
def test_shapes_and_gradients(
    lss_config: ModelConfig, batch: FrameBatch, depth_net: str, voxels_per_cell: int
) -> None:
    lss = replace(lss_config.bev.lss, depth_net=depth_net, voxels_per_cell=voxels_per_cell)
    config = replace(lss_config, bev=replace(lss_config.bev, lss=lss))
    model = OnlineMapper(config).train()
    output = model(batch)
    assert output.bev.shape == (2, 16, 30, 15)
    assert output.depth_logits.shape == (2, 6, 17, 8, 12)
    output.points.sum().backward()
    gradients = {
        name: value.grad
        for name, value in model.view_transform.named_parameters()
        if value.requires_grad
    }
    assert all(value is not None and value.isfinite().all() for value in gradients.values())
    assert (
        gradients[
            'depth_net.' + ('output' if depth_net == 'plain' else 'depth_output') + '.weight'
        ]
        .abs()
        .max()
        > 0
    )


@pytest.mark.parametrize('num_cameras', [1, 2, 7])
def test_any_number_of_cameras(make_frame, lss_config: ModelConfig, num_cameras: int) -> None:
    """One image alone in training: its camera vector has no statistics of its own."""
    model = OnlineMapper(lss_config)
    frames = make_frame_batch([make_frame(num_cameras)], lss_config.image)
    for output in (model.train()(frames), model.eval()(frames)):
        assert output.points.isfinite().all() and output.bev.isfinite().all()


def test_a_missing_camera_contributes_nothing(make_frame, lss_config: ModelConfig) -> None:
    """Not even when its calibration is not a number."""
    model = OnlineMapper(lss_config).eval()
    batch = make_frame_batch([make_frame(6, missing=(2,))], lss_config.image)
    with torch.inference_mode():
        masked = model(batch)
        batch.images[:, 2] = 1.0
        for values in (batch.pixels_from_ego, batch.base_from_cameras):
            values[:, 2] = float('nan')
        torch.testing.assert_close(model(batch).bev, masked.bev, rtol=0, atol=0)
        kept = [0, 1, 3, 4, 5]
        fields = {key: value[:, kept] for key, value in vars(batch).items() if value is not None}
        alone = model(FrameBatch(**fields))
        torch.testing.assert_close(alone.bev, masked.bev, rtol=0, atol=1e-5)
        assert not masked.depth_logits[:, 2].any() and masked.depth_logits[:, 3].any()
        none = make_frame_batch([make_frame(2, missing=(0, 1))], lss_config.image)
        assert model(none).bev.isfinite().all()


def test_both_orders_and_frames_see_the_same_world(lss_config: ModelConfig, batch) -> None:
    """An official grid in a turned frame pools the same voxels as our own grid, turned.

    Lidar frame: x to the right, y forward. Its cell (row, column) is our (H - 1 - row, column),
    but for the one voxel that truncation adds below the lower limits.
    """
    turned = replace(official(lss_config), reference='lidar')
    own = OnlineMapper(lss_config).eval()
    other = OnlineMapper(turned).eval()
    state = own.state_dict()
    for name in ('voxel_size', 'first_voxel', 'num_voxels'):
        state[f'view_transform.{name}'] = other.state_dict()[f'view_transform.{name}']
    other.load_state_dict(state)
    ego_from_lidar = torch.tensor(
        [[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    ).expand(2, 4, 4)
    pooled = []
    for model in (own, other):
        model.view_transform.down_sampler.register_forward_pre_hook(
            lambda _module, args: pooled.append(args[0])
        )
    with torch.inference_mode():
        own(batch)
        other(replace(batch, ego_from_reference=ego_from_lidar))
    inner = pooled[0][..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, pooled[1].flip(2)[..., 1:-1, 1:-1], rtol=0, atol=1e-4)
    assert inner.abs().max() > 0


def test_camera_vector_by_hand() -> None:
    """Intrinsics before the resize by 0.5, the resize, the extrinsics row by row."""
    intrinsics = torch.tensor([[60.0, 0, 47], [0, 50, 31], [0, 0, 1]]).view(1, 1, 3, 3)
    extrinsics = torch.arange(16.0).view(1, 1, 4, 4)
    vector = camera_vectors(intrinsics, extrinsics, 0.5)
    expected = [120, 100, 94, 62, 0.5, 0, 0, 0, 0.5, 0, *np.arange(12)]
    assert vector.flatten().tolist() == pytest.approx(expected)
    resize = torch.tensor([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]]).view(1, 1, 3, 3)
    vector = camera_vectors(intrinsics, extrinsics, None, resize)
    expected = [120, 100, 94.5, 62.5, 0.5, 0, -0.25, 0, 0.5, -0.25, *np.arange(12)]
    assert vector.flatten().tolist() == pytest.approx(expected)


def test_the_published_depth_network_has_the_published_size() -> None:
    """MapTRv2's encoder: 7,230,521 parameters with the down-sampler and nine constants."""
    network = CameraAwareDepthNet(256, LssConfig())
    total = sum(value.numel() for value in network.parameters())
    assert total + 3 * (9 * 256 * 256 + 512) + 9 == 7_230_521


def test_user_errors_are_named(lss_config: ModelConfig) -> None:
    with pytest.raises(ConfigError, match='depth bins from 5.0 to 3.0 m'):
        LssConfig(depth_min_m=5.0, depth_max_m=3.0)
    with pytest.raises(ConfigError, match='pyramid_dims 0'):
        LssConfig(pyramid_dims=0)
    gkt = replace(lss_config.bev, view_transform='gkt')
    with pytest.raises(ConfigError, match="'gkt', which predicts no depth"):
        replace(lss_config, bev=gkt, losses=replace(lss_config.losses, depth=3.0))
    with pytest.raises(ConfigError, match='official_only.*num_cameras 0'):
        replace(lss_config, official_only=True)


@pytest.mark.parametrize('order', ['ego', 'official'])
def test_observed_cells_are_those_with_pooled_features(
    make_frame, lss_config: ModelConfig, order: str
) -> None:
    """Pooled without the down-sampler: a cell is observed where any of its 2 x 2 voxels is not 0.

    The second frame lacks its first camera.
    """
    config = lss_config if order == 'ego' else official(lss_config)
    config = replace(config, bev=replace(config.bev, num_rows=30, num_columns=24))
    view = OnlineMapper(config).view_transform
    batch = make_frame_batch([make_frame(2), make_frame(2)], config.image)
    mask = torch.tensor([[True, True], [False, True]])
    view.down_sampler = torch.nn.Identity()
    features = torch.rand(2, 2, config.embed_dims, *config.feature_shape)
    pooled, _ = view(
        features, batch.pixels_from_ego, mask, batch.intrinsics, batch.base_from_cameras
    )
    expected = (pooled != 0).any(1).view(2, 30, 2, 24, 2).any(4).any(2)
    observed = view.observed_cells(batch.pixels_from_ego, mask)
    assert torch.equal(observed, expected)
    assert 0 < observed[1].sum() < observed[0].sum() < observed[0].numel()
