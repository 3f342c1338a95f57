"""Fake drives along a street, with poses: what semi-supervised training reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from helpers.fake_drives import FakeDrive, FakeRecording

from gsmap_core.data.drives import PoseSample
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy


class PosedDrive(FakeDrive):
    """A fake drive of frames 5 m apart, along x of its town or back.

    Args:
        name: of the drive.
        num_frames: length.
        start: x, y of the first frame in the frame of the town [m].
        yaw_rad: heading.
        town: place; empty: none stated.
        offset: x, y of the town's frame less that of the drive's map frame [m].
        has_poses: whether poses were recorded.
        more: as for `FakeDrive`.
    """

    def __init__(
        self,
        name='first',
        num_frames=4,
        *,
        start=(0.0, 0.0),
        yaw_rad=0.0,
        town='town-0',
        offset=(0.0, 0.0),
        has_poses=True,
        **more,
    ):
        super().__init__(num_frames, **more)
        self.name, self.has_poses = name, has_poses
        self.start, self.yaw_rad, self.offset = np.array(start), yaw_rad, np.array(offset)
        self.metadata = {'map_offset': f'{offset[0]} {offset[1]} 0'}
        if town:
            self.metadata['town'] = town

    def map_from_base(self, stamp_ns):
        if not self.has_poses:
            return None
        steps = (stamp_ns - self.stamp_ns(0)) / 100_000_000
        ahead = np.array([np.cos(self.yaw_rad), np.sin(self.yaw_rad)])
        x, y = self.start + 5.0 * steps * ahead - self.offset
        return make_transform(rotation_from_rpy(0, 0, self.yaw_rad), [x, y, 0.0])

    def frame(self, index, max_width_px=None):
        pose = self.map_from_base(self.stamp_ns(index))
        return replace(super().frame(index, max_width_px), map_from_base=pose)

    def lidar_points(self, index):
        return None


class PosedRecording(FakeRecording):
    """A posed drive in the form that can be written as a bag."""

    def __init__(self, drive: PosedDrive):
        super().__init__(drive)
        self.metadata = {**drive.metadata, 'scene': drive.name}
        first, last = drive.stamp_ns(0) - 50_000_000, drive.stamp_ns(len(drive))
        stamps = np.arange(first, last + 1, 50_000_000)
        self.poses = []
        if drive.has_poses:
            self.poses = [PoseSample(int(s), drive.map_from_base(int(s))) for s in stamps]
