"""Small synthetic datasets in the layouts of the published ones, and what they should hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely

from gsmap_core.categories import category_by_id
from gsmap_core.cli.main import build_parser, main
from gsmap_core.cli.synth import plan_drives
from gsmap_core.data.synthetic.recording import DriveSpec
from gsmap_core.structures import VectorMap


def make_dataset(layout: str, out: Path, *more: str) -> tuple[Path, list[DriveSpec]]:
    """Make a dataset of one flat town by the command line; return it and its drives."""
    arguments = ['synth', '--layout', layout, '--out', str(out), '--setting', 'easy']
    arguments += ['--duration', '0.5', '--width', '16', '--conditions', 'noon', '--workers', '1']
    assert main([*arguments, '--json', *more]) == 0
    return out, plan_drives(build_parser('synth').parse_args([*arguments, *more]))


def largest_difference_m(first: VectorMap, second: VectorMap) -> dict[str, float]:
    """Return by category how far two maps of one place are apart, away from the border [m].

    Lines may be cut, joined and directed differently; only what is drawn counts.
    """
    names = sorted({category_by_id(e.category).name for e in first.elements})
    return {name: _distance(first, second, name) for name in names}


def _distance(first: VectorMap, second: VectorMap, category: str) -> float:
    area = first.range
    inner = shapely.box(area.x_min + 2, area.y_min + 2, area.x_max - 2, area.y_max - 2)
    drawn = []
    for local_map in (first, second):
        lines = []
        for element in local_map.elements:
            if category_by_id(element.category).name == category:
                points = element.vertices[:, :2]
                ring = np.concatenate([points, points[:1]]) if element.closed else points
                lines.append(shapely.LineString(ring))
        drawn.append(shapely.intersection(shapely.union_all(lines), inner))
    if drawn[0].is_empty and drawn[1].is_empty:
        return 0.0
    return float(shapely.hausdorff_distance(*drawn, densify=0.05))
