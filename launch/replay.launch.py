"""Replay a bag into the mapping node: `ros2 launch gsmap_ros replay.launch.py bag:=drive.mcap`.

Everything follows the bag's clock. It is `mapping.launch.py` with a bag; that file has the rest of
the arguments, and they may be given here as well.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

SHARE = Path(get_package_share_directory('gsmap_ros'))

ARGUMENTS = [
    DeclareLaunchArgument('bag', description='bag (MCAP) to replay once the node is active'),
    DeclareLaunchArgument(
        'rate', default_value='1.0', description='replay speed, 1.0 is real time'
    ),
    DeclareLaunchArgument(
        'rviz', default_value='false', description='true: start RViz with rviz_config'
    ),
]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the included file."""
    include = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'mapping.launch.py')),
        launch_arguments={
            'bag': LaunchConfiguration('bag'),
            'rate': LaunchConfiguration('rate'),
            'rviz': LaunchConfiguration('rviz'),
            'use_sim_time': 'true',
        }.items(),
    )
    return LaunchDescription([*ARGUMENTS, include])
