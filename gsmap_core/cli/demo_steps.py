"""The steps of `gsmap demo`: a drive, three nodes, a score, pictures, a summary."""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gsmap_core.cli.demo_drive import synthetic_bag
from gsmap_core.cli.demo_pictures import draw_pictures
from gsmap_core.cli.demo_score import (
    Account,
    Score,
    account,
    pair_with_sets,
    read_recorded_maps,
    score,
)
from gsmap_core.cli.demo_single_frame import SAME_RUN, SingleFrame, single_frame
from gsmap_core.cli.node_processes import NodeGroup, NodeProcess
from gsmap_core.cli.ros_environment import overlay_environment
from gsmap_core.data.bag import BagDrive, open_bag
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.runtime.predictor import Predictor, resolve_weights

_LOGGER = logging.getLogger(__name__)
MAP_TOPIC = '/mapping/local_map'
RECORDED_TOPICS = (
    MAP_TOPIC,
    '/mapping/local_map_markers',
    '/diagnostics',
    '/tf',
    '/tf_static',
)
#: How long nodes may take to come up before the replay begins [s].
_START_S = 120.0
#: How long the replay keeps the clock going for the last sets [s].
_DRAIN_S = 2.0
#: Replay speeds to choose from, sets to time, and how much longer a set takes beside other nodes.
_RATES = (1.0, 0.5, 0.25, 0.1)
_TIMED_SETS = 5
_HEADROOM = 1.5


@dataclass(frozen=True)
class DemoOptions:
    """What the user asked for; see the command line.

    Args:
        out: folder for the results.
        bag: bag to map; None: a synthetic drive.
        weights: checkpoint file or shipped name; empty: the default one.
        single_frame: checkpoint whose figures, without memory, stand beside those of the node;
            empty: the same weights.
        device: torch device.
        rate: replay speed; None: as fast as this machine can follow, at most real time.
        video: also make the video.
    """

    out: Path
    bag: Path | None = None
    weights: str = ''
    single_frame: str = ''
    device: str = 'auto'
    rate: float | None = None
    video: bool = True


def run_demo(args: argparse.Namespace) -> int:
    """Run the command `gsmap demo`; returns its exit code."""
    options = DemoOptions(
        out=Path(args.out),
        bag=None if args.bag is None else Path(args.bag),
        weights=args.weights,
        single_frame=args.single_frame,
        device=args.device,
        rate=args.rate,
        video=not args.no_video,
    )
    summary = demo(options)
    print(json.dumps(summary) if args.json else table(summary))
    return 0


def demo(options: DemoOptions) -> dict[str, Any]:
    """Map a drive over ROS 2 and judge the result.

    Returns:
        The summary, as it was written to `summary.json`.

    Raises:
        GsmapError: the bag, the environment or a node failed; the message says which.
    """
    if options.rate is not None and not 0.01 <= options.rate <= 100.0:
        raise ConfigError(f'--rate {options.rate}; expected a number between 0.01 and 100')
    # What can be wrong is found out before anything takes time.
    weights = resolve_weights(options.weights)
    other = resolve_weights(options.single_frame) if options.single_frame else None
    environment = demo_environment()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.bag is not None:
        bag = options.bag
    else:
        _say('the drive is made once, then kept')
        bag = synthetic_bag(options.out / 'drive')
    drive = open_bag(bag)
    if not len(drive):
        raise DataError(f"'{bag}' holds no complete camera set; expected at least one")
    recorded = options.out / 'recorded.mcap'
    rate = options.rate or suitable_rate(drive, weights, options.device)
    _say(f'replaying {len(drive)} camera sets of {drive.name} at {rate:g} x real time')
    play(drive, recorded, weights, rate, options, environment)
    _say('scoring and drawing')
    maps = read_recorded_maps(recorded, MAP_TOPIC)
    frames_published = len(drive) + sum(drive.sets_dropped.values())
    balance = account(recorded, MAP_TOPIC, frames_published, len(maps))
    paired = pair_with_sets(drive, maps)
    quality = score(drive, paired)
    alone = single_frame(drive, paired, quality, weights, other, options.device)
    outputs = {'recorded': str(recorded)}
    outputs |= draw_pictures(drive, paired, options.out, options.video)
    outputs['summary'] = str(options.out / 'summary.json')
    summary = summarise(balance, quality, alone, outputs)
    Path(outputs['summary']).write_text(json.dumps(summary, indent=1) + '\n', encoding='utf-8')
    return summary


