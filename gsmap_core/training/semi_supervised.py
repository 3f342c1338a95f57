"""Semi-supervised training (MapGCLR): unlabelled pairs beside the labelled samples of every step.

The trainer owns the steps; here is what a step with pairs has in addition: their batches, the one
forward pass over labelled and unlabelled frames, the contrastive loss. Nothing of it is part of
the model that is evaluated and shipped.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gsmap_core.config import ModelConfig
from gsmap_core.contrastive_config import ContrastiveConfig
from gsmap_core.data.loading import BadFrames
from gsmap_core.data.pair_loading import PairBatch, PairDataset, make_pair_loader
from gsmap_core.data.sampling import ResumableSampler
from gsmap_core.errors import ConfigError, TrainingError
from gsmap_core.images import FrameBatch
from gsmap_core.losses.contrastive import ContrastiveLoss, ProjectionHead
from gsmap_core.losses.contrastive_cells import CellDraw, draw_cells
from gsmap_core.losses.dense import depth_loss
from gsmap_core.models.bev.lss import LssEncoder
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.models.outputs import MapperOutput
from gsmap_core.training.batch_frames import batch_frames
from gsmap_core.training.distributed import Processes
from gsmap_core.training.recipe import TrainConfig

#: Fields of a `FrameBatch` with one entry per camera.
_PER_CAMERA = (
    'images', 'pixels_from_ego', 'base_from_cameras', 'intrinsics', 'camera_mask',
    'input_from_image',
)  # fmt: skip


@dataclass(frozen=True)
class UnlabelledOutput:
    """What the forward pass gives for the 2 m frames of m pairs, references first.

    Args:
        embeddings: (2 m, E, H, W) float32 of the projection head.
        bev: (2 m, C, H, W) BEV features that the decoder would read.
        depth_logits: (2 m, N, D, h, w), or None with another view transform than LSS.
        pooled: (2 m, H, W) bool, cells that LSS pools features into, or None where not asked for.
    """

    embeddings: Tensor
    bev: Tensor
    depth_logits: Tensor | None
    pooled: Tensor | None = None


class JointModel(nn.Module):
    """One forward pass over labelled and unlabelled frames; only the labelled ones are decoded.

    Args:
        mapper: the model that is trained.
        head: the projection head.
        finds_pooled: whether the cells that LSS pools features into are asked for.
    """

    def __init__(
        self, mapper: OnlineMapper, head: ProjectionHead, finds_pooled: bool = False
    ) -> None:
        super().__init__()
        self.mapper, self.head, self.finds_pooled = mapper, head, finds_pooled

    def forward(
        self, labelled: FrameBatch | None, unlabelled: FrameBatch | None, state: Any = None
    ) -> tuple[MapperOutput | None, UnlabelledOutput | None]:
        """Predict the labelled frames, and embed the BEV features of the unlabelled ones.

        Args:
            labelled: B frames, or None.
            unlabelled: 2 m frames, or None; each is a first frame for models with fusion.
            state: of the labelled frames, see `OnlineMapper`.
        """
        mapper = self.mapper
        if unlabelled is None:
            return (None if labelled is None else mapper(labelled, state)), None
        frames = unlabelled if labelled is None else joined(labelled, unlabelled)
        features = mapper.encode(frames)
        lifted = mapper.lift(features, frames)
        count = 0 if labelled is None else len(labelled)
        output = None
        if labelled is not None:
            first = slice(0, count)
            bev, new_state = mapper.fuse(lifted[first], frames.rows(first), state)
            output = mapper.decode(features[first], bev, lifted[first].depth_logits, new_state)
        rest = lifted[slice(count, None)]
        bev, _ = mapper.fuse(rest, frames.rows(slice(count, None)))
        pooled = self._pooled(unlabelled) if self.finds_pooled else None
        return output, UnlabelledOutput(self.head(bev), bev, rest.depth_logits, pooled)

    def _pooled(self, frames: FrameBatch) -> Tensor:
        lss = self.mapper.view_transform
        assert isinstance(lss, LssEncoder)
        return lss.observed_cells(self.mapper.pixels_from_reference(frames), frames.camera_mask)


class SemiSupervised:
    """What training with unlabelled pairs adds to a trainer.

    All randomness follows from the seed, the step and the process, as in the trainer.

    Args:
        mapper: the model that is trained, on its device.
        recipe: with a section `contrastive`.
        pairs: the unlabelled frames.
        processes: this process among those that train together.

    Raises:
        ConfigError: the configuration asks for what only an LSS view transform has.
    """

    def __init__(
        self,
        mapper: OnlineMapper,
        recipe: TrainConfig,
        pairs: PairDataset,
        processes: Processes,
    ) -> None:
        assert recipe.contrastive is not None
        self.config, self.recipe, self.processes = recipe.contrastive, recipe, processes
        self.pairs = pairs
        check_model(mapper.config, self.config)
        self.head = ProjectionHead(mapper.config.embed_dims, self.config.projection)
        self.head.to(processes.device)
        self.model = JointModel(mapper, self.head, self.config.pairs.observed == 'pooled')
        self.loss = ContrastiveLoss(self.config)
        self.bad_frames = BadFrames(pairs.frames)

    @classmethod
    def of(
        cls,
        mapper: OnlineMapper,
        recipe: TrainConfig,
        pairs: PairDataset | None,
        processes: Processes,
    ) -> SemiSupervised | None:
        """Return what a recipe asks for: None without a section `contrastive`.

        Raises:
            ConfigError: it has one and there are no unlabelled frames, or the reverse.
        """
        if (recipe.contrastive is None) != (pairs is None):
            raise ConfigError(
                f"recipe '{recipe.name}' has {'no' if pairs else 'a'} section 'contrastive' and "
                f'{"" if pairs else "no "}unlabelled frames are given; expected both or neither'
            )
        return None if pairs is None else cls(mapper, recipe, pairs, processes)

    def uses_pairs(self, step: int) -> bool:
        """Whether a step looks at unlabelled pairs."""
        return not self.config.pretrain_steps or step < self.config.pretrain_steps

    def metadata(self) -> dict[str, str]:
        """Return what a checkpoint tells about its unlabelled frames."""
        return {
            'unlabelled_drives': json.dumps([drive.name for drive in self.pairs.drives]),
            'unlabelled_frames': str(len(self.pairs.frames)),
            'unlabelled_pairs': str(len(self.pairs.pairs.edges)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue."""
        return {'head': self.head.state_dict(), 'num_pairs': len(self.pairs.pairs.edges)}

    def load_state_dict(self, state: dict[str, Any] | None, where: Path) -> None:
        """Take over what `state_dict` gave.

        Args:
            state: of the run folder; None: it was trained without unlabelled frames.
            where: the run folder, for messages.

        Raises:
            TrainingError: the state is of other pairs or of another head.
        """
        before = 0 if state is None else state['num_pairs']
        if state is None or before != len(self.pairs.pairs.edges):
            raise TrainingError(
                f"'{where}' was trained on {before} unlabelled pairs of frames, now there are "
                f'{len(self.pairs.pairs.edges)}; give the same unlabelled data'
            )
        try:
            self.head.load_state_dict(state['head'])
        except RuntimeError as error:
            raise TrainingError(f"the state in '{where}' does not fit: {error}") from error

    def batches(self, step: int) -> Iterator[PairBatch]:
        """Yield the batches of pairs of this process from a step on, one per forward pass."""
        processes, size = self.processes, self.config.pairs.per_batch
        parts = self.recipe.accumulation(processes.count)
        sampler = ResumableSampler(
            len(self.pairs),
            size,
            # Another order than that of the labelled frames.
            self.recipe.seed + 1,
            step * parts * size * processes.count,
            processes.rank,
            processes.count,
        )
        loader = make_pair_loader(
            self.pairs,
            sampler,
            num_workers=self.recipe.workers,
            pin_memory=processes.device.type == 'cuda',
        )
        left = self.config.pretrain_steps - step
        stop = parts * max(left, 0) if self.config.pretrain_steps else None
        yield from itertools.islice(loader, stop)

    def forward(
        self,
        wrapped: nn.Module,
        labelled: FrameBatch | None,
        pairs: PairBatch | None,
        step: int,
        part: int,
        state: Any = None,
    ) -> tuple[MapperOutput | None, UnlabelledOutput | None]:
        """Run the forward pass of a step; see `JointModel`.

        Args:
            wrapped: `model`, or what averages its gradients over processes.
            labelled: what the trainer made of its batch, or None.
            pairs: as loaded, or None.
            step: step of the training.
            part: number of the forward pass in it.
            state: of the labelled frames.
        """
        unlabelled = None
        if pairs is not None:
            self.bad_frames.add(pairs.bad_frames)
            unlabelled = self.frames(pairs, step, part)
        output: tuple[MapperOutput | None, UnlabelledOutput | None]
        output = wrapped(labelled, unlabelled, state)
        return output

    def frames(self, batch: PairBatch, step: int, part: int) -> FrameBatch:
        """Return what the model takes, with the augmentation that is drawn per batch."""
        recipe = self.recipe
        masked = recipe.augmentation.batch_grid_mask
        return batch_frames(
            batch.frames,
            self.pairs.config.image,
            recipe,
            self.processes.device,
            masked if self.config.pairs.augment == 'same' else 0.0,
            np.random.default_rng((recipe.seed, 3, step, self.processes.rank, part)),
        )

    def losses(
        self, output: UnlabelledOutput, batch: PairBatch, step: int, part: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the losses of a batch of pairs.

        Args:
            output: of the forward pass.
            batch: the pairs.
            step: step of the training.
            part: number of the forward pass in it.

        Returns:
            Weighted scalars `contrastive` and, where it is learned, `unlabelled_depth`; and what
            is only told: `pair_cosine` and `pair_top1` (see `ContrastiveResult`), and
            `pair_anchors`, their number per pair.
        """
        key = (self.recipe.seed, 4, step, self.processes.rank, part)
        draws = self.draw(output, batch, np.random.default_rng(key))
        result = self.loss(output.embeddings, draws)
        losses = {'contrastive': self.config.weight * result.loss}
        if self.config.depth and output.depth_logits is not None:
            device = output.depth_logits.device
            found = [target.depth_bins for target in batch.frames.targets]
            bins = [item.to(device) for item in found if item is not None]
            losses['unlabelled_depth'] = self.config.depth * depth_loss(
                output.depth_logits.float(), bins
            )
        anchors = result.loss.new_tensor(result.num_anchors / len(batch))
        told = {'pair_cosine': result.cosine, 'pair_top1': result.top1, 'pair_anchors': anchors}
        return losses, told

    def draw(
        self, output: UnlabelledOutput, batch: PairBatch, generator: np.random.Generator
    ) -> list[CellDraw]:
        """Draw the cells of every pair of a batch."""
        count = len(batch)
        observed = batch.observed.numpy()
        if output.pooled is not None:
            pooled = output.pooled.cpu().numpy()
            observed = pooled.reshape(2, count, *pooled.shape[1:])
        importance = None
        if self.config.anchor_draw == 'feature_norm':
            norms = output.bev[:count].detach().float().norm(dim=1)
            importance = norms.cpu().numpy()
        return [
            draw_cells(
                batch.nearest[pair].numpy(),
                batch.cells[pair].numpy(),
                observed[:, pair],
                self.config,
                generator,
                None if importance is None else importance[pair],
            )
            for pair in range(count)
        ]


def check_model(model: ModelConfig, contrastive: ContrastiveConfig) -> None:
    """Refuse what a model cannot be trained with.

    Raises:
        ConfigError: depth or pooled features are asked for without an LSS view transform.
    """
    if model.bev.view_transform == 'lss':
        return
    for name, is_asked in (
        ('depth', contrastive.depth > 0),
        ("pairs.observed 'pooled'", contrastive.pairs.observed == 'pooled'),
    ):
        if is_asked:
            raise ConfigError(
                f"contrastive.{name} needs the view transform 'lss' and model '{model.name}' has "
                f"'{model.bev.view_transform}'; choose a model with LSS, or turn it off"
            )


def joined(first: FrameBatch, second: FrameBatch) -> FrameBatch:
    """Return the frames of both batches; rigs with fewer cameras are filled up with missing ones.

    What only one of them has is left out.
    """
    num_cameras = max(first.images.shape[1], second.images.shape[1])
    values: dict[str, Tensor | None] = {}
    for item in dataclasses.fields(FrameBatch):
        pair = [getattr(batch, item.name) for batch in (first, second)]
        if any(value is None for value in pair):
            values[item.name] = None
            continue
        if item.name in _PER_CAMERA:
            pair = [_filled(value, num_cameras, item.name) for value in pair]
        values[item.name] = torch.cat(pair)
    return FrameBatch(**values)  # type: ignore[arg-type]


def _filled(value: Tensor, num_cameras: int, name: str) -> Tensor:
    missing = num_cameras - value.shape[1]
    if not missing:
        return value
    # A repeated calibration keeps the projection finite; the mask hides the camera.
    filler = value[:, :1].expand(-1, missing, *value.shape[2:])
    if name in ('camera_mask', 'images'):
        filler = torch.zeros_like(filler)
    return torch.cat([value, filler], dim=1)
