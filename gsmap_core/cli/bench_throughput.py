"""`gsmap bench throughput`: training samples and inference frames per second, and memory.

For every model in every number format, and with the network compiled. Weights are random and the
batch is one drawn from a short synthetic drive: speed depends on neither.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from gsmap_core.config import ModelConfig
    from gsmap_core.data.batches import Batch

MODELS = ('maptr_tiny', 'gsmap_live_tiny')
#: Name -> number format of the forward pass, and whether the network is compiled.
FORMATS: dict[str, tuple[str, bool]] = {
    'fp32': ('fp32', False),
    'bf16': ('bf16', False),
    'compiled': ('bf16', True),
}
_PIXELS = 640


@dataclass(frozen=True)
class ThroughputCase:
    """One measurement.

    Args:
        model: configuration.
        format: a key of `FORMATS`.
        batch_size: samples of a training step.
        device: `cpu` or `cuda[:N]`.
    """

    model: str
    format: str
    batch_size: int
    device: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        '--models', nargs='+', default=list(MODELS), metavar='NAME',
        help=f'models ({" ".join(MODELS)})',
    )  # fmt: skip
    parser.add_argument(
        '--formats', nargs='+', default=['fp32', 'bf16'], choices=tuple(FORMATS),
        help='number formats (fp32 bf16); compiled is bf16 through torch.compile',
    )  # fmt: skip
    parser.add_argument('--batch', type=int, default=4, metavar='N', help='training batch (4)')
    parser.add_argument('--repeats', type=int, default=10, metavar='N', help='rounds (10)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda[:N] (auto)')
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args: argparse.Namespace) -> int:
    """Measure every model in every format, those of one model in turn."""
    import json

    from gsmap_core.cli.bench_measure import describe_device
    from gsmap_core.errors import ConfigError
    from gsmap_core.runtime.predictor import resolve_device

    for name in ('batch', 'repeats'):
        if getattr(args, name) < 1:
            raise ConfigError(f'--{name} {getattr(args, name)}; expected at least 1')
    device = resolve_device(args.device)
    results = []
    for model in args.models:
        cases = [ThroughputCase(model, form, args.batch, str(device)) for form in args.formats]
        results += _measure(cases, args.repeats, device)
    report = {**describe_device(device), 'rounds': args.repeats, 'results': results}
    print(json.dumps(report) if args.json else as_text(report))
    return 0


def as_text(report: dict[str, Any]) -> str:
    """Return a Markdown table."""
    lines = [
        f'{report["device"]}, {report["threads"]} threads, torch {report["torch"]}; medians of '
        f'{report["rounds"]} rounds',
        '',
        '| Model | format | batch | training samples/s | MiB | inference frames/s | MiB |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in report['results']:
        cells = []
        for kind, rate in (('training', 'samples_per_second'), ('inference', 'frames_per_second')):
            peak = row[kind]['peak_mib']
            cells += [f'{row[kind][rate]:.2f}', '-' if peak is None else f'{peak:.0f}']
        lines.append(
            f'| `{row["model"]}` | {row["format"]} | {row["batch_size"]} | '
            + ' | '.join(cells)
            + ' |'
        )
    return '\n'.join(lines)


def training_step(case: ThroughputCase) -> Callable[[], object]:
    """Return a function that does one training step: forward, losses, backward, optimiser."""
    import torch

    from gsmap_core.config import load_model_config
    from gsmap_core.losses.criterion import Criterion
    from gsmap_core.training.precision import autocast

    config, device = load_model_config(case.model), torch.device(case.device)
    model = _model(config, device)
    forward = _compiled(model, case)
    criterion = Criterion(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    batch = _batch(config, case.batch_size)
    targets = [target.to(device) for target in batch.targets]
    frames = batch.frame_batch(config.image, device)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, FORMATS[case.format][0]):
            output = forward(frames)
        total = torch.stack(list(criterion(output, targets).values())).sum()
        total.backward()
        optimizer.step()
        return total.detach()

    return step


def inference_step(case: ThroughputCase) -> Callable[[], object]:
    """Return a function that maps one camera set, from prepared images to vectors."""
    import torch

    from gsmap_core.config import load_model_config
    from gsmap_core.models.postprocess import to_vector_maps
    from gsmap_core.training.precision import autocast

    config, device = load_model_config(case.model), torch.device(case.device)
    model = _model(config, device).eval()
    forward = _compiled(model, case)
    frames = _batch(config, 1).frame_batch(config.image, device)

    @torch.inference_mode()
    def step() -> object:
        with autocast(device, FORMATS[case.format][0]):
            output = forward(frames)
        return to_vector_maps(output, config)

    return step


def _measure(
    cases: list[ThroughputCase], repeats: int, device: torch.device
) -> list[dict[str, Any]]:
    """Return the results of one model, measured in turn."""
    import statistics

    from gsmap_core.cli.bench_measure import interleaved_seconds, peak_memory_bytes

    results = [asdict(case) for case in cases]
    for kind, prepare, rate in (
        ('training', training_step, 'samples_per_second'),
        ('inference', inference_step, 'frames_per_second'),
    ):
        ways = {case.format: prepare(case) for case in cases}
        times = interleaved_seconds(ways, repeats, device)
        del ways
        for case, result in zip(cases, results, strict=True):
            size = case.batch_size if kind == 'training' else 1
            peak = peak_memory_bytes(partial(prepare, case), device)
            result[kind] = {
                rate: size / statistics.median(times[case.format]),
                'peak_mib': None if peak is None else peak / 2**20,
            }
    return results


def _model(config: ModelConfig, device: torch.device) -> Any:
    import torch

    from gsmap_core.models.mapper import OnlineMapper

    torch.manual_seed(0)
    return OnlineMapper(config).to(device)


def _compiled(model: Any, case: ThroughputCase) -> Callable[..., Any]:
    """Return the forward pass, compiled where the format asks for it.

    Raises:
        EnvironmentProblemError: there is nothing to compile with.
    """
    import torch

    from gsmap_core.errors import EnvironmentProblemError

    if not FORMATS[case.format][1]:
        return model
    compiled = torch.compile(model)

    def forward(*arguments: Any) -> Any:
        try:
            return compiled(*arguments)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise EnvironmentProblemError(
                f"'{case.model}' cannot be compiled here: {error}; leave 'compiled' out of "
                '--formats, or install what it names (a C++ compiler on the CPU, Triton on a GPU)'
            ) from None

    return forward


def _batch(config: ModelConfig, size: int) -> Batch:
    """Return samples of a short synthetic drive."""
    from gsmap_core.data.batches import collate
    from gsmap_core.data.loading import MapDataset
    from gsmap_core.data.synthetic.drive import synthetic_drives

    rig = 'av2_like' if config.num_cameras == 7 else 'nuscenes_like'
    text = f'synthetic:0,setting=easy,duration_s=1,rate_hz=2,image_width_px={_PIXELS},rig={rig}'
    text += ',lidar=true' if config.losses.depth else ''
    dataset = MapDataset(synthetic_drives(text), config)
    samples = [dataset[0, index] for index in range(len(dataset))]
    return collate([samples[index % len(samples)] for index in range(size)])
