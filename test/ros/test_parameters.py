"""Parameter records: checks, the node's reactions, the table of the README."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ros.helpers.drives import write_micro_checkpoint

from gsmap_core.errors import ConfigError
from gsmap_ros.parameters import (
    MAPPING_PARAMETERS,
    NODE_PARAMETERS,
    ParameterRecord,
    parameters_markdown,
    texts,
)

ALL = [record for records in NODE_PARAMETERS.values() for record in records]


@pytest.mark.parametrize('record', ALL, ids=lambda record: record.name)
def test_records_are_complete(record: ParameterRecord) -> None:
    record.check(record.default)
    assert record.description.endswith('.')
    assert re.fullmatch(r'[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*', record.name)
    if isinstance(record.default, (int, float)) and not isinstance(record.default, bool):
        assert record.minimum is not None and record.maximum is not None
    if record.name.endswith('_s'):
        assert '[s]' in record.description
    if record.name.endswith('_m'):
        assert '[m]' in record.description


def record_of(name: str) -> ParameterRecord:
    return next(record for record in MAPPING_PARAMETERS if record.name == name)


@pytest.mark.parametrize(
    ('name', 'value', 'text'),
    [
        ('score_threshold', 1.5, r"'score_threshold' is 1\.5; expected float \(0 to 1\)"),
        ('score_threshold', float('nan'), 'is nan'),
        ('score_threshold', 1, r'is 1 \(int\); expected float \(0 to 1\); write 1\.0'),
        ('score_threshold', True, r'True \(bool\); expected float'),
        ('sync.min_cameras', 0, 'expected int'),
        ('sync.min_cameras', 2.0, r'2\.0 \(float\)'),
        ('image_transport', 'theora', "'theora'; expected string .compressed, raw"),
        ('cameras', 'cam_front', 'expected string array'),
        ('cameras', [1], 'expected string array'),
        ('autostart', 'yes', 'expected bool'),
        ('model.weights', None, 'None'),
    ],
)
def test_wrong_values_are_refused_in_words(name: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        record_of(name).check(value)


def test_empty_string_array() -> None:
    assert texts(['']) == () and texts(['a', '', 'b']) == ('a', 'b')


@pytest.mark.parametrize('node', NODE_PARAMETERS)
def test_markdown_has_one_row_per_parameter(node: str) -> None:
    lines = parameters_markdown(node).splitlines()
    assert len(lines) == 2 + len(NODE_PARAMETERS[node])
    assert len({line.count('|') for line in lines}) == 1
    for record, line in zip(NODE_PARAMETERS[node], lines[2:], strict=True):
        assert line.startswith(f'| `{record.name}` | {record.type_name} |')


@pytest.fixture
def make_node(ros_context: None) -> Iterator[Callable[..., Any]]:
    """Create mapping nodes in this process with parameter overrides as a YAML file gives them."""
    from rclpy.parameter import Parameter

    from gsmap_ros.mapping_node import MappingNode

    nodes: list[Any] = []

    def make(**overrides: Any) -> Any:
        given = {'autostart': False, **overrides}
        parameters = [Parameter(name.replace('__', '.'), value=v) for name, v in given.items()]
        nodes.append(MappingNode(parameter_overrides=parameters))
        return nodes[-1]

    yield make
    for node in nodes:
        node.finish()
        node.destroy_node()


def set_one(node: Any, name: str, value: Any) -> Any:
    from rclpy.parameter import Parameter

    return node.set_parameters_atomically([Parameter(name, value=value)])


def configure(node: Any) -> tuple[bool, str]:
    from rclpy.lifecycle import TransitionCallbackReturn

    is_done = node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    return is_done, node._status.failure


def test_every_parameter_is_declared_with_its_description(make_node: Callable[..., Any]) -> None:
    node = make_node()
    for record in MAPPING_PARAMETERS:
        descriptor = node.describe_parameter(record.name)
        assert descriptor.description == record.description
        if isinstance(record.default, float):
            (allowed,) = descriptor.floating_point_range
            assert (allowed.from_value, allowed.to_value) == (record.minimum, record.maximum)
        if record.choices:
            assert ', '.join(record.choices) in descriptor.additional_constraints


def test_overrides_are_taken_and_unknown_ones_are_listed(make_node: Callable[..., Any]) -> None:
    node = make_node(score_threshold=0.75, score_treshold=0.5, cameras=['a', 'b'])
    assert node._values['score_threshold'] == 0.75
    assert node._values.texts('cameras') == ('a', 'b')
    assert node._values.unknown == ['score_treshold']


def test_wrong_overrides_stop_configure_with_every_reason(make_node: Callable[..., Any]) -> None:
    node = make_node(score_threshold=1, image_transport='theora')
    is_done, failure = configure(node)
    assert not is_done
    assert "'score_threshold' is 1 (int)" in failure and 'write 1.0' in failure
    assert "'theora'; expected string (compressed, raw)" in failure
    # Setting right values heals it, up to the next reason.
    assert set_one(node, 'score_threshold', 0.5).successful
    assert set_one(node, 'image_transport', 'raw').successful
    assert 'the graph has no topic' in configure(node)[1]


def test_changes_at_run_time(make_node: Callable[..., Any], tmp_path: Path) -> None:
    weights = write_micro_checkpoint(tmp_path / 'micro.safetensors')
    node = make_node(model__weights=str(weights), cameras=['cam_front'])
    assert configure(node) == (True, '')
    assert set_one(node, 'score_threshold', 0.9).successful
    assert node._values['score_threshold'] == 0.9
    answer = set_one(node, 'score_threshold', 1.9)
    assert not answer.successful and 'score_threshold' in answer.reason
    answer = set_one(node, 'model.device', 'cpu')
    assert not answer.successful and 'clean up first' in answer.reason
    assert node._values['score_threshold'] == 0.9
    node.trigger_cleanup()
    assert set_one(node, 'model.device', 'cpu').successful


def test_several_parameters_are_all_or_nothing(make_node: Callable[..., Any]) -> None:
    from rclpy.parameter import Parameter

    node = make_node()
    answer = node.set_parameters_atomically(
        [Parameter('score_threshold', value=0.7), Parameter('markers.line_width_m', value=-1.0)]
    )
    assert not answer.successful and 'markers.line_width_m' in answer.reason
    assert node._values['score_threshold'] == record_of('score_threshold').default


def test_lifecycle_can_be_walked_twice(make_node: Callable[..., Any], tmp_path: Path) -> None:
    from rclpy.lifecycle import TransitionCallbackReturn

    weights = write_micro_checkpoint(tmp_path / 'micro.safetensors')
    node = make_node(model__weights=str(weights), cameras=['cam_front', 'cam_back'])
    for _ in range(2):
        for step in ('configure', 'activate', 'deactivate', 'activate', 'deactivate', 'cleanup'):
            result = getattr(node, f'trigger_{step}')()
            assert result == TransitionCallbackReturn.SUCCESS, step
        assert node._parts is None and node._worker is None


@pytest.mark.parametrize(
    ('overrides', 'text'),
    [
        ({'model__weights': 'no_such', 'cameras': ['a']}, "checkpoint 'no_such' not found"),
        ({'rig__file': 'no_such'}, "'no_such' is unknown"),
        ({'rig__file': 'nuscenes_like', 'cameras': ['roof']}, 'roof are not in rig'),
        ({'cameras': ['a', 'b'], 'sync__reference': 'c'}, "'c' is not a camera"),
        ({'cameras': ['a'], 'model__device': 'tpu'}, "'tpu'"),
        ({}, "graph has no topic like '<camera>/image_rect/compressed'"),
    ],
)
def test_wrong_settings_fail_configure_and_show_in_diagnostics(
    overrides: dict[str, Any], text: str, make_node: Callable[..., Any], tmp_path: Path
) -> None:
    weights = write_micro_checkpoint(tmp_path / 'micro.safetensors')
    node = make_node(**{'model__weights': str(weights), **overrides})
    is_done, failure = configure(node)
    assert not is_done and text in failure
    (status,) = node._status.statuses(node._parts)
    assert status.level == 2 and text in status.message
    # The node lives on and can be asked again.
    assert not configure(node)[0]


def test_truncated_and_foreign_checkpoints(make_node: Callable[..., Any], tmp_path: Path) -> None:
    whole = write_micro_checkpoint(tmp_path / 'micro.safetensors').read_bytes()
    for name, data in (('cut', whole[: len(whole) // 2]), ('text', b'not a checkpoint')):
        path = tmp_path / f'{name}.safetensors'
        path.write_bytes(data)
        node = make_node(model__weights=str(path), cameras=['cam_front'])
        is_done, failure = configure(node)
        assert not is_done and str(path) in failure, failure


def test_files_named_while_it_runs_stay_inside_their_directory(
    make_node: Callable[..., Any], tmp_path: Path
) -> None:
    inside, outside = tmp_path / 'in/a.yaml', tmp_path / 'out/b.yaml'
    for path in (inside, outside):
        path.parent.mkdir()
        path.write_text('')
    (tmp_path / 'in/link.yaml').symlink_to(outside)
    free = make_node()
    assert not set_one(free, 'rig.file', str(inside)).successful
    assert set_one(free, 'rig.file', 'nuscenes_like').successful
    for given in ({'rig__file': str(inside)}, {'files__directory': str(tmp_path / 'in')}):
        node = make_node(**given)
        assert set_one(node, 'model.weights', f'{tmp_path}/in/c.safetensors').successful
        for path in (str(outside), f'{tmp_path}/in/../out/b.yaml', f'{tmp_path}/in/link.yaml'):
            result = set_one(node, 'rig.file', path)
            assert not result.successful
            assert "parameter 'rig.file'" in result.reason and f'{tmp_path}/in' in result.reason
        assert not set_one(node, 'files.directory', '/').successful


def test_a_wrong_type_is_refused_in_words(make_node: Callable[..., Any]) -> None:
    result = set_one(make_node(), 'score_threshold', 1)
    assert not result.successful
    assert result.reason.startswith("parameter 'score_threshold' is 1 (int); expected float")


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
def test_cleanup_gives_the_model_back(
    make_node: Callable[..., Any], tmp_path: Path, device: str
) -> None:
    """Nothing of it stays, in the memory of the device neither."""
    import gc
    import weakref

    import torch

    weights = write_micro_checkpoint(tmp_path / 'micro.safetensors', 'keyframe_streaming')
    node = make_node(model__weights=str(weights), cameras=['front'], model__device=device)
    allocated = []
    for _ in range(3):
        assert configure(node)[0]
        node.trigger_activate()
        model = weakref.ref(node._parts.predictor.model)
        node.trigger_deactivate()
        node.trigger_cleanup()
        gc.collect()
        assert model() is None
        if device == 'cuda':
            allocated.append(torch.cuda.memory_allocated())
    assert len(set(allocated)) <= 1
