"""`gsmap info` on a nuScenes folder and on bags: what is there, what is missing, splits."""

import json

import pytest
from helpers import tiny_nuscenes as tiny

from gsmap_core.cli.main import main

pytest.importorskip('nuscenes', reason='nuscenes-devkit is not installed')


@pytest.fixture
def root(tmp_path):
    return tiny.write_dataset(tmp_path / 'nuscenes')


def test_a_nuscenes_folder_is_described(root, capsys):
    next((root / 'samples' / 'CAM_BACK').iterdir()).unlink()
    (root / 'maps' / 'expansion' / f'{tiny.LOCATION}.json').unlink()
    assert main(['info', str(root), '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report['version'], report['drives'], report['camera_sets']) == (
        'v1.0-mini',
        1,
        2,
    )
    assert report['missing_images'] == 1
    assert report['incomplete'] == [{'drive': 'scene-0001', 'incomplete_sets': '1 of 2'}]
    assert report['maps'][tiny.LOCATION].endswith(f'{tiny.LOCATION}.json')
    assert 'splits' not in report


def test_splits_print_their_overlap(root, tmp_path, capsys):
    lists = tmp_path / 'mine.json'
    lists.write_text('{"train": ["scene-0001"], "val": ["scene-0002"]}', encoding='utf-8')
    argv = ['info', str(root), '--splits', 'original', 'geographic', str(lists)]
    assert main([*argv, '--json']) == 0
    splits = json.loads(capsys.readouterr().out)['splits']
    assert splits['original']['here_but_not_listed'] == 1
    assert splits['geographic']['train'] == '1 drives, 2 frames'
    assert splits[str(lists)]['listed_but_not_here'] == 1
    assert splits[str(lists)]['names']['train'] == ['scene-0001']
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert 'val_area_seen_in_train_percent: 0.0' in text
    assert 'names' not in text
    assert main([*argv, '--list']) == 0
    assert "- train: ['scene-0001']" in capsys.readouterr().out


def test_splits_of_a_folder_of_bags(root, tmp_path, capsys):
    from gsmap_core.data.bag import write_bag
    from gsmap_core.data.nuscenes import NuScenesDataset

    write_bag(next(iter(NuScenesDataset(root))), tmp_path / 'bags' / 'scene-0001')
    assert main(['info', str(tmp_path / 'bags'), '--splits', 'geographic', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['splits']['geographic']['train'] == '1 drives, 2 frames'
    assert main(['info', str(tmp_path / 'bags'), '--splits', 'original']) != 0
    assert 'no official lists' in capsys.readouterr().err
    assert main(['info', '--splits', 'geographic']) != 0
    assert '--splits needs' in capsys.readouterr().err


@pytest.mark.data
def test_an_argoverse2_folder_is_described(data_dir, capsys):
    pytest.importorskip('av2')
    argv = ['info', str(data_dir / 'av2'), '--splits', 'original', 'geographic', '--json']
    assert main(argv) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report['dataset'], report['drives']) == ('Argoverse 2', 2)
    assert len(report['cities']) == 2
    assert report['incomplete_drives'] == 2  # these pieces have no images
    assert report['splits']['original']['val'].startswith('2 drives')
    assert report['splits']['geographic']['val_area_seen_in_train_percent'] == 0.0
