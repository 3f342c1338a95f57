"""BEV IoU, lateral error, completeness and stability, on cases that can be worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gsmap_core.errors import ConfigError, DataError
from gsmap_core.evaluation.bev_iou import BevIouEvaluator
from gsmap_core.evaluation.lateral import distances_to_lines, points_along
from gsmap_core.evaluation.line_geometry import GeometryEvaluator
from gsmap_core.evaluation.metrics import MetricOptions, make_evaluator
from gsmap_core.evaluation.stability import StabilityEvaluator
from gsmap_core.evaluation.tables import format_result
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.structures import MapElement, VectorMap


def line(y, score=None, x_from=-10.0, x_to=10.0, category=0):
    return MapElement(category, np.array([[x_from, y], [x_to, y]]), score=score)


def frame(*elements, scene='one', **more):
    return VectorMap(elements, sample_id='f0', scene=scene, **more)


def test_bev_iou_sums_cells_over_frames():
    evaluator = BevIouEvaluator(('divider', 'boundary'))
    # Five cells wide and two apart: three of seven rows are shared; then all of five.
    evaluator.add(frame(line(0.25, 0.9), line(8.0, 0.3)), frame(line(0.0)))
    assert evaluator.result().iou['divider'] == pytest.approx(3 / 7)
    evaluator.add(frame(line(0.0, 0.9), scene='two'), frame(line(0.0), scene='two'))
    result = evaluator.result()
    assert result.iou['divider'] == pytest.approx(8 / 12)
    assert math.isnan(result.iou['boundary']) and result.mean == pytest.approx(8 / 12)
    assert evaluator.result('two').iou['divider'] == 1.0
    # 161 cells long and 2 cells of dilation at either end: 165 x 5 cells of 1/64 m^2.
    assert evaluator.result('two').union_m2['divider'] == pytest.approx(165 * 5 / 64)
    assert result.to_dict()['per_category']['boundary'] is None
    assert 'IoU of the BEV raster' in (text := format_result(result)) and '0.667' in text


def test_lateral_error_and_completeness_by_distance():
    evaluator = GeometryEvaluator(('divider', 'boundary'))
    evaluator.add(
        frame(line(0.3, 0.9, 0.0, 10.0), line(9.0, 0.5, 0.0, 5.0), line(0.0, 0.1, 0.0, 20.0)),
        frame(line(0.0, None, 0.0, 20.0)),
    )
    result = evaluator.result()
    whole = result.overall['divider']
    assert whole.lateral_error_m == pytest.approx(0.3) == whole.lateral_rms_m
    # Middles of half metres up to 10 + sqrt(1.5^2 - 0.3^2) = 11.47 m: 23 of 40.
    assert whole.completeness == pytest.approx(23 / 40)
    assert whole.correctness == pytest.approx(10 / 15)
    assert (whole.true_length_m, whole.predicted_length_m) == pytest.approx((20.0, 15.0))
    bands = result.bands['divider']
    assert list(bands) == ['0-10', '10-20', '20-30']
    assert bands['0-10'].completeness == pytest.approx(1.0)
    assert bands['10-20'].completeness == pytest.approx(3 / 20)
    assert math.isnan(bands['20-30'].completeness)
    assert math.isnan(bands['10-20'].lateral_error_m)
    assert math.isnan(result.per_category['boundary']) and result.mean == pytest.approx(0.3)
    stored = result.to_dict()['categories']['divider']
    assert stored['bands_m']['20-30']['completeness'] is None
    rows = [row.split() for row in format_result(result).splitlines()]
    assert ['divider', 'all', '0.300', '0.300', '0.575', '0.667', '20', '15'] in rows


def test_geometry_options_are_checked():
    with pytest.raises(ConfigError, match='tolerance 0'):
        GeometryEvaluator(tolerance_m=0)
    with pytest.raises(ConfigError, match='rising'):
        GeometryEvaluator(bands_m=(0.0, 10.0, 10.0))
    with pytest.raises(ConfigError, match="'kerb'"):
        BevIouEvaluator(('kerb',))
    with pytest.raises(ConfigError, match="'iou': unknown"):
        make_evaluator('iou', MetricOptions())


def test_points_and_distances():
    points, piece = points_along([[0.0, 0.0], [1.2, 0.0]])
    np.testing.assert_allclose(points, [[0.2, 0.0], [0.6, 0.0], [1.0, 0.0]])
    assert piece == pytest.approx(0.4)
    assert len(points_along([[1.0, 1.0], [1.0, 1.0]])[0]) == 0
    lines = [[[0.0, 0.0], [10.0, 0.0]], [[5.0, 4.0], [5.0, 4.0]]]
    gaps = distances_to_lines([[3.0, 1.0], [13.0, 4.0], [5.0, 3.0]], lines)
    np.testing.assert_allclose(gaps, [1.0, 5.0, 1.0])
    assert np.isinf(distances_to_lines([[0.0, 0.0]], [])).all()


def poses(*moves):
    return [make_transform(rotation_from_rpy(0.0, 0.0, yaw), [x, y, 0.0]) for x, y, yaw in moves]


def test_jitter_is_what_moves_in_the_map():
    first, second = poses((0.0, 0.0, 0.0), (2.0, 0.0, 0.0))
    evaluator = StabilityEvaluator(('divider', 'boundary'))
    maps = (
        frame(line(3.0, 0.9), line(-5.0, 0.9), line(0.0, 0.1), map_from_base=first),
        frame(line(3.2, 0.9, -12.0, 8.0), map_from_base=second),
    )
    for prediction in maps:
        evaluator.add(prediction, frame())
    result = evaluator.result()
    assert result.jitter_m['divider'] == pytest.approx(0.2)
    assert result.kept['divider'] == pytest.approx(0.5)
    assert result.num_pairs == {'divider': 1, 'boundary': 0}
    assert result.num_frame_pairs == 1 and math.isnan(result.jitter_m['boundary'])
    assert result.to_dict()['categories']['divider']['num_pairs'] == 1
    assert '1 pairs of consecutive frames' in format_result(result)


def test_a_turning_vehicle_does_not_make_the_map_jitter():
    evaluator = StabilityEvaluator(('divider',))
    in_map = np.array([[-6.0, 2.0], [6.0, 2.0]])
    for pose in poses((0.0, 0.0, 0.0), (1.0, 0.5, 0.7), (2.0, -0.5, 1.5)):
        local = (in_map - pose[:2, 3]) @ pose[:2, :2]
        evaluator.add(
            frame(MapElement(0, local, score=0.9), map_from_base=pose),
            frame(map_from_base=pose),
        )
    result = evaluator.result()
    assert result.jitter_m['divider'] == pytest.approx(0.0, abs=1e-9)
    assert result.num_pairs['divider'] == 2 and result.kept['divider'] == 1.0


def test_stability_passes_over_what_it_cannot_compare():
    evaluator = StabilityEvaluator(('divider',))
    here = np.eye(4)
    evaluator.add(frame(line(0.0, 0.9), map_from_base=here), frame())
    evaluator.add(frame(line(0.0, 0.9)), frame())
    evaluator.add(frame(line(0.0, 0.9)), frame(map_from_base=here))
    evaluator.add(frame(line(0.0, 0.9), scene='two', map_from_base=here), frame(scene='two'))
    result = evaluator.result()
    assert (result.num_frame_pairs, result.num_without_pose) == (0, 1)
    assert 'frames without a pose' in format_result(result)
    lidar = frame(line(0.0, 0.9), reference='lidar', map_from_base=here)
    with pytest.raises(DataError, match="frame 'f0'.*expected the ego frame"):
        StabilityEvaluator().add(lidar, replace(lidar, elements=()))
