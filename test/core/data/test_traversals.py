"""Single- and multi-traversal drives and the graph of poses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
from core.data.helpers.made_up_poses import pose_table, straight

from gsmap_core.data import traversals
from gsmap_core.data.perception_boxes import box_corners, planar_boxes
from gsmap_core.data.traversals import PosePairs, TraversalConfig, analyse_traversals
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.structures import PerceptionRange


def rows(pairs: PosePairs) -> list[tuple[int, int, int, int]]:
    columns = (
        pairs.reference_drive,
        pairs.reference_frame,
        pairs.adjacent_drive,
        pairs.adjacent_frame,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_drives_and_pairs_by_hand() -> None:
    # Poses 5 m apart: a at 0, 5, 10; b 20 m further on; c on a parallel street 100 m away; d in
    # another town at the very same coordinates.
    tables = [
        straight('c', (0.0, 100.0)),
        straight('b', (20.0, 0.0)),
        straight('a', (0.0, 0.0)),
        straight('d', (0.0, 0.0), place='elsewhere'),
    ]
    analysis = analyse_traversals(tables, TraversalConfig(min_iou=0.5, max_iou=0.6))
    assert [drive.name for drive in analysis.drives] == ['a', 'b', 'c', 'd']
    assert [drive.overlaps for drive in analysis.drives] == [('b',), ('a',), (), ()]
    assert [drive.is_multi_traversal for drive in analysis.drives] == [True, True, False, False]
    # a covers x -30 to 40, b -10 to 60: 50 m of 30 m width are shared.
    assert analysis.overlaps.tolist() == [[0, 1]]
    assert analysis.overlap_m2 == pytest.approx([50 * 30])
    assert analysis.polygons[0].area == pytest.approx(70 * 30)
    # Distances of 15 m: IoU 45/75 = 0.6; of 20 m: 40/80 = 0.5. Both limits count; 10 m (0.71) and
    # 25 m (0.41) do not.
    assert rows(analysis.pairs) == [
        (0, 0, 1, 0), (0, 1, 1, 0), (0, 1, 1, 1), (0, 2, 1, 1), (0, 2, 1, 2),
    ]  # fmt: skip
    np.testing.assert_allclose(analysis.pairs.iou, [0.5, 0.6, 0.5, 0.6, 0.5])
    drive = analysis.drives[0]
    assert (drive.num_frames, drive.last_frame) == (3, 2)
    assert (drive.first_stamp_ns, drive.last_stamp_ns) == (0, 1_000_000_000)


def test_limits_are_inclusive_whatever_the_heading() -> None:
    """The limits hold for turned boxes too, where the IoU is 0.5 only to rounding."""
    found = 0
    for yaw in np.linspace(0.1, 3.0, 15):
        way = 20.0 * np.array([np.cos(yaw), np.sin(yaw)])
        place = np.array([1234.5, 987.6])
        tables = [pose_table('a', [[*place, yaw]]), pose_table('b', [[*(place + way), yaw]])]
        found += len(analyse_traversals(tables, TraversalConfig(min_iou=0.5)).pairs)
        found += len(analyse_traversals(tables, TraversalConfig(max_iou=0.5)).pairs)
        assert not len(analyse_traversals(tables, TraversalConfig(max_iou=0.499)).pairs)
        assert not len(analyse_traversals(tables, TraversalConfig(min_iou=0.501)).pairs)
    assert found == 30


def test_no_pairs_within_a_drive() -> None:
    # a passes the same place three times, b is far away.
    loop = pose_table('a', [[0, 0, 0], [10, 0, 0], [0, 0, np.pi], [10, 0, 0]])
    analysis = analyse_traversals([loop, straight('b', (500.0, 0.0))])
    assert not len(analysis.pairs)
    assert not any(drive.is_multi_traversal for drive in analysis.drives)


def test_least_area_of_an_overlap() -> None:
    # The boxes share 3.25 m x 30 m = 97.5 m2 along x; 3.5 m make 105 m2.
    near = [pose_table('a', [[0, 0, 0]]), pose_table('b', [[56.75, 0, 0]])]
    nearer = [pose_table('a', [[0, 0, 0]]), pose_table('b', [[56.5, 0, 0]])]
    assert not len(analyse_traversals(near).overlaps)
    assert len(analyse_traversals(nearer).overlaps) == 1
    any_area = TraversalConfig(min_overlap_m2=0.0)
    assert len(analyse_traversals(near, any_area).overlaps) == 1
    # A pair of poses needs two drives that overlap, however low its own limit is.
    low = TraversalConfig(min_iou=0.01)
    assert not len(analyse_traversals(near, low).pairs)
    assert len(analyse_traversals(nearer, low).pairs) == 1


def test_frames_keep_the_numbers_of_their_drive() -> None:
    tables = [straight('a', (0.0, 0.0), num=9), straight('b', (20.0, 0.0), num=1)]
    thinned = [table.thinned(4) for table in tables]
    pairs = analyse_traversals(thinned, TraversalConfig(max_iou=1.0)).pairs
    assert rows(pairs) == [(0, 0, 1, 0), (0, 4, 1, 0), (0, 8, 1, 0)]
    np.testing.assert_allclose(pairs.iou, [0.5, 1.0, 0.5])


def random_tables(seed: int, num_drives: int = 14) -> list:
    rng = np.random.default_rng(seed)
    tables = []
    for number in range(num_drives):
        count = int(rng.integers(1, 9))
        planar = np.concatenate(
            [
                rng.uniform(0, 130, (1, 2)) + np.cumsum(rng.normal(0, 8, (count, 2)), axis=0),
                rng.uniform(-np.pi, np.pi, (count, 1)),
            ],
            axis=1,
        )
        tables.append(pose_table(f'd{number:02d}', planar, place=f'p{number % 2}'))
    return tables


@pytest.mark.parametrize(
    ('seed', 'config'),
    [
        (0, TraversalConfig()),
        (1, TraversalConfig(min_iou=0.001, max_iou=0.3, min_overlap_m2=900.0)),
        (2, TraversalConfig(PerceptionRange(-5.0, 35.0, -10.0, 20.0), 0.1, 1.0)),
    ],
)
def test_equals_brute_force(seed, config, monkeypatch) -> None:
    # Small chunks, so that their borders are crossed.
    monkeypatch.setattr(traversals, '_CHUNK_BOXES', 7)
    monkeypatch.setattr(traversals, '_CHUNK_PAIRS', 5)
    tables = random_tables(seed)
    polygons = [
        shapely.polygons(box_corners(planar_boxes(t.map_from_base, config.extent), config.extent))
        for t in tables
    ]
    unions = [shapely.unary_union(boxes) for boxes in polygons]
    overlaps, expected = [], {}
    for i, j in itertools.combinations(range(len(tables)), 2):
        area = unions[i].intersection(unions[j]).area
        if tables[i].place != tables[j].place or area < config.min_overlap_m2:
            continue
        overlaps.append([i, j])
        for (f, a), (g, b) in itertools.product(enumerate(polygons[i]), enumerate(polygons[j])):
            iou = a.intersection(b).area / a.union(b).area
            if config.min_iou <= iou <= config.max_iou:
                expected[i, f, j, g] = iou
    analysis = analyse_traversals(tables, config)
    assert analysis.overlaps.tolist() == overlaps
    assert 3 < len(overlaps) < 40 and len(expected) > 20
    assert rows(analysis.pairs) == sorted(expected, key=lambda key: (key[0], key[2], *key[1::2]))
    np.testing.assert_allclose(analysis.pairs.iou, [expected[key] for key in rows(analysis.pairs)])
    # The order of the tables does not matter.
    again = analyse_traversals(tables[::-1], config)
    assert rows(again.pairs) == rows(analysis.pairs)
    assert again.drives == analysis.drives


def test_errors() -> None:
    with pytest.raises(DataError, match='at least one pose table'):
        analyse_traversals([])
    with pytest.raises(DataError, match="two drives are called 'a'"):
        analyse_traversals([straight('a', (0.0, 0.0)), straight('a', (9.0, 0.0))])
    for low, high in ((0.0, 0.5), (0.6, 0.5), (0.5, 1.1), (float('nan'), 0.5)):
        with pytest.raises(ConfigError, match='IoU limits'):
            TraversalConfig(min_iou=low, max_iou=high)
    with pytest.raises(ConfigError, match='min_overlap_m2'):
        TraversalConfig(min_overlap_m2=-1.0)
