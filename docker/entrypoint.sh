#!/usr/bin/env bash
# Runs a command with the ROS 2 of the image, the virtual environment and the workspace.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /ws/venv/bin/activate
source /ws/install/setup.bash
exec "$@"
