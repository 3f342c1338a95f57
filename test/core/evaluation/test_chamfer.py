"""Chamfer AP on cases that can be worked out by hand, and the pairing of frames."""

import numpy as np
import pytest

from gsmap_core.errors import ConfigError, DataError
from gsmap_core.evaluation.chamfer import (
    ChamferEvaluator,
    chamfer_average_precision,
    pair_frames,
)
from gsmap_core.evaluation.matching import (
    average_precision,
    chamfer_distances,
    match_predictions,
    sample_lines,
)
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap


def line(y, score=None, category=0, x_from=0.0, x_to=10.0):
    return MapElement(category, np.array([[x_from, y], [x_to, y]]), score=score)


def local_map(*elements, sample_id='a', **more):
    return VectorMap(elements, sample_id=sample_id, **more)


def test_average_precision_of_right_wrong_right_with_two_elements():
    # Recall 0.5 at precision 1, recall 1 at precision 2/3: 0.5 * 1 + 0.5 * 2/3.
    area, recall, precision = average_precision([True, False, True], 2)
    assert area == pytest.approx(0.8333333, abs=1e-6)
    np.testing.assert_allclose(recall, [0.5, 0.5, 1.0])
    np.testing.assert_allclose(precision, [1.0, 0.5, 2 / 3])


def test_same_case_through_whole_maps():
    truth = local_map(line(-5.0), line(5.0))
    predicted = local_map(line(-5.0, 0.9), line(0.0, 0.8), line(5.0, 0.7))
    result = chamfer_average_precision([predicted], [truth], categories=('divider',))
    for threshold in (0.5, 1.0, 1.5):
        assert result.ap['divider'][threshold] == pytest.approx(0.8333333, abs=1e-6)
        assert result.recall['divider'][threshold] == 1.0
        assert result.num_true_positives['divider'][threshold] == 2
    assert result.mean_ap == pytest.approx(0.8333333, abs=1e-6)


@pytest.mark.parametrize('offset', [0.0, 0.25, 1.0, 1.75])
def test_parallel_segments_are_their_offset_apart(offset):
    pair = sample_lines([[[0, 0], [10, 0]], [[0, offset], [10, offset]]], 100)
    distance = chamfer_distances(pair[:1], pair[1:], gate_m=2.0)
    assert distance[0, 0] == pytest.approx(offset, abs=1e-12)


def test_threshold_is_inclusive_and_decides_by_offset():
    truth = local_map(line(0.0))
    predicted = local_map(line(1.0, 0.9))
    result = chamfer_average_precision([predicted], [truth], categories=('divider',))
    assert result.ap['divider'] == {0.5: 0.0, 1.0: 1.0, 1.5: 1.0}
    assert result.per_category['divider'] == pytest.approx(2 / 3, abs=1e-6)
    assert result.per_threshold == {0.5: 0.0, 1.0: 1.0, 1.5: 1.0}


def test_gate_rejects_collinear_neighbours_that_the_distance_would_accept():
    # Flat ends: bands of two collinear lines with a gap never touch, however short the gap.
    lines = sample_lines([[[0, 0], [0.1, 0]], [[0.3, 0], [0.4, 0]]], 100)
    assert chamfer_distances(lines[:1], lines[1:])[0, 0] < 0.5
    assert chamfer_distances(lines[:1], lines[1:], gate_m=2.0)[0, 0] == np.inf


def test_line_without_length_never_matches_under_the_gate():
    dot, other = [[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.1]]
    lines = sample_lines([dot, other], 100)
    assert chamfer_distances(lines[:1], lines[1:], gate_m=2.0)[0, 0] == np.inf
    assert chamfer_distances(lines[:1], lines[1:], gate_m=None)[0, 0] < 0.1


def test_shortcut_for_far_pairs_is_exact():
    rng = np.random.default_rng(3)
    walks = np.cumsum(rng.normal(0, 0.6, (60, 20, 2)), axis=1) + rng.uniform(-6, 6, (60, 1, 2))
    lines = sample_lines(list(walks), 100)
    everything = chamfer_distances(lines[:30], lines[30:])
    within = chamfer_distances(lines[:30], lines[30:], max_distance_m=1.5)
    assert (everything <= 1.5).sum() > 10
    np.testing.assert_array_equal(within, np.where(everything <= 1.5, everything, np.inf))


