"""Relations between the predictions of a decoder layer, as biases for the attention of the next.

Point-wise relations compare the points of an instance, instance-wise ones the instances of a
sample. Both are numbers per pair that a sine encoding, a linear layer and an activation turn into
one bias per head; where the biases go is the decoder's business (`decoder.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsmap_core.config import ModelConfig, RelationConfig

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'relu': torch.relu,
    'softplus': functional.softplus,
    'none': torch.positive,
}
#: Keeps the gradient of the root finite where points coincide; 1e-10 as a distance.
_MIN_SQUARED_DISTANCE = 1e-20


@dataclass(frozen=True)
class RelationBias:
    """What the logits of the two attentions of a decoder layer are raised by.

    Args:
        points: (B, M, heads, P, P) between the points of every instance, or None.
        instances: (B, heads, M, M) between instances, the same for all points, or None. Between
            instances of different groups it is 0 and means nothing.
    """

    points: Tensor | None = None
    instances: Tensor | None = None


def coordinate_relations(
    first: Tensor,
    second: Tensor,
    kind: Literal['log', 'signed_log', 'absolute_log'] = 'log',
    log_floor: float = 1e-4,
) -> Tensor:
    """Compare the coordinates of all pairs of points; exactly 0 where they are equal.

    The published logarithm is infinite at a difference of -1; its argument is kept at `log_floor`.

    Args:
        first: (..., P, 2) unit coordinates of the points i.
        second: (..., P, 2) of the points j.
        kind: see `RelationConfig.coordinate_kind`.
        log_floor: smallest argument of the logarithm of kind `log`.

    Returns:
        (..., 2, P, P); the last dimension is j.

    Source: InteractionMap, eq. 9.
    """
    rows, columns = first.mT.contiguous(), second.mT.contiguous()
    difference = rows[..., :, None] - columns[..., None, :]
    if kind == 'log':
        return (difference + 1.0).clamp(min=log_floor).log()
    size = difference.abs().log1p()
    return size if kind == 'absolute_log' else difference.sign() * size


def corner_cosines(
    points: Tensor, ends: Literal['replicate', 'zero'] = 'replicate', ring_distance_m: float = 0.0
) -> Tensor:
    """Return at every point the cosine between the edge that arrives and the edge that leaves.

    At the ends of an open line no edges meet; in a ring, whose last point repeats the first, the
    last edge meets the first one there.

    Args:
        points: (..., P, 2) with P >= 3, in metres: angles are those on the ground.
        ends: see `RelationConfig.direction_ends`.
        ring_distance_m: largest distance between first and last point of a ring [m].

    Returns:
        (..., P) in [-1, 1]; 0 at an edge without length.

    Source: InteractionMap, the cosine similarities of eq. 10.
    """
    edges = points[..., 1:, :] - points[..., :-1, :]
    inner = functional.cosine_similarity(edges[..., :-1, :], edges[..., 1:, :], dim=-1)
    first, last = inner[..., :1], inner[..., -1:]
    if ends == 'zero':
        first, last = torch.zeros_like(first), torch.zeros_like(last)
    closing = functional.cosine_similarity(edges[..., -1:, :], edges[..., :1, :], dim=-1)
    gap = (points[..., :1, :] - points[..., -1:, :]).detach().norm(dim=-1)
    is_ring = gap <= ring_distance_m
    first, last = (torch.where(is_ring, closing, end) for end in (first, last))
    return torch.cat([first, inner, last], dim=-1)


def direction_relations(first: Tensor, second: Tensor) -> Tensor:
    """Return (..., 1, P, P) differences between the `corner_cosines` (..., P) of points i and j.

    Source: InteractionMap, eq. 10.
    """
    return (first[..., :, None] - second[..., None, :])[..., None, :, :]


def score_signs(class_logits: Tensor, kind: Literal['max', 'per_category'] = 'max') -> Tensor:
    """Say for all pairs of instances which one has the higher score; exactly 0 for i = j.

    Logits are compared: probabilities have the same order, but round to ties near 1.

    Args:
        class_logits: (B, M, K).
        kind: see `RelationConfig.score_kind`.

    Returns:
        (B, 1 or K, M, M) of -1, 0 and 1; the last dimension is j. Not differentiable.

    Source: InteractionMap, eq. 12.
    """
    scores = class_logits.amax(-1, keepdim=True) if kind == 'max' else class_logits
    return (scores.mT[..., :, None] - scores.mT[..., None, :]).sign()


def chamfer_distances(points: Tensor) -> Tensor:
    """Return the Chamfer distances between all pairs of instances.

    Half the sum of the two mean distances from each point to the nearest of the other instance.
    Memory grows with M * M * P, not with M * M * P * P.

    Args:
        points: (B, M, P, 2), in any unit.

    Returns:
        (B, M, M) in that unit.

    Source: InteractionMap, the Chamfer distance of eq. 13.
    """
    batch, instances, num_points = points.shape[:3]
    x, y = points.flatten(1, 2)[..., None].unbind(2)  # (B, M * P, 1)
    others = points.permute(2, 3, 0, 1)[:, :, :, None].contiguous()
    nearest: Tensor | None = None
    for x_to, y_to in others:  # (B, 1, M): one point of every instance
        squared = (x - x_to).square() + (y - y_to).square()
        nearest = squared if nearest is None else torch.minimum(nearest, squared)
    assert nearest is not None  # An instance has points.
    nearest = nearest.clamp(min=_MIN_SQUARED_DISTANCE).sqrt()
    directed = nearest.view(batch, instances, num_points, instances).mean(2)
    return (directed + directed.mT) / 2


def score_chamfer_relations(signs: Tensor, distances: Tensor) -> Tensor:
    """Return (B, 1 or K, M, M) `score_signs` times the (B, M, M) Chamfer distances.

    Source: InteractionMap, eq. 13.
    """
    return signs * distances[:, None]


def sine_encoding(values: Tensor, frequencies: Tensor) -> Tensor:
    """Encode every scalar as sines, then cosines of its products with F frequencies.

    Args:
        values: (..., T, S, S).
        frequencies: (F,).

    Returns:
        (..., T * 2 F, S, S).

    Source: InteractionMap, SPE of eq. 11 and 14.
    """
    # One pass over the largest tensor of the relations: a cosine is a sine a quarter turn ahead.
    turns = torch.zeros_like(frequencies), torch.full_like(frequencies, math.pi / 2)
    phases = torch.cat(turns)[:, None, None]
    factors = torch.cat([frequencies, frequencies])[:, None, None]
    return torch.addcmul(phases, values[..., None, :, :], factors).sin_().flatten(-4, -3)


class BiasProjection(nn.Module):
    """Sine encoding, linear layer, activation: relations of pairs become one bias per head.

    Where all relations are 0 the cosines are 1: the bias is the same number there for every pair.

    Source: InteractionMap, eq. 11 (points) and 14 (instances).

    Args:
        num_scalars: T, relations per pair.
        num_heads: heads of the attention.
        options: encoding and activation.
    """

    def __init__(self, num_scalars: int, num_heads: int, options: RelationConfig) -> None:
        super().__init__()
        dims = options.encoding_dims
        self.num_heads = num_heads
        self.activation = _ACTIVATIONS[options.activation]
        self.linear = nn.Linear(num_scalars * dims, num_heads if options.per_head else 1)
        exponents = torch.arange(0, dims, 2, dtype=torch.float64) / dims
        frequencies = options.encoding_scale / options.encoding_temperature**exponents
        self.register_buffer('frequencies', frequencies.float(), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start above the kink of the ReLU, below which a head would never learn anything.

        The score rank alone has three values, and often all of them would fall below. A constant
        on all logits of a row does not change their softmax.
        """
        self.linear.reset_parameters()
        nn.init.ones_(self.linear.bias)

    def forward(self, relations: Tensor) -> Tensor:
        """Map (R, T, S, S) to (R, heads, S, S)."""
        rows, _, size, _ = relations.shape
        encoded = sine_encoding(relations, self.get_buffer('frequencies')).flatten(2)
        # The linear layer over the second dimension, so that heads come before pairs.
        weight = self.linear.weight.expand(rows, -1, -1)
        bias = torch.baddbmm(self.linear.bias[:, None], weight, encoded)
        return self.activation(bias).view(rows, -1, size, size).expand(-1, self.num_heads, -1, -1)


