"""Faults of a running vehicle, one node process for all of them, over real DDS.

For each fault: what is published, what the diagnostics say, and that the next good moment is
mapped. The vehicle (`helpers/vehicle.py`) owns the clock, so that nothing here depends on speed.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from ros.helpers.drives import write_micro_checkpoint
from ros.helpers.usage import usage
from ros.helpers.vehicle import (
    CAMERAS,
    MS,
    PERIOD_NS,
    Vehicle,
    node_parameters,
    picture,
    transform,
)

from gsmap_core.cli.node_processes import NodeProcess
from gsmap_core.cli.ros_environment import overlay_environment
from gsmap_ros.diagnostics import ERROR, OK, STALE, WARN
from gsmap_ros.interface import (
    LIFECYCLE_SERVICES,
    LIFECYCLE_TOPICS,
    MAPPING_INTERFACE,
    STANDARD_SERVICES,
    STANDARD_TOPICS,
    is_wanted,
    resolve,
)
from gsmap_ros.security_policy import DEFAULTS

FRONT, VICTIM = CAMERAS[0], CAMERAS[3]


def break_ros_1_modules(folder: Path) -> None:
    """Write packages as Debian has them from ROS 1: one fails at import, one at first use."""
    bridge, tf2 = folder / 'cv_bridge', folder / 'tf2_ros'
    bridge.mkdir(parents=True)
    tf2.mkdir()
    (bridge / '__init__.py').write_text(
        'from cv_bridge_boost import getCvType\n', encoding='utf-8'
    )
    (tf2 / '__init__.py').write_text(
        'class TransformException(Exception):\n    pass\n\n\n'
        'class Buffer:\n    def __init__(self):\n'
        "        raise RuntimeError('time is not initialized. Have you called init_node()?')\n",
        encoding='utf-8',
    )


@pytest.fixture(scope='module')
def bench(ros_context: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A mapping node in a process of its own, and a vehicle that it has mapped once."""
    folder = tmp_path_factory.mktemp('faults')
    weights = write_micro_checkpoint(folder / 'micro.safetensors', 'keyframe_streaming')
    break_ros_1_modules(folder / 'ros1')
    environment = overlay_environment()
    environment['PYTHONPATH'] += os.pathsep + str(folder / 'ros1')
    environment |= {'PYTHONUNBUFFERED': '1', 'OMP_NUM_THREADS': '1'}
    parameters = node_parameters(weights)
    result = SimpleNamespace(folder=folder, weights=weights)

    def start() -> NodeProcess:
        return NodeProcess('mapping', parameters, environment, folder)

    result.start, result.node, result.vehicle = start, start(), Vehicle()
    try:
        result.vehicle.until_mapped()
        yield result
        result.vehicle.close()
        # After everything that happened to it, it ends as it should.
        assert result.node.stop() == 0, result.node.log_tail()
    finally:
        result.node.stop()


@pytest.fixture
def vehicle(bench: Any) -> Iterator[Vehicle]:
    """The vehicle; whatever a test did, the node has to live and map good moments again."""
    yield bench.vehicle
    assert bench.node.exit_code is None, bench.node.log_tail()
    bench.vehicle.maps.clear()
    message = bench.vehicle.good()
    assert message.header.frame_id == 'base_link' and len(message.elements) > 0


def test_broken_modules_of_ros_1_are_not_used(bench: Any, vehicle: Vehicle) -> None:
    assert 'transforms: own buffer (tf2_ros does not work' in bench.node.log_text()
    assert 'Have you called init_node()?' in bench.node.log_text()


def test_without_a_fault_everything_is_ok(vehicle: Vehicle) -> None:
    vehicle.good()
    vehicle.counters()
    found = vehicle.diagnosed(lambda d: d['camera sets'][0] == OK)
    assert {found[name][0] for name in ('pose', 'inference', 'memory', 'output')} == {OK}
    for name in CAMERAS:
        assert found[f'camera {name}'][2]['calibrated'] == 'True'
    assert found['output'][2]['map_subscribers'] == '1'
    assert found['pose'][2]['source'].startswith('gsmap_ros.tf_buffer')


