"""Consistency-aware AP and made identities, on cases that can be worked out by hand."""

import numpy as np
import pytest

from gsmap_core.errors import ConfigError, DataError
from gsmap_core.evaluation.consistency import ConsistencyEvaluator
from gsmap_core.evaluation.identities import ElementLinker, instance_masks
from gsmap_core.geometry.transforms import invert, make_transform, rotation_from_rpy
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap


def line(y, score=None, number=None, x_from=-20.0):
    return MapElement(0, np.array([[x_from, y], [20.0, y]]), score=score, id=number)


def frame(*elements, index=0, scene='one', pose=None, reference='ego'):
    return VectorMap(
        elements,
        sample_id=f'f{index}',
        scene=scene,
        reference=reference,
        map_from_base=np.eye(4) if pose is None else pose,
    )


def evaluated(pairs, **options):
    evaluator = ConsistencyEvaluator(('divider',), (0.5,), **options)
    for prediction, truth in pairs:
        evaluator.add(prediction, truth)
    return evaluator


def test_a_changed_identity_is_wrong_and_the_first_claim_stays():
    pairs = [
        (frame(line(0.0, score, number), index=i), frame(line(0.0, None, 1), index=i))
        for i, (score, number) in enumerate(((0.9, 5), (0.8, 6), (0.7, 5)))
    ]
    result = evaluated(pairs).result()
    # Right, wrong, right of three: recall 1/3 at precision 1, then 2/3 at 2/3.
    assert result.mean_ap == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert result.plain.mean_ap == pytest.approx(1.0)
    assert result.num_true_positives['divider'] == {0.5: 2}
    assert result.linked == ()
    values = result.to_dict()
    assert values['metric'] == 'consistency' and values['plain']['mean_ap'] == pytest.approx(1.0)


def test_the_same_identity_means_nothing_in_another_scene():
    pairs = [
        (frame(line(0.0, 0.9, n), index=n, scene=s), frame(line(0.0, None, 1), index=n, scene=s))
        for n, s in ((1, 'one'), (2, 'two'))
    ]
    evaluator = evaluated(pairs)
    assert evaluator.result().mean_ap == pytest.approx(1.0)
    assert evaluator.result('two').num_frames == 1


def test_a_frame_without_truth_of_the_category_adds_nothing():
    pairs = [
        (frame(line(0.0, 0.9, 1)), frame(line(0.0, None, 1))),
        (frame(line(0.0, 0.95, 1), index=1), frame(index=1)),
    ]
    result = evaluated(pairs).result()
    assert result.num_predictions['divider'] == 1 and result.mean_ap == pytest.approx(1.0)


def test_identities_are_made_where_there_are_none():
    ahead = make_transform(translation=[5.0, 0.0, 0.0])
    pairs = [
        (frame(line(0.0, 0.9), line(9.0, 0.3)), frame(line(0.0))),
        (frame(line(0.1, 0.8), index=1, pose=ahead), frame(line(0.0), index=1, pose=ahead)),
    ]
    result = evaluated(pairs).result()
    assert result.mean_ap == pytest.approx(1.0)
    # The weak one was left out before anything was linked.
    assert result.num_predictions['divider'] == 2
    assert result.linked == ('predictions', 'ground truth')


def test_errors_name_frame_and_side():
    truth = frame(line(0.0, None, 1))
    with pytest.raises(DataError, match=r"predictions, frame 'f0'.*'divider' has no id"):
        evaluated([(frame(line(0.0, 0.9, 1), line(3.0, 0.9)), truth)])
    lidar = [frame(line(0.0, s), reference='lidar') for s in (0.9, None)]
    with pytest.raises(DataError, match="frame 'f0'.*expected ids, or maps in the ego frame"):
        evaluated([tuple(lidar)])
    no_pose = VectorMap((line(0.0, 0.9),), sample_id='f0')
    with pytest.raises(DataError, match="frame 'f0'.*map_from_base"):
        evaluated([(no_pose, truth)])
    with pytest.raises(ConfigError, match='positive'):
        ConsistencyEvaluator(thresholds_m=(0.0,))
    first, second = (
        evaluated([(frame(line(0.0, 0.9, n), scene=s), frame(line(0.0, None, 1), scene=s))])
        for n, s in ((1, 'one'), (None, 'two'))
    )
    with pytest.raises(DataError, match="scene 'two'"):
        first.merge(second)


def test_links_follow_the_elements_through_a_turn():
    """Two lines in the map, seen from a vehicle that moves and turns; their order changes."""
    map_lines = [np.array([[-8.0, y, 0.0], [8.0, y, 0.0]]) for y in (-4.0, 4.0)]
    linker = ElementLinker.of_ground_truth('divider')
    seen = []
    for index, yaw in enumerate((0.0, 0.6, 1.2)):
        pose = make_transform(rotation_from_rpy(0.0, 0.0, yaw), [1.0 * index, 0.5, 0.0])
        inverse = invert(pose)
        elements = [MapElement(0, x @ inverse[:3, :3].T + inverse[:3, 3]) for x in map_lines]
        if index == 1:
            elements.reverse()
        seen.append(linker.link(elements, frame(pose=pose, index=index)))
    assert seen == [[1, 2], [2, 1], [1, 2]]


@pytest.mark.parametrize(('make', 'expected'), [('of_predictions', 1), ('of_ground_truth', 2)])
def test_only_predictions_are_found_again_after_a_gap(make, expected):
    linker = getattr(ElementLinker, make)('divider')
    for index, elements in enumerate(([line(0.0)], [], [], [], [])):
        linker.link(elements, frame(index=index))
    assert linker.link([line(0.0)], frame(index=9)) == [expected]
    far = ElementLinker.of_predictions('divider')
    assert far.link([line(0.0)], frame()) == [1]
    assert far.link([line(6.0)], frame(index=1)) == [2]


def test_masks_are_drawn_as_published_and_small_ones_grow():
    masks = instance_masks(
        [np.array([[-15.0, 0.0], [15.0, 0.0]]), np.array([[3.1, 3.1], [3.2, 3.1]])],
        PerceptionRange(),
        False,
    )
    # 101 cells long and, as OpenCV draws a thickness of three, five wide, with rounded ends.
    assert masks.shape == (2, 200 * 100) and 505 <= masks[0].sum() <= 515
    assert 20 <= masks[1].sum() < 90
    square = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 3.0], [0.0, 3.0], [0.0, 0.0]])
    assert instance_masks([square], PerceptionRange(), True).sum() == 11 * 11
