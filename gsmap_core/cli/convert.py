"""`gsmap convert`: turns datasets into bags. One sub-verb per dataset."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sources = parser.add_subparsers(dest='dataset', metavar='DATASET', required=True)
    keyframes = sources.add_parser(
        'nuscenes-json',
        help='single nuScenes key frames, six JPEGs and calibration.json a folder; no devkit',
        description='Converts key-frame folders; those of one scene become one bag.',
    )
    keyframes.add_argument('source', metavar='SRC', help='a key-frame folder or a folder of them')
    keyframes.add_argument('--no-lidar', action='store_true', help='leave out lidar sweeps')
    _add_common(keyframes)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('destination', metavar='DST', help='folder for the bags, made if needed')
    parser.add_argument(
        '--scene', action='append', metavar='NAME', help='only this scene; may be repeated'
    )
    parser.add_argument('--limit', type=int, metavar='N', help='at most N camera sets per scene')
    parser.add_argument('--dry-run', action='store_true', help='only say what would be written')
    parser.add_argument('--overwrite', action='store_true', help='replace bags that exist')
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args: argparse.Namespace) -> int:
    """Convert."""
    from tqdm import tqdm

    from gsmap_core.data.bag import write_bag
    from gsmap_core.data.keyframe_json import LICENCE_NOTICE, find_recordings
    from gsmap_core.errors import DataError

    if args.limit is not None and args.limit < 1:
        raise DataError(f'--limit {args.limit}; expected a positive number of camera sets')
    print(LICENCE_NOTICE, file=sys.stderr)
    recordings = find_recordings(args.source)
    if args.scene:
        known = {recording.name for recording in recordings}
        unknown = sorted(set(args.scene) - known)
        if unknown:
            raise DataError(
                f"no scene {', '.join(unknown)} in '{args.source}'; "
                f'it has {", ".join(sorted(known))}'
            )
        recordings = [recording for recording in recordings if recording.name in args.scene]
    bags: list[dict[str, Any]] = []
    for recording in recordings:
        path = Path(args.destination) / recording.name
        if args.dry_run:
            bags.append({'bag': str(path), 'frames': len(recording), 'written': False})
            continue
        with tqdm(desc=recording.name, unit='set', file=sys.stderr) as bar:

            def show(done: int, total: int, bar: tqdm = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            summary = write_bag(
                recording,
                path,
                lidar=not args.no_lidar,
                progress=show,
                overwrite=args.overwrite,
                limit=args.limit,
            )
        bags.append(
            {
                'bag': str(path),
                'frames': summary.num_frames,
                'written': True,
                'duration_s': round(summary.duration_s, 3),
                'size_bytes': summary.size_bytes,
                'topics': summary.topics,
            }
        )
    if args.json:
        print(json.dumps({'bags': bags, 'licence': LICENCE_NOTICE}))
        return 0
    for bag in bags:
        if not bag['written']:
            print(f'{bag["bag"]}: would hold {bag["frames"]} camera sets')
            continue
        print(
            f'{bag["bag"]}: {bag["frames"]} camera sets, {bag["duration_s"]} s, '
            f'{bag["size_bytes"] / 1e6:.1f} MB'
        )
        for topic, count in bag['topics'].items():
            print(f'  {count:6d}  {topic}')
    return 0