def test_graph_and_diagnostics_are_as_documented(vehicle: Vehicle) -> None:
    """What runs is what `interface.py` says, and with it the tables and the security policy."""
    values = {**DEFAULTS, 'use_sim_time': 'true'}
    topics = [topic for topic in MAPPING_INTERFACE.topics if is_wanted(topic, values)]

    def expected(is_published: bool) -> dict[str, str]:
        return {
            resolve(topic.name, 'mapping', camera=camera): topic.type
            for topic in topics
            if topic.is_published == is_published
            for camera in (CAMERAS if '<camera>' in topic.name else ('',))
        }

    def seen(found: Any) -> dict[str, str]:
        standard = [resolve(n, 'mapping') for n in (*STANDARD_TOPICS, *LIFECYCLE_TOPICS)]
        return {name: kinds[0] for name, kinds in found if name not in standard}

    graph = vehicle.node
    assert seen(graph.get_publisher_names_and_types_by_node('mapping', '/')) == expected(True)
    assert seen(graph.get_subscriber_names_and_types_by_node('mapping', '/')) == expected(False)
    services = {n for n, _ in graph.get_service_names_and_types_by_node('mapping', '/')}
    offered = [service.name for service in MAPPING_INTERFACE.services]
    names = (*offered, *STANDARD_SERVICES, *LIFECYCLE_SERVICES)
    # Newer releases offer `get_type_description` as well.
    assert services - {resolve('~/get_type_description', 'mapping')} == {
        resolve(name, 'mapping') for name in names
    }
    vehicle.good()
    vehicle.counters()
    found = vehicle.latest()
    documented = {status.name: status.values for status in MAPPING_INTERFACE.statuses}
    assert {re.sub('^camera cam.*', 'camera <camera>', name) for name in found} == set(documented)
    for name, (_, _, shown) in found.items():
        keys = documented[re.sub('^camera cam.*', 'camera <camera>', name)]
        said = {re.sub(r'^sets_dropped\..*', 'sets_dropped.<reason>', key) for key in shown}
        if name == 'timing':
            said = {re.sub('.*(_p.._ms)$', r'<stage>\1', key) for key in said}
        assert said <= {key.rstrip('?') for key in keys}, name
        assert said >= {key for key in keys if not key.endswith('?')}, name


def test_each_camera_may_be_missing_once(vehicle: Vehicle) -> None:
    before = vehicle.counters()
    for name in CAMERAS:
        vehicle.publish_set(without=[name])
        vehicle.good()
    vehicle.counted(before, sync_partial=6, sync_complete=6, images_late=0)


def test_a_dead_camera_is_told_and_the_others_go_on(vehicle: Vehicle) -> None:
    stamps = []
    vehicle.spin_until(
        lambda: any(
            d[f'camera {VICTIM}'][0] == WARN
            and 'silent' in d[f'camera {VICTIM}'][1]
            and d[f'camera {FRONT}'][0] == OK
            for d in vehicle._diagnostics[-1:]
        ),
        'a silent camera',
        lambda: stamps.append(vehicle.publish_set(without=[VICTIM])),
    )
    # The clock goes on with the sets, so that the incomplete ones time out.
    vehicle.spin_until(lambda: bool(set(stamps) & set(vehicle.stamps_ns())), 'partial maps')
    vehicle.good()
    vehicle.diagnosed(lambda d: d[f'camera {VICTIM}'][0] == OK or 'silent' in d['camera sets'][1])


def test_a_delayed_image_comes_too_late(vehicle: Vehicle) -> None:
    before = vehicle.counters()
    index, heard = vehicle.index, vehicle.heard()
    stamp_ns = vehicle.publish_set(without=[VICTIM])
    expected = {name: count + (name != VICTIM) for name, count in heard.items()}
    vehicle.spin_until(lambda: vehicle.heard() == expected, 'the other images')
    vehicle.spin_until(
        lambda: stamp_ns in vehicle.stamps_ns(),
        'the set without the delayed image',
        # Again and again: the clock and the images are different topics.
        vehicle.let_time_pass,
    )
    vehicle.images[VICTIM].publish(vehicle.image(index, VICTIM))
    vehicle.good()
    vehicle.counted(before, images_late=1, sync_partial=1, sync_complete=1)


def test_duplicates_are_counted_and_mapped_once(vehicle: Vehicle) -> None:
    before = vehicle.counters()
    index = vehicle.index
    stamp_ns = vehicle.publish_set()
    for name in CAMERAS:
        vehicle.images[name].publish(vehicle.image(index, name))
    vehicle.map_at(stamp_ns)
    vehicle.good()
    assert stamp_ns not in vehicle.stamps_ns()
    vehicle.counted(before, images_duplicate=6, sets_mapped=2, sets_received=2)


