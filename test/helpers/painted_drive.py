"""A drive in memory through a world that stays where it is."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from helpers.fake_drives import FakeDrive, FakeRecording

from gsmap_core.data.drives import PoseSample
from gsmap_core.geometry.transforms import invert, transform_points
from gsmap_core.structures import MapElement

#: Colour of the dots.
PAINT = (255, 0, 255)


class PaintedDrive(FakeDrive):
    """A fake drive with poses; one divider and a dot ahead are fixed in the map frame.

    Args:
        num_frames: length.
        seed: of pictures and other elements.
        **more: of `FakeDrive`.
    """

    def __init__(self, num_frames=6, seed=0, **more):
        super().__init__(num_frames, seed, **{'speed_m': 2.0, **more})
        self.line = np.array([[-5.0, 3.0, 0.0], [10.0, 4.0, 0.0], [25.0, 8.0, 0.0]])
        self.dot = np.array([20.0, 6.0, 0.5])

    def frame(self, index, max_width_px=None):
        frame = super().frame(index, max_width_px)
        for camera, image in zip(self.rig.cameras, frame.images, strict=True):
            map_from_camera = self.pose(index) @ camera.base_from_camera
            seen = transform_points(invert(map_from_camera), self.dot[None])[0]
            if seen[2] > 0.5:
                column, row, _ = camera.intrinsics @ seen / seen[2]
                cv2.circle(image, (round(column), round(row)), 5, PAINT, -1)
        return frame

    def ground_truth(self, index):
        truth = super().ground_truth(index)
        line = transform_points(invert(self.pose(index)), self.line)
        elements = (MapElement(0, line[:, :2]), *truth.elements[1:])
        return replace(truth, elements=elements)


class PosedRecording(FakeRecording):
    """A fake drive with poses in the form that can be written as a bag."""

    def __init__(self, drive: FakeDrive):
        super().__init__(drive)
        poses = [PoseSample(drive.stamp_ns(i), drive.pose(i)) for i in range(len(drive))]
        self.poses = [
            replace(self.poses[0], map_from_base=drive.pose(0)),
            *poses,
            replace(self.poses[1], map_from_base=drive.pose(len(drive) - 1)),
        ]
