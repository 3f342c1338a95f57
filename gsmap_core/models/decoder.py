"""Hierarchical queries and the decoder layers that refine points iteratively (MapTR, MapTRv2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.models.attention import BevDeformableAttention, FeedForward, biased_attention
from gsmap_core.models.gaussian_head import GaussianHead
from gsmap_core.models.heads import class_head, inverse_sigmoid, point_head
from gsmap_core.models.outputs import GaussianShapes
from gsmap_core.models.relation import RelationBias, RelationEmbedding


@dataclass(frozen=True)
class DecoderOutput:
    """Predictions of all decoder layers and instances; one-to-many instances, if any, come last.

    Args:
        class_logits: (L, B, M, K).
        points: (L, B, M, P, 2 or 3) float32 unit coordinates.
        states: (L, B, M, P, C) query features after each layer.
        gaussians: shapes (L, B, M, P) around the points, or None.
    """

    class_logits: Tensor
    points: Tensor
    states: Tensor
    gaussians: GaussianShapes | None = None


class SelfAttention(nn.Module):
    """Multi-head self-attention with position codes on queries and keys, and a residual."""

    def __init__(self, dims: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dims, num_heads, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        blocked: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Map (B, S, C) to the same.

        `blocked` is (S, S) bool, True where not to attend; `bias` (G, heads, S, S) is added to the
        logits, see `biased_attention`.
        """
        positioned = x + position
        if bias is None:
            y, _ = self.attention(positioned, positioned, x, attn_mask=blocked, need_weights=False)
        else:
            if blocked is not None:
                bias = bias.masked_fill(blocked, -torch.inf)
            y = biased_attention(self.attention, positioned, x, bias)
        return x + self.dropout(y)


