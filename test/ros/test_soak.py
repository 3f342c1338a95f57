"""What takes long (`make soak`): looping replay, a hundred lifecycles, all cameras and faults."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ros.helpers.drives import FaultyDrive, write_micro_checkpoint
from ros.helpers.runs import run_nodes
from ros.helpers.usage import Usage, growth, usage
from ros.helpers.vehicle import CAMERAS, Vehicle, node_parameters

from gsmap_core.cli.node_processes import NodeProcess
from gsmap_core.cli.ros_environment import overlay_environment
from gsmap_core.data.bag import write_bag

#: How long; `make soak SECONDS=...` sets it.
DURATION_S = float(os.environ.get('GSMAP_SOAK_S', '3600'))
#: Anonymous memory may waver by this much between the second and the last quarter of the time.
MAX_GROWTH_MIB = 8.0
NUM_SETS = 40


@pytest.mark.slow
@pytest.mark.soak
def test_looping_replay_keeps_memory_flat_and_loses_no_set(
    tmp_path: Path, node_environment: dict[str, str], repo_root: Path
) -> None:
    """A drive with a dead camera and a corrupt picture, again and again; time jumps back."""
    names = FaultyDrive().rig.names
    drive = FaultyDrive(
        num_sets=NUM_SETS,
        missing=frozenset((index, names[1]) for index in range(10, 16)),
        corrupt=frozenset({(20, names[2])}),
    )
    write_bag(drive, tmp_path / 'drive.mcap')
    weights = write_micro_checkpoint(tmp_path / 'micro.safetensors', 'keyframe_streaming')
    samples: dict[str, list[Usage]] = {'replay': [], 'mapping': [], 'record': []}

    def watch(pids: dict[str, int]) -> None:
        for node, pid in pids.items():
            samples[node].append(usage(pid))

    run = run_nodes(
        tmp_path,
        node_environment,
        tmp_path / 'drive.mcap',
        {'model.weights': str(weights), 'cameras': list(names)},
        {'loop': True, 'drain_s': 0.3},
        DURATION_S,
        watch,
    )
    summary = {
        'duration_s': DURATION_S,
        'loops': run.logs['replay'].count('beginning again'),
        'counters': run.counters,
        'output': run.diagnostics()[-1]['output'][2],
        'memory': run.diagnostics()[-1]['memory'][2],
        'maps_recorded': len(run.map_stamps_ns),
        'exit_codes': run.exit_codes,
        'growth': {
            node: {name: growth(seen, name) for name in asdict(seen[0])}
            for node, seen in samples.items()
        },
        'samples': {
            node: [asdict(sample) for sample in seen[:: max(1, len(seen) // 60)]]
            for node, seen in samples.items()
        },
    }
    folder = repo_root / 'out/soak'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n', encoding='utf-8')
    assert run.exit_codes == {'replay': 0, 'mapping': 0, 'record': 0}, run.logs
    run.check_account()
    assert int(run.counters['sets_mapped']) > 0
    # What the middleware overwrites before anybody takes it never reaches the node.
    sent = NUM_SETS * int(str(summary['loops']))
    assert int(run.counters['sets_received']) >= 0.98 * sent
    for node in ('mapping', 'replay'):
        for name, limit in (('memory_mib', MAX_GROWTH_MIB), ('threads', 0), ('files', 0)):
            assert growth(samples[node], name) <= limit, (node, name, samples[node][-1])


@pytest.fixture(scope='module')
def bench(
    ros_context: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[NodeProcess, Vehicle]]:
    """A mapping node in a process of its own, and a vehicle that it has mapped once."""
    folder = tmp_path_factory.mktemp('lifecycles')
    weights = write_micro_checkpoint(folder / 'micro.safetensors', 'keyframe_streaming')
    parameters = node_parameters(weights)
    environment = {**overlay_environment(), 'PYTHONUNBUFFERED': '1', 'OMP_NUM_THREADS': '1'}
    node, vehicle = NodeProcess('mapping', parameters, environment, folder), Vehicle()
    try:
        vehicle.until_mapped()
        yield node, vehicle
        vehicle.close()
    finally:
        node.stop()


@pytest.mark.slow
@pytest.mark.soak
def test_a_hundred_lifecycles_leave_nothing_behind(bench: tuple[NodeProcess, Vehicle]) -> None:
    node, vehicle = bench
    samples = []
    for _ in range(100):
        vehicle.reconfigure()
        vehicle.until_mapped()
        samples.append(usage(node.pid))
    assert growth(samples, 'threads') == 0
    assert growth(samples, 'files') <= 1
    # Fifty lifecycles lie between the two quarters; a model that stays would be 1 MiB each.
    assert growth(samples, 'memory_mib') <= MAX_GROWTH_MIB, samples[::10]


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize('camera', CAMERAS)
@pytest.mark.parametrize('fault', ['missing', 'delayed', 'duplicate', 'corrupt', 'uncalibrated'])
def test_every_camera_with_every_fault(
    bench: tuple[NodeProcess, Vehicle], camera: str, fault: str
) -> None:
    """The reference camera is one of them: its sets carry the stamp of another then."""
    _, vehicle = bench
    for _ in range(5):
        index = vehicle.index

        def change(name: str, image: Any, info: Any) -> None:
            if name == camera and fault == 'corrupt':
                image.data = bytes(image.data)[:500]
            if name == camera and fault == 'uncalibrated':
                info.k, info.p = [0.0] * 9, [0.0] * 12

        is_missing = fault in ('missing', 'delayed')
        vehicle.publish_set(without=[camera] if is_missing else [], change=change)
        if fault in ('delayed', 'duplicate'):
            vehicle.good()
            vehicle.images[camera].publish(vehicle.image(index, camera))
        vehicle.publish_set()
        vehicle.good()
    vehicle.counters()
