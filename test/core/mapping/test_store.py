"""Tiles on disk: what is cut is joined again, memory stays small, kills lose nothing confirmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.noisy_streets import NoisyStreet

from gsmap_core.errors import DataError
from gsmap_core.mapping.global_map import GlobalMap, read_stored_map
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.mapping.store import (
    JOURNAL,
    StoreState,
    TileStore,
    tracks_from_bytes,
    tracks_to_bytes,
)
from gsmap_core.mapping.tiles import cut_at_borders, rejoined, tiles_around, tiles_of
from gsmap_core.mapping.track import Track
from gsmap_core.structures import VectorMap

SMALL = FusionSettings(tile_size_m=25.0, active_radius_m=50.0, confirm_observations=2)


def track(*vertices: tuple[float, float], identity: int = 1, closed: bool = False) -> Track:
    xy = np.array(vertices, dtype=np.float64)
    count = len(xy)
    return Track(
        id=identity,
        category=0,
        closed=closed,
        xy=xy,
        z=np.full(count, np.nan),
        information=np.linspace(1.0, 2.0, count),
        information_along=np.full(count, 3.0),
        hits=np.arange(count) + 5,
        evidence=np.full(count, 1.5),
    )


def assert_same(first: Track, second: Track) -> None:
    assert (first.id, first.category, first.closed) == (second.id, second.category, second.closed)
    for name in ('xy', 'z', 'information', 'information_along', 'hits', 'evidence'):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def same_maps(first: VectorMap, second: VectorMap) -> bool:
    return len(first) == len(second) and all(
        a.id == b.id
        and np.array_equal(a.vertices, b.vertices)
        and np.array_equal(a.covariance, b.covariance)
        for a, b in zip(first.elements, second.elements, strict=True)
    )


def test_a_line_is_cut_where_it_crosses_borders():
    line = track((-5.0, 1.0), (5.0, 1.0), (15.0, 11.0))
    pieces = cut_at_borders(line, 10.0)
    # x = 0 is crossed at y 1; the corner (x = 10 at y 6, then y = 10 at x 14) gives two more cuts.
    assert [tile for tile, _ in pieces] == [(-1, 0), (0, 0), (1, 0), (1, 1)]
    assert pieces[0][1].xy.tolist() == [[-5.0, 1.0], [0.0, 1.0]]
    assert pieces[1][1].xy[0].tolist() == [0.0, 1.0]
    np.testing.assert_allclose(pieces[2][1].xy, [[10.0, 6.0], [14.0, 10.0]])
    assert {piece.id for _, piece in pieces} == {1}
    (whole,) = rejoined([piece for _, piece in pieces])
    np.testing.assert_allclose(whole.xy[[0, -1]], line.xy[[0, -1]])
    assert len(whole) == 6
    assert tiles_of(line, 10.0) == {(-1, 0), (0, 0), (1, 0), (1, 1)}
    # A piece that ends on a border does not reach into the tile behind it.
    assert tiles_of(track((5.0, 1.0), (10.0, 1.0)), 10.0) == {(0, 0)}


def test_a_ring_is_not_cut():
    ring = track((-2.0, 1.0), (9.0, 1.0), (9.0, 5.0), closed=True)
    assert [(tile, len(piece)) for tile, piece in cut_at_borders(ring, 10.0)] == [((0, 0), 3)]


def test_tiles_around_a_place():
    assert tiles_around(np.array([5.0, 5.0]), 4.0, 10.0) == {(0, 0)}
    assert tiles_around(np.array([5.0, 5.0]), 5.0, 10.0) >= {(0, 0), (1, 0), (0, 1)}
    assert (1, 1) not in tiles_around(np.array([5.0, 5.0]), 6.0, 10.0)


def test_tiles_come_back_as_they_were(tmp_path: Path):
    tracks = [
        track((0.0, 1.0), (2.0, 3.0)),
        track((1, 1), (2, 1), (2, 2), identity=7, closed=True),
    ]
    for before, after in zip(tracks, tracks_from_bytes(tracks_to_bytes(tracks)), strict=True):
        assert_same(before, after)
    state = StoreState(1, 99, 8, (1.5, 2.5))
    store = TileStore(tmp_path, 10.0)
    store.commit({(0, 0): tracks, (3, -2): tracks[:1]}, state)
    store.commit({(3, -2): []}, replace(state, revision=2))
    store.close()
    again = TileStore(tmp_path, 10.0)
    assert again.state == replace(state, revision=2) and again.tiles == {(0, 0)}
    assert_same(again.read((0, 0))[1], tracks[1])
    assert again.read((3, -2)) == []
    assert len(list(tmp_path.glob('tile_*'))) == 1


def test_a_torn_line_of_the_journal_is_as_if_it_had_not_begun(tmp_path: Path):
    store = TileStore(tmp_path, 10.0)
    store.commit({(0, 0): [track((0, 1), (2, 3))]}, StoreState(1))
    whole = (tmp_path / JOURNAL).read_bytes()
    store.commit({(0, 0): [track((0, 1), (2, 4))]}, StoreState(2))
    store.close()
    line = (tmp_path / JOURNAL).read_bytes()[len(whole) :]
    kept = tmp_path / 'kept'
    kept.mkdir()
    for length in (0, 1, len(line) // 2, len(line) - 1):
        (tmp_path / JOURNAL).write_bytes(whole + line[:length])
        # The first commit's file is gone by then in a real run only after the line is whole.
        (tmp_path / 'tile_0_0.1.npz').write_bytes(tracks_to_bytes([track((0, 1), (2, 3))]))
        again = TileStore(tmp_path, 10.0)
        assert again.state.revision == 1
        assert again.read((0, 0))[0].xy.tolist() == [[0, 1], [2, 3]]
        again.commit({}, StoreState(2))
        again.close()
        assert TileStore(tmp_path, read_only=True).state.revision == 2


def test_a_journal_that_is_damaged_in_the_middle_is_refused(tmp_path: Path):
    store = TileStore(tmp_path, 10.0)
    for revision in (1, 2, 3):
        store.commit({}, StoreState(revision))
    store.close()
    lines = (tmp_path / JOURNAL).read_bytes().split(b'\n')
    lines[2] = lines[2].replace(b'revision', b'revisioN')
    (tmp_path / JOURNAL).write_bytes(b'\n'.join(lines))
    with pytest.raises(DataError, match='damaged at line 3'):
        TileStore(tmp_path, 10.0)


def test_a_long_journal_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('gsmap_core.mapping.store._MAX_LINES', 5)
    store = TileStore(tmp_path, 10.0)
    for revision in range(1, 9):
        store.commit({(0, 0): [track((0, 1), (2, revision))]}, StoreState(revision))
    store.close()
    again = TileStore(tmp_path, 10.0)
    assert (tmp_path / JOURNAL).read_bytes().count(b'\n') == 2
    assert again.state.revision == 8 and again.read((0, 0))[0].xy[1, 1] == 8


def test_one_writer_at_a_time(tmp_path: Path):
    store = TileStore(tmp_path, 10.0)
    with pytest.raises(DataError, match='in use by another'):
        TileStore(tmp_path, 10.0)
    assert TileStore(tmp_path, read_only=True).tile_size_m == 10.0
    store.close()
    with pytest.raises(DataError, match='tiles of 10 m, not 20 m'):
        TileStore(tmp_path, 20.0)
    TileStore(tmp_path, 10.0).close()


def test_damaged_and_foreign_files_are_named(tmp_path: Path):
    store = TileStore(tmp_path, 10.0)
    store.commit({(0, 0): [track((0, 1), (2, 3))]}, StoreState(1))
    (tmp_path / 'tile_0_0.1.npz').write_bytes(b'PK nothing')
    with pytest.raises(DataError, match=r'tile_0_0\.1\.npz.* is damaged'):
        store.read((0, 0))
    (tmp_path / 'tile_0_0.1.npz').unlink()
    with pytest.raises(DataError, match=r'tile_0_0\.1\.npz.* is missing'):
        store.read((0, 0))
    with pytest.raises(DataError, match='holds no map'):
        read_stored_map(tmp_path / 'nothing')


def test_a_map_goes_on_where_it_was_left(tmp_path: Path):
    street = NoisyStreet(length_m=60.0)
    frames = list(street.frames())
    fused = GlobalMap(SMALL, folder=tmp_path)
    for frame in frames[:20]:
        fused.integrate(frame)
    before = fused.to_vector_map()
    fused.close()
    again = GlobalMap(SMALL, folder=tmp_path)
    after = again.to_vector_map()
    assert [e.id for e in after.elements] == [e.id for e in before.elements]
    assert after.stamp_ns == before.stamp_ns
    for a, b in zip(before.elements, after.elements, strict=True):
        # Cut at borders and joined again: the ends are where they were, the length is the same.
        np.testing.assert_allclose(b.vertices[[0, -1]], a.vertices[[0, -1]], atol=1e-9)
        assert b.num_observations == a.num_observations
    for frame in frames[20:]:
        again.integrate(frame)
    assert len(again.to_vector_map()) == 4


def test_memory_is_bounded_and_what_was_left_is_found_again(tmp_path: Path):
    street = NoisyStreet(length_m=400.0, step_m=6.0)
    fused = GlobalMap(SMALL, folder=tmp_path)
    vertices, tiles = [], []
    frames = list(street.frames())
    for index, frame in enumerate(frames):
        fused.integrate(frame)
        vertices.append(fused.num_vertices)
        tiles.append(fused.num_tiles)
        if index == 3:
            early = [e.id for e in fused.to_vector_map().elements]
    # The last three quarters need no more than the first quarter did.
    assert max(vertices[20:]) <= 1.1 * max(vertices[:21])
    assert max(tiles[20:]) <= max(tiles[:21]) + 4
    assert fused.num_tiles_on_disk > 3 * fused.num_tiles
    whole = fused.whole_map()
    lengths = sorted(np.ptp(e.vertices[:, 0]) for e in whole.elements)
    # Three lines from end to end: nothing is lost where tiles went to disk.
    assert len(whole) == 4 and lengths[1] > 400 * np.cos(street.yaw_rad)
    # Back at the beginning: the same elements, not new ones beside them.
    fused.start_submap()
    for frame in frames[:5]:
        fused.integrate(frame)
    found = fused.to_vector_map()
    assert len(fused.whole_map()) == 4
    assert set(early) & {e.id for e in found.elements}
    fused.close()
    assert len(read_stored_map(tmp_path, SMALL)) == len(whole)


def test_reset_forgets_the_disk_as_well(tmp_path: Path):
    fused = GlobalMap(SMALL, folder=tmp_path)
    for frame in list(NoisyStreet(length_m=40.0).frames()):
        fused.integrate(frame)
    fused.commit()
    assert fused.num_tiles_on_disk
    fused.reset()
    assert fused.num_tiles_on_disk == 0 and not list(tmp_path.glob('tile_*'))
    fused.close()
    assert len(GlobalMap(SMALL, folder=tmp_path).to_vector_map()) == 0


def test_a_saved_map_replaces_everything_in_one_step(tmp_path: Path):
    fused = GlobalMap(SMALL, folder=tmp_path)
    for frame in list(NoisyStreet(length_m=40.0).frames()):
        fused.integrate(frame)
    saved = fused.to_vector_map()
    other = GlobalMap(SMALL, folder=tmp_path / 'other')
    assert other.replace_with(saved.elements, saved.stamp_ns) == len(saved)
    whole = other.whole_map()
    assert len(whole) == len(saved) and whole.stamp_ns == saved.stamp_ns
    for a, b in zip(saved.elements, whole.elements, strict=True):
        assert a.category == b.category and a.closed == b.closed
        np.testing.assert_allclose(
            np.sort(b.vertices[[0, -1], 0]) if not a.closed else 0,
            np.sort(a.vertices[[0, -1], 0]) if not a.closed else 0,
            atol=1e-6,
        )


KILLS = """
import json, os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
from helpers.noisy_streets import NoisyStreet
from gsmap_core.mapping.global_map import GlobalMap
from gsmap_core.mapping.settings import FusionSettings

