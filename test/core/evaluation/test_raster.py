"""Raster AP by hand: pixels, overlaps, matching, the curve, what is left out."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from gsmap_core.errors import ConfigError, DataError
from gsmap_core.evaluation.raster import (
    RasterEvaluator,
    iou_thresholds,
    raster_average_precision,
)
from gsmap_core.evaluation.raster_masks import (
    RasterCanvas,
    draw_masks,
    interpolated_precision,
    intersection_over_union,
    match_masks,
)
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap

EGO = RasterCanvas(PerceptionRange(), 'ego')
LIDAR = RasterCanvas(PerceptionRange(-15.0, 15.0, -30.0, 30.0), 'lidar')


def line(y, score=None, category=0, length=20.0):
    return MapElement(category, np.array([[0.0, y], [length, y]]), score=score)


def ring(x, score=None, closed=True):
    corners = np.array([[x, 0.0], [x + 4.0, 0.0], [x + 4.0, 8.0], [x, 8.0]])
    vertices = corners if closed else np.concatenate([corners, corners[:1]])
    return MapElement(1, vertices, closed, score)


def frame(*elements, name='a', scene=''):
    return VectorMap(tuple(elements), sample_id=name, scene=scene)


def test_pixels_run_to_the_right_and_ahead_in_either_frame():
    assert EGO.shape == LIDAR.shape == (480, 240)
    # 10 m ahead and 5 m to the right.
    assert EGO.to_pixels([[10.0, -5.0]]).tolist() == [[160, 320]]
    assert LIDAR.to_pixels([[5.0, 10.0]]).tolist() == [[160, 320]]
    # Halves go to the even pixel: 0.5, 1.5 and 2.5 px.
    halves = [[-15 + 0.0625 * k, 0.0] for k in (1, 3, 5)]
    assert LIDAR.to_pixels(halves)[:, 0].tolist() == [0, 2, 2]


@pytest.mark.parametrize(('offset_px', 'expected'), [(1, 0.667), (2, 0.429), (3, 0.25)])
def test_overlap_of_parallel_lines(offset_px, expected):
    # 8.4: lines are 5 px wide.
    masks = draw_masks([line(0.0).loop_xy(), line(0.125 * offset_px).loop_xy()], EGO, False)
    iou = intersection_over_union(masks[:1], masks[1:])
    assert float(iou[0, 0]) == pytest.approx(expected, abs=5e-4)


def test_areas_are_filled_and_lines_are_not():
    for closed in (True, False):
        # 4 m x 8 m with both borders, and 2 px more on each side.
        assert draw_masks([ring(0.0, closed=closed).loop_xy()], EGO, True).sum() == 37 * 69
    assert draw_masks([ring(0.0).loop_xy()], EGO, False).sum() == 37 * 69 - 27 * 59
    outside = draw_masks([line(40.0).loop_xy(), line(-60.0).loop_xy()], EGO, False)
    assert outside.sum() == 0
    assert intersection_over_union(outside[:1], outside[1:]).tolist() == [[0.0]]
    far = draw_masks([[[0.0, 0.0], [1e9, 0.0]]], EGO, False)
    assert far.reshape(480, 240)[240:, 120].all()


def test_matching_takes_the_best_free_element_the_later_of_equals():
    iou = np.array([[0.5, 0.5, 0.1], [0.2, 0.6, 0.4], [0.0, 0.9, 0.25]])
    # First takes 1 (the later one), second falls back to 2, third finds nothing left ...
    assert match_masks(iou, [0.25]).tolist() == [[True, True, False]]
    # ... and 0.5 counts as reaching 0.5, where the second has no fallback.
    assert match_masks(iou, [0.25, 0.5])[1].tolist() == [True, False, False]
    assert match_masks(np.zeros((2, 0)), [0.25]).tolist() == [[False, False]]


def test_precision_is_read_at_101_recalls():
    # True, false, true with 2 elements: 1 up to recall 0.5 (51 values), 2/3 beyond (50).
    ap, recall, precision = interpolated_precision([True, False, True], 2)
    assert ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert recall.tolist() == [0.5, 0.5, 1.0]
    assert precision.tolist() == pytest.approx([1.0, 0.5, 2 / 3])
    assert interpolated_precision([True], 4)[0] == pytest.approx(26 / 101)
    assert interpolated_precision([], 3)[0] == 0.0


def test_means_leave_out_what_is_not_there():
    # The divider is 0.25 m off (IoU 0.43): right up to 0.40, wrong from 0.45 on.
    truth = frame(line(0.0), ring(5.0))
    result = raster_average_precision(
        [frame(line(0.25, 0.9), ring(5.0, 0.8), line(9.0, 0.7, 2))], [truth]
    )
    assert list(result.ap['divider'].values()) == [1.0] * 4 + [0.0] * 2
    assert result.per_category['divider'] == pytest.approx(4 / 6)
    assert result.per_category['ped_crossing'] == 1.0
    assert math.isnan(result.per_category['boundary'])
    assert result.mean_ap == pytest.approx((4 / 6 + 1) / 2)
    assert result.line_ap == pytest.approx(4 / 6)
    assert result.average_recall['divider'][100] == pytest.approx(4 / 6)
    assert result.frame_miou['divider'] == pytest.approx(3 / 7)
    assert result.frame_miou['boundary'] == 0.0  # predicted where nothing is
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain['per_category']['boundary'] is None
    assert plain['categories']['divider']['ap']['0.40'] == 1.0
    nothing = raster_average_precision([frame()], [frame()])
    assert math.isnan(nothing.mean_ap) and nothing.to_dict()['mean_ap'] is None


def test_predictions_that_do_not_count():
    evaluator = RasterEvaluator(('divider',))
    good = line(0.0).loop_xy()
    lines = [good, good[:1], *[good + 3.0] * 99, good]
    scores = [0.0499, 0.9, *[0.5] * 99, 0.05]
    iou = evaluator.add_lines('divider', lines, scores, [good], EGO)
    # Below the least score, one vertex; the last one is the 100th.
    assert iou.shape == (100, 1) and float(iou[-1, 0]) == 1.0
    result = evaluator.result()
    assert result.num_predictions['divider'] == 100
    assert result.average_recall['divider'] == {1: 0.0, 10: 0.0, 100: 1.0}
    assert result.ap['divider'][0.25] == pytest.approx(0.01)
    more = RasterEvaluator(('divider',))
    more.add_lines('divider', [*lines, good + 3.0], [*scores, 0.5], [good], EGO)
    assert more.result().ap['divider'][0.25] == 0.0


def test_equal_scores_keep_their_order_over_frames():
    predictions = [frame(line(5.0, 0.5), name='a'), frame(line(0.0, 0.5), name='b')]
    truth = [frame(line(0.0), name='a'), frame(line(0.0), name='b')]
    # False, then true, of two elements: precision 1/2 up to recall 1/2.
    wrong_first = raster_average_precision(predictions, truth, ['divider'])
    assert wrong_first.mean_ap == pytest.approx(51 / 2 / 101)
    right_first = raster_average_precision(predictions[::-1], truth[::-1], ['divider'])
    assert right_first.mean_ap == pytest.approx(51 / 101)


def test_scenes_and_missing_frames():
    truth = [frame(line(0.0), name='a', scene='one'), frame(line(0.0), name='b', scene='two')]
    evaluator = RasterEvaluator(('divider',))
    evaluator.add(frame(line(0.0, 0.9), name='a'), truth[0])
    evaluator.add(frame(name='b'), truth[1])
    assert evaluator.scenes == ('one', 'two')
    assert evaluator.result('one').mean_ap == 1.0 and evaluator.result('two').mean_ap == 0.0
    assert evaluator.result('one').num_frames == 1 and evaluator.result().num_frames == 2
    recall, precision = evaluator.curve('divider', iou_thresholds('divider')[0])
    assert (recall.tolist(), precision.tolist()) == ([0.5], [1.0])
    given = [frame(line(0.0, 0.9), name='a', scene='one')]
    with pytest.raises(DataError, match="ground truth without prediction: 'b'"):
        raster_average_precision(given, truth)
    assert raster_average_precision(given, truth, missing='empty').mean_ap == pytest.approx(
        51 / 101
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="'kerb': unknown"):
        RasterEvaluator(('kerb',))
    evaluator = RasterEvaluator()
    with pytest.raises(DataError, match='has no score'):
        evaluator.add(frame(line(0.0)), frame(line(0.0)))
    with pytest.raises(DataError, match='expected the same reference frame'):
        evaluator.add(replace(frame(), reference='lidar'), frame())
    evaluator.add(frame(), frame())
    other = VectorMap(range=PerceptionRange(-50.0, 50.0), sample_id='b')
    with pytest.raises(DataError, match='differs from the frames before'):
        evaluator.add(other, other)
