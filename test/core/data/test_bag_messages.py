"""Core values to messages and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsmap_core.data import messages as msg
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap


def through_bytes(message: object) -> object:
    data = msg.serialise(message)
    return msg.typestore().deserialize_cdr(data, message.__msgtype__)


def predicted_map() -> VectorMap:
    generator = np.random.default_rng(0)
    return VectorMap(
        elements=(
            MapElement(
                0,
                generator.normal(0.0, 10.0, (20, 2)),
                score=0.93,
                covariance=generator.normal(0.0, 1.0, (20, 3)),
                id=7,
                num_observations=3,
            ),
            MapElement(1, generator.normal(0.0, 10.0, (4, 2)), closed=True, score=0.25),
        ),
        stamp_ns=1_700_000_000_123_456_789,
        range=PerceptionRange(-30.0, 30.0, -15.0, 15.0),
        sample_id='token',
        scene='scene-1',
    )


def assert_equal_elements(found: MapElement, expected: MapElement) -> None:
    assert (found.category, found.closed, found.id) == (
        expected.category,
        expected.closed,
        expected.id,
    )
    np.testing.assert_array_equal(found.vertices, expected.vertices)
    if expected.score is None:
        assert found.score is None
    else:
        assert found.score == np.float32(expected.score)
    if expected.covariance is None:
        assert found.covariance is None
    else:
        np.testing.assert_array_equal(found.covariance, expected.covariance.astype(np.float32))


def test_a_prediction_changes_only_by_float32_rounding():
    expected = predicted_map()
    pose = make_transform(rotation_from_rpy(0.1, 0.2, 0.3), [1.0, 2.0, 3.0])
    message = through_bytes(msg.local_map_to_message(expected))
    found = msg.local_map_from_message(message, 'scene-1', pose)
    assert (found.stamp_ns, found.sample_id, found.scene, found.reference, found.range) == (
        expected.stamp_ns,
        'token',
        'scene-1',
        'ego',
        expected.range,
    )
    np.testing.assert_array_equal(found.map_from_base, pose)
    for one, other in zip(found.elements, expected.elements, strict=True):
        assert_equal_elements(one, other)
    assert [element.num_observations for element in found.elements] == [3, 1]


def test_ground_truth_has_no_score_afterwards_either():
    truth = VectorMap((MapElement(2, np.array([[0.0, 0.0, 1.0], [1.0, 0.5, 2.0]])),))
    message = through_bytes(msg.local_map_to_message(truth))
    assert message.elements[0].score == 1.0
    assert message.elements[0].num_observations == 0
    assert message.has_z
    found = msg.local_map_from_message(message)
    assert_equal_elements(found.elements[0], truth.elements[0])


def test_an_empty_map_still_says_where_it_looked():
    empty = VectorMap(range=PerceptionRange(-10.0, 20.0, -5.0, 5.0), stamp_ns=5)
    found = msg.local_map_from_message(through_bytes(msg.local_map_to_message(empty)))
    assert len(found) == 0
    assert found.range == empty.range


def test_a_global_map_keeps_float64_area_and_frame():
    whole = replace(
        predicted_map(), reference='map', range=PerceptionRange(-1234.567, 1e6 + 0.1, 0.1, 0.3)
    )
    message = through_bytes(msg.global_map_to_message(whole, revision=4))
    assert (message.header.frame_id, message.revision) == ('map', 4)
    found = msg.global_map_from_message(message, 'scene-1')
    assert found.range == whole.range
    assert found.reference == 'map'
    for one, other in zip(found.elements, whole.elements, strict=True):
        assert_equal_elements(one, other)


def test_frames_are_not_mixed_up():
    with pytest.raises(DataError, match='in the map frame'):
        msg.local_map_to_message(VectorMap(reference='map'))
    # The frame of the nuScenes protocols travels under its own name.
    message = msg.local_map_to_message(VectorMap(reference='lidar'))
    assert message.header.frame_id == 'nuscenes_lidar'
    assert msg.local_map_from_message(message).reference == 'lidar'
    with pytest.raises(DataError, match='ego'):
        msg.global_map_to_message(VectorMap(reference='ego'))


def test_a_message_with_an_unknown_category_or_bad_covariance_names_its_place():
    message = msg.local_map_to_message(predicted_map())
    message.elements[0].category = 255
    with pytest.raises(DataError, match="topic 'x'.*1700000000123456789.*255"):
        msg.local_map_from_message(message, where="topic 'x'")
    message = msg.local_map_to_message(predicted_map())
    message.elements[0].covariance = message.elements[0].covariance[:-1]
    with pytest.raises(DataError, match='59 covariance numbers for 20'):
        msg.local_map_from_message(message)


def test_a_transform_survives_and_a_zero_quaternion_does_not():
    matrix = make_transform(rotation_from_rpy(0.3, -0.2, 3.0), [1e4, -2.0, 0.5])
    message = through_bytes(msg.make_transform_stamped(-5 + 10**18, 'map', 'base_link', matrix))
    np.testing.assert_allclose(msg.transform_from_message(message.transform), matrix, atol=1e-12)
    assert msg.time_to_ns(message.header.stamp) == 10**18 - 5
    message.transform.rotation.x = message.transform.rotation.y = 0.0
    message.transform.rotation.z = message.transform.rotation.w = 0.0
    with pytest.raises(DataError, match='no direction'):
        msg.transform_from_message(message.transform)


def test_the_type_store_has_the_definitions_of_the_text_files(repo_root):
    fields = {name for name, _ in msg.typestore().fielddefs[msg.MAP_ELEMENT][1]}
    lines = (repo_root / 'msg' / 'MapElement.msg').read_text().splitlines()
    written = {
        line.split()[1] for line in lines if line and not line.startswith('#') and '=' not in line
    }
    assert fields == written
