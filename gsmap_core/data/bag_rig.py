"""Which cameras of a recording are read, in which order, and their calibration."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from gsmap_core.data import messages as msg
from gsmap_core.data.bag_cameras import (
    CameraTopics,
    PictureReader,
    camera_from_info,
    find_camera_topics,
)
from gsmap_core.data.bag_reader import BagReader
from gsmap_core.data.tf_tree import TransformTree
from gsmap_core.errors import CalibrationError, DataError, GsmapError, TransformError
from gsmap_core.structures import Camera, CameraRig, FloatArray

_log = logging.getLogger(__name__)


def pick_cameras(reader: BagReader, rig: CameraRig | None) -> dict[str, CameraTopics]:
    """Return the cameras to read: those of the rig, else all, in the order the recording states.

    Raises:
        DataError: there is none.
    """
    found = find_camera_topics(reader.topics.values())
    if not found:
        raise DataError(
            f"'{reader.path}' has no camera images; expected topics like "
            f'/cam_front/image_rect/compressed, it has {", ".join(sorted(reader.topics))}'
        )
    if rig is not None:
        missing = [name for name in rig.names if name not in found]
        if len(missing) == len(rig):
            raise DataError(
                f"'{reader.path}' has none of the cameras of rig '{rig.name}' "
                f'({", ".join(rig.names)}); it has {", ".join(found)}'
            )
        if missing:
            _log.warning("'%s': no images of %s", reader.path, ', '.join(missing))
        return {name: found[name] for name in rig.names if name in found}
    stated = [n for n in reader.metadata.get('cameras', '').split(',') if n in found]
    others = sorted((n for n in found if n not in stated), key=_front_first)
    return {name: found[name] for name in (*stated, *others)}


def read_rig(
    reader: BagReader,
    cameras: dict[str, CameraTopics],
    tree: TransformTree,
    base_frame: str,
    rig: CameraRig | None,
    name: str,
) -> tuple[CameraRig, dict[str, PictureReader]]:
    """Return the calibration of rectified images, and what reads the images of every camera.

    Args:
        reader: the recording.
        cameras: the cameras to read.
        tree: its transforms.
        base_frame: vehicle frame.
        rig: calibration to use instead of CameraInfo and `/tf_static`.
        name: of the rig where the recording names none.

    Raises:
        CalibrationError: CameraInfo is missing, uncalibrated or not supported, or the extrinsics
            are missing.
    """
    rectified: dict[str, Camera] = {}
    pictures: dict[str, PictureReader] = {}
    for camera, topics in cameras.items():
        if rig is None:
            raw, plain = _calibration(reader, topics, tree, base_frame)
        else:
            plain = replace(rig.camera(camera), distortion_model='none', distortion=())
            raw = plain if topics.is_rectified else rig.camera(camera)
            if raw.distortion_model == 'none':
                raw = plain
        rectified[camera] = plain
        pictures[camera] = PictureReader(topics, raw, plain)
    if rig is not None:
        return replace(rig, cameras=tuple(rectified.get(c.name, c) for c in rig.cameras)), pictures
    lidar = _base_from_lidar(tree, base_frame)
    return CameraRig(
        reader.metadata.get('rig') or name, tuple(rectified.values()), lidar
    ), pictures


def _base_from_lidar(tree: TransformTree, base_frame: str) -> FloatArray | None:
    """Return the LiDAR frame of the nuScenes protocols in the vehicle frame, where recorded."""
    if not tree.is_connected(base_frame, msg.NUSCENES_LIDAR_FRAME):
        return None
    # It does not move; any stamp will do where the chain is static.
    return tree.lookup(base_frame, msg.NUSCENES_LIDAR_FRAME, 0)


def _calibration(
    reader: BagReader, topics: CameraTopics, tree: TransformTree, base_frame: str
) -> tuple[Camera, Camera]:
    """Return a camera as its images are, and as they are once rectified."""
    info_topic = reader.topics.get(topics.info)
    if info_topic is None or not info_topic.count:
        raise CalibrationError(
            f"'{reader.path}': camera '{topics.name}' has images but no '{topics.info}'; record "
            'its CameraInfo or give a rig file'
        )
    info = reader.message(topics.info, 0)
    last = reader.message(topics.info, info_topic.count - 1)
    if not all(np.array_equal(getattr(info, f), getattr(last, f)) for f in ('k', 'd', 'p')):
        _log.warning(
            "'%s': topic '%s' changes during the drive; its first calibration is used",
            reader.path,
            topics.info,
        )
    frame_id = info.header.frame_id.lstrip('/')
    try:
        # Extrinsics do not move; any stamp will do where the chain is static.
        extrinsics = tree.lookup(base_frame, frame_id, msg.time_to_ns(info.header.stamp))
    except TransformError as error:
        raise CalibrationError(
            f"'{reader.path}': camera '{topics.name}': no extrinsics "
            f"'{base_frame}' <- '{frame_id}' ({error}); "
            'record /tf_static or give a rig file'
        ) from error
    try:
        return camera_from_info(info, topics, extrinsics)
    except GsmapError as error:
        raise CalibrationError(f"'{reader.path}': {error}") from error


def _front_first(name: str) -> tuple[bool, str]:
    is_front = 'front' in name and 'left' not in name and 'right' not in name
    return not is_front, name
