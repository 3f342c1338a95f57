"""`gsmap train`: train a model on drives, in one process or under torchrun."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsmap_core.config import ModelConfig
    from gsmap_core.training.run_directory import RunInfo
    from gsmap_core.training.trainer import Trainer

logger = logging.getLogger(__name__)

_MODEL_PREFIX = 'model.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    what = parser.add_argument_group('what to train')
    what.add_argument('--config', metavar='NAME', help='model: a name of config/models or a YAML')
    what.add_argument(
        '--data',
        '--labelled',
        nargs='+',
        metavar='PATH',
        help='bags or folders of bags; or synthetic:FIRST-LAST[,key=value], rendered on the fly',
    )
    what.add_argument(
        '--unlabelled',
        nargs='+',
        metavar='PATH',
        help='further bags, of which only images and poses are used: drives past the same streets '
        '(MapGCLR)',
    )
    what.add_argument('--val', nargs='+', metavar='PATH', help='bags to validate on')
    what.add_argument(
        '--splits',
        metavar='FILE',
        help='*.traversals.json of gsmap info --traversals: says which drives of --data are '
        'labelled, unlabelled and for validation',
    )
    what.add_argument(
        '--label-percent',
        type=float,
        metavar='P',
        help='label ratio of --splits, e.g. 5',
    )
    what.add_argument(
        '--backbone', metavar='FILE', help='torchvision-named ResNet weights (.safetensors, .pth)'
    )
    what.add_argument(
        '--init',
        metavar='FILE',
        help='checkpoint to start from; without --config its configuration is used',
    )
    what.add_argument(
        '--init-partly',
        action='store_true',
        help='with --config and --init of another model: take the weights that both share',
    )
    how = parser.add_argument_group('how')
    how.add_argument(
        '--recipe', metavar='NAME',
        help='a name of config/train or a YAML (default: by the model, else synthetic_<size>, or '
        'with temporal fusion synthetic_<size>_sequences)',
    )  # fmt: skip
    how.add_argument('--steps', type=int, metavar='N', help='train this many steps')
    how.add_argument(
        '--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE', dest='overrides',
        help='change a value of the recipe (lr=1e-3, augmentation.mirror=0) or, as model.KEY, of '
        'the model',
    )  # fmt: skip
    how.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    how.add_argument(
        '--max-minutes', type=float, metavar='M', help='save and stop after this time'
    )
    out = parser.add_argument_group('results')
    out.add_argument('--out', default='runs', metavar='DIR', help='where run folders are made')
    out.add_argument('--name', metavar='NAME', help='of the run folder (default: the model)')
    out.add_argument('--resume', metavar='RUN_DIR', help='continue the training of this folder')
    out.add_argument('--no-progress', action='store_true', help='no progress bars')
    out.add_argument('--json', action='store_true', help='print the result as one JSON object')


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    from gsmap_core.training.distributed import joined_processes

    with joined_processes(args.device) as processes:
        return _train(args, processes)


def _train(args: argparse.Namespace, processes: Any) -> int:
    from gsmap_core.cli.train_data import open_training_drives, pair_dataset
    from gsmap_core.data.loading import MapDataset
    from gsmap_core.errors import ConfigError
    from gsmap_core.runtime.predictor import resolve_weights
    from gsmap_core.training.run_directory import RunDirectory
    from gsmap_core.training.trainer import Trainer

    if args.resume:
        directory, info = _opened(args)
    elif not (args.config or args.init) or not args.data:
        raise ConfigError(
            '--config and --data are missing; expected both (or --init instead of --config, '
            '--labelled instead of --data), or --resume RUN_DIR to continue'
        )
    else:
        info = _new_info(args)
    recipe = info.recipe
    recipe.accumulation(processes.count)  # a batch that cannot be is refused before any work
    drives = open_training_drives(info)
    # First: whether drives overlap is known before any image is read.
    pairs = pair_dataset(info, drives.unlabelled)
    train_data = MapDataset(
        drives.labelled,
        info.model,
        recipe.augmentation,
        seed=recipe.seed,
        cache_gb=recipe.cache_gb,
        stride=recipe.frame_stride,
        skip_empty=recipe.skip_empty,
    )
    val_data = None
    if drives.validation:
        val_data = MapDataset(
            drives.validation,
            info.model,
            cache_gb=recipe.cache_gb,
            stride=recipe.eval_frame_stride,
            max_frames=recipe.eval_max_frames,
        )
    if not args.resume:
        # All processes work in the folder that the main one made.
        made = ''
        if processes.is_main:
            made = str(RunDirectory.create(args.out, args.name or info.model.name, info).path)
        directory = RunDirectory(Path(processes.broadcast_text(made)))
    trainer = Trainer(
        info,
        train_data,
        val_data,
        directory,
        processes,
        pairs=pairs,
        pretrained_backbone=_backbone_weights(info.backbone),
        # A resumed training has its own weights, whatever it once started from.
        initial_weights=None if args.resume or not args.init else resolve_weights(args.init),
        progress=not args.no_progress,
    )
    if args.resume:
        trainer.resume()
    if processes.is_main:
        _announce(info, trainer)
    stop = _StopOnSignal()
    with stop:
        result = trainer.run(max_minutes=args.max_minutes, stop_requested=lambda: stop.requested)
    if not processes.is_main:
        return 0
    resume = f'gsmap train --resume {directory.path}'
    report = {
        'run': str(directory.path),
        'step': result.step,
        'total_steps': result.total_steps,
        'finished': result.is_finished,
        'loss': result.last_loss,
        'chamfer_map': result.best_score,
        'checkpoint': str(directory.model_path) if result.is_finished else None,
        'resume': None if result.is_finished else resume,
    }
    if args.json:
        print(json.dumps(report))
    elif result.is_finished:
        score = 'not validated' if result.best_score is None else f'{result.best_score:.4f}'
        print(f'finished: {directory.model_path} (chamfer mAP {score})')
    else:
        print(f'stopped after step {result.step} of {result.total_steps}; continue with: {resume}')
    return 0


def _announce(info: RunInfo, trainer: Trainer) -> None:
    """Say what is about to happen, and what looks like a mistake."""
    recipe, data = info.recipe, trainer.train_data
    print(
        f'training {info.model.name} on {len(data)} frames of {len(data.drives)} drives, '
        f'{trainer.total_steps} steps of {recipe.batch_size} x {trainer.processes.count} x '
        f'{trainer.accumulation} samples, in {trainer.run_directory.path}',
        file=sys.stderr,
    )
    if trainer.new_tensors:
        parts = Counter('.'.join(name.split('.')[:2]) for name in trainer.new_tensors)
        names = ', '.join(f'{part} ({count} tensors)' for part, count in parts.items())
        print(f'not in {info.initial_weights}, begins anew: {names}', file=sys.stderr)
    if info.model.has_fusion:
        print(
            f'{trainer.first_sequence_step} steps with single frames, then sequences: drives cut '
            f'in {recipe.sequences.num_splits}',
            file=sys.stderr,
        )
    if trainer.semi is not None:
        print(f'unlabelled: {trainer.semi.pairs.pairs.summary()}', file=sys.stderr)
    if recipe.backbone_lr_factor < 1 and not (info.backbone or info.initial_weights):
        logger.warning(
            'backbone_lr_factor is %g, which is meant for pretrained weights, and no --backbone '
            'is given; set it to 1 to train from scratch',
            recipe.backbone_lr_factor,
        )


class _StopOnSignal:
    """Turns the first SIGINT or SIGTERM into a request to stop after the current step."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        logger.warning('signal %d: stopping after this step; again to stop at once', number)


