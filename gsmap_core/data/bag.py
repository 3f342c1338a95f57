"""Recordings as MCAP bags, the canonical on-disk form of a drive: everything public in one place.

A drive goes in with `write_bag` and comes back with `open_bag`; `BagRecorder` and `BagReader` do
the same for any messages. No ROS is needed. A recording is a folder `NAME/` with `metadata.yaml`
and `NAME.mcap`, or a bare `.mcap` file; `ros2 bag play` and Foxglove take both.
"""

from gsmap_core.data.bag_drive import BagDrive, BagOptions, open_bag
from gsmap_core.data.bag_queries import read_local_maps, read_transforms
from gsmap_core.data.bag_reader import BagReader, QosProfile, RawMessage, TopicInfo
from gsmap_core.data.bag_recorder import BagRecorder, BagSummary
from gsmap_core.data.bag_writer import (
    GLOBAL_MAP_TOPIC,
    GROUND_TRUTH_TOPIC,
    IMAGE_QOS,
    LATCHED_QOS,
    LIDAR_TOPIC,
    ODOMETRY_TOPIC,
    TF_QOS,
    image_topic,
    info_topic,
    write_bag,
)
from gsmap_core.data.groundtruth import move_local_map
from gsmap_core.data.tf_tree import TransformTree

__all__ = [
    'GLOBAL_MAP_TOPIC',
    'GROUND_TRUTH_TOPIC',
    'IMAGE_QOS',
    'LATCHED_QOS',
    'LIDAR_TOPIC',
    'ODOMETRY_TOPIC',
    'TF_QOS',
    'BagDrive',
    'BagOptions',
    'BagReader',
    'BagRecorder',
    'BagSummary',
    'QosProfile',
    'RawMessage',
    'TopicInfo',
    'TransformTree',
    'image_topic',
    'info_topic',
    'move_local_map',
    'open_bag',
    'read_local_maps',
    'read_transforms',
    'write_bag',
]
