"""`gsmap predict --fuse`: the maps of a drive as one map, and whether that has helped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gsmap_core.calibration import Calibration
from gsmap_core.data.drives import Drive
from gsmap_core.errors import DataError
from gsmap_core.evaluation.fused_map import FusionGain, fusion_gain
from gsmap_core.mapping.export import write_fused_map_file
from gsmap_core.mapping.global_map import GlobalMap
from gsmap_core.structures import VectorMap


@dataclass(frozen=True)
class FusedDrive:
    """The fused map of one drive.

    Args:
        path: map file that it was written to.
        num_elements: elements in it.
        num_frames: local maps that were fused.
        calibration: in words.
        gain: quality beside that of the single frames; None where the true map is not known.
    """

    path: Path
    num_elements: int
    num_frames: int
    calibration: str
    gain: FusionGain | None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            'map': str(self.path),
            'elements': self.num_elements,
            'frames': self.num_frames,
            'calibration': self.calibration,
            'quality': None if self.gain is None else self.gain.to_dict(),
        }


def fuse_drive(
    drive: Drive, maps: Sequence[VectorMap], calibration: Calibration | None, path: Path
) -> FusedDrive:
    """Fuse the local maps of a drive and write the result.

    Args:
        drive: where its true map is known, the result is compared with it.
        maps: in the order of their stamps.
        calibration: of the model; None: its sigmas are taken as they are.
        path: map file to write.

    Raises:
        DataError: a map has no pose.
    """
    fused = GlobalMap(calibration=calibration)
    try:
        for local_map in maps:
            fused.integrate(local_map)
    except DataError as error:
        raise DataError(f'{drive.name}: {error}; --fuse needs drives with poses') from None
    result = fused.to_vector_map()
    write_fused_map_file(path, result)
    truth, gain = drive.global_map, None
    if truth is not None and maps:
        gain = fusion_gain(result, maps, truth, min_score=fused.settings.min_score)
    return FusedDrive(
        path, len(result), len(maps), (calibration or Calibration()).description, gain
    )
