"""The launch files against the documentation, the build and the nodes, without running them.

Where ROS's `launch` is installed they are started for real as well.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gsmap_ros.launch_arguments import (
    absolute_name,
    existing_path,
    patched_rviz_config,
    shown_image_topics,
    to_bool,
    to_positive_float,
)
from gsmap_ros.parameters import NODE_PARAMETERS

sys.path.insert(0, str(Path(__file__).parent))
from launch_file_syntax import documented_arguments, read_launch_file

from gsmap_core.errors import ConfigError

FILES = ('mapping.launch.py', 'replay.launch.py')
#: ros-conventions: the vocabulary that ROS users know.
EXPECTED = {
    'mapping.launch.py': [
        'namespace', 'use_sim_time', 'params_file', 'rig', 'weights', 'device', 'map_builder',
        'map_directory', 'autostart', 'rviz', 'rviz_config', 'bag', 'rate', 'log_level',
        'use_respawn',
    ],
    'replay.launch.py': ['bag', 'rate', 'rviz'],
}  # fmt: skip


@pytest.mark.parametrize('name', FILES)
def test_arguments_are_the_documented_ones(repo_root: Path, name: str) -> None:
    launch = read_launch_file(repo_root / 'launch' / name)
    documented = documented_arguments(repo_root / 'docs' / 'ros.md', name)
    assert list(launch.arguments) == list(documented) == EXPECTED[name]
    for argument, default in launch.arguments.items():
        shown = documented[argument]
        if default is None:
            assert shown == 'required'
        elif default.startswith('str(SHARE'):
            assert default.replace("'", '').endswith(shown.replace('/', ' / ') + ')')
        else:
            assert default.strip("'") == shown
        assert len(launch.descriptions[argument]) > 15


@pytest.mark.parametrize('name', FILES)
def test_programs_parameters_and_files_exist(repo_root: Path, name: str) -> None:
    launch = read_launch_file(repo_root / 'launch' / name)
    cmake = (repo_root / 'CMakeLists.txt').read_text(encoding='utf-8')
    match = re.search(r'foreach\(node ([\w ]+)\)', cmake)
    assert match is not None
    installed = set(match.group(1).split())
    for package, executable in launch.nodes:
        if package == 'gsmap_ros':
            assert executable in installed
            source = repo_root / 'gsmap_ros' / f'{executable}.py'
            assert source.read_text(encoding='utf-8').startswith('#!/usr/bin/env python3\n')
            assert os.access(source, os.X_OK), f'{source} must be executable for --symlink-install'
            known = {record.name for record in NODE_PARAMETERS[executable]} | {'use_sim_time'}
            assert launch.parameters[executable] <= known
    for parts in launch.share_files:
        assert repo_root.joinpath(*parts).is_file()
    installed_folders = re.search(r'install\(DIRECTORY ([\w ]+) DESTINATION share', cmake)
    assert installed_folders is not None
    assert {parts[0] for parts in launch.share_files} <= set(installed_folders.group(1).split())


@pytest.mark.parametrize('name', FILES)
def test_nothing_is_evaluated_or_downloaded(repo_root: Path, name: str) -> None:
    names = read_launch_file(repo_root / 'launch' / name).names
    assert not names & {'eval', 'exec', 'urlopen', 'urlretrieve', 'requests', 'check_call', 'pip'}


def test_rig_weights_and_device_set_their_parameters(repo_root: Path) -> None:
    launch = read_launch_file(repo_root / 'launch' / 'mapping.launch.py')
    assert {'rig.file', 'model.weights', 'model.device', 'autostart', 'use_sim_time'} <= (
        launch.parameters['mapping_node']
    )


def test_the_map_builder_is_started_when_asked_for(repo_root: Path) -> None:
    launch = read_launch_file(repo_root / 'launch' / 'mapping.launch.py')
    assert ('gsmap_ros', 'map_builder_node') in launch.nodes
    assert launch.parameters['map_builder_node'] == {
        'use_sim_time', 'autostart', 'model.weights', 'map.directory',
    }  # fmt: skip


def test_parameter_file_is_accepted_by_the_records(repo_root: Path) -> None:
    import yaml

    content = yaml.safe_load((repo_root / 'config' / 'mapping.yaml').read_text(encoding='utf-8'))
    # `/**`: both nodes that the launch file starts get them.
    for node in ('mapping_node', 'map_builder_node'):
        records = {record.name: record for record in NODE_PARAMETERS[node]}
        for name, value in content['/**']['ros__parameters'].items():
            records[name].check(value)


@pytest.mark.parametrize('name', ['nuscenes_bag', 'av2_bag', 'example_vehicle'])
def test_parameter_files_of_vehicles(
    repo_root: Path, name: str, ros_environment: dict[str, str]
) -> None:
    """Allowed values; and the node gets them in any namespace, the map builder does not."""
    import rclpy
    import yaml
    from rclpy.node import Node

    path = repo_root / 'config' / f'{name}.yaml'
    content = yaml.safe_load(path.read_text(encoding='utf-8'))
    values = content['/**/mapping']['ros__parameters']
    records = {record.name: record for record in NODE_PARAMETERS['mapping_node']}
    for key, value in values.items():
        records[key].check(value)
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        for node_name, namespace, expected in (
            ('mapping', '', values), ('mapping', 'car', values), ('map_builder', '', {}),
        ):  # fmt: skip
            node = Node(
                node_name,
                namespace=namespace,
                context=context,
                cli_args=['--ros-args', '--params-file', str(path)],
                automatically_declare_parameters_from_overrides=True,
            )
            got = {key: node.get_parameter(key).value for key in values if node.has_parameter(key)}
            assert {k: list(v) if isinstance(v, tuple) else v for k, v in got.items()} == expected
            node.destroy_node()
    finally:
        context.try_shutdown()


def test_bags_of_the_datasets_have_the_cameras_that_are_named(repo_root: Path) -> None:
    from gsmap_core.rig import load_rig

    for name, rig in (('nuscenes_bag', 'nuscenes_like'), ('av2_bag', 'av2_like')):
        topics = shown_image_topics(repo_root / 'config' / f'{name}.yaml')
        assert tuple(topics) == load_rig(rig).names


def test_image_topics_are_those_that_the_node_subscribes(repo_root: Path) -> None:
    config = repo_root / 'config'
    assert shown_image_topics(config / 'mapping.yaml') == {}
    assert shown_image_topics(config / 'example_vehicle.yaml') == {
        name: f'{name}/image_raw/compressed' for name in ('front', 'left', 'right', 'back')
    }
    # The argument wins over the file.
    found = shown_image_topics(config / 'example_vehicle.yaml', 'av2_like')
    assert found['ring_front_center'] == 'ring_front_center/image_raw/compressed'


@pytest.mark.parametrize(
    ('text', 'value'),
    [('true', True), ('True', True), ('1', True), ('off', False), (' FALSE ', False)],
)
def test_booleans(text: str, value: bool) -> None:
    assert to_bool('rviz', text) is value


@pytest.mark.parametrize('text', ['', 'maybe', '2', '__import__("os")'])
def test_what_is_no_boolean_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match='rviz'):
        to_bool('rviz', text)


@pytest.mark.parametrize('text', ['0', '-1', 'fast', 'inf', 'nan'])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match='rate'):
        to_positive_float('rate', text)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bag:='.*nothing\.mcap' does not exist"):
        existing_path('bag', str(tmp_path / 'nothing.mcap'))


def test_names_in_a_namespace() -> None:
    assert absolute_name('', 'mapping') == '/mapping'
    assert absolute_name('/car/left/', 'mapping') == '/car/left/mapping'


def test_rviz_gets_a_panel_for_every_camera(repo_root: Path) -> None:
    import yaml

    config = repo_root / 'config'
    topics = shown_image_topics(config / 'av2_bag.yaml')
    patched = patched_rviz_config(config / 'gsmap.rviz', 'car', image_topics=topics)
    try:
        displays = yaml.safe_load(patched.read_text())['Visualization Manager']['Displays']
    finally:
        patched.unlink()
    panels = [display for display in displays if display['Class'].endswith('/Image')]
    assert [panel['Topic']['Value'] for panel in panels] == [
        f'/car/{name}/image_rect/compressed' for name in topics
    ]
    assert panels[0]['Name'] == 'Camera ring front center'
    assert panels[0]['Topic']['Reliability Policy'] == 'Best Effort'
    assert len({display['Name'] for display in displays}) == len(displays)


def test_rviz_topics_move_into_the_namespace(repo_root: Path) -> None:
    import yaml

    source = repo_root / 'config' / 'gsmap.rviz'
    patched = patched_rviz_config(source, 'car', fixed_frame='odom', base_frame='body')
    try:
        content = yaml.safe_load(patched.read_text(encoding='utf-8'))
    finally:
        patched.unlink()
    topics = [
        display['Topic']['Value']
        for display in content['Visualization Manager']['Displays']
        if 'Topic' in display
    ]
    assert '/car/mapping/local_map_markers' in topics
    assert '/car/cam_front/image_rect/compressed' in topics
    assert content['Visualization Manager']['Global Options']['Fixed Frame'] == 'odom'
    assert content['Visualization Manager']['Views']['Current']['Target Frame'] == 'body'


@pytest.mark.skipif(
    importlib.util.find_spec('launch_ros') is None,
    reason='launch and launch_ros come with a ROS installation only; source one',
)
@pytest.mark.parametrize('name', FILES)
def test_started_for_real(
    repo_root: Path, ros_environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    """`--show-args` lists every argument, and the mapping node comes up and goes down cleanly."""
    command = ['ros2', 'launch', str(repo_root / 'launch' / name)]
    shown = subprocess.run(
        [*command, '--show-args'], env=ros_environment, capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0, shown.stderr
    for argument in EXPECTED[name]:
        assert f"'{argument}'" in shown.stdout
    missing = subprocess.run(
        [*command, f'bag:={tmp_path / "nothing.mcap"}'],
        env=ros_environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert missing.returncode != 0
    assert 'nothing.mcap' in missing.stderr + missing.stdout
    if name != 'mapping.launch.py':
        return
    log = tmp_path / 'launch.log'
    with log.open('w') as file:
        process = subprocess.Popen(
            command, env=ros_environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + 60
            while 'active' not in log.read_text() and time.monotonic() < deadline:
                assert process.poll() is None, log.read_text()
                time.sleep(0.5)
        finally:
            # ros2 launch passes SIGINT on to its nodes; SIGTERM would orphan them.
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
    assert 'active' in log.read_text()
    assert process.returncode == 0