def _new_info(args: argparse.Namespace) -> RunInfo:
    """Put the configuration of a new training together."""
    from dataclasses import replace

    from gsmap_core.cli.train_data import resolved
    from gsmap_core.config import config_path, model_config_from_dict, read_model_values, to_plain
    from gsmap_core.contrastive_config import ContrastiveConfig
    from gsmap_core.errors import ConfigError
    from gsmap_core.models.checkpoint import read_checkpoint_config
    from gsmap_core.runtime.predictor import resolve_weights
    from gsmap_core.training.recipe import (
        apply_overrides,
        load_changed_recipe,
        split_assignments,
    )
    from gsmap_core.training.run_directory import RunInfo

    if args.init_partly and not (args.config and args.init):
        raise ConfigError('--init-partly needs --config NAME, and --init FILE of another model')
    if (args.splits is None) != (args.label_percent is None):
        raise ConfigError('--splits FILE and --label-percent P go together; give both or neither')
    recipe_sets, model_sets = split_assignments(args.overrides)
    if args.steps is not None:
        recipe_sets += [('steps', str(args.steps)), ('epochs', 'null')]
    if args.config:
        where, model_values = (
            str(config_path('models', args.config)),
            read_model_values(args.config),
        )
    else:
        where = str(resolve_weights(args.init))
        model_values = to_plain(read_checkpoint_config(where))
    model = model_config_from_dict(apply_overrides(model_values, model_sets), where)
    recipe_path = _recipe_path(args.recipe, model)
    recipe = load_changed_recipe(recipe_path, recipe_sets)
    if args.unlabelled and recipe.contrastive is None:
        recipe = replace(recipe, contrastive=ContrastiveConfig())
    return RunInfo(
        model=model,
        recipe=recipe,
        train_data=tuple(resolved(path) for path in args.data),
        val_data=tuple(resolved(path) for path in args.val or ()),
        unlabelled_data=tuple(resolved(path) for path in args.unlabelled or ()),
        splits=str(Path(args.splits).resolve()) if args.splits else '',
        label_percent=100.0 if args.label_percent is None else args.label_percent,
        backbone=str(Path(args.backbone).resolve()) if args.backbone else '',
        initial_weights=str(resolve_weights(args.init).resolve()) if args.init else '',
        initial_partly=args.init_partly,
    )


