"""`gsmap convert` and `gsmap info`."""

from __future__ import annotations

import json

import pytest
from core.data.helpers.fake_recording import FakeRecording
from core.data.test_keyframe_json import make_folder

from gsmap_core.cli.main import main
from gsmap_core.data.bag import open_bag, write_bag


def output(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_convert_writes_a_bag_per_scene(tmp_path, capsys):
    make_folder(tmp_path / 'in', 'a', 1_000_000)
    make_folder(tmp_path / 'in', 'b', 1_500_000)
    make_folder(tmp_path / 'in', 'c', 1_000_000, scene='scene-y')
    arguments = ['convert', 'nuscenes-json', str(tmp_path / 'in'), str(tmp_path / 'out')]
    arguments += ['--workers', '1']
    assert main([*arguments, '--dry-run', '--json']) == 0
    assert [bag['frames'] for bag in output(capsys)['bags']] == [2, 1]
    assert not (tmp_path / 'out').exists()
    assert main([*arguments, '--json']) == 0
    printed = capsys.readouterr()
    assert [bag['frames'] for bag in json.loads(printed.out)['bags']] == [2, 1]
    assert 'CC BY-NC-SA' in printed.err
    assert len(open_bag(tmp_path / 'out' / 'scene-x')) == 2
    # Again: kept; other options need --overwrite; one scene alone; cut short.
    assert main(arguments) == 0
    assert capsys.readouterr().out.count('there already, kept') == 2
    assert main([*arguments, '--limit', '1']) == 1
    assert 'exists already and was converted with other options' in capsys.readouterr().out
    assert main([*arguments, '--overwrite', '--scene', 'scene-x', '--limit', '1']) == 0
    assert len(open_bag(tmp_path / 'out' / 'scene-x')) == 1
    assert main([*arguments, '--scene', 'scene-z']) == 2
    assert 'no scene scene-z' in capsys.readouterr().err


def test_info_describes_a_bag(tmp_path, capsys):
    recording = FakeRecording(num_frames=10, missing=frozenset({(4, 'cam_back'), (5, 'cam_back')}))
    write_bag(recording, tmp_path / 'd')
    assert main(['info', str(tmp_path / 'd'), '--json']) == 0
    report = output(capsys)
    back = report['topics']['/cam_back/image_rect/compressed']
    assert (back['count'], back['rate_hz']) == (8, 5.0)
    assert back['gaps'] == [{'at_s': 0.6, 'length_s': 0.6}]
    assert report['topics']['/tf']['rate_hz'] == 50.0
    assert report['topics']['/tf_static']['qos'] == 'reliable, transient_local'
    assert report['drive']['camera_sets'] == report['drive']['annotated_sets'] == 10
    assert report['drive']['incomplete_sets'] == 2
    assert report['metadata']['map_offset'] == '1000 2000 0'
    assert report['extent']['driven_m'] == pytest.approx(1.8 * 10.05, abs=0.02)
    assert report['cameras']['cam_front']['fx_fy_cx_cy'] == [50.0, 51.0, 31.5, 23.5]
    assert main(['info', str(tmp_path / 'd')]) == 0
    text = capsys.readouterr().out
    assert '| /tf | tf2_msgs/msg/TFMessage | ' in text
    assert '0.6 s at 0.6 s' in text


def test_info_of_a_damaged_bag_is_an_error(tmp_path, capsys):
    (tmp_path / 'x.mcap').write_bytes(b'\x89MCAP0\r\nand no more')
    assert main(['info', str(tmp_path / 'x.mcap')]) == 2
    assert 'mcap recover' in capsys.readouterr().err


def test_info_of_the_machine_and_of_a_configuration(capsys):
    assert main(['info', '--json']) == 0
    machine = output(capsys)
    assert {'python', 'interpreter', 'torch', 'torch_origin', 'gpus', 'rclpy'} <= set(machine)
    assert main(['info']) == 0
    assert f'- torch: {machine["torch"]}' in capsys.readouterr().out
    assert main(['info', '--config', 'maptr_mini', '--json']) == 0
    report = output(capsys)
    assert 0 < report['trainable_parameters'] <= report['total_parameters'] < 10_000_000
    assert main(['info', '--config', 'maptrv2_r50', '--json']) == 0
    report = output(capsys)
    assert report['total_parameters'] == 40_578_399
    assert report['trainable_parameters'] == 40_302_866
    assert report['official_only_parameters'] == 76_928
    assert report['used_parameters'] == 40_578_399 - 76_928
    assert main(['info', 'x', '--config', 'maptr_mini']) == 2


@pytest.mark.slow
def test_scenes_at_the_same_time_give_the_same_bags(tmp_path, capsys):
    make_folder(tmp_path / 'in', 'a', 1_000_000)
    make_folder(tmp_path / 'in', 'c', 1_000_000, scene='scene-y')
    make_folder(tmp_path / 'in', 'd', 1_000_000, scene='scene-z')
    (tmp_path / 'in' / 'd' / 'front.jpg').unlink()
    reports = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        command = ['convert', 'nuscenes-json', str(tmp_path / 'in'), str(out), '--json']
        assert main([*command, '--workers', str(workers)]) == 1
        bags = output(capsys)['bags']
        reports.append([(bag['scene'], bag['state'], bag.get('topics')) for bag in bags])
    assert reports[0] == reports[1]
    assert [state for _, state, _ in reports[0]] == ['written', 'written', 'failed']
