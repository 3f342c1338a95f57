"""Single frames first, then sequences: which batches come at which step, and what is remembered.

Every forward pass of a step (`accumulation` of them) has rows and memories of its own, so that
batch k of a step continues batch k of the step before.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from functools import partial

from gsmap_core.config import ModelConfig
from gsmap_core.data.loading import Batch, MapDataset, make_loader
from gsmap_core.data.sampling import ResumableSampler
from gsmap_core.data.sequences import SequenceBatches
from gsmap_core.models.fusion import FusionState
from gsmap_core.training.distributed import Processes
from gsmap_core.training.recipe import TrainConfig
from gsmap_core.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def first_sequence_step(config: ModelConfig, recipe: TrainConfig, total_steps: int) -> int:
    """Return the number of steps with single frames; all of them without temporal fusion."""
    if not config.has_fusion:
        return total_steps
    return recipe.sequences.first_sequence_step(total_steps)


def training_batches(
    data: MapDataset,
    recipe: TrainConfig,
    processes: Processes,
    *,
    step: int,
    samples: int,
    first_sequence_step: int,
) -> Iterator[Batch]:
    """Yield the batches of one process from a step on, without end.

    Args:
        data: training samples.
        recipe: batch size, cuts, seed and workers.
        processes: this process among those that train.
        step: steps that are done.
        samples: samples of all processes that are used.
        first_sequence_step: steps with single frames.
    """
    parts = recipe.accumulation(processes.count)
    shared = {'rank': processes.rank, 'num_processes': processes.count}
    loader = partial(
        make_loader,
        data,
        num_workers=recipe.workers,
        pin_memory=processes.device.type == 'cuda',
    )
    if step < first_sequence_step:
        frames = ResumableSampler(len(data), recipe.batch_size, recipe.seed, samples, **shared)
        num_batches = parts * (first_sequence_step - step)
        yield from itertools.islice(loader(frames), num_batches)
        step = first_sequence_step
        logger.info('step %d: sequences from here on', step)
    per_step = recipe.batch_size * parts * processes.count
    sequences = SequenceBatches(
        data.drive_frames,
        recipe.batch_size,
        batches_per_step=parts,
        num_splits=recipe.sequences.num_splits,
        seed=recipe.seed,
        step=step - first_sequence_step,
        # Behind the epochs of the single frames, so that nothing random is drawn twice.
        first_epoch=-(-first_sequence_step * per_step // len(data)),
        **shared,
    )
    yield from loader(sequences)


class Streams:
    """What the model remembers of the sequences that one process trains on.

    Args:
        recipe: rows and forward passes per step.
        processes: this process among those that train.
    """

    def __init__(self, recipe: TrainConfig, processes: Processes) -> None:
        parts = recipe.accumulation(processes.count)
        self._states: list[FusionState | None] = [None] * parts
        self._layout = [processes.count, parts, recipe.batch_size]
        self._processes = processes

    def before(self, part: int, batch: Batch) -> FusionState | None:
        """Return the state that goes into the model with a batch; None: all rows start anew."""
        state = self._states[part]
        return None if state is None or batch.starts is None else state.reset(batch.starts)

    def after(self, part: int, batch: Batch, state: FusionState | None) -> None:
        """Keep what came out of the model with a batch; single frames leave nothing."""
        self._states[part] = None if state is None or batch.starts is None else state.detach()

    def forget(self) -> None:
        """Let all rows start anew."""
        self._states = [None] * len(self._states)

    def save(self, run: RunDirectory, step: int) -> list[int] | None:
        """Write the memory of this process into the run folder.

        Args:
            run: the folder.
            step: steps done.

        Returns:
            For `load`: numbers of processes, forward passes per step and rows, the same in all
            processes; None if there is no memory.
        """
        if any(state is None for state in self._states):
            return None
        states = [state.save() for state in self._states if state is not None]
        run.save_streams(step, self._processes.rank, states)
        return self._layout

    def load(self, run: RunDirectory, step: int, layout: list[int] | None) -> None:
        """Take over the memory that this process wrote.

        Args:
            run: the folder.
            step: steps done.
            layout: what `save` returned.

        Raises:
            TrainingError: the file is missing or damaged.
        """
        self.forget()
        if layout is None:
            return
        if layout != self._layout:
            logger.warning(
                'the memories of the sequences belong to %d process(es) with %d x %d rows, now '
                'there are %d with %d x %d; all sequences start anew where they are',
                *layout,
                *self._layout,
            )
            return
        saved = run.load_streams(step, self._processes.rank)
        device = self._processes.device
        self._states = [FusionState.restore(tensors).to(device) for tensors in saved]
