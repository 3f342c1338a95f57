"""nuScenes as drives: training and evaluation read them, `data.bag` writes them as bags.

The tables and maps are read by nuscenes-devkit; ground truth is made from the map as
`groundtruth_variants` says. Missing image files are listed, not fatal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gsmap_core.data.camera_files import decode_picture, read_file
from gsmap_core.data.drives import PoseSample, RecordedFrame, RecordedImage
from gsmap_core.data.groundtruth_patch import Patch
from gsmap_core.data.groundtruth_variants import (
    GroundTruthOptions,
    build_elements,
    build_local_map,
)
from gsmap_core.data.keyframe_json import LICENCE_NOTICE
from gsmap_core.data.nuscenes_devkit import find_version, open_tables, split_scenes
from gsmap_core.data.nuscenes_map import load_layers
from gsmap_core.data.nuscenes_tables import (
    RATES,
    FileRecord,
    SceneRecord,
    SetRecord,
    check_scene_names,
    read_scenes,
)
from gsmap_core.data.splits import Split
from gsmap_core.errors import ConfigError, DataError, TransformError
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import (
    Camera,
    CameraRig,
    FloatArray,
    ImageArray,
    PerceptionRange,
    SurroundFrame,
    VectorMap,
)

_LIDAR_COLUMNS = 5  # x, y, z, intensity, ring
#: Training scenes that StreamMapNet and MapTracker leave out.
STREAMMAPNET_LEFT_OUT: tuple[str, ...] = ('scene-0499', 'scene-0502', 'scene-0515', 'scene-0517')
#: The whole map of a drive reaches this far beyond its poses [m].
_MAP_MARGIN_M = 60.0


class NuScenesDataset:
    """The scenes of one version, in the order of its tables.

    Args:
        root: folder with maps/, samples/ and v1.0-*/.
        version: e.g. `v1.0-trainval`; None: the only one there.
        rate: `keyframes` (annotated samples, 2 Hz) or `sweeps` (every image, 12 Hz).
        ground_truth: what to make of the map; None: no ground truth, no map needed.
        scenes: names of the scenes wanted; None: all.

    Raises:
        ConfigError: the rate is unknown.
        DataError: folder, version, tables, or a scene asked for are missing or broken.
        EnvironmentProblemError: nuscenes-devkit is not installed.
    """

    def __init__(
        self,
        root: str | Path,
        version: str | None = None,
        *,
        rate: str = 'keyframes',
        ground_truth: GroundTruthOptions | None = None,
        scenes: Sequence[str] | None = None,
    ) -> None:
        if rate not in RATES:
            raise ConfigError(f"rate '{rate}': unknown; expected one of {', '.join(RATES)}")
        self.root = Path(root).resolve()
        self.version = find_version(self.root, version)
        self.ground_truth = ground_truth
        tables = open_tables(self.root, self.version)
        if scenes is not None:
            check_scene_names(tables, scenes, self.root / self.version)
        self._scenes, found = read_scenes(tables, rate, scenes)
        #: Scenes that cannot be used, with the reason.
        self.problems: tuple[str, ...] = tuple(found)
        if not self._scenes:
            raise DataError(
                f"no scene of '{self.root / self.version}' can be used: "
                f'{"; ".join(found[:3]) or "the table scene.json is empty"}'
            )

    def __len__(self) -> int:
        """Return the number of drives."""
        return len(self._scenes)

    def __iter__(self) -> Iterator[NuScenesDrive]:
        """Yield the drives in the order of the tables."""
        for scene in self._scenes:
            yield NuScenesDrive(self.root, self.version, scene, self.ground_truth)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the drives."""
        return tuple(scene.name for scene in self._scenes)

    def original_split(self) -> Split:
        """Return the official lists, restricted to the scenes that are there.

        Versions whose name begins with `v1.0-mini` have lists of their own.
        """
        lists = split_scenes()
        prefix = 'mini_' if self.version.startswith('v1.0-mini') else ''
        test = () if prefix else lists['test']
        whole = Split('original', lists[f'{prefix}train'], lists[f'{prefix}val'], test)
        return whole.restricted(self.names)[0]

    def drive(self, name: str) -> NuScenesDrive:
        """Return one drive.

        Raises:
            DataError: there is none of that name.
        """
        for drive in self:
            if drive.name == name:
                return drive
        raise DataError(f"no scene '{name}' in '{self.root}'; it has {', '.join(self.names)}")