class RelationEmbedding(nn.Module):
    """Makes the biases of every decoder layer from the predictions of the layers before.

    Args:
        config: the model; `decoder.relation` has at least one term on.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        decoder = config.decoder
        self.options = options = decoder.relation
        heads = decoder.num_self_attention_heads or decoder.num_heads
        compared = len(config.categories) if options.score_kind == 'per_category' else 1
        starts_at = 0 if options.first_layer == 'reference_points' else 1

        def projections(num_scalars: int, first_layer: int) -> nn.ModuleList:
            count = decoder.num_layers - first_layer if options.per_layer else 1
            return nn.ModuleList(
                BiasProjection(num_scalars, heads, options)
                for _ in range(count if num_scalars else 0)
            )

        self.points = projections(2 * options.coordinates + options.directions, starts_at)
        self.instances = projections(
            compared * (options.score_rank + options.score_rank_chamfer), 1
        )
        self.starts_at = starts_at
        extent = torch.tensor(config.grid.unit_extent_m(), dtype=torch.float32)
        self.register_buffer('unit_extent_m', extent, persistent=False)

    def draw_parts(self) -> tuple[bool, bool]:
        """Say which parts a forward pass uses: the point part, the instance part.

        Without ping-pong and at inference: both. In training every pass draws from torch's random
        numbers on the CPU, whatever the device, so that a resumed training repeats itself.
        Processes that train together may draw differently: a part that one of them leaves out gets
        its gradient from the others.
        """
        if not (self.training and self.options.ping_pong):
            return True, True
        both = self.options.ping_pong_both
        draw = torch.rand((), device='cpu').item()
        if draw < both:
            return True, True
        only_points = draw < (1.0 + both) / 2
        return only_points, not only_points

    def forward(
        self,
        points: Sequence[Tensor],
        class_logits: Sequence[Tensor],
        groups: Sequence[int],
        parts: tuple[bool, bool] = (True, True),
    ) -> RelationBias:
        """Make the biases of layer l.

        Args:
            points: l + 1 times (B, M, P, 2 or 3) unit coordinates: what the queries start from,
                then the predictions of layers 0 to l - 1. Heights are not looked at.
            class_logits: l times (B, M, K), those of layers 0 to l - 1.
            groups: sizes of the groups that instances come in, M together; instances of
                different groups do not see each other.
            parts: from `draw_parts`.

        Returns:
            The biases; None for parts that are off, and in a first layer that knows nothing.
        """
        layer = len(class_logits)
        flat = [item[..., :2] for item in points[-2:]]
        if not self.options.gradient:
            flat = [item.detach() for item in flat]
        point_bias = instance_bias = None
        if self.points and parts[0] and layer >= self.starts_at:
            second = flat[-1]
            first = flat[0] if self.options.pairs == 'two_layers' else second
            projection = self._projection(self.points, layer - self.starts_at)
            point_bias = projection(self._point_relations(first, second).flatten(0, 1))
            point_bias = point_bias.unflatten(0, second.shape[:2])
        if self.instances and parts[1] and layer >= 1:
            projection = self._projection(self.instances, layer - 1)
            by_group = zip(
                flat[-1].split(list(groups), 1),
                class_logits[-1].detach().split(list(groups), 1),
                strict=True,
            )
            blocks = [projection(self._instance_relations(*group)) for group in by_group]
            instance_bias = blocks[0] if len(blocks) == 1 else _block_diagonal(blocks)
        return RelationBias(point_bias, instance_bias)

    def _projection(self, projections: nn.ModuleList, index: int) -> nn.Module:
        return projections[index if self.options.per_layer else 0]

    def _point_relations(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (B, M, T, P, P) between points i of `first` and j of `second` (B, M, P, 2)."""
        options, terms = self.options, []
        if options.coordinates:
            kind, floor = options.coordinate_kind, options.log_floor
            terms.append(coordinate_relations(first, second, kind, floor))
        if options.directions:
            cosines = self._corner_cosines(second)
            before = cosines if first is second else self._corner_cosines(first)
            terms.append(direction_relations(before, cosines))
        return torch.cat(terms, dim=-3)

    def _corner_cosines(self, points: Tensor) -> Tensor:
        options, extent = self.options, self.get_buffer('unit_extent_m')
        return corner_cosines(points * extent, options.direction_ends, options.ring_distance_m)

    def _instance_relations(self, points: Tensor, class_logits: Tensor) -> Tensor:
        """Return (B, T, M, M) between instances of points (B, M, P, 2) and logits (B, M, K)."""
        options, terms = self.options, []
        signs = score_signs(class_logits, options.score_kind)
        if options.score_rank:
            terms.append(signs)
        if options.score_rank_chamfer:
            if options.chamfer_unit == 'range':
                extent = self.get_buffer('unit_extent_m')
                points = points * (extent / extent.max())
            terms.append(score_chamfer_relations(signs, chamfer_distances(points)))
        return torch.cat(terms, dim=1)


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """Put (..., m, m) blocks along the diagonal of a matrix of zeros."""
    size = sum(block.shape[-1] for block in blocks)
    result = blocks[0].new_zeros(*blocks[0].shape[:-2], size, size)
    start = 0
    for block in blocks:
        stop = start + block.shape[-1]
        result[..., start:stop, start:stop] = block
        start = stop
    return result
