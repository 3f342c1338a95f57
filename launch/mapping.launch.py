"""Start the mapping node, and where asked for RViz and the replay of a bag.

`ros2 launch gsmap_ros mapping.launch.py --show-args` explains the arguments. Files that are named
but missing are reported before anything starts; nothing is downloaded.
"""

from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from gsmap_ros.launch_arguments import (
    absolute_name,
    existing_path,
    patched_rviz_config,
    shown_image_topics,
    to_bool,
    to_positive_float,
)

SHARE = Path(get_package_share_directory('gsmap_ros'))

ARGUMENTS = [
    DeclareLaunchArgument(
        'namespace',
        default_value='',
        description='namespace of the nodes and of their relative topics',
    ),
    DeclareLaunchArgument(
        'use_sim_time',
        default_value='false',
        description='true: follow /clock; set by itself when a bag is given',
    ),
    DeclareLaunchArgument(
        'params_file',
        default_value=str(SHARE / 'config' / 'mapping.yaml'),
        description='YAML file with node parameters; arguments given here win over it',
    ),
    DeclareLaunchArgument(
        'rig',
        default_value='',
        description='rig file (YAML) or name; empty: calibration from CameraInfo and TF',
    ),
    DeclareLaunchArgument(
        'weights',
        default_value='',
        description='checkpoint file; empty: the one of the parameter file, else the shipped one',
    ),
    DeclareLaunchArgument(
        'device',
        default_value='',
        description='auto, cpu or cuda[:N]; empty: as in the parameter file',
    ),
    DeclareLaunchArgument(
        'map_builder',
        default_value='false',
        description='true: also start the map builder, which fuses local maps into one on disk',
    ),
    DeclareLaunchArgument(
        'map_directory',
        default_value='',
        description='folder of the map (map.directory); empty: as in the parameter file',
    ),
    DeclareLaunchArgument(
        'autostart',
        default_value='true',
        description='true: configure and activate the lifecycle nodes at once',
    ),
    DeclareLaunchArgument(
        'rviz', default_value='false', description='true: start RViz with rviz_config'
    ),
    DeclareLaunchArgument(
        'rviz_config',
        default_value=str(SHARE / 'config' / 'gsmap.rviz'),
        description='RViz configuration; its relative topics are moved into the namespace',
    ),
    DeclareLaunchArgument(
        'bag', default_value='', description='bag (MCAP) to replay once the node is active'
    ),
    DeclareLaunchArgument(
        'rate', default_value='1.0', description='replay speed, 1.0 is real time'
    ),
    DeclareLaunchArgument(
        'log_level', default_value='info', description='debug, info, warn, error or fatal'
    ),
    DeclareLaunchArgument(
        'use_respawn', default_value='false', description='true: start the node again if it dies'
    ),
]


def rviz_node(context: LaunchContext, namespace: str, use_sim_time: bool) -> Node:
    """Return RViz, or say how to install it."""
    try:
        get_package_share_directory('rviz2')
    except PackageNotFoundError:
        raise RuntimeError(
            'rviz:=true, but rviz2 is not installed; run: '
            'sudo apt-get install ros-$ROS_DISTRO-rviz2'
        ) from None
    given = context.launch_configurations
    source = existing_path('rviz_config', given['rviz_config'])
    topics = shown_image_topics(existing_path('params_file', given['params_file']), given['rig'])
    return Node(
        package='rviz2',
        executable='rviz2',
        namespace=namespace,
        arguments=['-d', str(patched_rviz_config(source, namespace, image_topics=topics))],
        parameters=[{'use_sim_time': use_sim_time}],
        output='screen',
    )


def start(context: LaunchContext) -> list[Any]:
    """Check the arguments and return the nodes."""
    given = context.launch_configurations
    namespace = given['namespace']
    bag = existing_path('bag', given['bag']) if given['bag'] else ''
    use_sim_time = bool(bag) or to_bool('use_sim_time', given['use_sim_time'])
    log_arguments = ['--ros-args', '--log-level', given['log_level']]
    overrides: dict[str, Any] = {
        'use_sim_time': use_sim_time,
        'autostart': to_bool('autostart', given['autostart']),
    }
    if given['rig']:
        overrides['rig.file'] = given['rig']
    if given['weights']:
        overrides['model.weights'] = existing_path('weights', given['weights'])
    if given['device']:
        overrides['model.device'] = given['device']
    nodes = [
        Node(
            package='gsmap_ros',
            executable='mapping_node',
            name='mapping',
            namespace=namespace,
            parameters=[existing_path('params_file', given['params_file']), overrides],
            arguments=log_arguments,
            respawn=to_bool('use_respawn', given['use_respawn']),
            output='screen',
        )
    ]
    if to_bool('map_builder', given['map_builder']):
        builder_overrides: dict[str, Any] = {
            'use_sim_time': use_sim_time,
            'autostart': overrides['autostart'],
        }
        if given['weights']:
            builder_overrides['model.weights'] = overrides['model.weights']
        if given['map_directory']:
            builder_overrides['map.directory'] = given['map_directory']
        nodes.append(
            Node(
                package='gsmap_ros',
                executable='map_builder_node',
                name='map_builder',
                namespace=namespace,
                parameters=[
                    existing_path('params_file', given['params_file']),
                    builder_overrides,
                ],
                arguments=log_arguments,
                respawn=to_bool('use_respawn', given['use_respawn']),
                output='screen',
            )
        )
    if bag:
        nodes.append(
            Node(
                package='gsmap_ros',
                executable='replay_node',
                name='replay',
                namespace=namespace,
                parameters=[
                    {
                        'bag': bag,
                        'rate': to_positive_float('rate', given['rate']),
                        'wait_for_node': absolute_name(namespace, 'mapping'),
                    }
                ],
                arguments=log_arguments,
                output='screen',
            )
        )
    if to_bool('rviz', given['rviz']):
        nodes.append(rviz_node(context, namespace, use_sim_time))
    return nodes


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the nodes."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])
