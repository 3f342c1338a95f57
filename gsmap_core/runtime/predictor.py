"""The one object that turns camera sets into vector maps: for node, evaluator and demo.

It owns the model, the device, the precision and (with temporal models) the state between frames,
which it drops where a stream breaks off (`runtime.stream`).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsmap_core.config import ModelConfig
from gsmap_core.errors import ConfigError
from gsmap_core.models.checkpoint import load_checkpoint
from gsmap_core.models.fusion import FusionState
from gsmap_core.models.postprocess import to_vector_maps
from gsmap_core.resources import DEFAULT_WEIGHTS as DEFAULT_WEIGHTS
from gsmap_core.resources import resolve_weights as resolve_weights
from gsmap_core.runtime.inputs import InputBuilder
from gsmap_core.runtime.stream import RESET_REASONS, StreamGuard, StreamStatus
from gsmap_core.structures import CameraRig, SurroundFrame, VectorMap

_LOGGER = logging.getLogger(__name__)

PRECISIONS: tuple[str, ...] = ('fp32', 'bf16')


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


@dataclass(frozen=True)
class PredictTimes:
    """How long the parts of one call took.

    Args:
        prepare_s: images resized, normalised and handed to the device [s].
        model_s: the network [s]; what follows is post-processing.
    """

    prepare_s: float = 0.0
    model_s: float = 0.0


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
        max_gap_s: a temporal model starts anew after so long without a set, or without a pose [s].
        max_pose_jump_m: and after a motion so much larger than a vehicle makes [m], see
            `StreamGuard`.

    Raises:
        CheckpointError: the file is missing, truncated or not one of ours.
        ConfigError: device, precision, threshold or a limit is not allowed.
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
        max_gap_s: float = 2.0,
        max_pose_jump_m: float = 10.0,
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
        area = self.config.range
        corners = (area.x_min, area.x_max, area.y_min, area.y_max)
        self._new_guard = partial(
            StreamGuard, max_gap_s, max_pose_jump_m, max(abs(value) for value in corners)
        )
        self._guards = [self._new_guard()]
        self._resets = StreamStatus()
        self._lacks_pose = False
        self.last_times = PredictTimes()
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

    @property
    def is_temporal(self) -> bool:
        """Whether the model carries anything from frame to frame."""
        return self.config.has_fusion or self.config.bev.history

    @property
    def stream_status(self) -> StreamStatus:
        """What the memory holds and when it was last dropped; of a batch, its first row.

        All zero for a model without memory, but for the resets that were asked for.
        """
        state = self._state
        if not isinstance(state, FusionState):
            return self._resets
        return replace(
            self._resets,
            num_frames=int(state.num_frames[0]),
            num_key_frames=int(state.num_key_frames[0]),
            travelled_m=float(state.travelled_m[0]),
        )

    @property
    def state_bytes(self) -> int:
        """Memory that is carried from frame to frame, of all rows, however long the drive."""
        if isinstance(self._state, FusionState):
            return self._state.num_bytes
        return 0 if self._state is None else self._state.numel() * self._state.element_size()

    def reset(self, reason: str = 'requested') -> None:
        """Forget the state between frames, of all rows (a new drive, a jump in time or place).

        Args:
            reason: one of `RESET_REASONS`, for `stream_status`.
        """
        if reason not in RESET_REASONS:
            raise ConfigError(
                f"reset reason '{reason}' is unknown; expected one of {', '.join(RESET_REASONS)}"
            )
        self._count_reset(reason, self._guards[0].last_stamp_ns)
        self._forget()

    def _forget(self) -> None:
        self._state = None
        self._inputs.reset()
        for guard in self._guards:
            guard.forget()

    def _count_reset(self, reason: str, stamp_ns: int | None) -> None:
        self._resets = StreamStatus(
            num_resets=self._resets.num_resets + 1,
            last_reset_reason=reason,
            last_reset_stamp_ns=stamp_ns,
        )

    def _guard(self, frames: Sequence[SurroundFrame]) -> None:
        """Drop the memory of rows that do not go on from the set before."""
        if len(frames) != len(self._guards):
            if self._state is not None and self.config.has_fusion:
                self._count_reset('batch_changed', frames[0].stamp_ns)
                self._forget()
            self._guards = [self._new_guard() for _ in frames]
        reasons = [guard.check(frame) for guard, frame in zip(self._guards, frames, strict=True)]
        for frame, reason in zip(frames, reasons, strict=True):
            if reason:
                self._count_reset(reason, frame.stamp_ns)
                _LOGGER.warning('memory dropped at %d ns: %s', frame.stamp_ns, reason)
        lacks_pose = any(frame.map_from_base is None for frame in frames)
        if lacks_pose and not self._lacks_pose:
            _LOGGER.warning('no ego pose at %d ns: mapped without memory', frames[0].stamp_ns)
        self._lacks_pose = lacks_pose
        if isinstance(self._state, FusionState):
            self._state = self._state.reset([bool(reason) for reason in reasons])
        elif all(reasons):
            self._state = None
            self._inputs.reset()

    def warm_up(self, rig: CameraRig) -> None:
        """Run once on black images of a rig so that the first set is not slow, and forget it."""
        images = tuple(
            np.zeros((camera.height_px, camera.width_px, 3), np.uint8) for camera in rig.cameras
        )
        self._forget()
        self.predict(SurroundFrame(stamp_ns=0, rig=rig, images=images, map_from_base=np.eye(4)))
        self._guards = [self._new_guard()]
        self._forget()

    def predict(self, frame: SurroundFrame) -> VectorMap:
        """Map one camera set; state is carried to the next call of the same stream.

        With fusion a set without a pose is mapped alone, and the next one with a pose goes on with
        the memory. Where the memory was dropped and why: `stream_status`.

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
        """Map several camera sets at once.

        Where the model has state each row is its own drive and goes on with the same row of the
        call before; a row that does not (another scene, a gap, ...) starts anew, and all do when B
        changes. To map sets independently of each other, call `reset` before each batch.

        Args:
            frames: B sets with the same number of cameras.

        Returns:
            B maps in the ego frame at each reference stamp, elements by falling score.

        Raises:
            DataError: the sets do not suit the model, see `InputBuilder.build`.
        """
        if self.is_temporal:
            self._guard(frames)
        start_s = time.perf_counter()
        inputs = self._inputs.build(frames)
        batch = inputs.batch.to(self.device)
        prepared_s = time.perf_counter()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == 'bf16'):
            output = self.model(batch, self._state)
        self._state = output.state
        if self.device.type == 'cuda':
            # Post-processing would wait here anyway; this way the time belongs to the network.
            torch.cuda.synchronize(self.device)
        self.last_times = PredictTimes(prepared_s - start_s, time.perf_counter() - prepared_s)
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
