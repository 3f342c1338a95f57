"""How a run of a suite is scored: metrics on test drives, speed, and the cost of its training."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gsmap_core.categories import PAPER_CATEGORIES
from gsmap_core.cli.benchmark_occlusion import score_by_occlusion
from gsmap_core.cli.benchmark_speed import measure_speed
from gsmap_core.config import ModelConfig
from gsmap_core.errors import TrainingError
from gsmap_core.evaluation.frames import pair_frames
from gsmap_core.evaluation.metrics import MetricOptions, make_evaluator
from gsmap_core.evaluation.report import report_dict
from gsmap_core.evaluation.turning import TurningEvaluator
from gsmap_core.mapfile import read_map_file
from gsmap_core.structures import VectorMap
from gsmap_core.training.suite import Suite

#: Test drives of the suite's own kind of town; those of `Suite.extra_tests` are `test-TITLE`.
TEST = 'test'

_LOGGER = logging.getLogger(__name__)


def score_run(
    suite: Suite, model: ModelConfig, run: Path, folders: dict[str, Path], device: str
) -> dict[str, Any]:
    """Map the test drives, each as one stream in the order of time, and score them."""
    own = predict_drives(run, TEST, folders[TEST], ['raster', *suite.metrics], device)
    keys = (
        'chamfer_map', 'per_category', 'raster_map', 'raster_per_category', 'reliability',
        'frames_mapped', *suite.metrics,
    )  # fmt: skip
    result = {key: own[key] for key in keys if key in own}
    pairs = read_scored(run / TEST)
    if model.decoder.num_dims == 3:
        spatial = make_evaluator('chamfer', MetricOptions(PAPER_CATEGORIES, num_dims=3))
        for pair in pairs:
            spatial.add(*pair)
        result['chamfer_3d_map'] = report_dict(spatial)['mean_ap']
    turning = TurningEvaluator()
    for pair in pairs:
        turning.add(*pair)
    result['turning'] = turning.to_dict()
    if suite.by_occlusion:
        result['by_occlusion'] = score_by_occlusion(pairs, suite.parts()[TEST])
    if suite.extra_tests:
        extra = {}
        for title in suite.extra_tests:
            part = f'{TEST}-{title}'
            summary = predict_drives(run, part, folders[part], [], device)
            extra[title] = {
                key: summary[key] for key in ('chamfer_map', 'per_category', 'frames_mapped')
            }
        result['extra'] = extra
    return result


def predict_drives(
    run: Path, part: str, drives: Path, metrics: list[str], device: str
) -> dict[str, Any]:
    """Return the summary of `gsmap predict`, scored by chamfer AP and other metrics."""
    run_gsmap(
        'predict', str(drives), '--weights', str(run / 'model.safetensors'),
        '--out', str(run / part), '--figures', '0',
        '--metric', ','.join(['chamfer', *metrics]), '--device', device,
    )  # fmt: skip
    summary: dict[str, Any] = json.loads((run / part / 'summary.json').read_text(encoding='utf-8'))
    return summary


def speed_of(
    suite: Suite, models: dict[str, ModelConfig], row: str, drives: Path, device: str
) -> dict[str, Any]:
    """Measure a row and the host in turn, when no training of this suite is running."""
    drive = min(drives.glob('*.mcap'))
    host = suite.speed_host
    speeds = measure_speed({host: models[host], row: models[row]}, drive, device)
    return {
        'parameters': speeds[row].parameters,
        'speed': {
            'frames_per_second': speeds[row].frames_per_second,
            'of_host': speeds[row].of_first,
            'host': host,
            'host_frames_per_second': speeds[host].frames_per_second,
        },
    }


def training_cost(run: Path) -> dict[str, Any]:
    """Return how long a training took and how much memory.

    Time in which the machine slept is not counted: a window of steps that took more than ten times
    as long as the median counts as one of the median.
    """
    lines = (run / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    logged = [values for values in map(json.loads, lines) if 'trained_s' in values]
    windows = np.diff([0.0, *(values['trained_s'] for values in logged)])
    # A training that goes on from its last state logs some steps again.
    windows = windows[windows > 0]
    usual = float(np.median(windows))
    trained_s = float(np.where(windows > 10 * usual, usual, windows).sum())
    # Trainings begun by earlier versions do not tell.
    peaks = [values['peak_memory_mib'] for values in logged if 'peak_memory_mib' in values]
    return {
        'train_minutes': round(trained_s / 60.0, 2),
        **({'peak_memory_mib': max(peaks)} if peaks else {}),
    }


def read_scored(scored: Path) -> list[tuple[VectorMap, VectorMap]]:
    """Return predictions and ground truth that `gsmap predict` has written."""
    return pair_frames(
        read_map_file(scored / 'predictions.map.json'),
        read_map_file(scored / 'ground_truth.map.json'),
        'error',
    )


def run_gsmap(*arguments: str, processes: int = 1) -> None:
    """Run another verb in a process of its own, so that memory and threads start anew.

    Args:
        arguments: of `gsmap`.
        processes: that train together under torchrun; 1: without it.

    Raises:
        TrainingError: it failed.
    """
    _LOGGER.info('gsmap %s', ' '.join(arguments))
    together = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}']
    command = [sys.executable, *(together if processes > 1 else [])]
    command += ['-m', 'gsmap_core.cli.main', *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        code = process.wait()
    except BaseException:
        # A training saves what it has; nothing goes on alone.
        process.terminate()
        process.wait()
        raise
    if code:
        raise TrainingError(
            f'gsmap {" ".join(arguments)} ended with {code}; see its message above; what is '
            'finished is kept, call again once it is mended'
        )