def test_images_out_of_order_find_their_sets(vehicle: Vehicle) -> None:
    before = vehicle.counters()
    first, second = vehicle.index, vehicle.index + 1
    vehicle.images[VICTIM].publish(vehicle.image(second, VICTIM))
    # In no time: what is incomplete waits, in whichever order the topics arrive.
    assert vehicle.publish_set(clock=False) == vehicle.stamp_ns(first)
    stamp_ns = vehicle.publish_set(without=[VICTIM], clock=False)
    vehicle.map_at(stamp_ns)
    vehicle.counted(before, images_out_of_order=1, sync_complete=2, sync_partial=0)


def bomb() -> bytes:
    """A small JPEG that says it is 65000 x 65000 px."""
    data = bytearray(cv2.imencode('.jpg', picture(1, 54, 96))[1].tobytes())
    start = data.index(b'\xff\xc0')
    data[start + 5 : start + 9] = (65000).to_bytes(2, 'big') * 2
    return bytes(data)


UNUSABLE = {
    'another aspect': (lambda: cv2.imencode('.jpg', picture(1, 96, 54))[1].tobytes(), 'aspect'),
    'cut off': (lambda: cv2.imencode('.jpg', picture(1, 54, 96))[1].tobytes()[:900], 'truncated'),
    'no header': (lambda: cv2.imencode('.jpg', picture(1, 54, 96))[1].tobytes()[40:], 'corrupt'),
    'no data': (lambda: b'', '0 bytes'),
    'a text': (lambda: b'not an image', 'not a readable image'),
    'a bomb': (bomb, '65000'),
}


@pytest.mark.parametrize('kind', UNUSABLE)
def test_an_unusable_image_masks_its_camera(vehicle: Vehicle, kind: str) -> None:
    data, text = UNUSABLE[kind][0](), UNUSABLE[kind][1]

    def change(name: str, image: Any, info: Any) -> None:
        if name == VICTIM:
            image.data = data

    title = f'camera {VICTIM}'
    unusable = int(vehicle.diagnosed(lambda d: title in d)[title][2]['unusable_images'])
    vehicle.map_at(vehicle.publish_set(change=change))
    found = vehicle.diagnosed(lambda d: text in d[title][2]['last_error'], text)
    assert found[title][0] == WARN
    assert int(found[title][2]['unusable_images']) == unusable + 1
    vehicle.good()
    vehicle.diagnosed(lambda d: d[title][2]['last_error'] == '', 'no error any more')


def test_the_same_picture_in_another_size_is_used(vehicle: Vehicle) -> None:
    def change(name: str, image: Any, info: Any) -> None:
        image.data = cv2.imencode('.jpg', picture(1, 108, 192))[1].tobytes()

    vehicle.map_at(vehicle.publish_set(change=change))
    found = vehicle.diagnosed(lambda d: f'camera {VICTIM}' in d)
    assert found[f'camera {VICTIM}'][2]['last_error'] == ''


def test_calibration_may_change(vehicle: Vehicle) -> None:
    def change(name: str, image: Any, info: Any) -> None:
        info.width, info.height = 192, 108
        info.k = [2.0 * value if value != 1.0 else 1.0 for value in info.k]
        info.p = [2.0 * value if value != 1.0 else 1.0 for value in info.p]
        image.data = cv2.imencode('.jpg', picture(1, 108, 192))[1].tobytes()

    # An image may overtake its CameraInfo: two topics.
    vehicle.publish_set(change=change)
    vehicle.map_at(vehicle.publish_set(change=change))
    vehicle.diagnosed(
        lambda d: all(d[f'camera {n}'][2]['calibration'] == '192 x 108 px' for n in CAMERAS)
    )
    vehicle.publish_set()
    vehicle.good()
    vehicle.diagnosed(
        lambda d: all(d[f'camera {n}'][2]['calibration'] == '96 x 54 px' for n in CAMERAS)
    )


