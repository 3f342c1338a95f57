"""From drives to batches: samples, the cache of prepared pictures, collation, resumable sampling.

The order of the samples and everything random about one of them follow from the seed, the epoch
and the index alone, so that neither the number of workers nor an interruption changes a training.
"""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gsmap_core.categories import category_by_name
from gsmap_core.config import ModelConfig
from gsmap_core.data.augmentation import (
    EGO_FLIP,
    AugmentationConfig,
    PreparedFrame,
    augment,
)
from gsmap_core.data.batches import Batch as Batch
from gsmap_core.data.batches import Sample as Sample
from gsmap_core.data.batches import collate as collate
from gsmap_core.data.drives import Drive
from gsmap_core.data.groundtruth import cut_local_map
from gsmap_core.data.prepared_frames import PreparedFrames
from gsmap_core.data.published_augmentation import distort_in_hsv
from gsmap_core.data.sequences import SequenceKey, spread_drives
from gsmap_core.data.sweeps import DepthTargets, pixels_from_ego
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.frame_inputs import can_bus_features, ego_from_lidar
from gsmap_core.structures import FloatArray, VectorMap
from gsmap_core.targets import TargetCameras, make_targets

logger = logging.getLogger(__name__)

BatchT = TypeVar('BatchT')

#: More unreadable frames than this share of the data end a training.
MAX_BAD_FRACTION = 0.05
#: Replacements tried for one unreadable frame.
_MAX_REDRAWS = 20
#: Replacements tried for one frame without elements.
_MAX_EMPTY_REDRAWS = 200


