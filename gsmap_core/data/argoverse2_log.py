"""One Argoverse 2 log on disk: which files it has, its poses, and which images belong together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gsmap_core.data import argoverse2_devkit as devkit
from gsmap_core.data.argoverse2_devkit import RING_CAMERAS
from gsmap_core.data.argoverse2_map import CityMap
from gsmap_core.errors import ConfigError, DataError, TransformError
from gsmap_core.geometry.transforms import interpolate_transform
from gsmap_core.structures import CameraRig, FloatArray

StampArray = npt.NDArray[np.int64]

#: Camera sets per second: every fifth sweep, every sweep, or every image of the front camera.
RATES_HZ: tuple[int, ...] = (2, 10, 20)
#: An image belongs to a set within half the time between two images of a camera.
SYNC_TOLERANCE_NS = 25_000_000
#: A sweep belongs to a moment within half the time between two sweeps, and 1 ms.
SWEEP_TOLERANCE_NS = 51_000_000
#: Poses are not interpolated over longer gaps [ns].
_MAX_POSE_GAP_NS = 200_000_000
_SWEEPS_PER_2_HZ = 5


@dataclass(frozen=True)
class SampleSet:
    """The images of one moment.

    Args:
        stamp_ns: reference stamp [ns].
        image_stamps_ns: one per camera of the rig, None where it has no image near that moment.
    """

    stamp_ns: int
    image_stamps_ns: tuple[int | None, ...]

    @property
    def num_images(self) -> int:
        """Images in the set."""
        return sum(stamp is not None for stamp in self.image_stamps_ns)


class Argoverse2Log:
    """The files of one log; each is read when it is first asked for.

    Args:
        folder: `SPLIT/LOG` of the sensor dataset.

    Raises:
        DataError: the folder does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"log '{self.folder}' does not exist; give a folder SPLIT/LOG")

    def __getstate__(self) -> dict[str, Path]:
        """Return what a worker process needs: it reads the files itself."""
        return {'folder': self.folder}

    @property
    def name(self) -> str:
        """Id of the log."""
        return self.folder.name

    @property
    def split(self) -> str:
        """Name of the folder that holds the log: `train`, `val` or `test` in the dataset."""
        return self.folder.absolute().parent.name

    @property
    def city(self) -> str:
        """Three letters of the city, from the name of the map file; empty without one."""
        found = sorted((self.folder / 'map').glob('log_map_archive_*____*.json'))
        return found[0].stem.split('____')[-1].split('_')[0] if found else ''

    @cached_property
    def city_map(self) -> CityMap:
        """The vector map.

        Raises:
            DataError: it is missing or broken.
        """
        return devkit.read_map(self.folder)

    @cached_property
    def rig(self) -> CameraRig:
        """Calibration of the ring cameras.

        Raises:
            DataError: it is missing or broken.
        """
        return devkit.read_rig(self.folder)

    @cached_property
    def pose_table(self) -> tuple[StampArray, FloatArray]:
        """Stamps (P,) [ns], increasing, and (P, 4, 4) `city_from_ego`.

        Raises:
            DataError: the file is missing or broken.
        """
        return devkit.read_poses(self.folder)

    @cached_property
    def image_stamps_ns(self) -> dict[str, StampArray]:
        """Stamps of the images of each ring camera, increasing [ns]; empty where there is none."""
        return {name: self._stamps(f'sensors/cameras/{name}', '.jpg') for name in RING_CAMERAS}

    @cached_property
    def sweep_stamps_ns(self) -> StampArray:
        """Stamps of the LiDAR sweeps, increasing [ns]."""
        return self._stamps('sensors/lidar', '.feather')

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """What the log lacks, in words: files that the dataset has and this copy has not."""
        found = []
        cameras = [name for name, stamps in self.image_stamps_ns.items() if not len(stamps)]
        if len(cameras) == len(RING_CAMERAS):
            found.append('images (sensors/cameras)')
        else:
            found += [f'images of {name}' for name in cameras]
        for name in ('egovehicle_SE3_sensor.feather', 'intrinsics.feather'):
            if not (self.folder / 'calibration' / name).is_file():
                found.append(f'calibration/{name}')
        if not len(self.sweep_stamps_ns):
            found.append('LiDAR sweeps (sensors/lidar)')
        for pattern in ('map/log_map_archive_*.json', 'map/*_ground_height_surface____*.npy'):
            if not list(self.folder.glob(pattern)):
                found.append(pattern)
        if not (self.folder / devkit.POSES_NAME).is_file():
            found.append(devkit.POSES_NAME)
        return tuple(found)

    @property
    def has_images(self) -> bool:
        """Whether any ring camera has an image."""
        return any(len(stamps) for stamps in self.image_stamps_ns.values())

    def image_path(self, camera: str, stamp_ns: int) -> Path:
        """Return the file of an image."""
        return self.folder / 'sensors' / 'cameras' / camera / f'{stamp_ns}.jpg'

    def sweep(self, stamp_ns: int) -> np.ndarray:
        """Read the sweep of a stamp; see `argoverse2_devkit.read_sweep`."""
        path = self.folder / 'sensors' / 'lidar' / f'{stamp_ns}.feather'
        return devkit.read_sweep(path, self.folder)

    def sweep_near(self, stamp_ns: int) -> int | None:
        """Return the stamp of the sweep nearest to a moment [ns]; None: none is near."""
        if not len(self.sweep_stamps_ns):
            return None
        index, distance = nearest(self.sweep_stamps_ns, np.array([stamp_ns], dtype=np.int64))
        if distance[0] > SWEEP_TOLERANCE_NS:
            return None
        return int(self.sweep_stamps_ns[index[0]])

    def city_from_ego(self, stamp_ns: int) -> FloatArray:
        """Return the (4, 4) pose at a moment, interpolated between recorded ones.

        Raises:
            TransformError: the recorded poses do not cover it.
            DataError: the file of poses is missing or broken.
        """
        after = self.check_pose(stamp_ns)
        stamps, poses = self.pose_table
        if stamps[after] == stamp_ns:
            return poses[after]
        gap = int(stamps[after] - stamps[after - 1])
        fraction = int(stamp_ns - stamps[after - 1]) / gap
        return interpolate_transform(poses[after - 1], poses[after], fraction)

    def check_pose(self, stamp_ns: int) -> int:
        """Check that the recorded poses cover a moment, and return the first that is not before.

        Raises:
            TransformError: they do not.
            DataError: the file of poses is missing or broken.
        """
        stamps, _ = self.pose_table
        after = int(np.searchsorted(stamps, stamp_ns))
        if after < len(stamps) and stamps[after] == stamp_ns:
            return after
        if after in (0, len(stamps)):
            raise TransformError(
                f"log '{self.name}': no pose at {stamp_ns} ns; {devkit.POSES_NAME} covers "
                f'{stamps[0]} to {stamps[-1]} ns'
            )
        gap = int(stamps[after] - stamps[after - 1])
        if gap > _MAX_POSE_GAP_NS:
            raise TransformError(
                f"log '{self.name}': the poses around {stamp_ns} ns are {gap / 1e6:.0f} ms apart; "
                f'expected at most {_MAX_POSE_GAP_NS // 1_000_000} ms'
            )
        return after

    def sample_stamps_ns(self, rate_hz: int) -> tuple[StampArray, str]:
        """Return the reference stamps at a rate.

        10 Hz: the LiDAR's stamps, from the sweeps and the annotations that are there; 2 Hz: every
        fifth of them; 20 Hz: those of the front camera's images. Where the log has neither, the
        stamps of recorded poses nearest to an even raster.

        Args:
            rate_hz: one of `RATES_HZ`.

        Returns:
            Increasing stamps [ns] and where they come from.

        Raises:
            ConfigError: the rate is another one.
            DataError: a file that is needed is broken or missing.
        """
        if rate_hz not in RATES_HZ:
            raise ConfigError(
                f'rate {rate_hz} Hz; Argoverse 2 is read at one of '
                f'{", ".join(str(rate) for rate in RATES_HZ)} Hz'
            )
        if rate_hz == max(RATES_HZ):
            images = self.image_stamps_ns[RING_CAMERAS[0]]
            if len(images):
                return images, f'images of {RING_CAMERAS[0]}'
            return self._pose_raster(rate_hz), 'poses'
        annotated = devkit.read_annotation_stamps(self.folder)
        stamps = np.union1d(self.sweep_stamps_ns, annotated).astype(np.int64)
        sources = (('LiDAR sweeps', self.sweep_stamps_ns), ('annotations', annotated))
        source = ' and '.join(name for name, found in sources if len(found))
        if not len(stamps):
            stamps, source = self._pose_raster(10), 'poses'
        return (stamps[::_SWEEPS_PER_2_HZ] if rate_hz == min(RATES_HZ) else stamps), source

    def sample_sets(self, rate_hz: int) -> list[SampleSet]:
        """Return the sets at a rate, each with the images nearest to its stamp.

        An image belongs to one set only, the one it is nearest to.
        """
        stamps, _ = self.sample_stamps_ns(rate_hz)
        columns = [_own_images(stamps, self.image_stamps_ns[camera]) for camera in RING_CAMERAS]
        return [
            SampleSet(int(stamp), tuple(column[index] for column in columns))
            for index, stamp in enumerate(stamps)
        ]

    def _pose_raster(self, rate_hz: int) -> StampArray:
        stamps, _ = self.pose_table
        raster = np.arange(stamps[0], stamps[-1] + 1, 1_000_000_000 // rate_hz, dtype=np.int64)
        return np.unique(stamps[nearest(stamps, raster)[0]])

    def _stamps(self, folder: str, suffix: str) -> StampArray:
        """Return the stamps in the names of the files of a folder, increasing [ns]."""
        names = [path.stem for path in (self.folder / folder).glob(f'*{suffix}')]
        wrong = sorted(name for name in names if not name.isdecimal())
        if wrong:
            raise DataError(
                f"log '{self.name}': '{folder}/{wrong[0]}{suffix}' is not named by its stamp; "
                'expected nanoseconds, as published'
            )
        return np.sort(np.array([int(name) for name in names], dtype=np.int64))


def nearest(stamps: StampArray, moments: StampArray) -> tuple[npt.NDArray[np.intp], StampArray]:
    """Return for each moment the index of the nearest of the increasing stamps, and how far [ns].

    Of two that are equally far the earlier one.
    """
    after = np.clip(np.searchsorted(stamps, moments), 1, max(len(stamps) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(stamps) - 1)
    to_before, to_after = np.abs(moments - stamps[before]), np.abs(stamps[after] - moments)
    index = np.where(to_after < to_before, after, before)
    return index, np.minimum(to_before, to_after)


def _own_images(stamps: StampArray, images: StampArray) -> list[int | None]:
    """Return for each set the stamp of its own image, None where none is near enough."""
    if not len(images) or not len(stamps):
        return [None] * len(stamps)
    index, distance = nearest(images, stamps)
    owner, _ = nearest(stamps, images)
    is_own = (distance <= SYNC_TOLERANCE_NS) & (owner[index] == np.arange(len(stamps)))
    return [int(images[found]) if own else None for found, own in zip(index, is_own, strict=True)]
