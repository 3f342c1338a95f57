"""Anchors, positives and negatives: only where both frames see, never in the excluded block."""

from dataclasses import replace

import numpy as np
import pytest

from gsmap_core.contrastive_config import ContrastiveConfig
from gsmap_core.losses.contrastive_cells import block_around, draw_cells

SHAPE = (6, 5)
CONFIG = ContrastiveConfig(num_anchors=8, num_negatives=40)


def shifted(rows=2):
    """The adjacent vehicle is some rows ahead; what is behind its grid has no cell there."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    nearest = np.where(row + rows < SHAPE[0], (row + rows) * SHAPE[1] + column, -1)
    cells = np.stack([row + rows + 0.7, column + 0.4], axis=-1).astype(np.float32)
    return nearest.astype(np.int64), cells


def everything():
    return np.ones((2, *SHAPE), dtype=bool)


def test_anchors_lie_where_both_see():
    nearest, cells = shifted()
    observed = everything()
    observed[0, 0] = False  # row 0 of the reference grid
    observed[1, 4] = False  # row 4 of the adjacent grid: row 2 of the reference grid
    config = replace(CONFIG, num_anchors=100, num_negatives=5)
    draw = draw_cells(nearest, cells, observed, config, np.random.default_rng(0))
    expected = [r * 5 + c for r in (1, 3) for c in range(5)]
    assert sorted(draw.anchors.tolist()) == expected
    np.testing.assert_array_equal(draw.positives, draw.anchors + 10)
    np.testing.assert_allclose(draw.positive_cells[:, 0], draw.anchors // 5 + 2.7)
    assert draw.negatives.shape == (10, 5)
    assert (draw.negatives[:, :2] < 30).all() and (draw.negatives[:, 2:] >= 30).all()
    few = draw_cells(nearest, cells, observed, CONFIG, np.random.default_rng(0))
    assert len(set(few.anchors.tolist())) == 8 and set(few.anchors.tolist()) <= set(expected)


@pytest.mark.parametrize('radius', [0, 1])
def test_negatives_are_uniform_outside_the_block(radius):
    nearest, cells = shifted()
    observed = everything()
    observed[0, 5], observed[1, 0] = False, False
    config = replace(CONFIG, num_negatives=60_000, exclude_radius=radius, num_anchors=3)
    draw = draw_cells(nearest, cells, observed, config, np.random.default_rng(3))
    for anchor, positive, negatives in zip(
        draw.anchors, draw.positives, draw.negatives, strict=True
    ):
        for side, own in ((0, anchor), (1, positive)):
            row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
            near = np.maximum(abs(row - own // 5), abs(column - own % 5)) <= radius
            allowed = observed[side] & ~near
            counts = np.bincount(
                negatives[side * 30_000 : (side + 1) * 30_000] - 30 * side, minlength=30
            )
            assert (counts[~allowed.ravel()] == 0).all()
            share = counts[allowed.ravel()] / 30_000 * allowed.sum()
            assert share.min() > 0.8 and share.max() < 1.2


def test_too_little_to_draw_from_gives_no_anchors():
    nearest, cells = shifted()
    observed = everything()
    observed[1] = False
    observed[1].flat[:10] = True  # one more than a block has: but no ground in common
    none = draw_cells(nearest, cells, observed, CONFIG, np.random.default_rng(0))
    assert len(none) == 0 and none.negatives.shape == (0, 40)
    nearest[:] = np.arange(30).reshape(SHAPE)
    some = draw_cells(nearest, cells, observed, CONFIG, np.random.default_rng(0))
    assert len(some) == 8
    observed[1].flat[9] = False
    assert not len(draw_cells(nearest, cells, observed, CONFIG, np.random.default_rng(0)))


def test_importance_draws_strong_cells_more_often():
    nearest, cells = shifted(0)
    importance = np.zeros(SHAPE, dtype=np.float32)
    importance[2, :3] = 1.0
    config = replace(CONFIG, num_anchors=3, anchor_draw='feature_norm')
    draw = draw_cells(nearest, cells, everything(), config, np.random.default_rng(1), importance)
    assert sorted(draw.anchors.tolist()) == [10, 11, 12]
    blank = np.zeros(SHAPE, dtype=np.float32)
    assert len(draw_cells(nearest, cells, everything(), config, np.random.default_rng(1), blank))


def test_the_draw_repeats_itself():
    nearest, cells = shifted()
    first, again, other = (
        draw_cells(nearest, cells, everything(), CONFIG, np.random.default_rng(seed))
        for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first.negatives, again.negatives)
    np.testing.assert_array_equal(first.anchors, again.anchors)
    assert (first.negatives != other.negatives).any()


def test_blocks_by_hand():
    block = block_around(np.array([0, 29]), SHAPE, 1)
    assert sorted(block[0].tolist()) == [-1, -1, -1, -1, -1, 0, 1, 5, 6]
    assert sorted(block[1].tolist()) == [-1, -1, -1, -1, -1, 23, 24, 28, 29]
