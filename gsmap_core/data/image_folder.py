"""A folder of images plus a rig as a drive, for a first look without a bag.

Either one picture per camera (`cam_front.jpg`, ...: one camera set), or one folder per camera
(`cam_front/*.jpg`, ...: sets in the sorted order of the file names).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gsmap_core.errors import DataError
from gsmap_core.images import decode_jpeg
from gsmap_core.structures import CameraRig, SurroundFrame, VectorMap

_SUFFIXES = ('.jpg', '.jpeg', '.png')
#: Stamps of images without any are made up at this rate [Hz].
ASSUMED_RATE_HZ = 10.0


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)


class ImageFolderDrive:
    """Reads camera sets from image files; there are no poses and no ground truth.

    Args:
        folder: see the module docstring.
        rig: calibration; its camera names are the file or folder names.

    Raises:
        DataError: the folder is missing, a camera has no picture, or the counts differ.
    """

    def __init__(self, folder: Path | str, rig: CameraRig) -> None:
        self._folder, self._rig = Path(folder), rig
        if not self._folder.is_dir():
            raise DataError(f"image folder '{folder}' does not exist; give an existing folder")
        self._files: list[list[Path]] = []
        for name in rig.names:
            if (self._folder / name).is_dir():
                files = _pictures(self._folder / name)
            else:
                files = [path for path in _pictures(self._folder) if path.stem == name]
            if not files:
                raise DataError(
                    f"image folder '{folder}' has no picture of camera '{name}'; expected "
                    f'{name}.jpg or {name}/*.jpg for each camera of rig {rig.name!r}'
                )
            self._files.append(files)
        counts = {name: len(files) for name, files in zip(rig.names, self._files, strict=True)}
        if len(set(counts.values())) != 1:
            raise DataError(
                f"image folder '{folder}' has different numbers of pictures: {counts}; expected "
                'the same number for every camera'
            )

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self._folder.resolve().name

    @property
    def rig(self) -> CameraRig:
        """The calibration that was given."""
        return self._rig

    @property
    def global_map(self) -> VectorMap | None:
        """None: images alone have no map."""
        return None

    def lidar_points(self, index: int) -> None:
        """Return None: images alone have no sweeps."""

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return len(self._files[0])

    def stamp_ns(self, index: int) -> int:
        """Return a made-up stamp, at `ASSUMED_RATE_HZ` [ns]."""
        return round(index * 1e9 / ASSUMED_RATE_HZ)

    def frame(self, index: int, max_width_px: int | None = None) -> SurroundFrame:
        """Decode one camera set at full size (`max_width_px` is not needed here).

        Raises:
            DataError: a picture cannot be read, or its size is not a scaled calibration size.
        """
        cameras, images = [], []
        for camera, files in zip(self._rig.cameras, self._files, strict=True):
            image = decode_jpeg(files[index].read_bytes(), str(files[index]))
            height, width = image.shape[:2]
            if abs(width * camera.height_px - height * camera.width_px) > max(width, height):
                raise DataError(
                    f'{files[index]}: {width} x {height} px does not have the shape of camera '
                    f"'{camera.name}' ({camera.width_px} x {camera.height_px} px); expected the "
                    'calibrated size or a scaled version of it'
                )
            cameras.append(camera.scaled(width, height))
            images.append(image)
        return SurroundFrame(
            stamp_ns=self.stamp_ns(index),
            rig=replace(self._rig, cameras=tuple(cameras)),
            images=tuple(images),
            sample_id=self._files[0][index].stem,
            scene=self.name,
        )

    def ground_truth(self, index: int) -> VectorMap | None:
        """Return None: images alone have no ground truth."""
        return None
