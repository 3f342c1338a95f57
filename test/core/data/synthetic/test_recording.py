"""Synthetic recordings: stamps, poses, ground truth, and pictures that show them."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from gsmap_core.categories import BOUNDARY, DIVIDER, PED_CROSSING
from gsmap_core.cli import synth
from gsmap_core.data.bag_metadata import read_custom_metadata
from gsmap_core.data.drives import Recording
from gsmap_core.data.synthetic.conditions import CONDITIONS, conditions_for_seed
from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
from gsmap_core.errors import ConfigError
from gsmap_core.geometry.camera import project_points
from gsmap_core.geometry.transforms import transform_points

SPEC = DriveSpec(
    town_seed=5, drive_seed=0, duration_s=12.0, rate_hz=5.0, image_width_px=320, conditions='noon'
)
TRAJECTORY_HASH = '0419325b1f1de99fd720565a83f0d3d5cc33a8a5404128e425247f2dade195db'
GROUND_TRUTH_HASH = 'ccbf4b06a822dd696c5cd12a3f60a7e4688619e4f583b0dfca2960f283403d4f'


@pytest.fixture(scope='module')
def recording() -> SyntheticRecording:
    return SyntheticRecording(SPEC)


def test_it_is_a_recording(recording: SyntheticRecording) -> None:
    assert isinstance(recording, Recording)
    assert recording.name == 'town-0005-d000'
    assert len(recording) == 61
    assert recording.metadata['town_seed'] == '5'
    assert recording.metadata['conditions'] == 'noon'


def test_trajectory_and_ground_truth_are_the_same_everywhere(
    recording: SyntheticRecording,
) -> None:
    assert recording.trajectory_hash() == TRAJECTORY_HASH
    assert recording.ground_truth_hash() == GROUND_TRUTH_HASH


def test_cameras_are_triggered_one_after_the_other(recording: SyntheticRecording) -> None:
    stamps = np.array(recording.camera_stamps_ns)
    references = np.array([recording.frame_stamp_ns(i) for i in range(len(recording))])
    assert np.array_equal(stamps[:, 0], references)
    assert np.all(np.diff(references) == 200_000_000)
    offsets = (stamps - references[:, None]) * 1e-6
    assert np.abs(offsets).max() < 42.0
    assert np.abs(offsets).max() > 25.0
    assert all(len(set(row)) == len(row) for row in stamps.tolist())
    names = recording.rig.names
    # Clockwise from above: right of the front camera comes later, left of it earlier.
    assert offsets[:, names.index('cam_front_right')].min() > 5.0
    assert offsets[:, names.index('cam_front_left')].max() < -5.0


def test_poses_enclose_the_images_on_a_raster_of_their_own(
    recording: SyntheticRecording,
) -> None:
    stamps = np.array([sample.stamp_ns for sample in recording.poses])
    images = np.array(recording.camera_stamps_ns)
    assert np.all(np.diff(stamps) == 20_000_000)
    assert stamps[0] < images.min() and stamps[-1] > images.max()
    assert np.abs(stamps[:, None] - images[:, 0][None]).min() > 1_000_000


def test_ground_truth_is_the_town_seen_from_the_vehicle(recording: SyntheticRecording) -> None:
    seen = set()
    for index in range(0, len(recording), 6):
        truth = recording.ground_truth(index)
        assert truth.reference == 'ego'
        assert truth.stamp_ns == recording.frame_stamp_ns(index)
        pose = recording.trajectory.pose(truth.stamp_ns)
        for element in truth.elements:
            seen.add(element.category)
            x, y = element.vertices[:, 0], element.vertices[:, 1]
            assert np.abs(x).max() <= 30 + 1e-6 and np.abs(y).max() <= 15 + 1e-6
            on_map = transform_points(pose, element.vertices)
            heights = recording.town.ground.height(on_map[:, :2])
            assert np.abs(on_map[:, 2] - heights).max() < 0.03
    assert seen == {DIVIDER.id, PED_CROSSING.id, BOUNDARY.id}
    assert recording.global_map is not None
    assert recording.global_map.reference == 'map'
    assert len(recording.global_map) == len(recording.town.elements)


def test_a_repetition_is_the_same_street_on_another_day() -> None:
    first = SyntheticRecording(replace(SPEC, conditions='mix'))
    again = SyntheticRecording(
        replace(SPEC, conditions='mix', variant=1, lateral_offset_m=0.3, reverse=True),
        town=first.town,
    )
    assert again.name == 'town-0005-d000-v1'
    assert again.spec.start_ns - first.spec.start_ns > 3600e9
    assert again.conditions != first.conditions
    times = np.arange(0.0, 6.0, 0.1)
    gaps = np.linalg.norm(
        first.trajectory.positions(times)[0][:, None] - again.trajectory.positions(times)[0][None],
        axis=-1,
    )
    assert (gaps.min(axis=1) < 25).mean() > 0.4


def test_frames_hold_jpegs_in_which_the_ground_truth_shows(
    recording: SyntheticRecording,
) -> None:
    index, crossing = next(
        (index, element)
        for index in range(len(recording))
        for element in recording.ground_truth(index).of_category(PED_CROSSING.id)
        if 9 < element.vertices[:, 0].mean() < 14 and abs(element.vertices[:, 1].mean()) < 6
    )
    frame = recording.frame(index)
    assert [image.camera for image in frame.images] == list(recording.rig.names)
    assert [image.stamp_ns for image in frame.images] == list(recording.camera_stamps_ns[index])
    assert frame.ground_truth is not None
    assert frame.sample_id == f'town-0005-d000-{index:06d}'
    for camera, image in zip(recording.rig.cameras, frame.images, strict=True):
        picture = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (camera.height_px, camera.width_px, 3)
    front = cv2.imdecode(np.frombuffer(frame.images[0].data, np.uint8), cv2.IMREAD_GRAYSCALE)
    centre = crossing.vertices.mean(axis=0)
    masks = []
    for scale in (0.95, 1.05, 1.3):
        ring = project_points(
            recording.rig.cameras[0], centre + scale * (crossing.vertices - centre)
        )
        assert (ring.depth_m > 0).all()
        mask = np.zeros(front.shape, np.uint8)
        masks.append(
            np.asarray(cv2.fillPoly(mask, [np.round(ring.pixels).astype(np.int32)], (1,))) > 0
        )
    inside, around = front[masks[0]], front[masks[2] & ~masks[1]]
    assert len(inside) > 200 and len(around) > 100
    assert inside.mean() > around.mean() + 25
    assert (inside > 140).mean() > 0.25
    assert (inside < 110).mean() > 0.25


def test_exposure_walks_slowly_and_per_camera(recording: SyntheticRecording) -> None:
    walk = np.log(recording.exposure_gains)
    assert walk.shape == (61, 6)
    assert 0 < np.abs(np.diff(walk, axis=0)).max() < 0.12
    assert np.std(walk[0]) > 0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'rate_hz': 20.0}, 'rate_hz = 20'),
        ({'duration_s': 0.0}, 'duration_s'),
        ({'lateral_offset_m': 2.0}, 'lateral_offset_m'),
        ({'conditions': 'fog'}, "'fog'"),
        ({'setting': 'hard'}, 'normal or easy'),
    ],
)
def test_impossible_specs_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SPEC, **change)  # type: ignore[arg-type]


def test_conditions_cover_the_required_ones_and_repeat() -> None:
    assert {'noon', 'morning', 'overcast', 'dusk', 'wet', 'night'} <= set(CONDITIONS)
    assert conditions_for_seed(4) == conditions_for_seed(4)
    assert {conditions_for_seed(seed).name for seed in range(60)} == set(CONDITIONS)


def test_any_light_can_be_had_in_any_town() -> None:
    def drawn(conditions: str) -> set[str]:
        specs = [
            replace(SPEC, setting='easy', conditions=conditions, variant=i) for i in range(60)
        ]
        return {spec.resolved_conditions().name for spec in specs}

    assert drawn('all') == set(CONDITIONS) and drawn('mix') == {'noon', 'overcast'}
    easy = {conditions_for_seed(seed, 'easy').name for seed in range(30)}
    assert easy == {'noon', 'overcast'}
    with pytest.raises(ConfigError, match='hard'):
        conditions_for_seed(0, 'hard')


def _synth(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    synth.add_arguments(parser)
    base = ['--out', str(folder), '--first-seed', '3', '--duration', '0.5', '--rate', '2']
    arguments = [*base, '--width', '64', '--setting', 'easy', '--json', *options]
    assert synth.run(parser.parse_args(arguments)) == 0
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


def test_synth_writes_bags_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = _synth(tmp_path, capsys, '--workers', '2', '--towns', '2')
    assert first['sets'] == 4 and first['skipped'] == 0
    names = ['town-easy-0003-d000.mcap', 'town-easy-0004-d000.mcap']
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    drives = first['drives']
    assert isinstance(drives, list)
    for drive, town_seed in zip(drives, (3, 4), strict=True):
        metadata = read_custom_metadata(Path(drive['path']))
        assert metadata['town_seed'] == str(town_seed)
        assert metadata['town_hash'] == drive['town_hash']
    (tmp_path / names[0]).unlink()
    second = _synth(tmp_path, capsys, '--workers', '1', '--towns', '2')
    assert second['sets'] == 2 and second['skipped'] == 1
    again = second['drives']
    assert isinstance(again, list)
    assert {**again[0], 'seconds': 0} == {**drives[0], 'seconds': 0}


def test_synth_refuses_impossible_counts(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    synth.add_arguments(parser)
    with pytest.raises(ConfigError, match='--towns 0'):
        synth.run(parser.parse_args(['--out', str(tmp_path), '--towns', '0']))
