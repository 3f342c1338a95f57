"""Pairs of frames of any drives, and the numbers in the message when there are none."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.posed_drives import PosedDrive

from gsmap_core.contrastive_config import PairConfig, PoseError, PoseNoiseConfig
from gsmap_core.data.frame_pairs import find_frame_pairs, pose_tables_of
from gsmap_core.data.pose_noise import with_pose_noise
from gsmap_core.data.pose_tables import PoseTable, pose_table_of
from gsmap_core.errors import DataError
from gsmap_core.structures import PerceptionRange

RANGE, CONFIG = PerceptionRange(), PairConfig()


def pairs_of(*drives, config=CONFIG):
    return find_frame_pairs(pose_tables_of(drives), config, RANGE)


def test_every_pair_is_found_and_arranged():
    """Two drives on one street 20 m apart: IoU of boxes d metres apart is (60 - d) / (60 + d)."""
    first, second = PosedDrive('a', 5), PosedDrive('b', 4, start=(20.0, 0.0), offset=(300.0, 7.0))
    found = pairs_of(second, first, config=replace(CONFIG, min_iou=0.5, max_iou=0.8))
    assert [table.name for table in found.analysis.tables] == ['a', 'b']
    frames = list(zip(found.drive.tolist(), found.row.tolist(), strict=True))
    edges = {tuple(frames[i] for i in edge) for edge in found.edges}
    expected = set()
    for row in range(5):
        for other in range(4):
            gap = abs(20 + 5 * other - 5 * row)
            if 0.5 <= (60 - gap) / (60 + gap) + 1e-9 and (60 - gap) / (60 + gap) <= 0.8:
                expected.add(((0, row), (1, other)))
    assert edges == expected and len(found.edges) == len(expected)
    starts, partners = found.partners()
    for number in range(len(found)):
        mine = partners[starts[number] : starts[number + 1]].tolist()
        both = [set(edge) for edge in found.edges.tolist()]
        assert mine == sorted(other for other in range(len(found)) if {number, other} in both)
    assert 'pairs of 9 frames, 2 of 2 drives' in found.summary()


def test_one_drive_that_comes_back():
    """The same drive past the same place counts when the time between is asked for."""
    there, back = np.arange(6) * 5.0, np.arange(6)[::-1] * 5.0 + 1.0
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, 0, 3] = np.concatenate([there, back])
    stamps = (np.arange(12) * 2e9).astype(np.int64)
    table = PoseTable('loop', '', stamps, poses)
    with pytest.raises(DataError, match="'loop' is the only drive"):
        find_frame_pairs([table], CONFIG, RANGE)
    config = replace(CONFIG, same_drive_gap_s=10.0, min_iou=0.9, max_iou=1.0)
    found = find_frame_pairs([table], config, RANGE)
    rows = found.row[found.edges]
    assert {tuple(row) for row in rows.tolist()} == {(0, 11), (1, 10), (2, 9), (3, 8)}


CASES = [
    ([PosedDrive('a'), PosedDrive('b', start=(500.0, 0.0))],
     r"2 of 2 .* \(0 pairs .*'a' is 425 m from the area of the nearest, 'b'"),
    ([PosedDrive('a'), PosedDrive('b', start=(7.0, 0.0)), PosedDrive('c', town='town-1')],
     r"1 of 3 .* \(\d+ pairs .*'c' is alone in its city frame 'town-1', the others are in town-0;?"
     r'.*skip'),
    ([PosedDrive('a'), PosedDrive('b', town='')],
     r"'a' is alone in its city frame 'town-0', the others are in \(not stated\)"),
    ([PosedDrive('a'), PosedDrive('b', start=(0.0, 28.0))], "'a' shares 150 m2 with 'b'.*"
     'largest IoU of two frames is 0.03'),
    ([PosedDrive('a'), PosedDrive('b', start=(0.0, 29.5))], "'a' shares 38 m2 with 'b';"),
]  # fmt: skip


@pytest.mark.parametrize(('drives', 'message'), CASES)
def test_drives_without_overlap_are_named_with_numbers(drives, message):
    with pytest.raises(DataError, match=message):
        pairs_of(*drives)


def test_lonely_drives_can_be_left_out(caplog):
    drives = [PosedDrive('a'), PosedDrive('b', start=(7.0, 0.0)), PosedDrive('c', town='town-1')]
    found = pairs_of(*drives, config=replace(CONFIG, lonely='skip'))
    assert found.lonely == ('c',) and set(found.drive.tolist()) == {0, 1}
    with pytest.raises(DataError, match='2 of 2 unlabelled drives'):
        pairs_of(drives[0], drives[2], config=replace(CONFIG, lonely='skip'))


def test_drives_without_poses_are_all_named():
    odom = PosedDrive('c')
    odom.pose_frame = 'odom'
    drives = [PosedDrive('a'), PosedDrive('b', has_poses=False), odom]
    message = "2 of 3 unlabelled.*'b': 4 frames, 0 with.*'c': poses are in 'odom'"
    with pytest.raises(DataError, match=message):
        pairs_of(*drives)


def test_errors_of_poses_have_the_size_asked_for():
    """Constant part per drive along the map's axes, changing part along the vehicle's."""
    drives = [PosedDrive(f'd{i}', 30, yaw_rad=0.5) for i in range(200)]
    tables = [pose_table_of(drive) for drive in drives]
    config = PoseNoiseConfig(PoseError(0.5, 0.2, 1.0), PoseError(0.1, 0.05, 0.3))
    noisy = np.stack([with_pose_noise(t, config, 4).map_from_base for t in tables])
    true = np.stack([t.map_from_base for t in tables])
    shift = (noisy - true)[..., :2, 3]
    np.testing.assert_allclose(shift.mean(1).std(0), [0.5, 0.2], rtol=0.15)
    yaw = np.degrees(np.arctan2(noisy[..., 1, 0], noisy[..., 0, 0]) - 0.5)
    assert yaw.mean(1).std() == pytest.approx(1.0, rel=0.15)
    moving = shift - shift.mean(1, keepdims=True)
    turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    np.testing.assert_allclose((moving @ turn.T).std((0, 1)), [0.1, 0.05], rtol=0.05)
    assert (yaw - yaw.mean(1, keepdims=True)).std() == pytest.approx(0.3, rel=0.05)


def test_errors_of_poses_repeat_themselves_and_can_be_none():
    table = pose_table_of(PosedDrive('a'))
    assert with_pose_noise(table, PoseNoiseConfig(), 0) is table
    config = PoseNoiseConfig(frame=PoseError(x_m=0.3))
    first, again = (with_pose_noise(table, config, 1) for _ in range(2))
    np.testing.assert_array_equal(first.map_from_base, again.map_from_base)
    # A frame keeps its error when fewer frames are looked at.
    np.testing.assert_allclose(
        with_pose_noise(table.thinned(2), config, 1).map_from_base, first.map_from_base[::2]
    )
    assert not np.allclose(with_pose_noise(table, config, 2).map_from_base, first.map_from_base)
