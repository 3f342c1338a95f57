"""An Argoverse 2 log as a drive and as a recording."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import shapely

from gsmap_core.data.argoverse2_log import RATES_HZ, Argoverse2Log, SampleSet
from gsmap_core.data.camera_files import decode_picture, read_file
from gsmap_core.data.drives import PoseSample, RecordedFrame, RecordedImage
from gsmap_core.data.groundtruth_argoverse2 import (
    Argoverse2TruthOptions,
    make_global_map,
    make_local_map,
)
from gsmap_core.errors import ConfigError, DataError, TransformError
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import (
    CameraRig,
    FloatArray,
    ImageArray,
    PerceptionRange,
    SurroundFrame,
    VectorMap,
)

_log = logging.getLogger(__name__)

LICENCE_NOTICE = (
    'Argoverse 2 data is published by Argo AI under CC BY-NC-SA 4.0 with its own terms of use; '
    'they apply to converted bags as well: non-commercial use only, do not publish them'
)


@dataclass(frozen=True)
class Argoverse2Options:
    """How a log is read.

    Args:
        rate_hz: camera sets per second, 2, 10 or 20; see `Argoverse2Log.sample_stamps_ns`.
        complete_only: leave out sets in which a camera that delivers in this log has no image, as
            the published sample lists do.
        lidar: also yield sweeps with the frames of the recording.
        truth: ground truth; None: none.

    Raises:
        ConfigError: the rate is another one.
    """

    rate_hz: int = 10
    complete_only: bool = True
    lidar: bool = False
    truth: Argoverse2TruthOptions | None = field(default_factory=Argoverse2TruthOptions)

    def __post_init__(self) -> None:
        """Validate the rate."""
        if self.rate_hz not in RATES_HZ:
            raise ConfigError(
                f'rate {self.rate_hz} Hz; Argoverse 2 is read at one of '
                f'{", ".join(str(rate) for rate in RATES_HZ)} Hz'
            )


@dataclass(frozen=True)
class LogProblem:
    """Something in the dataset that could not be used.

    Args:
        log: id of the log.
        reason: what is wrong, with the file.
        stamp_ns: moment of the set that it concerns, None: the log as a whole [ns].
    """

    log: str
    reason: str
    stamp_ns: int | None = None


class Argoverse2Drive:
    """One log as a `gsmap_core.data.drives.Drive` and `Recording`. Can be pickled.

    The `map` frame is the city frame less an offset in whole metres, so that tools with single
    precision stay exact; the offset is in the metadata. A log without images still has its poses
    and ground truth. What the log lacks is in `log.missing`, what was left out in `problems`.

    Args:
        log: files of the log, or its folder.
        options: how to read it.
        rig: calibration to use instead of the log's own.

    Raises:
        DataError: the log has no poses, or no set is left.
    """

    def __init__(
        self,
        log: Argoverse2Log | str | Path,
        options: Argoverse2Options | None = None,
        *,
        rig: CameraRig | None = None,
    ) -> None:
        self.log = log if isinstance(log, Argoverse2Log) else Argoverse2Log(log)
        self.options = options or Argoverse2Options()
        self.problems: list[LogProblem] = []
        self._given_rig = rig
        self._stamp_source = self.log.sample_stamps_ns(self.options.rate_hz)[1]
        self._sets = self._usable(self.log.sample_sets(self.options.rate_hz))
        if not self._sets:
            raise DataError(
                f"log '{self.log.name}': no set is left of {len(self.problems)}; the first: "
                f'{self.problems[0].reason if self.problems else "there are none"}'
            )
        first = self.log.pose_table[1][0]
        self.map_offset: FloatArray = np.append(np.round(first[:2, 3]), 0.0)

    @property
    def name(self) -> str:
        """Id of the log."""
        return self.log.name

    @property
    def location(self) -> str:
        """The city, three letters."""
        return self.log.city

    @property
    def city_poses(self) -> FloatArray:
        """(F, 4, 4) pose of every set in the frame of the city, for splits and traversals."""
        return np.stack([self.log.city_from_ego(item.stamp_ns) for item in self._sets])

    @property
    def has_calibration(self) -> bool:
        """Whether `rig` is there."""
        try:
            return bool(len(self.rig))
        except DataError:
            return False

    @property
    def rig(self) -> CameraRig:
        """Calibration of the ring cameras, the front camera first.

        Raises:
            DataError: the log has no calibration and none was given.
        """
        return self._given_rig or self.log.rig

    @cached_property
    def poses(self) -> list[PoseSample]:
        """Every recorded pose in the `map` frame, by time; there is one at every image."""
        stamps, poses = self.log.pose_table
        return [
            PoseSample(int(stamp), self._to_map(pose))
            for stamp, pose in zip(stamps, poses, strict=True)
        ]

    @cached_property
    def global_map(self) -> VectorMap | None:
        """The whole map of the log in the `map` frame; None without ground truth.

        Raises:
            DataError: the map is missing or broken.
        """
        if self.options.truth is None:
            return None
        city_map = self.log.city_map
        x_min, y_min, x_max, y_max = city_map.extent()
        x, y, _ = (float(value) for value in self.map_offset)
        area = PerceptionRange(x_min - x - 1, x_max - x + 1, y_min - y - 1, y_max - y + 1)
        return VectorMap(
            elements=make_global_map(city_map, self.map_offset, self.options.truth.variant),
            stamp_ns=self.stamp_ns(0),
            range=area,
            reference='map',
            scene=self.name,
        )

    @property
    def metadata(self) -> dict[str, str]:
        """Source, city frame and map offset, what the ground truth is, what is missing."""
        values = {
            'source': 'argoverse2 sensor',
            'log': self.log.name,
            'split': self.log.split,
            'city_frame': self.log.city,
            'map_offset': ' '.join(f'{value:g}' for value in self.map_offset),
            'map_origin': 'city frame less map_offset [m]; x east, y north',
            'rate_hz': str(self.options.rate_hz),
            'stamps_from': self._stamp_source,
            'missing': '; '.join(self.log.missing),
            'sets_left_out': str(len(self.problems)),
            'licence': LICENCE_NOTICE,
        }
        truth = self.options.truth
        if truth is not None:
            values['ground_truth'] = f'{truth.variant}, heights: {truth.heights}'
        return values

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return len(self._sets)

    def stamp_ns(self, index: int) -> int:
        """Return the reference stamp of a set [ns]."""
        return self._sets[index].stamp_ns

    def sample_id(self, index: int) -> str:
        """Return the id of a set as the published lists write it: log and stamp."""
        return f'{self.name}_{self.stamp_ns(index)}'

    def map_from_base(self, stamp_ns: int) -> FloatArray:
        """Return the (4, 4) ego pose at a moment.

        Raises:
            TransformError: the recorded poses do not cover it.
        """
        return self._to_map(self.log.city_from_ego(stamp_ns))

    def missing_images(self, index: int) -> tuple[str, ...]:
        """Return the cameras that have no image in a set."""
        stamps = self._sets[index].image_stamps_ns
        return tuple(
            name
            for name, stamp in zip(self.log.image_stamps_ns, stamps, strict=True)
            if stamp is None
        )

    def frame(self, index: int, max_width_px: int | None = None) -> SurroundFrame:
        """Decode one camera set; ego motion inside it is in the extrinsics. See `Drive.frame`.

        Raises:
            DataError: an image or the calibration is missing or broken, or an image has another
                size than its calibration; the message names the file.
        """
        chosen = self._sets[index]
        pose = self.map_from_base(chosen.stamp_ns)
        images: list[ImageArray | None] = []
        cameras, extrinsics = [], []
        for camera, stamp_ns in zip(self.rig.cameras, self._image_stamps(index), strict=True):
            image, fitted, extrinsic = None, camera, camera.base_from_camera
            if stamp_ns is not None:
                path = self.log.image_path(camera.name, stamp_ns)
                data, where = read_file(path, self._image_text), f"{self._image_text} '{path}'"
                image, fitted = decode_picture(camera, data, where, max_width_px)
                extrinsic = invert(pose) @ self.map_from_base(stamp_ns) @ extrinsic
            images.append(image)
            cameras.append(fitted)
            extrinsics.append(extrinsic)
        return SurroundFrame(
            stamp_ns=chosen.stamp_ns,
            rig=replace(self.rig, cameras=tuple(cameras)),
            images=tuple(images),
            camera_stamps_ns=self._image_stamps(index),
            map_from_base=pose,
            base_from_cameras=np.stack(extrinsics),
            sample_id=self.sample_id(index),
            scene=self.name,
        )

    def ground_truth(self, index: int) -> VectorMap | None:
        """Return the elements in the ego frame at the set's stamp; None if none are wanted.

        Raises:
            DataError: the map is missing or broken, lacks the heights that are wanted, or cannot
                be cut at this pose.
        """
        truth = self.options.truth
        if truth is None:
            return None
        stamp_ns = self.stamp_ns(index)
        pose = self.log.city_from_ego(stamp_ns)
        city_map = self.log.city_map
        if truth.heights == 'ground' and city_map.ground is None:
            raise DataError(
                f"log '{self.name}': no ground height raster '{self.log.folder}/map/"
                "*_ground_height_surface____*.npy'; expected it for heights 'ground': download it "
                "again, or take heights 'map'"
            )
        try:
            local = make_local_map(
                city_map,
                pose,
                truth,
                stamp_ns=stamp_ns,
                sample_id=self.sample_id(index),
                scene=self.name,
            )
        except shapely.errors.ShapelyError as error:
            raise DataError(
                f"log '{self.name}': the map cannot be cut at {stamp_ns} ns: {error}"
            ) from error
        return replace(local, map_from_base=self._to_map(pose))

    def lidar_points(self, index: int) -> np.ndarray | None:
        """Return the sweep nearest to a set, in the ego frame at the set's stamp.

        Returns:
            (P, 4) float32 x, y, z [m] and intensity (0 to 255); None where there is none near.

        Raises:
            DataError: the sweep is broken; the message names the file.
        """
        stamp_ns = self.stamp_ns(index)
        found = self.log.sweep_near(stamp_ns)
        if found is None:
            return None
        points = self.log.sweep(found)
        if found != stamp_ns:
            motion = invert(self.map_from_base(stamp_ns)) @ self.map_from_base(found)
            points[:, :3] = transform_points(motion, points[:, :3])
        return points

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the camera sets in time order, images byte for byte.

        A broken image, sweep or piece of ground truth is left out, logged and added to `problems`;
        the rest of its set is there.
        """
        for index, chosen in enumerate(self._sets):
            images = []
            for camera, stamp_ns in zip(self.rig.cameras, self._image_stamps(index), strict=True):
                if stamp_ns is None:
                    continue
                path = self.log.image_path(camera.name, stamp_ns)
                try:
                    data = _whole_jpeg(read_file(path, self._image_text), path, self.name)
                except DataError as error:
                    self._note(chosen.stamp_ns, str(error))
                    continue
                images.append(RecordedImage(camera.name, stamp_ns, data))
            truth, points = None, None
            try:
                truth = self.ground_truth(index)
            except DataError as error:
                self._note(chosen.stamp_ns, str(error))
            try:
                points = self.lidar_points(index) if self.options.lidar else None
            except DataError as error:
                self._note(chosen.stamp_ns, str(error))
            yield RecordedFrame(
                stamp_ns=chosen.stamp_ns,
                images=tuple(images),
                ground_truth=truth,
                lidar_points=points,
                sample_id=self.sample_id(index),
            )

    @property
    def _image_text(self) -> str:
        return f"log '{self.name}': image"

    def _usable(self, sets: list[SampleSet]) -> list[SampleSet]:
        """Return the sets that can be used; note why the others cannot."""
        delivers = [bool(len(stamps)) for stamps in self.log.image_stamps_ns.values()]
        names = list(self.log.image_stamps_ns)
        kept = []
        for item in sets:
            lacking = [
                name
                for name, is_there, stamp in zip(
                    names, delivers, item.image_stamps_ns, strict=True
                )
                if is_there and stamp is None
            ]
            if lacking and (self.options.complete_only or len(lacking) == sum(delivers)):
                self._note(item.stamp_ns, f'no image near it of {", ".join(lacking)}', quiet=True)
                continue
            try:
                for stamp in (item.stamp_ns, *item.image_stamps_ns):
                    if stamp is not None:
                        self.log.check_pose(stamp)
            except TransformError as error:
                self._note(item.stamp_ns, str(error), quiet=True)
                continue
            kept.append(item)
        if self.problems:
            _log.warning(
                "log '%s': %d of %d sets left out; the first: %s",
                self.log.name,
                len(self.problems),
                len(sets),
                self.problems[0].reason,
            )
        return kept

    def _image_stamps(self, index: int) -> tuple[int | None, ...]:
        """Return the stamps of a set's images in the order of the rig."""
        by_name = dict(
            zip(self.log.image_stamps_ns, self._sets[index].image_stamps_ns, strict=True)
        )
        return tuple(by_name.get(name) for name in self.rig.names)

    def _note(self, stamp_ns: int, reason: str, quiet: bool = False) -> None:
        self.problems.append(LogProblem(self.log.name, reason, stamp_ns))
        if not quiet:
            _log.warning('%s', reason)

    def _to_map(self, city_from_ego: FloatArray) -> FloatArray:
        moved = city_from_ego.copy()
        moved[:3, 3] -= self.map_offset
        return moved


def _whole_jpeg(data: bytes, path: Path, log: str) -> bytes:
    """Return the bytes of a JPEG if they begin and end as one."""
    if data[:2] != b'\xff\xd8' or data.rfind(b'\xff\xd9', len(data) // 2) < 0:
        raise DataError(
            f"log '{log}': image '{path}' is no whole JPEG ({len(data)} bytes); download it again"
        )
    return data
