"""`gsmap bench raster`: time and memory of drawing Gaussians, forward and backward together."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

if TYPE_CHECKING:
    from torch import Tensor

_SIZES = ('50x20x200x100', '50x20x256x128', '100x20x200x100')
_REFERENCE = 'reference'
# A vertex every so many metres; the elements of the papers have 20 over up to 60 m.
_SPACING_M = 1.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from gsmap_core.config import RasterLossConfig

    # From the configuration, which is there at once; the rasterisers bring torch.
    unions = get_args(get_type_hints(RasterLossConfig)['union'])
    parser.add_argument(
        '--sizes',
        nargs='+',
        default=list(_SIZES),
        metavar='MxPxHxW',
        help=f'elements, Gaussians of each, rows and columns ({" ".join(_SIZES)})',
    )
    parser.add_argument(
        '--scales',
        nargs='+',
        default=['init', 'trained'],
        metavar='init|trained|PRED.map.json',
        help='as a training starts; made up like those of a trained model; or the Gaussians of '
        'predictions with covariances (init trained)',
    )
    parser.add_argument(
        '--backends',
        nargs='+',
        choices=('fast', 'triton'),
        metavar='NAME',
        help='what to compare with the reference: fast, triton (fast; on a GPU both)',
    )
    parser.add_argument(
        '--union',
        choices=unions,
        default=RasterLossConfig().union,
        help=f'how the Gaussians of an element combine ({RasterLossConfig().union})',
    )
    parser.add_argument(
        '--repeats', type=int, default=5, metavar='N', help='interleaved rounds of timing (5)'
    )
    parser.add_argument('--threads', type=int, metavar='N', help='threads of the CPU (as torch)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda[:N] (auto)')
    parser.add_argument('--json', action='store_true', help='print one JSON object')


@dataclass(frozen=True)
class RasterCase:
    """One thing to measure; plain values, so that it can travel to another process.

    Args:
        num_elements: M.
        num_places: P, Gaussians per element.
        num_rows: H.
        num_columns: W.
        scales: `init`, `trained` or a map file with covariances.
        union: how Gaussians combine.
        device: torch device.
    """

    num_elements: int
    num_places: int
    num_rows: int
    num_columns: int
    scales: str
    union: str
    device: str


def run(args: argparse.Namespace) -> int:
    """Measure every size with every kind of scales."""
    import torch
    from tqdm import tqdm

    from gsmap_core.cli.bench_measure import describe_device
    from gsmap_core.errors import ConfigError
    from gsmap_core.runtime.predictor import resolve_device

    if args.repeats < 1 or (args.threads is not None and args.threads < 1):
        raise ConfigError(
            f'--repeats {args.repeats} --threads {args.threads}; expected at least 1 of each'
        )
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    backends = args.backends or (['fast', 'triton'] if device.type == 'cuda' else ['fast'])
    cases = [
        RasterCase(*parse_size(size), scales, args.union, str(device))
        for scales in args.scales
        for size in args.sizes
    ]
    results = []
    # Quiet unless a terminal watches.
    for case in tqdm(cases, desc='bench raster', unit='case', file=sys.stderr, disable=None):
        results.append(measure(case, backends, args.repeats))
    report = {
        'benchmark': 'raster',
        'measured': 'forward and backward together',
        **describe_device(device),
        'repeats': args.repeats,
        'union': args.union,
        'scales': {name: describe_scales(name) for name in args.scales},
        'results': results,
    }
    print(json.dumps(report) if args.json else _as_text(report))
    return 0


def parse_size(text: str) -> tuple[int, int, int, int]:
    """Return M, P, H, W.

    Raises:
        ConfigError: the text has another form.
    """
    from gsmap_core.errors import ConfigError

    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)x([1-9]\d*)x([1-9]\d*)', text)
    if match is None:
        raise ConfigError(
            f"--sizes '{text}'; expected elements x Gaussians x rows x columns, like {_SIZES[0]}"
        )
    elements, places, rows, columns = (int(number) for number in match.groups())
    return elements, places, rows, columns


def describe_scales(scales: str) -> str:
    """Return where the Gaussians of a measurement come from."""
    from gsmap_core.config import GaussianConfig

    if scales == 'init':
        return f'synthetic lines, both scales {GaussianConfig().scale_init_m} m, angle 0'
    if scales == 'trained':
        return (
            'synthetic lines, scales made up like those of a trained model (0.6 to 1.5 m along '
            'the line, 0.2 to 0.6 m across), no checkpoint was used'
        )
    return f"vertices and covariances of '{scales}'"


def measure(case: RasterCase, backends: list[str], repeats: int) -> dict[str, Any]:
    """Return median times [s], peak memory [bytes] and ratios of the reference to each backend.

    Raises:
        ConfigError: a backend does not run here, or the map file holds no Gaussians.
    """
    import torch

    from gsmap_core.cli.bench_measure import (
        interleaved_seconds,
        median_ratio,
        peak_memory_bytes,
    )

    device = torch.device(case.device)
    names = [_REFERENCE, *backends]
    # Memory first: it needs the machine's memory for itself.
    memory = {name: peak_memory_bytes(partial(prepare, case, name), device) for name in names}
    seconds = interleaved_seconds({name: prepare(case, name) for name in names}, repeats, device)
    ways: dict[str, dict[str, Any]] = {}
    for name in names:
        ways[name] = {'seconds': statistics.median(seconds[name]), 'peak_bytes': memory[name]}
        if name != _REFERENCE:
            own, reference = memory[name], memory[_REFERENCE]
            ways[name]['times_faster'] = median_ratio(seconds[_REFERENCE], seconds[name])
            ways[name]['times_less_memory'] = reference / own if reference and own else None
    return {**asdict(case), 'ways': ways}


def prepare(case: RasterCase, backend: str) -> Callable[[], object]:
    """Build the inputs and return a function that draws them and goes back."""
    import torch

    from gsmap_core.gaussians.rasterize import rasterize_gaussians
    from gsmap_core.geometry.bev_grid import BevGrid
    from gsmap_core.structures import PerceptionRange

    device = torch.device(case.device)
    leaves = [value.to(device).requires_grad_() for value in make_gaussians(case)]
    incoming = torch.randn(
        case.num_elements,
        case.num_rows,
        case.num_columns,
        generator=torch.Generator().manual_seed(1),
    ).to(device)

    def draw(grid: BevGrid, gradient: Tensor | None, num_elements: int) -> None:
        centers, scales, thetas = (leaf[:num_elements] for leaf in leaves)
        occupancy = rasterize_gaussians(centers, scales, thetas, grid, case.union, backend)
        occupancy.backward(torch.ones_like(occupancy) if gradient is None else gradient)
        for leaf in leaves:
            leaf.grad = None

    # Loads whatever is loaded on first use, on a canvas too small to count.
    draw(BevGrid(PerceptionRange(), 4, 2), None, 1)
    grid = BevGrid(PerceptionRange(), case.num_rows, case.num_columns)
    return lambda: draw(grid, incoming, case.num_elements)


def make_gaussians(case: RasterCase) -> tuple[Tensor, Tensor, Tensor]:
    """Return centres (M, P, 2), scales (M, P, 2) [m] and angles (M, P), the same on every call."""
    import torch

    from gsmap_core.config import GaussianConfig

    shape = (case.num_elements, case.num_places)
    if case.scales not in ('init', 'trained'):
        return _gaussians_of_file(case.scales, *shape)
    generator = torch.Generator().manual_seed(0)

    def uniform(*size: int, low: float, high: float) -> Tensor:
        return torch.rand(*size, generator=generator) * (high - low) + low

    # Gently bent lines through the range of 60 m x 30 m; some leave it, as elements do.
    heading = uniform(shape[0], 1, low=-3.2, high=3.2) + uniform(*shape, low=-0.1, high=0.1)
    heading = heading + torch.linspace(0, 1, shape[1]) * uniform(shape[0], 1, low=-0.5, high=0.5)
    steps = torch.stack([heading.cos(), heading.sin()], dim=-1) * _SPACING_M
    middle = uniform(shape[0], 1, 2, low=-1, high=1) * torch.tensor([25.0, 12.0])
    path = steps.cumsum(dim=1)
    centers = path - path.mean(dim=1, keepdim=True) + middle
    if case.scales == 'init':
        return centers, torch.full((*shape, 2), GaussianConfig().scale_init_m), torch.zeros(shape)
    along, across = uniform(*shape, low=0.6, high=1.5), uniform(*shape, low=0.2, high=0.6)
    return centers, torch.stack([along, across], dim=-1), heading


def _gaussians_of_file(
    path: str, num_elements: int, num_places: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the Gaussians of the first elements of a map file, repeated where it has too few.

    Raises:
        ConfigError: no element has covariances.
    """
    import numpy as np
    import torch

    from gsmap_core.errors import ConfigError
    from gsmap_core.gaussians.representation import triples_to_scales
    from gsmap_core.mapfile import read_map_file

    found = [
        (element.vertices[:, :2], element.covariance)
        for frame in read_map_file(path)
        for element in frame.elements
        if element.covariance is not None
    ]
    if not found:
        raise ConfigError(
            f"--scales '{path}' holds no element with a covariance; give predictions of a model "
            "with Gaussians, or 'init' or 'trained'"
        )
    centers, triples = [], []
    for index in range(num_elements):
        vertices, covariance = found[index % len(found)]
        places = np.arange(num_places) % len(vertices)
        centers.append(vertices[places])
        triples.append(covariance[places])
    scales, thetas = triples_to_scales(torch.as_tensor(np.stack(triples)))
    return torch.as_tensor(np.stack(centers)).float(), scales.float(), thetas.float()


