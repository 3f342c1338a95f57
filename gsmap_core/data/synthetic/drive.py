"""Synthetic drives without a bag in between: rendered when a frame is asked for.

For training on the fly, above all on a GPU: `gsmap train --data synthetic:0-159,rate_hz=2`.
The pictures are those of `gsmap synth` before JPEG; poses and ground truth are the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from gsmap_core.config import build_dataclass
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.transforms import invert
from gsmap_core.structures import CameraRig, FloatArray, SurroundFrame, VectorMap

if TYPE_CHECKING:
    from gsmap_core.data.synthetic.renderer import Renderer

PREFIX = 'synthetic:'
#: Renderers that a process keeps; each holds the ground of its town.
MAX_RENDERERS = 4
_RENDERERS: OrderedDict[tuple[int, str, str], Renderer] = OrderedDict()


class SyntheticDrive:
    """A drive through a town, rendered frame by frame; implements `data.drives.Drive`.

    Args:
        spec: what to render.

    Raises:
        ConfigError: the rig or a value of the spec is unusable.
    """

    def __init__(self, spec: DriveSpec) -> None:
        self.recording = SyntheticRecording(spec)

    @property
    def name(self) -> str:
        """Name of the drive."""
        return self.recording.name

    @property
    def rig(self) -> CameraRig:
        """Calibration."""
        return self.recording.rig

    @property
    def global_map(self) -> VectorMap | None:
        """The ground truth of the whole town in the `map` frame."""
        return self.recording.global_map

    @property
    def metadata(self) -> dict[str, str]:
        """Everything needed to make the drive again; the town is its place."""
        return self.recording.metadata

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return len(self.recording)

    def map_from_base(self, stamp_ns: int) -> FloatArray | None:
        """Return the (4, 4) ego pose at a stamp, in the frame of the town."""
        pose: FloatArray = self.recording.trajectory.poses([stamp_ns])[0]
        return pose

    def stamp_ns(self, index: int) -> int:
        """Return the reference stamp of a camera set [ns]."""
        return self.recording.frame_stamp_ns(self._checked(index))

    def ground_truth(self, index: int) -> VectorMap | None:
        """Return the elements in the ego frame at the set's stamp, with z."""
        return self.recording.ground_truth(self._checked(index))

    def lidar_points(self, index: int) -> np.ndarray | None:
        """Simulate the sweep at a set's stamp, with `lidar=true` in the spec; None without."""
        return self.recording.sweep(self._checked(index)) if self.recording.spec.lidar else None

    def frame(self, index: int, max_width_px: int | None = None) -> SurroundFrame:
        """Render one camera set; `max_width_px` is not needed here (see `image_width_px`).

        Raises:
            DataError: the index is outside the drive.
        """
        index = self._checked(index)
        recording = self.recording
        stamp, camera_stamps = recording.frame_stamp_ns(index), recording.camera_stamps_ns[index]
        poses = recording.trajectory.poses([stamp, *camera_stamps])
        extrinsics = np.stack([camera.base_from_camera for camera in self.rig.cameras])
        return SurroundFrame(
            stamp_ns=stamp,
            rig=self.rig,
            # Lent for the call: a recording that kept its renderer would keep the whole town.
            images=tuple(recording.images(index, _renderer_of(recording))),
            camera_stamps_ns=tuple(camera_stamps),
            map_from_base=poses[0],
            base_from_cameras=invert(poses[0]) @ poses[1:] @ extrinsics,
            sample_id=f'{self.name}-{index:06d}',
            scene=self.name,
        )

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise DataError(f"frame {index} of '{self.name}'; expected 0 to {len(self) - 1}")
        return index


def _renderer_of(recording: SyntheticRecording) -> Renderer:
    """Return the renderer of a town; the longest unused one is forgotten."""
    from gsmap_core.data.synthetic.renderer import Renderer

    spec = recording.spec
    key = (spec.town_seed, spec.setting, spec.device)
    if key not in _RENDERERS:
        _RENDERERS[key] = Renderer(recording.town, spec.device)
        if len(_RENDERERS) > MAX_RENDERERS:
            _RENDERERS.popitem(last=False)
    _RENDERERS.move_to_end(key)
    return _RENDERERS[key]


def synthetic_drives(text: str) -> list[SyntheticDrive]:
    """Make the drives that a text asks for, one per town; see `synthetic_specs`.

    Raises:
        ConfigError: the text is not of this form, or a value is not allowed.
    """
    return [SyntheticDrive(spec) for spec in synthetic_specs(text)]


def synthetic_specs(text: str) -> list[DriveSpec]:
    """Return the drives that a text asks for, one per town.

    Args:
        text: `synthetic:FIRST-LAST` or `synthetic:SEED`, then `,key=value` with fields of
            `DriveSpec`, e.g. `synthetic:0-159,duration_s=10,rate_hz=2,device=cuda`.

    Raises:
        ConfigError: the text is not of this form, or a value is not allowed.
    """
    town, *options = text.removeprefix(PREFIX).split(',')
    found = re.fullmatch(r'(\d+)(?:-(\d+))?', town)
    if found is None or (found[2] and int(found[2]) < int(found[1])):
        raise ConfigError(
            f"'{text}': expected {PREFIX}FIRST-LAST, e.g. {PREFIX}0-159,duration_s=10,rate_hz=2"
        )
    values: dict[str, Any] = {}
    types = {item.name: str(item.type) for item in dataclasses.fields(DriveSpec)}
    for option in options:
        key, _, value = option.partition('=')
        values[key] = _typed(value, types.get(key, 'str'), f"'{text}' {key}")
    first, last = int(found[1]), int(found[2] or found[1])
    return [
        build_dataclass(DriveSpec, {**values, 'town_seed': seed}, f"'{text}'")
        for seed in range(first, last + 1)
    ]


def _typed(value: str, kind: str, where: str) -> Any:
    """Read the text of an option as the type of its field."""
    if kind == 'bool':
        if value in ('true', 'false'):
            return value == 'true'
        raise ConfigError(f"{where}: '{value}'; expected true or false")
    if kind.startswith(('int', 'float')):
        try:
            return int(value) if kind.startswith('int') else float(value)
        except ValueError:
            raise ConfigError(f"{where}: '{value}'; expected a number") from None
    return value
