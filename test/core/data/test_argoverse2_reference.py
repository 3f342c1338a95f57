"""Real Argoverse 2 maps against what public code makes of them, sample by sample."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from scipy.optimize import linear_sum_assignment

from gsmap_core.categories import category_by_name
from gsmap_core.data.argoverse2 import Argoverse2Log, Argoverse2TruthOptions
from gsmap_core.data.groundtruth_argoverse2 import make_local_map
from gsmap_core.geometry.polylines import polyline_length, resample_polyline

pytest.importorskip('av2')
pytestmark = pytest.mark.data

TOLERANCE_M = 0.05
SHARE_WITHIN = 0.95
COUNTS = {'divider': 'num_divider', 'ped_crossing': 'num_ped', 'boundary': 'num_boundary'}


def closed_vertices(element):
    vertices = element.vertices
    return np.concatenate([vertices, vertices[:1]]) if element.closed else vertices


def chamfer(one, other):
    """Half the sum of the mean distances of points every 25 cm to the other line, from above."""
    total = 0.0
    for line, against in ((one, other), (other, one)):
        points = resample_polyline(line[:, :2], 2 + int(polyline_length(line[:, :2]) / 0.25))
        distances = shapely.distance(shapely.points(points), shapely.LineString(against[:, :2]))
        total += 0.5 * float(distances.mean())
    return total


def differences(found, expected, counts):
    """Say in words where a sample differs from the reference; empty: nowhere."""
    reasons = []
    for name, count_name in COUNTS.items():
        ours = [closed_vertices(e) for e in found.of_category(category_by_name(name).id)]
        theirs = [np.array(line) for line in expected[name]]
        if not len(ours) == len(theirs) == counts[count_name]:
            reasons.append(f'{name}: {len(ours)}, reference {len(theirs)}, {counts[count_name]}')
            continue
        table = np.array([[chamfer(a, b) for b in theirs] for a in ours])
        table = table.reshape(len(ours), len(theirs))
        worst = table[linear_sum_assignment(table)].max(initial=0.0)
        if worst > TOLERANCE_M:
            reasons.append(f'{name}: {worst:.3f} m apart')
    return reasons


def compare(data_dir, step):
    """Return the number of samples looked at, and what differs."""
    folder = data_dir / 'av2'
    vectors = json.loads((folder / 'reference_vectors_60x30.json').read_text())['logs']
    counts = json.loads((folder / 'published_vector_counts.json').read_text())['logs']
    looked_at, differing = 0, []
    for name, samples in vectors.items():
        log = Argoverse2Log(folder / 'sensor' / 'val' / name)
        by_stamp = {item['timestamp_ns']: item for item in counts[name]}
        for sample in samples[::step]:
            stamp = sample['timestamp_ns']
            found = make_local_map(
                log.city_map, log.city_from_ego(stamp), Argoverse2TruthOptions('maptrv2')
            )
            reasons = differences(found, sample, by_stamp[stamp])
            looked_at += 1
            differing += [f'{name[:8]} {stamp}: {reason}' for reason in reasons[:1]]
    return looked_at, differing


def test_maptrv2_equals_the_public_converter_on_every_sixth_sample(data_dir):
    looked_at, differing = compare(data_dir, 6)
    assert looked_at == 15
    assert len(differing) <= (1 - SHARE_WITHIN) * looked_at, differing


@pytest.mark.slow
def test_maptrv2_equals_the_public_converter_on_every_sample(data_dir):
    looked_at, differing = compare(data_dir, 1)
    assert looked_at == 87
    assert len(differing) <= (1 - SHARE_WITHIN) * looked_at, differing


def test_heights_equal_the_public_converter(data_dir):
    folder = data_dir / 'av2'
    vectors = json.loads((folder / 'reference_vectors_60x30.json').read_text())['logs']
    for name, samples in vectors.items():
        log, sample = Argoverse2Log(folder / 'sensor' / 'val' / name), samples[7]
        pose = log.city_from_ego(sample['timestamp_ns'])
        mine = np.concatenate([e.vertices for e in make_local_map(log.city_map, pose).elements])
        expected = np.concatenate([line for category in COUNTS for line in sample[category]])
        # Points that both have: the same within the three decimals of the reference.
        distance = np.linalg.norm(mine[:, None, :2] - expected[None, :, :2], axis=-1)
        nearest, is_same = distance.argmin(axis=0), distance.min(axis=0) < 0.002
        assert is_same.mean() > 0.9
        gaps = np.abs(mine[nearest, 2] - expected[:, 2])[is_same]
        assert np.median(gaps) < 0.001
        assert gaps.max() < 0.05
