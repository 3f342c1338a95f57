"""From a dataset to numbers by the commands of docs/data.md: synth, convert, train, evaluate."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from gsmap_core.cli.main import main

pytestmark = pytest.mark.slow
#: What makes the commands short enough for a test.
QUICK = {
    'synth': ['--duration', '1', '--width', '64', '--workers', '1'],
    'convert': ['--workers', '1'],
    'train': ['--steps', '2', '--device', 'cpu', '--no-progress', '--set', 'workers=0'],
    'predict': ['--device', 'cpu'],
    'evaluate': ['--json'],
}
DEVKITS = {'nuscenes': 'nuscenes.nuscenes', 'av2': 'av2.map.map_api'}


@pytest.mark.parametrize('layout', DEVKITS)
def test_dataset_bag_train_evaluate(layout, repo_root, tmp_path, monkeypatch, capsys):
    pytest.importorskip(DEVKITS[layout])
    monkeypatch.chdir(tmp_path)
    text = (repo_root / 'docs' / 'data.md').read_text(encoding='utf-8')
    blocks = re.findall(r'^```(\w*)\n(.*?)^```', text, flags=re.MULTILINE | re.DOTALL)
    (block,) = (b for _, b in blocks if b.startswith(f'gsmap synth --layout {layout}'))
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    assert [c[0] for c in commands][-4:] == ['convert', 'train', 'predict', 'evaluate']
    for command in commands:
        capsys.readouterr()
        assert main([*command, *QUICK[command[0]]]) == 0, command
    report = json.loads(capsys.readouterr().out)
    assert 0.0 <= report['mean_ap'] <= 1.0, report
