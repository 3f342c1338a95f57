"""The folder of one training: never overwritten, complete enough to resume and to explain it.

<out>/<name>-000/
  config.yaml        effective model, recipe and data
  environment.json   versions and machine
  metrics.jsonl      one JSON object per log interval and per evaluation
  tensorboard/       the same as curves
  last.pt            everything needed to continue, together with
  streams/           what is remembered of running sequences, one file per process
  best.safetensors   averaged weights with the best validation score so far
  model.safetensors  what the finished training ships
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from torch import Tensor

import gsmap_core
from gsmap_core.config import ModelConfig, model_config_from_dict, read_yaml, to_plain
from gsmap_core.errors import TrainingError
from gsmap_core.training.recipe import TrainConfig, recipe_from_dict

STATE_VERSION = 1
_MAX_RUNS = 10000


@dataclass(frozen=True)
class RunInfo:
    """What a training was started with.

    Args:
        model: model configuration.
        recipe: training recipe.
        train_data: paths of the training data.
        val_data: paths of the validation data.
        unlabelled_data: paths of further data whose labels are not looked at.
        splits: traversal file that says which drives of `train_data` are labelled, unlabelled and
            for validation, or empty: all are labelled.
        label_percent: label ratio of the splits [%].
        backbone: file with pretrained backbone weights, or empty.
        initial_weights: checkpoint that the training started from, or empty: from scratch.
        initial_partly: it is of another configuration, and what both share was taken.
    """

    model: ModelConfig
    recipe: TrainConfig
    train_data: tuple[str, ...] = ()
    val_data: tuple[str, ...] = ()
    unlabelled_data: tuple[str, ...] = ()
    splits: str = ''
    label_percent: float = 100.0
    backbone: str = ''
    initial_weights: str = ''
    initial_partly: bool = False


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a resume after a kill, sees the old or the new one."""
    temporary = path.with_name(path.name + '.tmp')
    with open(temporary, 'wb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def environment() -> dict[str, Any]:
    """Return versions and machine, as written beside results."""
    has_gpu = torch.cuda.is_available()
    return {
        'gsmap': gsmap_core.__version__,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'numpy': np.__version__,
        'opencv': cv2.__version__,
        'platform': platform.platform(),
        'cpu_count': os.cpu_count(),
        'torch_threads': torch.get_num_threads(),
        'processes': int(os.environ.get('WORLD_SIZE', 1)),
        'gpu': torch.cuda.get_device_name(0) if has_gpu else None,
        'command': sys.argv,
        'started': datetime.now(UTC).isoformat(timespec='seconds'),
    }


@dataclass
class RunDirectory:
    """Paths and files of one training.

    Args:
        path: the folder.
    """

    path: Path
    _writer: Any = field(default=None, init=False, repr=False)

    @classmethod
    def create(cls, out: Path | str, name: str, info: RunInfo) -> RunDirectory:
        """Make a new folder `<out>/<name>-<index>` and write the configuration into it."""
        for index in range(_MAX_RUNS):
            path = Path(out) / f'{name}-{index:03d}'
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            run = cls(path)
            text = yaml.safe_dump(to_plain(info), sort_keys=False, default_flow_style=None)
            (path / 'config.yaml').write_text(text, encoding='utf-8')
            text = json.dumps(environment(), indent=2)
            (path / 'environment.json').write_text(text + '\n', encoding='utf-8')
            return run
        raise TrainingError(f"'{out}' holds {_MAX_RUNS} runs called '{name}'; give another --out")

    @classmethod
    def open(cls, path: Path | str) -> tuple[RunDirectory, RunInfo]:
        """Open the folder of an earlier training.

        Raises:
            TrainingError: the folder has no configuration or no state to continue from.
            ConfigError: its configuration is broken.
        """
        run = cls(Path(path))
        for needed in (run.path / 'config.yaml', run.state_path):
            if not needed.is_file():
                raise TrainingError(
                    f"'{path}' cannot be resumed: '{needed.name}' is missing; give the folder of "
                    'a training that has saved a state'
                )
        where = str(run.path / 'config.yaml')
        values = read_yaml(where)
        info = RunInfo(
            model=model_config_from_dict(values.get('model', {}), f'{where}: model'),
            recipe=recipe_from_dict(values.get('recipe', {}), f'{where}: recipe'),
            train_data=tuple(values.get('train_data', ())),
            val_data=tuple(values.get('val_data', ())),
            unlabelled_data=tuple(values.get('unlabelled_data', ())),
            splits=values.get('splits', ''),
            label_percent=float(values.get('label_percent', 100.0)),
            backbone=values.get('backbone', ''),
            initial_weights=values.get('initial_weights', ''),
            initial_partly=bool(values.get('initial_partly', False)),
        )
        return run, info

    @property
    def state_path(self) -> Path:
        """State to resume from."""
        return self.path / 'last.pt'

    def streams_path(self, step: int, rank: int) -> Path:
        """Memory of the sequences that a process was in after a step."""
        return self.path / 'streams' / f'{step:09d}-{rank:04d}.pt'

    @property
    def best_path(self) -> Path:
        """Checkpoint with the best validation score."""
        return self.path / 'best.safetensors'

    @property
    def model_path(self) -> Path:
        """Checkpoint of the finished training."""
        return self.path / 'model.safetensors'

    @property
    def metrics_path(self) -> Path:
        """Log of numbers, one JSON object per line."""
        return self.path / 'metrics.jsonl'

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the state to resume from, atomically; then older `streams` are not needed."""
        _save_atomically({'version': STATE_VERSION, **state}, self.state_path)
        # Other processes may already be writing those of a later step.
        first_kept = state['step'] + (state['streams'] is None)
        for path in (self.path / 'streams').glob('*'):
            if path.name < self.streams_path(first_kept, 0).name:
                path.unlink(missing_ok=True)

    def load_state(self) -> dict[str, Any]:
        """Read the state to resume from.

        Raises:
            TrainingError: the file is damaged or of another version.
        """
        state = _load(self.state_path)
        if not isinstance(state, dict) or state.get('version') != STATE_VERSION:
            raise TrainingError(
                f"'{self.state_path}' is no training state of version {STATE_VERSION}; start anew"
            )
        return state

    def save_streams(self, step: int, rank: int, states: list[dict[str, Tensor]]) -> None:
        """Write what one process remembers of its sequences, before `save_state` of that step."""
        path = self.streams_path(step, rank)
        path.parent.mkdir(exist_ok=True)
        _save_atomically(states, path)

    def load_streams(self, step: int, rank: int) -> list[dict[str, Tensor]]:
        """Read what `save_streams` wrote.

        Raises:
            TrainingError: the file is missing or damaged.
        """
        states: list[dict[str, Tensor]] = _load(self.streams_path(step, rank))
        return states

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Append numbers to the log and to TensorBoard (nested ones as `group/name`)."""
        with open(self.metrics_path, 'a', encoding='utf-8') as file:
            file.write(json.dumps({'step': step, **values}) + '\n')
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.path / 'tensorboard'), purge_step=step)
        for name, value in values.items():
            group = value if isinstance(value, dict) else {'': value}
            for inner, number in group.items():
                if isinstance(number, (int, float)):
                    tag = f'{name}/{inner}' if inner else name
                    self._writer.add_scalar(tag, number, step)

    def forget_after(self, step: int) -> None:
        """Remove log lines of steps whose work was lost, before they are done again."""
        if self.metrics_path.is_file():
            lines = self.metrics_path.read_text(encoding='utf-8').splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= step]
            write_atomically(self.metrics_path, ''.join(kept).encode())

    def metrics(self) -> list[dict[str, Any]]:
        """Return the log."""
        text = self.metrics_path.read_text(encoding='utf-8')
        return [json.loads(line) for line in text.splitlines()]

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _save_atomically(value: Any, path: Path) -> None:
    temporary = path.with_name(path.name + '.tmp')
    with open(temporary, 'wb') as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise TrainingError(f"'{path}' cannot be read ({error}); start a new training") from error


def _step_of(line: str) -> float:
    """Return the step of a log line; a line cut off by a kill belongs to no step."""
    try:
        return float(json.loads(line)['step'])
    except (ValueError, KeyError, TypeError):
        return float('inf')
