"""`gsmap bench convert`: both ways write the same bytes and the numbers follow from the times."""

from __future__ import annotations

import json

import pytest

from gsmap_core.cli import bench_convert
from gsmap_core.cli.main import main
from gsmap_core.data.bag import image_topic, open_bag, write_bag
from gsmap_core.rig import load_rig, scaled_rig


def test_copy_and_bag_hold_the_same_images(tmp_path):
    rig = scaled_rig(load_rig('nuscenes_like'), 32)
    recording = bench_convert.FileRecording(tmp_path / 'source', rig, 10)
    size = recording.write_files(90)
    bench_convert.copy_files(tmp_path / 'source', tmp_path / 'copy')
    copied = sorted((tmp_path / 'copy').iterdir())
    assert len(copied) == 60 and sum(file.stat().st_size for file in copied) == size
    write_bag(recording, tmp_path / 'bag')
    drive = open_bag(tmp_path / 'bag')
    assert len(drive) == 10
    message = drive.reader.message(image_topic('cam_back'), 9)
    assert message.data.tobytes() == (tmp_path / 'copy' / '000009-cam_back.jpg').read_bytes()
    assert not recording.rig.base_from_lidar


def test_the_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('gsmap_core.rig.load_rig', lambda name: scaled_rig(load_rig(name), 32))
    command = ['bench', 'convert', '--sets', '2', '--repeats', '1', '--folder', str(tmp_path)]
    assert main([*command, '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report['sets'], report['images'], report['repeats']) == (2, 12, 1)
    for way in ('copy', 'convert'):
        speed = report['megabytes'] / report[way]['seconds']
        assert report[way]['mb_per_s'] == pytest.approx(speed, rel=0.02)
    share = report['copy']['seconds'] / report['convert']['seconds']
    assert report['share_of_copy'] == pytest.approx(share, rel=0.02)
    assert not list(tmp_path.iterdir()), 'what was measured is gone'
    assert main(command) == 0
    assert 'of the copy' in capsys.readouterr().out
    assert main([*command[:3], '0']) == 2
