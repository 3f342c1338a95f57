"""From `gsmap train --config gsmap_mini` to covariances and ellipses on topics, over DDS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.fake_drives import FakeDrive, FakeRecording
from ros.conftest import isolated
from ros.helpers.drives import FaultyDrive
from ros.helpers.runs import MARKER_TOPIC, run_nodes

from gsmap_core.cli.main import main
from gsmap_core.data.bag import write_bag


def train_two_steps(folder: Path) -> Path:
    """Return the checkpoint of a training of GSMap that has only just begun."""
    write_bag(FakeRecording(FakeDrive(4, 0)), folder / 'bags' / 'drive')
    arguments = ['train', '--config', 'gsmap_mini', '--data', str(folder / 'bags'), '--device']
    arguments += ['cpu', '--out', str(folder / 'runs'), '--no-progress', '--steps', '2', '--set']
    quick = ['batch_size=2', 'workers=0', 'cache_gb=0.01', 'warmup_steps=1', 'precision=fp32']
    assert main([*arguments, *quick]) == 0
    return folder / 'runs' / 'gsmap_mini-000' / 'model.safetensors'


def test_trained_gaussians_reach_topics(
    tmp_path: Path, ros_messages: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from gsmap_core.cli.ros_environment import overlay_environment

    weights = train_two_steps(tmp_path)
    drive = FaultyDrive('nuscenes_like', num_sets=8)
    write_bag(drive, tmp_path / 'drive.mcap')
    mapping = {
        'model.weights': str(weights),
        'cameras': list(drive.rig.names),
        'score_threshold': 0.0,
        'markers.ellipses': True,
    }
    environment = isolated(overlay_environment())
    run = run_nodes(tmp_path, environment, tmp_path / 'drive.mcap', mapping, {'rate': 0.5})
    assert run.exit_codes == {'replay': 0, 'mapping': 0, 'record': 0}, run.logs
    run.check_account()
    assert run.maps
    for message in run.maps:
        assert message.elements
        for element in message.elements:
            covariance = np.asarray(element.covariance).reshape(len(element.vertices), 3)
            xx, xy, yy = covariance.T
            # As a training begins: sigmas of 0.6 m, not yet far from it, and positive definite.
            assert np.all(xx * yy - xy**2 > 0)
            assert np.all((xx > 0.15**2) & (xx < 4.0**2) & (yy > 0.15**2) & (yy < 4.0**2))
            assert abs(np.sqrt(xx.mean()) - 0.6) < 0.3
    array = run.messages(MARKER_TOPIC)[-1]
    added = {(m.ns, m.id) for m in array.markers if m.action == 0}
    lines = {key for key in added if not key[0].endswith('_sigma')}
    assert {(name + '_sigma', number) for name, number in lines} == added - lines
