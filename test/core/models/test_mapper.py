import copy
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsmap_core.config import FusionConfig, ModelConfig, load_model_config
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.images import FrameBatch, make_frame_batch
from gsmap_core.models.fusion import FusionState
from gsmap_core.models.mapper import OnlineMapper, count_parameters, parameter_report
from gsmap_core.resources import resource_dir

SHIPPED = [path.stem for path in sorted((resource_dir('config') / 'models').glob('*.yaml'))]


def with_decoder(config: ModelConfig, **changes: object) -> ModelConfig:
    """Return the configuration with other decoder settings."""
    return replace(config, decoder=replace(config.decoder, **changes))  # type: ignore[arg-type]


@torch.inference_mode()
def predict(model: OnlineMapper, batch: FrameBatch):
    return model.eval()(batch)


def lively(config: ModelConfig) -> OnlineMapper:
    """Return a model whose initially silent parts speak (offsets, weights, residual branches)."""
    model = OnlineMapper(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_shapes_and_ranges(config: ModelConfig, batch: FrameBatch) -> None:
    output = predict(OnlineMapper(config), batch)
    assert output.class_logits.shape == (2, 2, 5, 3)
    assert output.points.shape == (2, 2, 5, 4, 2)
    assert 0 < output.points.min() and output.points.max() < 1
    assert output.bev.shape == (2, 16, 30, 15)
    assert output.bev_mask_logits is not None and output.bev_mask_logits.shape == (2, 1, 30, 15)
    assert output.one_to_many is None and output.state is None


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_configurations_build(name: str) -> None:
    with torch.device('meta'):
        OnlineMapper(load_model_config(name))


def test_published_parameter_counts() -> None:
    """MapTR-tiny R50 with the GKT encoder (reference-models.md, 8.2)."""
    assert parameter_report(load_model_config('maptr_r50')) == {
        'total_parameters': 36_193_568,
        'trainable_parameters': 35_918_044,
        'official_only_parameters': 0,
        'used_parameters': 36_193_568,
    }


def test_published_parameter_counts_with_and_without_the_unused_ones() -> None:
    """MapTRv2 R50 (reference-models.md, 8.2): 76,928 parameters serve nothing."""
    assert parameter_report(load_model_config('maptrv2_r50')) == {
        'total_parameters': 40_578_399,
        'trainable_parameters': 40_302_866,
        'official_only_parameters': 76_928,
        'used_parameters': 40_501_471,
    }


def test_nothing_is_frozen_without_pretrained_weights(
    config: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    frozen = replace(
        config, backbone=replace(config.backbone, num_frozen_stages=1, frozen_norm=True)
    )
    with caplog.at_level(logging.INFO):
        model = OnlineMapper(frozen).train()
    counts = count_parameters(model)
    # Only the four code weights of the published models never train.
    assert counts['total'] - counts['trainable'] == 4
    assert model.image_encoder.backbone.bn1.training
    assert 'nothing is frozen' in caplog.text


@pytest.mark.parametrize('self_attention', ['joint', 'decoupled'])
@pytest.mark.parametrize('bev_attention', ['none', 'deformable'])
def test_every_parameter_gets_a_gradient(
    config: ModelConfig, batch: FrameBatch, self_attention: str, bev_attention: str
) -> None:
    config = with_decoder(config, self_attention=self_attention, num_one_to_many=3)
    bev = replace(config.bev, self_attention=bev_attention, can_bus=True)
    model = lively(replace(config, bev=bev, num_cameras=6)).train()
    output = model(replace(batch, can_bus=torch.randn(2, 18)))
    assert output.one_to_many is not None and output.bev_mask_logits is not None
    many_logits, many_points = output.one_to_many
    assert many_points.shape == (2, 2, 3, 4, 2)
    total = sum(
        (part * torch.randn_like(part)).sum()
        for part in (
            output.class_logits,
            output.points,
            output.bev_mask_logits,
            many_logits,
            many_points,
        )
    )
    total.backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_a_sample_does_not_depend_on_its_neighbours(
    make_frame, config: ModelConfig, batch: FrameBatch
) -> None:
    bev = replace(config.bev, self_attention='deformable', num_layers=2)
    model = lively(replace(config, bev=bev))
    together = predict(model, batch)
    alone = predict(model, make_frame_batch([make_frame(6, 1)], config.image))
    torch.testing.assert_close(together.points[:, 1:], alone.points, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.bev[1:], alone.bev, rtol=0, atol=1e-4)


@pytest.mark.parametrize('num_cameras', [1, 3, 6, 7])
def test_any_number_of_cameras(make_frame, config: ModelConfig, num_cameras: int) -> None:
    output = predict(
        OnlineMapper(config), make_frame_batch([make_frame(num_cameras)], config.image)
    )
    assert output.points.isfinite().all() and output.class_logits.isfinite().all()


def test_a_missing_camera_contributes_nothing(make_frame, config: ModelConfig) -> None:
    """Its pixels do not matter, and the result is that of a rig without it; others still count."""
    model = lively(config)
    frame = make_frame(6, missing=(2,))
    batch = make_frame_batch([frame], config.image)
    masked = predict(model, batch)
    batch.images[:, 2] = torch.randn_like(batch.images[:, 2])
    batch.pixels_from_ego[:, 2] = float('nan')
    torch.testing.assert_close(predict(model, batch).bev, masked.bev, rtol=0, atol=0)
    kept = [index for index in range(6) if index != 2]
    fields = {key: value[:, kept] for key, value in vars(batch).items() if value is not None}
    torch.testing.assert_close(
        predict(model, FrameBatch(**fields)).bev, masked.bev, rtol=0, atol=1e-5
    )
    complete = make_frame_batch([make_frame(6)], config.image)
    assert (predict(model, complete).bev - masked.bev).abs().max() > 1e-3


def test_no_camera_at_all_gives_finite_results_and_gradients(
    make_frame, config: ModelConfig
) -> None:
    batch = make_frame_batch([make_frame(6, missing=tuple(range(6)))], config.image)
    model = OnlineMapper(config).train()
    output = model(batch)
    (output.points.sum() + output.class_logits.sum() + output.bev.square().sum()).backward()
    assert output.bev.isfinite().all() and output.points.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_missing_cameras_stay_out_of_the_batch_statistics(make_frame, config: ModelConfig) -> None:
    model = OnlineMapper(config).train()
    start = copy.deepcopy(model.state_dict())
    statistics = []
    for content in (0.0, 50.0):
        batch = make_frame_batch([make_frame(6, missing=(1, 2))], config.image)
        batch.images[:, 1:3] = content
        model.load_state_dict(start)
        model(batch)
        statistics.append(model.image_encoder.backbone.bn1.running_var.clone())
    torch.testing.assert_close(*statistics, rtol=0, atol=0)
    assert not torch.equal(statistics[0], start['image_encoder.backbone.bn1.running_var'])


def test_a_cell_reads_the_window_around_its_projection(make_frame, config: ModelConfig) -> None:
    """With a 1 x 1 kernel a cell reads the feature under the projection of its point."""
    bev = replace(
        config.bev, kernel_rows=1, kernel_columns=1, num_heights=1, z_min_m=-0.5, z_max_m=0.5
    )
    view = OnlineMapper(replace(config, bev=bev)).view_transform
    # One height: linspace(0.5, 0.5, 1) above z_min, the ground plane.
    assert view.points[0, 0, 2] == 0.0
    frame = make_frame(1)
    batch = make_frame_batch([frame], config.image)
    views = view.look_up(batch.pixels_from_ego, batch.camera_mask, (8, 12))
    points = view.points[:, 0].numpy().astype(np.float64)
    projection = project_points(frame.rig.cameras[0], points)
    seen = np.zeros(len(points), dtype=bool)
    seen[views.cells.numpy()] = True
    # Cells within a pixel of the border may be judged either way (half-pixel conventions).
    inner = projection.is_visible & (np.abs(projection.pixels - [47.5, 31.5]) < [46, 30]).all(1)
    assert inner.sum() > 50 and seen[inner].all()
    assert not seen[projection.depth_m < 0].any()
    cells = views.cells.numpy()
    expected = np.clip(np.round(projection.pixels[cells] / 8), 0, [11, 7]).astype(int)
    actual = np.stack([views.rows[:, 0] % 12, views.rows[:, 0] // 12], axis=1)
    # A projection exactly between two features may round either way in float32.
    assert (np.abs(actual - expected).max(1) == 0).mean() > 0.99
    assert (views.share == 1).all()


def test_heights_of_the_published_model() -> None:
    from gsmap_core.models.bev.pillars import pillar_heights

    assert pillar_heights(-2.0, 2.0, 4) == pytest.approx([-1.5, -0.5, 0.5, 1.5])


def test_one_to_many_queries_do_not_disturb_the_others(
    config: ModelConfig, batch: FrameBatch
) -> None:
    """Training with them gives the one-to-one predictions of inference without them."""
    for self_attention in ('joint', 'decoupled'):
        many = with_decoder(config, num_one_to_many=4, self_attention=self_attention)
        model = lively(many).eval()
        expected = predict(model, batch)
        model.decoder.train()
        with torch.no_grad():
            output = model(batch)
        assert output.one_to_many is not None
        torch.testing.assert_close(output.points, expected.points, rtol=0, atol=1e-5)


def test_autocast_trains_and_keeps_coordinates_precise(
    config: ModelConfig, batch: FrameBatch
) -> None:
    model = OnlineMapper(config).train()
    with torch.autocast('cpu', torch.bfloat16):
        output = model(batch)
    assert output.points.dtype == torch.float32 and output.class_logits.dtype == torch.float32
    (output.points.sum() + output.class_logits.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    full = OnlineMapper(config)
    full.load_state_dict(model.state_dict())
    precise = predict(full, batch)
    with torch.autocast('cpu', torch.bfloat16):
        half = predict(full, batch)
    # 5e-3 of 60 m would be 30 cm; random weights move far less.
    assert (precise.points - half.points).abs().max() < 5e-3


def test_lidar_frame_meets_the_ego_frame_in_one_place(
    config: ModelConfig, batch: FrameBatch
) -> None:
    """A model in a turned and shifted frame sees what one in the ego frame sees there."""
    lidar = replace(config, reference='lidar')
    model = lively(lidar)
    with pytest.raises(DataError, match='ego_from_reference'):
        predict(model, batch)
    transform = torch.tensor(
        make_transform([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], [0.9, 0.0, 1.8]), dtype=torch.float32
    )
    moved = replace(
        batch,
        pixels_from_ego=batch.pixels_from_ego @ torch.linalg.inv(transform),
        ego_from_reference=transform.expand(2, 4, 4),
    )
    own = OnlineMapper(config)
    own.load_state_dict(model.state_dict())
    torch.testing.assert_close(
        predict(model, moved).bev, predict(own, batch).bev, rtol=1e-3, atol=2e-2
    )


@pytest.mark.parametrize('reference', ['ego', 'lidar'])
def test_fusion_carries_its_state_from_frame_to_frame(
    config: ModelConfig, batch: FrameBatch, reference: str
) -> None:
    fusing = replace(config, fusion=FusionConfig(kind='keyframe_streaming'), reference=reference)
    model = lively(fusing).eval()
    with pytest.raises(DataError, match='has no map_from_base'):
        predict(model, replace(batch, ego_from_reference=torch.eye(4).expand(2, 4, 4)))
    lidar = torch.from_numpy(make_transform([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], [0.9, 0.0, 1.8]))
    moves = torch.eye(4, dtype=torch.float64).repeat(3, 2, 1, 1)
    moves[1:, :, 0, 3] = torch.tensor([[3.0, 6.0], [6.0, 12.0]])
    outputs, state = [], None
    with torch.inference_mode():
        for pose in moves:
            frames = replace(
                batch, map_from_base=pose, ego_from_reference=lidar.float().expand(2, 4, 4)
            )
            output = model(frames, state)
            state = output.state
            outputs.append(output)
    assert isinstance(state, FusionState)
    assert state.num_key_frames.tolist() == [2, 3]
    assert (outputs[1].bev - outputs[0].bev).abs().max() > 1e-2
    # What the decoder read is what fusion returned, of the frame alone where there is no state.
    alone = model.eval()(frames)
    assert torch.allclose(model(replace(frames, map_from_base=moves[0])).bev, alone.bev)
    torch.testing.assert_close(
        model.decoder(outputs[2].bev.clone()).points, outputs[2].points, rtol=0, atol=1e-5
    )


def test_user_errors_are_named(make_frame, config: ModelConfig, batch: FrameBatch) -> None:
    model = OnlineMapper(replace(config, num_cameras=6))
    with pytest.raises(ConfigError, match='embeddings for 6 cameras and got 7'):
        predict(model, make_frame_batch([make_frame(7)], config.image))
    with pytest.raises(DataError, match='96 x 64 px'):
        predict(model, replace(batch, images=batch.images[..., :32, :]))
    with pytest.raises(ConfigError, match='temporal fusion'):
        model(batch, state=object())
    with pytest.raises(ConfigError, match='out_stages'):
        replace(config.backbone, out_stages=(4, 2))
    with pytest.raises(ConfigError, match='num_frozen_stages 5'):
        replace(config.backbone, num_frozen_stages=5)