def test_no_second_choice():
    # Both predictions are nearest to the first element; the second one is not given the other.
    distances = np.array([[0.1, 0.4], [0.2, 0.3]])
    matched = match_predictions(distances, [0.9, 0.8], [0.5])
    assert matched.tolist() == [[True, False]]
    assert match_predictions(distances, [0.8, 0.9], [0.5]).tolist() == [[False, True]]


def test_higher_score_out_of_reach_does_not_take_the_element():
    distances = np.array([[0.9], [0.2]])
    matched = match_predictions(distances, [0.9, 0.8], [0.5, 1.0])
    assert matched.tolist() == [[False, True], [True, False]]


def test_ring_start_and_direction_do_not_matter():
    corners = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 2.0]])
    truth = local_map(MapElement(1, corners, closed=True))
    predicted = local_map(MapElement(1, corners[[2, 1, 0, 3]], closed=True, score=0.5))
    result = chamfer_average_precision([predicted], [truth], categories=('ped_crossing',))
    assert result.mean_ap == 1.0
    # Not closed before sampling, the same corners miss one side of 2 m.
    open_line = local_map(MapElement(1, corners, closed=False, score=0.5))
    opened = chamfer_average_precision(
        [open_line], [truth], categories=('ped_crossing',), thresholds_m=(0.05,)
    )
    assert opened.mean_ap == 0.0


def test_one_vertex_lines_are_dropped():
    evaluator = ChamferEvaluator(('divider',))
    matched = evaluator.add_lines(
        'divider', [[[0, 0]], [[0, 0], [5, 0]]], [0.9, 0.8], [[[0, 0], [5, 0]]]
    )
    assert matched.tolist() == [[True]] * 3
    assert evaluator.result().num_predictions == {'divider': 1}


def test_scene_results_and_json():
    frames = []
    for scene, offset in (('s1', 0.0), ('s2', 3.0)):
        truth = local_map(line(0.0), sample_id=scene, scene=scene)
        frames.append((local_map(line(offset, 0.9), sample_id=scene, scene=scene), truth))
    evaluator = ChamferEvaluator(('divider',))
    for prediction, truth in frames:
        evaluator.add(prediction, truth)
    assert evaluator.scenes == ('s1', 's2')
    assert evaluator.result('s1').mean_ap == 1.0
    assert evaluator.result('s2').mean_ap == 0.0
    whole = evaluator.result().to_dict()
    assert whole['num_frames'] == 2
    assert whole['reference'] == 'ego'
    assert whole['range_m'] == {'x': [-30.0, 30.0], 'y': [-15.0, 15.0]}
    assert whole['categories']['divider']['ap']['0.5'] == pytest.approx(0.5)


def test_category_without_ground_truth_counts_as_zero():
    truth, predicted = local_map(line(0.0)), local_map(line(0.0, 0.9))
    result = chamfer_average_precision(
        [predicted], [truth], categories=('divider', 'ped_crossing')
    )
    assert result.per_category == {'divider': 1.0, 'ped_crossing': 0.0}
    assert result.mean_ap == 0.5


def test_frames_are_paired_by_id_and_mismatches_listed():
    truth = [local_map(line(0.0), sample_id=name) for name in 'abc']
    predicted = [local_map(line(0.0, 0.5), sample_id=name) for name in 'cab']
    pairs = pair_frames(predicted, truth)
    assert [(p.sample_id, t.sample_id) for p, t in pairs] == [('a', 'a'), ('b', 'b'), ('c', 'c')]
    with pytest.raises(DataError, match="without ground truth: 'x'.*without prediction: 'b'"):
        pair_frames([*predicted[:2], local_map(sample_id='x')], truth)
    filled = pair_frames(predicted[:2], truth, missing='empty')
    assert [len(p) for p, _ in filled] == [1, 0, 1]
    with pytest.raises(DataError, match="ground truth: 'a' occur"):
        pair_frames(predicted, [*truth, truth[0]])


