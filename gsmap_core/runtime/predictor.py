"""The one object that turns camera sets into vector maps: for node, evaluator and demo.

It owns the model, the device, the precision and (with temporal models) the state between frames.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsmap_core.config import ModelConfig
from gsmap_core.errors import CheckpointError, ConfigError
from gsmap_core.models.checkpoint import load_checkpoint
from gsmap_core.models.postprocess import to_vector_maps
from gsmap_core.resources import weights_dir
from gsmap_core.runtime.inputs import InputBuilder
from gsmap_core.structures import CameraRig, SurroundFrame, VectorMap

_LOGGER = logging.getLogger(__name__)

#: The checkpoint that is used when none is named.
DEFAULT_WEIGHTS = 'maptr_tiny'
PRECISIONS: tuple[str, ...] = ('fp32', 'bf16')


def resolve_weights(name_or_path: str | Path = '') -> Path:
    """Find a checkpoint: an existing file, else one that is shipped with the package.

    Args:
        name_or_path: path of a `.safetensors` file, or the name of a shipped checkpoint; empty:
            the default one.

    Raises:
        CheckpointError: neither exists; the message lists the shipped names.
    """
    text = str(name_or_path) or DEFAULT_WEIGHTS
    path = Path(text)
    if path.is_file():
        return path
    shipped = weights_dir() / f'{text}.safetensors'
    if shipped.is_file():
        return shipped
    names = ', '.join(sorted(file.stem for file in weights_dir().glob('*.safetensors'))) or 'none'
    raise CheckpointError(
        f"checkpoint '{text}' not found: no such file, and the shipped ones are {names}; give the "
        'path of a .safetensors file that gsmap train wrote'
    )


def resolve_device(device: str = 'auto') -> torch.device:
    """Return the torch device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigError: the name is unknown or the device is not there.
    """
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        result = torch.device(device)
    except RuntimeError:
        raise ConfigError(
            f"device '{device}' is unknown; expected auto, cpu or cuda[:N]"
        ) from None
    if result.type not in ('cpu', 'cuda'):
        raise ConfigError(f"device '{device}' is not supported; expected auto, cpu or cuda[:N]")
    if result.type == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (result.index or 0) >= count:
            raise ConfigError(
                f"device '{device}' is not there (torch {torch.__version__} sees {count} CUDA "
                'devices); use cpu or install a CUDA build of torch'
            )
    return result


class Predictor:
    """Maps camera sets with a trained checkpoint.

    Args:
        checkpoint: path or shipped name of the checkpoint; empty: the default one.
        device: `auto`, `cpu` or `cuda[:N]`.
        precision: `fp32` or `bf16` (autocast of the network; geometry stays fp32).
        score_threshold: elements below it are left out, in [0, 1].
        max_elements: at most that many elements per frame, best first.
        closing_distance_m: elements whose ends lie within it are closed [m]; None: as the
            checkpoint says; 0: never, as published metrics take all points as they are.

    Raises:
        CheckpointError: the file is missing, truncated or not one of ours.
        ConfigError: device, precision or threshold is not allowed.
    """

    def __init__(
        self,
        checkpoint: str | Path = '',
        *,
        device: str = 'auto',
        precision: str = 'fp32',
        score_threshold: float = 0.0,
        max_elements: int = 50,
        closing_distance_m: float | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ConfigError(
                f"precision '{precision}' is unknown; expected one of {', '.join(PRECISIONS)}"
            )
        self.path = resolve_weights(checkpoint)
        self.device = resolve_device(device)
        self.precision = precision
        self.score_threshold = score_threshold
        self.max_elements = max_elements
        self.closing_distance_m = closing_distance_m
        loaded = load_checkpoint(self.path, device=str(self.device))
        self.model = loaded.model.eval()
        self.config: ModelConfig = loaded.config
        self.metadata: dict[str, str] = loaded.metadata
        self._state: Any = None
        self._inputs = InputBuilder(self.config)
        _LOGGER.info('%s on %s (%s)', self.config.name, self.device, self.precision)

    @property
    def score_threshold(self) -> float:
        """Elements below it are left out; may be changed between frames.

        Raises:
            ConfigError: on setting a number outside [0, 1].
        """
        return self._score_threshold

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f'score threshold {value}; expected a number in [0, 1]')
        self._score_threshold = float(value)

    @property
    def info(self) -> dict[str, str]:
        """Name, file, hash, device and precision, for diagnostics and reports."""
        return {
            'model': self.config.name,
            'weights': self.path.name,
            'sha256': hashlib.sha256(self.path.read_bytes()).hexdigest()[:16],
            'device': str(self.device),
            'precision': self.precision,
            'torch': torch.__version__,
        }

    def reset(self) -> None:
        """Forget the state between frames (a new drive, a jump in time or place)."""
        self._state = None
        self._inputs.reset()

    def warm_up(self, rig: CameraRig) -> None:
        """Run once on black images of a rig so that the first real set is not slow; then reset."""
        images = tuple(
            np.zeros((camera.height_px, camera.width_px, 3), np.uint8) for camera in rig.cameras
        )
        self.predict(SurroundFrame(stamp_ns=0, rig=rig, images=images, map_from_base=np.eye(4)))
        self.reset()

    def predict(self, frame: SurroundFrame) -> VectorMap:
        """Map one camera set; state is carried to the next call.

        Args:
            frame: images, calibration, stamps and pose.

        Returns:
            Elements in the ego frame at the reference stamp, best score first.

        Raises:
            DataError: the set does not suit the model (e.g. the number of cameras is fixed).
        """
        return self.predict_batch([frame])[0]

    @torch.inference_mode()
    def predict_batch(self, frames: Sequence[SurroundFrame]) -> list[VectorMap]:
        """Map several camera sets at once (each row is its own drive where the model has state).

        Args:
            frames: B sets with the same number of cameras.

        Returns:
            B maps in the ego frame at each reference stamp, elements by falling score.

        Raises:
            DataError: the sets do not suit the model, see `InputBuilder.build`.
        """
        inputs = self._inputs.build(frames)
        batch = inputs.batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == 'bf16'):
            output = self.model(batch, self._state)
        self._state = output.state
        return to_vector_maps(
            output,
            self.config,
            score_threshold=self.score_threshold,
            max_elements=self.max_elements,
            closing_distance_m=self.closing_distance_m,
            stamps_ns=[frame.stamp_ns for frame in frames],
            sample_ids=[frame.sample_id for frame in frames],
            scenes=[frame.scene for frame in frames],
            map_from_base=[frame.map_from_base for frame in frames],
            ego_from_reference=inputs.ego_from_reference,
        )
