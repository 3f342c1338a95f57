"""`gsmap synth --repeat` drives routes again: the analysis finds those streets and no others."""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import pytest

from gsmap_core.cli import synth
from gsmap_core.data.pose_tables import pose_table_of_recording
from gsmap_core.data.synthetic.recording import SyntheticRecording
from gsmap_core.data.synthetic.scene import Town
from gsmap_core.data.synthetic.town import generate_town
from gsmap_core.data.traversals import TraversalAnalysis, TraversalConfig, analyse_traversals

#: Two drives share a street if they come this close on it [m]; an IoU of 0.5 is 20 m ahead.
NEAR_M = 15.0


def record(*options: str) -> list[SyntheticRecording]:
    """Return the drives that `gsmap synth` would make; nothing is rendered."""
    parser = argparse.ArgumentParser()
    synth.add_arguments(parser)
    specs = synth.plan_drives(parser.parse_args(['--out', 'none', '--rate', '2', *options]))
    towns = {seed: generate_town(seed, specs[0].setting) for seed in {s.town_seed for s in specs}}
    return [SyntheticRecording(spec, town=towns[spec.town_seed]) for spec in specs]


def analyse(recordings: list[SyntheticRecording]) -> TraversalAnalysis:
    tables = [
        pose_table_of_recording(item, [item.frame_stamp_ns(i) for i in range(len(item))])
        for item in recordings
    ]
    return analyse_traversals(tables, TraversalConfig(min_iou=0.5, max_iou=1.0))


def streets_at(town: Town, xy: np.ndarray) -> np.ndarray:
    """Return the number of the street each of (N, 2) positions lies on, whatever its direction."""
    nearest, street = np.full(len(xy), np.inf), np.zeros(len(xy), dtype=int)
    for lane, number in zip(town.lanes, town.lane_streets, strict=True):
        if number:
            distance = np.linalg.norm(xy[:, None] - lane[None], axis=-1).min(axis=1)
            street[distance < nearest] = abs(number)
            nearest = np.minimum(nearest, distance)
    return street


class Way:
    """Where a drive goes, ten times a second, and on which streets."""

    def __init__(self, recording: SyntheticRecording) -> None:
        self.xy = recording.trajectory.positions(np.arange(0.0, 20.0, 0.1))[0]
        self.streets = streets_at(recording.town, self.xy)

    def shares(self, other: Way) -> set[int]:
        """Return the streets along which two drives come near each other."""
        near = np.linalg.norm(self.xy[:, None] - other.xy[None], axis=-1) < NEAR_M
        same = near & (self.streets[:, None] == other.streets[None])
        return set(self.streets[same.any(axis=1)].tolist())


@pytest.fixture(scope='module')
def recordings() -> dict[str, SyntheticRecording]:
    options = ('--towns', '2', '--drives-per-town', '3', '--repeat', '1', '--setting', 'easy')
    return {item.name: item for item in record(*options)}


def test_exactly_the_repeated_streets_are_found(recordings) -> None:
    analysis = analyse(list(recordings.values()))
    pairs, drives = analysis.pairs, analysis.drives
    streets = [
        streets_at(recordings[table.name].town, table.map_from_base[:, :2, 3])
        for table in analysis.tables
    ]
    ways = {name: Way(item) for name, item in recordings.items()}
    found: dict[tuple[str, str], set[int]] = {}
    expected: dict[tuple[str, str], set[int]] = {}
    for i, j in itertools.combinations(range(len(drives)), 2):
        names = drives[i].name, drives[j].name
        of_two = (pairs.reference_drive == i) & (pairs.adjacent_drive == j)
        first = streets[i][pairs.reference_frame[of_two]]
        second = streets[j][pairs.adjacent_frame[of_two]]
        found[names] = set(first[first == second].tolist())
        same_town = drives[i].place == drives[j].place
        expected[names] = ways[names[0]].shares(ways[names[1]]) if same_town else set()
        assert same_town or not of_two.any()
    assert found == expected
    for name in recordings:
        if not name.endswith('-v1'):
            assert found[name, f'{name}-v1'], 'a route and its repetition share streets'
    # Other routes of a town share some streets, most none.
    others = {names: s for names, s in found.items() if names[0] != names[1].removesuffix('-v1')}
    assert 0 < sum(map(bool, others.values())) < len(others) / 5


def test_a_drive_without_repetition_is_single_traversal(recordings) -> None:
    lone = 'town-easy-0000-d001'
    others = [item for name, item in recordings.items() if name != f'{lone}-v1']
    kinds = {drive.name: drive.is_multi_traversal for drive in analyse(others).drives}
    assert [name for name, is_multi in kinds.items() if not is_multi] == [lone]
