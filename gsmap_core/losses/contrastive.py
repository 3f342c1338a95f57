"""The geospatial contrastive loss: BEV features of one place agree across drives (MapGCLR).

Its projection head lives here and not in the model: it is trained beside it and thrown away. The
cells that are compared are drawn by `contrastive_cells`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gsmap_core.contrastive_config import ContrastiveConfig, ProjectionConfig
from gsmap_core.losses.contrastive_cells import CellDraw, block_around

#: Similarities held at once: anchors of a chunk times embeddings they are compared with.
CHUNK_SIMILARITIES = 4_000_000
_LEAST = 1e-12


class ProjectionHead(nn.Module):
    """Maps BEV features to the space that the loss compares them in, cell by cell, in float32.

    Args:
        channels: C of the BEV features.
        config: layers.
    """

    def __init__(self, channels: int, config: ProjectionConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(config.num_layers - 1):
            hidden = config.hidden_dims or channels
            layers.append(nn.Conv2d(channels, hidden, 1, bias=config.norm == 'none'))
            if config.norm == 'batch':
                layers.append(nn.BatchNorm2d(hidden))
            layers.append(nn.ReLU(inplace=True))
            channels = hidden
        layers.append(nn.Conv2d(channels, config.dims, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, bev: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, E, H, W) float32, not normalised."""
        with torch.autocast(bev.device.type, enabled=False):
            return self.layers(bev.float())


@dataclass(frozen=True)
class ContrastiveResult:
    """The loss of a batch, and what tells whether it is learned.

    Args:
        loss: scalar, sum over pairs of the mean over anchors; not weighted.
        cosine: scalar, mean cosine similarity of anchors and positives, without gradient.
        top1: scalar, share of the anchors whose positive is nearer than every negative.
        num_anchors: of all pairs.
    """

    loss: Tensor
    cosine: Tensor
    top1: Tensor
    num_anchors: int


@dataclass(frozen=True)
class _Others:
    """Embeddings of the other training processes, (X, E) each.

    `nothing` is 0 and hangs on all of them: a process without anchors must still take part when
    the gradients travel back.
    """

    anchors: Tensor
    positives: Tensor
    nothing: Tensor


