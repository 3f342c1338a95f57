"""From unlabelled drives to batches of paired frames with the cells that show the same ground.

As with labelled samples, everything random about a pair follows from the seed, the epoch and its
number alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gsmap_core.config import ModelConfig
from gsmap_core.contrastive_config import ContrastiveConfig
from gsmap_core.data.augmentation import EGO_FLIP, AugmentationConfig, PreparedFrame, augment
from gsmap_core.data.batches import Batch, Sample, collate
from gsmap_core.data.drives import Drive
from gsmap_core.data.frame_pairs import find_frame_pairs, pose_tables_of
from gsmap_core.data.loading import build_loader
from gsmap_core.data.pose_noise import with_pose_noise
from gsmap_core.data.pose_tables import PosedDrive, PoseTable
from gsmap_core.data.prepared_frames import PreparedFrames
from gsmap_core.data.published_augmentation import distort_in_hsv
from gsmap_core.data.sweeps import DepthTargets, pixels_from_ego
from gsmap_core.errors import DataError
from gsmap_core.frame_inputs import can_bus_features, ego_from_lidar
from gsmap_core.geometry.bev_correspondence import corresponding_cells, ground_points, seen_cells
from gsmap_core.geometry.transforms import invert
from gsmap_core.structures import FloatArray, VectorMap
from gsmap_core.targets import MapTargets

logger = logging.getLogger(__name__)

#: Replacements tried for one pair of which a frame cannot be read.
_MAX_REDRAWS = 20


class UnlabelledDrive(Drive, PosedDrive, Protocol):
    """A drive whose frames have poses."""


@dataclass(frozen=True)
class PairSample:
    """Two frames that see the same place.

    Args:
        reference: first frame; its targets are empty but for depth.
        adjacent: second frame.
        nearest: (H, W) int64 flat cell (row * W + column) of the adjacent grid that shows what a
            cell of the reference grid shows; -1 where there is none.
        cells: (H, W, 2) float32 continuous row and column there.
        observed: (2, H, W) bool, cells of both grids that a camera sees (`pairs.observed`).
        index: number of the pair or reference frame in the dataset.
        bad_frames: numbers of frames that could not be read before.
    """

    reference: Sample
    adjacent: Sample
    nearest: Tensor
    cells: Tensor
    observed: Tensor
    index: int
    bad_frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class PairBatch:
    """m collated pairs.

    Args:
        frames: 2 m samples: the references, then the adjacent ones in the same order.
        nearest: (m, H, W) int64, see `PairSample`.
        cells: (m, H, W, 2) float32.
        observed: (2, m, H, W) bool, reference and adjacent grids.
        bad_frames: numbers of frames that could not be read.
    """

    frames: Batch
    nearest: Tensor
    cells: Tensor
    observed: Tensor
    bad_frames: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Return the number of pairs m."""
        return len(self.nearest)

    def pin_memory(self) -> PairBatch:
        """Return the batch in page-locked memory; what cells are drawn from stays as it is."""
        return replace(self, frames=self.frames.pin_memory())


def collate_pairs(samples: Sequence[PairSample]) -> PairBatch:
    """Stack pairs."""
    frames = collate([s.reference for s in samples] + [s.adjacent for s in samples])
    return PairBatch(
        frames=frames,
        nearest=torch.stack([sample.nearest for sample in samples]),
        cells=torch.stack([sample.cells for sample in samples]),
        observed=torch.stack([sample.observed for sample in samples], dim=1),
        bad_frames=tuple(i for sample in samples for i in sample.bad_frames),
    )


