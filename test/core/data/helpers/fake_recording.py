"""A tiny drive with known contents: coloured JPEGs, a curve, two map elements."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from gsmap_core.data.drives import PoseSample, RecordedFrame, RecordedImage
from gsmap_core.data.groundtruth import cut_local_map
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.structures import Camera, CameraRig, MapElement, PerceptionRange, VectorMap

START_NS = 1_700_000_000_000_000_000
RANGE = PerceptionRange()
#: Optical axes (z forward, x right, y down) in a frame with x forward, y left, z up.
BASE_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def make_camera(name: str, yaw_deg: float, width_px: int = 64, height_px: int = 48) -> Camera:
    rotation = rotation_from_rpy(0.0, 0.0, np.deg2rad(yaw_deg)) @ BASE_FROM_OPTICAL
    return Camera(
        name=name,
        frame_id=f'{name}_optical_frame',
        width_px=width_px,
        height_px=height_px,
        intrinsics=np.array([[50.0, 0.0, 31.5], [0.0, 51.0, 23.5], [0.0, 0.0, 1.0]]),
        base_from_camera=make_transform(rotation, [1.5, 0.1 * yaw_deg / 90, 1.6]),
    )


def make_rig() -> CameraRig:
    # Not in alphabetical order: the bag must bring back this order.
    return CameraRig(
        'fake', (make_camera('cam_front', 0.0), make_camera('cam_back', 180.0, 80, 60))
    )


def pose_at(stamp_ns: int) -> np.ndarray:
    """A curve at 10 m/s with pitch."""
    seconds = (stamp_ns - START_NS) / 1e9
    yaw = 0.4 + 0.2 * seconds
    return make_transform(
        rotation_from_rpy(0.01, 0.03, yaw), [100.0 + 10.0 * seconds, 50.0 + seconds, 2.0]
    )


def solid_jpeg(camera: Camera, value: int) -> bytes:
    image = np.full((camera.height_px, camera.width_px, 3), value, dtype=np.uint8)
    image[:, : camera.width_px // 2, 2] = 250  # BGR: the left half is reddish
    encoded, data = cv2.imencode('.jpg', image)
    assert encoded
    return data.tobytes()


GLOBAL_ELEMENTS = (
    MapElement(0, np.array([[60.0, 40.0, 1.9], [140.0, 75.0, 2.1]]), id=3),
    MapElement(
        1,
        np.array([[105.0, 50.0, 2.0], [109.0, 50.0, 2.0], [109.0, 54.0, 2.2], [105.0, 54.0, 2.2]]),
        closed=True,
    ),
)


class FakeRecording:
    """Five sets at 5 Hz; `cam_back` fires 30 ms after `cam_front`; poses at 50 Hz, not aligned."""

    name = 'fake-drive'

    def __init__(
        self,
        num_frames: int = 5,
        period_ns: int = 200_000_000,
        missing: frozenset[tuple[int, str]] = frozenset(),
        has_truth: bool = True,
    ) -> None:
        self.rig = make_rig()
        self.num_frames = num_frames
        self.period_ns = period_ns
        self.missing = missing
        self.has_truth = has_truth
        self.metadata = {'source': 'test', 'map_offset': '1000 2000 0', 'city_frame': 'nowhere'}

    @property
    def poses(self) -> list[PoseSample]:
        end = START_NS + self.num_frames * self.period_ns + 100_000_000
        first = START_NS - 13_000_000
        return [PoseSample(s, pose_at(s)) for s in range(first, end, 20_000_000)]

    @property
    def global_map(self) -> VectorMap | None:
        if not self.has_truth:
            return None
        area = PerceptionRange(0.0, 200.0, 0.0, 100.0)
        return VectorMap(GLOBAL_ELEMENTS, START_NS, area, 'map', scene=self.name)

    def jpeg(self, index: int, camera: str) -> bytes:
        value = 40 + 20 * index + (5 if camera == 'cam_back' else 0)
        return solid_jpeg(self.rig.camera(camera), value)

    def frames(self) -> Iterator[RecordedFrame]:
        for index in range(self.num_frames):
            stamp = START_NS + index * self.period_ns
            offsets = {'cam_front': 0, 'cam_back': 30_000_000}
            truth = cut_local_map(
                GLOBAL_ELEMENTS, pose_at(stamp), RANGE, stamp, f'sample-{index}', self.name
            )
            yield RecordedFrame(
                stamp_ns=stamp,
                images=tuple(
                    RecordedImage(name, stamp + offset, self.jpeg(index, name))
                    for name, offset in offsets.items()
                    if (index, name) not in self.missing
                ),
                ground_truth=truth if self.has_truth else None,
                lidar_points=np.array([[5.0, 1.0, 0.5, 0.25], [-3.0, 2.0, 1.0, 1.0]], np.float32)
                + np.float32(index),
                sample_id=f'sample-{index}',
            )
