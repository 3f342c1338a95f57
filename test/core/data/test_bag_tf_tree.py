"""Look-ups in recorded transforms, against answers of the real tf2."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gsmap_core.data.tf_tree import TransformTree
from gsmap_core.errors import TransformError
from gsmap_core.geometry.transforms import (
    make_transform,
    rotation_from_rpy,
    transform_from_quaternion,
)


@pytest.mark.golden
def test_tf2_answers_of_a_driving_vehicle(golden_dir):
    scenario = json.loads((golden_dir / 'tf2' / 'vehicle.json').read_text())
    answered = refused = 0
    for case in scenario['lookups']:
        # "Latest" and looking through a fixed frame are questions of the live node only.
        if case['op'] != 'lookup' or case['time_ns'] == 0:
            continue
        if not case['expect']['ok'] and case['expect']['reason'] == 'invalid_name':
            continue
        tree = TransformTree()
        for item in scenario['transforms'][: case['fed']]:
            matrix = transform_from_quaternion(item['translation'], item['rotation'])
            tree.add(
                item['parent'], item['child'], item['stamp_ns'], matrix, is_static=item['static']
            )
        question = (case['target'], case['source'], case['time_ns'])
        if case['expect']['ok']:
            expected = transform_from_quaternion(
                case['expect']['translation'], case['expect']['rotation']
            )
            if case['target'] != case['source'] or case['target'] in tree.frames:
                np.testing.assert_allclose(tree.lookup(*question), expected, atol=1e-8)
                answered += 1
        else:
            with pytest.raises(TransformError):
                tree.lookup(*question)
            refused += 1
    assert answered >= 15
    assert refused >= 4


def make_tree() -> TransformTree:
    tree = TransformTree()
    for stamp, x in ((100, 0.0), (200, 10.0), (200, 99.0), (150, 4.0)):
        turn = rotation_from_rpy(0.0, 0.0, 0.01 * stamp)
        tree.add('/odom', 'base_link', stamp, make_transform(turn, [x, 0.0, 0.0]))
    tree.add('map', 'odom', 0, make_transform(None, [0.0, 5.0, 0.0]), is_static=True)
    return tree


def test_interpolation_repeats_and_late_samples():
    tree = make_tree()
    found = tree.lookup('map', 'base_link', 175)
    expected = make_transform(rotation_from_rpy(0.0, 0.0, 1.75), [7.0, 5.0, 0.0])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # The first of two samples with one stamp counts, as in tf2.
    assert tree.lookup('odom', 'base_link', 200)[0, 3] == 10.0
    assert tree.coverage_ns('map', 'base_link') == (100, 200)
    assert tree.coverage_ns('map', 'odom') is None


def test_the_way_back_is_the_inverse():
    tree = make_tree()
    there, back = tree.lookup('map', 'base_link', 130), tree.lookup('base_link', 'map', 130)
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-12)


def test_outside_and_unconnected_are_errors_that_say_how_far():
    tree = make_tree()
    with pytest.raises(TransformError, match="'odom' <- 'base_link'.*before the first"):
        tree.lookup('map', 'base_link', 99)
    with pytest.raises(TransformError, match='after the last'):
        tree.lookup('map', 'base_link', 201)
    with pytest.raises(TransformError, match="'map' and 'camera'.*known frames: base_link, map"):
        tree.lookup('map', 'camera', 150)
    assert not tree.is_connected('map', 'camera')
    assert tree.is_connected('odom', 'base_link')


def test_a_loop_is_an_error_and_no_hang():
    tree = TransformTree()
    tree.add('a', 'b', 0, np.eye(4), is_static=True)
    tree.add('b', 'a', 0, np.eye(4), is_static=True)
    with pytest.raises(TransformError, match='own ancestor'):
        tree.lookup('x', 'a', 0)
