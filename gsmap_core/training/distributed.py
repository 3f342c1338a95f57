"""Several training processes, started by torchrun (`python -m torch.distributed.run`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gsmap_core.errors import EnvironmentProblemError

#: How long processes wait for the one that validates; nccl would give up after ten minutes.
_PATIENCE = timedelta(hours=3)


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Args:
        rank: number of this process, 0 to count - 1.
        count: number of processes.
        device: that this process trains on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and evaluates."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all of them get the same answer."""
        if self.count == 1:
            return flag
        value = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.count > 1:
            dist.barrier()

    def broadcast_text(self, text: str) -> str:
        """Return the main process's text in every process."""
        if self.count == 1:
            return text
        box: list[str] = [text]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def wrap(self, model: nn.Module, *, sync_norm: bool = True) -> nn.Module:
        """Return a model whose gradients are averaged over the processes.

        Args:
            model: on this process's device.
            sync_norm: BatchNorm that trains takes its statistics over all processes (GPUs only).
        """
        if self.count == 1:
            return model
        if self.device.type == 'cuda' and sync_norm:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        # Published models carry weights that their forward pass never uses.
        return DistributedDataParallel(model, find_unused_parameters=True)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device.

    Raises:
        EnvironmentProblemError: a GPU was asked for and none is usable.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    if name.startswith('cuda') and not torch.cuda.is_available():
        raise EnvironmentProblemError(
            f"device '{name}' was asked for but PyTorch sees no GPU; use --device cpu or install "
            'a CUDA build of torch'
        )
    if name == 'cuda':
        return torch.device('cuda', local_rank)
    return torch.device(name)


@contextmanager
def joined_processes(device: str = 'auto') -> Iterator[Processes]:
    """Join the processes that torchrun started (gloo on the CPU, nccl on GPUs); alone otherwise.

    Raises:
        EnvironmentProblemError: the device is not there.
    """
    count = int(os.environ.get('WORLD_SIZE', '1'))
    local_rank = int(os.environ.get('LOCAL_RANK', '0'))
    chosen = choose_device(device, local_rank)
    if chosen.type == 'cuda':
        torch.cuda.set_device(chosen)
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    dist.init_process_group('nccl' if chosen.type == 'cuda' else 'gloo', timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), count, chosen)
    finally:
        dist.destroy_process_group()