class ContrastiveLoss:
    """InfoNCE over cells of paired BEV grids.

    Args:
        config: of the loss.

    Source: MapGCLR, contrastive loss: for anchor z, positive z+ and negatives z-,
    -log(exp(sim(z, z+) / tau) / (exp(sim(z, z+) / tau) + sum_k exp(sim(z, z-_k) / tau))), sim the
    cosine.
    """

    def __init__(self, config: ContrastiveConfig) -> None:
        self.config = config
        gathers = config.gather_negatives and dist.is_available() and dist.is_initialized()
        # A group of its own: its collectives never wait for those of the gradients.
        self._group: Any = dist.new_group() if gathers else None

    def __call__(self, embeddings: Tensor, draws: Sequence[CellDraw]) -> ContrastiveResult:
        """Compute the loss.

        Args:
            embeddings: (2 m, E, H, W) of the head: m reference grids, then the adjacent ones.
            draws: m drawn sets of cells.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._compute(embeddings.float(), draws)

    def _compute(self, embeddings: Tensor, draws: Sequence[CellDraw]) -> ContrastiveResult:
        shape, device = tuple(embeddings.shape[-2:]), embeddings.device
        raw = embeddings.flatten(2).transpose(1, 2)  # (2 m, H W, E)
        unit = functional.normalize(raw, dim=-1, eps=_LEAST)
        num_pairs = len(draws)
        anchors, positives = [], []
        for pair, draw in enumerate(draws):
            anchors.append(unit[pair, torch.from_numpy(draw.anchors).to(device)])
            if self.config.positive == 'nearest':
                index = torch.from_numpy(draw.positives).to(device)
                positives.append(unit[num_pairs + pair, index])
            else:
                sampled = _bilinear(raw[num_pairs + pair], draw, shape)
                positives.append(functional.normalize(sampled, dim=-1, eps=_LEAST))
        # Every process takes part, whether it has anchors or not.
        others = None if self._group is None else self._gathered(anchors, positives)
        # Without any anchor the loss is 0, with a graph as usual.
        total = raw.sum() * 0.0 if others is None else raw.sum() * 0.0 + others.nothing
        cosine, hits = torch.zeros((), device=device), torch.zeros((), device=device)
        for pair, draw in enumerate(draws):
            if not len(draw):
                continue
            loss, top = self._pair_loss(pair, draws, unit, anchors, positives, others, shape)
            total = total + loss
            hits = hits + top
            cosine = cosine + (anchors[pair] * positives[pair]).detach().sum()
        count = sum(len(draw) for draw in draws)
        return ContrastiveResult(total, cosine / max(count, 1), hits / max(count, 1), count)

    def _pair_loss(
        self,
        pair: int,
        draws: Sequence[CellDraw],
        unit: Tensor,
        anchors: Sequence[Tensor],
        positives: Sequence[Tensor],
        others: _Others | None,
        shape: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss of one pair's anchors, and how many of them find their positive."""
        config, device = self.config, unit.device
        if config.negatives == 'sampled':
            sides = [unit[pair], unit[len(draws) + pair]]
            chosen = torch.from_numpy(draws[pair].negatives).to(device)
            allowed = None
        else:
            sides = [torch.cat(list(anchors)), torch.cat(list(positives))]
            chosen, allowed = None, _other_anchors(pair, draws, shape, config.exclude_radius)
            allowed = allowed.to(device)
        if others is not None:
            extra = [others.anchors, others.positives]
        else:
            extra = [side[:0] for side in sides]
        directions = [(anchors[pair], positives[pair], 1)]
        if config.symmetric:
            directions.append((positives[pair], anchors[pair], 0))
        losses, hits = [], []
        for own, partner, far in directions:
            parts, gathered = list(sides), list(extra)
            if config.stop_gradient:
                partner = partner.detach()
                parts[far], gathered[far] = parts[far].detach(), gathered[far].detach()
            table = torch.cat([*parts, *gathered])
            num_own = sum(len(part) for part in parts)
            loss, hit = self._chunked(own, partner, table, num_own, chosen, allowed)
            losses.append(loss / len(own))
            hits.append(hit)
        return torch.stack(losses).mean(), hits[0]

    def _chunked(
        self,
        anchors: Tensor,
        positives: Tensor,
        table: Tensor,
        num_own: int,
        chosen: Tensor | None,
        allowed: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Sum the loss over anchors, so many at a time that memory stays bounded.

        The similarities of a chunk are not kept for the backward pass but computed again there.
        """
        rows = max(1, CHUNK_SIMILARITIES // max(len(table), 1))
        loss, hits = anchors.new_zeros(()), anchors.new_zeros(())
        for first in range(0, len(anchors), rows):
            part = slice(first, first + rows)
            chunk_loss, chunk_hits = checkpoint(
                _info_nce,
                anchors[part],
                positives[part],
                table,
                num_own,
                None if chosen is None else chosen[part],
                None if allowed is None else allowed[part],
                self.config.temperature,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            loss, hits = loss + chunk_loss, hits + chunk_hits
        return loss, hits

    def _gathered(self, anchors: Sequence[Tensor], positives: Sequence[Tensor]) -> _Others:
        """Return the anchors and positives of all other processes; gradients travel back."""
        own = torch.stack([torch.cat(list(anchors)), torch.cat(list(positives))])
        most = len(anchors) * self.config.num_anchors
        count = torch.tensor([own.shape[1]], device=own.device)
        counts = [torch.zeros_like(count) for _ in range(dist.get_world_size(self._group))]
        dist.all_gather(counts, count, group=self._group)
        filler = own.new_zeros(2, most - own.shape[1], own.shape[2])
        everything = _Gather.apply(torch.cat([own, filler], dim=1), self._group)
        rank = dist.get_rank(self._group)
        parts = [
            everything[other, :, : int(number)]
            for other, number in enumerate(counts)
            if other != rank
        ]
        joined = torch.cat([own[:, :0], *parts], dim=1)
        return _Others(joined[0], joined[1], everything.sum() * 0.0)


def _info_nce(
    anchors: Tensor,
    positives: Tensor,
    table: Tensor,
    num_own: int,
    chosen: Tensor | None,
    allowed: Tensor | None,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Return the summed loss of some anchors, and how many prefer their positive.

    Args:
        anchors: (A, E) of length 1.
        positives: (A, E).
        table: (N, E) what they are compared with.
        num_own: how many of the table `chosen` or `allowed` speak of; all after them count.
        chosen: (A, K) rows of the table that are negatives.
        allowed: (A, num_own) bool, instead of `chosen`.
        temperature: tau.
    """
    positive = (anchors * positives).sum(-1, keepdim=True)
    similarity = anchors @ table.T
    own = similarity[:, :num_own]
    if chosen is not None:
        own = own.gather(1, chosen)
    elif allowed is not None:
        own = own.masked_fill(~allowed, -torch.inf)
    logits = torch.cat([positive, own, similarity[:, num_own:]], dim=1) / temperature
    losses = logits.logsumexp(1) - logits[:, 0]
    is_nearest = (logits[:, :1] > logits[:, 1:]).all(1)
    return losses.sum(), is_nearest.sum().to(losses.dtype)


def _bilinear(features: Tensor, draw: CellDraw, shape: tuple[int, ...]) -> Tensor:
    """Return (A, E) features (H W, E) between the four cell centres around each positive."""
    cells = torch.from_numpy(draw.positive_cells).to(features) - 0.5
    result = features.new_zeros(len(draw), features.shape[1])
    low = cells.floor()
    share = cells - low
    for down in (0, 1):
        for right in (0, 1):
            # Beyond the outermost centres the outermost cells continue.
            row = (low[:, 0].long() + down).clamp(0, shape[0] - 1)
            column = (low[:, 1].long() + right).clamp(0, shape[1] - 1)
            weight = (share[:, 0] if down else 1 - share[:, 0]) * (
                share[:, 1] if right else 1 - share[:, 1]
            )
            result = result + weight[:, None] * features[row * shape[1] + column]
    return result


def _other_anchors(
    pair: int, draws: Sequence[CellDraw], shape: tuple[int, ...], radius: int
) -> Tensor:
    """Return (A, 2 S) bool: which of all S anchors and S positives are negatives of each anchor.

    Those of other pairs are; in the own pair the block around anchor and positive is not.
    """
    sizes = [len(draw) for draw in draws]
    total, first, draw = sum(sizes), sum(sizes[:pair]), draws[pair]
    allowed = torch.ones(len(draw), 2 * total, dtype=torch.bool)
    for side, cells in enumerate((draw.anchors, draw.positives)):
        block = torch.from_numpy(block_around(cells, shape, radius))
        here = torch.from_numpy(cells)
        in_block = (block[:, :, None] == here).any(1)
        start = side * total + first
        allowed[:, start : start + len(draw)] = ~in_block
    return allowed


class _Gather(torch.autograd.Function):
    """Stacks a tensor of every process; the gradient of a part goes back to where it came from."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, tensor.contiguous(), group=group)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # What all processes' losses ask of this process's part, added up.
        gradient = gradient.contiguous()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient[dist.get_rank(ctx.group)], None
