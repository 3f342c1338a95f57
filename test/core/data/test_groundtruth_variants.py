"""Every rule of the variants on a map small enough to count its pieces."""

import json

import numpy as np
import pytest
import shapely
from scipy.optimize import linear_sum_assignment

from gsmap_core.data.groundtruth_variants import (
    DEFAULT_RANGES,
    VARIANTS,
    GroundTruthOptions,
    build_local_map,
)
from gsmap_core.data.vector_layers import Layer, VectorLayers
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy
from gsmap_core.structures import PerceptionRange

#: LiDAR of the tests: 1 m ahead, turned to x right, y ahead.
BASE_FROM_LIDAR = make_transform(rotation_from_rpy(0.0, 0.0, -np.pi / 2), [1.0, 0.0, 1.8])


def layers(**kinds):
    empty = {name: Layer() for name in ('dividers', 'crossings', 'roads')}
    return VectorLayers('town', **{**empty, **kinds})


def build(vector_layers, variant='maptr', reference='ego', pose=None, **options):
    return build_local_map(
        vector_layers,
        np.eye(4) if pose is None else pose,
        GroundTruthOptions(variant, reference, **options),
        base_from_lidar=BASE_FROM_LIDAR,
    )


def square(x, y, length=4.0, width=None):
    half_width = (length if width is None else width) / 2
    return shapely.box(x - length / 2, y - half_width, x + length / 2, y + half_width)


def areas(elements):
    return sorted(round(shapely.Polygon(e.vertices).area, 6) for e in elements)


def test_dividers_are_cut_and_never_merged():
    """Two lines end to end stay two; one that leaves and returns gives two pieces."""
    lines = [
        shapely.LineString([[-40, 1], [0, 1]]),
        shapely.LineString([[0, 1], [40, 1]]),
        shapely.LineString([[0, 0], [0, 40], [5, 40], [5, 0]]),
    ]
    for variant in VARIANTS:
        found = build(layers(dividers=Layer(lines)), variant).elements
        assert [e.vertices.tolist() for e in found] == [
            [[-30, 1], [0, 1]],
            [[0, 1], [30, 1]],
            [[0, 0], [0, 15]],
            [[5, 15], [5, 0]],
        ]
        assert all(not e.closed and e.num_observations == 0 for e in found)


def test_touching_crossings_by_variant():
    """Two halves end to end, and a narrow crossing across that touches both.

    MapTR unites whatever touches; StreamMapNet only what is parallel; MapTracker only to a shape
    that fills 0.8 of its hull: the halves do; with the stem it would be 46 of 58 m^2.
    """
    halves = [square(-2.5, 0, 5, 4), square(2.5, 0, 5, 4)]
    stem = shapely.box(-1.0, 2.0, 1.0, 5.0)
    crossings = layers(crossings=Layer([*halves, stem]))
    assert areas(build(crossings, 'maptr').elements) == [46.0]
    assert areas(build(crossings, 'maptrv2').elements) == [46.0]
    assert areas(build(crossings, 'streammapnet').elements) == [6.0, 40.0]
    assert areas(build(crossings, 'maptracker').elements) == [6.0, 40.0]


def test_maptracker_leaves_out_specks_and_covered_pieces():
    crossings = layers(crossings=Layer([square(0, 0, 6), square(0, 1, 2), square(20, 0, 0.9)]))
    assert areas(build(crossings, 'streammapnet').elements) == [0.81, 36.0]
    assert areas(build(crossings, 'maptracker').elements) == [36.0]


def test_directions_of_crossings():
    """MapTR clockwise, the others counter-clockwise; the ring cut by the border is closed."""
    crossings = layers(crossings=Layer([square(30, 0)]))
    for variant in VARIANTS:
        (element,) = build(crossings, variant).elements
        assert element.closed
        assert areas([element]) == [8.0]
        is_ccw = shapely.LinearRing(element.vertices).is_ccw
        assert is_ccw == (variant in ('streammapnet', 'maptracker'))


def test_holes_of_crossings_are_elements_for_maptr():
    ring = shapely.Polygon(square(0, 0, 10).exterior, [square(0, 0, 4).exterior])
    crossings = layers(crossings=Layer([ring]))
    found = build(crossings, 'maptr').elements
    assert areas(found) == [16.0, 100.0]
    assert [shapely.LinearRing(e.vertices).is_ccw for e in found] == [False, True]
    assert len(build(crossings, 'streammapnet')) == 1


def test_boundaries_come_from_the_union_of_roads():
    """Two road pieces and a lane between them: one road, whose inner borders vanish."""
    roads = Layer([shapely.box(-50, -5, -1, 5), shapely.box(1, -5, 50, 5), square(0, 0, 2, 10)])
    for variant in VARIANTS:
        found = build(layers(roads=roads), variant).elements
        spans = sorted(
            (round(e.vertices[0, 0], 6), round(e.vertices[-1, 0], 6), round(e.vertices[0, 1], 6))
            for e in found
        )
        # Cut 0.2 m inside the patch; the road lies to the right of the line.
        assert spans == [(-29.8, 29.8, 5.0), (29.8, -29.8, -5.0)]
        assert not any(e.closed for e in found)


def test_a_block_inside_the_patch_is_a_closed_boundary():
    roads = Layer([shapely.Polygon(square(0, 0, 200).exterior, [square(3, 2, 6).exterior])])
    (island,) = build(layers(roads=roads)).elements
    assert island.closed
    assert len(island.vertices) == 4
    assert shapely.LinearRing(island.vertices).is_ccw