class NuScenesDrive:
    """One scene as `gsmap_core.data.drives.Drive` and as `Recording`; small when pickled.

    The `map` frame is the frame of the city less `map_offset`, whole metres, so that tools with
    single precision stay exact.

    Args:
        root: folder of the dataset.
        version: version of the tables.
        scene: what the tables say.
        ground_truth: what to make of the map; None: no ground truth.
    """

    def __init__(
        self,
        root: Path,
        version: str,
        scene: SceneRecord,
        ground_truth: GroundTruthOptions | None = None,
    ) -> None:
        self._root, self._version, self._scene = root, version, scene
        self._options = ground_truth
        first = self._city_pose(scene.sets[0].stamp_ns)
        self.map_offset: FloatArray = np.append(np.round(first[:2, 3]), 0.0)

    @property
    def name(self) -> str:
        """Name of the scene."""
        return self._scene.name

    @property
    def location(self) -> str:
        """The city."""
        return self._scene.location

    @property
    def rig(self) -> CameraRig:
        """Calibration, the cameras in the order of published models."""
        return self._scene.rig

    @property
    def problems(self) -> tuple[str, ...]:
        """Samples that were left out, with the reason."""
        return self._scene.problems

    @property
    def map_problems(self) -> tuple[str, ...]:
        """Records of the city's map that cannot be used, with the reason."""
        return load_layers(self._root, self.location).problems

    @property
    def poses(self) -> list[PoseSample]:
        """Every pose in the `map` frame, by time."""
        return [
            PoseSample(int(stamp), self._without_offset(pose))
            for stamp, pose in zip(self._scene.pose_stamps_ns, self._scene.poses, strict=True)
        ]

    @property
    def city_poses(self) -> FloatArray:
        """(F, 4, 4) pose of every set in the frame of the city, for splits and traversals."""
        return np.stack([self._city_pose(item.stamp_ns) for item in self._scene.sets])

    @property
    def metadata(self) -> dict[str, str]:
        """Source, city frame, map offset and what the ground truth is."""
        values = {
            'source': f'nuScenes {self._version}',
            'log': self._scene.log,
            'description': self._scene.description,
            'city_frame': self._scene.location,
            'map_offset': ' '.join(f'{value:g}' for value in self.map_offset),
            'map_origin': 'city frame less map_offset [m]; x east, y north',
            'licence': LICENCE_NOTICE,
        }
        if self._options is not None:
            values['ground_truth'] = f'variant {self._options.variant}, from the map expansion'
        return values

    @property
    def global_map(self) -> VectorMap | None:
        """The map around the whole drive in the `map` frame; None without ground truth."""
        if self._options is None:
            return None
        places = self._scene.poses[:, :2, 3] - self.map_offset[:2]
        low, high = places.min(axis=0) - _MAP_MARGIN_M, places.max(axis=0) + _MAP_MARGIN_M
        area = PerceptionRange(low[0], high[0], low[1], high[1])
        patch = Patch((float(self.map_offset[0]), float(self.map_offset[1])), 0.0, area)
        layers = load_layers(self._root, self.location)
        return VectorMap(
            elements=tuple(build_elements(layers, patch, self._options)),
            stamp_ns=self.stamp_ns(0),
            range=area,
            reference='map',
            scene=self.name,
        )

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return len(self._scene.sets)

    def stamp_ns(self, index: int) -> int:
        """Return the moment of a set [ns]: of the annotated sample, else of its first image."""
        return self._scene.sets[index].stamp_ns

    def sample_id(self, index: int) -> str:
        """Return the token of the annotated sample; empty for sets in between."""
        return self._scene.sets[index].sample_id

    def map_from_base(self, stamp_ns: int) -> FloatArray:
        """Return the (4, 4) ego pose in the `map` frame at a stamp of the tables.

        Raises:
            TransformError: the tables have no pose of that moment.
        """
        return self._without_offset(self._city_pose(stamp_ns))

    def missing_images(self, index: int) -> tuple[str, ...]:
        """Return what a set lacks: `camera: file`, or `camera: not in the tables`."""
        missing = []
        for camera, image in zip(self.rig.cameras, self._scene.sets[index].images, strict=True):
            if image is None:
                missing.append(f'{camera.name}: not in the tables')
            elif not (self._root / image.path).is_file():
                missing.append(f'{camera.name}: {image.path}')
        return tuple(missing)

    def frame(self, index: int, max_width_px: int | None = None) -> SurroundFrame:
        """Decode one camera set; ego motion inside it is in the extrinsics. See `Drive.frame`.

        Cameras whose file is missing have no image (`missing_images` lists them).

        Raises:
            DataError: an image is corrupt or of another size than its calibration.
        """
        chosen = self._scene.sets[index]
        map_from_base = self.map_from_base(chosen.stamp_ns)
        images: list[ImageArray | None] = []
        cameras: list[Camera] = []
        stamps: list[int | None] = []
        extrinsics: list[FloatArray] = []
        for camera, image in self._files(chosen):
            if image is None:
                images.append(None)
                cameras.append(camera)
                stamps.append(None)
                extrinsics.append(camera.base_from_camera)
                continue
            path = self._root / image.path
            where = f"{self.name}, sample '{chosen.sample_id}': image '{path}'"
            picture, fitted = decode_picture(camera, read_file(path, 'image'), where, max_width_px)
            images.append(picture)
            cameras.append(fitted)
            stamps.append(image.stamp_ns)
            motion = invert(map_from_base) @ self.map_from_base(image.stamp_ns)
            extrinsics.append(motion @ camera.base_from_camera)
        return SurroundFrame(
            stamp_ns=chosen.stamp_ns,
            rig=replace(self.rig, cameras=tuple(cameras)),
            images=tuple(images),
            camera_stamps_ns=tuple(stamps),
            map_from_base=map_from_base,
            base_from_cameras=np.stack(extrinsics),
            sample_id=chosen.sample_id,
            scene=self.name,
        )

    def ground_truth(self, index: int) -> VectorMap | None:
        """Return the elements at a set's moment, in the frame that was asked for, or None.

        Raises:
            DataError: the map expansion is missing or broken.
        """
        if self._options is None:
            return None
        chosen = self._scene.sets[index]
        local_map = build_local_map(
            load_layers(self._root, self.location),
            self._city_pose(chosen.stamp_ns),
            self._options,
            base_from_lidar=self.rig.base_from_lidar,
            stamp_ns=chosen.stamp_ns,
            sample_id=chosen.sample_id,
            scene=self.name,
        )
        return replace(local_map, map_from_base=self.map_from_base(chosen.stamp_ns))

    def lidar_points(self, index: int) -> np.ndarray | None:
        """Return the sweep nearest to a set, in the ego frame at the set's moment.

        Returns:
            (P, 4) float32 x, y, z [m] and intensity; None where the file is missing.

        Raises:
            DataError: the file is not a sweep.
        """
        chosen = self._scene.sets[index]
        if chosen.lidar is None or self.rig.base_from_lidar is None:
            return None
        path = self._root / chosen.lidar.path
        if not path.is_file():
            return None
        raw = np.frombuffer(read_file(path, 'lidar sweep'), dtype=np.uint8)
        if len(raw) % (4 * _LIDAR_COLUMNS):
            raise DataError(
                f"lidar sweep '{path}' has {len(raw)} bytes; expected a multiple of "
                f'{4 * _LIDAR_COLUMNS} (x, y, z, intensity, ring as float32)'
            )
        points = raw.view('<f4').reshape(-1, _LIDAR_COLUMNS)[:, :4].astype(np.float32)
        motion = invert(self._city_pose(chosen.stamp_ns)) @ self._city_pose(chosen.lidar.stamp_ns)
        points[:, :3] = transform_points(motion @ self.rig.base_from_lidar, points[:, :3])
        return points

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the camera sets by time, with the files that are there.

        Raises:
            DataError: a file cannot be read.
        """
        for index, chosen in enumerate(self._scene.sets):
            images = [
                RecordedImage(
                    camera.name, image.stamp_ns, read_file(self._root / image.path, 'image')
                )
                for camera, image in self._files(chosen)
                if image is not None
            ]
            yield RecordedFrame(
                stamp_ns=chosen.stamp_ns,
                images=tuple(images),
                ground_truth=self.ground_truth(index),
                lidar_points=self.lidar_points(index),
                sample_id=chosen.sample_id,
            )

    def _files(self, chosen: SetRecord) -> Iterator[tuple[Camera, FileRecord | None]]:
        """Yield every camera with its file, None where it is not on disk."""
        for camera, image in zip(self.rig.cameras, chosen.images, strict=True):
            is_there = image is not None and (self._root / image.path).is_file()
            yield camera, image if is_there else None

    def _city_pose(self, stamp_ns: int) -> FloatArray:
        stamps = self._scene.pose_stamps_ns
        place = int(np.searchsorted(stamps, stamp_ns))
        if place == len(stamps) or stamps[place] != stamp_ns:
            raise TransformError(
                f"drive '{self.name}': the tables have no ego pose at {stamp_ns} ns; expected a "
                'stamp of one of its images or sweeps'
            )
        return self._scene.poses[place]

    def _without_offset(self, city_from_base: FloatArray) -> FloatArray:
        pose = city_from_base.copy()
        pose[:3, 3] -= self.map_offset
        return pose
