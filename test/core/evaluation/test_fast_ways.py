"""The fast ways of the metrics give what the plain ones give, to the last bit."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gsmap_core.cli.bench_evaluate import make_set
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.evaluation.gate import bands_touch
from gsmap_core.evaluation.matching import chamfer_distances, sample_lines
from gsmap_core.evaluation.metric_names import METRICS
from gsmap_core.evaluation.metrics import MetricOptions, make_evaluators
from gsmap_core.evaluation.raster_masks import (
    RasterCanvas,
    draw_masks,
    intersection_over_union,
)
from gsmap_core.evaluation.raster_windows import draw_windows, union_counts, window_overlaps
from gsmap_core.evaluation.sharding import _parts, evaluate_pairs
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.structures import PerceptionRange


def random_lines(random, count):
    """Return lines from smooth to jagged, long to tiny, closed, folded and without length."""
    lines = []
    for index in range(count):
        steps = random.normal(0.0, random.choice([0.02, 0.3, 3.0]), (random.integers(2, 25), 2))
        if index % 2:
            steps += random.normal(0.0, 1.0, 2)
        line = np.cumsum(steps, axis=0) + random.uniform(-3.0, 3.0, 2)
        if index % 7 == 0:
            line = np.concatenate([line, line[:1]])
        if index % 11 == 0:
            line = np.concatenate([line, line[::-1]])
        if index % 13 == 0:
            line[:] = line[0]
        lines.append(line)
    return lines


def test_the_gate_without_polygons_decides_as_the_polygons_do():
    random = np.random.default_rng(0)
    for num_points in (20, 100):
        first, second = (sample_lines(random_lines(random, 40), num_points) for _ in range(2))
        every = [index.ravel() for index in np.indices((40, 40))]
        touching = bands_touch(first, second, *every, 2.0).reshape(40, 40)
        free = chamfer_distances(first, second)
        gated = chamfer_distances(first, second, gate_m=2.0)
        np.testing.assert_array_equal(gated, np.where(touching, free, np.inf))
        assert 50 < (~touching).sum() and 50 < touching.sum()
        near = chamfer_distances(first, second, gate_m=2.0, max_distance_m=1.5)
        np.testing.assert_array_equal(near, np.where(gated <= 1.5, gated, np.inf))


def test_the_gate_stops_a_line_that_continues_another():
    """Both are near, and yet the flat ends face each other."""
    lines = sample_lines([[[0.0, 0.0], [4.0, 0.0]], [[4.2, 0.0], [5.4, 0.0]]], 100)
    assert np.isinf(chamfer_distances(lines[:1], lines[1:], gate_m=2.0)[0, 0])
    assert np.isfinite(chamfer_distances(lines[:1], lines[1:])[0, 0])


@pytest.mark.parametrize('reference', ['ego', 'lidar'])
def test_masks_in_windows_equal_masks_on_the_canvas(reference):
    random = np.random.default_rng(1)
    limits = PerceptionRange() if reference == 'ego' else PerceptionRange(-15, 15, -30, 30)
    canvas = RasterCanvas(limits, reference)
    for scale in (4.0, 15.0, 60.0):
        lines = [random.normal(0.0, scale, (random.integers(1, 9), 2)) for _ in range(9)]
        truth = [line + random.normal(0.0, 0.2, line.shape) for line in lines[:5]]
        for filled in (True, False):
            masks, true_masks = (draw_masks(side, canvas, filled) for side in (lines, truth))
            windows, true_windows = (draw_windows(side, canvas, filled) for side in (lines, truth))
            np.testing.assert_array_equal(
                window_overlaps(windows, true_windows), intersection_over_union(masks, true_masks)
            )
            one, other = masks.any(axis=0), true_masks.any(axis=0)
            shared, covered = union_counts(windows, true_windows, canvas)
            assert shared == (one & other).sum() and covered == (one | other).sum()


def test_parts_are_contiguous_and_keep_scenes_whole():
    pairs = list(make_set(90, 1))
    assert [len(part) for part in _parts(pairs, 4, False)] == [23, 23, 23, 21]
    parts = list(_parts(pairs, 8, True))
    assert [len(part) for part in parts] == [40, 40, 10]
    assert [pair for part in parts for pair in part] == pairs
    assert list(_parts([], 4, True)) == []


def test_the_order_of_merging_is_the_order_of_frames():
    different = list(make_set(4, 40, seed=3))
    # Every frame twice, a step apart, so that something can be found again.
    pairs = [
        tuple(
            replace(
                side,
                sample_id=f'{index}',
                scene='one' if index < 5 else 'next',
                map_from_base=make_transform(translation=[0.0, 0.3 * (index % 2), 0.0]),
            )
            for side in different[index // 2]
        )
        for index in range(8)
    ]
    options = MetricOptions(thresholds_m=(0.5, 1.5))
    whole, first, second = (make_evaluators(METRICS, options) for _ in range(3))
    for index, pair in enumerate(pairs):
        for name in METRICS:
            whole[name].add(*pair)
            (first if index < 5 else second)[name].add(*pair)
    for name in METRICS:
        first[name].merge(second[name])
        joined, expected = first[name].result().to_dict(), whole[name].result().to_dict()
        # Sums of floats are joined in another order; everything that was matched is equal.
        if name in ('geometry', 'stability'):
            assert expected['mean'] > 0
            assert joined['mean'] == pytest.approx(expected['mean'], rel=1e-12), name
        else:
            assert joined == expected, name
        assert first[name].scenes == whole[name].scenes


def test_two_processes_give_what_one_gives():
    pairs = list(make_set(12, 8))
    make = partial(make_evaluators, ['chamfer'], MetricOptions())
    counted = []
    one = evaluate_pairs(make, pairs, progress=counted.append)
    two = evaluate_pairs(make, pairs, workers=2, progress=counted.append)
    assert one['chamfer'].result() == two['chamfer'].result()
    assert sum(counted) == 24
    with pytest.raises(ConfigError, match='at least 1'):
        evaluate_pairs(make, pairs, workers=0)


def test_parts_with_other_ranges_do_not_merge():
    pair = next(make_set(1, 2))
    wide = [type(item)(item.elements, range=PerceptionRange(-50, 50, -25, 25)) for item in pair]
    for name in METRICS:
        first, second = (make_evaluators([name], MetricOptions())[name] for _ in range(2))
        first.add(*pair)
        second.add(*[type(m)(m.elements, range=m.range, map_from_base=np.eye(4)) for m in wide])
        with pytest.raises(DataError, match='differs from the frames before'):
            first.merge(second)
