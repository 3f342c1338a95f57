"""The page of a drive: what is in the file, how large it is, and that it needs nothing else."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gsmap_core.errors import DataError
from gsmap_core.geometry.transforms import make_transform, transform_points
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap
from gsmap_core.viz.map_page import PageFrame, PageLimits, write_map_page


def pose(index: int) -> np.ndarray:
    """5 m a frame, in a bend, far from the origin."""
    yaw = 0.1 * index
    rotation = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return make_transform(rotation, [81_000.25 + 5.0 * index, -12_000.5 + index, 2.0])


def local_map(index: int) -> VectorMap:
    divider = MapElement(
        0,
        np.array([[0.0, 2.0], [10.0, 2.5], [20.0, 4.0]]),
        score=0.9,
        covariance=np.array([[0.04, 0.01, 0.09]] * 3),
        id=7,
    )
    crossing = MapElement(
        1, np.array([[5.0, -3.0], [8.0, -3.0], [8.0, 3.0]]), closed=True, score=0.2
    )
    return VectorMap(
        (divider, crossing), stamp_ns=10**18 + index * 500_000_000, map_from_base=pose(index)
    )


def page_frames(count: int, strip: bytes | None = b'picture') -> list[PageFrame]:
    return [PageFrame(index, local_map(index), strip) for index in range(count)]


def data_of(path: Path) -> dict:
    text = path.read_text(encoding='utf-8')
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert match is not None
    return json.loads(match[1])


def vertices(entry: dict, origin: list[float]) -> np.ndarray:
    return np.cumsum(np.reshape(entry['v'], (-1, 2)), axis=0) / 100 + origin[:2]


def test_elements_lie_where_they_were_to_the_centimetre(tmp_path: Path) -> None:
    result = write_map_page(tmp_path / 'a.html', page_frames(3))
    data = data_of(result.path)
    assert (result.num_frames, result.num_pictures) == (3, 3)
    assert result.num_bytes == result.path.stat().st_size
    for index, frame in enumerate(data['frames']):
        assert frame['n'] == index and frame['t'] == 0.5 * index
        assert frame['p'][2] == round(100 * index)
        for entry, element in zip(frame['e'], local_map(index).elements, strict=True):
            flat = np.column_stack([element.vertices, np.zeros(len(element.vertices))])
            truth = transform_points(pose(index), flat)[:, :2]
            # A centimetre of rounding, however many differences are added up.
            assert np.abs(vertices(entry, data['origin']) - truth).max() < 0.0051
            assert entry['s'] == element.score and entry.get('k', 0) == element.closed
    divider, crossing = data['frames'][2]['e']
    assert divider['i'] == 7 and 'i' not in crossing and 'g' not in crossing
    xx, xy, yy = np.array(divider['g'][:3]) / 1e4
    yaw = 0.2
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    expected = turn @ np.array([[0.04, 0.01], [0.01, 0.09]]) @ turn.T
    assert np.array([[xx, xy], [xy, yy]]) == pytest.approx(expected, abs=1e-4)
    assert [base64.b64decode(strip) for strip in data['strips']] == [b'picture'] * 3


def test_the_file_needs_nothing_else(tmp_path: Path) -> None:
    title = 'drive </script><script>alert(1)</script> & co'
    path = write_map_page(tmp_path / 'a.html', page_frames(1), title=title).path
    text = path.read_text(encoding='utf-8')
    # The one address is that of the pictures inside.
    addresses = re.findall(r'(?:\bsrc|\bhref)\s*=\s*(.{0,12})|(@import|https?:|url\()', text)
    assert addresses == [('`data:image/', '')]
    assert "default-src 'none'" in text and 'alert(1)</script>' not in text
    assert not re.search(r'\$(title|style|data|script)', text)
    assert not list(tmp_path.glob('.*'))


def test_a_long_drive_is_thinned_out_and_says_so(tmp_path: Path) -> None:
    full = write_map_page(tmp_path / 'a.html', page_frames(12, b'x' * 3000))
    assert 'shown' not in data_of(full.path)['summary']
    few = write_map_page(
        tmp_path / 'b.html', page_frames(12, b'x' * 3000), limits=PageLimits(max_frames=5)
    )
    data = data_of(few.path)
    assert [frame['n'] for frame in data['frames']] == [0, 3, 6, 9] and data['stride'] == 3
    assert data['summary'] == '12 frames, 4 s; one in 3 shown'
    limits = PageLimits(max_map_bytes=1000)
    small = write_map_page(tmp_path / 'c.html', page_frames(12, b'x' * 3000), limits=limits)
    assert small.num_frames < 12
    assert len(json.dumps(data_of(small.path)['frames'])) < 2 * 1000
    limits = PageLimits(max_picture_bytes=17_000)
    pictures = write_map_page(tmp_path / 'd.html', page_frames(12, b'x' * 3000), limits=limits)
    data = data_of(pictures.path)
    assert (pictures.num_frames, pictures.num_pictures) == (12, 4)
    assert sum(map(len, data['strips'])) <= 17_000
    # Each frame shows the newest picture that is not later than itself.
    assert [frame['s'] for frame in data['frames']] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert 'pictures of one in 3' in data['summary']
    nothing = write_map_page(
        tmp_path / 'e.html', page_frames(2), limits=PageLimits(max_picture_bytes=1)
    )
    assert nothing.num_pictures == 0
    assert [frame['s'] for frame in data_of(nothing.path)['frames']] == [-1, -1]


def test_ground_truth_near_the_drive_is_taken(tmp_path: Path) -> None:
    x, y = pose(0)[:2, 3]
    near = MapElement(2, np.array([[x - 500.0, y + 20.0], [x - 30.0, y + 20.0]]))
    far = MapElement(2, np.array([[x, y + 200.0], [x + 9.0, y + 200.0]]))
    area = PerceptionRange(x - 600.0, x + 600.0, y - 600.0, y + 600.0)
    truth = VectorMap((near, far), range=area, reference='map')
    data = data_of(write_map_page(tmp_path / 'a.html', page_frames(2), truth).path)
    assert len(data['truth']) == 1 and 's' not in data['truth'][0]
    found = vertices(data['truth'][0], data['origin'])
    assert found == pytest.approx(near.vertices, abs=0.0051)


def test_what_cannot_be_shown_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'a.html'
    with pytest.raises(DataError, match='no frame to show'):
        write_map_page(path, [])
    lost = PageFrame(0, replace(local_map(0), map_from_base=None, sample_id='f3'))
    with pytest.raises(DataError, match="local map 'f3' .* has no pose"):
        write_map_page(path, [lost])
    with pytest.raises(DataError, match="given in 'ego'; expected 'map'"):
        write_map_page(path, page_frames(1), local_map(0))
    with pytest.raises(DataError, match='max_frames is 0'):
        PageLimits(max_frames=0)
