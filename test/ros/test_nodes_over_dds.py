"""Replay, mapping and record node in three processes over real DDS: good drives and bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros.conftest import isolated
from ros.helpers.drives import FaultyDrive, write_micro_checkpoint
from ros.helpers.runs import MARKER_TOPIC, Run, run_nodes

from gsmap_core.categories import category_by_id
from gsmap_core.data.bag import BagReader, BagRecorder, QosProfile, write_bag
from gsmap_core.data.messages import CAMERA_INFO, COMPRESSED_IMAGE, TF_MESSAGE

MS = 1_000_000
#: The bags play this much faster than they were driven.
RATE = 1.5


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('weights')
    return write_micro_checkpoint(folder / 'micro.safetensors', 'keyframe_streaming')


@pytest.fixture(scope='module')
def environment(ros_messages: None) -> dict[str, str]:
    from gsmap_core.cli.ros_environment import overlay_environment

    return isolated(overlay_environment())


def rewrite(source: Path, target: Path, change: Any) -> Path:
    """Copy a bag; `change(...)` returns a shift of the log time [ns], or None to leave out."""
    reader = BagReader(source)
    with BagRecorder(target) as recorder:
        for info in reader.topics.values():
            recorder.add_topic(info.name, info.type, info.qos or QosProfile())
        for raw in reader.messages():
            message = reader.deserialise(raw.data, raw.topic)
            shift_ns = change(raw.topic, raw.type, message, raw.log_time_ns)
            if shift_ns is not None:
                recorder.write(raw.topic, raw.log_time_ns + shift_ns, message)
    return target


@pytest.fixture(scope='module')
def six_camera_run(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], checkpoint: Path
) -> tuple[FaultyDrive, Run]:
    folder = tmp_path_factory.mktemp('six')
    drive = FaultyDrive('nuscenes_like', num_sets=15)
    write_bag(drive, folder / 'drive.mcap')
    # However slow the machine, the memory lasts from set to set.
    mapping = {
        'model.weights': str(checkpoint),
        'cameras': list(drive.rig.names),
        'max_gap_s': 60.0,
    }
    return drive, run_nodes(folder, environment, folder / 'drive.mcap', mapping, {'rate': RATE})


def test_six_cameras_give_a_map_for_every_set(six_camera_run: tuple[FaultyDrive, Run]) -> None:
    drive, run = six_camera_run
    assert run.exit_codes == {'replay': 0, 'mapping': 0, 'record': 0}, run.logs
    run.check_account()
    # A slow machine may supersede sets; it must not lose any.
    assert int(run.counters['sets_received']) == 15
    assert set(run.dropped()) <= {'superseded'}
    assert len(run.maps) >= 5
    assert set(run.map_stamps_ns) <= {drive.stamp_ns(index) for index in range(15)}
    assert run.map_stamps_ns == sorted(set(run.map_stamps_ns))


def test_maps_name_frame_and_range(six_camera_run: tuple[FaultyDrive, Run]) -> None:
    _, run = six_camera_run
    for message in run.maps:
        assert message.header.frame_id == 'base_link'
        assert (message.x_min, message.x_max) == (-30.0, 30.0)
        assert (message.y_min, message.y_max) == (-15.0, 15.0)
        assert message.sample_id == '' and not message.has_z
        assert len(message.elements) > 0
        for element in message.elements:
            assert 0.0 <= element.score <= 1.0 and len(element.vertices) >= 2
            assert element.num_observations == 1


def test_elements_keep_their_ids(six_camera_run: tuple[FaultyDrive, Run]) -> None:
    _, run = six_camera_run
    ids = [[element.id for element in message.elements] for message in run.maps]
    for numbers in ids:
        assert len(set(numbers)) == len(numbers) and min(numbers) > 0
    kept = [set(earlier) & set(later) for earlier, later in zip(ids[:-1], ids[1:], strict=True)]
    assert sum(map(bool, kept)) > len(kept) / 2


def test_markers_follow_the_maps(six_camera_run: tuple[FaultyDrive, Run]) -> None:
    _, run = six_camera_run
    arrays = run.messages(MARKER_TOPIC)
    # Displays are cleared on activation, and for a moment after one has been found.
    for array in arrays:
        array.markers = [marker for marker in array.markers if marker.action != 3]
    stamps = [array.markers[0].header.stamp for array in arrays if array.markers]
    assert [s.sec * 10**9 + s.nanosec for s in stamps] == run.map_stamps_ns
    shown: set[tuple[str, int]] = set()
    drawn = [array for array in arrays if array.markers]
    for array, message in zip(drawn, run.maps, strict=True):
        keys = [(marker.ns, marker.id) for marker in array.markers]
        assert len(keys) == len(set(keys))
        deleted = {(m.ns, m.id) for m in array.markers if m.action == 2}
        added = {(m.ns, m.id) for m in array.markers if m.action == 0}
        assert shown - added == deleted
        assert added == {(category_by_id(e.category).name, e.id) for e in message.elements}
        shown = added


def test_diagnostics_tell_the_state(six_camera_run: tuple[FaultyDrive, Run]) -> None:
    drive, run = six_camera_run
    last = run.diagnostics()[-1]
    for name in drive.rig.names:
        level, _, values = last[f'camera {name}']
        assert values['images'] == '15' and values['calibrated'] == 'True'
    assert last['pose'][2]['fixed_frame'] == 'map'
    memory = last['memory'][2]
    assert (memory['memory'], memory['resets']) == ('keyframe_streaming', '0')
    assert int(memory['frames']) == len(run.maps)
    travelled_m = 8.0 * (run.map_stamps_ns[-1] - run.map_stamps_ns[0]) * 1e-9
    assert float(memory['travelled_m']) == pytest.approx(travelled_m, rel=0.1)
    assert 2 <= int(memory['key_frames']) <= 1 + float(memory['travelled_m']) / 5.0
    assert int(memory['ids_given']) == max(e.id for m in run.maps for e in m.elements)
    assert last['weights'][2]['model'] == 'micro' and len(last['weights'][2]['sha256']) == 16
    assert float(last['inference'][2]['latency_p50_ms']) > 0
    assert float(run.counters['latency_p95_ms']) >= float(run.counters['latency_p50_ms'])


def test_diagnostics_tell_where_the_time_goes(six_camera_run: tuple[FaultyDrive, Run]) -> None:
    _, run = six_camera_run
    level, text, values = run.diagnostics()[-1]['timing']
    assert level == 0 and 'from stamp to map at the median' in text
    assert int(values['sets']) == int(run.counters['sets_mapped'])
    medians = {
        key.removesuffix('_p50_ms'): float(value)
        for key, value in values.items()
        if key.endswith('_p50_ms')
    }
    for name in ('decode', 'prepare', 'model', 'postprocess', 'publish', 'total'):
        assert medians[name] > 0.0, name
    assert medians['total'] > medians['model']


@pytest.fixture(scope='module')
def faulty_run(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], checkpoint: Path
) -> tuple[FaultyDrive, Run]:
    """Seven cameras of the graph: one stops, a JPEG is corrupt, images swap, TF has a gap."""
    folder = tmp_path_factory.mktemp('faulty')
    probe = FaultyDrive('av2_like')
    stopping, corrupt, swapped = probe.rig.names[1], probe.rig.names[2], probe.rig.names[3]
    drive = FaultyDrive(
        'av2_like',
        num_sets=26,
        missing=frozenset((index, stopping) for index in range(4, 8)),
        corrupt=frozenset({(10, corrupt)}),
    )
    write_bag(drive, folder / 'clean.mcap')
    # TF is cut for longer than a set waits: from just before set 16 to just before set 20.
    gap = (drive.stamp_ns(16) - 30 * MS, drive.stamp_ns(20) - 30 * MS)

    def break_it(topic: str, kind: str, message: Any, log_ns: int) -> int | None:
        if kind == TF_MESSAGE and 'static' not in topic and gap[0] <= log_ns < gap[1]:
            return None
        if topic.startswith(f'/{swapped}/') and kind == COMPRESSED_IMAGE:
            # Two images of one camera arrive in the wrong order.
            if log_ns == drive.stamp_ns(12) + drive.offset_ns(swapped):
                return 60 * MS
            if log_ns == drive.stamp_ns(13) + drive.offset_ns(swapped):
                return -150 * MS
        return 0

    bag = rewrite(folder / 'clean.mcap', folder / 'faulty.mcap', break_it)
    # Patient enough for a busy machine: only what is really missing may be missing.
    mapping = {
        'model.weights': str(checkpoint),
        'sync.min_cameras': 4,
        'sync.timeout_s': 0.6,
        'tf.timeout_s': 0.1,
        'max_gap_s': 60.0,
    }
    return drive, run_nodes(folder, environment, bag, mapping)


def test_seven_cameras_with_faults_are_all_accounted_for(
    faulty_run: tuple[FaultyDrive, Run],
) -> None:
    drive, run = faulty_run
    assert run.exit_codes == {'replay': 0, 'mapping': 0, 'record': 0}, run.logs
    run.check_account()
    assert int(run.counters['sets_received']) == 26
    assert set(run.dropped()) <= {'superseded', 'no_transform'}
    assert len(run.maps) >= 8


def test_a_camera_that_stops_makes_partial_sets(faulty_run: tuple[FaultyDrive, Run]) -> None:
    drive, run = faulty_run
    assert int(run.counters['sync_partial']) == 4
    assert set(run.map_stamps_ns) & {drive.stamp_ns(index) for index in range(4, 8)}


def test_a_corrupt_jpeg_masks_its_camera_and_names_the_topic(
    faulty_run: tuple[FaultyDrive, Run],
) -> None:
    drive, run = faulty_run
    name = drive.rig.names[2]
    assert run.diagnostics()[-1][f'camera {name}'][2]['unusable_images'] == '1'
    stamp = drive.stamp_ns(10) + drive.offset_ns(name)
    assert f"topic '{name}/image_rect/compressed', stamp {stamp} ns" in run.logs['mapping']
    assert drive.stamp_ns(10) in run.map_stamps_ns or 'superseded' in run.dropped()


def test_images_out_of_order_are_counted_and_used(faulty_run: tuple[FaultyDrive, Run]) -> None:
    _, run = faulty_run
    assert run.counters['images_out_of_order'] == '1'
    assert run.counters['images_late'] == '0'


def test_a_gap_in_tf_drops_the_sets_inside_with_the_reason(
    faulty_run: tuple[FaultyDrive, Run],
) -> None:
    drive, run = faulty_run
    assert 2 <= run.dropped()['no_transform'] <= 4
    texts = [status['camera sets'][2].get('last_error', '') for status in run.diagnostics()]
    assert any('no_transform' in text and 'future' in text for text in texts)
    assert any(stamp >= drive.stamp_ns(20) for stamp in run.map_stamps_ns)
    # The memory waits for the pose and goes on, by the whole way in between.
    memory = run.diagnostics()[-1]['memory'][2]
    assert memory['last_reset'] in ('', 'rig_changed')
    assert float(memory['travelled_m']) > 8.0 * (drive.stamp_ns(20) - drive.stamp_ns(16)) * 1e-9


def test_no_tf_and_no_calibration_give_no_map_and_say_why(
    tmp_path: Path, environment: dict[str, str], checkpoint: Path
) -> None:
    """TF never comes; one camera is uncalibrated: nothing is mapped, everything is counted."""
    drive = FaultyDrive('nuscenes_like', num_sets=8)
    write_bag(drive, tmp_path / 'clean.mcap')
    bad = drive.rig.names[4]

    def break_it(topic: str, kind: str, message: Any, log_ns: int) -> int | None:
        if kind == TF_MESSAGE and 'static' not in topic:
            return None
        if kind == CAMERA_INFO and topic == f'/{bad}/camera_info':
            message.k = np.zeros(9)
        return 0

    bag = rewrite(tmp_path / 'clean.mcap', tmp_path / 'bad.mcap', break_it)
    mapping = {'model.weights': str(checkpoint), 'tf.timeout_s': 0.05}
    run = run_nodes(tmp_path, environment, bag, mapping, {'rate': RATE})
    run.check_account()
    assert run.maps == []
    assert run.counters['sets_received'] == '8'
    assert run.dropped()['no_transform'] >= 4
    last = run.diagnostics()[-1]
    assert last['pose'][0] == 2 and "'base_link' are not connected" in last['pose'][1]
    level, text, values = last[f'camera {bad}']
    assert level == 2 and values['calibrated'] == 'False'
    assert f"topic '{bad}/camera_info' has K[0] == 0 (uncalibrated)" in text


def test_a_looping_bag_starts_again_and_says_so(
    tmp_path: Path, environment: dict[str, str], checkpoint: Path
) -> None:
    drive = FaultyDrive('nuscenes_like', num_sets=8)
    write_bag(drive, tmp_path / 'drive.mcap')
    mapping = {'model.weights': str(checkpoint), 'rig.file': 'nuscenes_like'}
    run = run_nodes(
        tmp_path,
        environment,
        tmp_path / 'drive.mcap',
        mapping,
        {'rate': RATE, 'loop': True, 'drain_s': 0.2},
        replay_s=5.0,
    )
    run.check_account()
    assert run.logs['mapping'].count('time went back') >= 2
    memory = run.diagnostics()[-1]['memory'][2]
    assert memory['last_reset'] == 'clock_jump' and int(memory['resets']) >= 2
    stamps = run.map_stamps_ns
    first, middle = drive.stamp_ns(0), drive.stamp_ns(3)
    assert stamps.count(middle) >= 2
    # Early sets of the second round are mapped again, with the transforms of that round.
    assert stamps.count(first) + stamps.count(drive.stamp_ns(1)) >= 3
