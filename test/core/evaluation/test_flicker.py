"""Flicker on sequences that can be counted by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gsmap_core.data.groundtruth import cut_local_map
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.evaluation.flicker import FlickerEvaluator
from gsmap_core.evaluation.tables import format_result, format_scenes
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap


def line(y, id=None, score=0.9, x_from=-10.0, x_to=10.0, category=0):
    return MapElement(category, np.array([[x_from, y], [x_to, y]]), score=score, id=id)


def true(y, **more):
    return line(y, score=None, **more)


def count(frames, scene='one', evaluator=None):
    """Births, deaths, id changes, elements that stayed and those found, of all frames."""
    evaluator = evaluator or FlickerEvaluator(('divider',))
    for predicted, truth in frames:
        evaluator.add(
            VectorMap(tuple(predicted), scene=scene, map_from_base=np.eye(4)),
            VectorMap(tuple(truth), scene=scene, map_from_base=np.eye(4)),
        )
    result = evaluator.result()
    return [
        table['divider']
        for table in (
            result.births,
            result.deaths,
            result.id_changes,
            result.num_elements,
            result.num_found,
        )
    ]


TRUTH = [true(0.0), true(5.0)]


def test_a_steady_map_does_not_flicker():
    frames = [([line(0.1 * n, 7), line(5.0, 8)], TRUTH) for n in range(4)]
    assert count(frames) == [0, 0, 0, 6, 6]


def test_a_birth_a_death_and_an_id_change_count_once_each():
    evaluator = FlickerEvaluator(('divider', 'boundary'))
    frames = [
        ([line(0.0, 1)], TRUTH),
        ([line(0.0, 1), line(5.0, 2)], TRUTH),  # a birth
        ([line(0.0, 3), line(5.0, 2)], TRUTH),  # an id change
        ([line(5.0, 2)], TRUTH),  # a death
        ([line(5.0, 2)], TRUTH),
    ]
    assert count(frames, evaluator=evaluator) == [1, 1, 1, 8, 6]
    result = evaluator.result()
    assert result.per_category == {'divider': pytest.approx(3 / 4), 'boundary': 0.0}
    assert result.flicker_per_frame == pytest.approx(3 / 4)
    assert result.found_overall == pytest.approx(6 / 8) and math.isnan(result.found['boundary'])
    stored = result.to_dict()
    assert stored['flicker_per_frame'] == pytest.approx(3 / 4) and stored['linked'] == []
    assert stored['categories']['boundary']['found'] is None
    rows = [row.split() for row in format_result(result).splitlines()]
    assert ['divider', '0.750', '1', '1', '1', '0.750', '8'] in rows
    assert ['all', '0.750', '1', '1', '1', '0.750', '8'] in rows
    assert 'all' in format_scenes({'one': result}).splitlines()[0]


def test_elements_whose_truth_comes_or_goes_do_not_count():
    frames = [
        ([line(0.0, 1)], [true(0.0)]),
        ([line(0.0, 1), line(5.0, 2)], TRUTH),  # came into range, found at once
        ([line(0.0, 1)], [true(0.0)]),  # left it again
        ([line(0.0, 1)], TRUTH),  # came back, not found
        ([line(0.0, 1), line(5.0, 9)], TRUTH),  # late: a birth
    ]
    assert count(frames) == [1, 0, 0, 5, 5]


@pytest.mark.parametrize(('last_m', 'deaths', 'stayed'), [(16.0, 1, 4), (16.6, 0, 3)])
def test_an_element_stays_in_range_while_two_metres_of_it_do(last_m, deaths, stayed):
    """A line of 8 m falls behind; of its last 2 or 1.4 m nothing is found, then it is gone."""
    evaluator = FlickerEvaluator(('divider',))
    for x in (0.0, 4.0, 8.0, 12.0, last_m, 20.0):
        pose = make_transform(translation=[x, 0.0, 0.0])
        town = [true(5.0, x_from=-20.0, x_to=-12.0)]
        truth = cut_local_map(town, pose, PerceptionRange(), int(x), scene='one')
        shown = [replace(element, score=0.9, id=4) for element in truth.elements if x < last_m]
        evaluator.add(replace(truth, elements=tuple(shown)), truth)
    result = evaluator.result()
    assert (result.births['divider'], result.deaths['divider']) == (0, deaths)
    assert result.num_elements['divider'] == stayed


def test_two_predictions_for_one_line_are_no_id_change():
    doubles = [line(0.3, 1), line(0.1, 2)]
    frames = [
        ([line(0.3, 1)], [true(0.0)]),
        (doubles, [true(0.0)]),  # the nearer one is new; the old one is still there
        ([line(0.1, 2)], [true(0.0)]),  # now it is gone
    ]
    assert count(frames) == [0, 0, 1, 2, 2]


def test_pairs_are_as_near_as_possible_and_within_the_limit():
    frames = [([line(0.7, 1), line(1.8, 2)], [true(0.0), true(1.2)])] * 2
    assert count(frames) == [0, 0, 0, 2, 2]
    frames = [([line(0.0, 1)], [true(0.0)]), ([line(1.6, 1)], [true(0.0)])]
    assert count(frames) == [0, 1, 0, 1, 0]


def test_doubtful_predictions_are_not_there():
    frames = [([line(0.0, 1)], [true(0.0)]), ([line(0.0, 1, score=0.39)], [true(0.0)])]
    assert count(frames) == [0, 1, 0, 1, 0]
    assert count(frames, evaluator=FlickerEvaluator(('divider',), min_score=0.3)) == [
        0,
        0,
        0,
        1,
        1,
    ]


def test_predictions_without_ids_are_linked():
    evaluator = FlickerEvaluator(('divider',))
    frames = [([line(0.1 * n), line(5.0)][: 2 - n % 2], TRUTH) for n in range(3)]
    assert count(frames, evaluator=evaluator) == [1, 1, 0, 4, 3]
    assert evaluator.result().to_dict()['linked'] == ['predictions']
    assert 'their ids made here' in format_result(evaluator.result())
    with pytest.raises(DataError, match='predictions, frame .*has an id'):
        count([([line(0.0, 1)], TRUTH)], evaluator=evaluator)


def test_scenes_are_apart_and_frames_without_pose_passed_over():
    evaluator = FlickerEvaluator(('divider',))
    count([([line(0.0, 1)], TRUTH)], 'one', evaluator)
    count([([], TRUTH)], 'two', evaluator)
    evaluator.add(VectorMap((line(0.0, 1),), scene='two'), VectorMap(tuple(TRUTH), scene='two'))
    count([([line(0.0, 1)], TRUTH)], 'two', evaluator)
    result = evaluator.result()
    assert (result.num_frame_pairs, result.num_without_pose) == (0, 1)
    assert math.isnan(result.flicker_per_frame)
    assert result.to_dict()['flicker_per_frame'] is None
    assert '1 frames without a pose' in format_result(result)
    assert evaluator.scenes == ('one', 'two')


def test_what_is_not_comparable_is_refused():
    lidar = VectorMap((), reference='lidar', map_from_base=np.eye(4))
    with pytest.raises(DataError, match='expected the ego frame'):
        FlickerEvaluator().add(lidar, lidar)
    with pytest.raises(ConfigError, match="'kerb'"):
        FlickerEvaluator(('kerb',))
