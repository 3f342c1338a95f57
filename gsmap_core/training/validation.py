"""Scoring a model on drives while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from gsmap_core.config import ModelConfig
from gsmap_core.data.loading import MapDataset, make_loader
from gsmap_core.data.sampling import SequentialBatches
from gsmap_core.data.sequences import DriveStreams
from gsmap_core.evaluation.chamfer import ChamferEvaluator, ChamferResult
from gsmap_core.evaluation.raster import RasterEvaluator, RasterResult
from gsmap_core.losses.criterion import Criterion
from gsmap_core.models.postprocess import to_vector_maps
from gsmap_core.training.precision import autocast


@dataclass(frozen=True)
class ValidationResult:
    """Outcome of one evaluation.

    Args:
        chamfer: average precision over all frames.
        losses: mean of each named loss.
        raster: raster average precision over all frames; None: not asked for.
    """

    chamfer: ChamferResult
    losses: dict[str, float]
    raster: RasterResult | None = None

    @property
    def score(self) -> float:
        """Chamfer mAP as a fraction; what the best checkpoint is chosen by."""
        return self.chamfer.mean_ap


@torch.no_grad()
def validate(
    model: nn.Module,
    dataset: MapDataset,
    config: ModelConfig,
    *,
    device: torch.device,
    batch_size: int = 8,
    precision: str = 'fp32',
    progress: bool = False,
    metrics: Sequence[str] = ('chamfer',),
) -> ValidationResult:
    """Predict every frame of a dataset and score it.

    A model with temporal fusion goes through every drive in time order, one frame at a time as on
    the vehicle, and forgets everything at the end of it.

    Args:
        model: an `OnlineMapper`; put into eval mode here and left there.
        dataset: validation frames without augmentation.
        config: of the model.
        device: where the model is.
        batch_size: samples per forward pass, for models without temporal fusion.
        precision: `fp32`, `bf16` or `fp16`.
        progress: show a bar on stderr.
        metrics: `chamfer`, which is always computed, and `raster`.
    """
    model.eval()
    criterion = Criterion(config, over_processes=False).to(device)
    evaluator = ChamferEvaluator(config.categories, num_dims=config.decoder.num_dims)
    raster = RasterEvaluator(config.categories) if 'raster' in metrics else None
    keys: Any = SequentialBatches(len(dataset), batch_size)
    if config.has_fusion:
        keys = DriveStreams(dataset.drive_frames)
    loader = make_loader(dataset, keys)
    state = None
    sums: dict[str, float] = {}
    for batch in tqdm(loader, desc='validation', disable=not progress, leave=False):
        truths = [dataset.ground_truth(index) for index in batch.indices]
        with autocast(device, precision):
            is_continued = batch.starts is not None and not bool(batch.starts[0])
            output = model(
                batch.frame_batch(config.image, device),
                state if is_continued else None,
                instance_masks=config.losses.has_instance_masks,
            )
        state = output.state
        losses = criterion(output, [target.to(device) for target in batch.targets])
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + float(loss) * len(batch)
        # All decoded points count, as published: rings are not closed.
        predictions = to_vector_maps(
            output,
            config,
            closing_distance_m=0.0,
            stamps_ns=[truth.stamp_ns for truth in truths],
            sample_ids=[truth.sample_id for truth in truths],
            scenes=[truth.scene for truth in truths],
        )
        for prediction, truth in zip(predictions, truths, strict=True):
            evaluator.add(prediction, truth)
            if raster is not None:
                raster.add(prediction, truth)
    return ValidationResult(
        evaluator.result(),
        {name: value / len(dataset) for name, value in sums.items()},
        None if raster is None else raster.result(),
    )