def test_frames_without_id_are_paired_by_stamp():
    truth = [VectorMap((line(0.0),), stamp_ns=stamp) for stamp in (5, 7)]
    predicted = [VectorMap((line(0.0, 0.5),), stamp_ns=stamp) for stamp in (7, 5)]
    assert [p.stamp_ns for p, _ in pair_frames(predicted, truth)] == [5, 7]


def test_bad_input_is_named():
    truth = local_map(line(0.0))
    with pytest.raises(DataError, match="frame 'a'.*no score"):
        chamfer_average_precision([truth], [truth])
    with pytest.raises(DataError, match="'lidar'.*'ego'"):
        chamfer_average_precision([local_map(line(0.0, 0.5), reference='lidar')], [truth])
    with pytest.raises(DataError, match='same range'):
        other = local_map(line(0.0, 0.5), range=PerceptionRange(-50, 50, -25, 25))
        chamfer_average_precision([other], [truth])
    with pytest.raises(ConfigError, match="'streammap': unknown; expected one of maptr"):
        ChamferEvaluator(protocol='streammap')
    with pytest.raises(ConfigError, match='thresholds'):
        ChamferEvaluator(thresholds_m=())


def raised(y, z, score=None, num_vertices=2):
    x = np.linspace(0.0, 10.0, num_vertices)
    return MapElement(0, np.stack([x, 0 * x + y, 0 * x + z], axis=1), score=score)


def test_in_space_heights_count_as_distance():
    """0.3 m beside and 0.4 m above: 0.3 m in the plane, 0.5 m in space."""
    truth, predicted = local_map(raised(0.0, 0.0)), local_map(raised(0.3, 0.4, 0.9))
    for num_dims, limit, expected in ((2, 0.31, 1), (3, 0.49, 0), (3, 0.51, 1)):
        evaluator = ChamferEvaluator(('divider',), (limit,), num_dims=num_dims)
        evaluator.add(predicted, truth)
        result = evaluator.result()
        assert result.num_true_positives['divider'][limit] == expected
        assert result.num_dims == result.to_dict()['num_dims'] == num_dims


def test_in_space_lines_are_sampled_in_the_plane():
    """Half of the way is flat, half climbs 30 m: the samples are spread as seen from above."""
    climbing = np.array([[0.0, 0, 0], [5, 0, 0], [10, 0, 30]])
    (sampled,) = sample_lines([climbing], 5, 3)
    np.testing.assert_allclose(sampled[:, 0], [0, 2.5, 5, 7.5, 10])
    np.testing.assert_allclose(sampled[:, 2], [0, 0, 0, 15, 30])


def test_in_space_the_gate_looks_from_above():
    """Lines on top of each other touch as seen from above, however far apart they are."""
    first, second = sample_lines([[[0, 0, 0], [10, 0, 0]], [[0, 0, 9], [10, 0, 9]]], 100, 3)
    distances = chamfer_distances(first[None], second[None], gate_m=2.0)
    assert distances[0, 0] == pytest.approx(9.0)
    assert chamfer_distances(first[None], second[None] + [0, 5, 0], gate_m=2.0)[0, 0] == np.inf


@pytest.mark.parametrize('protocol', ['maptr', 'maptr_v2', 'streammapnet'])
def test_in_space_every_protocol_takes_frames_without_predictions(protocol):
    evaluator = ChamferEvaluator(('divider',), (0.5,), protocol, 3)
    evaluator.add(local_map(), local_map(raised(0.0, 0.0)))
    evaluator.add(local_map(raised(0.0, 1.0, 0.9, 100)), local_map(raised(0.0, 1.0)))
    assert evaluator.result().mean_ap == pytest.approx(0.5)


def test_in_space_elements_need_heights():
    evaluator = ChamferEvaluator(('divider',), num_dims=3)
    with pytest.raises(DataError, match="'divider' has no heights.*two dimensions"):
        evaluator.add(local_map(line(0.0, 0.9)), local_map(line(0.0)))
    with pytest.raises(ConfigError, match='num_dims 4'):
        ChamferEvaluator(num_dims=4)
