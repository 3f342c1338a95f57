"""A synthetic drive as a `Recording`: pictures, poses and ground truth of one trajectory."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gsmap_core.data.drives import PoseSample, RecordedFrame, RecordedImage
from gsmap_core.data.groundtruth import cut_local_map
from gsmap_core.data.synthetic.conditions import conditions_by_name, conditions_for_seed, varied
from gsmap_core.data.synthetic.dice import Dice
from gsmap_core.data.synthetic.queues import (
    MAX_QUEUE_DRIVE_S,
    QueueRoute,
    QueueSettings,
    plan_queues,
    queue_margin_s,
)
from gsmap_core.data.synthetic.scene import Box, Conditions, Town
from gsmap_core.data.synthetic.town import GENERATOR_VERSION, generate_town, town_hash
from gsmap_core.data.synthetic.traffic import TIME_SHIFT_S, Traffic, plan_traffic
from gsmap_core.data.synthetic.trajectory import Trajectory, plan_trajectory
from gsmap_core.errors import ConfigError
from gsmap_core.rig import load_rig, scaled_rig
from gsmap_core.structures import CameraRig, FloatArray, PerceptionRange, VectorMap

if TYPE_CHECKING:
    from gsmap_core.data.synthetic.renderer import Renderer

_log = logging.getLogger(__name__)

#: One turn of the imaginary spinning trigger: a camera that looks back is triggered half of it
#: later [s].
TRIGGER_TURN_S = 0.08
#: Scatter of a camera's trigger [s].
TRIGGER_JITTER_S = 0.0008
POSE_RATE_HZ = 50.0
#: Poses begin and end this long before and after the pictures [s].
POSE_MARGIN_S = 0.5
#: Time constant of the slow exposure changes [s].
EXPOSURE_TIME_S = 2.5
#: Moving vehicles near the route, by setting.
TRAFFIC_COUNT = {'normal': 6, 'easy': 1, 'easy_occluded': 4}
#: Settings with queues of traffic, in which everybody drives slowly.
QUEUES = {'easy_occluded': QueueSettings()}
#: Stamp of the first drive [ns]: an ordinary moment of 2023, so that clocks and viewers behave.
_EPOCH_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class DriveSpec:
    """What to record.

    Args:
        town_seed: town.
        drive_seed: route through it.
        setting: `normal`, `easy` or `easy_occluded`; drives of the last are at most 120 s long.
        rig: name of a rig or path of its YAML file.
        duration_s: from the first to the last camera set [s].
        rate_hz: camera sets per second, 2 to 12.
        image_width_px: width of the first camera's images; the others keep their proportion.
            None: as the rig says.
        conditions: a key of `CONDITIONS`, `mix` for a seeded draw of the setting's, or `all` for
            one of every light and weather whatever the setting.
        variant: 0, or the number of a repetition of the same drive; changes the conditions'
            details, traffic and exposure.
        lateral_offset_m: drive this far to the left of the lane's centre [m].
        reverse: drive the streets of the same route the other way.
        lidar: also simulate a LiDAR sweep per camera set.
        device: where to render.
        jpeg_quality: 1 to 100.
        trigger_turn_s: one turn of the imaginary trigger; the cameras of a set are up to half of
            it apart from the first one [s].

    Raises:
        ConfigError: a value is outside its range; the message names it.
    """

    town_seed: int
    drive_seed: int = 0
    setting: str = 'normal'
    rig: str = 'nuscenes_like'
    duration_s: float = 20.0
    rate_hz: float = 5.0
    image_width_px: int | None = None
    conditions: str = 'mix'
    variant: int = 0
    lateral_offset_m: float = 0.0
    reverse: bool = False
    lidar: bool = False
    device: str = 'cpu'
    jpeg_quality: int = 90
    trigger_turn_s: float = TRIGGER_TURN_S

    def __post_init__(self) -> None:
        """Validate."""
        longest = MAX_QUEUE_DRIVE_S if self.setting in QUEUES else 3600
        for name, is_right, expected in (
            ('town_seed', self.town_seed >= 0, '0 or more'),
            ('drive_seed', 0 <= self.drive_seed < 1000, '0 to 999'),
            ('setting', self.setting in TRAFFIC_COUNT, ' or '.join(TRAFFIC_COUNT)),
            ('duration_s', 0 < self.duration_s <= longest, f'more than 0, at most {longest}'),
            ('rate_hz', 2 <= self.rate_hz <= 12, '2 to 12'),
            ('image_width_px', self.image_width_px is None or self.image_width_px >= 16, '>= 16'),
            ('variant', self.variant >= 0, '0 or more'),
            ('lateral_offset_m', abs(self.lateral_offset_m) <= 0.6, '-0.6 to 0.6'),
            ('jpeg_quality', 1 <= self.jpeg_quality <= 100, '1 to 100'),
            ('trigger_turn_s', 0 <= self.trigger_turn_s <= 0.08, '0 to 0.08'),
        ):
            if not is_right:
                raise ConfigError(f'drive: {name} = {getattr(self, name)}; expected {expected}')
        if self.conditions not in ('mix', 'all'):
            conditions_by_name(self.conditions)

    @property
    def name(self) -> str:
        """Name of the drive: town, route, repetition."""
        prefix = 'town' if self.setting == 'normal' else f'town-{self.setting}'
        variant = f'-v{self.variant}' if self.variant else ''
        return f'{prefix}-{self.town_seed:04d}-d{self.drive_seed:03d}{variant}'

    @property
    def num_frames(self) -> int:
        """Number of camera sets."""
        return int(np.floor(self.duration_s * self.rate_hz + 1e-6)) + 1

    @property
    def start_ns(self) -> int:
        """Stamp of the first camera set [ns]; repetitions happen on other days."""
        # A day per town, 80 s per route: every seed stays below 2^31 s, the end of ROS stamps.
        days = self.town_seed % 4000 + self.variant % 1000
        return _EPOCH_NS + (days * 86_400 + self.drive_seed * 80) * 1_000_000_000 + 123_456_789

    def resolved_conditions(self) -> Conditions:
        """Return light and weather of this drive."""
        seed = self.town_seed * 1_000_003 + self.drive_seed * 101 + self.variant
        if self.conditions == 'mix':
            return conditions_for_seed(seed, self.setting)
        if self.conditions == 'all':
            return conditions_for_seed(seed, 'normal')
        return varied(conditions_by_name(self.conditions), seed)


class SyntheticRecording:
    """A drive that is rendered while it is read; implements `data.drives.Recording`.

    The `map` frame is the town frame. The first camera of the rig is triggered at the
    reference stamp, the others as a
    spinning trigger passes them, up to about 40 ms earlier or later.

    Args:
        spec: what to record.
        perception_range: extent of the ground truth of a frame, ego frame; None: the default.
        town: the town if the caller has it already; None: generated.
        renderer: of the same town, if the caller has it already; None: built with the first
            picture.

    Raises:
        ConfigError: the rig or a value of the spec is unusable.
    """

    def __init__(
        self,
        spec: DriveSpec,
        *,
        perception_range: PerceptionRange | None = None,
        town: Town | None = None,
        renderer: Renderer | None = None,
    ) -> None:
        self.spec = spec
        self.range = perception_range or PerceptionRange()
        self.town = town or generate_town(spec.town_seed, spec.setting)
        self._renderer = renderer

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return self.spec.num_frames

    @property
    def name(self) -> str:
        """Name of the drive."""
        return self.spec.name

    @cached_property
    def rig(self) -> CameraRig:
        """Calibration."""
        rig = load_rig(self.spec.rig)
        width = self.spec.image_width_px
        return rig if width is None else scaled_rig(rig, width)

    @cached_property
    def conditions(self) -> Conditions:
        """Light and weather."""
        return self.spec.resolved_conditions()

    @cached_property
    def trajectory(self) -> Trajectory:
        """Path and speed of the vehicle."""
        spec = self.spec
        queues = QUEUES.get(spec.setting)
        return plan_trajectory(
            self.town,
            spec.drive_seed,
            spec.duration_s,
            lateral_offset_m=spec.lateral_offset_m,
            reverse=spec.reverse,
            start_ns=spec.start_ns,
            margin_s=TIME_SHIFT_S + 2.0 if queues is None else queue_margin_s(spec.duration_s),
            style=None if queues is None else queues.style,
        )

    @cached_property
    def traffic(self) -> Traffic:
        """Moving vehicles."""
        spec, count = self.spec, TRAFFIC_COUNT[self.spec.setting]
        seed = spec.drive_seed + 7919 * spec.variant
        queues = QUEUES.get(spec.setting)
        if queues is None:
            return plan_traffic(self.town, seed, self.trajectory, spec.duration_s, count)
        return plan_queues(
            self.town,
            seed,
            self.trajectory,
            spec.duration_s,
            QueueRoute(spec.drive_seed, spec.lateral_offset_m, spec.reverse),
            queues,
            count,
        )

    @property
    def renderer(self) -> Renderer:
        """Draws the pictures."""
        if self._renderer is None:
            # Poses and ground truth are had without the renderer and what it loads.
            from gsmap_core.data.synthetic.renderer import Renderer

            self._renderer = Renderer(self.town, self.spec.device)
        return self._renderer

    @cached_property
    def poses(self) -> list[PoseSample]:
        """Poses at 50 Hz, on another raster than the pictures."""
        first, last = self.frame_stamp_ns(0), self.frame_stamp_ns(len(self) - 1)
        margin, period = int(POSE_MARGIN_S * 1e9), int(1e9 / POSE_RATE_HZ)
        stamps = np.arange(first - margin + 3_700_001, last + margin, period, dtype=np.int64)
        matrices = self.trajectory.poses(stamps)
        return [
            PoseSample(int(stamp), matrix) for stamp, matrix in zip(stamps, matrices, strict=True)
        ]

    @cached_property
    def global_map(self) -> VectorMap:
        """The ground truth of the whole town in the `map` frame."""
        x_min, y_min, x_max, y_max = (float(value) for value in self.town.extent)
        return VectorMap(
            elements=self.town.elements,
            stamp_ns=self.spec.start_ns,
            range=PerceptionRange(x_min, x_max, y_min, y_max),
            reference='map',
            scene=self.name,
        )

    @property
    def metadata(self) -> dict[str, str]:
        """Everything needed to make the drive again."""
        spec = self.spec
        return {
            'source': 'synthetic',
            'generator_version': GENERATOR_VERSION,
            'town': self.town.name,
            'town_seed': str(spec.town_seed),
            'town_hash': town_hash(self.town),
            'drive_seed': str(spec.drive_seed),
            'variant': str(spec.variant),
            'setting': spec.setting,
            'conditions': self.conditions.name,
            'lateral_offset_m': f'{spec.lateral_offset_m:g}',
            'reverse': str(spec.reverse).lower(),
            'rate_hz': f'{spec.rate_hz:g}',
            'duration_s': f'{spec.duration_s:g}',
            'map_frame_origin': 'centre of the town, x east, y north; not geo-referenced',
        }

    def frame_stamp_ns(self, index: int) -> int:
        """Return the reference stamp of a camera set [ns]."""
        return self.spec.start_ns + int(round(index * 1e9 / self.spec.rate_hz))

    @cached_property
    def camera_stamps_ns(self) -> list[tuple[int, ...]]:
        """Trigger stamps of every camera in every set [ns]; the first is the reference stamp."""
        spec = self.spec
        yaws = np.array(
            [
                np.arctan2(camera.base_from_camera[1, 2], camera.base_from_camera[0, 2])
                for camera in self.rig.cameras
            ]
        )
        # The trigger turns clockwise seen from above: right of the reference camera comes later.
        turned = -(np.mod(yaws - yaws[0] + np.pi, 2 * np.pi) - np.pi)
        offsets = turned / (2 * np.pi) * spec.trigger_turn_s
        dice = Dice(spec.town_seed, 60, spec.drive_seed, spec.variant)
        result = []
        for index in range(len(self)):
            jitter = dice.uniforms(len(yaws), -TRIGGER_JITTER_S, TRIGGER_JITTER_S)
            shift_ns = np.round((offsets + jitter) * 1e9).astype(np.int64)
            shift_ns[0] = 0
            reference = self.frame_stamp_ns(index)
            result.append(tuple(reference + int(shift) for shift in shift_ns))
        return result

    @cached_property
    def exposure_gains(self) -> FloatArray:
        """(frames, N) brightness factors: a slow walk per camera."""
        spec, jitter = self.spec, self.conditions.exposure_jitter
        dice = Dice(spec.town_seed, 61, spec.drive_seed, spec.variant)
        keep = float(np.exp(-1.0 / (spec.rate_hz * EXPOSURE_TIME_S)))
        level = dice.normals(len(self.rig)) * jitter
        rows = []
        for _ in range(len(self)):
            rows.append(np.exp(level))
            level = keep * level + np.sqrt(1 - keep**2) * jitter * dice.normals(len(self.rig))
        return np.stack(rows)

    def ground_truth(self, index: int) -> VectorMap:
        """Return the elements around the vehicle at the reference stamp: ego frame, with z."""
        stamp = self.frame_stamp_ns(index)
        return cut_local_map(
            self.town.elements,
            self.trajectory.pose(stamp),
            self.range,
            stamp,
            sample_id=f'{self.name}-{index:06d}',
            scene=self.name,
        )

    def trajectory_hash(self) -> str:
        """Return the SHA-256 of all poses, positions rounded to 1 mm and rotations to 1e-4."""
        matrices = np.stack([sample.map_from_base for sample in self.poses])
        digest = hashlib.sha256(_rounded(matrices[:, :3, 3], 1e3))
        digest.update(_rounded(matrices[:, :3, :3], 1e4))
        return digest.hexdigest()

    def ground_truth_hash(self) -> str:
        """Return the SHA-256 of the ground truth of all camera sets, rounded to 1 mm."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            for element in self.ground_truth(index).elements:
                digest.update(bytes([element.category, element.closed]))
                digest.update(_rounded(element.vertices, 1e3))
        return digest.hexdigest()

    def moving_boxes(self, index: int) -> list[Box]:
        """Return the other vehicles; their velocity carries them to each camera's own time."""
        time_s = self._time_s(self.frame_stamp_ns(index))
        return self.traffic.boxes(time_s, self.trajectory.positions([time_s])[0][0])

    def camera_moments(self, index: int) -> tuple[FloatArray, list[float]]:
        """Return (N, 4, 4) `map_from_camera` and N drive times [s], as cameras are triggered."""
        stamps = self.camera_stamps_ns[index]
        extrinsics = np.stack([camera.base_from_camera for camera in self.rig.cameras])
        poses = self.trajectory.poses(list(stamps)) @ extrinsics
        return np.asarray(poses), [self._time_s(stamp) for stamp in stamps]

    def images(self, index: int, renderer: Renderer | None = None) -> list[np.ndarray]:
        """Render N (H, W, 3) uint8 RGB pictures, each at its camera's own time and place.

        Args:
            index: 0 to len - 1.
            renderer: of the same town, to use for this call; None: the recording's own.
        """
        poses, times = self.camera_moments(index)
        return list(
            (renderer or self.renderer).render(
                self.rig.cameras,
                poses,
                times,
                self.conditions,
                self.moving_boxes(index),
                exposure_gain=[float(gain) for gain in self.exposure_gains[index]],
                noise_seed=(self.spec.drive_seed * 131 + self.spec.variant) * 100_003 + index,
            )
        )

    def frame(self, index: int) -> RecordedFrame:
        """Render and compress one camera set.

        Args:
            index: 0 to len - 1.
        """
        stamp = self.frame_stamp_ns(index)
        options = [cv2.IMWRITE_JPEG_QUALITY, self.spec.jpeg_quality]
        recorded = []
        for camera, camera_stamp, image in zip(
            self.rig.cameras, self.camera_stamps_ns[index], self.images(index), strict=True
        ):
            is_ok, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
            if not is_ok:
                raise ConfigError(
                    f"camera '{camera.name}': OpenCV cannot write JPEG images of {image.shape}; "
                    'install an opencv-python build with JPEG support'
                )
            recorded.append(RecordedImage(camera.name, camera_stamp, data.tobytes()))
        return RecordedFrame(
            stamp_ns=stamp,
            images=tuple(recorded),
            ground_truth=self.ground_truth(index),
            lidar_points=self.sweep(index) if self.spec.lidar else None,
            sample_id=f'{self.name}-{index:06d}',
        )

    def frames(self) -> Iterator[RecordedFrame]:
        """Render the camera sets in time order."""
        _log.info("rendering '%s': %d sets, %s", self.name, len(self), self.conditions.name)
        for index in range(len(self)):
            yield self.frame(index)

    def sweep(self, index: int) -> np.ndarray:
        """Simulate the LiDAR at the reference stamp: (P, 4) float32 in the ego frame."""
        from gsmap_core.data.synthetic.lidar import LidarConfig, simulate_lidar

        stamp = self.frame_stamp_ns(index)
        return simulate_lidar(
            self.town,
            self.moving_boxes(index),
            self.trajectory.pose(stamp),
            self._time_s(stamp),
            LidarConfig(noise_seed=self.spec.drive_seed * 100_003 + index),
        )

    def _time_s(self, stamp_ns: int) -> float:
        """Return the drive time of a stamp [s]."""
        return (stamp_ns - self.spec.start_ns) * 1e-9


def _rounded(values: FloatArray, scale: float) -> bytes:
    """Return values as whole multiples of 1 / scale, the same bytes on every platform."""
    return np.round(values * scale).astype('<i8').tobytes()
