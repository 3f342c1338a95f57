"""Which cells of a pair of BEV grids are anchors, positives and negatives of the contrastive loss.

Everything is drawn on the CPU with a generator of its own, so that a training can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gsmap_core.contrastive_config import ContrastiveConfig

IndexArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CellDraw:
    """The cells of one pair: A anchors with K negatives each. Flat cells are row * W + column.

    Args:
        anchors: (A,) int64 cells of the reference grid, each once.
        positives: (A,) int64 cells of the adjacent grid that show the same ground.
        positive_cells: (A, 2) float32 continuous row and column there.
        negatives: (A, K) int64 cells of both grids; those of the adjacent grid are counted on
            from H * W. K is 0 with `negatives: anchors`.
    """

    anchors: IndexArray
    positives: IndexArray
    positive_cells: npt.NDArray[np.float32]
    negatives: IndexArray

    def __len__(self) -> int:
        """Return the number of anchors A."""
        return len(self.anchors)


def draw_cells(
    nearest: IndexArray,
    cells: npt.NDArray[np.float32],
    observed: BoolArray,
    config: ContrastiveConfig,
    generator: np.random.Generator,
    importance: npt.NDArray[np.float32] | None = None,
) -> CellDraw:
    """Draw the cells of one pair.

    Anchors come without repetition from the cells whose ground both frames observe; fewer than
    asked for where there are fewer. Negatives come with repetition from the observed cells of
    each grid, but not from the block around anchor or positive. A pair with a grid that has not
    more observed cells than such a block gives no anchors.

    Args:
        nearest: (H, W) int64 flat cell of the adjacent grid, -1: none.
        cells: (H, W, 2) continuous row and column there.
        observed: (2, H, W) bool, both grids.
        config: counts, ways to draw and the radius of the block.
        generator: of the draw.
        importance: (H, W) weights of the cells of the reference grid with `anchor_draw:
            feature_norm`; not negative.

    Source: MapGCLR, sampling strategy; the block around is reference-models.md, 9.3.
    """
    shape = nearest.shape
    flat, seen = nearest.ravel(), observed.reshape(2, -1)
    valid = np.flatnonzero((flat >= 0) & seen[0] & seen[1][flat])
    count = min(config.num_anchors, len(valid))
    block = (2 * config.exclude_radius + 1) ** 2
    if seen.sum(axis=1).min() <= block:
        count = 0
    share = None
    if importance is not None and count:
        # A touch of uniformity keeps the draw possible where all else is zero.
        weights = importance.ravel()[valid].astype(np.float64)
        weights = weights + 1e-6 * (weights.mean() + 1e-6)
        share = weights / weights.sum()
    anchors = generator.choice(valid, count, replace=False, p=share, shuffle=False)
    anchors = anchors.astype(np.int64)
    positives = flat[anchors]
    num_negatives = config.num_negatives if config.negatives == 'sampled' else 0
    half = num_negatives // 2
    negatives = [
        _draw_outside(np.flatnonzero(seen[side]), own, shape, config.exclude_radius, k, generator)
        for side, own, k in ((0, anchors, half), (1, positives, num_negatives - half))
    ]
    negatives[1] = negatives[1] + flat.size
    return CellDraw(
        anchors=anchors,
        positives=positives,
        positive_cells=cells.reshape(-1, 2)[anchors],
        negatives=np.concatenate(negatives, axis=1),
    )


def block_around(cells: IndexArray, shape: tuple[int, ...], radius: int) -> IndexArray:
    """Return (A, B) the flat cells of the block around each of (A,) cells; -1 outside the grid."""
    step = np.arange(-radius, radius + 1)
    row = (cells // shape[1])[:, None, None] + step[:, None]
    column = (cells % shape[1])[:, None, None] + step
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    block = np.where(inside, row * shape[1] + column, -1)
    return block.reshape(len(cells), -1)


def _draw_outside(
    eligible: IndexArray,
    own: IndexArray,
    shape: tuple[int, ...],
    radius: int,
    count: int,
    generator: np.random.Generator,
) -> IndexArray:
    """Draw (A, count) of the eligible cells, uniformly outside the block around each own cell."""
    if not count or not len(own):
        return np.zeros((len(own), count), dtype=np.int64)
    rank_of = np.full(shape[0] * shape[1] + 1, -1, dtype=np.int64)  # the last one is that of -1
    rank_of[eligible] = np.arange(len(eligible))
    excluded = rank_of[block_around(own, shape, radius)]
    left = len(eligible) - (excluded >= 0).sum(axis=1)
    # Excluded ranks in ascending order, those that are none behind all others: stepping over
    # them one by one leaves the drawn one among the rest.
    excluded = np.sort(np.where(excluded < 0, len(eligible) + 1, excluded), axis=1)
    drawn = (generator.random((len(own), count)) * left[:, None]).astype(np.int64)
    drawn = np.minimum(drawn, left[:, None] - 1)
    for rank in excluded.T:
        drawn += drawn >= rank[:, None]
    return eligible[drawn]
