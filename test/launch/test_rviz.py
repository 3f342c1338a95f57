"""The RViz configuration against what the nodes really publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gsmap_core.categories import CATEGORIES
from gsmap_core.rig import load_rig
from gsmap_ros.camera_input import image_topic, info_topic
from gsmap_ros.markers import ELLIPSE_NAMESPACE
from gsmap_ros.parameters import MAPPING_PARAMETERS
from gsmap_ros.stage_times import StageTimes

#: Namespace of markers -> whether it is shown from the start.
LAYERS = {c.name: True for c in CATEGORIES} | {
    c.name + ELLIPSE_NAMESPACE: False for c in CATEGORIES
}


@pytest.fixture
def view(repo_root: Path) -> dict[str, Any]:
    return yaml.safe_load((repo_root / 'config' / 'gsmap.rviz').read_text(encoding='utf-8'))[
        'Visualization Manager'
    ]


def default(name: str) -> Any:
    return next(record.default for record in MAPPING_PARAMETERS if record.name == name)


class PublisherNotes:
    """Takes the place of a node and notes the publishers it is asked for."""

    def __init__(self) -> None:
        self.publishers: dict[str, tuple[str, Any]] = {}
        self.name = ''

    def create_lifecycle_publisher(
        self, message_type: Any, topic: str, qos: Any, **options: Any
    ) -> object:
        self.publishers[topic.replace('~', self.name)] = (message_type.__name__, qos)
        return object()


def noted_publishers() -> dict[str, tuple[str, Any]]:
    """Message type and QoS of what mapping node and map builder publish, by topic."""
    from gsmap_ros.map_builder_output import MapBuilderOutput
    from gsmap_ros.map_output import MapOutput

    notes = PublisherNotes()
    for notes.name, output in (('mapping', MapOutput), ('map_builder', MapBuilderOutput)):
        output(notes, {})  # type: ignore[arg-type]
    return notes.publishers


def test_frames_and_view(view: dict[str, Any]) -> None:
    assert view['Global Options']['Fixed Frame'] == default('map_frame')
    current = view['Views']['Current']
    assert current['Class'] == 'rviz_default_plugins/TopDownOrtho'
    assert current['Target Frame'] == default('base_frame')


def test_map_displays_equal_their_publishers(
    view: dict[str, Any], ros_environment: dict[str, str]
) -> None:
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy

    noted = noted_publishers()
    shown = [d for d in view['Displays'] if d['Class'].endswith('/MarkerArray')]
    assert shown
    for display in shown:
        topic = display['Topic']
        kind, qos = noted[topic['Value']]
        assert kind == 'MarkerArray'
        words = {
            'Reliability Policy': {
                ReliabilityPolicy.RELIABLE: 'Reliable',
                ReliabilityPolicy.BEST_EFFORT: 'Best Effort',
            }[qos.reliability],
            'Durability Policy': {
                DurabilityPolicy.VOLATILE: 'Volatile',
                DurabilityPolicy.SYSTEM_DEFAULT: 'Volatile',
                DurabilityPolicy.TRANSIENT_LOCAL: 'Transient Local',
            }[qos.durability],
            'History Policy': {HistoryPolicy.KEEP_LAST: 'Keep Last'}[qos.history],
            'Depth': qos.depth,
        }
        assert {key: topic[key] for key in words} == words


def test_layers_are_the_namespaces_of_the_markers(view: dict[str, Any]) -> None:
    """Every category can be switched; ellipses are off until somebody wants them."""
    assert default('markers.ellipses') is False
    for display in view['Displays']:
        if display['Class'].endswith('/MarkerArray'):
            assert display['Namespaces'] == LAYERS, display['Name']


def test_every_marker_topic_is_shown(
    view: dict[str, Any], ros_environment: dict[str, str]
) -> None:
    published = {t for t, (kind, _) in noted_publishers().items() if kind == 'MarkerArray'}
    assert published <= {d['Topic']['Value'] for d in view['Displays'] if 'Topic' in d}


def test_image_display_accepts_every_camera(view: dict[str, Any]) -> None:
    """A best-effort display connects to reliable and best-effort publishers."""
    for display in view['Displays']:
        if display['Class'].endswith('/Image'):
            assert display['Topic']['Reliability Policy'] == 'Best Effort'
            assert not display['Topic']['Value'].startswith('/')


def test_there_is_a_panel_for_every_camera(view: dict[str, Any]) -> None:
    panels = [d['Topic']['Value'] for d in view['Displays'] if d['Class'].endswith('/Image')]
    assert sorted(panels) == sorted(
        image_topic(name, 'compressed', True) for name in load_rig('nuscenes_like').names
    )


@pytest.fixture
def layout(repo_root: Path) -> dict[str, Any]:
    """The layout for Foxglove."""
    return json.loads((repo_root / 'config' / 'foxglove.json').read_text(encoding='utf-8'))


def test_foxglove_places_every_panel_once(layout: dict[str, Any]) -> None:
    def leaves(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        assert node['direction'] in ('row', 'column') and 0 < node['splitPercentage'] < 100
        return leaves(node['first']) + leaves(node['second'])

    placed = leaves(layout['layout'])
    assert sorted(placed) == sorted(layout['configById'])


def test_foxglove_shows_what_the_nodes_publish(
    layout: dict[str, Any], ros_environment: dict[str, str]
) -> None:
    panels = layout['configById']
    markers = {f'/{t}' for t, (kind, _) in noted_publishers().items() if kind == 'MarkerArray'}
    above = panels['3D!map']
    assert set(above['topics']) == markers and above['followTf'] == default('base_frame')
    cameras = [name for name in panels if name.startswith('Image!')]
    names = load_rig('nuscenes_like').names
    shown = {panels[name]['imageMode']['imageTopic'] for name in cameras}
    assert shown == {f'/{image_topic(name, "compressed", True)}' for name in names}
    for name in cameras:
        mode = panels[name]['imageMode']
        camera = mode['imageTopic'].split('/')[1]
        assert mode['calibrationTopic'] == f'/{info_topic(camera)}'
    for name in ('3D!map', *cameras):
        for topic, settings in panels[name]['topics'].items():
            assert topic in markers
            hidden = {key: item['visible'] for key, item in settings['namespaces'].items()}
            assert hidden == LAYERS
    for name, panel in panels.items():
        if name.startswith('Diagnostic'):
            assert panel['topicToRender'] == '/diagnostics'
    timing = StageTimes().status().name
    assert panels['DiagnosticStatusPanel!timing']['selectedName'] == f'mapping: {timing}'


def test_names_are_unique_and_displays_have_topics(view: dict[str, Any]) -> None:
    names = [display['Name'] for display in view['Displays']]
    assert len(set(names)) == len(names)
    for display in view['Displays']:
        assert ('Topic' in display) == (display['Class'].split('/')[1] in ('MarkerArray', 'Image'))