class PairDataset(Dataset[PairSample]):
    """Pairs of frames of unlabelled drives.

    An item is asked for by `(epoch, index)`; the epoch selects the random numbers and, with
    `pairs.draw: frame`, the partner.

    Args:
        drives: with poses in one map frame per place; labels are not looked at.
        config: the model that is trained.
        contrastive: which pairs and cells.
        augmentation: random changes of labelled samples; None: none.
        seed: of everything random.

    Raises:
        DataError: a drive has no poses, or no pair (with the numbers); or the depth of unlabelled
            frames is to be learned and a drive has no LiDAR.
        ConfigError: a cache was asked for with colours that change before pictures are prepared.
    """

    def __init__(
        self,
        drives: Sequence[UnlabelledDrive],
        config: ModelConfig,
        contrastive: ContrastiveConfig,
        augmentation: AugmentationConfig | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.config, self.contrastive, self.seed = config, contrastive, seed
        pairs = contrastive.pairs
        self.augmentation = augmentation if pairs.augment == 'same' else None
        by_name = {drive.name: drive for drive in drives}
        ego_tables = [
            with_pose_noise(table, contrastive.pose_noise, seed)
            for table in pose_tables_of(drives)
        ]
        grids = {drive.name: self._ego_from_grid(drive) for drive in drives}
        tables = [_in_grid_frame(table, grids[table.name]) for table in ego_tables]
        self.pairs = find_frame_pairs(tables, pairs, config.range)
        if self.pairs.lonely:
            logger.warning('left out, without pairs: %s', ', '.join(self.pairs.lonely))
        found = self.pairs.analysis.tables
        self.drives = tuple(by_name[table.name] for table in found)
        self.ego_from_grid = [grids[table.name] for table in found]
        self.ground = [ground_points(config.grid, matrix) for matrix in self.ego_from_grid]
        self.map_from_grid = [table.map_from_base for table in found]
        frames = [
            (int(drive), int(found[drive].frames[row]))
            for drive, row in zip(self.pairs.drive, self.pairs.row, strict=True)
        ]
        self.frames = PreparedFrames(
            self.drives, frames, config, self.augmentation, pairs.cache_gb
        )
        self.starts, self.partners = self.pairs.partners()
        self._depth = self._depth_targets() if contrastive.depth else None

    def __len__(self) -> int:
        """Return the number of frames with a partner, or of pairs (`pairs.draw`)."""
        is_by_pair = self.contrastive.pairs.draw == 'pair'
        return len(self.pairs.edges) if is_by_pair else len(self.frames)

    def describe(self, index: int) -> str:
        """Name a frame for messages."""
        return self.frames.describe(index)

    def _ego_from_grid(self, drive: Drive) -> FloatArray | None:
        return None if self.config.reference == 'ego' else ego_from_lidar(drive.rig, self.config)

    def _depth_targets(self) -> DepthTargets:
        for drive in self.drives:
            if len(drive) and drive.lidar_points(0) is None:
                raise DataError(
                    f"drive '{drive.name}' has no LiDAR sweeps and contrastive.depth is "
                    f'{self.contrastive.depth}; give unlabelled drives with sweeps, or set it to 0'
                )
        return DepthTargets(self.drives, self.config)

    def __getitem__(self, key: tuple[int, int]) -> PairSample:
        """Return the pair of (epoch, index), or another one where a frame cannot be read.

        Raises:
            DataError: many pairs in a row cannot be read.
        """
        epoch, index = key
        generator = np.random.default_rng((self.seed, 1, epoch, index))
        bad: list[int] = []
        for _ in range(_MAX_REDRAWS):
            pair = self._draw(index, generator)
            try:
                return replace(self.load(*pair, index, generator), bad_frames=tuple(bad))
            except _UnreadableError as error:
                logger.warning('skipped %s: %s', self.describe(error.frame), error.__cause__)
                bad.append(error.frame)
                index = int(generator.integers(len(self)))
                last_error = error.__cause__
        raise DataError(
            f'{_MAX_REDRAWS} pairs in a row have an unreadable frame; last: {last_error}'
        )

    def _draw(self, index: int, generator: np.random.Generator) -> tuple[int, int]:
        """Return the numbers of the reference and the adjacent frame."""
        if self.contrastive.pairs.draw == 'pair':
            first, second = self.pairs.edges[index].tolist()
            return (second, first) if generator.random() < 0.5 else (first, second)
        low, high = self.starts[index], self.starts[index + 1]
        return index, int(self.partners[generator.integers(low, high)])

    def load(
        self, reference: int, adjacent: int, index: int, generator: np.random.Generator
    ) -> PairSample:
        """Read and augment two frames and find their common cells.

        Args:
            reference: number of a frame.
            adjacent: number of a frame.
            index: of the sample.
            generator: of the augmentation.
        """
        # One world for both: mirrored, or not.
        mirrored = self.augmentation is not None and generator.random() < self.augmentation.mirror
        first, seen_first = self._sample(reference, mirrored, generator)
        second, seen_second = self._sample(adjacent, mirrored, generator)
        nearest, cells = self._matches(reference, adjacent, mirrored)
        return PairSample(
            reference=first,
            adjacent=second,
            nearest=torch.from_numpy(nearest),
            cells=torch.from_numpy(cells),
            observed=torch.from_numpy(np.stack([seen_first, seen_second])),
            index=index,
        )

    def _sample(
        self, number: int, mirrored: bool, generator: np.random.Generator
    ) -> tuple[Sample, np.ndarray]:
        """Return one frame and which of its cells are observed."""
        config, change = self.augmentation, None
        if config is not None and config.changes_recorded:
            change = partial(distort_in_hsv, config=config, generator=generator)
        try:
            frame = self.frames.prepared(number, change)
        except DataError as error:
            raise _UnreadableError(number) from error
        if config is not None:
            nothing = VectorMap((), stamp_ns=0)
            frame, _ = augment(frame, nothing, config, self.config.image, generator, mirrored)
        matrices = pixels_from_ego(frame)
        drive, position = self.frames.frames[number]
        observed = np.ones(self.ground[drive].shape[:2], dtype=bool)
        if self.contrastive.pairs.observed == 'frustum':
            observed = seen_cells(self.ground[drive], matrices, frame.sizes, frame.camera_mask)
        matrix = self.ego_from_grid[drive]
        sample = Sample(
            pictures=torch.from_numpy(np.ascontiguousarray(frame.pictures)),
            pixels_from_ego=torch.from_numpy(matrices).float(),
            base_from_cameras=torch.from_numpy(frame.base_from_cameras).float(),
            intrinsics=torch.from_numpy(frame.intrinsics).float(),
            camera_mask=torch.from_numpy(frame.camera_mask),
            targets=self._targets(drive, position, frame),
            index=number,
            can_bus=self._can_bus(number),
            ego_from_reference=None if matrix is None else torch.from_numpy(matrix).float(),
            map_from_base=self._pose(number, mirrored),
        )
        return sample, observed

    def _targets(self, drive: int, position: int, frame: PreparedFrame) -> MapTargets:
        """Return targets without elements, with depth where it is learned."""
        decoder = self.config.decoder
        points = torch.zeros(0, decoder.num_points, decoder.num_dims)
        bins = None
        if self._depth is not None:
            bins = torch.from_numpy(self._depth.bins(drive, position, frame))
        none = torch.zeros(0, dtype=torch.int64)
        mask = torch.zeros(1, self.config.bev.num_rows, self.config.bev.num_columns)
        return MapTargets(none, points, points[:, None], none, mask.byte(), depth_bins=bins)

    def _can_bus(self, number: int) -> Tensor | None:
        bev = self.config.bev
        if not (bev.can_bus and bev.can_bus_source == 'pose'):
            return None
        pose = self.map_from_ego(number)
        return torch.from_numpy(can_bus_features(pose, None, bev.can_bus_rest)).float()

    def _pose(self, number: int, mirrored: bool) -> Tensor | None:
        """Return the pose that models with fusion ask for, though a pair is no sequence."""
        if not self.config.has_fusion:
            return None
        pose = self.map_from_ego(number)
        return torch.from_numpy(pose @ EGO_FLIP if mirrored else pose)

    def map_from_ego(self, number: int) -> FloatArray:
        """Return the (4, 4) ego pose of a frame, with its errors (`pose_noise`)."""
        drive = int(self.pairs.drive[number])
        pose = self.map_from_grid[drive][self.pairs.row[number]]
        matrix = self.ego_from_grid[drive]
        return pose if matrix is None else pose @ invert(matrix)

    def _matches(
        self, reference: int, adjacent: int, mirrored: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest cells (-1: none) and the continuous ones."""
        other_from_ego = invert(self.map_from_ego(adjacent)) @ self.map_from_ego(reference)
        if mirrored:
            other_from_ego = EGO_FLIP @ other_from_ego @ EGO_FLIP
        grid, pairs = self.config.grid, self.contrastive.pairs
        grids = [self.ego_from_grid[int(self.pairs.drive[i])] for i in (reference, adjacent)]
        found = corresponding_cells(grid, other_from_ego, *grids)
        valid = found.is_inside & (np.abs(found.height_m) <= pairs.max_height_m)
        if pairs.max_distance_m is not None:
            valid &= found.distance_m <= pairs.max_distance_m
        row, column = np.moveaxis(np.floor(found.cells).astype(np.int64), -1, 0)
        nearest = np.where(valid, row * grid.num_columns + column, -1)
        return nearest, found.cells.astype(np.float32)


class _UnreadableError(Exception):
    """A frame of a pair cannot be read; the cause says why."""

    def __init__(self, frame: int) -> None:
        super().__init__(frame)
        self.frame = frame


def _in_grid_frame(table: PoseTable, ego_from_grid: FloatArray | None) -> PoseTable:
    """Return the poses of the model's reference frame, whose range the boxes have."""
    if ego_from_grid is None:
        return table
    return replace(table, map_from_base=table.map_from_base @ ego_from_grid)


def make_pair_loader(
    dataset: PairDataset,
    batches: Sampler[list[tuple[int, int]]],
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[PairBatch]:
    """Build the loader of pairs; arguments as `loading.make_loader`."""
    return build_loader(dataset, batches, collate_pairs, num_workers, pin_memory)
