"""Scenes of nuScenes in compact form: what a drive needs of the tables, ready to be pickled."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.data.camera_sets import build_camera_sets
from gsmap_core.errors import CalibrationError, DataError
from gsmap_core.geometry.transforms import transform_from_quaternion
from gsmap_core.structures import Camera, CameraRig, FloatArray, check_transform

#: Order of the cameras in rigs and in published models.
CAMERAS: tuple[str, ...] = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
LIDAR = 'LIDAR_TOP'
#: `keyframes`: the annotated samples, 2 Hz; `sweeps`: every image, 12 Hz.
RATES: tuple[str, ...] = ('keyframes', 'sweeps')
_SAME_CALIBRATION = 1e-6
_SET_TOLERANCE_NS = 100_000_000


@dataclass(frozen=True)
class FileRecord:
    """A file of a sensor.

    Args:
        stamp_ns: time of acquisition [ns].
        path: relative to the folder of the dataset.
    """

    stamp_ns: int
    path: str


@dataclass(frozen=True)
class SetRecord:
    """One camera set.

    Args:
        stamp_ns: its moment [ns]: that of the annotated sample, or of its first image.
        images: one per camera of the rig; None where the tables have none.
        lidar: the sweep of that moment, or the nearest one; None: no sweep within 0.1 s.
        sample_id: token of the annotated sample; empty in between.
    """

    stamp_ns: int
    images: tuple[FileRecord | None, ...]
    lidar: FileRecord | None
    sample_id: str = ''


@dataclass(frozen=True)
class SceneRecord:
    """One scene.

    Args:
        name: e.g. `scene-0061`.
        description: the dataset's words.
        log: name of the recording it was cut from.
        location: city, which names the map.
        rig: calibration.
        sets: camera sets by time.
        pose_stamps_ns: (P,) stamps of the poses, ascending [ns].
        poses: (P, 4, 4) vehicle to city.
        problems: frames that were left out, with the reason.
    """

    name: str
    description: str
    log: str
    location: str
    rig: CameraRig
    sets: tuple[SetRecord, ...]
    pose_stamps_ns: np.ndarray
    poses: FloatArray
    problems: tuple[str, ...] = ()


def read_scenes(
    tables: Any, rate: str, names: Collection[str] | None
) -> tuple[list[SceneRecord], list[str]]:
    """Return the scenes in the order of the tables, and those that cannot be used with reasons.

    Args:
        tables: the devkit's `NuScenes`.
        rate: one of `RATES`.
        names: scenes wanted; None: all.
    """
    wanted = [scene for scene in tables.scene if names is None or scene['name'] in names]
    records = _records_by_scene(tables, {scene['token'] for scene in wanted})
    scenes, problems = [], []
    for scene in wanted:
        try:
            scenes.append(_read_scene(tables, scene, records[scene['token']], rate))
        except (DataError, CalibrationError, KeyError) as error:
            reason = f'no record {error}' if isinstance(error, KeyError) else str(error)
            problems.append(f'{scene["name"]}: {reason}')
    return scenes, problems


def _records_by_scene(tables: Any, scenes: set[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the `sample_data` of every scene by channel, in one pass over the largest table."""
    scene_of = {sample['token']: sample['scene_token'] for sample in tables.sample}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        scene: {channel: [] for channel in (*CAMERAS, LIDAR)} for scene in scenes
    }
    for record in tables.sample_data:
        scene = scene_of.get(record['sample_token'])
        if scene in found and record['channel'] in found[scene]:
            found[scene][record['channel']].append(record)
    for channels in found.values():
        for records in channels.values():
            records.sort(key=lambda record: record['timestamp'])
    return found


def _read_scene(
    tables: Any, scene: Mapping[str, Any], records: dict[str, list[dict[str, Any]]], rate: str
) -> SceneRecord:
    log = tables.get('log', scene['log_token'])
    rig = _read_rig(tables, records, str(log['vehicle']) or str(log['logfile']).split('-')[0])
    problems: list[str] = []
    key_sets = _annotated_sets(tables, scene, records, problems)
    sets = key_sets if rate == 'keyframes' else _all_sets(records, key_sets)
    if not sets:
        raise DataError(
            f'none of its {scene["nbr_samples"]} samples can be used: {"; ".join(problems[:3])}'
        )
    used = [
        record
        for channel, items in records.items()
        for record in items
        if rate == 'sweeps' or record['is_key_frame'] or channel == LIDAR
    ]
    stamps, poses = _read_poses(tables, used)
    return SceneRecord(
        name=scene['name'],
        description=scene['description'],
        log=str(log['logfile']),
        location=str(log['location']),
        rig=rig,
        sets=tuple(sets),
        pose_stamps_ns=stamps,
        poses=poses,
        problems=tuple(problems),
    )


