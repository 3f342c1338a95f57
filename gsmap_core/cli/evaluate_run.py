"""What `gsmap evaluate` does: maps in, scores, reports and pictures of the worst frames out."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gsmap_core.calibration import Calibration, store_calibration
from gsmap_core.categories import PAPER_CATEGORIES
from gsmap_core.cli.evaluate import metric_names
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.evaluation.bev_iou import DEFAULT_MIN_SCORE
from gsmap_core.evaluation.calibration import CalibrationEvaluator, format_calibration
from gsmap_core.evaluation.chamfer import ChamferEvaluator
from gsmap_core.evaluation.frames import frame_key, pair_frames
from gsmap_core.evaluation.metric_names import SEQUENTIAL_METRICS
from gsmap_core.evaluation.metrics import Evaluator, MetricOptions, make_evaluators
from gsmap_core.evaluation.protocols import default_thresholds, thresholds_from_text
from gsmap_core.evaluation.reliability import (
    ReliabilityEvaluator,
    format_reliability,
    write_reliability,
)
from gsmap_core.evaluation.report import report_dict, write_report
from gsmap_core.evaluation.sharding import evaluate_pairs
from gsmap_core.evaluation.tables import format_result, format_scenes
from gsmap_core.mapfile import BadFrame, read_map_file, write_map_file
from gsmap_core.resources import resolve_weights
from gsmap_core.structures import VectorMap

Pair = tuple[VectorMap, VectorMap]
#: Place of a pair's camera set: bag and number.
Origin = tuple[Path, int]


def evaluate(args: argparse.Namespace) -> int:
    """Score what was asked for; returns the exit code."""
    names = metric_names(args.metric)
    _check(args, names)
    origins: list[Origin] | None = None
    if args.data:
        from gsmap_core.cli.evaluate_model import map_bags

        bags = map_bags(args)
        if bags is None:
            return 0
        pairs = [pair for bag in bags for pair in bag.pairs]
        origins = [(bag.path, index) for bag in bags for index in bag.indices]
        left_out = [message for bag in bags for message in bag.failed]
        source = f"'{args.weights}' on {len(bags)} bags"
    else:
        pairs, left_out = _read_pairs(args)
        source = f'{args.predictions} against {args.ground_truth}'
    options = _options(args, names, pairs)
    with tqdm(total=len(pairs), desc='evaluate', unit='frame', file=sys.stderr) as bar:
        try:
            evaluators = evaluate_pairs(
                partial(make_accumulators, names, options),
                pairs,
                workers=args.workers,
                whole_scenes=any(name in SEQUENTIAL_METRICS for name in names),
                progress=bar.update,
            )
        except DataError as error:
            raise DataError(f'{source}: {error}') from error
    reliability = evaluators.pop('reliability')
    calibration = _store_calibration(args, pairs) if args.store_calibration else None
    files = _write(args, evaluators, reliability, pairs, origins)
    if args.json:
        summary = _summary(evaluators, reliability, left_out, files)
        if calibration is not None:
            summary['calibration'] = vars(calibration)
        print(json.dumps(summary))
        return 0
    _print(evaluators, reliability)
    if calibration is not None:
        print(f'\n{format_calibration(calibration)}')
        print(f'stored in {resolve_weights(args.weights)}')
    for path in files:
        print(f'wrote {path}')
    if left_out:
        print(f'{len(left_out)} left out:', *left_out, sep='\n  ', file=sys.stderr)
    return 0


def make_accumulators(names: Sequence[str], options: MetricOptions) -> dict[str, Any]:
    """Return an empty evaluator of each metric, and that of the covariances."""
    return {
        **make_evaluators(names, options),
        'reliability': ReliabilityEvaluator(options.categories),
    }


def _store_calibration(args: argparse.Namespace, pairs: Sequence[Pair]) -> Calibration:
    """Fit the calibration of the checkpoint and write it into its metadata."""
    min_score = DEFAULT_MIN_SCORE if args.min_score is None else args.min_score
    evaluator = CalibrationEvaluator(tuple(args.categories or PAPER_CATEGORIES), 1.5, min_score)
    for prediction, truth in pairs:
        evaluator.add(prediction, truth)
    scenes = sorted({truth.scene or prediction.scene for prediction, truth in pairs})
    calibration = evaluator.result(f'{len(pairs)} camera sets of {len(scenes)} drives')
    store_calibration(resolve_weights(args.weights), calibration)
    return calibration


def _check(args: argparse.Namespace, names: Sequence[str]) -> None:
    has_model = bool(args.weights or args.data)
    if has_model and (args.predictions or not (args.weights and args.data)):
        raise ConfigError(
            'give --weights and --data together and no map files, or two map files and neither'
        )
    if not has_model and not args.ground_truth:
        raise ConfigError(
            'nothing to score; give PRED.map.json and GT.map.json, or --weights and --data'
        )
    if args.store_calibration and not has_model:
        raise ConfigError(
            '--store-calibration writes into a checkpoint; give --weights and --data'
        )
    if args.worst < 0:
        raise ConfigError(f'--worst {args.worst}; expected 0 or more frames')
    if args.worst and (not args.out or 'chamfer' not in names):
        raise ConfigError(
            '--worst draws the frames of the least chamfer AP into --out; give --out DIR and have '
            'chamfer among --metric'
        )


def _options(
    args: argparse.Namespace, names: Sequence[str], pairs: Sequence[Pair]
) -> MetricOptions:
    limits = pairs[0][1].range if pairs else None
    # MapTracker's evaluator is StreamMapNet's with identities.
    is_consistency = 'consistency' in names and 'chamfer' not in names
    origin = 'streammapnet' if is_consistency else args.protocol
    return MetricOptions(
        categories=tuple(args.categories or PAPER_CATEGORIES),
        thresholds_m=(
            thresholds_from_text(args.thresholds)
            if args.thresholds
            else default_thresholds(origin, limits)
        ),
        protocol=args.protocol,
        num_dims=args.dims,
        simplify_m=args.simplify,
        min_score=DEFAULT_MIN_SCORE if args.min_score is None else args.min_score,
    )


def _read_pairs(args: argparse.Namespace) -> tuple[list[Pair], list[str]]:
    """Return the frames of two map files, and what had to be left out of them."""
    sides: list[list[VectorMap]] = []
    bad: list[BadFrame] = []
    for path in (args.predictions, args.ground_truth):
        sides.append(read_map_file(path, bad if args.bad_frames == 'skip' else None))
    names = {(frame.scene, frame.frame) for frame in bad}
    kept = [[m for m in side if (m.scene, frame_key(m)) not in names] for side in sides]
    try:
        pairs = pair_frames(kept[0], kept[1], args.missing)
    except DataError as error:
        raise DataError(f'{args.predictions} against {args.ground_truth}: {error}') from error
    return pairs, [frame.message for frame in bad]


def _write(
    args: argparse.Namespace,
    evaluators: dict[str, Evaluator],
    reliability: ReliabilityEvaluator,
    pairs: Sequence[Pair],
    origins: Sequence[Origin] | None,
) -> list[Path]:
    """Write the reports, and what else was asked for, into `--out`; return the files."""
    if not args.out:
        return []
    out = Path(args.out)
    files = [path for evaluator in evaluators.values() for path in write_report(out, evaluator)]
    if reliability.has_vertices:
        files += write_reliability(out, reliability)
    if origins is not None:
        for index, name in enumerate(('predictions', 'ground_truth')):
            files.append(out / f'{name}.map.json')
            write_map_file(files[-1], (pair[index] for pair in pairs))
    if args.worst:
        min_score = DEFAULT_MIN_SCORE if args.min_score is None else args.min_score
        chamfer = evaluators['chamfer']
        assert isinstance(chamfer, ChamferEvaluator)
        files += draw_worst(out, chamfer, pairs, args.worst, min_score, origins)
    return files


def draw_worst(
    folder: Path,
    evaluator: ChamferEvaluator,
    pairs: Sequence[Pair],
    count: int,
    min_score: float,
    origins: Sequence[Origin] | None = None,
) -> list[Path]:
    """Draw the frames of the least AP, worst first: from above, with bags also the cameras.

    Args:
        folder: where to write `worst_01_SCENE_FRAME.png`.
        evaluator: with the pairs added.
        pairs: prediction and ground truth.
        count: frames to draw; frames without ground truth are never among them.
        min_score: predictions with a lower score are not drawn.
        origins: bag and camera set of each pair; None: there are no images.

    Returns:
        The pictures.
    """
    import cv2

    from gsmap_core.cli.view_pictures import picture_of_maps
    from gsmap_core.data.bag import open_bag
    from gsmap_core.viz.figure import FigureStyle, compose_frame_figure

    places = {
        (truth.scene or prediction.scene, frame_key(truth)): index
        for index, (prediction, truth) in enumerate(pairs)
    }
    worst = sorted(evaluator.frame_scores(), key=lambda entry: entry[2])[:count]
    written = []
    for rank, (scene, key, score) in enumerate(worst, start=1):
        index = places[scene, key]
        prediction, truth = pairs[index]
        title = ' · '.join(part for part in (scene, key, f'chamfer AP {score:.3f}') if part)
        if origins is None:
            columns = [('prediction', prediction), ('ground truth', truth)]
            picture = picture_of_maps(columns, title, min_score)
        else:
            path, number = origins[index]
            frame = open_bag(path).frame(number)
            style = FigureStyle(min_score=min_score)
            picture = compose_frame_figure(frame, prediction, truth, title=title, style=style)
        name = re.sub(r'[^\w.-]+', '_', '_'.join(part for part in (scene, key) if part))
        written.append(folder / f'worst_{rank:02d}_{name}.png')
        cv2.imwrite(str(written[-1]), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return written


def _summary(
    evaluators: dict[str, Evaluator],
    reliability: ReliabilityEvaluator,
    left_out: Sequence[str],
    files: Sequence[Path],
) -> dict[str, Any]:
    reports = {name: report_dict(evaluator) for name, evaluator in evaluators.items()}
    # One metric is the report itself, several are reports by name.
    report: dict[str, Any] = reports if len(reports) > 1 else next(iter(reports.values()))
    if reliability.has_vertices:
        report['reliability'] = reliability.to_dict()
    if left_out:
        report['left_out'] = list(left_out)
    return {**report, 'outputs': [str(path) for path in files]}


def _print(evaluators: dict[str, Evaluator], reliability: ReliabilityEvaluator) -> None:
    for index, evaluator in enumerate(evaluators.values()):
        if index:
            print()
        print(format_result(evaluator.result()))
        if len(evaluator.scenes) > 1:
            print()
            print(format_scenes({name: evaluator.result(name) for name in evaluator.scenes}))
    if reliability.has_vertices:
        print('\n' + format_reliability(reliability))
