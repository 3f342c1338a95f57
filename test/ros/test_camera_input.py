"""Camera topics: names by image_transport's rule, discovery, the choice of cameras."""

from __future__ import annotations

import pytest

from gsmap_core.errors import ConfigError
from gsmap_core.rig import load_rig
from gsmap_ros.camera_input import choose_cameras, discover_cameras, image_topic

COMPRESSED = ['sensor_msgs/msg/CompressedImage']
GRAPH = [
    ('/cam_back/image_rect/compressed', COMPRESSED),
    ('/cam_front_left/image_rect/compressed', COMPRESSED),
    ('/cam_front/image_rect/compressed', COMPRESSED),
    ('/cam_front/image_rect', ['sensor_msgs/msg/Image']),
    ('/cam_roof/image_raw', ['sensor_msgs/msg/Image']),
    ('/radar/image_rect/compressed', ['example_msgs/msg/Other']),
    ('/tf', ['tf2_msgs/msg/TFMessage']),
]


def test_topic_names() -> None:
    assert image_topic('cam', 'compressed', True) == 'cam/image_rect/compressed'
    assert image_topic('cam', 'raw', True) == 'cam/image_rect'
    assert image_topic('cam', 'compressed', False) == 'cam/image_raw/compressed'
    assert image_topic('cam', 'raw', False) == 'cam/image_raw'


def test_discovery_takes_topics_of_the_right_name_and_type_front_first() -> None:
    found = discover_cameras(GRAPH, 'compressed', True)
    assert found == ('cam_front', 'cam_front_left', 'cam_back')
    assert discover_cameras(GRAPH, 'raw', True) == ('cam_front',)
    assert discover_cameras(GRAPH, 'raw', False) == ('cam_roof',)


def test_straight_ahead_beats_shorter_names() -> None:
    names = ['ring_front_left', 'ring_front_center', 'ring_rear_left']
    graph = [(f'/{name}/image_rect/compressed', COMPRESSED) for name in names]
    assert discover_cameras(graph, 'compressed', True)[0] == 'ring_front_center'


def test_given_cameras_win_over_the_rig_and_the_rig_over_the_graph() -> None:
    rig = load_rig('nuscenes_like')
    given = rig.names[2:4]
    assert choose_cameras(given, rig, GRAPH, 'compressed', True) == given
    assert choose_cameras((), rig, GRAPH, 'compressed', True) == rig.names
    assert len(choose_cameras((), None, GRAPH, 'compressed', True)) == 3


def test_cameras_of_several_vehicles_are_listed_and_not_mixed() -> None:
    graph = [(f'/{car}/cam_front/image_rect/compressed', COMPRESSED) for car in ('a', 'b')]
    with pytest.raises(ConfigError, match='a/cam_front, b/cam_front'):
        choose_cameras((), None, graph, 'compressed', True)


def test_an_empty_graph_says_what_was_looked_for() -> None:
    with pytest.raises(ConfigError, match='<camera>/image_raw/compressed'):
        choose_cameras((), None, [], 'compressed', False)
