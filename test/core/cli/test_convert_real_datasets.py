"""`gsmap convert` on the small pieces of the real datasets: whatever is there becomes a bag."""

from __future__ import annotations

import json

import pytest

from gsmap_core.cli.main import main
from gsmap_core.data.bag import open_bag

pytestmark = pytest.mark.data


def convert(capsys, *arguments: str) -> dict:
    code = main(['convert', *arguments, '--workers', '1', '--json'])
    report = json.loads(capsys.readouterr().out)
    assert code == 0, report
    return {bag['scene']: bag for bag in report['bags']}


def test_nuscenes_key_frames_with_all_images(data_dir, tmp_path, capsys):
    pytest.importorskip('nuscenes.nuscenes')
    root = data_dir / 'nuscenes'
    bags = convert(capsys, 'nuscenes', str(root), str(tmp_path), '--version', 'v1.0-mini')
    assert {name: bag['frames'] for name, bag in bags.items()} == {
        'scene-0061': 1,
        'scene-0103': 2,
    }
    assert not any(note for bag in bags.values() for note in bag['notes'] if 'images' in note)
    drive = open_bag(tmp_path / 'scene-0103')
    assert len(drive) == drive.num_annotated == 2
    frame = drive.frame(0)
    assert frame.is_complete and frame.rig.names[0] == 'cam_front'
    assert {e.category for e in drive.ground_truth(0).elements} >= {0, 2}
    files = {path.read_bytes() for path in root.glob('samples/CAM_*/*.jpg')}
    for topic in (t for t in drive.topics if t.endswith('/compressed')):
        for index in range(2):
            assert drive.reader.message(topic, index).data.tobytes() in files


def test_nuscenes_scene_with_most_images_missing(data_dir, tmp_path, capsys):
    pytest.importorskip('nuscenes.nuscenes')
    arguments = ('nuscenes', str(data_dir / 'nuscenes'), str(tmp_path))
    more = ('--version', 'v1.0-mini-meta', '--scenes', 'scene-0103', '--limit', '4')
    bag = convert(capsys, *arguments, *more)['scene-0103']
    assert bag['topics']['/cam_front/image_rect/compressed'] == 2
    assert bag['topics']['/ground_truth/local_map'] == 4
    assert bag['notes'][0].startswith('12 images are missing: cam_front: samples/CAM_FRONT/')


def test_argoverse_logs_without_images(data_dir, tmp_path, capsys):
    pytest.importorskip('av2.map.map_api')
    arguments = ('av2', str(data_dir / 'av2'), str(tmp_path), '--limit', '3')
    bags = convert(capsys, *arguments)
    assert len(bags) == 2
    for bag in bags.values():
        assert bag['topics']['/ground_truth/local_map'] == 3
        assert bag['topics']['/tf'] > 30
        assert not any('image' in topic and count for topic, count in bag['topics'].items())
