"""What `gsmap predict` does: drives in, map files, pictures and a score out."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
from tqdm import tqdm

from gsmap_core.calibration import Calibration, read_calibration
from gsmap_core.categories import PAPER_CATEGORIES
from gsmap_core.cli.evaluate import metric_names
from gsmap_core.cli.predict_fuse import FusedDrive, fuse_drive
from gsmap_core.data.bag import open_bag
from gsmap_core.data.drives import Drive
from gsmap_core.data.image_folder import ImageFolderDrive
from gsmap_core.data.loading import find_bags
from gsmap_core.errors import DataError
from gsmap_core.evaluation.chamfer import chamfer_average_precision
from gsmap_core.evaluation.fused_map import format_gain
from gsmap_core.evaluation.metrics import MetricOptions, make_evaluators
from gsmap_core.evaluation.raster import raster_average_precision
from gsmap_core.evaluation.reliability import ReliabilityEvaluator
from gsmap_core.evaluation.report import report_dict
from gsmap_core.evaluation.sharding import evaluate_pairs
from gsmap_core.mapfile import write_map_file
from gsmap_core.mapping.identity import IdentityTracker
from gsmap_core.mapping.tracked import TrackedPredictor
from gsmap_core.resources import resolve_weights
from gsmap_core.rig import load_rig
from gsmap_core.structures import VectorMap

if TYPE_CHECKING:
    from gsmap_core.runtime.classical import ClassicalMapper
    from gsmap_core.runtime.predictor import Predictor

_LOGGER = logging.getLogger(__name__)
#: Metrics whose numbers have keys of their own in the summary; the others are reports by name.
_AP_METRICS = ('chamfer', 'raster')


def open_source(source: Path | str, rig: str | None) -> list[Drive]:
    """Open everything at a path as drives; with a rig the path is a folder of images.

    Raises:
        DataError: nothing readable is there.
    """
    if rig is not None:
        return [ImageFolderDrive(source, load_rig(rig))]
    return [open_bag(path) for path in find_bags(source)]


def _mapper(args: argparse.Namespace) -> tuple[TrackedPredictor, dict[str, str]]:
    """Return what maps the camera sets, and a description of it."""
    from gsmap_core.runtime.stream import StreamGuard

    predictor: ClassicalMapper | Predictor
    if args.engine == 'classical':
        from gsmap_core.runtime.classical import ClassicalMapper

        predictor, engine = ClassicalMapper(), {'model': 'classical'}
    else:
        from gsmap_core.runtime.predictor import Predictor

        predictor = Predictor(
            args.weights,
            device=args.device,
            precision=args.precision,
            score_threshold=args.score_threshold,
        )
        engine = predictor.info
    mapper = TrackedPredictor(
        predictor, IdentityTracker(), StreamGuard(), is_tracked=not args.no_ids
    )
    return mapper, engine


def _calibration(args: argparse.Namespace) -> Calibration | None:
    """Return what is stored with the network; the baseline has nothing."""
    if args.engine == 'classical':
        return None
    return read_calibration(resolve_weights(args.weights))


def _draw(
    out: Path, drive: Drive, maps: dict[int, VectorMap], num_figures: int, video: bool
) -> list[str]:
    from gsmap_core.viz.figure import compose_frame_figure
    from gsmap_core.viz.video import write_video

    written = []
    indices = sorted(maps)

    def picture(index: int) -> Any:
        return compose_frame_figure(drive.frame(index), maps[index], drive.ground_truth(index))

    for position in range(min(num_figures, len(indices))):
        index = indices[(2 * position + 1) * len(indices) // (2 * min(num_figures, len(indices)))]
        path = out / f'{drive.name}_{index:05d}.png'
        cv2.imwrite(str(path), cv2.cvtColor(picture(index), cv2.COLOR_RGB2BGR))
        written.append(str(path))
    if video and indices:
        span_s = (drive.stamp_ns(indices[-1]) - drive.stamp_ns(indices[0])) * 1e-9
        rate = (len(indices) - 1) / span_s if span_s > 0 else 5.0
        pictures = (picture(index) for index in tqdm(indices, desc='video', unit='frame'))
        written.append(str(write_video(out / f'{drive.name}.mp4', pictures, rate).path))
    return written


def _score(
    predictions: list[VectorMap], ground_truth: list[VectorMap], metrics: Sequence[str]
) -> dict[str, Any]:
    """Return the entries of the summary that the metrics give."""
    entries: dict[str, Any] = {}
    if 'chamfer' in metrics:
        chamfer = chamfer_average_precision(predictions, ground_truth, PAPER_CATEGORIES)
        entries |= {'chamfer_map': chamfer.mean_ap, 'per_category': chamfer.per_category}
    if 'raster' in metrics:
        raster = raster_average_precision(predictions, ground_truth, PAPER_CATEGORIES).to_dict()
        entries['raster_map'] = raster['mean_ap']
        entries['raster_per_category'] = raster['per_category']
    others = [name for name in metrics if name not in _AP_METRICS]
    pairs = list(zip(predictions, ground_truth, strict=True))
    evaluators = evaluate_pairs(partial(make_evaluators, others, MetricOptions()), pairs)
    entries |= {name: report_dict(evaluator) for name, evaluator in evaluators.items()}
    reliability = ReliabilityEvaluator(PAPER_CATEGORIES)
    for prediction, truth in pairs:
        reliability.add(prediction, truth)
    if reliability.has_vertices:
        entries['reliability'] = reliability.to_dict()
    return entries


def _score_texts(summary: dict[str, Any], metrics: Sequence[str]) -> list[str]:
    """Return one short text per metric that has a number."""
    scores: dict[str, float | None] = {}
    for name in metrics:
        if name in _AP_METRICS:
            scores[f'{name} mAP'] = summary[f'{name}_map']
        elif summary[name] is not None:
            report = summary[name]
            key = next(key for key in ('mean_ap', 'mean', 'flicker_per_frame') if key in report)
            scores[name] = report[key]
    return [f'{name} {score:.3f}' for name, score in scores.items() if score is not None]


def predict_source(args: argparse.Namespace) -> int:
    """Map every drive at `args.source` and write the results; returns the exit code."""
    if args.stride < 1:
        raise DataError(f'--stride {args.stride}; expected at least 1')
    metrics = metric_names(args.metric)
    drives = open_source(args.source, args.rig)
    mapper, engine = _mapper(args)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    predictions: list[VectorMap] = []
    ground_truth: list[VectorMap] = []
    outputs: list[str] = []
    failed: list[str] = []
    fused: dict[str, FusedDrive] = {}
    mapping_s = 0.0
    for drive in drives:
        mapper.predictor.reset()
        maps: dict[int, VectorMap] = {}
        chosen = range(0, len(drive), args.stride)[: args.limit]
        for index in tqdm(chosen, desc=drive.name, unit='frame', disable=None):
            try:
                frame = drive.frame(index)
            except DataError as error:
                _LOGGER.warning('%s', error)
                failed.append(str(error))
                continue
            start = time.perf_counter()
            maps[index] = mapper.predict(frame)
            mapping_s += time.perf_counter() - start
            truth = drive.ground_truth(index)
            if truth is not None:
                ground_truth.append(truth)
        predictions += maps.values()
        outputs += _draw(out, drive, maps, args.figures, args.video)
        if args.fuse:
            path = out / f'{drive.name}.fused.map.json'
            fused[drive.name] = fuse_drive(drive, list(maps.values()), _calibration(args), path)
            outputs.append(str(path))
    write_map_file(out / 'predictions.map.json', predictions)
    outputs.append(str(out / 'predictions.map.json'))
    summary: dict[str, Any] = {
        'drives': len(drives),
        'frames_mapped': len(predictions),
        'frames_failed': failed,
        'frames_per_second': round(len(predictions) / mapping_s, 2) if mapping_s else None,
        'engine': engine,
        'chamfer_map': None,
        'per_category': None,
    }
    if 'raster' in metrics:
        summary |= {'raster_map': None, 'raster_per_category': None}
    summary |= {name: None for name in metrics if name not in _AP_METRICS}
    if ground_truth and len(ground_truth) == len(predictions):
        write_map_file(out / 'ground_truth.map.json', ground_truth)
        outputs.append(str(out / 'ground_truth.map.json'))
        summary |= _score(predictions, ground_truth, metrics)
    if args.fuse:
        summary['fused'] = {name: drive.to_dict() for name, drive in fused.items()}
    summary['outputs'] = outputs
    (out / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n', encoding='utf-8')
    if args.json:
        print(json.dumps(summary))
    else:
        print(
            f'{summary["frames_mapped"]} frames mapped, {summary["frames_per_second"]} per second'
        )
        found = _score_texts(summary, metrics)
        print(', '.join(found) or 'no ground truth to score')
        for name, result in fused.items():
            print(f'{name}: {result.num_elements} elements fused from {result.num_frames} frames')
            if result.gain is not None:
                print(format_gain(result.gain))
        print('\n'.join(outputs))
    if failed:
        print(f'{len(failed)} camera sets could not be read', file=sys.stderr)
    return 0
