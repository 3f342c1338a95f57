"""How far the sigmas of a model are to be trusted: fitted on validation data, kept with it.

The numbers travel as one line of JSON in the metadata of a checkpoint; whoever fuses its maps
reads them there. `gsmap_core.evaluation.calibration` fits them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gsmap_core.checkpoint_header import read_header_metadata, write_header_metadata
from gsmap_core.errors import DataError

#: Key of the metadata of a checkpoint.
CALIBRATION_KEY = 'calibration'


@dataclass(frozen=True)
class Calibration:
    """Corrections of the vertex sigmas of one model.

    Args:
        sigma_factor: what predicted standard deviations are multiplied with; 1: as predicted.
        point_sigma_m: standard deviation of vertices without covariance, at the vehicle [m];
            None: not fitted.
        point_sigma_per_m: what every metre of distance from the vehicle adds to it.
        num_vertices: vertices that the numbers were fitted on; 0: nothing was fitted.
        source: what they were fitted on, for people.

    Raises:
        DataError: a number is not positive (`point_sigma_per_m`: negative), or not finite.
    """

    sigma_factor: float = 1.0
    point_sigma_m: float | None = None
    point_sigma_per_m: float = 0.0
    num_vertices: int = 0
    source: str = ''

    def __post_init__(self) -> None:
        """Validate."""
        positive = {'sigma_factor': self.sigma_factor, 'point_sigma_m': self.point_sigma_m}
        for name, value in positive.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise DataError(f'calibration: {name} is {value}; expected a number above 0')
        if not (math.isfinite(self.point_sigma_per_m) and self.point_sigma_per_m >= 0):
            raise DataError(
                f'calibration: point_sigma_per_m is {self.point_sigma_per_m}; expected 0 or more'
            )

    def to_json(self) -> str:
        """Return the line of JSON that `from_json` reads."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str, where: str) -> Calibration:
        """Read what `to_json` wrote.

        Args:
            text: the line.
            where: names the file in errors.

        Raises:
            DataError: it is something else.
        """
        try:
            values: Any = json.loads(text)
            return Calibration(
                sigma_factor=float(values['sigma_factor']),
                point_sigma_m=None
                if values['point_sigma_m'] is None
                else float(values['point_sigma_m']),
                point_sigma_per_m=float(values['point_sigma_per_m']),
                num_vertices=int(values['num_vertices']),
                source=str(values['source']),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{where}: the calibration cannot be read ({error!r}); fit it again with gsmap '
                'evaluate --store-calibration'
            ) from None

    @property
    def description(self) -> str:
        """The numbers in a sentence, for logs and diagnostics."""
        if not self.num_vertices:
            return 'none'
        parts = [f'sigma x {self.sigma_factor:.2f}']
        if self.point_sigma_m is not None:
            parts.append(
                f'points {self.point_sigma_m:.2f} m + {self.point_sigma_per_m:.3f} per metre'
            )
        return f'{", ".join(parts)} (from {self.num_vertices} vertices)'


def read_calibration(checkpoint: Path | str) -> Calibration | None:
    """Return the calibration in a checkpoint; None where none was stored.

    Raises:
        CheckpointError: the file is missing or not a checkpoint.
        DataError: what is stored cannot be read.
    """
    text = read_header_metadata(checkpoint).get(CALIBRATION_KEY)
    return None if text is None else Calibration.from_json(text, f"checkpoint '{checkpoint}'")


def store_calibration(checkpoint: Path | str, calibration: Calibration) -> None:
    """Write a calibration into a checkpoint, in the place of one that is there; tensors stay.

    Raises:
        CheckpointError: the file is missing, not a checkpoint, or cannot be written.
    """
    write_header_metadata(checkpoint, {CALIBRATION_KEY: calibration.to_json()})