folder, count, limit_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
settings = FusionSettings(tile_size_m=25.0, active_radius_m=50.0, confirm_observations=2)
frames = list(NoisyStreet(length_m=60.0, step_m=3.0).frames())
# One kerb is enough to lose, and quick.
frames = [replace(frame, elements=frame.elements[:1]) for frame in frames]
random.seed(4)


def confirmed(fused):
    elements = fused.to_vector_map().elements
    return {str(e.id): [e.num_observations, len(e.vertices)] for e in elements}


def child(pipe, start):
    fused = GlobalMap(settings, folder=folder)
    os.write(pipe, b'open\\n')
    for index in range(start, start + 1000):
        fused.integrate(frames[index % len(frames)])
        fused.commit()
        # Only now does anybody hear of it.
        os.write(pipe, (json.dumps([index, confirmed(fused)]) + '\\n').encode())


told, start, resumed = {}, 0, 0
for number in range(count):
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        child(writer, start)
        os._exit(0)
    os.close(writer)
    heard, lines = b'', random.choice((0, 1, 2, 3))
    # From its very first moment on, or at its work; then at any place within a frame.
    while heard.count(b'\\n') < lines:
        part = os.read(reader, 1 << 16)
        assert part, 'the child ended by itself'
        heard += part
    time.sleep(random.uniform(0.0, limit_s))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    while part := os.read(reader, 1 << 16):
        heard += part
    os.close(reader)
    for line in heard.replace(b'open\\n', b'').split(b'\\n')[:-1]:
        index, told = json.loads(line)
        start = index + 1
    fused = GlobalMap(settings, folder=folder)
    there = confirmed(fused)
    fused.close()
    missing = {key: value for key, value in told.items() if key not in there}
    # A commit that nobody has heard of yet may be there as well: seen more often, never less.
    fewer = {k: (v, there[k]) for k, v in told.items() if k in there and there[k][0] < v[0]}
    assert not missing and not fewer, (number, missing, fewer)
    resumed += bool(told)
print(json.dumps({'kills': count, 'resumed': resumed, 'frames': start}))
"""


def test_a_hundred_kills_lose_nothing_that_was_confirmed(tmp_path: Path, repo_root: Path):
    """A child maps and commits; it is killed at a random time; the next one goes on."""
    environment = {**os.environ, 'PYTHONPATH': f'{repo_root}:{repo_root / "test"}'}
    done = subprocess.run(
        [sys.executable, '-c', KILLS, str(tmp_path / 'map'), '100', '0.02'],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result['kills'] == 100
    # Most kills must hit a map that has something to lose.
    assert result['resumed'] > 50 and result['frames'] > 50
