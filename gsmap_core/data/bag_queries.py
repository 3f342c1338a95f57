"""Questions to a recording that need no drive: its transforms, and the local maps of any topic."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from gsmap_core.data import messages as msg
from gsmap_core.data.bag_reader import BagReader
from gsmap_core.data.tf_tree import TransformTree
from gsmap_core.errors import DataError, TransformError
from gsmap_core.geometry.transforms import transform_from_quaternion
from gsmap_core.structures import VectorMap

_log = logging.getLogger(__name__)


def read_local_maps(path: str | Path, topic: str) -> list[VectorMap]:
    """Return every `gsmap_ros/MapElementArray` of a topic, by time, with the pose where TF has it.

    Raises:
        DataError: no recording, no such topic, or a topic of another type.
    """
    reader = BagReader(path)
    info = reader.topics.get(topic)
    if info is None or info.type != msg.MAP_ELEMENT_ARRAY:
        arrays = [t.name for t in reader.topics.values() if t.type == msg.MAP_ELEMENT_ARRAY]
        raise DataError(
            f"'{path}': topic '{topic}' holds {info.type if info else 'nothing'}; expected "
            f'{msg.MAP_ELEMENT_ARRAY}, which {", ".join(arrays) or "no topic here"} has'
        )
    tree = read_transforms(reader)
    scene = reader.metadata.get('scene', '')
    maps = []
    for raw in reader.messages([topic]):
        where = f"'{path}': topic '{topic}'"
        local_map = msg.local_map_from_message(
            reader.deserialise(raw.data, topic), scene, where=where
        )
        try:
            pose = tree.lookup(msg.MAP_FRAME, msg.BASE_FRAME, local_map.stamp_ns)
            local_map = replace(local_map, map_from_base=pose)
        except TransformError:
            pass  # a recorded output need not come with poses; the map says so with None
        maps.append(local_map)
    return maps


def read_transforms(reader: BagReader) -> TransformTree:
    """Return all transforms of a recording; empty where it has none."""
    tree = TransformTree()
    for topic in ('/tf_static', '/tf'):
        if topic not in reader.topics:
            continue
        for raw in reader.messages([topic]):
            for item in reader.deserialise(raw.data, topic).transforms:
                try:
                    matrix = msg.transform_from_message(item.transform)
                except DataError as error:
                    # As tf2: one bad sample is reported and left out, the others are used.
                    _log.warning("'%s': %s: %s ignored: %s", reader.path, topic, item, error)
                    continue
                tree.add(
                    item.header.frame_id,
                    item.child_frame_id,
                    msg.time_to_ns(item.header.stamp),
                    matrix,
                    is_static=topic == '/tf_static',
                )
    return tree


def add_odometry(reader: BagReader, tree: TransformTree, base_frame: str) -> str:
    """Take poses from the one odometry topic of a recording whose TF does not have them.

    Args:
        reader: the recording.
        tree: gets the poses.
        base_frame: vehicle frame, which the odometry must be about.

    Returns:
        The topic; empty where the recording has no odometry of the vehicle.

    Raises:
        DataError: several topics hold odometry of the vehicle.
    """
    topics = [t.name for t in reader.topics.values() if t.type == msg.ODOMETRY and t.count]
    fitting = []
    for topic in topics:
        child = reader.message(topic, 0).child_frame_id.lstrip('/')
        if child == base_frame:
            fitting.append(topic)
        else:
            _log.warning(
                "'%s': %s is about '%s', not '%s'; it is not used",
                *(reader.path, topic, child, base_frame),
            )
    if len(fitting) > 1:
        raise DataError(
            f"'{reader.path}': {', '.join(sorted(fitting))} all hold odometry of '{base_frame}' "
            'and /tf has no pose of it; expected one: leave the others out of the recording'
        )
    if not fitting:
        return ''
    for raw in reader.messages(fitting):
        message = reader.deserialise(raw.data, raw.topic)
        place, turn = message.pose.pose.position, message.pose.pose.orientation
        pose = transform_from_quaternion(
            [place.x, place.y, place.z], [turn.x, turn.y, turn.z, turn.w]
        )
        stamp_ns = msg.time_to_ns(message.header.stamp)
        tree.add(message.header.frame_id, base_frame, stamp_ns, pose)
    _log.info("'%s': poses are those of %s", reader.path, fitting[0])
    return fitting[0]
