"""`gsmap synth --layout`: what is complete is not made again, what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gsmap_core.cli.main import main
from gsmap_core.cli.synth_drives import layout_of
from gsmap_core.data.synthetic import nuscenes_layout
from gsmap_core.data.synthetic.recording import DriveSpec
from gsmap_core.errors import DataError

ARGUMENTS = ('--setting', 'easy', '--duration', '0.5', '--width', '16', '--workers', '1')


def test_a_nuscenes_dataset_that_was_cut_off_is_completed(tmp_path, capsys, monkeypatch):
    made = []

    def write_drive(recording, place, root):
        made.append(recording.name)
        return {'sample_data': [], 'scene': [{'token': recording.name}]}

    def write_tables(root, version, drives, specs):
        if len(made) == 1:
            raise DataError('no space is left')
        (root / version).mkdir()
        Path(root / version / 'scene.json').write_text(
            json.dumps([row for rows in drives for row in rows['scene']])
        )

    monkeypatch.setattr(nuscenes_layout, 'write_drive', write_drive)
    monkeypatch.setattr(nuscenes_layout, 'write_tables', write_tables)
    arguments = ['synth', '--out', str(tmp_path), '--layout', 'nuscenes', *ARGUMENTS]
    assert main(arguments) == 2
    assert 'no space is left' in capsys.readouterr().err
    # The same drive with another option is no part of this dataset.
    assert main([*arguments, '--quality', '50']) == 2
    assert 'other options' in capsys.readouterr().err
    made.append('')
    assert main([*arguments, '--json']) == 0
    assert json.loads(capsys.readouterr().out)['skipped'] == 1
    assert made == ['town-easy-0000-d000', ''], 'rendered once, in the first run'
    scenes = json.loads((tmp_path / 'v1.0-mini' / 'scene.json').read_text())
    assert scenes == [{'token': 'town-easy-0000-d000'}]
    assert sorted(item.name for item in tmp_path.iterdir()) == ['v1.0-mini']
    assert main(arguments) == 2
    assert 'complete dataset' in capsys.readouterr().err


def test_logs_of_argoverse_lie_in_the_split_of_their_town(tmp_path):
    pytest.importorskip('pyarrow')
    specs = [DriveSpec(seed, rig='av2_like') for seed in (5, 10_005)]
    layout = layout_of('av2', tmp_path, specs, overwrite=False)
    (tmp_path / 'val' / 'town-10005-d000').mkdir(parents=True)
    assert [layout.is_there(spec) for spec in specs] == [False, True]
    assert not layout_of('av2', tmp_path, specs, overwrite=True).is_there(specs[1])


def test_cameras_and_rates_must_fit(tmp_path, capsys):
    arguments = ['synth', '--out', str(tmp_path), '--layout', 'nuscenes', *ARGUMENTS]
    assert main([*arguments, '--rig', 'av2_like']) == 2
    assert 'use the rig nuscenes_like' in capsys.readouterr().err
    assert main([*arguments, '--rate', '5']) == 2
    assert 'multiple of 2' in capsys.readouterr().err
