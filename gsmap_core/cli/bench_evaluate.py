"""`gsmap bench evaluate`: time and memory of the metrics on a set as large as a dataset's."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gsmap_core.categories import PAPER_CATEGORIES, category_by_name
from gsmap_core.structures import FloatArray, MapElement, VectorMap

if TYPE_CHECKING:
    from gsmap_core.evaluation.metrics import MetricOptions

#: Frames of nuScenes' validation split, and its frames per scene.
NUSCENES_VAL_FRAMES = 6019
_FRAMES_PER_SCENE = 40
#: True elements of a frame, on average: about what nuScenes has.
_MEAN_ELEMENTS = {'divider': 4.6, 'ped_crossing': 1.3, 'boundary': 3.4}
_NUM_VERTICES = 20
_HALF_EXTENT_M = np.array([30.0, 15.0])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from gsmap_core.cli.evaluate import add_metric_argument

    parser.add_argument(
        '--frames', type=int, default=NUSCENES_VAL_FRAMES, metavar='N', help='frames (6019)'
    )
    parser.add_argument(
        '--predictions', type=int, default=50, metavar='N', help='predictions per frame (50)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the set (0)')
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='processes (1)')
    parser.add_argument(
        '--protocol', default='maptr', help='of the chamfer metric: maptr, maptr_v2, streammapnet'
    )
    parser.add_argument('--write', metavar='DIR', help='also write the set there, as map files')
    add_metric_argument(parser, default='chamfer,raster')
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def make_set(
    num_frames: int = NUSCENES_VAL_FRAMES, num_predictions: int = 50, seed: int = 0
) -> Iterator[tuple[VectorMap, VectorMap]]:
    """Make predictions and ground truth that look like a real evaluation.

    Lines run along a gently curved road and across it, crossings are rectangles; the first
    predictions follow an element each, more loosely the lower their score, the others repeat one
    or lie somewhere on the road.

    Args:
        num_frames: pairs to make.
        num_predictions: predictions of every frame, 20 vertices each.
        seed: of everything random; a frame does not depend on how many follow it.

    Yields:
        Prediction and ground truth in the ego frame, 60 x 30 m.
    """
    for index in range(num_frames):
        random = np.random.default_rng((seed, index))
        pose = np.eye(4)
        pose[0, 3] = 4.0 * (index % _FRAMES_PER_SCENE)
        common: dict[str, Any] = {
            'stamp_ns': 500_000_000 * index,
            'sample_id': f'frame_{index:05d}',
            'scene': f'scene_{index // _FRAMES_PER_SCENE:04d}',
            'map_from_base': pose,
        }
        truth = _true_elements(random)
        predicted = _predicted_elements(random, truth, num_predictions)
        yield VectorMap(tuple(predicted), **common), VectorMap(tuple(truth), **common)


def _true_elements(random: np.random.Generator) -> list[MapElement]:
    bend = random.normal(0.0, 0.003)
    elements = []
    for name, mean in _MEAN_ELEMENTS.items():
        category = category_by_name(name)
        for _ in range(random.poisson(mean)):
            if category.is_area:
                elements.append(MapElement(category.id, _crossing(random), closed=True))
            else:
                line = _road_line(random, bend, int(random.integers(3, 60)))
                elements.append(MapElement(category.id, line))
    return elements


def _road_line(random: np.random.Generator, bend: float, num_vertices: int) -> FloatArray:
    """Return a line along the road, or now and then along the crossing one."""
    start, end = np.sort(random.uniform(-30.0, 30.0, 2))
    along = np.linspace(start, max(end, start + 3.0), num_vertices)
    across = random.uniform(-13.0, 13.0) + bend * along**2 + 0.02 * along * random.normal()
    if random.random() < 0.25:
        along, across = across, along / 2
    return np.clip(np.stack([along, across], axis=1), -_HALF_EXTENT_M, _HALF_EXTENT_M)


def _crossing(random: np.random.Generator) -> FloatArray:
    size = np.array([random.uniform(2.5, 5.0), random.uniform(6.0, 16.0)])
    if random.random() < 0.3:
        size = size[::-1]
    centre = random.uniform(-0.8, 0.8, 2) * _HALF_EXTENT_M
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * size
    angle = random.normal(0.0, 0.1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return corners @ turn.T + centre


def _predicted_elements(
    random: np.random.Generator, truth: list[MapElement], count: int
) -> list[MapElement]:
    from gsmap_core.geometry.polylines import resample_polyline

    scores = np.sort(random.beta(0.5, 1.5, count))[::-1]
    elements = []
    for rank, score in enumerate(scores):
        if truth and (rank < len(truth) or random.random() < 0.5):
            model = truth[rank % len(truth)]
            line = resample_polyline(model.loop_xy(), _NUM_VERTICES)
            looseness = 0.15 + 1.5 * (1.0 - score)
            line = line + random.normal(0.0, looseness, 2)
            line += random.normal(0.0, 0.05 + 0.1 * looseness, line.shape)
            category = model.category
        else:
            category = int(random.choice(3, p=[0.5, 0.15, 0.35]))
            if category_by_name(PAPER_CATEGORIES[category]).is_area:
                corners = _crossing(random)
                line = resample_polyline(np.vstack([corners, corners[:1]]), _NUM_VERTICES)
            else:
                line = _road_line(random, random.normal(0.0, 0.003), _NUM_VERTICES)
        elements.append(MapElement(category, line, score=float(score)))
    return elements


def run(args: argparse.Namespace) -> int:
    """Make the set, score it and print what that took."""
    import json
    import resource
    from functools import partial
    from pathlib import Path

    from gsmap_core.cli.evaluate import metric_names
    from gsmap_core.errors import ConfigError
    from gsmap_core.evaluation.metrics import MetricOptions
    from gsmap_core.mapfile import write_map_file

    if args.frames < 1 or args.predictions < 1:
        raise ConfigError(
            f'--frames {args.frames}, --predictions {args.predictions}; expected at least 1'
        )
    names = metric_names(args.metric or ['chamfer', 'raster'])
    pairs = list(make_set(args.frames, args.predictions, args.seed))
    if args.write:
        for index, name in enumerate(('predictions', 'ground_truth')):
            path = Path(args.write) / f'{name}.map.json'
            write_map_file(path, (pair[index] for pair in pairs))
    options = MetricOptions(protocol=args.protocol)
    metrics = {name: _measure(partial(_one, name, options), pairs, args.workers) for name in names}
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result = {
        'frames': args.frames,
        'predictions_per_frame': args.predictions,
        'true_elements': sum(len(truth) for _, truth in pairs),
        'seed': args.seed,
        'workers': args.workers,
        'metrics': metrics,
        # The largest process of either kind; Linux counts in KiB.
        'peak_mib': round(usage[0].ru_maxrss / 1024),
        'peak_worker_mib': round(usage[1].ru_maxrss / 1024) if args.workers > 1 else None,
    }
    if args.json:
        print(json.dumps(result))
        return 0
    print(
        f'{args.frames} frames, {args.predictions} predictions each, '
        f'{result["true_elements"]} true elements, {args.workers} workers'
    )
    for name, values in metrics.items():
        print(
            f'{name}: {values["cpu_s"]:.1f} CPU-seconds, {values["wall_s"]:.1f} s; '
            f'{values["value"]:.4f}'
        )
    print(f'peak memory: {result["peak_mib"]} MiB, with the set of frames in it')
    if args.workers > 1:
        print(f'and {result["peak_worker_mib"]} MiB in the largest worker')
    return 0


def _one(name: str, options: MetricOptions) -> dict[str, Any]:
    from gsmap_core.evaluation.metrics import make_evaluators

    return dict(make_evaluators([name], options))


def _measure(
    make: Callable[[], dict[str, Any]], pairs: Sequence[tuple[VectorMap, VectorMap]], workers: int
) -> dict[str, float]:
    """Return CPU and wall seconds of scoring, those of the processes included, and the result."""
    import resource
    import time

    from gsmap_core.evaluation.metric_names import SEQUENTIAL_METRICS
    from gsmap_core.evaluation.sharding import evaluate_pairs
    from gsmap_core.evaluation.tables import headline

    def cpu_s() -> float:
        # Finer than os.times, which counts ticks of 10 ms.
        used = [
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        return sum(usage.ru_utime + usage.ru_stime for usage in used)

    name = next(iter(make()))
    wall, start = time.perf_counter(), cpu_s()
    evaluators = evaluate_pairs(
        make, pairs, workers=workers, whole_scenes=name in SEQUENTIAL_METRICS
    )
    value = headline(evaluators[name].result())
    return {
        'cpu_s': cpu_s() - start,
        'wall_s': time.perf_counter() - wall,
        'value': value,
    }