class JointSelfAttention(nn.Module):
    """All points of all instances attend to each other (MapTR)."""

    def __init__(self, dims: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(dims, num_heads, dropout)
        self.norm = nn.LayerNorm(dims)

    def forward(self, x: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """Map (B, M, P, C) to the same; `blocked` is (M, M) bool or None."""
        points = x.shape[2]
        if blocked is not None:
            blocked = blocked.repeat_interleave(points, 0).repeat_interleave(points, 1)
        y = self.norm(self.attention(x.flatten(1, 2), position.flatten(1, 2), blocked))
        return y.unflatten(1, x.shape[1:3])


class DecoupledSelfAttention(nn.Module):
    """Instances attend to each other per point index, then points in each instance (MapTRv2)."""

    def __init__(self, dims: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.between_instances = SelfAttention(dims, num_heads, dropout)
        self.norm1 = nn.LayerNorm(dims)
        self.within_instance = SelfAttention(dims, num_heads, dropout)
        self.norm2 = nn.LayerNorm(dims)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        blocked: Tensor | None,
        relation: RelationBias | None = None,
    ) -> Tensor:
        """Map (B, M, P, C) to the same; `blocked` is (M, M) bool or None."""
        batch, instances, points, dims = x.shape
        relation = RelationBias() if relation is None else relation
        point_bias = None if relation.points is None else relation.points.flatten(0, 1)

        def by_point(values: Tensor) -> Tensor:
            return values.transpose(1, 2).reshape(-1, instances, dims)

        y = self.norm1(
            self.between_instances(by_point(x), by_point(position), blocked, relation.instances)
        )
        y = y.view(batch, points, instances, dims).transpose(1, 2).reshape(-1, points, dims)
        position = position.reshape(-1, points, dims)
        y = self.norm2(self.within_instance(y, position, bias=point_bias))
        return y.view(batch, instances, points, dims)


class DecoderLayer(nn.Module):
    """Self-attention, deformable attention on the BEV, feed-forward; LayerNorm after each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims, decoder = config.embed_dims, config.decoder
        kind = JointSelfAttention if decoder.self_attention == 'joint' else DecoupledSelfAttention
        self.self_attention = kind(
            dims, decoder.num_self_attention_heads or decoder.num_heads, decoder.dropout
        )
        self.cross_attention = BevDeformableAttention(
            dims, decoder.num_heads, decoder.num_sampling_points, decoder.dropout
        )
        self.norm1 = nn.LayerNorm(dims)
        self.ffn = FeedForward(dims, decoder.ffn_dims, decoder.dropout)
        self.norm2 = nn.LayerNorm(dims)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        bev: Tensor,
        reference: Tensor,
        bev_shape: tuple[int, int],
        blocked: Tensor | None,
        frame: Tensor | None = None,
        relation: RelationBias | None = None,
    ) -> Tensor:
        """Map (B, M, P, C) to the next layer's.

        `reference` is (B, M, P, 2 or 3) unit points; `frame` (B, M, P, 2, 2) turns the sampling
        offsets, see `BevDeformableAttention`; `relation` raises the logits of a decoupled
        self-attention.
        """
        shape = x.shape[1:3]
        if relation is None:
            x = self.self_attention(x, position, blocked)
        else:
            x = self.self_attention(x, position, blocked, relation)
        x = self.cross_attention(
            x.flatten(1, 2),
            position.flatten(1, 2),
            bev,
            reference[..., :2].flatten(1, 2),
            bev_shape,
            None if frame is None else frame.flatten(1, 2),
        )
        return self.norm2(self.ffn(self.norm1(x))).unflatten(1, shape)


class MapDecoder(nn.Module):
    """Queries, layers and heads.

    A query is the sum of an instance and a point embedding; its first C channels are the position
    code, the last C the
    content.

    Args:
        config: the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dims, decoder = config.embed_dims, config.decoder
        self.config = config
        self.num_instances = decoder.num_instances
        self.instance_embedding = nn.Embedding(
            decoder.num_instances + decoder.num_one_to_many, 2 * dims
        )
        self.point_embedding = nn.Embedding(decoder.num_points, 2 * dims)
        self.reference_points = nn.Linear(dims, decoder.num_dims)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(decoder.num_layers))
        self.class_heads = nn.ModuleList(
            class_head(dims, len(config.categories)) for _ in range(decoder.num_layers)
        )
        self.point_heads = nn.ModuleList(
            point_head(dims, decoder.num_dims) for _ in range(decoder.num_layers)
        )
        self.gaussian_head = GaussianHead(config) if config.representation == 'gaussians' else None
        self.reset_parameters()
        # Last, so that the same seed gives the weights of a model without relations.
        self.relation = RelationEmbedding(config) if decoder.relation.is_on else None

    def reset_parameters(self) -> None:
        """Xavier on matrices, deformable parts their usual way; heads and embeddings default."""
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.layers.modules():
            if isinstance(module, BevDeformableAttention):
                module.reset_parameters()
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def _group_mask(self, device: torch.device) -> Tensor:
        """Return the (M, M) bool mask, True between one-to-one and one-to-many instances."""
        extra = torch.arange(self.instance_embedding.num_embeddings, device=device)
        extra = extra >= self.num_instances
        return extra[:, None] != extra[None]

    def forward(self, bev: Tensor) -> DecoderOutput:
        """Decode a BEV map, in float32 under autocast too, as published.

        Half precision would move points by centimetres, and is slower for so few queries on a CPU.

        Args:
            bev: (B, C, H, W).

        Returns:
            Predictions of all layers; of the one-to-many instances too when training.
        """
        with torch.autocast(bev.device.type, enabled=False):
            return self._decode(bev.float())

    def _decode(self, bev: Tensor) -> DecoderOutput:
        batch, dims = bev.shape[:2]
        bev_shape = (bev.shape[2], bev.shape[3])
        tokens = bev.flatten(2).transpose(1, 2)
        instances = self.instance_embedding.weight
        blocked, groups = None, [self.num_instances]
        if not self.training:
            instances = instances[: self.num_instances]
        elif len(instances) > self.num_instances:
            blocked = self._group_mask(bev.device)
            groups.append(len(instances) - self.num_instances)
        embedding = instances[:, None] + self.point_embedding.weight  # (M, P, 2C)
        embedding = embedding.expand(batch, -1, -1, -1)
        position, x = embedding[..., :dims], embedding[..., dims:]
        reference = start = self.reference_points(position).sigmoid()
        relation = self.relation
        parts = (False, False) if relation is None else relation.draw_parts()
        class_logits: list[Tensor] = []
        points: list[Tensor] = []
        states: list[Tensor] = []
        shapes: list[GaussianShapes] = []
        raw: Tensor | None = None
        head, options = self.gaussian_head, self.config.gaussians
        for layer, to_class, to_point in zip(
            self.layers, self.class_heads, self.point_heads, strict=True
        ):
            code, frame, bias = position, None, None
            if relation is not None:
                bias = relation([start, *points], class_logits, groups, parts)
            if head is not None and shapes:
                if options.guided_position:
                    code = position + head.position_code(reference, shapes[-1])
                if options.guided_sampling:
                    frame = head.sampling_frame(shapes[-1])
            x = layer(x, code, tokens, reference, bev_shape, blocked, frame, bias)
            refined = (to_point(x) + inverse_sigmoid(reference)).sigmoid()
            class_logits.append(to_class(x.mean(2)))
            points.append(refined)
            states.append(x)
            if head is not None:
                shape, raw = head(x, refined, raw)
                shapes.append(shape)
            reference = refined.detach()
        gaussians = None
        if shapes:
            gaussians = GaussianShapes(
                torch.stack([shape.scales for shape in shapes]),
                torch.stack([shape.thetas for shape in shapes]),
            )
        return DecoderOutput(
            torch.stack(class_logits), torch.stack(points), torch.stack(states), gaussians
        )