def _as_text(report: dict[str, Any]) -> str:
    """Return a Markdown table with what it depends on."""
    lines = [
        f'Drawing Gaussians ({report["union"]}) on {report["device"]} ({report["machine"]}, '
        f'{report["threads"]} threads, torch {report["torch"]}): {report["measured"]},',
        f'medians of {report["repeats"]} interleaved rounds; peak memory beyond the inputs.',
        *(f'- scales {name}: {text}' for name, text in report['scales'].items()),
        '',
        '| scales | M x P x H x W | way | time [ms] | memory [MB] | faster | less memory |',
        '|---|---|---|---|---|---|---|',
    ]
    for result in report['results']:
        size = ' x '.join(
            str(result[key]) for key in ('num_elements', 'num_places', 'num_rows', 'num_columns')
        )
        for name, way in result['ways'].items():
            peak = '-' if way['peak_bytes'] is None else f'{way["peak_bytes"] / 1e6:.1f}'
            ratios = [way.get(key) for key in ('times_faster', 'times_less_memory')]
            lines.append(
                f'| {result["scales"]} | {size} | {name} | '
                f'{way["seconds"] * 1e3:.1f} | {peak} | '
                + ' | '.join('-' if ratio is None else f'{ratio:.1f} x' for ratio in ratios)
                + ' |'
            )
    return '\n'.join(lines)
