"""`gsmap export`: write a map for other programs (GeoJSON, Lanelet2 OSM, map file)."""

from __future__ import annotations

import argparse

#: What maps are written as; other things to export get targets of their own.
MAP_TARGETS: tuple[str, ...] = ('geojson', 'lanelet2', 'map.json')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        'source',
        metavar='MAP',
        help="a map file (*.map.json; the local maps of a drive are fused first), a map builder's "
        'folder, or a bag with a VectorMap topic',
    )
    parser.add_argument('--to', required=True, choices=MAP_TARGETS, help='format to write')
    parser.add_argument(
        '--out', metavar='FILE', help='file to write; default: beside MAP, with the usual ending'
    )
    parser.add_argument(
        '--origin',
        nargs='+',
        type=float,
        metavar='DEG',
        help='LATITUDE LONGITUDE [ALTITUDE] of the origin of the map frame (x east, y north): '
        'coordinates become geographic',
    )
    parser.add_argument(
        '--topic', help='VectorMap topic of the bag; default: the only one, or /map_builder/map'
    )
    parser.add_argument(
        '--weights',
        help='checkpoint whose calibration is applied to the local maps that are fused',
    )
    parser.add_argument('--json', action='store_true', help='print what was written as JSON')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from gsmap_core.cli.export_map import export_map

    return export_map(args)
