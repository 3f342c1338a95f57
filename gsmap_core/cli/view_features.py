"""What `gsmap view --bev-features` does: BEV features of checkpoints on bags, side by side."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gsmap_core.cli.view_pictures import check_frame
from gsmap_core.config import ModelConfig
from gsmap_core.contrastive_config import PairConfig
from gsmap_core.data.bag import BagDrive, open_bag
from gsmap_core.data.frame_pairs import FramePairs, find_frame_pairs, pose_tables_of
from gsmap_core.data.loading import find_bags
from gsmap_core.errors import DataError
from gsmap_core.evaluation.bev_features import FeatureReport, FeatureStatistics, place_agreement
from gsmap_core.geometry.bev_correspondence import corresponding_cells
from gsmap_core.geometry.transforms import invert
from gsmap_core.models.checkpoint import load_checkpoint
from gsmap_core.runtime.inputs import InputBuilder
from gsmap_core.runtime.predictor import resolve_weights
from gsmap_core.structures import FloatArray, ImageArray
from gsmap_core.viz.bev_features import FeaturePanels, components_of, draw_bev_features

#: Frames that statistics are made of, spread evenly over all.
MAX_FRAMES = 200
#: Pairs of frames whose agreement is measured.
MAX_PAIRS = 50


class FeatureReader:
    """BEV features of frames by one checkpoint, every frame by itself.

    Args:
        weights: name or path of the checkpoint.
        drives: that the frames are of.
    """

    def __init__(self, weights: str, drives: Sequence[BagDrive]) -> None:
        path = resolve_weights(weights)
        loaded = load_checkpoint(path)
        self.title, self.config, self._model = path.stem, loaded.config, loaded.model.eval()
        if self.title in ('model', 'best'):
            self.title = path.resolve().parent.name
        self._inputs, self._drives = InputBuilder(self.config), drives

    @torch.inference_mode()
    def read(self, drive: int, frame: int) -> FloatArray:
        """Return (C, H, W) features that the decoder reads."""
        self._inputs.reset()
        batch = self._inputs.build([self._drives[drive].frame(frame)]).batch
        model = self._model
        bev, _ = model.fuse(model.lift(model.encode(batch), batch), batch)
        return bev[0].double().numpy()


def picture_of_features(args: argparse.Namespace) -> tuple[ImageArray, dict[str, Any]]:
    """Draw the BEV features of a frame by every checkpoint, and what stays in place over frames.

    The frame is one of the first bag; the statistics are over all of them, and where they pass the
    same streets, how alike features of one place are in different drives.

    Raises:
        DataError: no bag, or the frame is not there.
    """
    drives = [open_bag(path) for path in find_bags(args.source)]
    check_frame(args.frame, len(drives[0]), str(drives[0].path))
    every = [(d, f) for d, drive in enumerate(drives) for f in range(len(drive))]
    chosen = np.linspace(0, len(every) - 1, min(len(every), MAX_FRAMES)).round().astype(int)
    panels, reports = [], {}
    for weights in args.bev_features:
        reader = FeatureReader(weights, drives)
        statistics = FeatureStatistics()
        for index in tqdm(chosen, desc=reader.title, unit='frame'):
            statistics.add(reader.read(*every[index]))
        result = statistics.result()
        report = {**result.to_dict(), **_agreement(reader, drives, result)}
        reports[str(Path(weights))] = report
        components = result.components
        panels.append(
            FeaturePanels(
                title=reader.title,
                numbers=_numbers(report),
                frame=components_of(reader.read(0, args.frame), components),
                mean=components_of(result.mean, components),
                pattern=result.fixed_pattern(),
                grid=reader.config.grid,
            )
        )
    title = f'{drives[0].name} · frame {args.frame} · BEV features'
    picture = draw_bev_features(panels, drives[0].ground_truth(args.frame), title=title)
    return picture, {'title': title, 'frames': len(chosen), 'features': reports}


def feature_lines(reports: dict[str, Any]) -> list[str]:
    """Return a line of text per checkpoint."""
    lines = []
    for weights, report in reports.items():
        line = (
            f'{weights}: {report["fixed_share"]:.3f} of the variance is fixed in the grid, '
            f'{report["lengthwise_share"]:.3f} along the vehicle ({report["frames"]} frames)'
        )
        if report['pairs']:
            line += (
                f'; cosine {report["same_place_cosine"]:.3f} of one place in two drives, '
                f'{report["other_cosine"]:.3f} of two places ({report["pairs"]} pairs of frames)'
            )
        lines.append(line)
    return lines


def _numbers(report: dict[str, Any]) -> tuple[str, ...]:
    """Return the lines above the pattern."""
    lines = [
        f'fixed in the grid: {report["fixed_share"]:.1%}, '
        f'lengthwise {report["lengthwise_share"]:.1%}'
    ]
    if report['same_place_cosine'] is not None:
        same, other = report['same_place_cosine'], report['other_cosine']
        lines.append(f'one place {same:.3f}, two places {other:.3f}')
    return tuple(lines)


def _agreement(
    reader: FeatureReader, drives: Sequence[BagDrive], result: FeatureReport
) -> dict[str, Any]:
    """Return how alike features of one place are across drives; None where no streets are shared.

    Models in the lidar frame are left out.
    """
    nothing = {'pairs': 0, 'same_place_cosine': None, 'other_cosine': None}
    pairs = _pairs(drives, reader.config) if reader.config.reference == 'ego' else None
    if pairs is None:
        return nothing
    tables, generator = pairs.analysis.tables, np.random.default_rng(0)
    number = {drive.name: index for index, drive in enumerate(drives)}
    read = functools.lru_cache(maxsize=64)(reader.read)
    count = min(len(pairs.edges), MAX_PAIRS)
    found = []
    for edge in pairs.edges[np.linspace(0, len(pairs.edges) - 1, count).round().astype(int)]:
        frames = [(tables[pairs.drive[i]], pairs.row[i]) for i in edge]
        poses = [table.map_from_base[row] for table, row in frames]
        grid = reader.config.grid
        cells = corresponding_cells(grid, invert(poses[1]) @ poses[0])
        row, column = np.moveaxis(np.floor(cells.cells).astype(np.int64), -1, 0)
        nearest = np.where(cells.is_inside, row * grid.num_columns + column, -1)
        maps = [read(number[table.name], int(table.frames[row])) for table, row in frames]
        mean = result.mean.mean(axis=(1, 2))
        found.append(place_agreement(maps[0], maps[1], nearest, mean, generator))
    same, other = np.nanmean(np.array(found), axis=0).tolist()
    return {'pairs': count, 'same_place_cosine': same, 'other_cosine': other}


def _pairs(drives: Sequence[BagDrive], config: ModelConfig) -> FramePairs | None:
    try:
        return find_frame_pairs(pose_tables_of(drives), PairConfig(lonely='skip'), config.range)
    except DataError:
        # Drives that share no street, or have no poses, have no place to agree on.
        return None
