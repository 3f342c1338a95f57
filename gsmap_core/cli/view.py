"""`gsmap view`: draw a frame of a bag or of a map file, or the map of a whole drive."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('source', metavar='BAG|MAPFILE', help='a bag, or a map file (*.map.json)')
    parser.add_argument('--frame', type=int, default=0, metavar='I', help='frame, from 0')
    parser.add_argument(
        '--drive', action='store_true', help='draw all frames into one map instead of one frame'
    )
    parser.add_argument(
        '--predictions', metavar='FILE', help='map file to draw beside the ground truth'
    )
    parser.add_argument(
        '--lidar', action='store_true', help="draw the frame's LiDAR points into its cameras"
    )
    parser.add_argument(
        '--gaussians',
        action='store_true',
        help='draw Gaussians, soft occupancy and vectors of predictions with covariances side by '
        'side',
    )
    parser.add_argument(
        '--min-score', type=float, default=0.4, help='leave out predictions below it, 0 to 1'
    )
    parser.add_argument('--out', default='out/view.png', metavar='PNG', help='picture to write')
    parser.add_argument('--json', action='store_true', help='print what was drawn as JSON')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import json
    from pathlib import Path

    import cv2

    from gsmap_core.cli.view_pictures import picture_of_bag, picture_of_map_file
    from gsmap_core.errors import DataError

    out = Path(args.out)
    if out.suffix.lower() not in ('.png', '.jpg', '.jpeg'):
        raise DataError(f'--out {out}: expected a picture (*.png or *.jpg)')
    if args.source.endswith('.json'):
        picture, summary = picture_of_map_file(args)
    else:
        picture, summary = picture_of_bag(args)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise DataError(f'{out}: cannot be written; check the folder and its permissions')
    summary['out'] = str(out)
    if args.json:
        print(json.dumps(summary))
    else:
        print(f'{summary["title"]}: wrote {out} ({picture.shape[1]} x {picture.shape[0]} px)')
    return 0
