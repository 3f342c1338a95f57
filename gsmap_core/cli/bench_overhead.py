"""`gsmap bench overhead`: what a method adds to its host at inference."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gsmap_core.config import ModelConfig
    from gsmap_core.models.mapper import OnlineMapper
    from gsmap_core.structures import CameraRig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        '--config', default='gsmap_tiny', metavar='NAME', help='model to measure (gsmap_tiny)'
    )
    parser.add_argument(
        '--host', default='maptr_tiny', metavar='NAME', help='model to compare with (maptr_tiny)'
    )
    parser.add_argument(
        '--rig', default='nuscenes_like', metavar='NAME', help='rig by name or YAML file'
    )
    parser.add_argument(
        '--repeats', type=int, default=50, metavar='N', help='interleaved pairs (50)'
    )
    parser.add_argument('--threads', type=int, metavar='N', help='threads of the CPU (as torch)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda[:N] (auto)')
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args: argparse.Namespace) -> int:
    """Time forward pass and post-processing of both models, with random weights and images."""
    import json
    import statistics

    import torch

    from gsmap_core.cli.bench_measure import describe_device, interleaved_seconds, median_ratio
    from gsmap_core.config import load_model_config
    from gsmap_core.errors import ConfigError
    from gsmap_core.models.mapper import count_parameters
    from gsmap_core.rig import load_rig
    from gsmap_core.runtime.predictor import resolve_device

    if args.repeats < 1:
        raise ConfigError(f'--repeats {args.repeats}; expected at least 1')
    if args.threads:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    configs = {name: load_model_config(name) for name in (args.host, args.config)}
    if len(configs) < 2:
        raise ConfigError(f"--config and --host are both '{args.host}'; give two models")
    rig = load_rig(args.rig)
    steps, parameters = {}, {}
    for name, config in configs.items():
        model, steps[name] = _inference(config, rig, device)
        parameters[name] = count_parameters(model)['total']
    times = interleaved_seconds(steps, args.repeats, device)
    ratio = median_ratio(times[args.config], times[args.host])
    result = {
        **describe_device(device),
        'pairs': args.repeats,
        'median_ms': {name: 1e3 * statistics.median(values) for name, values in times.items()},
        'parameters': parameters,
        'ratio': ratio,
    }
    if args.json:
        print(json.dumps(result))
        return 0
    print(f'{result["device"]}, {result["threads"]} threads, torch {result["torch"]}')
    for name in configs:
        print(f'{name}: {result["median_ms"][name]:.1f} ms, {parameters[name]:,} parameters')
    print(
        f'{args.config} takes {ratio:.3f} times as long as {args.host} '
        f'(median of {args.repeats} interleaved pairs)'
    )
    return 0


def _inference(
    config: ModelConfig, rig: CameraRig, device: torch.device
) -> tuple[OnlineMapper, Callable[[], object]]:
    """Return a model and a function that maps one camera set with it, preparation left out."""
    import numpy as np
    import torch

    from gsmap_core.models.mapper import OnlineMapper
    from gsmap_core.models.postprocess import to_vector_maps
    from gsmap_core.runtime.inputs import InputBuilder
    from gsmap_core.structures import SurroundFrame

    torch.manual_seed(0)
    model = OnlineMapper(config).eval().to(device)
    noise = np.random.default_rng(0)
    pictures = tuple(
        noise.integers(0, 256, (camera.height_px, camera.width_px, 3), dtype=np.uint8)
        for camera in rig.cameras
    )
    frame = SurroundFrame(0, rig, pictures, map_from_base=np.eye(4))
    batch = InputBuilder(config).build([frame]).batch.to(device)

    @torch.inference_mode()
    def step() -> object:
        return to_vector_maps(model(batch), config)

    return model, step