def test_an_uncalibrated_camera_is_masked_until_it_is_calibrated(vehicle: Vehicle) -> None:
    def change(name: str, image: Any, info: Any) -> None:
        if name == VICTIM:
            info.k, info.p = np.zeros(9), np.zeros(12)

    title = f'camera {VICTIM}'
    vehicle.publish_set(change=change)
    vehicle.map_at(vehicle.publish_set(change=change))
    found = vehicle.diagnosed(lambda d: d[title][2]['calibrated'] == 'False')
    assert found[title][0] == ERROR and '(uncalibrated)' in found[title][1]
    vehicle.publish_set()
    vehicle.good()
    vehicle.diagnosed(lambda d: d[title][2]['calibrated'] == 'True')


def test_transforms_may_be_late(vehicle: Vehicle) -> None:
    before = vehicle.counters()
    index = vehicle.index
    stamp_ns = vehicle.publish_set(poses=False)
    vehicle.spin_until(
        lambda: 'future' in vehicle.diagnosed(lambda d: True)['pose'][2]['last_error'], 'waiting'
    )
    vehicle.publish_poses(index)
    vehicle.map_at(stamp_ns)
    vehicle.counted(before, sets_mapped=1, sets_dropped=0)
    vehicle.diagnosed(lambda d: d['pose'][0] == OK)


def drop_for_no_transform(vehicle: Vehicle, text: str) -> dict[str, Any]:
    """Publish a set without poses and let its time run out; returns the diagnostics."""
    before = vehicle.counters()
    vehicle.publish_set(poses=False)
    vehicle.spin_until(
        lambda: (
            int(vehicle.counters_now().get('sets_dropped.no_transform', 0))
            > int(before.get('sets_dropped.no_transform', 0))
        ),
        'dropped',
        vehicle.let_time_pass,
    )
    found = vehicle.diagnosed(lambda d: 'no_transform' in d['camera sets'][2]['last_error'])
    assert found['pose'][0] == ERROR and text in found['pose'][1], found['pose']
    assert vehicle.maps == []
    return found


def test_a_gap_in_tf_drops_what_lies_in_it(vehicle: Vehicle) -> None:
    vehicle.maps.clear()
    drop_for_no_transform(vehicle, 'future')
    vehicle.good()
    found = vehicle.diagnosed(lambda d: d['pose'][0] == OK)
    assert found['memory'][2]['last_reset'] != 'gap'


def test_a_pose_that_jumps_begins_anew(vehicle: Vehicle) -> None:
    resets = int(vehicle.diagnosed(lambda d: True)['memory'][2]['resets'])
    newest = max(element.id for element in vehicle.good().elements)
    vehicle.shift_m += 200.0
    assert min(element.id for element in vehicle.good().elements) > newest
    found = vehicle.diagnosed(lambda d: d['memory'][2]['last_reset'] == 'pose_jump')
    assert int(found['memory'][2]['resets']) == resets + 1


def test_poses_that_are_no_numbers_are_ignored(bench: Any, vehicle: Vehicle) -> None:
    from tf2_msgs.msg import TFMessage

    vehicle.publish_poses(vehicle.index)

    broken = transform('odom', 'base_link', vehicle.stamp_ns(vehicle.index) + 5 * MS, np.eye(4))
    broken.transform.translation.x = float('nan')
    huge = transform('odom', 'base_link', vehicle.stamp_ns(vehicle.index) + 6 * MS, np.eye(4))
    huge.transform.rotation.w = 0.0
    vehicle.tf.publish(TFMessage(transforms=[broken, huge]))
    vehicle.good()
    assert "ignored the transform 'odom' -> 'base_link'" in bench.node.log_text()


def test_two_parents_are_told(bench: Any, vehicle: Vehicle) -> None:
    """Another node publishes the vehicle's frame below a frame of its own."""
    vehicle.maps.clear()
    vehicle.publish_poses(vehicle.index)
    from tf2_msgs.msg import TFMessage

    rogue = [
        transform('rogue', 'base_link', vehicle.stamp_ns(vehicle.index) + ms * MS, np.eye(4))
        for ms in range(-19, 40, 2)
    ]
    vehicle.tf.publish(TFMessage(transforms=rogue))
    drop_for_no_transform(vehicle, "parents: 'odom' and 'rogue'")
    assert "'base_link' has two parents: 'odom' and 'rogue'" in bench.node.log_text()
    vehicle.good()


