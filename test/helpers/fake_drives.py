"""A drive in memory, small enough to train on in a test."""

from __future__ import annotations

import cv2
import numpy as np

from gsmap_core.config import (
    BackboneConfig,
    BevConfig,
    DecoderConfig,
    ImageConfig,
    LossConfig,
    ModelConfig,
)
from gsmap_core.data.drives import PoseSample, RecordedFrame, RecordedImage
from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.structures import Camera, CameraRig, MapElement, SurroundFrame, VectorMap


def micro_config(**decoder) -> ModelConfig:
    """Return a model that trains in milliseconds per step."""
    return ModelConfig(
        name='micro',
        embed_dims=32,
        image=ImageConfig(64, 32),
        backbone=BackboneConfig(
            block='basic',
            num_blocks=(1, 1, 1, 1),
            base_width=8,
            stem='conv3',
            out_stages=(2, 3, 4),
            num_frozen_stages=0,
            frozen_norm=False,
        ),
        bev=BevConfig(num_rows=20, num_columns=10, self_attention='none'),
        decoder=DecoderConfig(
            **{
                'num_layers': 2,
                'num_instances': 8,
                'num_points': 20,
                'num_heads': 4,
                'ffn_dims': 64,
                'dropout': 0.0,
                'self_attention': 'decoupled',
                **decoder,
            }
        ),
        losses=LossConfig(bev_segmentation=1.0),
    )


def fake_rig(num_cameras: int = 2) -> CameraRig:
    """Return cameras 1.5 m above the ground that look around evenly."""
    cameras = []
    for index in range(num_cameras):
        angle = 2 * np.pi * index / num_cameras + 0.1
        forward = np.array([np.cos(angle), np.sin(angle), 0.0])
        right = np.array([np.sin(angle), -np.cos(angle), 0.0])
        rotation = np.stack([right, [0.0, 0.0, -1.0], forward], axis=1)
        cameras.append(
            Camera(
                name=f'cam_{index}',
                frame_id=f'cam_{index}_optical',
                width_px=70,
                height_px=40,
                intrinsics=np.array([[50.0, 0, 33.0], [0, 52.0, 17.5], [0, 0, 1]]),
                base_from_camera=make_transform(rotation, [1.0, 0.2, 1.5]),
            )
        )
    return CameraRig('fake', tuple(cameras))


class FakeDrive:
    """Frames of random pictures with a few random elements each.

    Args:
        num_frames: length.
        seed: of pictures and elements.
        num_cameras: of the rig.
        broken: frames that cannot be read.
        speed_m: metres per frame along a bend; None: there are no poses.
    """

    def __init__(
        self,
        num_frames=2,
        seed=0,
        num_cameras=2,
        broken=(),
        has_ground_truth=True,
        speed_m=None,
    ):
        self.name, self.seed, self.broken = f'fake-{seed}', seed, set(broken)
        self.rig = fake_rig(num_cameras)
        self.num_frames, self.has_ground_truth = num_frames, has_ground_truth
        self.speed_m, self.num_reads = speed_m, 0

    def __len__(self):  # noqa: D105
        return self.num_frames

    def stamp_ns(self, index):
        return 1_000_000_000 + index * 100_000_000

    def pose(self, index):
        if self.speed_m is None:
            return None
        turned = rotation_from_rpy(0.0, 0.0, 0.05 * index)
        return make_transform(turned, [self.speed_m * index, 0.1 * index, 0.0])

    def frame(self, index, max_width_px=None):
        self.num_reads += 1
        if index in self.broken:
            raise DataError(f'fake image {index} is corrupt')
        generator = np.random.default_rng((self.seed, index))
        images = []
        for camera in self.rig.cameras:
            coarse = generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)
            tall, wide = camera.height_px // 5 + 1, camera.width_px // 7 + 1
            image = coarse.repeat(tall, 0).repeat(wide, 1)
            images.append(np.ascontiguousarray(image[: camera.height_px, : camera.width_px]))
        return SurroundFrame(
            self.stamp_ns(index),
            self.rig,
            tuple(images),
            scene=self.name,
            map_from_base=self.pose(index),
        )

    def ground_truth(self, index):
        if not self.has_ground_truth:
            return None
        generator = np.random.default_rng((self.seed, index, 1))
        offset = generator.uniform(-8, 8)
        line = np.array([[-28.0, offset], [0.0, offset + 2], [28.0, offset - 1]])
        edge = np.array([[-29.0, -12.0], [29.0, generator.uniform(-13, -8)]])
        centre = generator.uniform([-20, -5], [20, 5])
        ring = centre + np.array([[0.0, 0], [4, 0], [4, 8], [0, 8]])
        elements = (
            MapElement(0, line),
            MapElement(2, edge),
            MapElement(1, ring, closed=True),
        )
        return VectorMap(
            elements, self.stamp_ns(index), scene=self.name, map_from_base=self.pose(index)
        )

    @property
    def global_map(self):
        return None


class FakeRecording:
    """A fake drive in the form that can be written as a bag."""

    def __init__(self, drive: FakeDrive):
        self.drive, self.name, self.rig = drive, drive.name, drive.rig
        self.global_map, self.metadata = None, {}
        stamps = [drive.stamp_ns(0) - 50_000_000, drive.stamp_ns(len(drive))]
        self.poses = [PoseSample(stamp, np.eye(4)) for stamp in stamps]

    def frames(self):
        for index in range(len(self.drive)):
            stamp, frame = self.drive.stamp_ns(index), self.drive.frame(index)
            images = tuple(
                RecordedImage(
                    camera.name, stamp, cv2.imencode('.jpg', image[..., ::-1])[1].tobytes()
                )
                for camera, image in zip(self.rig.cameras, frame.images, strict=True)
            )
            yield RecordedFrame(stamp, images, self.drive.ground_truth(index))
