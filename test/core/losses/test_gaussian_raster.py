"""GSMap's raster loss and cost through the criterion: by hand and by difference quotients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gsmap_core.config import BevConfig, LossConfig, MatchingConfig, ModelConfig, RasterLossConfig
from gsmap_core.losses.criterion import Criterion
from gsmap_core.losses.matching import match
from gsmap_core.losses.raster import RasterCosts, render_predictions, render_targets
from gsmap_core.models.outputs import GaussianShapes, MapperOutput
from gsmap_core.structures import PerceptionRange
from gsmap_core.targets import MapTargets

CANVAS = (24, 12)


def config_of(**raster: object) -> ModelConfig:
    options = RasterLossConfig(rows=CANVAS[0], columns=CANVAS[1], **raster)  # type: ignore
    return ModelConfig(
        representation='gaussians',
        range=PerceptionRange(-6.0, 6.0, -3.0, 3.0),
        bev=BevConfig(num_rows=24, num_columns=12),
        matching=MatchingConfig(classification=0.0, points=0.0),
        losses=LossConfig(
            classification=0.0, points=0.0, direction=0.0, raster=10.0, raster_options=options
        ),
    )


def targets_of(lines_m: list, labels: list[int], config: ModelConfig) -> MapTargets:
    unit = torch.from_numpy(config.grid.metres_to_unit(np.array(lines_m))).float()
    return MapTargets(
        labels=torch.tensor(labels),
        points=unit,
        orders=torch.stack([unit, unit.flip(1)], dim=1),
        num_orders=torch.full((len(labels),), 2),
        bev_mask=torch.zeros(1, 24, 12, dtype=torch.uint8),
    )


def output_of(lines_m: list, scale: float, config: ModelConfig, num_layers: int = 1):
    unit = torch.from_numpy(config.grid.metres_to_unit(np.array(lines_m, dtype=float)))
    points = unit.expand(num_layers, 1, *unit.shape).clone().requires_grad_()
    scales = torch.full((*points.shape[:-1], 2), scale, dtype=torch.float64, requires_grad=True)
    thetas = torch.zeros(points.shape[:-1], dtype=torch.float64, requires_grad=True)
    logits = torch.zeros(num_layers, 1, len(lines_m), 3)
    return MapperOutput(logits, points, torch.zeros(1), gaussians=GaussianShapes(scales, thetas))


STRAIGHT = [[5.0 - 0.5 * i, 0.25] for i in range(20)]
SHIFTED = [[x, y - 2.0] for x, y in STRAIGHT]


def test_mask_is_one_at_a_centre_and_falls_off_by_metres() -> None:
    config = config_of()
    # The centre of cell (11, 5): cells are half a metre.
    point = torch.from_numpy(config.grid.metres_to_unit([[[0.25, 0.25]]])).float()
    shape = torch.tensor([[[1.0, 0.5, 0.0]]])
    (mask,) = render_predictions(point, shape, torch.tensor([0]), CANVAS, config)
    assert mask[11, 5].item() == pytest.approx(1.0, abs=2e-4)
    # One metre ahead is one sigma, one metre to the left are two.
    assert mask[9, 5].item() == pytest.approx(np.exp(-0.5), abs=1e-5)
    assert mask[11, 3].item() == pytest.approx(np.exp(-2.0), abs=1e-5)


def test_crossings_are_drawn_as_outlines() -> None:
    """reference-models.md, 9.1: the project's figure shows hollow rings."""
    config = config_of(line_width_px=1)
    ring = [[3.0, 2.0], [3.0, -2.0], [-3.0, -2.0], [-3.0, 2.0], [3.0, 2.0]]
    targets = targets_of([ring], [1], config)
    (mask,) = render_targets(targets.points, targets.labels, CANVAS, config)
    assert mask[12, 6] == 0
    filled = replace(
        config,
        losses=replace(
            config.losses, raster_options=replace(config.losses.raster_options, target='filled')
        ),
    )
    (mask,) = render_targets(targets.points, targets.labels, CANVAS, filled)
    assert mask[12, 6] == 1


