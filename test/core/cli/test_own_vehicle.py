"""A rig file, a bag without TF and a GeoJSON map become a training set, as the page says."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import pytest
from core.cli.own_vehicle import NUM_SETS, START_NS, write_own_files

from gsmap_core.cli.main import main
from gsmap_core.data.bag import open_bag
from gsmap_core.rig import load_rig


def commands_of_the_page(repo_root):
    """Return the commands in the code blocks of docs/own-vehicle.md."""
    text = (repo_root / 'docs' / 'own-vehicle.md').read_text(encoding='utf-8')
    blocks = re.findall(r'^```(\w*)\n(.*?)^```', text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for kind, block in blocks if not kind for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith('gsmap ')]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_own_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_page_run(folder, repo_root, capsys):
    commands = commands_of_the_page(repo_root)
    verbs = [command[0] for command in commands]
    assert verbs == ['info', 'convert', 'convert', 'info', 'view', 'train', 'predict', 'evaluate']
    for command in commands[:5]:
        assert main(command) == 0, command
    printed = capsys.readouterr().out
    assert f'would hold {NUM_SETS} camera sets' in printed
    assert '- annotated_sets: 3' in printed
    bag = open_bag(folder / 'training' / 'monday')
    rig = load_rig('my_rig.yaml')
    assert bag.rig.names == rig.names
    np.testing.assert_array_equal(bag.rig.cameras[0].intrinsics, rig.cameras[0].intrinsics)
    assert bag.rig.cameras[0].distortion_model == 'none'
    truth = bag.ground_truth(1)
    assert truth.stamp_ns == START_NS + 500_000_000
    # 5 m on, 1 m left of the axis: the divider at y = 3 is 2 m to the left, the kerb 3 m right.
    np.testing.assert_allclose(truth.elements[0].vertices, [[-30, 2], [30, 2]], atol=1e-9)
    np.testing.assert_allclose(truth.elements[1].vertices, [[-30, -3], [30, -3]], atol=1e-9)
    crossing = [[17, -4], [20, -4], [20, 4], [17, 4]]
    np.testing.assert_allclose(truth.elements[2].vertices, crossing, atol=1e-9)
    np.testing.assert_allclose(bag.map_from_base(truth.stamp_ns)[:2, 3], [5, 1], atol=1e-9)
    assert len(bag.global_map.elements) == 3


@pytest.mark.slow
def test_training_and_scoring_of_the_page(folder, repo_root):
    for command in commands_of_the_page(repo_root):
        quick = ['--steps', '2', '--device', 'cpu', '--no-progress', '--set', 'workers=0']
        assert main([*command, *(quick if command[0] == 'train' else ())]) == 0, command


def test_annotations_of_another_frame_and_broken_bags_are_listed(folder, capsys):
    (folder / 'recordings' / 'broken.mcap').write_bytes(b'\x89MCAP0\r\nand no more')
    content = json.loads((folder / 'my_map.geojson').read_text())
    command = ['convert', 'bag', 'recordings', 'out', '--rig', 'my_rig.yaml', '--json']
    assert main([*command, '--annotations', 'my_map.geojson', '--range', '20', '10']) == 1
    report = json.loads(capsys.readouterr().out)
    assert [bag['state'] for bag in report['bags']] == ['failed', 'written']
    assert 'mcap recover' in report['bags'][0]['reason']
    truth = open_bag(folder / 'out' / 'monday').ground_truth(0)
    np.testing.assert_allclose(truth.elements[0].vertices, [[-10, 2], [10, 2]], atol=1e-9)
    (folder / 'my_map.geojson').write_text(json.dumps({**content, 'frame': 'map'}))
    assert main([*command, '--annotations', 'my_map.geojson', '--overwrite']) == 1
    report = json.loads(capsys.readouterr().out)
    assert "frame is 'map', the poses of the drive are in 'odom'" in report['bags'][1]['reason']
    # Without annotations: images and poses, no ground truth.
    assert main([*command, '--overwrite']) == 1
    assert open_bag(folder / 'out' / 'monday').ground_truth(0) is None