def _say(text: str) -> None:
    """Tell what happens next; stdout is for the result."""
    print(f'gsmap demo: {text}', file=sys.stderr, flush=True)


def demo_environment() -> dict[str, str]:
    """Return the environment of the nodes: a domain of their own, on this machine only."""
    environment = overlay_environment(
        ROS_DOMAIN_ID=str(random.SystemRandom().randint(1, 101)),
        ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
        PYTHONUNBUFFERED='1',
    )
    environment.pop('ROS_LOCALHOST_ONLY', None)  # an older word for the same; both together warn
    return environment


def suitable_rate(drive: BagDrive, weights: Path, device: str) -> float:
    """Return a replay speed at which the mapping node can follow: real time or a fraction of it.

    A few sets are mapped here and timed. Slower machines see the same drive in slow motion, rather
    than with holes.

    Args:
        drive: the bag.
        weights: checkpoint.
        device: torch device.
    """
    count = min(len(drive), 1 + _TIMED_SETS)
    if count < 2:
        return 1.0
    predictor = Predictor(weights, device=device)
    durations_s = []
    for index in range(count):
        start_s = time.perf_counter()
        predictor.predict(drive.frame(index))
        durations_s.append(time.perf_counter() - start_s)
    # The first set pays for what is only done once.
    needed_s = _HEADROOM * float(np.median(durations_s[1:]))
    stamps = np.array([drive.stamp_ns(index) for index in range(len(drive))])
    interval_s = float(np.median(np.diff(stamps))) * 1e-9
    rate = next((r for r in _RATES if needed_s <= interval_s / r), _RATES[-1])
    if rate < 1.0:
        _LOGGER.warning(
            'a camera set takes %.0f ms here and comes every %.0f ms; replaying at %g x real time',
            1e3 * float(np.median(durations_s[1:])),
            1e3 * interval_s,
            rate,
        )
    return rate


def play(
    drive: BagDrive,
    recorded: Path,
    weights: Path,
    rate: float,
    options: DemoOptions,
    environment: dict[str, str],
) -> None:
    """Replay a bag into the mapping node and record what it publishes.

    Args:
        drive: the bag.
        recorded: where the output goes; replaced if it exists.
        weights: checkpoint.
        rate: speed.
        options: device and folder.
        environment: of the nodes.

    Raises:
        NodeProcessError: a node failed; the message ends with its log.
    """
    recorded.unlink(missing_ok=True)
    logs = options.out / 'logs'
    logs.mkdir(exist_ok=True)
    duration_s = (drive.reader.end_ns - drive.reader.start_ns) * 1e-9 / rate
    image_topics = [topics.image for topics in drive.camera_topics.values()]
    with NodeGroup() as group:
        recorder = group.start(
            NodeProcess(
                'record',
                {
                    'use_sim_time': True,
                    'output': str(recorded.resolve()),
                    'topics': list(RECORDED_TOPICS),
                    'wait_timeout_s': _START_S,
                },
                environment,
                logs,
            )
        )
        mapper = group.start(
            NodeProcess(
                'mapping',
                {
                    'use_sim_time': True,
                    'cameras': list(drive.rig.names),
                    # Every set counts here, so no image may be lost on the way.
                    'image_reliability': 'reliable',
                    'model.weights': str(weights.resolve()),
                    'model.device': options.device,
                    # The score needs the whole range of confidences; pictures leave out the low.
                    'score_threshold': 0.0,
                },
                environment,
                logs,
            )
        )
        replay = group.start(
            NodeProcess(
                'replay',
                {
                    'bag': str(drive.path.resolve()),
                    'rate': float(rate),
                    'wait_for_node': '/mapping',
                    'wait_for_topics': image_topics,
                    'wait_timeout_s': _START_S,
                    'drain_s': _DRAIN_S,
                },
                environment,
                logs,
            )
        )
        with tqdm(
            total=round(duration_s, 1),
            desc='replay',
            unit='s',
            bar_format='{l_bar}{bar}| {n:.0f}/{total:.0f} s',
            file=sys.stderr,
            disable=None,
        ) as bar:
            show_progress = _progress(replay, bar, duration_s)

            def look() -> None:
                # A lifecycle node that cannot be configured stays up and says so.
                if 'configure failed' in mapper.log_text():
                    raise mapper.failure('could not be configured')
                show_progress()

            group.wait_for_end(replay, _START_S + duration_s + 60.0, poll=look)
            bar.update(bar.total - bar.n)
        # In this order, so that the recorder gets the mapping node's last counters.
        group.stop(mapper)
        time.sleep(0.5)
        group.stop(recorder)