def test_loss_by_hand() -> None:
    """Weighted L1 and D-SSIM of the rendered mask, times 10, per matched element and layer."""
    config = config_of(ssim_weight=0.0)
    output = output_of([STRAIGHT], 0.3, config, num_layers=2)
    targets = targets_of([STRAIGHT], [0], config)
    losses = Criterion(config)(output, [targets])
    assert set(losses) == {'raster', 'd0.raster'}
    # By the formula, with every Gaussian evaluated at every cell.
    centres = config.grid.cell_centres()
    offsets = centres[:, :, None] - np.array(STRAIGHT)
    densities = np.exp(-0.5 * (offsets**2).sum(-1) / (0.09 + 1e-6))
    mask = 1 - np.prod(1 - np.minimum(densities, 1 - 1e-4), axis=-1)
    # The line runs down the middle of column 5: 3 px wide, with round ends beyond row 20.
    drawn = render_targets(targets.points, targets.labels, CANVAS, config)[0].numpy()
    expected_row = np.zeros(12)
    expected_row[4:7] = 1
    np.testing.assert_array_equal(drawn[3:20], np.tile(expected_row, (17, 1)))
    weight = 1 + 4 * drawn
    expected = 10.0 * np.mean(weight * np.abs(mask - drawn))
    assert losses['raster'].item() == pytest.approx(expected, rel=1e-4)
    assert losses['d0.raster'].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    'raster',
    [
        {},
        {'measure': 'mse', 'union': 'exponential'},
        {'measure': 'bce', 'ssim_weight': 0.5},
        {'measure': 'dice', 'union': 'clamped_sum'},
    ],
)
def test_gradients_by_difference_quotients(raster: dict) -> None:
    torch.manual_seed(0)
    config = config_of(**raster)
    bent = [[x + 0.03, y + 0.2 * np.sin(x)] for x, y in STRAIGHT]
    output = output_of([bent], 0.45, config)
    targets = targets_of([STRAIGHT], [0], config)
    labels = torch.tensor([0])
    truth = render_targets(targets.points, targets.labels, CANVAS, config).double()

    def loss(points: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        from gsmap_core.losses.raster_measures import mask_loss

        mask = render_predictions(points, packed, labels, CANVAS, config)
        return mask_loss(mask, truth, config.losses.raster_options).sum()

    points = output.points[0, 0].detach().requires_grad_()
    packed = output.gaussians.packed()[0, 0].detach()
    packed = (packed + 0.05 * torch.rand_like(packed)).requires_grad_()
    loss(points, packed).backward()
    for tensor in (points, packed):
        direction = torch.randn_like(tensor)
        step = 1e-6
        with torch.no_grad():
            moved = [
                loss(
                    points + sign * step * direction if tensor is points else points,
                    packed + sign * step * direction if tensor is packed else packed,
                )
                for sign in (1, -1)
            ]
        quotient = (moved[0] - moved[1]).item() / (2 * step)
        assert (tensor.grad * direction).sum().item() == pytest.approx(quotient, rel=2e-4)


def test_gradient_to_the_centres_can_be_stopped() -> None:
    for on in (True, False):
        config = config_of(center_gradient=on)
        output = output_of([SHIFTED], 0.5, config)
        Criterion(config)(output, [targets_of([STRAIGHT], [0], config)])['raster'].backward()
        assert (output.points.grad is not None and bool(output.points.grad.abs().sum() > 0)) is on
        assert output.gaussians.scales.grad.abs().sum() > 0


def test_raster_cost_decides_the_assignment() -> None:
    config = config_of()
    config = replace(
        config,
        matching=MatchingConfig(0.0, 0.0, raster=10.0, raster_rows=24, raster_columns=12),
    )
    output = output_of([SHIFTED, STRAIGHT], 0.3, config)
    targets = targets_of([STRAIGHT], [0], config)
    packed = output.gaussians.packed()
    costs = RasterCosts([targets], config)
    cost = costs(output.points[:, 0].float(), packed[:, 0].float(), 0)
    assert cost.shape == (1, 2, 1)
    assert cost[0, 0, 0] > 0.9 and cost[0, 1, 0] < 0.6
    chosen = match(
        output.class_logits,
        output.points,
        [targets],
        config.matching,
        gaussians=packed,
        raster=costs,
    )
    assert chosen.query.tolist() == [1]


def test_one_to_many_queries_are_rendered_only_where_asked() -> None:
    for asked in (False, True):
        config = config_of(one_to_many=asked)
        one, many = output_of([STRAIGHT], 0.5, config), output_of([SHIFTED] * 2, 0.5, config)
        output = replace(
            one,
            one_to_many=(many.class_logits, many.points),
            one_to_many_gaussians=many.gaussians,
        )
        config = replace(config, decoder=replace(config.decoder, one_to_many_copies=2))
        losses = Criterion(config)(output, [targets_of([STRAIGHT], [0], config)])
        assert ('raster_one_to_many' in losses) is asked


def test_no_elements_no_loss() -> None:
    config = config_of()
    output = output_of([STRAIGHT], 0.5, config)
    empty = targets_of(np.zeros((0, 20, 2)).tolist() or np.zeros((0, 20, 2)), [], config)
    empty = replace(empty, labels=torch.zeros(0, dtype=torch.int64))
    losses = Criterion(config)(output, [empty])
    assert losses['raster'].item() == 0