class MapDataset(Dataset[Sample]):
    """Frames of one or more drives with their targets.

    An item is asked for by `(epoch, index)`; the epoch only selects the random numbers. Items of
    a sequence have keys of three numbers (`data.sequences`).

    Args:
        drives: at least one, all with ground truth.
        config: the model that is trained.
        augmentation: random changes; None: samples as they are.
        seed: of everything random.
        cache_gb: memory for prepared pictures [GiB]; 0: none.
        stride: use every n-th frame.
        max_frames: use at most this many frames, spread evenly (whole drives for a model with
            temporal fusion); None: all.
        skip_empty: replace a frame without any element of the model's categories by another one.

    Raises:
        DataError: no frame, a drive has no ground truth, or the model learns depth and a drive has
            no LiDAR.
        ConfigError: mirroring was asked for with learned camera embeddings, or a cache with
            colours that change before pictures are prepared.
    """

    def __init__(
        self,
        drives: Sequence[Drive],
        config: ModelConfig,
        augmentation: AugmentationConfig | None = None,
        *,
        seed: int = 0,
        cache_gb: float = 0.0,
        stride: int = 1,
        max_frames: int | None = None,
        skip_empty: bool = False,
    ) -> None:
        # LSS has no embeddings of cameras, whatever number it is made for.
        learns_cameras = config.num_cameras and config.bev.view_transform != 'lss'
        if augmentation is not None and augmentation.mirror and learns_cameras:
            raise ConfigError(
                f'augmentation.mirror is {augmentation.mirror} but the model learns one embedding '
                'per camera, and mirroring exchanges left and right; set it to 0'
            )
        if augmentation is not None and augmentation.mirror and config.reference != 'ego':
            raise ConfigError(
                f'augmentation.mirror is {augmentation.mirror} but the model predicts in the '
                f'{config.reference} frame, which mirroring left and right does not know; set it '
                'to 0'
            )
        self.drives, self.config = tuple(drives), config
        self.augmentation, self.seed, self.skip_empty = augmentation, seed, skip_empty
        self._category_ids = {category_by_name(name).id for name in config.categories}
        frames = [
            (number, index)
            for number, drive in enumerate(self.drives)
            for index in range(0, len(drive), stride)
        ]
        if not frames:
            raise DataError(
                f'{len(self.drives)} drives hold no frame; expected at least one camera set'
            )
        self.frames = frames
        if max_frames is not None and len(frames) > max_frames:
            spread = np.linspace(0, len(frames) - 1, max_frames).round().astype(int).tolist()
            # A memory needs what comes before a frame.
            chosen = spread_drives(self.drive_frames, max_frames) if config.has_fusion else spread
            self.frames = [frames[i] for i in chosen]
        for drive in self.drives:
            if len(drive) and drive.ground_truth(0) is None:
                raise DataError(
                    f"drive '{drive.name}' has no ground truth; training and validation need the "
                    'topic /ground_truth/local_map'
                )
        self._depth = DepthTargets(self.drives, config) if config.losses.depth else None
        self._maps: dict[int, VectorMap] = {}
        self._pictures = PreparedFrames(self.drives, self.frames, config, augmentation, cache_gb)
        self.cache = self._pictures.cache

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    @property
    def drive_frames(self) -> list[range]:
        """Indices of the frames of every drive, by time; drives without any left out."""
        numbers = [number for number, _ in self.frames]
        firsts = [i for i, number in enumerate(numbers) if i == 0 or numbers[i - 1] != number]
        return [range(*ends) for ends in itertools.pairwise([*firsts, len(numbers)])]

    def describe(self, index: int) -> str:
        """Name a frame for messages."""
        return self._pictures.describe(index)

    def ground_truth(self, index: int) -> VectorMap:
        """Return the elements of one frame in the model's reference frame; kept once read.

        Raises:
            DataError: the frame has none, it cannot be read, or the model's frame is the lidar's
                and the drive does not hold its whole map or a pose to cut it anew.
        """
        found = self._maps.get(index)
        if found is None:
            number, frame = self.frames[index]
            found = self.drives[number].ground_truth(frame)
            if found is None:
                raise DataError(f'{self.describe(index)}: has no ground truth')
            if found.reference == 'ego' and self.config.reference == 'lidar':
                found = self._in_lidar_frame(self.drives[number], found, self.describe(index))
            self._maps[index] = found
        return found

    def _in_lidar_frame(self, drive: Drive, truth: VectorMap, where: str) -> VectorMap:
        """Cut the map around the lidar: its range is another one than the vehicle's."""
        whole = drive.global_map
        if whole is None or truth.map_from_base is None:
            missing = 'the whole map (/ground_truth/map)' if whole is None else 'a pose'
            raise DataError(
                f"{where}: model '{self.config.name}' learns in the lidar frame and the drive "
                f'lacks {missing}; give drives that have it, or train in the ego frame'
            )
        cut = cut_local_map(
            whole.elements,
            truth.map_from_base @ ego_from_lidar(drive.rig, self.config),
            self.config.range,
            truth.stamp_ns,
            truth.sample_id,
            truth.scene,
        )
        return replace(cut, reference='lidar', map_from_base=truth.map_from_base)

    def _can_bus(self, index: int, truth: VectorMap) -> Tensor | None:
        bev = self.config.bev
        if not (bev.can_bus and bev.can_bus_source == 'pose'):
            return None
        if truth.map_from_base is None:
            raise DataError(
                f"{self.describe(index)}: model '{self.config.name}' reads the heading and the "
                "frame has no pose; give drives with poses, or set bev.can_bus_source to 'zeros'"
            )
        features = can_bus_features(truth.map_from_base, None, bev.can_bus_rest)
        return torch.from_numpy(features).float()

    def prepared(
        self, index: int, change: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> PreparedFrame:
        """Return the pictures and calibration of one frame, from the cache where possible.

        Args:
            index: position in the dataset.
            change: applied to the recorded pictures; only without a cache.

        Raises:
            DataError: an image cannot be read.
        """
        return self._pictures.prepared(index, change)

    def load(
        self, index: int, generator: np.random.Generator, is_mirrored: bool | None = None
    ) -> Sample:
        """Read, augment and turn into tensors.

        Args:
            index: position in the dataset.
            generator: draws what is random.
            is_mirrored: as in `augment`.

        Raises:
            DataError: the frame cannot be read.
        """
        config, change = self.augmentation, None
        if config is not None and config.changes_recorded:
            change = partial(distort_in_hsv, config=config, generator=generator)
        frame, ground_truth = self.prepared(index, change), self.ground_truth(index)
        map_from_base = ground_truth.map_from_base
        if config is not None:
            frame, ground_truth = augment(
                frame, ground_truth, config, self.config.image, generator, is_mirrored
            )
        matrices = pixels_from_ego(frame)
        bins = None if self._depth is None else self._depth.bins(*self.frames[index], frame)
        transform = self._ego_from_reference(index)
        from_reference = matrices if transform is None else matrices @ transform.double().numpy()
        cameras = TargetCameras(from_reference, frame.camera_mask, bins)
        return Sample(
            pictures=torch.from_numpy(np.ascontiguousarray(frame.pictures)),
            pixels_from_ego=torch.from_numpy(matrices).float(),
            base_from_cameras=torch.from_numpy(frame.base_from_cameras).float(),
            intrinsics=torch.from_numpy(frame.intrinsics).float(),
            camera_mask=torch.from_numpy(frame.camera_mask),
            targets=make_targets(ground_truth, self.config, generator, cameras),
            index=index,
            can_bus=self._can_bus(index, ground_truth),
            ego_from_reference=transform,
            map_from_base=self._pose(index, map_from_base, frame),
        )

    def _pose(
        self, index: int, map_from_base: FloatArray | None, frame: PreparedFrame
    ) -> Tensor | None:
        """Return the ego pose that models with fusion need, from the ego frame of the sample."""
        if not self.config.has_fusion:
            return None
        if map_from_base is None:
            raise DataError(
                f"{self.describe(index)}: model '{self.config.name}' fuses frames over time and "
                "the frame has no pose; give drives with poses, or set fusion.kind to 'none'"
            )
        return torch.from_numpy(map_from_base @ EGO_FLIP if frame.mirrored else map_from_base)

    def _ego_from_reference(self, index: int) -> Tensor | None:
        if self.config.reference == 'ego':
            return None
        drive = self.drives[self.frames[index][0]]
        return torch.from_numpy(ego_from_lidar(drive.rig, self.config)).float()

    def _is_empty(self, index: int) -> bool:
        elements = self.ground_truth(index).elements
        return not any(element.category in self._category_ids for element in elements)

    def _filled(self, index: int, generator: np.random.Generator) -> int:
        """Return the frame, or one drawn instead because it has no element."""
        for _ in range(_MAX_EMPTY_REDRAWS):
            if not self._is_empty(index):
                return index
            index = int(generator.integers(len(self.frames)))
        raise DataError(
            f'{_MAX_EMPTY_REDRAWS} frames drawn in a row have no element of '
            f'{", ".join(self.config.categories)}; give data with ground truth, or set '
            'skip_empty to false'
        )

    def _random_frames(self, generator: np.random.Generator) -> Iterator[int]:
        while True:
            yield int(generator.integers(len(self.frames)))

    def _neighbours(self, index: int, first: int) -> Iterator[int]:
        """Yield what may stand for a frame of a sub-sequence: those before it, then those after.

        The vehicle then seems to wait, which a memory can follow; at another place it could not.
        """
        yield from range(index - 1, first - 1, -1)
        for after in range(index + 1, len(self.frames)):
            if self.frames[after][0] != self.frames[index][0]:
                return
            yield after

    def _is_mirrored(self, epoch: int, first: int) -> bool | None:
        """Draw whether the world of a sub-sequence is mirrored, in all of its frames alike."""
        if self.augmentation is None:
            return None
        draw = np.random.default_rng((self.seed, epoch, first, 1)).random()
        return bool(draw < self.augmentation.mirror)

    def __getitem__(self, key: tuple[int, int] | SequenceKey) -> Sample:
        """Return the sample of (epoch, index), or another one where that cannot be used.

        A key of a sub-sequence has its first frame as a third number. Its frames are mirrored all
        or none, one that cannot be read is replaced by a neighbour, and empty ones stay.

        Raises:
            DataError: many frames in a row cannot be read, or are empty with `skip_empty`.
        """
        epoch, index, *sequence = key
        generator = np.random.default_rng((self.seed, epoch, index))
        instead, is_mirrored, starts = self._random_frames(generator), None, None
        if sequence:
            instead = self._neighbours(index, sequence[0])
            is_mirrored, starts = self._is_mirrored(epoch, sequence[0]), index == sequence[0]
        bad: list[int] = []
        last_error: DataError | None = None
        for chosen in itertools.islice(itertools.chain((index,), instead), _MAX_REDRAWS):
            try:
                if self.skip_empty and not sequence:
                    chosen = self._filled(chosen, generator)
                sample = self.load(chosen, generator, is_mirrored)
                return replace(sample, bad_frames=tuple(bad), starts=starts)
            except DataError as error:
                logger.warning('skipped %s: %s', self.describe(chosen), error)
                bad.append(chosen)
                last_error = error
        raise DataError(f'{len(set(bad))} of {len(bad)} frames are unreadable; last: {last_error}')


class NamedFrames(Protocol):
    """Frames that can be counted and named."""

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def describe(self, index: int) -> str:
        """Name a frame for messages."""
        ...


class BadFrames:
    """Counts unreadable frames and ends a training that has too many of them.

    Args:
        dataset: names the frames and gives their number.
    """

    def __init__(self, dataset: NamedFrames) -> None:
        self._dataset = dataset
        self._seen: set[int] = set()

    def __len__(self) -> int:
        """Return how many different frames could not be read."""
        return len(self._seen)

    def add(self, indices: Sequence[int]) -> None:
        """Count frames.

        Raises:
            DataError: more than 5 % of all frames are unreadable.
        """
        self._seen.update(indices)
        if len(self._seen) > MAX_BAD_FRACTION * len(self._dataset):
            examples = '; '.join(self._dataset.describe(i) for i in sorted(self._seen)[:5])
            raise DataError(
                f'{len(self._seen)} of {len(self._dataset)} frames are unreadable, more than '
                f'{MAX_BAD_FRACTION:.0%} (see the log): {examples}; record these drives again'
            )


def _init_worker(_: int) -> None:
    # One process per worker already; OpenCV's own threads would fight over the same cores.
    cv2.setNumThreads(0)
    # Handlers of the training process came along with the fork. Ctrl-C reaches the whole group,
    # but only the training process decides when to stop; it ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _outlive_once)


def _outlive_once(number: int, _: object) -> None:
    """Go on after a first SIGTERM, end at the next.

    Service and job managers send it to every process of a group: the training process still needs
    batches to come to the end of its step and save. Whoever means the worker repeats it.
    """
    signal.signal(number, signal.SIG_DFL)


def make_loader(
    dataset: MapDataset,
    batches: Sampler[list[tuple[int, int]]] | Sampler[list[SequenceKey]],
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Build the loader of a dataset.

    Args:
        dataset: what to load.
        batches: which samples, in batches.
        num_workers: loader processes (forked, so that they share the cache); 0: load in this one.
        pin_memory: stage batches in page-locked memory for a GPU.
    """
    return build_loader(dataset, batches, collate, num_workers, pin_memory)


def build_loader(
    dataset: Any,
    batches: Sampler[Any],
    collation: Callable[[Any], BatchT],
    num_workers: int,
    pin_memory: bool,
) -> DataLoader[BatchT]:
    """Build a loader whose batches a function makes; arguments as `make_loader`."""
    return DataLoader(
        # The collation turns samples into batches, which the loader's type does not express.
        cast('Dataset[BatchT]', dataset),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collation,
        pin_memory=pin_memory,
        worker_init_fn=_init_worker if num_workers else None,
        persistent_workers=num_workers > 0,
        multiprocessing_context='fork' if num_workers else None,
    )


def find_bags(path: Path | str) -> list[Path]:
    """Find the bags below a path: the path itself, or every bag in the folder, by name.

    Raises:
        DataError: nothing there.
    """
    path = Path(path)
    if path.is_file() or (path / 'metadata.yaml').is_file():
        return [path]
    # Names that begin with a dot are files being written, or left by a writer that was killed.
    found = [
        item
        for pattern in ('metadata.yaml', '*.mcap')
        for item in path.rglob(pattern)
        if not any(part.startswith('.') for part in item.relative_to(path).parts)
    ]
    bags = {item.parent for item in found if item.name == 'metadata.yaml'}
    bags |= {item for item in found if item.suffix == '.mcap' and item.parent not in bags}
    if not bags:
        raise DataError(
            f"'{path}' holds no bag; expected a .mcap file, a bag folder (metadata.yaml) or a "
            'folder of those; make one with gsmap synth'
        )
    return sorted(bags)