def test_the_start_of_a_ring_is_no_end():
    """The road's polygon begins in the middle of the patch: its outline is still one line."""
    road = shapely.Polygon([(0, 4), (-60, 4), (-60, -20), (60, -20), (60, 4)])
    (kerb,) = build(layers(roads=Layer([road]))).elements
    assert shapely.LineString(kerb.vertices).length == pytest.approx(59.6)


def test_both_frames_hold_the_same_map():
    """The LiDAR is 1 m ahead: 10 m ahead of the car is 9 m ahead of it, left is negative x."""
    divider = layers(dividers=Layer([shapely.LineString([[10, 5], [20, 5]])]))
    ego, lidar = build(divider), build(divider, reference='lidar')
    np.testing.assert_allclose(ego.elements[0].vertices, [[10, 5], [20, 5]], atol=1e-9)
    np.testing.assert_allclose(lidar.elements[0].vertices, [[-5, 9], [-5, 19]], atol=1e-9)
    assert (ego.reference, ego.range) == ('ego', DEFAULT_RANGES['ego'])
    assert (lidar.reference, lidar.range) == ('lidar', PerceptionRange(-15, 15, -30, 30))
    # A car that has turned to the north at (100, 0).
    pose = make_transform(rotation_from_rpy(0.0, 0.0, np.pi / 2), [15.0, 0.0, 0.0])
    turned = build(divider, pose=pose)
    np.testing.assert_allclose(turned.elements[0].vertices, [[5, 5], [5, -5]], atol=1e-9)
    wide = build(divider, range=PerceptionRange(-50, 50, -25, 25))
    assert wide.range.x_max == 50


def test_published_frames_and_wrong_names():
    references = {v: GroundTruthOptions(v, 'published').reference for v in VARIANTS}
    assert references == {
        'maptr': 'lidar',
        'maptrv2': 'lidar',
        'streammapnet': 'ego',
        'maptracker': 'lidar',
    }
    with pytest.raises(ConfigError, match=r"'maptrv3'.*maptr, maptrv2"):
        GroundTruthOptions('maptrv3')
    with pytest.raises(ConfigError, match=r"'map': unknown"):
        GroundTruthOptions(reference='map')
    with pytest.raises(ConfigError, match=r'lane.*divider, ped_crossing'):
        GroundTruthOptions(categories=('lane',))
    with pytest.raises(DataError, match='base_from_lidar'):
        build_local_map(layers(), np.eye(4), GroundTruthOptions(reference='lidar'))


def test_centre_lines_follow_every_way():
    """A lane that forks gives two ways; the stretch before the fork is in both."""
    lanes = Layer(
        [
            shapely.LineString([[-40, 0], [0, 0]]),
            shapely.LineString([[0, 0], [40, 0]]),
            shapely.LineString([[0, 0], [10, 10]]),
        ],
        ['in', 'straight', 'left'],
    )
    town = layers(centerlines=lanes, successors={'in': ('straight', 'left')})
    found = build(town, categories=('centerline',)).elements
    assert [e.vertices.tolist() for e in found] == [
        [[-30, 0], [30, 0]],
        [[-30, 0], [0, 0], [10, 10]],
    ]
    # Driven the other way round, both ends are ways of their own into one.
    merging = layers(centerlines=lanes, successors={'straight': ('in',), 'left': ('in',)})
    assert len(build(merging, categories=('centerline',)).elements) == 2


def reference_problems(drive, samples, tolerance_m=0.05):
    """Return what differs from the vectors of the public converter, per sample."""
    found = {}
    for index in range(len(drive)):
        expected = samples.get(drive.sample_id(index))
        if expected is None:
            continue
        local_map = drive.ground_truth(index)
        for category, name in enumerate(('divider', 'ped_crossing', 'boundary')):
            ours = [e.loop_xy() for e in local_map.of_category(category)]
            theirs = [np.array(points) for points in expected[name]]
            if len(ours) != len(theirs):
                found[drive.name, index] = f'{name}: {len(ours)} elements, {len(theirs)} expected'
            elif ours:
                cost = np.array([[chamfer(a, b) for b in theirs] for a in ours])
                worst = cost[linear_sum_assignment(cost)].max()
                if worst > tolerance_m:
                    found[drive.name, index] = f'{name}: {worst:.3f} m'
    return found


def chamfer(one, other, step_m=0.1):
    """Mean distance of points on one line to the other line, both ways [m]."""
    lines = shapely.LineString(one), shapely.LineString(other)
    means = []
    for line, target in (lines, lines[::-1]):
        places = np.linspace(0.0, line.length, max(2, int(line.length / step_m)))
        points = shapely.line_interpolate_point(line, places)
        means.append(shapely.distance(points, target).mean())
    return np.mean(means)


def compare(data_dir, every):
    from gsmap_core.data.nuscenes import NuScenesDataset

    path = data_dir / 'nuscenes' / 'reference_vectors_60x30.json'
    samples = json.loads(path.read_text(encoding='utf-8'))['samples'][::every]
    options = GroundTruthOptions('maptrv2', 'published')
    dataset = NuScenesDataset(data_dir / 'nuscenes', 'v1.0-mini-meta', ground_truth=options)
    by_token = {sample['sample_token']: sample for sample in samples}
    different = {}
    for drive in dataset:
        different |= reference_problems(drive, by_token)
    return len(samples), different


@pytest.mark.data
def test_vectors_of_the_public_converter(data_dir):
    pytest.importorskip('nuscenes')
    count, different = compare(data_dir, every=10)
    assert count == 21
    assert different == {}


@pytest.mark.data
@pytest.mark.slow
def test_all_vectors_of_the_public_converter(data_dir):
    """Every one of the 201 samples agrees; the tolerance on the share is the issue's."""
    pytest.importorskip('nuscenes')
    count, different = compare(data_dir, every=1)
    assert count == 201
    assert len(different) <= 0.05 * count, different
