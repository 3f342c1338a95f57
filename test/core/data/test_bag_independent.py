"""Bags read by another implementation: the `mcap` and `mcap-ros2-support` packages."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from core.data.helpers.fake_recording import START_NS, FakeRecording

from gsmap_core.data.bag import image_topic, write_bag

mcap_reader = pytest.importorskip('mcap.reader', reason='the mcap package is not installed')
mcap_ros2 = pytest.importorskip('mcap_ros2.decoder', reason='mcap-ros2-support is not installed')


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'drive'
    summary = write_bag(FakeRecording(), path, lidar=True)
    return path, summary


def test_counts_types_and_stamps(bag):
    path, summary = bag
    with (path / 'drive.mcap').open('rb') as file:
        reader = mcap_reader.make_reader(file, decoder_factories=[mcap_ros2.DecoderFactory()])
        content = reader.get_summary()
        channels = content.channels
        counts = {
            channels[number].topic: count
            for number, count in content.statistics.channel_message_counts.items()
        }
        assert counts == summary.topics
        assert reader.get_header().profile == 'ros2'
        assert {channel.message_encoding for channel in channels.values()} == {'cdr'}
        previous = 0
        for _, channel, record, message in reader.iter_decoded_messages():
            assert record.log_time == record.publish_time >= previous
            previous = record.log_time
            header = message.transforms[0].header if 'tf' in channel.topic else message.header
            stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
            assert stamp == record.log_time, channel.topic


def test_latched_topics_are_recorded_transient_local(bag):
    path, _ = bag
    with (path / 'drive.mcap').open('rb') as file:
        content = mcap_reader.make_reader(file).get_summary()
    durability = {}
    for channel in content.channels.values():
        (profile,) = yaml.safe_load(channel.metadata['offered_qos_profiles'])
        assert profile['reliability'] == 1  # reliable, as rosbag2 numbers it
        durability[channel.topic] = profile['durability']
    latched = {topic for topic, value in durability.items() if value == 1}
    assert latched == {'/tf_static', '/ground_truth/map'}
    information = yaml.safe_load((path / 'metadata.yaml').read_text())
    information = information['rosbag2_bagfile_information']
    assert information['storage_identifier'] == 'mcap'
    assert information['relative_file_paths'] == ['drive.mcap']
    assert information['custom_data']['map_offset'] == '1000 2000 0'


def test_jpeg_bytes_are_the_original_ones(bag):
    path, _ = bag
    recording = FakeRecording()
    with (path / 'drive.mcap').open('rb') as file:
        reader = mcap_reader.make_reader(file, decoder_factories=[mcap_ros2.DecoderFactory()])
        images = [m for *_, m in reader.iter_decoded_messages([image_topic('cam_back')])]
    assert len(images) == 5
    for index, message in enumerate(images):
        assert bytes(message.data) == recording.jpeg(index, 'cam_back')
        assert message.format == 'rgb8; jpeg compressed bgr8'
        assert message.header.frame_id == 'cam_back_optical_frame'


def test_calibration_reads_the_same_from_k_and_p(bag):
    path, _ = bag
    with (path / 'drive.mcap').open('rb') as file:
        reader = mcap_reader.make_reader(file, decoder_factories=[mcap_ros2.DecoderFactory()])
        infos = [m for *_, m in reader.iter_decoded_messages(['/cam_front/camera_info'])]
    assert len(infos) == 5
    k = np.array(infos[0].k).reshape(3, 3)
    np.testing.assert_array_equal(np.array(infos[0].p).reshape(3, 4)[:, :3], k)
    np.testing.assert_array_equal(k, FakeRecording().rig.cameras[0].intrinsics)
    assert not any(infos[0].d)
    assert (infos[0].width, infos[0].height) == (64, 48)


def test_the_tree_is_complete_and_statics_come_once(bag):
    path, _ = bag
    with (path / 'drive.mcap').open('rb') as file:
        reader = mcap_reader.make_reader(file, decoder_factories=[mcap_ros2.DecoderFactory()])
        statics = [m for *_, m in reader.iter_decoded_messages(['/tf_static'])]
        poses = [m for *_, m in reader.iter_decoded_messages(['/tf'])]
    assert len(statics) == 1
    edges = {(t.header.frame_id, t.child_frame_id) for t in statics[0].transforms}
    assert edges == {
        ('map', 'odom'),
        ('base_link', 'cam_front_optical_frame'),
        ('base_link', 'cam_back_optical_frame'),
    }
    assert {(t.header.frame_id, t.child_frame_id) for m in poses for t in m.transforms} == {
        ('odom', 'base_link')
    }
    last_image = START_NS + 4 * 200_000_000 + 30_000_000
    stamp = poses[-1].transforms[0].header.stamp
    assert stamp.sec * 10**9 + stamp.nanosec > last_image


def test_map_messages_decode_with_the_recorded_definitions(bag):
    path, _ = bag
    with (path / 'drive.mcap').open('rb') as file:
        reader = mcap_reader.make_reader(file, decoder_factories=[mcap_ros2.DecoderFactory()])
        truths = [m for *_, m in reader.iter_decoded_messages(['/ground_truth/local_map'])]
    frames = list(FakeRecording().frames())
    for message, frame in zip(truths, frames, strict=True):
        assert message.sample_id == frame.sample_id
        for element, expected in zip(message.elements, frame.ground_truth.elements, strict=True):
            found = [[v.x, v.y, v.z] for v in element.vertices]
            np.testing.assert_array_equal(found, expected.vertices)
            assert (element.category, element.closed) == (expected.category, expected.closed)
