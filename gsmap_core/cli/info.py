"""`gsmap info`: what is installed here, what a bag holds, how large a model is, which streets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsmap_core.cli.info_dataset import add_dataset_arguments
from gsmap_core.cli.info_synthetic import describe_synthetic

_CHECKPOINT_SUFFIX = '.safetensors'
_SYNTHETIC = 'synthetic:'
#: A pause this many times the usual distance of a topic's messages is listed as a gap.
_GAP_FACTOR = 2.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'path',
        nargs='?',
        metavar='BAG|CHECKPOINT|DATASET',
        help='a bag, a .safetensors file, a nuScenes or Argoverse 2 folder; with --splits also '
        'a folder of bags; synthetic:FIRST-LAST,...: what vehicles hide there; none: the machine',
    )
    parser.add_argument('--config', metavar='NAME', help='a model configuration, by name or path')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    add_dataset_arguments(parser)
    group = parser.add_argument_group('drives that pass the same streets')
    group.add_argument(
        '--traversals',
        nargs='+',
        metavar='PATH',
        help='compare the routes of bags, *.poses.json files, or folders of them',
    )
    group.add_argument(
        '--out', metavar='DIR', help='write report, pictures, pairs of frames and label splits'
    )
    group.add_argument(
        '--iou',
        nargs=2,
        type=float,
        default=(0.2, 0.8),
        metavar=('MIN', 'MAX'),
        help='overlap of the perception boxes of a pair, inclusive (0.2 0.8)',
    )
    group.add_argument(
        '--every', type=int, default=1, metavar='N', help='look at every Nth frame (1)'
    )
    group.add_argument('--seed', type=int, default=0, help='of the label splits (0)')
    group.add_argument(
        '--workers', type=int, metavar='N', help='processes that read bags (one per core)'
    )


def run(args: argparse.Namespace) -> int:
    """Print what is known."""
    from gsmap_core.cli import info_dataset
    from gsmap_core.errors import ConfigError

    if args.splits and not args.path:
        raise ConfigError('--splits needs the folder of a dataset or of bags')
    if args.path and args.config:
        raise ConfigError(
            f"both '{args.path}' and --config {args.config} were given; ask for one of them"
        )
    if args.traversals:
        from gsmap_core.cli.info_traversals import report_traversals

        if args.path or args.config:
            raise ConfigError(
                f"--traversals and '{args.path or args.config}' were given; ask for one of them"
            )
        return report_traversals(args)
    if args.out:
        raise ConfigError('--out is for --traversals PATH...; nothing else here writes files')
    if args.config:
        report = describe_config(args.config)
    elif args.path and Path(args.path).suffix == _CHECKPOINT_SUFFIX:
        report = describe_checkpoint(Path(args.path))
    elif args.path and args.path.startswith(_SYNTHETIC):
        report = describe_synthetic(args.path)
    elif args.path and info_dataset.is_nuscenes(Path(args.path)):
        report = info_dataset.describe_nuscenes(Path(args.path), args.version, args.splits or ())
    elif args.path and info_dataset.is_argoverse2(Path(args.path)):
        report = info_dataset.describe_argoverse2(Path(args.path), args.splits or ())
    elif args.splits:
        report = info_dataset.describe_bags(Path(args.path), args.splits, args.workers)
    elif args.path:
        report = describe_bag(Path(args.path))
    else:
        report = describe_machine()
    if not args.list and not args.json:
        for split in report.get('splits', {}).values():
            del split['names']
    print(json.dumps(report) if args.json else _as_markdown(report))
    return 0


def describe_machine() -> dict[str, Any]:
    """Return versions and devices for a bug report."""
    import importlib.util
    import os
    import platform
    import sys
    from importlib.metadata import PackageNotFoundError, version

    import torch

    import gsmap_core

    def version_of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return 'not installed'

    rclpy = importlib.util.find_spec('rclpy')
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    packages = ('numpy', 'opencv-python', 'opencv-python-headless', 'shapely', 'rosbags')
    return {
        'gsmap': gsmap_core.__version__,
        'python': platform.python_version(),
        'interpreter': sys.executable,
        'platform': platform.platform(),
        'cpu_count': os.cpu_count(),
        'torch': torch.__version__,
        'torch_origin': str(Path(torch.__file__).parent),
        'cuda': torch.version.cuda or 'none',
        'gpus': ', '.join(gpus) or 'none',
        **{package: version_of(package) for package in packages},
        'ros_distro': os.environ.get('ROS_DISTRO') or 'not sourced',
        'rclpy': str(rclpy.origin) if rclpy is not None else 'not installed',
        'rmw': os.environ.get('RMW_IMPLEMENTATION') or 'default',
    }


def describe_config(name: str) -> dict[str, Any]:
    """Return a model configuration and its size.

    Raises:
        ConfigError: there is no such configuration.
    """
    from gsmap_core.config import load_model_config, to_plain
    from gsmap_core.models.mapper import parameter_report

    config = load_model_config(name)
    return {
        'config': config.name,
        **parameter_report(config),
        'settings': to_plain(config),
    }


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says about itself.

    Raises:
        CheckpointError: it is missing, truncated or foreign.
    """
    from gsmap_core.config import to_plain
    from gsmap_core.models.checkpoint import load_checkpoint
    from gsmap_core.models.mapper import count_parameters

    loaded = load_checkpoint(path)
    card = path.with_suffix('.md')
    return {
        'checkpoint': str(path),
        'config': loaded.config.name,
        'size_bytes': path.stat().st_size,
        'total_parameters': count_parameters(loaded.model)['total'],
        'metadata': dict(sorted(loaded.metadata.items())),
        'settings': to_plain(loaded.config),
        'card': card.read_text(encoding='utf-8') if card.is_file() else None,
    }