def _recipe_path(given: str | None, model: ModelConfig) -> Path:
    """Return the recipe that was asked for, that of the model, or the one for its size."""
    from gsmap_core.config import config_path
    from gsmap_core.errors import ConfigError

    if given:
        return config_path('train', given)
    size = model.name.rsplit('_', 1)[-1]
    kinds = ('_sequences', '') if model.has_fusion else ('',)
    for name in (model.name, *(f'synthetic_{size}{kind}' for kind in kinds)):
        try:
            return config_path('train', name)
        except ConfigError as error:
            last_error = error
    raise ConfigError(f"no recipe for model '{model.name}': {last_error}; give one with --recipe")


def _opened(args: argparse.Namespace) -> Any:
    """Open the folder to resume; only its data may be given anew (they may have moved)."""
    from dataclasses import replace

    from gsmap_core.errors import ConfigError
    from gsmap_core.training.run_directory import RunDirectory

    fixed = {'--config': args.config, '--recipe': args.recipe, '--backbone': args.backbone}
    fixed |= {
        '--init': args.init,
        '--init-partly': args.init_partly,
        '--set': args.overrides,
        '--steps': args.steps,
        '--name': args.name,
        '--splits': args.splits,
        '--label-percent': args.label_percent,
    }
    given = [name for name, value in fixed.items() if value]
    if given:
        raise ConfigError(
            f'{", ".join(given)} cannot be changed when resuming; leave it out, or start a new '
            'training'
        )
    directory, info = RunDirectory.open(args.resume)
    if args.data:
        info = replace(info, train_data=tuple(args.data))
    if args.val:
        info = replace(info, val_data=tuple(args.val))
    if args.unlabelled:
        info = replace(info, unlabelled_data=tuple(args.unlabelled))
    return directory, info


def _backbone_weights(path: str) -> Any:
    """Read pretrained backbone weights, or return None."""
    if not path:
        logger.info('no pretrained backbone: nothing is frozen, normalisation trains')
        return None
    from gsmap_core.models.backbone import load_backbone_file

    return load_backbone_file(path)
