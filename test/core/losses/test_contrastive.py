"""The contrastive loss against the formula written out, gradients included."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsmap_core.contrastive_config import ContrastiveConfig, ProjectionConfig
from gsmap_core.losses import contrastive
from gsmap_core.losses.contrastive import ContrastiveLoss, ProjectionHead
from gsmap_core.losses.contrastive_cells import CellDraw, draw_cells

SHAPE = (5, 4)
CONFIG = ContrastiveConfig(num_anchors=6, num_negatives=5, temperature=0.2)


def embeddings_of(num_pairs=2, dims=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2 * num_pairs, dims, *SHAPE, generator=generator, dtype=dtype)
    return values.requires_grad_()


def draws_of(config, num_pairs=2, seed=0):
    """Draw from grids whose second vehicle is 1, 2, ... rows ahead and a little to the side."""
    generator = np.random.default_rng(seed)
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    draws = []
    for pair in range(num_pairs):
        there = row + 1 + pair
        nearest = np.where(there < SHAPE[0], there * SHAPE[1] + column, -1).astype(np.int64)
        cells = np.stack([there + 0.8, column + 0.3], axis=-1).astype(np.float32)
        observed = np.ones((2, *SHAPE), dtype=bool)
        observed[0, 0, 0] = observed[1, -1, -1] = False
        draws.append(draw_cells(nearest, cells, observed, config, generator))
    return draws


def slow(embeddings, draws, config):
    """The formula, one similarity at a time, in plain loops."""
    num_pairs, (rows, columns) = len(draws), SHAPE

    def cosine(a, b):
        return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())

    def cell(grid, flat):
        return embeddings[grid, :, int(flat) // columns, int(flat) % columns]

    def between(grid, place):
        total = 0.0
        for r in range(rows):
            for c in range(columns):
                down = max(0.0, 1 - abs(min(max(place[0] - 0.5, 0), rows - 1) - r))
                right = max(0.0, 1 - abs(min(max(place[1] - 0.5, 0), columns - 1) - c))
                total = total + down * right * embeddings[grid, :, r, c]
        return total

    def near(a, b):
        distance = max(abs(a // columns - b // columns), abs(a % columns - b % columns))
        return distance <= config.exclude_radius

    def positive(pair, i):
        if config.positive == 'nearest':
            return cell(num_pairs + pair, draws[pair].positives[i])
        return between(num_pairs + pair, draws[pair].positive_cells[i].tolist())

    def negatives(pair, i):
        """Yield side (0: reference) and embedding."""
        draw = draws[pair]
        if config.negatives == 'sampled':
            for flat in draw.negatives[i]:
                side, flat = divmod(int(flat), rows * columns)
                yield side, cell(pair + side * num_pairs, flat)
            return
        for other, theirs in enumerate(draws):
            for j in range(len(theirs)):
                if other != pair or not near(int(theirs.anchors[j]), int(draw.anchors[i])):
                    yield 0, cell(other, theirs.anchors[j])
                if other != pair or not near(int(theirs.positives[j]), int(draw.positives[i])):
                    yield 1, positive(other, j)

    total = 0.0
    for pair, draw in enumerate(draws):
        terms = []
        for i in range(len(draw)):
            ways = [(cell(pair, draw.anchors[i]), positive(pair, i), 1)]
            if config.symmetric:
                ways.append((ways[0][1], ways[0][0], 0))
            for own, partner, far in ways:
                stop = config.stop_gradient
                above = torch.exp(
                    cosine(own, partner.detach() if stop else partner) / config.temperature
                )
                below = above
                for side, other in negatives(pair, i):
                    other = other.detach() if stop and side == far else other
                    below = below + torch.exp(cosine(own, other) / config.temperature)
                terms.append(-torch.log(above / below))
        total = total + sum(terms) / len(terms)
    return total


VARIANTS = {
    'default': {},
    'symmetric': {'symmetric': True},
    'stop': {'stop_gradient': True},
    'symmetric_stop': {'symmetric': True, 'stop_gradient': True},
    'bilinear': {'positive': 'bilinear', 'symmetric': True},
    'anchors': {'negatives': 'anchors'},
    'anchors_bilinear_stop': {
        'negatives': 'anchors', 'positive': 'bilinear', 'symmetric': True, 'stop_gradient': True,
    },
    'own_cell_only': {'negatives': 'anchors', 'exclude_radius': 0},
}  # fmt: skip


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('chunk', [4_000_000, 90], ids=['whole', 'chunked'])
def test_equals_the_formula(name, chunk, monkeypatch):
    monkeypatch.setattr(contrastive, 'CHUNK_SIMILARITIES', chunk)
    # The loss works in float32; here it is told to leave the type alone.
    monkeypatch.setattr(torch.Tensor, 'float', lambda self: self)
    config = replace(CONFIG, **VARIANTS[name])
    draws, embeddings = draws_of(config), embeddings_of()
    result = ContrastiveLoss(config)(embeddings, draws)
    (gradient,) = torch.autograd.grad(result.loss, embeddings)
    expected = slow(embeddings, draws, config)
    (expected_gradient,) = torch.autograd.grad(expected, embeddings)
    torch.testing.assert_close(result.loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    assert result.num_anchors == 12 and gradient.abs().max() > 1e-3


def test_gradient_by_finite_differences(monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'float', lambda self: self)
    for values in ({'symmetric': True, 'positive': 'bilinear'}, {'negatives': 'anchors'}):
        config = replace(CONFIG, num_anchors=3, num_negatives=3, **values)
        draws = draws_of(config, num_pairs=1)
        loss = ContrastiveLoss(config)
        assert torch.autograd.gradcheck(lambda x: loss(x, draws).loss, embeddings_of(1))  # noqa: B023


def test_values_by_hand():
    """One anchor, cosine 1 with its positive, 0 and -1 with two negatives."""
    embeddings = torch.zeros(2, 2, 1, 3)
    embeddings[0, :, 0] = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    embeddings[1, :, 0] = torch.tensor([[5.0, -4.0, 1.0], [0.0, 0.0, 1.0]])
    draw = CellDraw(
        np.array([0]), np.array([0]), np.array([[0.5, 0.5]], np.float32), np.array([[1, 4]])
    )
    config = replace(CONFIG, temperature=0.5)
    result = ContrastiveLoss(config)(embeddings, [draw])
    expected = -math.log(math.exp(2) / (math.exp(2) + math.exp(0) + math.exp(-2)))
    assert float(result.loss) == pytest.approx(expected, rel=1e-5)
    assert float(result.cosine) == pytest.approx(1.0) and float(result.top1) == 1.0
    # A negative like the anchor itself: the positive is not nearest any more.
    embeddings[0, :, 0, 1] = embeddings[0, :, 0, 0]
    assert float(ContrastiveLoss(config)(embeddings, [draw]).top1) == 0.0


def test_no_anchors_give_zero_with_a_graph():
    empty = CellDraw(
        *(np.zeros(0, np.int64),) * 2, np.zeros((0, 2), np.float32), np.zeros((0, 5), np.int64)
    )
    embeddings = embeddings_of(2, dtype=torch.float32)
    result = ContrastiveLoss(CONFIG)(embeddings, [empty, empty])
    result.loss.backward()
    assert float(result.loss.detach()) == 0.0 and not embeddings.grad.any()
    # A pair without anchors leaves the other as it is.
    draws = draws_of(CONFIG)
    alone = ContrastiveLoss(CONFIG)(embeddings, [draws[0], empty])
    own = ContrastiveLoss(CONFIG)(embeddings[[0, 2]], draws[:1])
    torch.testing.assert_close(alone.loss, own.loss)


def test_memory_is_bounded_by_the_chunk(monkeypatch):
    """What is kept for the backward pass does not grow with anchors times cells."""
    kept = []
    config = replace(CONFIG, num_anchors=10, num_negatives=2000)
    draws = draws_of(config, 1)
    assert len(draws[0]) == 10
    sizes = []
    for chunk in (4_000_000, 40):
        monkeypatch.setattr(contrastive, 'CHUNK_SIMILARITIES', chunk)
        largest = [0]
        original = contrastive._info_nce

        def watched(anchors, *more, largest=largest, original=original):
            largest[0] = max(largest[0], len(anchors))
            return original(anchors, *more)

        monkeypatch.setattr(contrastive, '_info_nce', watched)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.numel() if t.is_floating_point() else 0) or t, lambda t: t
        ):
            loss = ContrastiveLoss(config)(embeddings_of(1), draws).loss
        sizes.append((sum(kept), largest[0]))
        loss.backward()
        monkeypatch.setattr(contrastive, '_info_nce', original)
    # 10 anchors x 40 cells are never kept, in one chunk or in ten.
    assert sizes[0][0] < 2000 and sizes[1][0] < 2000
    assert sizes[0][1] == 10 and sizes[1][1] == 1


@pytest.mark.parametrize(
    ('values', 'count'),
    [
        ({}, 48 * 48 + 48 + 48 * 128 + 128),
        (
            {'num_layers': 3, 'hidden_dims': 16, 'dims': 8, 'norm': 'batch'},
            48 * 16 + 32 + 16 * 16 + 32 + 16 * 8 + 8,
        ),
        ({'num_layers': 1, 'dims': 64}, 48 * 64 + 64),
    ],
)
def test_projection_head(values, count):
    head = ProjectionHead(48, ProjectionConfig(**values))
    assert sum(p.numel() for p in head.parameters()) == count
    with torch.autocast('cpu', torch.bfloat16):
        result = head(torch.randn(2, 48, 6, 3, dtype=torch.bfloat16))
    assert result.dtype == torch.float32 and result.shape[2:] == (6, 3)


GATHER = """
import sys, torch, torch.distributed as dist
out, folder, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, folder)
from dataclasses import replace
import test_contrastive as t
dist.init_process_group('gloo', init_method=f'file://{out}.meet', rank=rank, world_size=2)
results = {}
for case, negatives in t.GATHER_CASES.items():
    config = replace(t.CONFIG, gather_negatives=True, negatives=negatives)
    weight = torch.nn.Parameter(torch.linspace(0.5, 1.5, 3)[:, None, None].clone())
    embeddings = t.embeddings_of(2, seed=rank, dtype=torch.float32).detach()
    draws = t.empty_draws() if case == 'empty' and rank else t.draws_of(config, seed=rank)
    loss = t.ContrastiveLoss(config)
    result = loss(embeddings * weight + 0.3 * weight.square(), draws).loss
    result.backward()
    total = result.detach().clone()
    for value in (weight.grad, total):
        dist.all_reduce(value)
    results[case] = (total / 2, weight.grad / 2)
