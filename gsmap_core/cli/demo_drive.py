"""The synthetic drive of the demo: a town that no training has seen, rendered once and kept."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from gsmap_core.data.bag import BagReader, write_bag
from gsmap_core.data.drives import PoseSample, RecordedFrame
from gsmap_core.errors import DataError
from gsmap_core.structures import CameraRig, VectorMap

if TYPE_CHECKING:
    from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording

_LOGGER = logging.getLogger(__name__)
#: Towns from 20000 on are neither trained nor selected on; see docs/data.md.
HELD_OUT_TOWN_SEED = 30000
_SPEC_KEY = 'demo_spec'
_MAX_WORKERS = 8


def demo_spec() -> DriveSpec:
    """Return the drive of the demo: 20 s at 5 Hz, six cameras of 800 x 450."""
    from gsmap_core.data.synthetic.recording import DriveSpec

    return DriveSpec(
        town_seed=HELD_OUT_TOWN_SEED,
        drive_seed=0,
        rig='nuscenes_like',
        duration_s=20.0,
        rate_hz=5.0,
        image_width_px=800,
    )


# In a worker process: the recording it renders from, made once.
_worker_recording: SyntheticRecording | None = None


def _start_worker(spec: DriveSpec) -> None:
    import cv2
    import torch

    from gsmap_core.data.synthetic.recording import SyntheticRecording

    global _worker_recording
    # One core per process: threads of several processes would only get in each other's way.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker_recording = SyntheticRecording(spec)


def _render(index: int) -> RecordedFrame:
    assert _worker_recording is not None
    return _worker_recording.frame(index)


class ParallelRecording:
    """A synthetic drive whose camera sets are rendered by several processes; a `Recording`.

    Args:
        spec: what to record.
        num_workers: processes; 0: one per core, at most 8.
    """

    def __init__(self, spec: DriveSpec, num_workers: int = 0) -> None:
        from gsmap_core.data.synthetic.recording import SyntheticRecording

        self._inner = SyntheticRecording(spec)
        self.spec = spec
        cores = len(os.sched_getaffinity(0))
        self.num_workers = num_workers or min(cores, _MAX_WORKERS)

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return len(self._inner)

    @property
    def name(self) -> str:
        """Name of the drive."""
        return self._inner.name

    @property
    def rig(self) -> CameraRig:
        """Calibration."""
        return self._inner.rig

    @property
    def poses(self) -> list[PoseSample]:
        """Every pose."""
        return self._inner.poses

    @property
    def global_map(self) -> VectorMap | None:
        """The whole town."""
        return self._inner.global_map

    @property
    def metadata(self) -> dict[str, str]:
        """Seeds and settings, and the whole specification."""
        return {**self._inner.metadata, _SPEC_KEY: spec_text(self.spec)}

    def frames(self) -> Iterator[RecordedFrame]:
        """Render the camera sets; they come in time order."""
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(
            self.num_workers, context, initializer=_start_worker, initargs=(self.spec,)
        ) as pool:
            yield from pool.map(_render, range(len(self)))


def spec_text(spec: DriveSpec) -> str:
    """Return everything the pictures depend on as one line."""
    from gsmap_core.data.synthetic.town import GENERATOR_VERSION

    return json.dumps({'generator_version': GENERATOR_VERSION, **asdict(spec)}, sort_keys=True)


def is_current(path: Path, spec: DriveSpec) -> bool:
    """Tell whether a complete bag of this drive is there already."""
    if not path.exists():
        return False
    try:
        return BagReader(path).metadata.get(_SPEC_KEY) == spec_text(spec)
    except DataError as error:
        _LOGGER.warning('%s; making it again', error)
        return False


def synthetic_bag(path: Path, spec: DriveSpec | None = None) -> Path:
    """Make the bag of a synthetic drive, or take the one that is there.

    Args:
        path: folder of the bag.
        spec: what to record; None: the drive of the demo.

    Returns:
        `path`.

    Raises:
        ConfigError: the specification is not possible.
    """
    spec = demo_spec() if spec is None else spec
    if is_current(path, spec):
        return path
    recording = ParallelRecording(spec)
    with tqdm(
        total=len(recording), desc='drive', unit='set', file=sys.stderr, disable=None
    ) as bar:
        write_bag(
            recording, path, progress=lambda done, _: bar.update(done - bar.n), overwrite=True
        )
    return path