def _progress(replay: NodeProcess, bar: Any, duration_s: float) -> Callable[[], None]:
    """Return a function that moves the bar by wall time once the replay has begun."""
    started_s: list[float] = []

    def show() -> None:
        if not started_s:
            if 'playing' not in replay.log_text():
                return
            started_s.append(time.monotonic())
        bar.update(max(0.0, min(time.monotonic() - started_s[0], duration_s) - bar.n))

    return show


def summarise(
    balance: Account, quality: Score | None, alone: SingleFrame, outputs: dict[str, str]
) -> dict[str, Any]:
    """Return the summary with exactly the documented keys; scores are null without ground truth.

    Args:
        balance: where the sets went.
        quality: scores, or None.
        alone: scores of the single frame.
        outputs: written files by what they are.
    """
    figures = dict.fromkeys(('chamfer_map', 'per_category', 'flicker_per_frame', 'found'))
    return {
        'frames_published': balance.frames_published,
        'frames_mapped': balance.frames_mapped,
        'sets_dropped': balance.sets_dropped,
        **(figures if quality is None else quality.to_dict()),
        'single_frame': figures | alone.to_dict(),
        'latency_ms': balance.latency_ms,
        'rate_hz': balance.rate_hz,
        'outputs': outputs,
    }


def _flicker_text(figures: dict[str, Any]) -> str:
    if figures['found'] is None:
        return 'not measured: no element stays in range from one map to the next'
    return f'{figures["flicker_per_frame"]:.2f} events per frame, {figures["found"]:.0%} found'


def table(summary: dict[str, Any]) -> str:
    """Return the summary as a short table for people."""
    published, mapped = summary['frames_published'], summary['frames_mapped']
    dropped = ', '.join(f'{count} {reason}' for reason, count in summary['sets_dropped'].items())
    latency = summary['latency_ms']
    rows = [
        ('camera sets published', str(published)),
        ('mapped', f'{mapped} ({100.0 * mapped / published:.0f} %)'),
        ('dropped', dropped or 'none'),
    ]
    if summary['chamfer_map'] is None:
        rows.append(('chamfer mAP', 'not scored: the bag has no ground truth'))
    else:
        parts = ', '.join(f'{k} {v:.3f}' for k, v in summary['per_category'].items())
        rows.append(('chamfer mAP', f'{summary["chamfer_map"]:.3f} ({parts})'))
        rows.append(('flicker', _flicker_text(summary)))
        alone = summary['single_frame']
        if alone['how'] != SAME_RUN:
            text = f'chamfer mAP {alone["chamfer_map"]:.3f}, flicker {_flicker_text(alone)}'
            rows.append(('single frame', f'{text} ({alone["weights"]}, {alone["how"]})'))
    if latency['p50'] is not None:
        rows.append(('latency', f'{latency["p50"]:.0f} ms median, {latency["p95"]:.0f} ms p95'))
    if summary['rate_hz'] is not None:
        rows.append(('rate', f'{summary["rate_hz"]:.1f} maps per second'))
    rows += [(name, path) for name, path in summary['outputs'].items()]
    width = max(len(name) for name, _ in rows)
    return '\n'.join(f'{name:<{width}}  {text}' for name, text in rows)
