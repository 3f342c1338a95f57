"""Exponential moving average of the weights: what is evaluated and shipped."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import nn

Model = TypeVar('Model', bound=nn.Module)


class ModelEma(Generic[Model]):
    """Keeps a smoothed copy of a model.

    The decay grows over the first steps, min(decay, (1 + n) / (10 + n)), so that the random start
    is forgotten. Buffers of floating point (BatchNorm statistics) are smoothed too, others copied.

    Args:
        model: the model that trains.
        decay: share of the old average that stays per update, in [0, 1]; 0: a plain copy.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.num_updates = 0
        self._floating = [k for k, v in model.state_dict().items() if v.is_floating_point()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the current weights."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        mine, theirs = self.model.state_dict(), model.state_dict()
        floating = [mine[name] for name in self._floating]
        torch._foreach_lerp_(floating, [theirs[name] for name in self._floating], 1.0 - decay)
        for name in mine.keys() - set(self._floating):
            mine[name].copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the average and its age."""
        return {'weights': self.model.state_dict(), 'num_updates': self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state['weights'])
        self.num_updates = int(state['num_updates'])
