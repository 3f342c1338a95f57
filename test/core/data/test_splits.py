"""Splits: areas that can be computed by hand, clusters, cuts, files and the official lists."""

import json
import time

import numpy as np
import pytest

from gsmap_core.data.geographic_split import geographic_split, overlap_graph
from gsmap_core.data.splits import Split, drive_area, read_split_file, split_overlap
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.transforms import make_transform, rotation_from_rpy


def drive(name, start, end, place='town', num_frames=10):
    """A straight drive."""
    points = np.linspace(start, end, num_frames)
    yaw = np.arctan2(end[1] - start[1], end[0] - start[0])
    rotation = rotation_from_rpy(0.0, 0.0, yaw)
    poses = [make_transform(rotation, [x, y, 0.0]) for x, y in points]
    return drive_area(name, place, poses)


def test_area_of_a_straight_drive():
    """40 m ahead with 60 m x 30 m around it: 100 m x 30 m; a standing car: one rectangle."""
    assert drive('a', (0, 0), (40, 0)).area.area == pytest.approx(3000.0)
    north = drive('b', (0, 0), (0, 40)).area
    assert north.bounds == pytest.approx((-15, -30, 15, 70))
    assert drive('c', (0, 0), (0, 0)).area.area == pytest.approx(1800.0)
    with pytest.raises(DataError, match="'d' has no poses"):
        drive_area('d', 'town', [])


def test_overlap_is_the_share_of_validation_seen_in_training():
    """Validation covers 100 m, 10 m of which training covers too; the other city adds none."""
    areas = [
        drive('train', (80, 0), (120, 0)),
        drive('val', (-10, 0), (30, 0)),
        drive('far', (80, 0), (120, 0), place='other'),
        drive('farther', (500, 0), (540, 0), place='other'),
    ]
    # Training begins at x = 50, validation ends at 60.
    overlap = split_overlap(areas, Split('s', ('train', 'far'), ('val', 'farther')))
    assert overlap.by_place['town'] == pytest.approx((3000.0, 300.0))
    assert overlap.by_place['other'] == pytest.approx((3000.0, 0.0))
    assert overlap.seen_share == pytest.approx(0.05)
    assert (overlap.num_val, overlap.num_val_touched) == (2, 1)
    assert split_overlap(areas, Split('s', ('train',))).seen_share == 0.0
    with pytest.raises(DataError, match='nobody'):
        split_overlap(areas, Split('s', ('nobody',)))


def test_clusters_stay_together():
    """Five streets far apart, two drives each: one street in five is validation."""
    areas = [
        drive(f'{street}{number}', (0, 200 * street + 5 * number), (40, 200 * street))
        for street in range(5)
        for number in range(2)
    ]
    split = geographic_split(areas, 0.2)
    assert len(split.val) == 2
    assert split.val[0][0] == split.val[1][0]
    assert split.left_out == ()
    assert split_overlap(areas, split).seen_area_m2 == 0.0
    assert geographic_split(areas[::-1], 0.2) == split


def test_one_long_road_is_cut():
    """Twenty drives in a row, each overlapping the next: an end is taken, one drive is lost."""
    areas = [drive(f'd{i:02d}', (80.0 * i, 0), (80.0 * i + 40, 0)) for i in range(20)]
    assert (overlap_graph(areas) > 0).sum() == 2 * 19
    split = geographic_split(areas, 0.2)
    assert split.val in (('d00', 'd01', 'd02', 'd03'), ('d16', 'd17', 'd18', 'd19'))
    assert len(split.left_out) == 1
    assert len(split.train) == 15
    overlap = split_overlap(areas, split)
    assert (overlap.seen_area_m2, overlap.num_val_touched) == (0.0, 0)


def test_places_are_split_apart():
    """The same coordinates in two cities are no overlap; both give a share."""
    areas = [
        drive(f'{place}{i}', (0, 300 * i), (40, 300 * i), place=place)
        for place in ('east', 'west')
        for i in range(5)
    ]
    split = geographic_split(areas, 0.2)
    assert sorted(name[:4] for name in split.val) == ['east', 'west']
    with pytest.raises(ConfigError, match='between 0 and 1'):
        geographic_split(areas, 1.0)


def test_few_drives_still_give_a_validation_part():
    """One drive a city, five cities: none has a fifth to give, together they give one drive."""
    areas = [drive(f'd{i}', (0, 0), (40, 0), place=f'city {i}') for i in range(5)]
    split = geographic_split(areas, 0.2)
    assert (len(split.train), len(split.val)) == (4, 1)
    assert geographic_split(areas[:1], 0.2).val == ()


def test_a_thousand_drives_take_seconds():
    rng = np.random.default_rng(7)
    areas = []
    for index in range(1000):
        x, y = rng.uniform(0, 3000, 2)
        east = bool(rng.integers(2))
        end = (x + 120 * east, y + 120 * (not east))
        areas.append(drive(f'{index:04d}', (x, y), end, num_frames=20))
    started = time.process_time()
    split = geographic_split(areas)
    assert time.process_time() - started < 20.0
    assert split_overlap(areas, split).seen_share < 1e-6
    assert 0.08 < len(split.val) / 1000 < 0.2
    assert len(split.left_out) < 250


def test_published_lists_from_a_file(tmp_path):
    path = tmp_path / 'new.json'
    path.write_text(json.dumps({'train': ['a', 'b'], 'val': 'val.txt'}), encoding='utf-8')
    (tmp_path / 'val.txt').write_text('c\n\nd\n', encoding='utf-8')
    split = read_split_file(path)
    assert split == Split('new', ('a', 'b'), ('c', 'd'))
    there, absent, unlisted = split.restricted(['a', 'c', 'e'])
    assert (there.train, there.val) == (('a',), ('c',))
    assert (absent, unlisted) == (('b', 'd'), ('e',))
    assert split.without(['b']).left_out == ('b',)
    assert split.of('val') == ('c', 'd')
    with pytest.raises(ConfigError, match='train, val, test'):
        split.of('mini')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"train": ["a"], "val": ["a"]}', 'a more than once'),
        ('{"training": ["a"]}', "mapping with 'train'"),
        ('["a"]', "mapping with 'train'"),
        ('{"train": 3}', 'train is a int'),
        ('{"train": "absent.txt"}', 'absent.txt'),
        ('{"train": [', 'cannot be read'),
    ],
)
def test_wrong_split_files_are_refused(tmp_path, content, message):
    path = tmp_path / 'lists.json'
    path.write_text(content, encoding='utf-8')
    with pytest.raises(DataError, match=message):
        read_split_file(path)
