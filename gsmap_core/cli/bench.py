"""`gsmap bench`: measure how long the parts of a model take.

A benchmark is a module `bench_NAME` of this package with `add_arguments(parser)` and
`run(args) -> int`, listed in `BENCHMARKS`; `bench_measure` holds what they share.
"""

from __future__ import annotations

import argparse
import importlib

#: Every benchmark and what it measures.
BENCHMARKS: dict[str, str] = {
    'raster': 'time and memory of drawing Gaussians, each way against the plain reference',
    'overhead': 'time of a model at inference against that of its host',
    'throughput': 'samples per second in training, frames per second at inference, and memory',
    'evaluate': "time and memory of the metrics on a set as large as a dataset's",
    'stream': 'time and memory of a frame at the end of a long drive against its beginning',
    'node': 'time from the stamp of an image to the published map, stage by stage',
    'convert': 'megabytes per second from camera images to a bag, beside a plain copy',
}


def module_name(benchmark: str) -> str:
    """Return the module that implements a benchmark."""
    return f'gsmap_core.cli.bench_{benchmark}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmarks, each with its own options."""
    benchmarks = parser.add_subparsers(dest='benchmark', metavar='BENCHMARK', required=True)
    for name, text in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(
            name, help=text, description=f'{text[0].upper()}{text[1:]}.'
        )
        importlib.import_module(module_name(name)).add_arguments(benchmark)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark that was asked for."""
    return int(importlib.import_module(module_name(args.benchmark)).run(args))
