"""`gsmap info --traversals`: report, files and pictures."""

from __future__ import annotations

import json

import cv2
import pytest
from core.cli.tiny_drive import TinyDrive
from core.data.helpers.made_up_poses import straight

from gsmap_core.cli.main import main
from gsmap_core.data.pose_files import write_pose_file
from gsmap_core.data.traversal_file import read_traversal_file


@pytest.fixture
def poses(tmp_path):
    tables = [straight(f'lone-{i}', (1000.0 * (i + 1), 0.0), place='north') for i in range(3)]
    tables += [
        straight('twin-a', (0.0, 0.0), num=4, place='south east'),
        straight('twin-b', (20.0, 0.0), num=4, place='south east'),
        straight('far-c', (75.0, 0.0), num=1, place='south east'),
    ]
    path = tmp_path / 'x.poses.json'
    write_pose_file(path, tables)
    return path


def test_report_files_and_pictures(poses, tmp_path, capsys) -> None:
    out = tmp_path / 'out'
    arguments = ['info', '--traversals', str(poses), '--out', str(out), '--iou', '0.5', '0.7']
    assert main([*arguments, '--seed', '3', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report['drives'], report['frames']) == (6, 3 * 3 + 4 + 4 + 1)
    # c's box reaches those of b's last frames, but no pair of frames has enough in common.
    assert report['multi_traversal_drives'] == 3
    assert report['multi_traversal_drives_without_pairs'] == ['far-c']
    assert report['overlapping_pairs_of_drives'] == 2
    # a at 0 to 15 m, b at 20 to 35 m: distances of 15 and 20 m count, 10 m (0.71) do not.
    assert report['pairs'] == 3 + 4
    assert report['frames_in_pairs'] == 8
    assert report['places']['south east'] == {
        'drives': 3, 'multi_traversal': 3, 'frames': 9, 'pairs': 7,
        'seen_km2': pytest.approx((75 + 75 + 60) * 30 * 1e-6, abs=1e-4),
    }  # fmt: skip
    histograms = report['histograms']
    assert histograms['overlapping_drives']['counts'] == [3, 2, 1]
    assert histograms['pairs_per_frame']['counts'] == [1, 2, 6]
    assert sum(histograms['pair_iou']['counts']) == 7
    assert histograms['pair_distance']['edges'][-1] == 20.0
    assert histograms['pair_heading']['counts'] == [7, *[0] * 23]
    assert report['splits']['unlabelled'] == {'drives': 3, 'frames': 9}
    assert report['splits']['ratios'][-1]['labelled'] == {'drives': 2, 'frames': 6}
    names = ['drives.traversals.json', 'report.json', 'report.md', 'histograms.png',
             'map_north.png', 'map_south_east.png']  # fmt: skip
    assert report['outputs'] == [str(out / name) for name in names]
    plan = read_traversal_file(out / names[0])
    assert len(plan.pairs) == 7 and plan.splits.seed == 3
    assert json.loads((out / 'report.json').read_text())['pairs'] == 7
    text = (out / 'report.md').read_text()
    assert '| south east | 3 | 3 | 9 | 7 |' in text
    assert '| 100 % | 2 | 6 | 1 | 3 |' in text
    assert (
        '| drives that overlap a drive | count |\n|---|---|\n| 0 | 3 |\n| 1 | 2 |\n| 2 | 1 |'
        in text
    )
    for name in names[3:]:
        assert cv2.imread(str(out / name)) is not None


def test_bags_are_read_and_bad_ones_are_listed(tmp_path, capsys) -> None:
    for name in ('a', 'b'):
        drive = TinyDrive(num_frames=3)
        drive.name = name
        drive.write(tmp_path / 'bags' / name)
    (tmp_path / 'bags' / 'cut.mcap').write_bytes(b'\x89MCAP0\r\nand no more')
    arguments = ['info', '--traversals', str(tmp_path / 'bags'), '--workers', '1', '--every', '2']
    assert main([*arguments, '--iou', '0.9', '1']) == 0
    printed = capsys.readouterr()
    assert 'cut.mcap' in printed.err
    assert 'label splits need at least 2' in printed.err
    assert '2 with 4 frames; 2 multi-traversal, 0 single-traversal' in printed.out
    assert '| (no name) | 2 | 2 | 4 | 2 |' in printed.out
    assert 'No label splits' in printed.out
    assert 'IoU of the pairs' in printed.out
    assert main([*arguments, '--iou', '0.1', '0.2']) == 0
    # Without pairs there is no histogram of them.
    assert 'IoU of the pairs' not in capsys.readouterr().out


def test_wrong_questions(poses, tmp_path, capsys) -> None:
    for arguments, message in (
        (['--traversals', str(poses), '--config', 'maptr_mini'], 'ask for one of them'),
        (['--traversals', str(poses), '--iou', '0.9', '0.1'], 'IoU limits'),
        (['--traversals', str(poses), '--every', '0'], 'expected 1 or more'),
        (['--traversals', str(tmp_path / 'none.poses.json')], 'no such file'),
        (['--out', str(tmp_path)], '--out is for --traversals'),
    ):
        assert main(['info', *arguments]) == 2
        assert message in capsys.readouterr().err