if rank == 0:
    torch.save(results, out)
dist.destroy_process_group()
"""
GATHER_CASES = {'full': 'sampled', 'anchors': 'anchors', 'empty': 'anchors'}


@pytest.fixture(scope='module')
def gathered(tmp_path_factory):
    """Loss and gradient of every case, mean over two gloo processes."""
    folder = tmp_path_factory.mktemp('gather')
    (folder / 'gather.py').write_text(GATHER)
    command = [sys.executable, str(folder / 'gather.py'), str(folder / 'out')]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    processes = [
        subprocess.Popen(
            [*command, os.path.dirname(__file__), str(rank)], env=environment,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
    return torch.load(folder / 'out', weights_only=True)


def empty_draws():
    none = np.zeros(0, np.int64)
    draw = CellDraw(none, none, np.zeros((0, 2), np.float32), np.zeros((0, 5), np.int64))
    return [draw, draw]


@pytest.mark.parametrize('case', GATHER_CASES)
def test_negatives_of_two_processes(gathered, case):
    """Mean over two gloo processes = one process that has both, gradients included."""
    (loss, gradient), negatives = gathered[case], GATHER_CASES[case]
    config = replace(CONFIG, negatives=negatives)
    weight = torch.linspace(0.5, 1.5, 3)[:, None, None].requires_grad_()
    grids, draws = [], []
    for rank in range(2):
        values = embeddings_of(2, seed=rank, dtype=torch.float32).detach()
        grids.append(values * weight + 0.3 * weight.square())
        draws.append(draws_of(config, seed=rank))
    if case == 'empty':
        draws[1] = empty_draws()

    def unit(rank, pair, side, flat):
        values = grids[rank][pair + 2 * side].flatten(1).T[torch.as_tensor(flat)]
        return torch.nn.functional.normalize(values, dim=-1)

    def others_of(rank):
        found = []
        for pair, draw in enumerate(draws[1 - rank]):
            found += [unit(1 - rank, pair, 0, draw.anchors)]
            found += [unit(1 - rank, pair, 1, draw.positives)]
        return torch.cat(found)

    total = 0.0
    for rank in range(2):
        for pair, draw in enumerate(draws[rank]):
            if not len(draw):
                continue
            own = unit(rank, pair, 0, draw.anchors)
            partner = unit(rank, pair, 1, draw.positives)
            above = (own * partner).sum(-1, keepdim=True)
            if negatives == 'sampled':
                both = torch.cat([unit(rank, pair, side, range(20)) for side in (0, 1)])
                below = (own @ both.T).gather(1, torch.from_numpy(draw.negatives))
            else:
                table, allowed = [], []
                for side, cells in ((0, 'anchors'), (1, 'positives')):
                    for other, theirs in enumerate(draws[rank]):
                        flat, mine = getattr(theirs, cells), getattr(draw, cells)
                        table.append(unit(rank, other, side, flat))
                        rows = abs(flat // 4 - (mine // 4)[:, None])
                        columns = abs(flat % 4 - (mine % 4)[:, None])
                        far = np.maximum(rows, columns) > 1
                        allowed.append(torch.from_numpy(far | (other != pair)))
                below = own @ torch.cat(table).T
                below = below.masked_fill(~torch.cat(allowed, dim=1), -torch.inf)
            logits = torch.cat([above, below, own @ others_of(rank).T], dim=1)
            target = torch.zeros(len(own), dtype=torch.int64)
            total = total + torch.nn.functional.cross_entropy(logits / config.temperature, target)
    (total / 2).backward()
    torch.testing.assert_close(loss, (total / 2).detach())
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-4, atol=1e-6)
