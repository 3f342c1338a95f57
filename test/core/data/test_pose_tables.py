"""Pose tables: from bags without images, from recordings, from files."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from core.data.helpers.fake_recording import FakeRecording, pose_at
from core.data.helpers.made_up_poses import pose_table, straight

from gsmap_core.data import bag_cameras, pose_files
from gsmap_core.data.bag import open_bag, write_bag
from gsmap_core.data.pose_files import collect_pose_tables, read_pose_file, write_pose_file
from gsmap_core.data.pose_tables import (
    PoseTable,
    place_and_offset,
    pose_table_of,
    pose_table_of_recording,
)
from gsmap_core.errors import DataError

OFFSET = np.array([1000.0, 2000.0, 0.0])


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('bags') / 'fake'
    write_bag(FakeRecording(), path)
    return path


def test_poses_of_a_bag_are_in_the_city_frame(bag: Path, monkeypatch) -> None:
    monkeypatch.setattr(bag_cameras.PictureReader, 'read', None)  # no picture is asked for
    drive = open_bag(bag)
    table = pose_table_of(drive)
    assert (table.name, table.place) == ('fake-drive', 'nowhere')
    assert table.frames.tolist() == [0, 1, 2, 3, 4]
    assert table.stamps_ns.tolist() == [drive.stamp_ns(index) for index in range(5)]
    for stamp, pose in zip(table.stamps_ns, table.map_from_base, strict=True):
        expected = pose_at(int(stamp))
        # The recording's 50 Hz poses are interpolated.
        np.testing.assert_allclose(pose[:3, 3], expected[:3, 3] + OFFSET, atol=1e-4)
        np.testing.assert_allclose(pose[:3, :3], expected[:3, :3], atol=1e-4)
    assert pose_table_of(drive, place='here').place == 'here'


def test_poses_of_a_recording_equal_those_of_its_bag(bag: Path) -> None:
    table = pose_table_of(open_bag(bag))
    again = pose_table_of_recording(FakeRecording(), table.stamps_ns)
    assert (again.name, again.place) == (table.name, table.place)
    np.testing.assert_allclose(again.map_from_base, table.map_from_base, atol=1e-9)


@dataclass
class PlainDrive:
    """Says what a drive without a bag would say."""

    poses: list
    pose_frame: str = 'map'
    name: str = 'plain'
    metadata: dict = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.poses)

    def stamp_ns(self, index: int) -> int:
        return index

    def map_from_base(self, stamp_ns: int):
        return self.poses[stamp_ns]


def test_drives_whose_poses_cannot_be_compared() -> None:
    assert pose_table_of(PlainDrive([np.eye(4)])).place == ''
    with pytest.raises(DataError, match="'plain': poses are in 'odom'"):
        pose_table_of(PlainDrive([np.eye(4)], pose_frame='odom'))
    with pytest.raises(DataError, match="'plain': 2 frames, 1 with a pose"):
        pose_table_of(PlainDrive([np.eye(4), None]))
    with pytest.raises(DataError, match='0 frames'):
        pose_table_of(PlainDrive([]))


def test_the_place_is_what_the_metadata_says() -> None:
    place, offset = place_and_offset({'city_frame': 'boston', 'map_offset': '1 -2.5 0'})
    assert place == 'boston' and offset.tolist() == [1.0, -2.5, 0.0]
    assert place_and_offset({'town': 'town-0003'})[0] == 'town-0003'
    for text in ('1 2', '1 2 x', 'nan 0 0'):
        with pytest.raises(DataError, match='expected three numbers'):
            place_and_offset({'map_offset': text})


def test_tables_are_validated() -> None:
    good = straight('a', (0.0, 0.0), num=5)
    assert good.thinned(2).frames.tolist() == [0, 2, 4]
    assert good.thinned(2).thinned(2).frames.tolist() == [0, 4]
    with pytest.raises(DataError, match='expected 1 or more'):
        good.thinned(0)
    with pytest.raises(DataError, match='no name'):
        straight('', (0.0, 0.0))
    with pytest.raises(DataError, match=r"'a': \(4,\) stamps"):
        PoseTable('a', '', good.stamps_ns[:4], good.map_from_base)
    with pytest.raises(DataError, match='stamps_ns are not 5 ascending'):
        PoseTable('a', '', good.stamps_ns[::-1], good.map_from_base)
    with pytest.raises(DataError, match='frames are not 5 ascending'):
        PoseTable('a', '', good.stamps_ns, good.map_from_base, np.array([0, 1, 1, 2, 3]))
    bent = good.map_from_base.copy()
    bent[3, 0, 0] = 2.0
    with pytest.raises(DataError, match=r'map_from_base\[3\].* not rigid'):
        PoseTable('a', '', good.stamps_ns, bent)


def test_pose_files_come_back(tmp_path: Path) -> None:
    tables = [pose_table('a', [[1.25, 1e6, 0.3], [2, 1e6, 0.4]], ''), straight('b', (0, 0))]
    path = tmp_path / 'x.poses.json'
    write_pose_file(path, [tables[0], tables[1].thinned(2)])
    back = read_pose_file(path)
    assert [(t.name, t.place, t.frames.tolist()) for t in back] == [
        ('a', '', [0, 1]),
        ('b', 'town', [0, 2]),
    ]
    np.testing.assert_array_equal(back[0].map_from_base, tables[0].map_from_base)
    np.testing.assert_array_equal(back[1].stamps_ns, tables[1].stamps_ns[::2])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda d: d.update(version='1'), "version is '1'; expected 1"),
        (lambda d: d.pop('drives'), "'drives' is NoneType; expected a list"),
        (lambda d: d['drives'][1].pop('frames'), r"drive 1 \('b'\): KeyError"),
        (lambda d: d['drives'][1].pop('name'), 'drive 1: KeyError'),
        (lambda d: d['drives'][1]['frames'][0].pop('stamp_ns'), r"drive 1 \('b'\): KeyError"),
        (lambda d: d['drives'][1]['frames'][0]['map_from_base'].pop(), r"drive 1 \('b'\)"),
        (lambda d: d['drives'][1].update(frames=[]), r"drive 1 \('b'\).* N of 1 or more"),
        (lambda d: d['drives'].append(3), 'drive 2: TypeError'),
    ],
)
def test_damaged_pose_files_are_errors(tmp_path: Path, change, message: str) -> None:
    path = tmp_path / 'x.poses.json'
    write_pose_file(path, [straight('a', (0, 0)), straight('b', (0, 0))])
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message) as caught:
        read_pose_file(path)
    assert str(path) in str(caught.value)


def test_everything_below_a_folder_is_read_and_failures_are_listed(
    bag: Path, tmp_path: Path, monkeypatch
) -> None:
    write_pose_file(tmp_path / 'in' / 'x.poses.json', [straight('a', (0, 0))])
    (tmp_path / 'in' / 'y.poses.json').write_text('{')
    (tmp_path / 'in' / 'cut.mcap').write_bytes(b'\x89MCAP0\r\nand no more')
    tables, failed = collect_pose_tables([tmp_path / 'in', bag, bag])
    assert sorted(table.name for table in tables) == ['a', 'fake-drive']
    assert sorted(Path(path).name for path in failed) == ['cut.mcap', 'y.poses.json']
    assert 'mcap recover' in failed[str(tmp_path / 'in' / 'cut.mcap')]
    # Several processes answer the same (forked here: a spawned one loads everything anew).
    forked = multiprocessing.get_context('fork')
    monkeypatch.setattr(pose_files, 'get_context', lambda method: forked)
    again, failed_again = collect_pose_tables([tmp_path / 'in', bag], workers=2)
    assert [table.name for table in again] == [table.name for table in tables]
    assert failed_again == failed
    # A folder of pose files alone needs no bag; one of neither is an error.
    write_pose_file(tmp_path / 'poses' / 'x.poses.json', [straight('a', (0, 0))])
    assert len(collect_pose_tables([tmp_path / 'poses'])[0]) == 1
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='holds no bag'):
        collect_pose_tables([tmp_path / 'empty'])
    with pytest.raises(DataError, match='no poses could be read.*mcap recover'):
        collect_pose_tables([tmp_path / 'in' / 'cut.mcap'])
