"""`gsmap view`: a drive as a page for the browser and a film, or one picture of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('source', metavar='BAG|MAPFILE', help='a bag, or a map file (*.map.json)')
    parser.add_argument(
        '--frame',
        type=int,
        metavar='I',
        help='draw this frame, from 0; without it and the other kinds of pictures below a bag '
        'becomes a page and a film',
    )
    parser.add_argument(
        '--drive', action='store_true', help='draw all frames into one map instead of one frame'
    )
    parser.add_argument(
        '--weights',
        metavar='FILE',
        help='page and film: checkpoint that maps the drive (the shipped one); --predictions and '
        '--ground-truth take maps that are there',
    )
    parser.add_argument(
        '--ground-truth', action='store_true', help='page and film: of the ground truth alone'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda[:N] (auto)')
    parser.add_argument('--no-video', action='store_true', help='page only, no film')
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
        '--bev-features',
        nargs='+',
        metavar='WEIGHTS',
        help='draw the BEV features of a frame as colours for each of these checkpoints, and what '
        'in them stays in place over all frames; BAG may be a folder of bags',
    )
    parser.add_argument(
        '--min-score', type=float, default=0.4, help='leave out predictions below it, 0 to 1'
    )
    parser.add_argument(
        '--out',
        metavar='PATH',
        help='folder for page and film (out/view), or the picture to write (out/view.png)',
    )
    parser.add_argument('--json', action='store_true', help='print what was drawn as JSON')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import json

    from gsmap_core.errors import DataError

    is_picture = args.frame is not None or args.drive or args.lidar or args.gaussians
    is_picture = is_picture or args.bev_features or args.source.endswith('.json')
    if not is_picture and not Path(args.out or '').suffix:
        from gsmap_core.cli.view_page import page_of_bag

        summary = page_of_bag(args)
        print(json.dumps(summary) if args.json else '\n'.join(summary['texts']))
        return 0
    given = [
        name
        for name, value in (
            ('--weights', args.weights is not None),
            ('--ground-truth', args.ground_truth),
            ('--no-video', args.no_video),
        )
        if value
    ]
    if given:
        raise DataError(f'{given[0]} belongs to the page of a bag; leave it out for a picture')
    summary, size_px = _write_picture(args, Path(args.out or 'out/view.png'))
    if args.json:
        print(json.dumps(summary))
    else:
        if args.bev_features:
            from gsmap_core.cli.view_features import feature_lines

            print('\n'.join(feature_lines(summary['features'])))
        print(f'{summary["title"]}: wrote {summary["out"]} ({size_px[0]} x {size_px[1]} px)')
    return 0


def _write_picture(args: argparse.Namespace, out: Path) -> tuple[dict[str, Any], tuple[int, int]]:
    import cv2

    from gsmap_core.cli.view_features import picture_of_features
    from gsmap_core.cli.view_pictures import picture_of_bag, picture_of_map_file
    from gsmap_core.errors import DataError

    if out.suffix.lower() not in ('.png', '.jpg', '.jpeg'):
        raise DataError(f'--out {out}: expected a picture (*.png or *.jpg)')
    args.frame = args.frame or 0
    make = picture_of_map_file if args.source.endswith('.json') else picture_of_bag
    if args.bev_features:
        make = picture_of_features
    picture, summary = make(args)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise DataError(f'{out}: cannot be written; check the folder and its permissions')
    return {**summary, 'out': str(out)}, (picture.shape[1], picture.shape[0])
