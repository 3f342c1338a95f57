"""Gaussians in the decoder: start, limits, angles, guidance of the next layer, covariances out."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsmap_core.config import GaussianConfig, ModelConfig, load_model_config
from gsmap_core.errors import ConfigError
from gsmap_core.images import FrameBatch
from gsmap_core.models.gaussian_head import GaussianHead
from gsmap_core.models.mapper import OnlineMapper, parameter_report
from gsmap_core.models.outputs import GaussianShapes, MapperOutput
from gsmap_core.models.postprocess import to_vector_maps
from gsmap_core.structures import PerceptionRange


def gaussian(config: ModelConfig, **options: object) -> ModelConfig:
    return replace(
        config,
        representation='gaussians',
        gaussians=GaussianConfig(**options),  # type: ignore[arg-type]
    )


def head_with(config: ModelConfig, raw: list[float], **options: object) -> GaussianHead:
    """Return a head that predicts these raw numbers whatever the query is."""
    head = GaussianHead(gaussian(config, **options))
    with torch.no_grad():
        head.linear2.bias.copy_(torch.tensor(raw))
    return head


def test_published_growth_of_the_parameters() -> None:
    """GSMap on MapTR: 35.95 M trainable parameters (paper, table 1)."""
    counts = parameter_report(load_model_config('gsmap_r50'))
    host = parameter_report(load_model_config('maptr_r50'))
    growth = 256 * 128 + 128 + 128 * 3 + 3
    assert counts['trainable_parameters'] == host['trainable_parameters'] + growth == 35_951_327


@pytest.mark.parametrize('scale_kind', ['sigmoid', 'exp'])
@pytest.mark.parametrize('angle_kind', ['free', 'double'])
def test_start_is_round_and_of_the_configured_size(
    config: ModelConfig, scale_kind: str, angle_kind: str
) -> None:
    head = GaussianHead(gaussian(config, scale_kind=scale_kind, angle_kind=angle_kind))
    shapes, _ = head(torch.randn(2, 5, 4, 16), torch.rand(2, 5, 4, 2), None)
    torch.testing.assert_close(shapes.scales, torch.full((2, 5, 4, 2), 0.6))
    torch.testing.assert_close(shapes.thetas, torch.zeros(2, 5, 4))


@pytest.mark.parametrize('scale_kind', ['sigmoid', 'exp'])
def test_scales_stay_within_their_limits(config: ModelConfig, scale_kind: str) -> None:
    head = head_with(config, [-50.0, 50.0, 0.3], scale_kind=scale_kind)
    shapes, _ = head(torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 1, 2), None)
    torch.testing.assert_close(shapes.scales, torch.tensor([[[[0.15, 4.0]]]]))
    assert shapes.thetas.item() == pytest.approx(0.3)


def test_chord_angle_follows_the_line(config: ModelConfig) -> None:
    """A line from right to left in the ego frame runs along +y: a quarter turn from +x."""
    line = np.array([[3.0, -6.0], [3.0, 0.0], [3.0, 6.0]])
    centers = torch.from_numpy(config.grid.metres_to_unit(line)).float()[None, None]
    head = head_with(config, [0.0, 0.0, 0.1], angle_kind='chord')
    shapes, _ = head(torch.zeros(1, 1, 3, 16), centers, None)
    torch.testing.assert_close(shapes.thetas, torch.full((1, 1, 3), math.pi / 2 + 0.1))


def test_refined_shapes_add_to_those_of_the_layer_before(config: ModelConfig) -> None:
    x, centers = torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 1, 2)
    head = head_with(config, [0.5, -0.5, 0.2], refine=True)
    _, first = head(x, centers, None)
    shapes, second = head(x, centers, first)
    torch.testing.assert_close(second, 2 * first)
    assert shapes.thetas.item() == pytest.approx(0.4)
    fresh = head_with(config, [0.5, -0.5, 0.2])
    torch.testing.assert_close(fresh(x, centers, first)[1], first)


def test_impossible_scales_are_refused() -> None:
    with pytest.raises(ConfigError, match='scale_min_m 1.0, scale_init_m 0.6'):
        GaussianConfig(scale_min_m=1.0)


def test_sampling_frame_turns_offsets_in_metres(config: ModelConfig) -> None:
    """Stretched along y of the ego frame: an offset along y grows, one along x does not."""
    head = GaussianHead(gaussian(config))
    long = GaussianShapes(torch.tensor([[1.2, 0.6]]), torch.tensor([math.pi / 2]))
    (frame,) = head.sampling_frame(long)
    along_u, along_v = config.grid.unit_extent_m()
    # Columns run along -y, rows along -x: one metre to the left is -1 / 30 in u.
    left = torch.tensor([-1.0 / along_u, 0.0])
    ahead = torch.tensor([0.0, -1.0 / along_v])
    # Read along the Gaussian's axes: "ahead" is its first axis, which points left.
    torch.testing.assert_close(frame @ ahead, 2 * left, atol=1e-6, rtol=0)
    torch.testing.assert_close(frame @ left, -ahead, atol=1e-6, rtol=0)
    start = GaussianShapes(torch.full((1, 2), 0.6), torch.zeros(1))
    torch.testing.assert_close(head.sampling_frame(start)[0], torch.eye(2), atol=1e-6, rtol=0)


def test_decoder_predicts_shapes_of_every_layer(config: ModelConfig, batch: FrameBatch) -> None:
    model = OnlineMapper(gaussian(config)).eval()
    with torch.inference_mode():
        output = model(batch)
    assert output.gaussians is not None
    assert output.gaussians.scales.shape == (2, 2, 5, 4, 2)
    assert output.gaussians.thetas.shape == (2, 2, 5, 4)
    assert output.gaussians.packed().shape == (2, 2, 5, 4, 3)
    assert output.one_to_many_gaussians is None


def test_one_to_many_queries_have_shapes_too(config: ModelConfig, batch: FrameBatch) -> None:
    many = replace(gaussian(config), decoder=replace(config.decoder, num_one_to_many=7))
    output = OnlineMapper(many).train()(batch)
    assert output.gaussians is not None and output.one_to_many_gaussians is not None
    assert output.gaussians.thetas.shape == (2, 2, 5, 4)
    assert output.one_to_many_gaussians.thetas.shape == (2, 2, 7, 4)


def test_centres_are_those_of_the_host(config: ModelConfig, batch: FrameBatch) -> None:
    """Without guidance the Gaussians change nothing about points and classes."""
    host, model = OnlineMapper(config).eval(), OnlineMapper(gaussian(config)).eval()
    missing, unexpected = model.load_state_dict(host.state_dict(), strict=False)
    assert not unexpected and all(name.startswith('decoder.gaussian_head.') for name in missing)
    with torch.inference_mode():
        expected, actual = host(batch), model(batch)
    torch.testing.assert_close(actual.points, expected.points)
    torch.testing.assert_close(actual.class_logits, expected.class_logits)


@pytest.mark.parametrize('option', ['guided_sampling', 'guided_position'])
def test_guidance_reaches_the_next_layer_only(
    config: ModelConfig, batch: FrameBatch, option: str
) -> None:
    plain = OnlineMapper(gaussian(config)).eval()
    guided = OnlineMapper(gaussian(config, **{option: True})).eval()
    guided.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for model in (plain, guided):
            torch.manual_seed(3)
            for name, parameter in model.named_parameters():
                if name.startswith('decoder.gaussian_head.linear2'):
                    parameter.add_(torch.randn_like(parameter))
        if guided.decoder.gaussian_head.position is not None:
            torch.nn.init.normal_(guided.decoder.gaussian_head.position.weight)
        expected, actual = plain(batch), guided(batch)
    torch.testing.assert_close(actual.points[0], expected.points[0])
    assert (actual.points[1] - expected.points[1]).abs().max() > 1e-4


@pytest.mark.parametrize('options', [{}, {'guided_position': True, 'angle_kind': 'double'}])
def test_every_parameter_gets_a_gradient(
    config: ModelConfig, batch: FrameBatch, options: dict
) -> None:
    model = OnlineMapper(gaussian(config, **options)).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    output = model(batch)
    total = output.points.sum() + output.class_logits.sum() + output.bev_mask_logits.sum()
    (total + output.gaussians.packed().square().sum()).backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent


def shaped_output(config: ModelConfig, lines_m: list, scales: list, theta: float) -> MapperOutput:
    unit = torch.from_numpy(config.grid.metres_to_unit(np.array(lines_m, dtype=float))).float()
    points = unit[None, None]
    logits = torch.full((1, 1, len(lines_m), 3), -9.0)
    logits[..., 0] = 3.0
    shapes = GaussianShapes(
        torch.tensor(scales).expand(*points.shape[:-1], 2).contiguous(),
        torch.full(points.shape[:-1], theta),
    )
    return MapperOutput(logits, points, torch.zeros(1, 1, 1, 1), gaussians=shapes)


LINE = [[-10.0, 5.0], [0.0, 5.0], [10.0, 5.0], [20.0, 5.0], [25.0, 5.0]]
RING = [[4.0, -4.0], [8.0, -4.0], [8.0, 4.0], [4.0, 4.0], [4.0, -3.5]]


def test_covariances_come_out_in_metres(config: ModelConfig) -> None:
    output = shaped_output(config, [LINE, RING], [2.0, 0.5], math.pi / 6)
    (result,) = to_vector_maps(output, config, score_threshold=0.5)
    line, ring = sorted(result.elements, key=lambda element: element.closed)
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    expected = [
        4 * cos**2 + 0.25 * sin**2,
        (4 - 0.25) * cos * sin,
        4 * sin**2 + 0.25 * cos**2,
    ]
    np.testing.assert_allclose(line.covariance, np.tile(expected, (5, 1)), rtol=1e-5)
    # The ring's last vertex repeats the first and goes, with its covariance.
    assert ring.covariance.shape == (4, 3)


def test_covariances_turn_with_the_frame(config: ModelConfig) -> None:
    """Long across the vehicle in the lidar frame (x right) is long along y in the ego frame."""
    lidar = replace(
        config, reference='lidar', range=PerceptionRange(-15, 15, -30, 30),
        bev=replace(config.bev, order='official'),
    )  # fmt: skip
    output = shaped_output(lidar, [LINE], [2.0, 0.5], 0.0)
    ego_from_lidar = np.array(
        [[0.0, 1.0, 0.0, 0.9], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.8], [0.0, 0.0, 0.0, 1.0]]
    )
    (same,) = to_vector_maps(output, lidar, score_threshold=0.5)
    np.testing.assert_allclose(same.elements[0].covariance[0], [4.0, 0.0, 0.25], atol=1e-5)
    (turned,) = to_vector_maps(
        output, lidar, score_threshold=0.5, ego_from_reference=[ego_from_lidar]
    )
    np.testing.assert_allclose(turned.elements[0].covariance[0], [0.25, 0.0, 4.0], atol=1e-5)


def test_points_have_no_covariance(config: ModelConfig, batch: FrameBatch) -> None:
    with torch.inference_mode():
        output = OnlineMapper(config).eval()(batch)
    maps = to_vector_maps(output, config)
    assert all(element.covariance is None for item in maps for element in item.elements)