def _annotated_sets(
    tables: Any,
    scene: Mapping[str, Any],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    problems: list[str],
) -> list[SetRecord]:
    by_sample: dict[str, dict[str, FileRecord]] = {}
    for channel, items in records.items():
        for item in items:
            if item['is_key_frame']:
                by_sample.setdefault(item['sample_token'], {})[channel] = _file(item)
    sets = []
    token = scene['first_sample_token']
    while token:
        sample = tables.get('sample', token)
        files = by_sample.get(token, {})
        if LIDAR in files:
            images = tuple(files.get(camera) for camera in CAMERAS)
            # Samples carry the stamp of their LiDAR sweep, which has the pose of that moment.
            sets.append(SetRecord(files[LIDAR].stamp_ns, images, files[LIDAR], token))
        else:
            problems.append(
                f"sample '{token}' at {sample['timestamp']} us: no {LIDAR} record, so no ego pose"
            )
        token = sample['next']
    return sorted(sets, key=lambda item: item.stamp_ns)


def _all_sets(
    records: Mapping[str, Sequence[Mapping[str, Any]]], key_sets: Iterable[SetRecord]
) -> list[SetRecord]:
    """Group every image; annotated samples stay as they are."""
    sets = list(key_sets)
    taken = {image.path for item in sets for image in item.images if image is not None}
    files = [
        [_file(record) for record in records[camera] if record['filename'] not in taken]
        for camera in CAMERAS
    ]
    sweeps = [_file(record) for record in records[LIDAR]]
    stamps = [np.array([file.stamp_ns for file in items], dtype=np.int64) for items in files]
    for group in build_camera_sets(stamps, _SET_TOLERANCE_NS):
        images = tuple(
            None if index is None else items[index]
            for items, index in zip(files, group.indices, strict=True)
        )
        near = min(sweeps, key=lambda s: abs(s.stamp_ns - group.stamp_ns), default=None)
        if near is not None and abs(near.stamp_ns - group.stamp_ns) > _SET_TOLERANCE_NS:
            near = None
        sets.append(SetRecord(group.stamp_ns, images, near))
    return sorted(sets, key=lambda item: item.stamp_ns)


def _read_rig(
    tables: Any, records: Mapping[str, Sequence[Mapping[str, Any]]], vehicle: str
) -> CameraRig:
    cameras = []
    for channel in CAMERAS:
        if not records[channel]:
            continue
        first = records[channel][0]
        values = _calibration(tables, channel, records[channel])
        name = channel.lower()
        cameras.append(
            Camera(
                name=name,
                frame_id=f'{name}_optical_frame',
                width_px=int(first['width']),
                height_px=int(first['height']),
                intrinsics=np.array(values['camera_intrinsic'], dtype=np.float64),
                base_from_camera=_pose(values),
            )
        )
    if len(cameras) != len(CAMERAS):
        there = [camera.name.upper() for camera in cameras]
        raise CalibrationError(
            f'the tables have images of {", ".join(there) or "no camera"}; expected '
            f'{", ".join(CAMERAS)}'
        )
    base_from_lidar = None
    if records[LIDAR]:
        base_from_lidar = _pose(_calibration(tables, LIDAR, records[LIDAR]))
    return CameraRig(f'nuscenes-{vehicle}', tuple(cameras), base_from_lidar)


def _calibration(
    tables: Any, channel: str, records: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    tokens = list(dict.fromkeys(record['calibrated_sensor_token'] for record in records))
    values = [tables.get('calibrated_sensor', token) for token in tokens]
    keys = ('translation', 'rotation', 'camera_intrinsic')
    for other in values[1:]:
        if any(not np.allclose(values[0][k], other[k], atol=_SAME_CALIBRATION) for k in keys):
            raise CalibrationError(
                f"{channel}: calibrations '{tokens[0]}' and '{other['token']}' differ; expected "
                'one calibration per scene'
            )
    return dict(values[0])


def _read_poses(
    tables: Any, records: Iterable[Mapping[str, Any]]
) -> tuple[np.ndarray, FloatArray]:
    """Return stamps and poses; of several poses of one moment the last read."""
    found = {
        int(record['timestamp']) * 1000: tables.get('ego_pose', record['ego_pose_token'])
        for record in records
    }
    stamps = np.array(sorted(found), dtype=np.int64)
    return stamps, np.stack([_pose(found[int(stamp)]) for stamp in stamps])


def _pose(values: Mapping[str, Any]) -> FloatArray:
    try:
        w, x, y, z = values['rotation']
        pose = transform_from_quaternion(values['translation'], [x, y, z, w])
        return check_transform('pose', pose)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"record '{values.get('token')}': no pose ({error}); expected translation x, y, z [m] "
            'and rotation w, x, y, z'
        ) from error


def _file(record: Mapping[str, Any]) -> FileRecord:
    return FileRecord(int(record['timestamp']) * 1000, str(record['filename']))


def check_scene_names(tables: Any, names: Collection[str], root: Path) -> None:
    """Check that scenes exist.

    Raises:
        DataError: some do not.
    """
    known = {scene['name'] for scene in tables.scene}
    unknown = sorted(set(names) - known)
    if unknown:
        some = sorted(known)
        shown = ', '.join(some[:6]) + (f' and {len(some) - 6} more' if len(some) > 6 else '')
        raise DataError(f"no scene {', '.join(unknown)} in '{root}'; it has {shown}")
