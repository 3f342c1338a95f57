"""Records of topics, services and diagnostics, and what is generated from them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gsmap_ros.interface import (
    INTERFACES,
    LIFECYCLE_TOPICS,
    MAPPING_INTERFACE,
    STANDARD_TOPICS,
    interface_markdown,
    is_wanted,
    resolve,
)
from gsmap_ros.parameters import MAPPING_PARAMETERS, NODE_PARAMETERS
from gsmap_ros.security_policy import DEFAULTS, main, policy_xml


def test_every_node_has_an_interface_and_parameters() -> None:
    assert set(INTERFACES) == set(NODE_PARAMETERS)
    records = {record.name: record for record in MAPPING_PARAMETERS}
    for name, default in DEFAULTS.items():
        if name != 'use_sim_time':
            assert str(records[name].default).lower() == default.lower()
    for topic in MAPPING_INTERFACE.topics:
        for name, value in topic.when:
            if name in records and records[name].choices:
                assert value in records[name].choices


@pytest.mark.parametrize('node', INTERFACES)
def test_markdown_has_a_row_for_everything(node: str) -> None:
    text, interface = interface_markdown(node), INTERFACES[node]
    for record in (*interface.topics, *interface.services, *interface.statuses):
        assert f'\n| `{record.name}` |' in text
    for status in interface.statuses:
        assert all(f'`{key.rstrip("?")}`' in text for key in status.values)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('/tf', '/tf'),
        ('odom', '/car/odom'),
        ('~/reset', '/car/mapping/reset'),
        ('<camera>/camera_info', '/car/front/camera_info'),
    ],
)
def test_names_are_resolved_as_ros_does(name: str, expected: str) -> None:
    assert resolve(name, 'mapping', '/car', 'front') == expected
    assert resolve(name, 'mapping', '/', 'front') == expected.removeprefix('/car')


def check_schema(
    policy: ElementTree.Element, node: str = 'mapping', namespace: str = '/'
) -> ElementTree.Element:
    """The rules of sros2's policy.xsd, as far as they concern such a file; returns a profile."""
    assert policy.tag == 'policy' and set(policy.attrib) == {'version'}
    (enclaves,) = policy
    assert len(enclaves) == 2
    path = resolve(node, node, namespace)
    (enclave,) = [item for item in enclaves if item.get('path') == path]
    (profiles,) = enclave
    (profile,) = profiles
    tags = [enclaves.tag, enclave.tag, profiles.tag, profile.tag]
    assert tags == ['enclaves', 'enclave', 'profiles', 'profile']
    assert set(enclave.attrib) == {'path'} and set(profile.attrib) == {'ns', 'node'}
    rights = {'topics': {'publish', 'subscribe'}, 'services': {'reply', 'request'}}
    for group in profile:
        assert group.attrib and set(group.attrib) <= rights[group.tag]
        assert set(group.attrib.values()) <= {'ALLOW', 'DENY'}
        assert len(group) and {item.tag for item in group} == {group.tag[:-1]}
        for item in group:
            assert item.text and re.fullmatch(r'(/[A-Za-z_]\w*)+', item.text)
    return profile


def allowed(profile: ElementTree.Element, right: str) -> set[str]:
    groups = [group for group in profile if group.get(right) == 'ALLOW']
    return {str(item.text) for group in groups for item in group}


def test_policy_allows_what_the_node_has_and_nothing_else() -> None:
    profile = check_schema(ElementTree.fromstring(policy_xml(['front', 'rear'])))
    heard = allowed(profile, 'subscribe')
    assert heard == {
        '/front/image_rect/compressed', '/rear/image_rect/compressed', '/front/camera_info',
        '/rear/camera_info', '/tf', '/tf_static', '/parameter_events',
    }  # fmt: skip
    said = allowed(profile, 'publish')
    assert {'/mapping/local_map', '/diagnostics', '/mapping/transition_event'} <= said
    assert not said & {'/tf', '/clock'}
    assert {'/mapping/reset', '/mapping/change_state'} <= allowed(profile, 'reply')
    assert allowed(profile, 'request') == set()


def test_policy_of_another_vehicle(capsys: pytest.CaptureFixture[str]) -> None:
    main(['--cameras', 'left', '--namespace', '/car', '--image-transport', 'raw',
          '--pose-source', 'odometry', '--use-sim-time', 'true'])  # fmt: skip
    policy = ElementTree.fromstring(capsys.readouterr().out)
    profile = check_schema(policy, namespace='/car')
    assert profile.attrib == {'ns': '/car', 'node': 'mapping'}
    heard = allowed(profile, 'subscribe')
    assert {'/car/left/image_rect', '/car/odom', '/clock'} <= heard
    assert '/car/left/image_rect/compressed' not in heard
    assert '/car/mapping/local_map' in allowed(profile, 'publish')
    builder = check_schema(policy, 'map_builder', '/car')
    assert '/car/mapping/local_map' in allowed(builder, 'subscribe')
    assert '/car/map_builder/save_map' in allowed(builder, 'reply')
    assert '/car/map_builder/map' in allowed(builder, 'publish')


def test_map_builder_is_as_documented(ros_context: None, tmp_path: Path) -> None:
    """Graph and diagnostics of a running node against the records."""
    from rclpy.parameter import Parameter

    from gsmap_ros.map_builder_node import MapBuilderNode

    given = {'map.directory': str(tmp_path), 'autostart': False}
    node = MapBuilderNode(parameter_overrides=[Parameter(k, value=v) for k, v in given.items()])
    try:
        node.trigger_configure()
        node.trigger_activate()
        found = {status.name: status.values for status in node._status.statuses(node._parts)}
        graph = [
            sorted((p.topic_name, is_published) for p in side)
            for side, is_published in ((node.publishers, True), (node.subscriptions, False))
        ]
        services = {service.srv_name for service in node.services}
        result = node.set_parameters_atomically([Parameter('map.directory', value='/')])
    finally:
        node.finish()
        node.destroy_node()
    interface = INTERFACES['map_builder_node']
    standard = {resolve(n, 'map_builder') for n in (*STANDARD_TOPICS, *LIFECYCLE_TOPICS)}
    expected = {
        (resolve(topic.name, 'map_builder'), topic.is_published)
        for topic in interface.topics
        if is_wanted(topic, DEFAULTS)
    }
    assert {item for side in graph for item in side if item[0] not in standard} == expected
    for service in interface.services:
        assert any(name.endswith(service.name.removeprefix('~')) for name in services)
    assert set(found) == {status.name for status in interface.statuses}
    for status in interface.statuses:
        shown = set(found[status.name])
        assert shown <= {key.rstrip('?') for key in status.values}, status.name
        assert shown >= {key for key in status.values if not key.endswith('?')}, status.name
    # Whoever reaches its services must not make it write somewhere else.
    assert not result.successful and 'when the node starts' in result.reason
