"""Parts of the map builder node without DDS: paths, messages, large markers, settings."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gsmap_core.errors import ConfigError, DataError
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap
from gsmap_ros.conversions import (
    fused_map_to_message,
    local_map_from_message,
    local_map_to_message,
)
from gsmap_ros.map_builder_parameters import MAP_BUILDER_PARAMETERS, fusion_settings
from gsmap_ros.map_builder_parts import file_inside, origin_from_text, usable_directory
from gsmap_ros.markers import MAX_STRIPS, MarkerStyle, list_markers

LINE = np.array([[0.0, 1.0], [5.0, 1.5], [9.0, 2.0]])


@pytest.mark.parametrize(
    'name',
    [
        '', '.', '..', '../x.map.json', '/etc/x.map.json', 'a/../../x.map.json', 'link.map.json',
        'tiles/x.map.json', 'x.json', 'away/x.map.json',
    ],
)  # fmt: skip
def test_map_files_stay_inside_their_folder(tmp_path: Path, name: str) -> None:
    directory = usable_directory(str(tmp_path / 'map'))
    (directory / 'link.map.json').symlink_to(tmp_path / 'outside.map.json')
    (directory / 'away').symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r"'map\.file' is "):
        file_inside(directory, name)


def test_map_files_inside_are_accepted(tmp_path: Path) -> None:
    directory = usable_directory(str(tmp_path / 'new' / 'map'))
    assert file_inside(directory, 'town.map.json') == directory / 'town.map.json'
    assert file_inside(directory, 'a/b.map.json') == directory / 'a' / 'b.map.json'


def test_folders_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match=r"'map\.directory' is .*cannot be made"):
        usable_directory(str(tmp_path / 'file' / 'map'))
    with pytest.raises(ConfigError, match='is empty'):
        usable_directory('')


def test_origins() -> None:
    assert origin_from_text('  ') is None
    origin = origin_from_text('48.1, 11.5 520')
    assert origin is not None and origin.altitude_m == 520.0
    for text in ('48.1', 'here there', '1 2 3 4'):
        with pytest.raises(ConfigError, match='LATITUDE LONGITUDE'):
            origin_from_text(text)


def test_parameters_of_the_fusion_are_its_settings() -> None:
    values = {record.name: record.default for record in MAP_BUILDER_PARAMETERS}
    assert fusion_settings(values) == FusionSettings()
    changed = {**values, 'fusion.spacing_m': 0.5, 'score_threshold': 0.7}
    assert fusion_settings(changed) == FusionSettings(spacing_m=0.5, min_score=0.7)
    with pytest.raises(ConfigError, match='false_probability'):
        fusion_settings({**values, 'fusion.false_probability': 0.9})


def element(**changes: Any) -> SimpleNamespace:
    values: dict[str, Any] = {
        'category': 2,
        'id': 4,
        'score': 0.5,
        'closed': False,
        'vertices': [SimpleNamespace(x=x, y=y, z=0.0) for x, y in LINE],
        'covariance': [0.1, 0.0, 0.2] * 3,
        'num_observations': 1,
    }
    return SimpleNamespace(**{**values, **changes})


def message(*elements: SimpleNamespace, **changes: Any) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=3, nanosec=5)
    values: dict[str, Any] = {
        'header': SimpleNamespace(frame_id='base_link', stamp=stamp),
        'sample_id': '',
        'x_min': -30.0,
        'x_max': 30.0,
        'y_min': -15.0,
        'y_max': 15.0,
        'has_z': False,
        'elements': elements,
    }
    return SimpleNamespace(**{**values, **changes})


def test_local_maps_are_read_from_messages() -> None:
    local_map, refused = local_map_from_message(message(element()), 'base_link')
    assert not refused and local_map.stamp_ns == 3_000_000_005
    (found,) = local_map.elements
    np.testing.assert_array_equal(found.vertices, LINE)
    assert found.covariance is not None and found.covariance[1].tolist() == [0.1, 0.0, 0.2]
    assert (found.category, found.id, found.score) == (2, 4, 0.5)


@pytest.mark.parametrize(
    'broken',
    [
        {'category': 255},
        {'vertices': []},
        {'vertices': [SimpleNamespace(x=math.nan, y=0.0, z=0.0)] * 3},
        {'score': math.nan},
        {'score': 7.0},
        {'covariance': [1.0, 2.0]},
        {'covariance': [math.inf] * 9},
    ],
)
def test_elements_that_are_none_are_left_out_and_named(broken: dict[str, Any]) -> None:
    local_map, refused = local_map_from_message(
        message(element(), element(**broken), element()), 'base_link'
    )
    assert len(local_map) == 2
    assert len(refused) == 1 and refused[0].startswith('element 1: ')


def test_messages_without_a_usable_frame_or_range_are_refused() -> None:
    with pytest.raises(DataError, match="frame 'base_link'; expected 'car'"):
        local_map_from_message(message(), 'car')
    with pytest.raises(DataError, match='finite numbers'):
        local_map_from_message(message(x_max=math.nan), 'base_link')
    with pytest.raises(DataError, match='is empty'):
        local_map_from_message(message(x_max=-40.0), 'base_link')


def test_messages_there_and_back(ros_messages: None) -> None:
    covariance = np.tile([0.25, 0.0, 0.5], (3, 1))
    local = VectorMap((MapElement(0, LINE, score=0.75, covariance=covariance, id=3),), 7_000)
    found, refused = local_map_from_message(local_map_to_message(local, 'base_link'), 'base_link')
    assert not refused and found.stamp_ns == 7_000 and found.range == local.range
    np.testing.assert_array_equal(found.elements[0].vertices, LINE)
    np.testing.assert_array_equal(found.elements[0].covariance, covariance)


def test_fused_map_message(ros_messages: None) -> None:
    area = PerceptionRange(-100.0, 200.0, -50.0, 75.0)
    fused = VectorMap((MapElement(0, LINE, score=0.9, id=3, num_observations=17),), 7, area, 'map')
    result = fused_map_to_message(fused, 'world', 12)
    assert result.header.frame_id == 'world' and result.revision == 12
    assert (result.x_max, result.y_min) == (200.0, -50.0) and not result.has_z
    assert result.elements[0].num_observations == 17 and result.elements[0].id == 3
    with pytest.raises(DataError, match="expected 'map'"):
        fused_map_to_message(VectorMap(()), 'map', 0)


def test_large_maps_are_drawn_as_few_lists(ros_messages: None) -> None:
    ring = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0]])
    elements = [MapElement(0, LINE + [150.0 * (i % 3), 0.0], id=i + 1) for i in range(400)]
    elements.append(MapElement(1, ring - [500.0, 500.0], closed=True, id=900))
    assert len(elements) > MAX_STRIPS
    fused = VectorMap(tuple(elements), reference='map')
    array, shown = list_markers(fused, 'map', MarkerStyle(), frozenset({('divider', 5)}))
    added = [m for m in array.markers if m.action == 0]
    # Three squares of dividers, one of a crossing; what was there before is deleted.
    assert len(added) == 4 and len({(m.ns, m.id) for m in added}) == 4 == len(shown)
    assert [(m.ns, m.id) for m in array.markers if m.action == 2] == [('divider', 5)]
    assert sum(len(m.points) for m in added if m.ns == 'divider') == 400 * 2 * 2
    (crossing,) = [m for m in added if m.ns == 'ped_crossing']
    assert len(crossing.points) == 6
    assert all(m.type == 5 and 0 < m.id < 2**31 for m in added)
    again, _ = list_markers(fused, 'map', MarkerStyle(), shown)
    assert {(m.ns, m.id) for m in again.markers} == shown