def describe_bag(path: Path) -> dict[str, Any]:
    """Return topics, rates, gaps, calibration, extent and metadata of a bag.

    A bag without cameras, or with cameras that cannot be used, is described as far as possible;
    the reason is listed under `drive`.

    Raises:
        DataError: it is no readable bag.
    """
    from gsmap_core.data.bag import BagReader, open_bag
    from gsmap_core.errors import GsmapError

    reader = BagReader(path)
    topics = {}
    for name, topic in sorted(reader.topics.items()):
        times = reader.log_times_ns(name)
        topics[name] = {'type': topic.type, 'count': topic.count, **_rhythm(times)}
        if topic.qos is not None:
            topics[name]['qos'] = f'{topic.qos.reliability}, {topic.qos.durability}'
    report: dict[str, Any] = {
        'bag': str(path),
        'messages': reader.message_count,
        'start_ns': reader.start_ns,
        'duration_s': round((reader.end_ns - reader.start_ns) / 1e9, 3),
        'topics': topics,
        'metadata': {k: v for k, v in reader.metadata.items() if k != 'sample_ids'},
    }
    try:
        drive = open_bag(path)
    except GsmapError as error:
        report['drive'] = str(error)
        return report
    report['drive'] = {
        'name': drive.name,
        'camera_sets': len(drive),
        'sets_dropped': drive.sets_dropped,
        'incomplete_sets': drive.num_incomplete,
        'pose_frame': drive.pose_frame,
        'annotated_sets': drive.num_annotated,
    }
    report['extent'] = _extent(drive)
    report['cameras'] = {
        camera.name: {
            'frame_id': camera.frame_id,
            'size_px': [camera.width_px, camera.height_px],
            'fx_fy_cx_cy': [
                round(float(camera.intrinsics[row, column]), 3)
                for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))
            ],
            'position_m': [round(float(v), 3) for v in camera.base_from_camera[:3, 3]],
        }
        for camera in drive.rig.cameras
    }
    return report


def _rhythm(times_ns: Any) -> dict[str, Any]:
    """Return rate and gaps of a topic."""
    import numpy as np

    steps = np.diff(times_ns) / 1e9
    steps = steps[steps > 0]
    if not len(steps):
        return {'rate_hz': None, 'gaps': []}
    usual = float(np.median(steps))
    gaps = [
        {'at_s': round(float(times_ns[i] - times_ns[0]) / 1e9, 3), 'length_s': round(step, 3)}
        for i, step in enumerate((np.diff(times_ns) / 1e9).tolist())
        if step > _GAP_FACTOR * usual
    ]
    return {'rate_hz': round(1.0 / usual, 3), 'gaps': gaps}


def _extent(drive: Any) -> dict[str, Any] | None:
    """Return where the vehicle went in its pose frame [m]."""
    import numpy as np

    if drive.pose_frame is None or not len(drive):
        return None
    places = np.array([drive.map_from_base(drive.stamp_ns(i))[:3, 3] for i in range(len(drive))])
    low, high = places.min(axis=0), places.max(axis=0)
    return {
        'frame': drive.pose_frame,
        'min_m': [round(float(v), 2) for v in low],
        'max_m': [round(float(v), 2) for v in high],
        'driven_m': round(float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum()), 2),
    }


def _as_markdown(report: Mapping[str, Any], indent: int = 0) -> str:
    """Return nested values as a Markdown list."""
    lines = []
    for key, value in report.items():
        if key == 'topics':
            lines += ['', *_topic_table(value), '']
            continue
        mark = f'{"  " * indent}- {key}:'
        if isinstance(value, Mapping) and value:
            lines += [mark, _as_markdown(value, indent + 1)]
        elif isinstance(value, str) and '\n' in value:
            lines += [mark, *(f'{"  " * (indent + 1)}{line}' for line in value.splitlines())]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            texts = [', '.join(f'{k} {v}' for k, v in item.items()) for item in value]
            lines.append(f'{mark} {"; ".join(texts)}')
        else:
            empty = value is None or value == [] or value == {}
            lines.append(f'{mark} {"none" if empty else value}')
    return '\n'.join(lines)


def _topic_table(topics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = ['| topic | type | count | rate [Hz] | QoS | gaps |', '|---|---|---|---|---|---|']
    for name, topic in topics.items():
        gaps = ', '.join(f'{gap["length_s"]} s at {gap["at_s"]} s' for gap in topic['gaps'])
        rate = '-' if topic['rate_hz'] is None else topic['rate_hz']
        rows.append(
            f'| {name} | {topic["type"]} | {topic["count"]} | {rate} | {topic.get("qos", "-")} '
            f'| {gaps or "none"} |'
        )
    return rows
