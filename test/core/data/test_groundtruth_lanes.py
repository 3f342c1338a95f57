"""Chaining, doubles and joints of lane lines, on lines that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from gsmap_core.data import groundtruth_lanes
from gsmap_core.data.groundtruth_lanes import (
    LinkedLine,
    chain_lines,
    join_ends,
    without_doubles,
    without_overlapped,
)
from gsmap_core.errors import DataError


def linked(points, before=(), after=()):
    vertices = np.array([(*point, 0.0) for point in points], dtype=np.float64)
    return LinkedLine(vertices, tuple(before), tuple(after))


def coordinates(lines):
    return [shapely.get_coordinates(line).tolist() for line in lines]


def test_paths_run_from_every_root_to_every_leaf():
    lines = {
        1: linked([(0, 0), (10, 0)], after=[2, 3]),
        2: linked([(10, 0), (20, 5)], before=[1]),
        3: linked([(10, 0), (20, -5)], before=[1]),
        4: linked([(0, 9), (5, 9)]),
    }
    assert coordinates(chain_lines(lines)) == [
        [[0, 0], [10, 0], [20, 5]],
        [[0, 0], [10, 0], [20, -5]],
        [[0, 9], [5, 9]],
    ]


def test_links_bridge_gaps_and_ignore_lanes_outside():
    lines = {
        1: linked([(0, 0), (10, 0)], before=[77], after=[2, 99]),
        2: linked([(12, 4), (20, 4)]),
    }
    assert coordinates(chain_lines(lines)) == [[[0, 0], [10, 0], [12, 4], [20, 4]]]


def test_chained_lines_are_simplified_to_20_cm():
    lines = {1: linked([(0, 0), (5, 0.15), (10, 0), (15, 0.5), (20, 0)])}
    assert coordinates(chain_lines(lines)) == [[[0, 0], [10, 0], [15, 0.5], [20, 0]]]


def test_a_ring_of_lanes_has_no_root_and_no_path():
    ring = {
        1: linked([(0, 0), (10, 0)], before=[2], after=[2]),
        2: linked([(10, 0), (0, 0)], before=[1], after=[1]),
    }
    assert chain_lines(ring) == []


def test_a_broken_lane_graph_is_an_error_and_not_an_endless_wait(monkeypatch):
    monkeypatch.setattr(groundtruth_lanes, '_MAX_PATHS', 100)
    lines = {
        10 * step + side: linked(
            [(step, side), (step + 0.5, side)],
            after=[10 * (step + 1), 10 * (step + 1) + 1],
        )
        for step in range(8)
        for side in range(2)
    }
    with pytest.raises(DataError, match='more than 100 paths'):
        chain_lines(lines)


def test_doubles_are_found_by_the_overlap_of_their_buffers():
    line = shapely.LineString([(0, 0), (20, 0)])
    # Buffers 2 m wide, shifted by d: IoU = (2 - d) / (2 + d), 0.905 at 0.1 m and 0.896 at 0.11 m.
    near = shapely.LineString([(20, 0.1), (0, 0.1)])
    far = shapely.LineString([(0, 0.11), (20, 0.11)])
    assert without_doubles([line, near, far]) == [line, far]
    assert without_doubles([]) == []


def test_overlapped_lines_go_by_shared_area():
    kerb = shapely.LineString([(0, 0), (20, 0)])
    # Buffers 0.6 m wide, shifted by d: (0.6 - d) * 20 m^2 is above 0.2 * 20 where d < 0.4.
    near = shapely.LineString([(0, 0.35), (20, 0.35)])
    apart = shapely.LineString([(0, 0.45), (20, 0.45)])
    assert without_overlapped([near, apart], [kerb]) == [apart]
    # Among themselves: the one that comes first stays.
    assert without_overlapped([near, kerb, apart]) == [near]
    assert without_overlapped([apart, kerb]) == [apart, kerb]


def test_ends_are_joined_within_10_cm_whatever_their_direction():
    first = shapely.LineString([(0, 0), (10, 0)])
    reversed_next = shapely.LineString([(20, 0), (10.05, 0)])
    far = shapely.LineString([(20.2, 0), (30, 0)])
    assert coordinates(join_ends([first, reversed_next, far])) == [
        [[0, 0], [10, 0], [10.05, 0], [20, 0]],
        [[20.2, 0], [30, 0]],
    ]
    before = shapely.LineString([(-5, 0), (-0.05, 0)])
    assert coordinates(join_ends([first, before])) == [[[-5, 0], [-0.05, 0], [0, 0], [10, 0]]]
    both_starts = shapely.LineString([(0, 0.05), (0, 5)])
    assert coordinates(join_ends([first, both_starts])) == [[[0, 5], [0, 0.05], [0, 0], [10, 0]]]