def test_time_that_goes_back_begins_anew(bench: Any, vehicle: Vehicle) -> None:
    newest = max(element.id for element in vehicle.good().elements)
    vehicle.go_to(0)
    vehicle.until_mapped()
    assert 'time went back (looping bag?)' in bench.node.log_text()
    found = vehicle.diagnosed(lambda d: d['memory'][2]['last_reset'] == 'clock_jump')
    assert int(found['memory'][2]['frames']) < 50
    assert min(element.id for element in vehicle.good().elements) > newest


def test_time_that_jumps_forward_begins_anew(vehicle: Vehicle) -> None:
    newest = max(element.id for element in vehicle.good().elements)
    vehicle.go_to(vehicle.index + 100_000_000_000 // PERIOD_NS)
    assert min(element.id for element in vehicle.good().elements) > newest
    vehicle.diagnosed(lambda d: d['memory'][2]['last_reset'] == 'gap')


def test_one_camera_with_a_wild_clock_disturbs_for_a_moment(vehicle: Vehicle) -> None:
    def change(name: str, image: Any, info: Any) -> None:
        if name == VICTIM:
            image.header.stamp.sec, image.header.stamp.nanosec = 2**31 - 1, 2**32 - 1

    before = vehicle.counters()
    vehicle.publish_set(change=change)
    vehicle.until_mapped()
    assert int(vehicle.counters()['clock_jumps']) > int(before['clock_jumps'])


def test_without_sim_time_the_stamps_still_decide(vehicle: Vehicle) -> None:
    (result,) = vehicle.set_parameters(use_sim_time=False)
    assert result.successful
    vehicle.good()
    # Stamps of another time: what fails now gets a hint.
    vehicle.publish_set(poses=False)
    found = vehicle.diagnosed(lambda d: 'no_transform' in d['camera sets'][2]['last_error'])
    assert 'use_sim_time' in found['camera sets'][2]['last_error']
    (result,) = vehicle.set_parameters(use_sim_time=True)
    assert result.successful
    vehicle.until_mapped()


def test_parameters_change_while_it_runs(vehicle: Vehicle) -> None:
    assert len(vehicle.good().elements) > 0
    assert all(r.successful for r in vehicle.set_parameters(score_threshold=1.0))
    assert len(vehicle.good().elements) == 0
    assert all(r.successful for r in vehicle.set_parameters(score_threshold=0.0))
    assert len(vehicle.good().elements) > 0


@pytest.mark.parametrize(
    ('name', 'value', 'text'),
    [
        ('score_threshold', 1.5, 'Min: 0.0, Max: 1.0, value: 1.5'),
        ('score_threshold', float('nan'), 'Min: 0.0, Max: 1.0, value: nan'),
        ('score_threshold', 1, 'expected float'),
        ('publish__markers', 'yes', 'expected bool'),
        ('sync__timeout_s', 1.0, 'cannot change while the node is configured'),
        ('model__weights', '/etc/passwd', 'files.directory'),
    ],
)
def test_wrong_parameters_are_refused(vehicle: Vehicle, name: str, value: Any, text: str) -> None:
    (result,) = vehicle.set_parameters(**{name: value})
    assert not result.successful
    assert name.replace('__', '.') in result.reason and text in result.reason


def test_all_or_nothing(vehicle: Vehicle) -> None:
    (result,) = vehicle.set_parameters(True, score_threshold=1.0, markers__line_width_m=-1.0)
    assert not result.successful and 'markers.line_width_m' in result.reason
    assert len(vehicle.good().elements) > 0


def truncated(message: Any, part: float) -> bytes:
    from rclpy.serialization import serialize_message

    data = bytes(serialize_message(message))
    return data[: max(5, round(part * len(data)))]


@pytest.mark.parametrize('part', [0.0, 0.1, 0.5, 0.9])
def test_truncated_messages_on_the_wire(vehicle: Vehicle, part: float) -> None:
    """Bytes that are no whole message, on every topic that the node listens to."""
    from builtin_interfaces.msg import Time
    from rosgraph_msgs.msg import Clock
    from tf2_msgs.msg import TFMessage

    pose = TFMessage(transforms=[transform('odom', 'base_link', vehicle.stamp_ns(0), np.eye(4))])
    index = vehicle.index
    vehicle.images[VICTIM].publish(truncated(vehicle.image(index, VICTIM), part))
    vehicle.infos[VICTIM].publish(truncated(vehicle.info(index, VICTIM), part))
    vehicle.tf.publish(truncated(pose, part))
    vehicle.tf_static.publish(truncated(pose, part))
    vehicle.clock.publish(truncated(Clock(clock=Time(sec=5)), part))
    # What is left of a message may be one: whatever it was, good ones come through.
    vehicle.publish_static()
    vehicle.until_mapped()


def set_garbage(name: str, image: Any, info: Any) -> None:
    if name == VICTIM:
        info.k = [float('inf')] * 9
        info.d = [float('nan')] * 3
        info.width = 2**32 - 1
        info.roi.x_offset = 2**31
        info.distortion_model = '\x00\xff' * 10
        info.header.frame_id = '/'
        image.header.frame_id = 'x' * 10_000


def test_garbage_in_fields(vehicle: Vehicle) -> None:
    vehicle.publish_set(change=set_garbage)
    vehicle.map_at(vehicle.publish_set(change=set_garbage))
    vehicle.diagnosed(lambda d: d[f'camera {VICTIM}'][0] == ERROR)
    vehicle.publish_set()


def test_down_and_up_again(bench: Any, vehicle: Vehicle) -> None:
    vehicle.counters()
    assert vehicle.transition('deactivate')
    assert vehicle.state() == 'inactive'
    vehicle.publish_set()
    mapped = vehicle.counters()['sets_mapped']
    assert vehicle.transition('activate')
    vehicle.until_mapped()
    assert int(vehicle.counters()['sets_mapped']) > int(mapped)
    # A transition that does not exist from here is refused, and nothing happens.
    assert not vehicle.transition('configure')
    assert vehicle.state() == 'active'
    threads = usage(bench.node.pid).threads
    for _ in range(6):
        vehicle.reconfigure()
    vehicle.until_mapped()
    # Pools start their threads when they need them: less than one more for each time.
    assert usage(bench.node.pid).threads <= threads + 3
    vehicle.diagnosed(lambda d: d['memory'][2]['last_reset'] in ('requested', 'rig_changed', ''))


def test_calibration_may_come_late(vehicle: Vehicle) -> None:
    vehicle.reconfigure()
    before = vehicle.counters()
    vehicle.spin_until(
        lambda: (
            int(vehicle.counters_now().get('sets_dropped.unusable_images', 0))
            > int(before.get('sets_dropped.unusable_images', 0))
        ),
        'uncalibrated sets',
        lambda: vehicle.publish_set(infos=False),
    )
    found = vehicle.diagnosed(lambda d: d[f'camera {FRONT}'][0] == ERROR)
    assert f"nothing received on '{FRONT}/camera_info' yet" in found[f'camera {FRONT}'][1]
    vehicle.until_mapped()


def test_static_transforms_alone_are_no_pose(vehicle: Vehicle) -> None:
    vehicle.reconfigure()
    vehicle.maps.clear()
    vehicle.spin_until(
        lambda: (
            int(vehicle.counters_now().get('sets_dropped.no_transform', 0)) > 0
            and "'base_link' are not connected" in vehicle.latest()['pose'][1]
        ),
        'no pose',
        lambda: vehicle.publish_set(poses=False),
    )
    assert vehicle.maps == []
    vehicle.until_mapped()


@pytest.mark.parametrize('content', [None, 0.5, b'', b'not a model'])
def test_a_model_file_that_is_missing_or_cut_off(
    bench: Any, vehicle: Vehicle, content: Any
) -> None:
    path = bench.folder / 'other.safetensors'
    path.unlink(missing_ok=True)
    whole = bench.weights.read_bytes()
    if content is not None:
        path.write_bytes(whole[: len(whole) // 2] if content == 0.5 else content)
    if vehicle.state() == 'active':
        assert vehicle.transition('deactivate') and vehicle.transition('cleanup')
    assert all(r.successful for r in vehicle.set_parameters(model__weights=str(path)))
    assert not vehicle.transition('configure')
    assert vehicle.state() == 'unconfigured'
    found = vehicle.diagnosed(lambda d: d['camera sets'][0] == ERROR)
    assert 'other.safetensors' in found['camera sets'][1]
    assert 'Traceback' not in found['camera sets'][1]
    vehicle.reconfigure(model__weights=str(bench.weights))
    vehicle.until_mapped()


def test_files_outside_the_directory_are_refused(bench: Any, vehicle: Vehicle) -> None:
    """Also while nothing is configured, and also by a way through `..` or a link."""
    assert vehicle.transition('deactivate') and vehicle.transition('cleanup')
    link = bench.folder / 'link.safetensors'
    link.symlink_to('/etc/hostname')
    for path in ('/etc/hostname', f'{bench.folder}/../../x.safetensors', str(link)):
        (result,) = vehicle.set_parameters(model__weights=path)
        assert not result.successful and 'files.directory' in result.reason
        (result,) = vehicle.set_parameters(rig__file=path)
        assert not result.successful
    (result,) = vehicle.set_parameters(files__directory='/')
    assert not result.successful and 'when the node starts' in result.reason
    assert all(r.successful for r in vehicle.set_parameters(rig__file='nuscenes_like'))
    vehicle.reconfigure(rig__file='')
    vehicle.until_mapped()


def test_quality_of_service_of_the_cameras(bench: Any, vehicle: Vehicle) -> None:
    """Best effort hears both kinds of publishers; reliable hears nothing of best effort ones."""
    vehicle.make_cameras(best_effort=CAMERAS[::2])
    vehicle.reconfigure(image_reliability='best_effort')
    vehicle.until_mapped()
    vehicle.diagnosed(lambda d: all(d[f'camera {n}'][2]['images'] != '0' for n in CAMERAS))
    vehicle.reconfigure(image_reliability='reliable')
    vehicle.spin_until(
        lambda: (
            all(
                d[f'camera {n}'][0] == STALE
                for d in vehicle._diagnostics[-1:]
                for n in CAMERAS[::2]
            )
            and bool(vehicle.maps)
        ),
        'maps of the reliable cameras',
        vehicle.publish_set,
    )
    for name in CAMERAS[::2]:
        expected = f"topic '{name}/image_rect/compressed': a publisher offers an incompatible QoS"
        assert expected in bench.node.log_text()
    vehicle.make_cameras()
    vehicle.until_mapped()


def test_raw_images_and_wrong_encodings(bench: Any, vehicle: Vehicle) -> None:
    vehicle.make_cameras('raw')
    vehicle.reconfigure(image_transport='raw')
    vehicle.until_mapped()
    assert "raw images: own conversion (No module named 'cv_bridge_boost')" in (
        bench.node.log_text()
    )
    title = f'camera {VICTIM}'
    for field, value, text in (
        ('encoding', 'yuv422', "encoding 'yuv422' is not supported"),
        ('step', 10, 'step 10'),
        ('height', 2**31, 'holds'),
        ('data', b'', 'holds 0 bytes'),
    ):

        def change(
            name: str, image: Any, info: Any, field: str = field, value: Any = value
        ) -> None:
            if name == VICTIM:
                setattr(image, field, value)

        vehicle.map_at(vehicle.publish_set(change=change))
        vehicle.diagnosed(lambda d, text=text: text in d[title][2]['last_error'], text)
        vehicle.good()
    vehicle.make_cameras()
    vehicle.reconfigure(image_transport='compressed')
    vehicle.until_mapped()


def test_a_display_that_comes_later_is_cleared_at_first(bench: Any, vehicle: Vehicle) -> None:
    from visualization_msgs.msg import MarkerArray

    vehicle.until_mapped()
    arrays: list[Any] = []
    display = vehicle.node.create_subscription(
        MarkerArray, f'{vehicle.name}/local_map_markers', arrays.append, 10
    )

    def clears() -> list[list[bool]]:
        return [[m.action == m.DELETEALL for m in array.markers] for array in arrays]

    # For a moment every array begins with the removal, and nothing is removed behind it.
    vehicle.spin_until(
        lambda: bool(arrays) and not any(clears()[-1]), 'an array without it', vehicle.publish_set
    )
    vehicle.node.destroy_subscription(display)
    assert clears()[0][0], arrays[0]
    first = [array[0] for array in clears()]
    assert first == sorted(first, reverse=True) and not any(any(c[1:]) for c in clears())


def test_killed_and_started_again(bench: Any, vehicle: Vehicle) -> None:
    os.kill(bench.node.pid, signal.SIGKILL)
    assert bench.node.stop() == -signal.SIGKILL
    bench.node = bench.start()
    vehicle._diagnostics.clear()
    vehicle.markers.clear()
    vehicle.until_mapped()
    # The displays are cleared first: they may still show what the killed node drew.
    assert any(m.action == m.DELETEALL for array in vehicle.markers for m in array.markers)
    vehicle.diagnosed(lambda d: d['camera sets'][0] == OK)
